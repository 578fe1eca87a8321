"""kill -9 in the middle of backup, prune, restore, undo, delete: what is listed is whole, an address old or new."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from prontodb.doctor import examine
from prontodb.engine.sqlite import folders, opening
from prontodb.errors import NotFoundError, ProntoError
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.checking import keystore_faults
from tests.crash import tracing
from tests.crash.backup_worker import HOME, do, finish, work_of
from tests.crash.judging import sampled
from tests.crash.tracing import Call
from tests.managing import Child, environment
from tests.parts import fill, value

pytestmark = pytest.mark.crash
needs_strace = pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace()))

SEED = 20_261_121
OTHER = Address("other", "x")
RETENTION = (
    '{"format": 1, "backups": {"retention": {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}}}'
)

VICTIM = str(tracing.CHECKOUT / "tests" / "crash" / "backup_worker.py")
BESIDE = "import sys; from tests.crash.backup_worker import main; main(*sys.argv[1:])"

HELD: dict[str, set[str | None]] = {  # what agent/home may hold after a kill: None is gone
    "full": {"1"},
    "incremental": {"1"},
    "prune": {"1"},
    "restore": {"1", "3"},
    "undo": {"1", "4"},
    "delete": {"1", None},
}
STEPS = [
    *(("full", step) for step in ("backup.manifest", "backup.published")),
    *(("incremental", step) for step in ("backup.manifest", "backup.published")),
    ("prune", "prune.moved"),
    *(("restore", f"restore.{step}") for step in ("begun", "staged", "aside", "placed", "registered")),
    ("undo", "undo.aside"),
    *(("delete", f"delete.{step}") for step in ("marked", "moved", "forgotten", "emptied")),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two chains of backups, agent/home at 1 after a restore, and what it held before, 4, put aside."""
    root = tmp_path_factory.mktemp("made") / "root"
    root.mkdir(mode=0o700)
    work = work_of(root)
    fill(root, str(HOME), {"n": "1", "big": "ä" * 30_000})
    fill(root, str(OTHER), {"n": "1"})
    first = finish(work.backup())
    fill(root, str(HOME), {"n": "2"})
    finish(work.backup())
    finish(work.backup(full=True))
    fill(root, str(HOME), {"n": "3"})
    finish(work.backup())
    fill(root, str(HOME), {"n": "4"})
    finish(work.restoring(first.id, user=HOME.user, cursor=HOME.cursor).steps())
    fill(root, str(OTHER), {"n": "2"})
    config = root / "registry/global_config.json"
    config.write_text(RETENTION)
    config.chmod(0o600)
    return root


def copied(made: Path, place: Path) -> Path:
    """A copy of the root: nobody has it open, so its files may be read by path."""
    shutil.copytree(made, place)
    return place


def victim(root: Path, act: str, step: str = "", way: str = "kill") -> list[str]:
    return [sys.executable, "-W", "error", VICTIM, str(root), act, step, way]


def whole(root: Path) -> list[str]:
    """What is wrong with the backups of a root: each file of all of them, and every state of the newest."""
    work = work_of(root)
    listing = work.backups()
    faults = [f"{broken.id} is listed and cannot be read: {broken.reason}" for broken in listing.unreadable]
    for reference in (None, listing.backups[-1].id):
        faults += [f"{backup}: {problem}" for backup, problem in finish(work.verify(reference)).problems]
    return faults


def left_over(root: Path) -> list[str]:
    """What a crash left that a next run should have taken away."""
    found = []
    for folder, below, _ in os.walk(root):
        found += [f"{folder}/{name}" for name in below if name.startswith((".tmp-", ".trash-", ".new-", ".scratch"))]
    return found


def judged(root: Path, act: str, before: set[str]) -> list[str]:
    """What is wrong with a root in the middle of whose `act` somebody died, now and after the next commands."""
    faults = whole(root)
    now = {one.id for one in work_of(root).backups().backups}
    if act != "prune" and not before <= now:
        faults.append(f"backups went: {before - now}")
    if value(root, str(HOME), "n") not in HELD[act]:
        faults.append(f"{HOME} holds {value(root, str(HOME), 'n')}")
    if value(root, str(OTHER), "n") != "2":
        faults.append(f"{OTHER} holds {value(root, str(OTHER), 'n')}")
    examine(Layout(str(root)), Limits(), Clock(), deep=True, repair=True)
    again = examine(Layout(str(root)), Limits(), Clock(), deep=True)
    faults += [f"after one repair: {finding.what}" for finding in again.findings]
    try:
        do(root, act)
    except NotFoundError:
        assert act == "undo", "only what was undone already can be missing"
    faults += whole(root) + [f"left over: {path}" for path in left_over(root)]
    for address in folders.listed(Layout(str(root))):
        faults += [f"{address}: {fault}" for fault in keystore_faults(str(root), address)]
    return faults


def ids(root: Path) -> set[str]:
    return {one.id for one in work_of(root).backups().backups}


@pytest.mark.parametrize(("act", "step"), STEPS)
def test_a_kill_at_any_step_leaves_whole_backups_and_addresses_old_or_new(
    act: str, step: str, made: Path, tmp_path: Path
) -> None:
    root = copied(made, tmp_path / "root")
    before = ids(root)
    done = subprocess.run(victim(root, act, step), env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, f"{act} never came to {step}: {done.stderr}"
    new = ids(root) - before
    assert bool(new) == (step == "backup.published"), "it exists from the rename on, and not before"
    assert judged(root, act, before) == []


SAMPLED = {
    "full": {"pwrite64": 2, "fsync": 1},
    "incremental": {"write": 2},
    "prune": {"unlinkat": 3},
    "restore": {"pwrite64": 1, "renameat": 2, "fsync": 1},
    "undo": {"renameat": 1, "fsync": 1},
    "delete": {"unlinkat": 2},
}
"""How many instants of each system call are tried; failpoints try the steps that have names."""


@needs_strace
@pytest.mark.parametrize("act", SAMPLED)
def test_a_kill_at_any_system_call_leaves_whole_backups_and_addresses_old_or_new(
    act: str, made: Path, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    found = counted(made, tmp_path, act)
    instants = [call for name, most in SAMPLED[act].items() for call in sampled_few(found, name, most)]
    assert len(instants) == sum(SAMPLED[act].values()), "the sample is of calls that are not made any more"
    with ThreadPoolExecutor(max_workers=2) as pool:  # one waits for its victim while the other judges
        faults = list(pool.map(lambda call: faults_of_a_kill(made, tmp_path, act, call), instants))
    assert [fault for of in faults for fault in of] == []


def counted(made: Path, tmp_path: Path, act: str) -> list[Call]:
    """The writing calls of one undisturbed run below its root."""
    root, log = copied(made, tmp_path / "counted"), tmp_path / "log"
    options = ("--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={tracing.WRITING}")
    done = tracing.traced(root, *options, command=victim(root, act))
    assert done.returncode == 0, done.stderr
    return tracing.calls(log, root)


def sampled_few(found: list[Call], name: str, most: int) -> list[Call]:
    if most > 1:
        return sampled(found, name, most, SEED)
    return [call for call in found if call.name == name][-1:]


def faults_of_a_kill(made: Path, tmp_path: Path, act: str, call: Call) -> list[str]:
    root = copied(made, tmp_path / f"{call.name}{call.number}")
    before = ids(root)
    inject = f"inject={call.name}:signal=KILL:when={call.number}"
    options = ("-o", "/dev/null", "-e", f"trace={call.name}", "-e", inject)
    done = tracing.traced(root, *options, command=victim(root, act))
    assert done.returncode in (137, -9), f"not killed: {done}"
    return [f"{call.name} {call.number} ({call.text[:100]}): {fault}" for fault in judged(root, act, before)]


@needs_strace
def test_what_a_restore_put_aside_is_whole_or_gone_wherever_its_removal_is_killed(made: Path, tmp_path: Path) -> None:
    aside = re.compile(r"/\.(?:old|trash)-")
    calls = [call for call in counted(made, tmp_path, "delete") if call.name == "unlinkat" and aside.search(call.text)]
    assert len(calls) > 3

    def faults(call: Call) -> list[str]:
        root = copied(made, tmp_path / str(call.number))
        inject = f"inject=unlinkat:signal=KILL:when={call.number}"
        options = ("-o", "/dev/null", "-e", "trace=unlinkat", "-e", inject)
        tracing.traced(root, *options, command=victim(root, "delete"))
        try:
            if not work_of(root).undoable():
                return []
            work_of(root).undo_restore(HOME)
            files = {path.name for path in (root / "addresses" / str(HOME)).iterdir()}
            missing = {"keystore.db", "metadata.json"} - files
            found = [f"brought back without {sorted(missing)}"] if missing else []
            return found + ([] if value(root, str(HOME), "n") == "4" else ["another value came back"])
        except ProntoError as error:
            return [repr(error)]

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = [f"{call.text[:80]}: {fault}" for call in calls for fault in pool.submit(faults, call).result()]
    assert found == []


@pytest.mark.parametrize("full", [True, False])
def test_a_backup_after_a_restore_was_killed_between_its_renames_has_the_address(
    full: bool, made: Path, tmp_path: Path
) -> None:
    root = copied(made, tmp_path / "root")
    subprocess.run(victim(root, "restore", "restore.aside"), env=environment(), capture_output=True)
    report = finish(work_of(root).backup(full=full))
    assert (report.gone, report.addresses + len(report.failed)) == ((), 2)


KILLED_IN_A_TRIAL = """
import os, signal, sys
from prontodb.backup import verify
from tests.crash.backup_worker import finish, work_of

def killed(*words, put_together=verify.put_together, **options):
    put_together(*words, **options)
    os.kill(os.getpid(), signal.SIGKILL)

verify.put_together = killed
finish(work_of(sys.argv[1]).verify())
"""


def test_a_killed_verification_leaves_a_trial_that_the_next_one_takes_away(made: Path, tmp_path: Path) -> None:
    root = copied(made, tmp_path / "root")
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_TRIAL, str(root)], env=environment(), capture_output=True)
    assert done.returncode == -9, done
    assert left_over(root) != []
    assert whole(root) == []
    assert left_over(root) == []


@pytest.mark.parametrize(("act", "step", "end"), [
    ("restore", "restore.aside", "go on"), ("restore", "restore.aside", "kill"), ("undo", "undo.aside", "go on"),
])  # fmt: skip
def test_a_reader_between_the_two_renames_waits_and_never_sees_a_miss(
    act: str, step: str, end: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(made, tmp_path / "root")
    waiting, found = threading.Event(), []

    def rest(seconds: float) -> None:
        waiting.set()
        time.sleep(seconds)

    stepping = SimpleNamespace(monotonic=time.monotonic, sleep=rest)
    monkeypatch.setattr(opening, "time", stepping)
    with Child(BESIDE, root, act, step, "wait") as child:
        assert child.line() == "there"
        assert not (root / "addresses" / str(HOME)).exists()
        reader = threading.Thread(target=lambda: found.append(value(root, str(HOME), "n")))
        reader.start()
        assert waiting.wait(20), "it looked, and said miss"
        if end == "kill":
            child.process.kill()
        else:
            child.tell("go on")
        reader.join(20)
    new = {"restore": "3", "undo": "4"}[act]
    assert found == [new if end == "go on" else "1"]


def test_a_second_backup_or_prune_beside_one_under_way_says_who_is_at_it(made: Path, tmp_path: Path) -> None:
    root = copied(made, tmp_path / "root")
    with Child(BESIDE, root, "full", "backup.manifest", "wait") as child:
        assert child.line() == "there"
        pid = child.process.pid
        for act in ("incremental", "prune"):
            done = subprocess.run(victim(root, act), env=environment(), capture_output=True, text=True)
            assert done.returncode == 1
            assert re.search(rf"BusyError: .*in use by pid {pid} ", done.stderr), done.stderr
        before = ids(root)
        child.tell("go on")
        assert child.line() == "done"
    assert len(ids(root) - before) == 1
    assert whole(root) == []


def test_an_undo_after_a_killed_undo_undoes_and_a_redo_after_a_killed_restore_is_no_undo(
    made: Path, tmp_path: Path
) -> None:
    root = copied(made, tmp_path / "root")
    newest = value(root, str(HOME), "n")
    finish(work_of(root).restoring().steps())
    restored = value(root, str(HOME), "n")
    assert newest != restored
    subprocess.run(victim(root, "undo", "undo.aside"), env=environment(), capture_output=True)
    assert not (root / "addresses" / str(HOME)).exists()
    work_of(root).undo_restore(HOME)
    assert value(root, str(HOME), "n") == newest
    subprocess.run(victim(root, "restore", "restore.aside"), env=environment(), capture_output=True)
    assert not (root / "addresses" / str(HOME)).exists()
    work_of(root).undo_restore(HOME, redo=True)
    assert value(root, str(HOME), "n") == restored

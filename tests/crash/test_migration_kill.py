"""kill -9 in the middle of a migration: whole addresses, an untouched source, and a second run that does the rest."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prontodb.doctor import examine
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.checking import keystore_faults
from tests.crash import tracing
from tests.crash.judging import sampled
from tests.crash.tracing import Call
from tests.migrating import counts, migrated, values
from tests.old_sources import fingerprint, rust, shared
from tests.parts import fill

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

SEED = 20_261_122
BEFORE = {"alice/work": {"own": "x"}, "bob/home": {}, "_default/_default": {}}
AFTER = {
    "alice/work": {"own": "x", "ns.a": "2", "ns.big": "ä" * 20_000},
    "bob/home": {"ns.a": "3"},
    "_default/_default": {"p.n.k": "4"},
}
SAMPLED = {"pwrite64": 8, "fsync": 3, "renameat": 3, "write": 3, "unlinkat": 3}
"""How many instants of each system call are tried; failpoints try the steps that have names."""

VICTIM = str(tracing.CHECKOUT / "tests" / "crash" / "migration_worker.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one address, and beside it an old root in both formats."""
    place = tmp_path_factory.mktemp("made")
    (place / "root").mkdir(mode=0o700)
    fill(place / "root", "alice/work", BEFORE["alice/work"])
    rows = [("alice.work.ns.a", "1"), ("alice.work.ns.a", "2"), ("alice.work.ns.big", "ä" * 20_000),
            ("bob.home.ns.a", "3"), ("bad", "5")]  # fmt: skip
    shared(place / "old" / "shared.db", rows)
    (place / "scratch").mkdir()
    rust(place / "old" / "main" / "pronto.main.prdb", [("p", "n", "k", "4")], [("p", "cache", 1, 60)])
    return place


def copied(made: Path, place: Path) -> Path:
    shutil.copytree(made, place)
    return place


def command(place: Path) -> list[str]:
    return [sys.executable, "-W", "error", VICTIM, *(str(place / name) for name in ("root", "old", "scratch"))]


def counted(place: Path) -> list[Call]:
    """The writing calls of one undisturbed run below its root and its scratch folder."""
    log = place / "log"
    options = ("--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={tracing.WRITING}")
    done = tracing.traced(place / "root", *options, command=command(place))
    assert done.returncode == 0, done.stderr
    return tracing.calls(log, place)


def faults_of_a_kill(made: Path, tmp_path: Path, call: Call) -> list[str]:
    place = copied(made, tmp_path / f"{call.name}{call.number}")
    source = fingerprint(place / "old")
    inject = f"inject={call.name}:signal=KILL:when={call.number}"
    options = ("-o", "/dev/null", "-e", f"trace={call.name}", "-e", inject)
    done = tracing.traced(place / "root", *options, command=command(place))
    assert done.returncode in (137, -9), f"not killed: {done}"
    found = [] if fingerprint(place / "old") == source else ["the source has changed"]
    root = place / "root"
    # The next commands heal what the kill left; whatever it is, an address is what it was or what it becomes.
    examine(Layout(str(root)), Limits(), Clock(), deep=True, repair=True)
    for address, before in BEFORE.items():
        if values(root, address) not in (before, AFTER[address]):
            found.append(f"{address} holds {sorted(values(root, address))}")
    report = migrated(root, place / "old", scratch=place / "scratch")
    if list((place / "scratch").iterdir()):
        found.append("copies of the source were left")
    if counts(report) != (4, 0, 1, 1) or {address: values(root, address) for address in AFTER} != AFTER:
        found.append(f"the second run left {counts(report)}")
    if migrated(root, place / "old").written:
        found.append("a third run changes something")
    for address in AFTER:
        found += keystore_faults(str(root), Address.parse(address))
    again = examine(Layout(str(root)), Limits(), Clock(), deep=True)
    found += [finding.what for finding in again.findings]
    return [f"{call.name} {call.number} ({call.text[:100]}): {fault}" for fault in found]


def test_a_kill_at_any_system_call_leaves_whole_addresses_and_a_second_run_does_the_rest(
    made: Path, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    found = counted(copied(made, tmp_path / "counted"))
    instants = [call for name, most in SAMPLED.items() for call in sampled(found, name, most, SEED)]
    assert len(instants) == sum(SAMPLED.values()), "the sample is of calls that are not made any more"
    with ThreadPoolExecutor(max_workers=2) as pool:  # one waits for its victim while the other judges
        faults = list(pool.map(lambda call: faults_of_a_kill(made, tmp_path, call), instants))
    assert [fault for of in faults for fault in of] == []

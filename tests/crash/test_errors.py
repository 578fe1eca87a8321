"""Disks that fill up or fail: a typed error, nothing acknowledged that is not there, readable, soon writable again."""

import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash import tracing, worker
from tests.crash.judging import judged, sampled
from tests.crash.tracing import Call, Result

pytestmark = pytest.mark.crash
needs_strace = pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace()))

SEED = 20_240_609
# SQLite opens read-only what it cannot open for writing, so a failing disk may look like that.
TYPED = {
    "ReadOnlyError",
    "StorageFullError",
    "UnavailableError",
    "OutcomeUnknownError",
    "BusyError",
    "AddressBusyError",
}


@pytest.fixture(scope="module")
def all_calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Every writing call of one undisturbed run."""
    folder = tmp_path_factory.mktemp("count")
    return tracing.count(folder / "root", folder / "log")


@needs_strace
@pytest.mark.parametrize(
    ("name", "error", "most", "lasting"),
    [
        ("pwrite64", "ENOSPC", 18, ""),
        ("pwrite64", "ENOSPC", 5, "+"),
        ("pwrite64", "EDQUOT", 5, ""),
        ("pwrite64", "EFBIG", 5, "+"),
        ("pwrite64", "EIO", 12, ""),
        ("write", "ENOSPC", 4, ""),
        ("fsync", "EIO", 16, ""),
        ("fsync", "ENOSPC", 5, "+"),
        ("ftruncate", "EIO", 5, ""),
        ("openat", "ENOSPC", 5, ""),
        ("openat", "EMFILE", 5, "+"),
        ("openat", "EIO", 5, ""),
        ("mkdirat", "ENOSPC", 5, ""),
        ("renameat", "EIO", 5, ""),
        ("unlink", "EIO", 5, ""),
    ],
)
def test_a_failing_call_is_an_error_of_ours_and_loses_nothing(
    name: str, error: str, most: int, lasting: str, all_calls: list[Call], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    instants = sampled(all_calls, name, most, SEED)

    def attempt(call: Call) -> list[str]:
        root = tmp_path / str(call.number)
        inject = f"inject={name}:error={error}:when={call.number}{lasting}"
        done = tracing.traced(root, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject)
        faults = faults_of(done, lasting=bool(lasting)) + judged(root, done.acknowledged)
        return [f"{call.number} ({call.text[:100]}) {done.error}: {fault}" for fault in faults]

    with ThreadPoolExecutor(max_workers=2) as pool:
        faults = [fault for found in pool.map(attempt, instants) for fault in found]
    assert not faults, "\n".join(faults[:12])


def faults_of(done: Result, *, lasting: bool) -> list[str]:
    """What is wrong with how a victim ended."""
    if done.returncode != 0:
        return [f"it ended with {done.returncode}: {done.stderr[-800:]}"]
    if not done.error:
        whole = done.acknowledged == len(worker.STEPS)
        return [] if whole else [f"it stopped after {done.acknowledged} steps without an error"]
    faults = [] if done.error in TYPED else [f"the error was a {done.error}"]
    if done.again != "ok" and not (lasting and done.again in TYPED):
        faults.append(f"afterwards: {done.again}")
    return faults


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    root = tmp_path / "root"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    done = subprocess.run(
        [sys.executable, tracing.WORKER, str(root)],
        capture_output=True,
        text=True,
        env=tracing.environment(),
        preexec_fn=limit,
    )
    found = tracing.result_of(done)
    assert found.error == "StorageFullError", done
    assert found.again == "ok"
    assert 3 <= found.acknowledged < len(worker.STEPS)
    assert judged(root, found.acknowledged) == []


FILL = """
import os, sys
from tests.crash import worker
from prontodb.direct import OneShot, run
from prontodb.errors import StorageFullError
root = sys.argv[1] + "/root"
with OneShot(root, worker.HOME) as ks:
    run(ks.set("first", "1"))
    written = 0
    try:
        while True:
            run(ks.set(f"k{written}", "x" * 20_000))
            written += 1
    except StorageFullError as error:
        assert "space" in str(error), error
    assert written > 3
    assert run(ks.get("first")) == "1"
    assert run(ks.count()) == written + 1
    for _ in range(3):
        try:
            run(ks.set("more", "x" * 50_000))
        except StorageFullError:
            pass
    filler = sys.argv[1] + "/filler"
    os.unlink(filler)
    run(ks.set("after", "1"))
    assert all(run(ks.get(f"k{i}")) == "x" * 20_000 for i in range(written))
print("fine")
"""


def test_a_full_disk_stays_readable_and_can_be_written_once_there_is_room(tmp_path: Path) -> None:
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if tried.returncode != 0:
        pytest.skip("no right to mount a small file system of its own")
    script = (
        'mount -t tmpfs -o size=1m,mode=700 tmpfs "$1" && dd if=/dev/zero of="$1/filler" bs=1k count=200 status=none '
        '&& exec "$2" -c "$3" "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FILL],
        capture_output=True,
        text=True,
        env=tracing.environment(),
    )
    if "mount:" in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("fine\n", "")

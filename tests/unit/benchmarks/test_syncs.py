"""Syncs are counted right, and contenders make those that their promise needs."""

import sys
from pathlib import Path

import pytest

from benchmarks.contenders import Contender
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.scenarios.syncs import counted, is_backed, syncs_of, traced, why_not

WHY_NOT = why_not()
needs_strace = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
SYNCING = """
import os, sys, threading
from benchmarks.scenarios.syncs import REST, mark

path = sys.argv[1]
file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.fdatasync(file)
mark("some")
for number in range(3):
    os.pwrite(file, b"x", number)
    os.fdatasync(file)
threads = [threading.Thread(target=lambda: [os.fsync(file) for _ in range(20)]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if os.fork() == 0:
    os.fsync(file)
    os._exit(0)
os.wait()
mark(REST)
os.fsync(file)
mark("written")
synced = os.open(path, os.O_WRONLY | os.O_DSYNC)
for number in range(5):
    os.pwrite(synced, b"x", number)
os.close(synced)
plain = os.open(path, os.O_WRONLY)
assert plain == synced
os.write(plain, b"x")
"""


@needs_strace
def test_syncs_of_threads_and_children_are_counted_where_they_belong(tmp_path: Path) -> None:
    found, has_ring = traced([sys.executable, "-c", SYNCING, str(tmp_path / "file")], tmp_path)
    assert (found["some"], found["written"]) == (3 + 4 * 20 + 1, 5)
    assert found["rest"] >= 2
    assert not has_ring


def test_calls_that_another_thread_cuts_in_two_count_once() -> None:
    log = """\
10 access("/benchmarks-syncs/some", F_OK) = -1 ENOENT (No such file or directory)
10 fdatasync(3 <unfinished ...>
11 fsync(4 <unfinished ...>
10 <... fdatasync resumed>) = 0
11 <... fsync resumed>) = 0
11 openat(AT_FDCWD, "/a", O_RDWR|O_SYNC <unfinished ...>
10 write(7, "x", 1) = 1
11 <... openat resumed>) = 7
10 write(7, "x", 1) = 1
10 msync(0x7f, 4096, MS_ASYNC) = 0
10 msync(0x7f, 4096, MS_SYNC) = 0
11 +++ exited with 0 +++
10 io_uring_enter(5, 1, 0, 0, NULL, 8) = 1
"""
    assert counted(log.splitlines()) == ({"some": 4}, True)


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("name", CONTENDERS)
def test_syncs_go_with_the_promise(name: str, tmp_path: Path) -> None:
    kind: type[Contender] = CONTENDERS[name]
    if why := kind.why_missing():
        pytest.skip(f"{kind.name}: {why}")
    per_set, _ = syncs_of(kind, tmp_path / "contender")
    assert is_backed(kind, per_set[1]), per_set

"""File locks: one holder over both ways and all processes, freed by any death, never taken from the living."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.errors import BusyError, UnsafePathError
from prontodb.storage import lock
from prontodb.storage.files import open_root
from prontodb.storage.lock import HeldLock
from prontodb.storage.process import ourselves

PARTS = ("registry", "locks", "agent@home")
NAME = "address.lock"
WAYS = [True, False]

HOLDER = (
    "import sys; from prontodb.storage.lock import acquire\n"
    "held = acquire(sys.argv[1], ('registry', 'locks', 'agent@home'), 'address.lock', purpose='hold', wait_s=5, "
    "one_shot=sys.argv[2] == 'True')\n"
    "print('held', flush=True); sys.stdin.read()"
)


def take(root: Path, one_shot: bool, wait_s: float = 0, purpose: str = "test") -> HeldLock:
    return lock.acquire(str(root), PARTS, NAME, purpose=purpose, wait_s=wait_s, one_shot=one_shot)


@contextmanager
def holder(root: Path, one_shot: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), str(one_shot)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_both_ways_exclude_each_other_within_a_process(root: Path, first: bool, second: bool) -> None:
    with take(root, first):
        with pytest.raises(BusyError):
            take(root, second)
        with pytest.raises(BusyError):
            take(root, second, wait_s=0.01)
    take(root, second).release()


@pytest.mark.parametrize("theirs", WAYS)
@pytest.mark.parametrize("ours", WAYS)
def test_both_ways_exclude_each_other_between_processes(root: Path, theirs: bool, ours: bool) -> None:
    with holder(root, theirs) as process:
        with pytest.raises(BusyError, match=rf"pid {process.pid} .* \(hold\) since \d{{4}}-"):
            take(root, ours)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        take(root, ours).release()


@pytest.mark.parametrize("one_shot", WAYS)
def test_the_lock_of_a_killed_holder_is_free_at_once(root: Path, one_shot: bool) -> None:
    with holder(root, one_shot) as process:
        process.kill()
        process.wait()
        take(root, not one_shot).release()


@pytest.mark.parametrize("one_shot", WAYS)
def test_a_stopped_holder_keeps_its_lock_and_is_named(root: Path, one_shot: bool) -> None:
    with holder(root, one_shot) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(BusyError, match=f"pid {process.pid} "):
            take(root, not one_shot, wait_s=0.05)
        process.kill()
        process.wait()
        take(root, not one_shot).release()


@pytest.mark.parametrize("one_shot", WAYS)
def test_a_waiter_gets_the_lock_when_the_holder_goes(root: Path, one_shot: bool) -> None:
    with holder(root, one_shot) as process:
        assert process.stdin is not None
        process.stdin.close()  # it ends while we wait
        take(root, not one_shot, wait_s=30).release()


@pytest.mark.parametrize("one_shot", WAYS)
def test_the_file_says_who_holds_it_and_stays_private_and_in_place(root: Path, one_shot: bool) -> None:
    path = root.joinpath(*PARTS, NAME)
    for purpose in ("a rather long purpose of the first holder", "short"):
        held = take(root, one_shot, purpose=purpose)
        with open_root(str(root), *PARTS) as folder:
            seen = lock.look(folder, NAME)
            assert seen is not None
            assert seen.held
            assert seen.holder is not None
            assert (seen.holder.process, seen.holder.purpose) == (ourselves(), purpose)
            held.release()
            held.release()
            seen = lock.look(folder, NAME)
            assert seen is not None
            assert (seen.held, seen.holder) == (False, None), "who let go is named no more"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.exists()
    for above in (path.parent, path.parent.parent):
        assert above.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("one_shot", WAYS)
@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_file_can_be_used_again_under_any_umask(root: Path, one_shot: bool, umask: int) -> None:
    before = os.umask(umask)
    try:
        take(root, one_shot).release()
    finally:
        os.umask(before)
    assert root.joinpath(*PARTS, NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("one_shot", WAYS)
def test_a_lock_on_a_file_that_was_removed_meanwhile_does_not_count(
    root: Path, one_shot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root.joinpath(*PARTS, NAME)
    taken: list[tuple[int, int]] = []
    real = lock._same_file

    def remove_once(fd: int, found: os.stat_result | None) -> bool:
        if not taken:
            taken.append((os.fstat(fd).st_dev, os.fstat(fd).st_ino))
            path.rename(path.with_suffix(".away"))  # keeps the inode in use, so that the next file has another
            found = None
        return real(fd, found)

    monkeypatch.setattr(lock, "_same_file", remove_once)
    with take(root, one_shot) as held:
        own = os.fstat(held.fd)
        assert (own.st_dev, own.st_ino) != taken[0]
        assert own.st_ino == path.stat().st_ino
        with pytest.raises(BusyError):
            take(root, not one_shot)


@pytest.mark.parametrize("one_shot", WAYS)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "twice"])
def test_nothing_but_a_file_of_ours_is_locked(root: Path, tmp_path: Path, one_shot: bool, kind: str) -> None:
    path = root.joinpath(*PARTS, NAME)
    take(root, one_shot).release()
    if kind == "twice":
        os.link(path, tmp_path / "second name")
    else:
        path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    with pytest.raises(UnsafePathError):
        take(root, one_shot)
    assert not (tmp_path / "elsewhere").exists()


def test_a_record_that_somebody_wrote_is_shown_on_one_line(root: Path) -> None:
    with take(root, True):
        root.joinpath(*PARTS, NAME).write_bytes(b"evil\x1b[2J\n\xff" + b"x" * 10_000)
        with pytest.raises(BusyError) as caught:
            take(root, True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("one_shot", WAYS)
def test_no_descriptor_is_left_over(root: Path, one_shot: bool) -> None:
    take(root, one_shot).release()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with take(root, one_shot), pytest.raises(BusyError):
            take(root, one_shot)
    assert os.listdir("/proc/self/fd") == before


def test_what_took_the_place_of_a_lock_file_after_the_look_is_neither_locked_nor_written(
    root: Path, tmp_path: Path
) -> None:
    take(root, one_shot=True).release()
    victim, path = tmp_path / "victim", root.joinpath(*PARTS, NAME)
    victim.write_bytes(b"not a lock")
    victim.chmod(0o644)
    path.unlink()
    os.link(victim, path)
    with open_root(str(root), *PARTS) as folder:
        for way in (
            lock._flock(folder, NAME),
            lambda: lock.look(folder, NAME),
            lambda: lock.mark(folder, NAME, lock.EVICTED, "address"),
            lambda: lock.remove_dead(folder, NAME),
        ):
            with pytest.raises(UnsafePathError):
                way()
    assert (victim.read_bytes(), victim.stat().st_mode & 0o777) == (b"not a lock", 0o644)

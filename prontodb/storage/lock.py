"""The only door to file locks: flock held on a file in `registry/locks`, which is never deleted.

Long-lived holders use filelock; a one-shot command takes the same flock itself, because importing filelock costs more
than the command. Both exclude each other. What is written into the file says who holds it, for messages only.
"""

from __future__ import annotations

import fcntl
import os
import random
import time

from prontodb.errors import BusyError, UnavailableError, UnsafePathError, shown
from prontodb.storage.files import FILE_MODE, Folder, make_root, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from filelock import UnixFileLock

POLL_S = 0.002
_RECORD_BYTES = 4_096
_OPEN_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class HeldLock:
    """An acquired file lock; leaving the block, `release`, or the death of the process frees it."""

    __slots__ = ("_release", "fd", "path")

    def __init__(self, path: str, fd: int, release: Callable[[], None]) -> None:
        self.path, self.fd, self._release = path, fd, release

    def release(self) -> None:
        """Free the lock; a second call does nothing."""
        release, self._release = self._release, _nothing
        release()

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _nothing() -> None:
    return None


def acquire(root: str, parts: tuple[str, ...], name: str, *, purpose: str, wait_s: float, one_shot: bool) -> HeldLock:
    """Take the lock file `name` in the folder `parts` below `root`, both made when missing.

    Blocks its thread up to `wait_s` seconds (0 tries once), then raises `BusyError` naming the holder.
    """
    # A lock folder lost by a power cut is made again by whoever wants the lock next.
    with make_root(root, *parts, durable=False) as folder:
        folder.check_file(name)
        path = f"{folder.path}/{name}"
        deadline = time.monotonic() + wait_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            held = _flock(folder, name, deadline) if one_shot else _filelock(path, left_s)
            if held is None:
                raise BusyError(f"{shown(path)} is held by {describe_holder(folder, name)}")
            # Somebody may have removed the file between our open and our flock: a lock on a nameless file excludes
            # nobody, so it counts only while the path still leads to it.
            if _same_file(held.fd, folder.stat(name)):
                break
            held.release()
    _record(held.fd, purpose)
    return held


def _same_file(fd: int, found: os.stat_result | None) -> bool:
    own = os.fstat(fd)
    return found is not None and (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


def _flock(folder: Folder, name: str, deadline: float) -> HeldLock | None:
    try:
        fd = os.open(name, _OPEN_LOCK, FILE_MODE, dir_fd=folder.fd)
    except OSError as error:
        raise translated(error, f"{folder.path}/{name}") from error
    try:
        os.fchmod(fd, FILE_MODE)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return None
                # Jitter keeps many waiters from polling in step.
                time.sleep(POLL_S * (0.5 + random.random()))  # noqa: S311 - not a secret
                continue
            return HeldLock(f"{folder.path}/{name}", fd, lambda: os.close(fd))
    except OSError as error:
        os.close(fd)
        raise UnavailableError(f"cannot lock {shown(folder.path)}/{name}: {os.strerror(error.errno or 0)}") from error


def _filelock(path: str, timeout_s: float) -> HeldLock | None:
    lock, fd = _new_filelock(path)
    from filelock import Timeout

    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        return None
    except OSError as error:
        raise translated(error, path) from error
    return HeldLock(path, fd(), lambda: lock.release(force=True))


def _new_filelock(path: str) -> tuple[UnixFileLock, Callable[[], int]]:
    from filelock import UnixFileLock

    taken: list[int] = []
    # thread_local=False: acquired and released by whichever worker thread comes along, it would else never be freed.
    lock = UnixFileLock(
        path,
        mode=FILE_MODE,
        thread_local=False,
        fallback_to_soft=False,
        preserve_lock_file=True,
        poll_interval=POLL_S,
        on_acquired=taken.append,
    )
    return lock, lambda: taken[-1]


def _record(fd: int, purpose: str) -> None:
    """Write who we are into the lock file. Its loss harms nothing, so a full disk is no reason to fail."""
    text = f"pid {os.getpid()} ({purpose}) since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n"
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
    except OSError:
        return


def describe_holder(folder: Folder, name: str) -> str:
    """Return what the lock file says of its holder, escaped, for a message."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder.fd)
    except OSError as error:
        if error.errno is not None and isinstance(error, FileNotFoundError):
            return "nobody any more"
        raise UnsafePathError(f"{shown(folder.path)}/{name} cannot be read") from error
    try:
        text = os.read(fd, _RECORD_BYTES).decode("utf-8", "replace").strip()
    finally:
        os.close(fd)
    return shown(text).strip("'") or "a process that has not said its name yet"

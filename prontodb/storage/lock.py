"""The only door to file locks: flock held on a file in `registry/locks`.

Long-lived holders use filelock; a one-shot command takes the same flock itself, because importing filelock costs more
than the command. Both exclude each other. A lock file holds a mark, through which others reach its holder: one byte,
and the id of the session it is meant for; then a record of who holds it. `address.lock` is never removed, only retired
by force; a session's own lock file goes with the session.
"""

from __future__ import annotations

import fcntl
import os
import random
import stat
import struct
import time

from prontodb.errors import BusyError, UnsafePathError, shown
from prontodb.model.holder import ID_CHARACTERS, MAX_RECORD_BYTES, Holder, decode
from prontodb.storage.files import FILE_MODE, Folder, make_root, translated
from prontodb.storage.permissions import moved_away
from prontodb.storage.process import ourselves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from filelock import UnixFileLock

POLL_S = 0.002
TRIES = 3
"""A lock is tried so often before it counts as held: somebody who looks at it holds it for an instant."""

STAGED_ENDING = ".tmp"

UNMARKED = b" "
ASKED = b"?"
"""Somebody asks the session to end."""
EVICTED = b"!"
"""Somebody has put the session out: what its holder remembers counts no more."""
_POINTER_BYTES = 8
_MARK_BYTES = 1 + ID_CHARACTERS
_MAX_BYTES = _MARK_BYTES + MAX_RECORD_BYTES + 1

_OPEN_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class HeldLock:
    """An acquired file lock; leaving the block, `release`, or the death of the process frees it.

    `previous` is the holder that the file named when it was taken: one that did not release it itself, and is dead.
    """

    __slots__ = ("_release", "fd", "identity", "path", "previous")

    def __init__(self, path: str, fd: int, release: Callable[[], None] | None = None) -> None:
        self.path, self.fd, self._release = path, fd, release
        self.previous: Holder | None = None
        found = os.fstat(fd)
        self.identity = (found.st_dev, found.st_ino)
        _HELD[id(self)] = self

    def write(self, holder: Holder, *, anew: bool = True) -> None:
        """Say in the file who holds it, and take out what marks it; or not `anew`, and leave the mark.

        Its loss harms nothing, so a full disk is no reason to fail.
        """
        record = holder.encode()
        try:
            if anew:
                os.pwrite(self.fd, UNMARKED * _MARK_BYTES + record, 0)
            else:
                os.pwrite(self.fd, record, _MARK_BYTES)
            os.ftruncate(self.fd, _MARK_BYTES + len(record))
        except OSError:
            return

    def mark(self, session: str) -> bytes:
        """Return what others want of this session: ASKED, EVICTED, UNMARKED for nothing; empty for an emptied file."""
        if self.fd < 0:
            return UNMARKED
        found = os.pread(self.fd, _MARK_BYTES, 0)
        # One that was meant for the holder before us came a moment too late.
        return found[:1] if found[1:] == session.encode() else UNMARKED if found else b""

    @property
    def still_there(self) -> bool:
        """False when the path leads elsewhere: then the lock excludes nobody."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def release(self, *, remove: bool = False) -> None:
        """Free the lock, the record taken out first, or with `remove` the whole file; a second call does nothing."""
        if self.fd < 0:
            return
        try:
            if not remove:
                os.ftruncate(self.fd, 0)
            elif self.still_there:
                os.unlink(self.path)
        except OSError:
            pass  # a full disk, or a folder that was taken away: only a record stays behind
        self.abandon()

    def abandon(self) -> None:
        """Free the lock and leave the file as it is; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            _HELD.pop(id(self), None)
            if self._release is None:
                os.close(fd)
            else:
                self._release()

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


_HELD: dict[int, HeldLock] = {}


def _forget_in_child() -> None:
    """In the child of a fork: the locks are the parent's. Closed here, so that they end when the parent does."""
    for held in list(_HELD.values()):
        if held._release is None:  # else it is filelock's, which does the same
            os.close(held.fd)
        held.fd = -1
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def acquire(
    root: str,
    parts: tuple[str, ...],
    name: str,
    *,
    purpose: str,
    wait_s: float,
    one_shot: bool,
    holder: Holder | None = None,
    tries: int = TRIES,
    succeed: Callable[[HeldLock], None] | None = None,
) -> HeldLock:
    """Take the lock file `name` in the folder `parts` below `root`, both made when missing.

    Blocks its thread up to `wait_s` seconds, but for `tries` tries at least, then raises `BusyError` naming the holder.
    `holder` is what the file shall say; None: this process and its purpose. `succeed` is called first when the file
    names a session that died holding it: as long as that has not returned, the next one finds the same record.
    """
    # A lock folder lost by a power cut is made again by whoever wants the lock next.
    with make_root(root, *parts, durable=False) as folder:
        folder.check_file(name)
        attempt = _flock(folder, name) if one_shot else _filelock(f"{folder.path}/{name}")
        deadline = time.monotonic() + wait_s
        while True:
            held = attempt()
            if held is None:
                tries -= 1
                if tries <= 0 and time.monotonic() >= deadline:
                    seen = look(folder, name)
                    held_by = "nobody any more" if seen is None or not seen.held else str(seen)
                    raise BusyError(f"{shown(f'{folder.path}/{name}')} is held by {held_by}", seen and seen.holder)
                # Jitter keeps many waiters from polling in step.
                time.sleep(POLL_S * (0.5 + random.random()))  # noqa: S311 - not a secret
                continue
            # Somebody may have removed the file between our open and our flock: a lock on a nameless file excludes
            # nobody, so it counts only while the path still leads to it.
            if _same_file(held.fd, folder.stat(name)):
                break
            held.abandon()
    try:
        held.previous = _record(held.fd)
        if succeed is not None and held.previous is not None and held.previous.session is not None:
            succeed(held)
        held.write(holder or Holder(ourselves(), purpose, time.time_ns() // 1_000_000))
    except BaseException:
        held.abandon()
        raise
    return held


def _same_file(fd: int, found: os.stat_result | None) -> bool:
    own = os.fstat(fd)
    return found is not None and (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)


def _flock(folder: Folder, name: str) -> Callable[[], HeldLock | None]:
    """Return what tries once to take the lock the light way."""
    path = f"{folder.path}/{name}"

    def attempt() -> HeldLock | None:
        fd = -1
        try:
            fd = os.open(name, _OPEN_LOCK, FILE_MODE, dir_fd=folder.fd)
            _check_opened(fd, path)
            if _locked(fd, fcntl.LOCK_EX):
                return HeldLock(path, fd)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise translated(error, path) from error
        except UnsafePathError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    return attempt


def _check_opened(fd: int, path: str) -> None:
    """Refuse what was put in the place of a lock file after it was looked at; a new one gets its mode, whatever umask.

    A second name may be somebody's file that is no lock: it must neither be written nor get another mode.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_uid != os.geteuid():
        raise UnsafePathError(f"{shown(path)} was replaced while it was opened; it was not locked")
    if stat.S_IMODE(found.st_mode) != FILE_MODE:
        os.fchmod(fd, FILE_MODE)


def _filelock(path: str) -> Callable[[], HeldLock | None]:
    """Return what tries once to take the lock through filelock."""
    lock, fd = _new_filelock(path)
    from filelock import Timeout

    def attempt() -> HeldLock | None:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except OSError as error:
            raise translated(error, path) from error
        return HeldLock(path, fd(), lambda: lock.release(force=True))

    return attempt


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


# Lock files of sessions


def create_held(folder: Folder, name: str, holder: Holder) -> HeldLock:
    """Make the lock file `name`, held from the moment at which it can be seen."""
    staged = f".{name}{STAGED_ENDING}"
    try:
        fd = os.open(staged, _OPEN_LOCK | os.O_EXCL, FILE_MODE, dir_fd=folder.fd)
    except OSError as error:
        raise translated(error, f"{folder.path}/{staged}") from error
    try:
        os.fchmod(fd, FILE_MODE)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = HeldLock(f"{folder.path}/{name}", fd)
    except OSError as error:
        os.close(fd)
        folder.remove(staged)
        raise translated(error, f"{folder.path}/{staged}") from error
    try:
        held.write(holder)
        os.rename(staged, name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    except OSError as error:
        held.abandon()
        folder.remove(staged)
        raise translated(error, f"{folder.path}/{name}") from error
    return held


class Seen:
    """What a look at a lock file showed: whether somebody holds it, and who it says that is or was."""

    __slots__ = ("held", "holder")

    def __init__(self, held: bool, holder: Holder | None) -> None:
        self.held, self.holder = held, holder

    def __str__(self) -> str:
        return str(self.holder) if self.holder is not None else "a process that has not said its name yet"


def look(folder: Folder, name: str) -> Seen | None:
    """Look whether a lock is held and by whom, without taking it; None when there is no such file."""
    fd = _open(folder, name, os.O_RDONLY)
    if fd is None:
        return None
    try:
        # A shared probe: two that look at once do not take each other for a holder.
        free = _locked(fd, fcntl.LOCK_SH)
        return Seen(not free, _record(fd))
    except OSError as error:
        raise translated(error, f"{folder.path}/{name}") from error
    finally:
        os.close(fd)


def mark(folder: Folder, name: str, what: bytes, session: str) -> bool:
    """Mark a lock file for the session that holds it; False when another one holds it, or nobody.

    A file without a record that can be read is taken at its name. Who was put out stays so, whoever asks later.
    """
    fd = _open(folder, name, os.O_RDWR)
    if fd is None:
        return False
    try:
        found = _record(fd)
        if (found.session if found is not None else name.partition(".")[0]) != session or _locked(fd, fcntl.LOCK_SH):
            return False
        if what != ASKED or os.pread(fd, _MARK_BYTES, 0) != EVICTED + session.encode():
            os.pwrite(fd, what + session.encode(), 0)
    except OSError as error:
        raise translated(error, f"{folder.path}/{name}") from error
    finally:
        os.close(fd)
    return True


def remove_dead(folder: Folder, name: str) -> Seen | None:
    """Remove the lock file of a session that is dead, which is: its lock can be taken; return whose it was.

    None when it lives, or when there is no such file. The caller holds the lock of the address.
    """
    fd = _open(folder, name, os.O_RDWR)
    if fd is None:
        return None
    try:
        for _ in range(TRIES):
            if _locked(fd, fcntl.LOCK_EX):
                if not _same_file(fd, folder.stat(name)):
                    return None
                folder.remove(name)
                return Seen(False, _record(fd))
            time.sleep(POLL_S)
    except OSError as error:
        raise translated(error, f"{folder.path}/{name}") from error
    finally:
        os.close(fd)
    return None


def _open(folder: Folder, name: str, access: int) -> int | None:
    try:
        fd = os.open(name, access | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder.fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UnsafePathError(
            f"{shown(f'{folder.path}/{name}')} cannot be opened: {reason}; "
            f"if it is no lock file, move it away with: {moved_away(f'{folder.path}/{name}')}"
        ) from error
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return fd
    os.close(fd)
    if found.st_nlink == 0:
        return None  # removed in this instant
    folder.check_file(name)
    raise UnsafePathError(f"{shown(f'{folder.path}/{name}')} was replaced while it was opened; try again")


def _locked(fd: int, kind: int) -> bool:
    """Try once to lock; closing the descriptor frees it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _record(fd: int) -> Holder | None:
    data = os.pread(fd, _MAX_BYTES, 0)
    found = decode(data[_MARK_BYTES:])
    if found is None and data:
        # Perhaps it was being written in this very moment.
        time.sleep(POLL_S / 2)
        found = decode(os.pread(fd, _MAX_BYTES, 0)[_MARK_BYTES:])
    return found


# Record locks, SQLite's kind: looked at, never taken

_RECORD_LOCK = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl(2))."""


def is_locked(fd: int, first: int, length: int) -> bool:
    """True when anybody holds a record lock on some of these bytes; False where the system does not tell."""
    query = getattr(fcntl, "F_OFD_GETLK", None)
    if query is None or struct.calcsize("P") != _POINTER_BYTES:
        return False
    wanted = struct.pack(_RECORD_LOCK, fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
    try:
        found = fcntl.fcntl(fd, query, wanted)
    except OSError:
        return False  # a file system without them
    return bool(struct.unpack(_RECORD_LOCK, found)[0] != fcntl.F_UNLCK)

"""Files of other programs: looked at by lstat, never linked through, never changed; copied into a private folder.

A database of SQLite is copied with its log, so that what is not yet in the file itself counts too. Nothing here opens
it with SQLite: even a read-only connection would leave files beside it.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import BusyError, ConflictError, InvalidSourceError, shown
from prontodb.storage.files import NewFile, kind, translated
from prontodb.storage.lock import is_locked
from prontodb.storage.process import is_open_here, lock_owners

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import BinaryIO

    from prontodb.storage.files import Folder

SQLITE_MAGIC = b"SQLite format 3\x00"
GZIP_MAGIC = b"\x1f\x8b"
SIDE_FILES = ("-wal", "-journal")
"""What belongs to the contents of a database beside its file: a log that is played in, or one that is taken back."""
INDEX_FILE = "-shm"

CHUNK_BYTES = 1024 * 1024

# Where SQLite's locks lie: https://sqlite.org/src/file/src/os_unix.c (each connection of a WAL holds the first),
# and https://sqlite.org/fileformat2.html#the_lock_byte_page (pending, reserved, and 510 shared ones).
_CONNECTED_BYTE = 128
_LOCK_PAGE, _LOCK_BYTES = 0x40000000, 512

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of change: as long as they stay, so does what the file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file that was read: its name below the source, and the hash of what it held."""

    name: str
    sha256: str


def stamp(path: str) -> Stamp | None:
    """Return the stamp of a path by lstat; None when there is nothing."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise translated(error, path) from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def beginning(path: str, size: int = 100) -> bytes:
    """Return the first bytes of a regular file; refuses anything else."""
    with _opened(path) as fd:
        return b"".join(_chunks(fd.number, path, size))


def content(path: str, most: int) -> bytes:
    """Return all of a small file; refuses one that is longer than `most` bytes."""
    with _opened(path) as fd:
        found = b"".join(_chunks(fd.number, path, most + 1))
    if len(found) > most:
        raise InvalidSourceError(f"{shown(path)} is longer than {most:,} bytes; it was not read")
    return found


def opened_stream(path: str) -> BinaryIO:
    """Open a regular file for reading from its beginning to its end; the caller closes it."""
    descriptor = _opened(path)
    return os.fdopen(descriptor.number, "rb")


class _Descriptor:
    """An open descriptor, closed with the block."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> _Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def _opened(path: str) -> _Descriptor:
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidSourceError(f"{shown(path)} is a link; name what it leads to") from error
        raise translated(error, path) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise InvalidSourceError(f"{shown(path)} is {kind(found)}, not a file")
    return _Descriptor(fd)


def _chunks(fd: int, path: str, most: int | None = None) -> Iterator[bytes]:
    left = most
    try:
        while chunk := os.read(fd, CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            yield chunk
            left = None if left is None else left - len(chunk)
    except OSError as error:
        raise translated(error, path) from error


def check_unused(path: str) -> None:
    """Raise `BusyError` while any program has a database open, as far as its locks tell; `path` and its log stay shut.

    A connection that is in no transaction and keeps no log holds no lock; what it writes meanwhile is noticed by the
    stamps.
    """
    for name in (path, path + "-wal", path + INDEX_FILE):
        found = stamp(name)
        # Closing our descriptor of a file would take away every lock that this process holds on it (fcntl(2)).
        if found is not None and is_open_here(found[:2]):
            raise BusyError(f"{shown(path)} is in use by this very process; close it first")
    for name, first, length in ((path + INDEX_FILE, _CONNECTED_BYTE, 1), (path, _LOCK_PAGE, _LOCK_BYTES)):
        if stamp(name) is None:
            continue
        with _opened(name) as fd:
            used = is_locked(fd.number, first, length)
        if used:
            owners = lock_owners(name, first, first + length - 1, "READ", "WRITE")
            who = f" by {owners[0]}" if owners else ""
            raise BusyError(f"{shown(path)} is in use{who}; end that first, then migrate")


def copied(path: str, name: str, folder: Folder, as_name: str) -> Generator[int, None, list[SourceFile]]:
    """Copy a database with its log into a private folder; yields bytes, returns what was copied.

    `name` is what the file is called in reports. Raises `BusyError` while it is in use, and `ConflictError` when it
    changed meanwhile.
    """
    import hashlib

    before = _stamps(path)
    check_unused(path)
    files: list[SourceFile] = []
    for ending in ("", *SIDE_FILES):
        found = before[ending]
        if found is None:
            continue
        digest = hashlib.sha256()
        with _opened(path + ending) as source, NewFile(folder, as_name + ending) as copy:
            for chunk in _chunks(source.number, path + ending):
                digest.update(chunk)
                copy.write(chunk)
                yield len(chunk)
        files.append(SourceFile(name=name + ending, sha256=digest.hexdigest()))
    check_unused(path)
    if _stamps(path) != before:
        raise ConflictError(f"{shown(path)} was changed while it was read; end what writes to it, then try again")
    return files


def _stamps(path: str) -> dict[str, Stamp | None]:
    return {ending: stamp(path + ending) for ending in ("", *SIDE_FILES)}

"""Old backups: a tar.gz of a folder, unpacked member by member into a private one, and nothing else than files.

Unpacked by gzip and not by tarfile, which reads past the checksum at the end without a look.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zlib
from typing import TYPE_CHECKING, cast

from prontodb.errors import ConflictError, InvalidSourceError, StorageFullError, shown
from prontodb.migration.cursors import is_cursor_file
from prontodb.storage.files import NewFile, translated
from prontodb.storage.foreign import SIDE_FILES, SQLITE_MAGIC, SourceFile, opened_stream, stamp

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import BinaryIO

    from prontodb.storage.files import Folder

_SMALLEST = 20
"""Bytes of the smallest gzip file: its head, nothing packed, its end (RFC 1952)."""
_END_BYTES = 1_024
"""Zeros that end an archive, at the least (POSIX, pax Interchange Format)."""
MAX_MEMBERS = 100_000
MAX_RATIO = 1_200
"""Bytes that one packed byte may become. gzip cannot make more than 1,032 (zlib's technical notes)."""
SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk of the scratch folder."""
CHUNK_BYTES = 1024 * 1024


class Unpacked:
    """What one backup held: member names, each with the name of the private file it lies in."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.others: set[str] = set()
        """Members that are neither databases nor cursor files."""
        self.source: SourceFile | None = None


def unpack(path: str, name: str, folder: Folder) -> Generator[int, None, Unpacked]:
    """Unpack what may matter of an old backup; yields packed bytes. Refuses links, devices and ways out of the folder.

    Raises `InvalidSourceError` for what is no such backup, or a cut one.
    """
    found = Unpacked()
    before = stamp(path)
    if before is not None and before[2] < _SMALLEST:
        raise InvalidSourceError(f"{shown(name)} is cut; nothing was imported")
    with opened_stream(path) as file:
        counted = _Counted(file)
        try:
            yield from _unpack(counted, path, folder, found)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise translated(error, path) from error
            raise InvalidSourceError(
                f"{shown(name)} is damaged, cut, or no tar.gz; nothing was imported: take another backup"
            ) from error
    if before is None or stamp(path) != before:
        raise ConflictError(f"{shown(name)} was changed while it was read; try again")
    found.source = SourceFile(name=name, sha256=counted.digest.hexdigest())
    return found


def _unpack(counted: _Counted, path: str, folder: Folder, found: Unpacked) -> Generator[int, None, None]:
    size = told = members = 0
    plain = _Plain(gzip.GzipFile(fileobj=cast("BinaryIO", counted), mode="rb"))
    with tarfile.open(fileobj=cast("BinaryIO", plain), mode="r|") as archive:
        for member in archive:
            members += 1
            inside = _checked(member, path)
            if members > MAX_MEMBERS:
                raise InvalidSourceError(f"{shown(path)} holds over {MAX_MEMBERS:,} files; it was not read")
            if inside is None:
                continue
            if inside in found.files:
                raise InvalidSourceError(f"{shown(path)} holds {shown(inside)} twice; it was not read")
            stream = archive.extractfile(member)
            assert stream is not None  # a regular file, by _checked
            begin = stream.read(len(SQLITE_MAGIC))
            if not _may_matter(inside, begin):
                found.others.add(inside)
                continue
            name = f"member-{len(found.files)}"
            with NewFile(folder, name) as file:
                chunk = begin
                while chunk:
                    size += len(chunk)
                    _check_room(size, counted.size, folder, path)
                    file.write(chunk)
                    yield counted.size - told
                    told = counted.size
                    chunk = stream.read(CHUNK_BYTES)
            found.files[inside] = name
        # To the very end, where the checksum of it all stands.
        while chunk := plain.read(CHUNK_BYTES):
            size += len(chunk)
            _check_room(size, counted.size, folder, path)
            yield counted.size - told
            told = counted.size
        # tarfile takes a damaged head, or none at all, for the end.
        if plain.last_content > archive.offset or plain.size < archive.offset + _END_BYTES:
            raise EOFError


def _checked(member: tarfile.TarInfo, path: str) -> str | None:
    """Return the name of a regular file inside, None for a folder; anything else is refused."""
    if member.isdir():
        return None
    name = member.name.removeprefix("./")
    if not member.isreg() or member.issparse():
        raise InvalidSourceError(f"{shown(path)} holds {shown(name)}, which is no plain file; it was not read")
    parts = name.split("/")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidSourceError(
            f"{shown(path)} holds {shown(name)}, a name that is not UTF-8; it was not read"
        ) from None
    if name.startswith("/") or ".." in parts or "" in parts or "\x00" in name:
        raise InvalidSourceError(f"{shown(path)} holds {shown(name)}, a path that leads out of it; it was not read")
    return name


def _may_matter(name: str, begin: bytes) -> bool:
    return begin == SQLITE_MAGIC or is_cursor_file(name) or name.endswith((".db", ".prdb", *SIDE_FILES))


def _check_room(size: int, packed: int, folder: Folder, path: str) -> None:
    if size > max(packed, 1) * MAX_RATIO:
        raise InvalidSourceError(f"{shown(path)} grows over {MAX_RATIO:,} times when unpacked; it was not read")
    if size % (16 * CHUNK_BYTES) < CHUNK_BYTES and shutil.disk_usage(folder.path).free < SPARE_BYTES:
        raise StorageFullError(
            f"no space left in {shown(folder.path)} to unpack {shown(path)}; name another: --scratch"
        )


class _Plain:
    """What was packed, and where the last byte of it is that is not zero."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self.size, self.last_content = file, 0, 0

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._file.read(size)
        content = len(data.rstrip(b"\x00"))
        if content:
            self.last_content = self.size + content
        self.size += len(data)
        return data


class _Counted:
    """A stream that counts and hashes what is read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._file.read(size)
        self.size += len(data)
        self.digest.update(data)
        return data

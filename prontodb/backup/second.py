"""A second place for backups: immutable files, put one by one, and each backup's manifest last.

What is a place is four calls on files; a folder on another disk is one. A backup is there once its manifest is; what an
interrupted copy has put already is not put again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prontodb.backup.manifest import FULL, INCREMENTAL, MANIFEST_FILE, is_backup_id
from prontodb.errors import BackupNotFoundError, CorruptError, UnavailableError, shown
from prontodb.log import event
from prontodb.model.progress import Progress, never
from prontodb.storage.files import Folder, NewFile, make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from prontodb.backup.container import Container
    from prontodb.backup.manifest import Manifest

COPYING_PREFIX = ".copy-"
_KINDS = (FULL, INCREMENTAL)

Name = tuple[str, str, str]
"""A file: kind and id of its backup, and what it is called there."""


class Place(Protocol):
    """Where files are kept that never change. Another kind of place, such as an object store, has the same calls."""

    def list(self) -> dict[Name, int]:
        """Return every file with its size in bytes, also of backups whose manifest has not come yet."""

    def put(self, name: Name, data: Iterable[bytes]) -> None:
        """Keep a file: after a crash it is there whole, or not at all. An error of `data` keeps nothing."""

    def get(self, name: Name) -> Iterator[bytes]:
        """Yield a file; FileNotFoundError when there is none."""

    def delete(self, name: Name) -> None:
        """Remove a file if it is there; a manifest first, since without it the backup is not there any more."""


class FolderPlace:
    """A folder that must be there: where a disk is not mounted, nothing is to be written in its stead."""

    def __init__(self, path: str) -> None:
        self.path = path

    def check_there(self) -> None:
        """Raise `UnavailableError` when the folder is not there."""
        if not os.path.isdir(self.path):
            raise UnavailableError(
                f"the second place {shown(self.path)} is not there: mount its disk, or make the folder once"
            )

    def list(self) -> dict[Name, int]:
        """See `Place.list`."""
        self.check_there()
        found: dict[Name, int] = {}
        for kind in _KINDS:
            try:
                with open_root(self.path, kind) as above:
                    for name in above.names():
                        backup = name.removeprefix(COPYING_PREFIX)
                        if is_backup_id(backup):
                            found |= self._files(above, kind, backup, name)
            except FileNotFoundError:
                continue
        return found

    @staticmethod
    def _files(above: Folder, kind: str, backup: str, name: str) -> dict[Name, int]:
        found: dict[Name, int] = {}
        with above.child(name) as folder:
            for file in folder.names():
                size = folder.stat(file)
                # A manifest that came last but one before a crash gives no backup its name.
                if size is not None and not file.startswith(".") and (name == backup or file != MANIFEST_FILE):
                    found[kind, backup, file] = size.st_size
        return found

    def put(self, name: Name, data: Iterable[bytes]) -> None:
        """See `Place.put`; a manifest gives the folder of its backup the name under which it is found."""
        kind, backup, file = name
        self.check_there()
        with make_root(self.path, kind) as above, above.make(COPYING_PREFIX + backup) as folder:
            staged = f".{file}.tmp"
            folder.remove(staged)
            with NewFile(folder, staged) as copy:
                for chunk in data:
                    copy.write(chunk)
            folder.rename(staged, file)
            if file == MANIFEST_FILE:
                above.rename(COPYING_PREFIX + backup, backup)

    def get(self, name: Name) -> Iterator[bytes]:
        """See `Place.get`."""
        kind, backup, file = name
        with open_root(self.path, kind, backup) as folder:
            yield from folder.chunks(file)

    def delete(self, name: Name) -> None:
        """See `Place.delete`."""
        kind, backup, file = name
        half = COPYING_PREFIX + backup
        try:
            with open_root(self.path, kind) as above:
                if file == MANIFEST_FILE and above.stat(backup) is not None:
                    above.rename(backup, half)  # from here on it is one that is not there (yet)
                for folder_name in (backup, half):
                    if above.stat(folder_name) is not None:
                        _remove_from(above, folder_name, file)
        except FileNotFoundError:
            return


def _remove_from(above: Folder, name: str, file: str) -> None:
    with above.child(name) as folder:
        folder.remove(file)
        empty = not folder.names()
    if empty:
        above.remove_tree(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOutReport:
    """What was copied to the second place: backups that are whole there now, and bytes that were moved for it."""

    place: str
    copied: tuple[str, ...] = ()
    size_bytes: int = 0
    not_copied: tuple[str, ...] = ()
    """What is damaged here, and was not put there."""


def copy_out(
    container: Container,
    place: Place,
    where: str,
    *,
    abandoned_before: str = "",
    stop: Callable[[], bool] = never,
) -> Generator[Progress, None, CopyOutReport]:
    """Copy every backup that the place has not, parents before their children; yields after each file.

    A file that is not as its manifest says is not put there, and the report says so.
    """
    listing, there = container.list(), place.list()
    _forget_half(place, there, {one.id for one in listing.backups}, abandoned_before)
    missing = [one for one in listing.backups if (one.kind, one.id, MANIFEST_FILE) not in there]
    total = sum(len(one.pieces) + 1 for one in missing)
    size = sum(one.size_bytes for one in missing)
    copied: list[str] = []
    damaged: list[CorruptError] = []
    done = moved = 0
    for manifest in missing:
        try:
            for file_size in _copy(container, place, manifest, there):
                done, moved = done + 1, moved + file_size
                yield Progress(what=manifest.id, done=done, total=total, done_bytes=moved, total_bytes=size)
                if stop():
                    break
        except BackupNotFoundError:
            continue  # pruned at this moment
        except CorruptError as error:
            damaged.append(error)  # the others are wanted there all the same
            continue
        copied.append(manifest.id)
        event("backup.copied", backup=manifest.id, place=where)
    return CopyOutReport(
        place=where, copied=tuple(copied), size_bytes=moved, not_copied=tuple(str(error) for error in damaged)
    )


def _forget_half(place: Place, there: dict[Name, int], known: set[str], before: str) -> None:
    """Remove what interrupted copies left of backups that are gone here, and so old that no other root is at them."""
    whole = {(kind, backup) for kind, backup, file in there if file == MANIFEST_FILE}
    for name in there:
        if name[:2] not in whole and name[1] not in known and name[1] < before:
            place.delete(name)


def _copy(container: Container, place: Place, manifest: Manifest, there: dict[Name, int]) -> Iterator[int]:
    """Put the files of one backup that are not there, then its manifest; yield the bytes of each."""
    with container.open(manifest.id) as folder:
        for piece in manifest.pieces:
            name = (manifest.kind, manifest.id, piece.file)
            # Put whole or not at all, and never changed: its size is enough to know it again.
            if there.get(name) != piece.size_bytes:
                place.put(name, _checked(container, folder, manifest, piece.file, piece.sha256))
                yield piece.size_bytes
            else:
                yield 0
        place.put((manifest.kind, manifest.id, MANIFEST_FILE), folder.chunks(MANIFEST_FILE))
        yield 0


def _checked(container: Container, folder: Folder, manifest: Manifest, file: str, sha256: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    try:
        for chunk in folder.chunks(file):
            digest.update(chunk)
            yield chunk
    except FileNotFoundError:
        if not container.holds(manifest.id):
            raise BackupNotFoundError(manifest.id) from None
        raise CorruptError(f"backup {manifest.id} is damaged: {file} is missing; it was not copied") from None
    if digest.hexdigest() != sha256:
        raise CorruptError(f"backup {manifest.id} is damaged: {file} is not as it was written; it was not copied")

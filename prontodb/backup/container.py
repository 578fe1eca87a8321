"""A folder of backups: found by their manifests, published by one rename, removed by one rename.

The root's own is `backups/`, with a folder for each kind; one that somebody names with `--output` has its backups side
by side. Both are read the same way. `.tmp-ID` is a backup in the making, `.trash-ID` one on its way out; whoever holds
the lock of the container removes what a crash left of them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from prontodb.backup import manifest as manifests
from prontodb.backup.manifest import FULL, INCREMENTAL, MANIFEST_FILE, Manifest, is_backup_id
from prontodb.engine.sqlite import ciphers
from prontodb.errors import (
    BackupNotFoundError,
    BusyError,
    CorruptError,
    InvalidInputError,
    NewerFormatError,
    ProntoError,
    SecretError,
    UnsafePathError,
    shown,
)
from prontodb.log import event
from prontodb.model.layout import BACKUPS, BACKUPS_LOCK_FILE
from prontodb.storage import lock
from prontodb.storage.files import Folder, make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.backup.manifest import Piece
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret

STAGED_PREFIX = ".tmp-"
TRASH_PREFIX = ".trash-"
_REMAINS = (STAGED_PREFIX, TRASH_PREFIX)
SCRATCH = ".scratch"
SCRATCH_LOCK_FILE = ".scratch.lock"
_KINDS = (FULL, INCREMENTAL)
_SECOND = len("20261121T030000Z")


def new_backup_id(now_ms: int) -> str:
    """Return the name of a new backup: when it was made, in UTC, and something random."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_ms / 1_000))}-{os.urandom(4).hex()}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder with a backup's name whose manifest cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All backups of a container, the oldest first, and what could not be read."""

    backups: tuple[Manifest, ...]
    unreadable: tuple[Unreadable, ...]

    def find(self, backup: str) -> Manifest:
        """Return a backup by its id, or by the beginning of it that no other has; else `BackupNotFoundError`."""
        # An empty name, such as a variable that is not set, would begin every other.
        found = [one for one in self.backups if backup and one.id.startswith(backup)]
        exact = [one for one in found if one.id == backup]
        if len(exact or found) == 1:
            return (exact or found)[0]
        for broken in self.unreadable:
            if broken.id == backup:
                raise CorruptError(f"backup {backup} cannot be used: {broken.reason}")
        if found:
            raise InvalidInputError(f"{shown(backup)} begins the names of {len(found)} backups; write more of it")
        raise BackupNotFoundError(backup)


class Container:
    """One folder of backups: `inside` a folder that somebody named, or that folder itself.

    `by_kind`: new ones go into a folder for their kind, as in a root. `layout` is the root that brings the secrets of
    what is encrypted in them.
    """

    def __init__(self, path: str, inside: tuple[str, ...] = (), *, by_kind: bool, layout: Layout | None = None) -> None:
        self._top, self._inside, self._by_kind, self._layout = path, inside, by_kind, layout
        self.path = "/".join((path, *inside))

    @classmethod
    def of_root(cls, layout: Layout) -> Container:
        """The backups of a root, which lie in it: in a folder, never behind a link."""
        return cls(layout.root, (BACKUPS,), by_kind=True, layout=layout)

    def _open(self, *parts: str) -> Folder:
        return open_root(self._top, *self._inside, *parts)

    def _make(self, *parts: str) -> Folder:
        return make_root(self._top, *self._inside, *parts)

    def __repr__(self) -> str:
        return f"<Container {self.path}>"

    def secret_of(self, piece: Piece) -> Secret | None:
        """Return what opens a piece, None for a plain one; `SecretError` when nobody brings it."""
        if piece.encryption is None:
            return None
        if self._layout is None:
            raise SecretError(f"the backup of {piece.address} is encrypted; name the root that has its key record")
        return ciphers.secret_called(self._layout, piece.encryption)

    # Reading

    def list(self) -> Listing:
        """Read every manifest; none when there is no such folder."""
        found: dict[str, Manifest] = {}
        unreadable: list[Unreadable] = []
        for backup, parts in self._folders():
            if backup in found:
                unreadable.append(Unreadable(backup, f"it lies in two places; one of them is {'/'.join(parts)}"))
                continue
            try:
                found[backup] = self._manifest(backup, parts)
            except FileNotFoundError:
                continue  # removed at this moment
            except ProntoError as error:
                if self._is_there(parts):  # else it was removed at this moment
                    unreadable.append(Unreadable(backup, str(error)))
        ordered = sorted(found.values(), key=lambda one: (one.created_at_ms, one.id))
        return Listing(tuple(ordered), tuple(unreadable))

    def _is_there(self, parts: tuple[str, ...]) -> bool:
        try:
            with self._open(*parts[:-1]) as above:
                return above.stat(parts[-1]) is not None
        except FileNotFoundError:
            return False

    def newest_first(self) -> Iterator[Manifest]:
        """Yield the manifests that can be read, one by one, as far as somebody asks: by their names, then by time.

        A name begins with the second in which the backup was made; only who looks for all needs `list`.
        """
        names = sorted((name for name, _ in self._folders()), reverse=True)
        for _, same_second in groupby(names, key=lambda name: name[:_SECOND]):
            found = [one for name in same_second if (one := self.find(name)) is not None]
            yield from sorted(found, key=lambda one: one.created_at_ms, reverse=True)

    def find(self, backup: str) -> Manifest | None:
        """Return the manifest of a backup; None when it is not there or cannot be used."""
        for parts in self._places(backup):
            try:
                return self._manifest(backup, parts)
            except FileNotFoundError:
                continue
            except ProntoError as error:
                event("backup.unreadable", backup=backup, reason=str(error))
                return None
        return None

    def _folders(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield each folder with a backup's name, and where it lies."""
        for parts in ((), *((kind,) for kind in _KINDS)):
            try:
                with self._open(*parts) as folder:
                    names = folder.names()
            except FileNotFoundError:
                continue
            yield from ((name, (*parts, name)) for name in names if is_backup_id(name))

    def _manifest(self, backup: str, parts: tuple[str, ...]) -> Manifest:
        with self._open(*parts) as folder:
            return read_manifest(folder, backup)

    def open(self, backup: str) -> Folder:
        """Open the folder of a backup; `BackupNotFoundError` when it is not there (any more)."""
        for parts in self._places(backup):
            try:
                return self._open(*parts)
            except FileNotFoundError:
                continue
        raise BackupNotFoundError(backup)

    def holds(self, backup: str) -> bool:
        """True when the backup is there."""
        try:
            self.open(backup).close()
        except BackupNotFoundError:
            return False
        return True

    @staticmethod
    def _places(backup: str) -> tuple[tuple[str, ...], ...]:
        return ((backup,), *((kind, backup) for kind in _KINDS))

    # Writing

    def hold(self, purpose: str, wait_s: float) -> lock.HeldLock:
        """Take the lock of those who write here, made with the folder; then remove what crashes left.

        Raises `BusyError` with the holder when somebody else has it; `UnsafePathError` for a folder that holds other
        things than backups.
        """
        self._refuse_foreign()
        try:
            held = self._lock(BACKUPS_LOCK_FILE, purpose, wait_s)
        except BusyError as error:
            raise self._busy(error) from error
        try:
            self._remove_remains()
        except BaseException:
            held.release()
            raise
        return held

    def _lock(self, name: str, purpose: str, wait_s: float) -> lock.HeldLock:
        return lock.acquire(self._top, self._inside, name, purpose=purpose, wait_s=wait_s, one_shot=True)

    def _refuse_foreign(self) -> None:
        if not os.path.isdir(self.path):
            return
        try:
            names = os.listdir(self.path)
        except OSError:
            return  # opening it says what is wrong
        # In a root it lies in its own place, whatever else is there.
        ours = bool(self._inside) or BACKUPS_LOCK_FILE in names
        if names and not ours and next(self._folders(), None) is None:
            raise UnsafePathError(
                f"{shown(self.path)} holds other things than backups; name an empty folder, or one that does not exist"
            )

    def _remove_remains(self) -> None:
        self._remove_scratch()
        for parts in ((), *((kind,) for kind in _KINDS)):
            try:
                with self._open(*parts) as folder:
                    for name in folder.names():
                        if any(is_backup_id(name.removeprefix(prefix)) for prefix in _REMAINS if prefix in name):
                            folder.remove_tree(name)
            except FileNotFoundError:
                continue

    def stage(self, backup: str, kind: str) -> Staged:
        """Make the folder of a new backup, which nobody sees yet. The caller holds the lock."""
        # Whoever made the folders above may not have synced their names: the lock does not.
        with self._make() as top, open_root(self._top) as above_all:
            top.sync()
            above_all.sync()
        _step("backup.begun")
        parts = (kind,) if self._by_kind else ()
        above = self._make(*parts)
        try:
            return Staged(above, above.make(STAGED_PREFIX + backup), backup)
        except BaseException:
            above.close()
            raise

    def remove(self, backup: str) -> None:
        """Remove a backup: from one instant on it is not there. The caller holds the lock."""
        for parts in self._places(backup):
            try:
                with self._open(*parts[:-1]) as above:
                    if above.stat(backup) is not None:
                        above.rename(backup, TRASH_PREFIX + backup)
                        _step("prune.moved")
                        above.remove_tree(TRASH_PREFIX + backup)
            except FileNotFoundError:
                continue

    def _remove_scratch(self) -> None:
        """Remove what a verification left that was killed, and not what one is at."""
        with self._open() as top:
            if top.stat(SCRATCH) is None:
                return
        try:
            with self._lock(SCRATCH_LOCK_FILE, "remove a scratch folder", 0), self._open() as top:
                top.remove_tree(SCRATCH)
        except BusyError:
            return

    @contextmanager
    def scratch(self) -> Iterator[Folder]:
        """Yield an empty folder for trials, beside the backups, or where nothing can be written among temporary files.

        `BusyError` while somebody else is at it here.
        """
        try:
            held = self._lock(SCRATCH_LOCK_FILE, "try backups", 0)
        except BusyError as error:
            raise self._busy(error) from error
        except ProntoError:
            with tempfile.TemporaryDirectory(prefix="prontodb-") as path, open_root(path) as folder:
                yield folder
            return
        with held, self._open() as top:
            top.remove_tree(SCRATCH)
            try:
                with top.make(SCRATCH, durable=False) as folder:
                    yield folder
            finally:
                top.remove_tree(SCRATCH)

    def _busy(self, error: BusyError) -> BusyError:
        return BusyError(f"{shown(self.path)} is in use by {error.holder or 'somebody'}; try again", error.holder)


class Staged:
    """A backup in the making."""

    __slots__ = ("_above", "folder", "id")

    def __init__(self, above: Folder, folder: Folder, backup: str) -> None:
        self._above, self.folder, self.id = above, folder, backup

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, and give the folder its name: from that instant the backup exists."""
        self.folder.create(MANIFEST_FILE, manifest.encode())
        self.folder.sync()
        _step("backup.manifest")
        self._above.rename(STAGED_PREFIX + self.id, self.id)
        _step("backup.published")
        self.close()

    def discard(self) -> None:
        """Remove what there is of it."""
        self.folder.close()
        self._above.remove_tree(STAGED_PREFIX + self.id)
        self._above.close()

    def close(self) -> None:
        """Close the descriptors."""
        self.folder.close()
        self._above.close()


def read_manifest(folder: Folder, backup: str) -> Manifest:
    """Return the manifest in the folder of a backup; `CorruptError` when it is missing, cut or another's."""
    place = shown(f"{folder.path}/{MANIFEST_FILE}")
    found = folder.check_file(MANIFEST_FILE)
    if found is None:
        raise CorruptError(f"{place} is missing")
    if found.st_size > manifests.MAX_BYTES:
        raise CorruptError(f"{place} is over {manifests.MAX_BYTES:,} bytes; it was not read")
    manifest = manifests.decode(b"".join(folder.chunks(MANIFEST_FILE)), place)
    if manifest.id != backup:
        raise CorruptError(f"{place} is that of backup {manifest.id}")
    return manifest


def faults(folder: Folder, manifest: Manifest) -> Iterator[tuple[str | None, bool]]:
    """Compare a backup's folder with its manifest; yield what is wrong, None for a file with which nothing is.

    With each goes whether it is of a file that belongs there.
    """
    wanted = {piece.file for piece in manifest.pieces} | {MANIFEST_FILE}
    for name in folder.names():
        if name not in wanted:
            yield f"{shown(name)} does not belong to it", False
    for piece in manifest.pieces:
        yield file_fault(folder, piece), True


def file_fault(folder: Folder, piece: manifests.Piece) -> str | None:
    """Return what is wrong with one file of a backup by its size and hash; None when nothing is."""
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in folder.chunks(piece.file):
            digest.update(chunk)
            size += len(chunk)
    except FileNotFoundError:
        return f"{piece.file} is missing"
    except (CorruptError, NewerFormatError, UnsafePathError) as error:
        return str(error)
    if size != piece.size_bytes:
        return f"{piece.file} has {size:,} bytes, not {piece.size_bytes:,}"
    return None if digest.hexdigest() == piece.sha256 else f"{piece.file} is not as it was written: its hash is another"


FAILPOINT: list[object] = []
"""Test hook: called with the name of each step. Empty, and free, in normal use."""


def _step(name: str) -> None:
    for hook in FAILPOINT:
        hook(name)  # type: ignore[operator]

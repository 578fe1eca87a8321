"""Chains: which files of which backups make up the state of an address; put together, and tested by the manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.backup.container import file_fault
from prontodb.backup.manifest import SNAPSHOT
from prontodb.backup.segment import open_segment, pages
from prontodb.engine.sqlite import snapshot
from prontodb.engine.sqlite.digest import Digest, digest_of, hashes_of, row_hash
from prontodb.engine.sqlite.increment import Writing
from prontodb.engine.sqlite.transactions import entry_of
from prontodb.errors import BackupNotFoundError, CorruptError, StoppedError
from prontodb.model.progress import never
from prontodb.storage import connection as sqlite
from prontodb.storage.files import NewFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prontodb.backup.container import Container, Listing
    from prontodb.backup.manifest import Manifest, Piece
    from prontodb.model.history import Mark
    from prontodb.storage.files import Folder


@dataclass(frozen=True, slots=True)
class Link:
    """One piece of a chain and the backup that it lies in."""

    backup: str
    piece: Piece


class Chains:
    """The chains of one container's backups, by their manifests alone; `find` brings the manifest of a backup."""

    def __init__(self, find: Callable[[str], Manifest | None]) -> None:
        self._find = find
        self._manifests: dict[str, Manifest | None] = {}
        self._pieces: dict[str, dict[str, Piece]] = {}

    @classmethod
    def of(cls, listing: Listing) -> Chains:
        """The chains of backups that were read already."""
        return cls({one.id: one for one in listing.backups}.get)

    def _of(self, backup: str) -> dict[str, Piece]:
        if backup not in self._pieces:
            self._pieces[backup] = {piece.address: piece for piece in self._manifest(backup).pieces}
        return self._pieces[backup]

    def _manifest(self, backup: str) -> Manifest:
        if backup not in self._manifests:
            self._manifests[backup] = self._find(backup)
        found = self._manifests[backup]
        if found is None:
            raise CorruptError(f"backup {backup}, which others build on, is not here or cannot be read")
        return found

    def line(self, backup: str) -> list[Manifest]:
        """Return a backup and those that it builds on, back to the full one; `CorruptError` when one is missing."""
        found = {backup: self._manifest(backup)}
        while (parent := found[backup].parent) is not None:
            if parent in found:
                raise CorruptError(f"backup {backup} builds on itself")
            backup, found[parent] = parent, self._manifest(parent)
        return list(found.values())

    def tips(self, backup: str) -> dict[str, Link]:
        """Return the newest piece of each address that a backup has the state of."""
        tips: dict[str, Link] = {}
        gone: set[str] = set()
        for manifest in self.line(backup):
            for address, piece in self._of(manifest.id).items():
                if address not in gone:
                    tips.setdefault(address, Link(manifest.id, piece))
            gone |= set(manifest.gone) - tips.keys()
        return tips

    def links(self, tip: Link) -> tuple[Link, ...]:
        """Return the chain of a piece, the snapshot first; `CorruptError` when a piece of it is missing."""
        found = [tip]
        while (parent := found[-1].piece.parent) is not None:
            piece = self._of(parent).get(tip.piece.address)
            # Revisions only fall on the way back, so that no chain leads into itself.
            if piece is None or piece.revision != found[-1].piece.since or piece.revision >= found[-1].piece.revision:
                raise CorruptError(f"backup {parent} does not hold what {found[-1].backup} builds on")
            found.append(Link(parent, piece))
        return tuple(reversed(found))


def rows_before(container: Container, links: Iterable[Link], keys: Iterable[str]) -> dict[str, int]:
    """Return the hash of the row that each of `keys` has at the end of a chain, if it has one."""
    wanted = set(keys)
    found: dict[str, int] = {}
    for link in reversed(tuple(links)):
        if not wanted:
            break
        secret = container.secret_of(link.piece)
        with container.open(link.backup) as folder:
            if link.piece.kind == SNAPSHOT:
                folder.check_file(link.piece.file)
                copy = snapshot.open_copy(f"{folder.path}/{link.piece.file}", secret)
                try:
                    for some in pages(wanted):
                        found |= hashes_of(copy, some)
                except sqlite.ERRORS as error:
                    raise sqlite.translated(error, link.piece.file) from error
                finally:
                    copy.close()
                break
            hash_key = b"" if secret is None else secret.digest_key
            for key, row in open_segment(folder, link.piece, secret).rows():
                if key in wanted:
                    wanted.discard(key)
                    if row is not None:
                        entry_of(row)  # what rotted must not go into what is said of later backups
                        found[key] = row_hash(row, hash_key)
    return found


def put_together(
    container: Container,
    links: tuple[Link, ...],
    folder: Folder,
    name: str,
    *,
    stop: Callable[[], bool] = never,
    each: Callable[[Link], None] = lambda _: None,
) -> Digest:
    """Make the state at the end of a chain, as the new file `name`; every file and every step is checked.

    What opens the snapshot opens the file. `each` is called after each piece. Raises `CorruptError` when anything
    differs from the manifests, `SecretError` where nobody brings what opens it.
    """
    path = f"{folder.path}/{name}"
    first, *rest = links
    _copy(container, first, folder, name)
    each(first)
    staged = snapshot.open_staged(path, container.secret_of(first.piece))
    try:
        snapshot.begin(staged)
        digest = first.piece.content
        if snapshot.mark_of(staged) != (first.piece.mark, first.piece.floor):
            raise _damaged(first, f"{first.piece.file} is at another place in the history than its manifest says")
        for link in rest:
            digest = _put_in(container, link, Writing(staged, digest))
            _compare(link, digest, snapshot.mark_of(staged)[0])
            each(link)
            if stop():
                raise StoppedError("the work was stopped")
        snapshot.end(staged, path)
        _compare(links[-1], digest_of(staged, stop), snapshot.mark_of(staged)[0])
        return digest
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        staged.close()


def _copy(container: Container, link: Link, folder: Folder, name: str) -> None:
    """Copy a snapshot, and make sure meanwhile that it is what its manifest says."""
    import hashlib

    digest = hashlib.sha256()
    with container.open(link.backup) as source, NewFile(folder, name) as copy:
        try:
            for chunk in source.chunks(link.piece.file):
                digest.update(chunk)
                copy.write(chunk)
        except FileNotFoundError:
            raise _lost(container, link) from None
        if copy.size_bytes != link.piece.size_bytes or digest.hexdigest() != link.piece.sha256:
            raise _damaged(link, f"{link.piece.file} is not as it was written")


def _put_in(container: Container, link: Link, writing: Writing) -> Digest:
    secret = container.secret_of(link.piece)
    with container.open(link.backup) as folder:
        fault = file_fault(folder, link.piece)
        if fault is not None:
            raise _damaged(link, fault) if container.holds(link.backup) else BackupNotFoundError(link.backup)
        segment = open_segment(folder, link.piece, secret)
        said = (link.piece.address, link.piece.mark, link.piece.floor)
        if (segment.address, segment.mark, segment.floor) != said:
            raise _damaged(link, f"{link.piece.file} is not that of {link.piece.address} at that revision")
        return segment.put_into(writing)


def _compare(link: Link, digest: Digest, mark: Mark) -> None:
    if digest != link.piece.content or mark != link.piece.mark:
        raise _damaged(link, f"what it makes of {link.piece.address} is not what its manifest says")


def _lost(container: Container, link: Link) -> BackupNotFoundError | CorruptError:
    """Return what to raise for a missing file: the backup is being pruned, or it is damaged."""
    if not container.holds(link.backup):
        return BackupNotFoundError(link.backup)
    return _damaged(link, f"{link.piece.file} is missing")


def _damaged(link: Link, reason: str) -> CorruptError:
    return CorruptError(f"backup {link.backup} is damaged: {reason}")

"""What came after a backup: the changes up to a point, from later backups or the live keystore, if values are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from prontodb.backup.manifest import SEGMENT, SNAPSHOT
from prontodb.backup.segment import Segment
from prontodb.engine.sqlite import folders, opening, replay, snapshot
from prontodb.engine.sqlite.increment import Reading, Walk
from prontodb.errors import (
    AddressNotFoundError,
    BackupNotFoundError,
    CorruptError,
    InvalidInputError,
    UnavailableError,
    shown,
)
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prontodb.backup.chain import Link
    from prontodb.backup.container import Container, Listing
    from prontodb.backup.manifest import Piece
    from prontodb.engine.sqlite.increment import JournalRow
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.storage.connection import Connection


@dataclass(frozen=True, slots=True)
class Until:
    """How far an address is to be brought: to a moment, to a revision, or with neither to what the backup has."""

    at_ms: int | None = None
    revision: int | None = None

    def __post_init__(self) -> None:
        if self.at_ms is not None and self.revision is not None:
            raise InvalidInputError("name a moment or a revision, not both")
        if self.revision is not None and (type(self.revision) is not int or not 0 < self.revision < 2**63):
            raise InvalidInputError(f"a revision is a whole number above 0, not {shown(self.revision)}")

    def __bool__(self) -> bool:
        return self.at_ms is not None or self.revision is not None

    def includes(self, row: JournalRow) -> bool:
        """True for a commit that was made by then."""
        rev, _, at_ms, *_ = row
        return (self.at_ms is None or at_ms <= self.at_ms) and (self.revision is None or rev <= self.revision)


def changes_after(
    container: Container, listing: Listing, layout: Layout, address: Address, tip: Link, until: Until, busy_ms: int
) -> list[JournalRow]:
    """Return the commits after a piece of an address up to a point; none where their values are not kept."""
    if not until:
        return []
    best: list[JournalRow] = []
    for source in _sources(container, listing, layout, address, tip, busy_ms):
        try:
            found = replay.reachable(source, until.includes)
        except (BackupNotFoundError, CorruptError):
            continue  # being pruned, or damaged: what it adds cannot be told
        # After a restore there are several lines of history; of two, the one that comes nearest.
        if found and (not best or (found[-1][2], found[-1][0]) > (best[-1][2], best[-1][0])):
            best = found
    return best


def _sources(
    container: Container, listing: Listing, layout: Layout, address: Address, tip: Link, busy_ms: int
) -> Iterator[Iterator[JournalRow]]:
    """Yield what follows a place in the history wherever that is told: the live keystore, those put aside, backups."""
    yield _of_keystore(lambda: opening.open_reader(layout, address, busy_timeout_ms=busy_ms)[0], tip)
    for name in folders.kept(layout, address):
        path = layout.path(*layout.user_parts(address.user), name, KEYSTORE_FILE)
        yield _of_keystore(partial(snapshot.open_aside, path), tip)
    for manifest in listing.backups:
        for piece in manifest.pieces:
            begins = piece.floor if piece.kind == SNAPSHOT else piece.since
            if piece.address == tip.piece.address and begins <= tip.piece.revision < piece.revision:
                yield _of_piece(container, manifest.id, piece, tip)


def _of_keystore(connect: Callable[[], Connection], tip: Link) -> Iterator[JournalRow]:
    try:
        connection = connect()
    except (AddressNotFoundError, UnavailableError):
        return
    try:
        now, _ = snapshot.mark_of(connection)
        # By the chain alone: what was restored is another keystore with the same history.
        reading = Reading(connection, replace(tip.piece.mark, incarnation=now.incarnation))
        if reading.goes_on:
            yield from reading.journal()
    except sqlite.ERRORS as error:
        raise CorruptError(f"the journal of {tip.piece.address} cannot be read") from error
    finally:
        connection.close()


def _of_piece(container: Container, backup: str, piece: Piece, tip: Link) -> Iterator[JournalRow]:
    with container.open(backup) as folder:
        if piece.kind == SEGMENT:
            rows = Segment(folder, piece.file, piece.raw_bytes).journal()
            yield from _following(tip, (row for row in rows if row[0] > tip.piece.revision))
            return
        folder.check_file(piece.file)
        yield from _of_keystore(partial(snapshot.open_copy, f"{folder.path}/{piece.file}"), tip)


def _following(tip: Link, rows: Iterator[JournalRow]) -> Iterator[JournalRow]:
    """Yield rows as long as they follow from the end of a piece; `CorruptError` where they do not."""
    walk = Walk(tip.piece.mark)
    for row in rows:
        walk.step(row)
        yield row

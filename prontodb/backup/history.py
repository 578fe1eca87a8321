"""What came after a backup: the changes up to a point, from later backups or the live keystore, if values are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.backup.manifest import SEGMENT, SNAPSHOT
from prontodb.backup.segment import Segment
from prontodb.engine.sqlite import opening, replay, snapshot
from prontodb.engine.sqlite.increment import Reading
from prontodb.errors import AddressNotFoundError, BackupNotFoundError, CorruptError, InvalidInputError, shown
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prontodb.backup.chain import Link
    from prontodb.backup.container import Container, Listing
    from prontodb.engine.sqlite.increment import JournalRow
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout


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
    later = _later(listing, tip)
    if later is not None:
        try:
            with container.open(later.backup) as folder:
                if later.piece.kind == SEGMENT:
                    segment = Segment(folder, later.piece.file, later.piece.raw_bytes)
                    rows = (row for row in segment.journal() if row[0] > tip.piece.revision)
                    return replay.reachable(rows, until.includes)
                folder.check_file(later.piece.file)
                path = f"{folder.path}/{later.piece.file}"
                return _read(lambda: snapshot.open_copy(path), path, tip, until.includes)
        except BackupNotFoundError:
            return []  # being pruned
    path = layout.keystore_path(address)
    try:
        return _read(
            lambda: opening.open_reader(layout, address, busy_timeout_ms=busy_ms)[0], path, tip, until.includes
        )
    except (AddressNotFoundError, CorruptError):
        return []  # a lost or damaged keystore has nothing to add


def _read(
    connect: Callable[[], sqlite.Connection], path: str, tip: Link, wanted: Callable[[JournalRow], bool]
) -> list[JournalRow]:
    connection = connect()
    try:
        reading = Reading(connection, tip.piece.mark)
        return replay.reachable(reading.journal(), wanted) if reading.goes_on else []
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        connection.close()


def _later(listing: Listing, tip: Link) -> Link | None:
    """Return the next piece of the same keystore in any backup, if its journal reaches back to this one."""
    from prontodb.backup.chain import Link

    def found() -> Iterator[Link]:
        for manifest in listing.backups:
            for piece in manifest.pieces:
                if piece.address != tip.piece.address or piece.incarnation != tip.piece.incarnation:
                    continue
                begins = piece.floor if piece.kind == SNAPSHOT else piece.since
                if begins <= tip.piece.revision < piece.revision:
                    yield Link(manifest.id, piece)

    return min(found(), key=lambda link: link.piece.revision, default=None)

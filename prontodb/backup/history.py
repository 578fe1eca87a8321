"""What came after a backup: the changes up to a point, from later backups or the live keystore, if values are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from prontodb.backup.manifest import SEGMENT, SNAPSHOT
from prontodb.backup.segment import open_segment
from prontodb.engine.sqlite import ciphers, folders, opening, replay, snapshot
from prontodb.engine.sqlite.increment import Reading, Walk
from prontodb.errors import (
    AddressNotFoundError,
    BackupNotFoundError,
    CorruptError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    shown,
)
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.moments import text_of
from prontodb.storage import connection as sqlite
from prontodb.storage.files import open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prontodb.backup.chain import Link
    from prontodb.backup.container import Container, Listing
    from prontodb.backup.manifest import Manifest, Piece
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
    container: Container,
    listing: Listing,
    layout: Layout,
    address: Address,
    tip: Link,
    until: Until,
    *,
    made_at_ms: int,
    busy_ms: int,
) -> list[JournalRow]:
    """Return the commits after a piece of an address up to a point; none where their values are not kept.

    `made_at_ms`: when the backup was made that says the address was at that piece. Raises `NotFoundError` when a
    restore put aside what that backup is of, before the moment that is asked for.
    """
    if not until:
        return []
    kept = folders.kept(layout, address)
    left_ms = 0
    if until.at_ms is not None:
        # What was put aside by then was not there any more, nor was what was backed up before that.
        aside = [folders.put_aside_at_ms(name) for name in kept]
        left_ms = max((at_ms for at_ms in aside if at_ms <= until.at_ms), default=0)
    kept = [name for name in kept if left_ms == 0 or folders.put_aside_at_ms(name) > left_ms]
    later = [manifest for manifest in listing.backups if manifest.created_at_ms >= left_ms]
    goes_on = made_at_ms >= left_ms
    best: list[JournalRow] = []
    for source in _sources(container, later, layout, address, tip, kept, busy_ms):
        try:
            found = replay.reachable(source, until.includes)
        except (BackupNotFoundError, CorruptError):
            continue  # being pruned, damaged, or of another line: what it adds cannot be told
        goes_on = True
        # After a restore there are several lines of history; of two, the one that comes nearest.
        if found and (not best or (found[-1][2], found[-1][0]) > (best[-1][2], best[-1][0])):
            best = found
    if not goes_on:
        raise NotFoundError(
            f"{address} was restored at {text_of(left_ms)}, and no backup tells what it was between then and the "
            "moment that is asked for; name a backup, or an earlier moment"
        )
    return best


def _sources(
    container: Container,
    manifests: list[Manifest],
    layout: Layout,
    address: Address,
    tip: Link,
    kept: list[str],
    busy_ms: int,
) -> Iterator[Iterator[JournalRow]]:
    """Yield what follows a place in the history wherever that is told: the live keystore, those put aside, backups."""
    yield _of_keystore(lambda: opening.open_reader(layout, address, busy_timeout_ms=busy_ms)[0], tip)
    for name in kept:
        yield _of_keystore(partial(_open_aside, layout, address, name), tip)
    for manifest in manifests:
        for piece in manifest.pieces:
            begins = piece.floor if piece.kind == SNAPSHOT else piece.since
            if piece.address == tip.piece.address and begins <= tip.piece.revision < piece.revision:
                yield _of_piece(container, manifest.id, piece, tip)


def _of_keystore(connect: Callable[[], Connection], tip: Link) -> Iterator[JournalRow]:
    """Yield what a keystore tells of after a piece; `CorruptError` when it does not go on from there."""
    try:
        connection = connect()
    except (AddressNotFoundError, FileNotFoundError, UnavailableError) as error:
        raise CorruptError(f"{tip.piece.address} is not there") from error
    try:
        now, _ = snapshot.mark_of(connection)
        # By the chain alone: what was restored is another keystore with the same history.
        reading = Reading(connection, replace(tip.piece.mark, incarnation=now.incarnation))
        if not reading.goes_on:
            raise CorruptError(f"{tip.piece.address} does not go on from there")
        yield from reading.journal()
    except sqlite.ERRORS as error:
        raise CorruptError(f"the journal of {tip.piece.address} cannot be read") from error
    finally:
        connection.close()


def _open_aside(layout: Layout, address: Address, name: str) -> Connection:
    with open_root(layout.root, *layout.user_parts(address.user), name) as folder:
        return snapshot.open_aside(f"{folder.path}/{KEYSTORE_FILE}", ciphers.secret_in(layout, folder, address))


def _of_piece(container: Container, backup: str, piece: Piece, tip: Link) -> Iterator[JournalRow]:
    secret = container.secret_of(piece)
    with container.open(backup) as folder:
        if piece.kind == SEGMENT:
            rows = open_segment(folder, piece, secret).journal()
            key = b"" if secret is None else secret.chain_key
            yield from _following(tip, (row for row in rows if row[0] > tip.piece.revision), key)
            return
        folder.check_file(piece.file)
        yield from _of_keystore(partial(snapshot.open_copy, f"{folder.path}/{piece.file}", secret), tip)


def _following(tip: Link, rows: Iterator[JournalRow], key: bytes) -> Iterator[JournalRow]:
    """Yield rows as long as they follow from the end of a piece; `CorruptError` where they do not."""
    walk = Walk(tip.piece.mark, key)
    for row in rows:
        walk.step(row)
        yield row

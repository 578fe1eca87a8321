"""The journal and the entries as they lie there, for whoever tests one against the other: damaged ones come, too.

Every function is one short snapshot, but for what a caller reads inside `held`; no writer waits for any of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import shapes
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.errors import CorruptError
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import chain_key, digest_key, one, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.model.history import Mark
    from prontodb.storage.connection import Connection

    Row = tuple[int, object, object, object, object, object]
    """Of the journal: rev, first_rev, at, session, records, chain; None for what is not of the column's type."""
    Stored = tuple[bytes | None, bytes | None, object, object, object, object, object]
    """Of an entry: key, value, expiry, revision, created, updated, checksum; None for a number that is none."""

PAGE_ROWS = 256
"""Rows of the journal read from one snapshot, so that a long look pins no checkpoint."""
PAGE_BYTES = 4 * 1024 * 1024
"""A page ends early past this: a row may hold a thousand keys, and values where the history is kept."""

# Read as bytes and decoded here: text that is none would else end the whole page, and nobody could name the row.
_COLUMNS = (
    "rev, CASE typeof(first_rev) WHEN 'integer' THEN first_rev END, CASE typeof(at) WHEN 'integer' THEN at END, "
    "CASE typeof(session) WHEN 'text' THEN CAST(session AS BLOB) END, "
    "CASE typeof(records) WHEN 'text' THEN CAST(records AS BLOB) END, CASE typeof(chain) WHEN 'blob' THEN chain END"
)
_AFTER = f"SELECT {_COLUMNS} FROM journal WHERE rev > ? ORDER BY rev LIMIT ?"
_BEFORE = f"SELECT {_COLUMNS} FROM journal WHERE rev < ? ORDER BY rev DESC LIMIT ?"
_AT = f"SELECT {_COLUMNS} FROM journal WHERE rev >= ? ORDER BY rev LIMIT 1"
_WITHIN_FLOOR = "SELECT rev FROM journal WHERE rev <= (SELECT floor FROM meta) ORDER BY rev LIMIT 1"
_FLOOR_CHAIN = "SELECT floor_chain FROM meta"
_STORED = (
    "SELECT CASE typeof(namespace_key) WHEN 'text' THEN CAST(namespace_key AS BLOB) END, CASE typeof(value) WHEN "
    "'text' THEN CAST(value AS BLOB) END, CASE typeof(ttl_expires_at) WHEN 'integer' THEN ttl_expires_at WHEN 'null' "
    "THEN NULL ELSE 0 END, CASE typeof(rev) WHEN 'integer' THEN rev END, CASE typeof(created_at) WHEN 'integer' THEN "
    "created_at END, CASE typeof(updated_at) WHEN 'integer' THEN updated_at END, CASE typeof(checksum) WHEN 'integer' "
    "THEN checksum END FROM kvstore ORDER BY id"
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of the journal, of one snapshot, with what the keystore said of itself at that moment."""

    head: Mark
    floor: int
    floor_chain: bytes
    within_floor: int | None
    """The first row that lies where everything is said to be pruned; None as it should be."""
    rows: list[Row]


def damage(connection: Connection) -> str | None:
    """Return what SQLite's own check of pages and indexes finds first; None when nothing is wrong."""
    found = [text for (text,) in rows(connection, "PRAGMA integrity_check") if text != "ok"]
    return str(found[0]) if found else None


def key_of(connection: Connection) -> bytes:
    """Return what the journal's chain is keyed with; empty for a plain keystore."""
    return chain_key(connection)


def digest_key_of(connection: Connection) -> bytes:
    """Return what the digest of a keystore's entries is keyed with; empty for a plain keystore."""
    return digest_key(connection)


@contextmanager
def held(connection: Connection) -> Iterator[None]:
    """Keep one snapshot for the block."""
    connection.execute("BEGIN DEFERRED").close()
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK").close()


def page(connection: Connection, after: int) -> Page:
    """Return the next rows after a revision; the caller holds the snapshot, or has no other statement beside it."""
    if not connection.in_transaction:
        with held(connection):
            return page(connection, after)
    head, floor = mark_of(connection)
    floor_chain = one(connection, _FLOOR_CHAIN)[0]
    if not isinstance(floor_chain, bytes):
        raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
    within = one(connection, _WITHIN_FLOOR)
    found = list(_limited(connection, _AFTER, (max(after, floor), PAGE_ROWS)))
    return Page(head, floor, floor_chain, None if within is None else within[0], found)


def before(connection: Connection, revision: int) -> list[Row]:
    """Return the next older rows, the newest first."""
    return list(_limited(connection, _BEFORE, (revision, PAGE_ROWS)))


def row_at(connection: Connection, revision: int) -> Row | None:
    """Return the row that tells of a revision; None when there is none."""
    return next(_limited(connection, _AT, (revision,)), None)


def _limited(connection: Connection, query: str, parameters: tuple[object, ...]) -> Iterator[Row]:
    cursor = connection.execute(query, parameters)
    size = 0
    try:
        for rev, first_rev, at, session, records, chain in cursor:
            yield rev, first_rev, at, _text(session), _text(records), chain
            size += len(records or b"")
            if size > PAGE_BYTES:
                return
    finally:
        cursor.close()


def _text(stored: bytes | None) -> str | None:
    try:
        return None if stored is None else stored.decode()
    except UnicodeDecodeError:
        return None


def stored(connection: Connection) -> Iterator[Stored]:
    """Yield all entries, one in memory at a time; the caller holds the snapshot."""
    cursor = connection.execute(_STORED)
    try:
        yield from cursor
    finally:
        cursor.close()


def goes_through(connection: Connection, revision: int, chain: str) -> bool:
    """True when the history of a keystore has this place in it."""
    row = row_at(connection, revision)
    found = row[5] if row is not None and row[0] == revision else None
    return isinstance(found, bytes) and found.hex() == chain


def settings(connection: Connection) -> tuple[int, dict[str, int]]:
    """Return what a keystore says of itself and has records of: whether it keeps its history, and default lifetimes."""
    lifetimes = dict(rows(connection, "SELECT namespace, ttl_ms FROM namespace_ttl"))
    return one(connection, "SELECT history FROM meta")[0], lifetimes


def misshapen(connection: Connection) -> str | None:
    """Return the first thing in the keystore's own records that nobody of ours writes there."""
    return next(iter(shapes.faults(connection, shapes.OF_THE_KEYSTORE, 1)), None)


def count(connection: Connection) -> int:
    """Return how many entries there are, live or expired."""
    found: int = rows(connection, "SELECT count(*) FROM kvstore")[0][0]
    return found


def translated(error: Exception, path: str) -> Exception:
    """Return our own error for one of SQLite's."""
    return sqlite.translated(error, path)


ERRORS = sqlite.ERRORS

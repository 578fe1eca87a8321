"""What each column of a keystore may hold: another hand can store any type and any number anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import schema
from prontodb.engine.sqlite.context import HIGHEST
from prontodb.errors import shown
from prontodb.model.entry import MAX_MOMENT_MS
from prontodb.model.key import MAX_KEY_BYTES
from prontodb.model.ttl import MAX_TTL_MS
from prontodb.storage.connection import rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prontodb.storage.connection import Connection


@dataclass(frozen=True, slots=True)
class _Column:
    """One column: what it holds, in words, and the SQL that is true of it then and never NULL."""

    name: str
    holds: str
    is_right: str


def _whole(name: str, least: int, most: int) -> _Column:
    holds = f"the number {least}" if least == most else f"a whole number from {least} to {most}"
    return _Column(name, holds, f"typeof({name}) = 'integer' AND {name} BETWEEN {least} AND {most}")


def _text(name: str, least: int = 0, most: int = HIGHEST) -> _Column:
    size = f"length(CAST({name} AS BLOB))"
    return _Column(name, "text of its length", f"typeof({name}) = 'text' AND {size} BETWEEN {least} AND {most}")


def _bytes(name: str, size: int) -> _Column:
    return _Column(name, f"{size} bytes", f"typeof({name}) = 'blob' AND length({name}) = {size}")


def _or_null(column: _Column) -> _Column:
    return _Column(column.name, f"{column.holds}, or nothing", f"({column.name} IS NULL OR {column.is_right})")


# Each table with what names one of its rows, and its columns.
_TABLES = {
    "meta": (
        "''",
        (
            _whole("floor", 0, HIGHEST),
            _bytes("floor_chain", schema.CHAIN_BYTES),
            _whole("epoch", 0, HIGHEST),
            _bytes("incarnation", schema.INCARNATION_BYTES),
            _whole("token_epoch", 0, HIGHEST),
            _whole("history", 0, 1),
            _whole("audit", 1, 1),
            _or_null(_whole("lock_device", -(2**63), 2**63 - 1)),
            _or_null(_whole("lock_inode", -(2**63), 2**63 - 1)),
        ),
    ),
    "namespace_ttl": ("namespace", (_text("namespace", 0, MAX_KEY_BYTES), _whole("ttl_ms", 1, MAX_TTL_MS))),
    "revoked": ("session", (_text("session", 1), _whole("at", 0, MAX_MOMENT_MS))),
    "journal": (
        "rev",
        (
            _whole("rev", 1, HIGHEST),
            _whole("first_rev", 1, HIGHEST),
            _whole("at", 0, MAX_MOMENT_MS),
            _text("session"),
            _text("records"),
            _bytes("chain", schema.CHAIN_BYTES),
        ),
    ),
    "kvstore": (
        "namespace_key",
        (
            _whole("id", 1, HIGHEST),
            _text("namespace_key", 1, MAX_KEY_BYTES),
            _text("value"),
            _whole("created_at", 0, MAX_MOMENT_MS),
            _whole("updated_at", 0, MAX_MOMENT_MS),
            _or_null(_whole("ttl_expires_at", 0, MAX_MOMENT_MS)),
            _whole("rev", 1, HIGHEST),
            _whole("checksum", 0, HIGHEST),
        ),
    ),
}
OF_THE_KEYSTORE = ("meta", "namespace_ttl", "revoked")
"""The small tables, which say something of the whole keystore."""
ALL = tuple(_TABLES)


def faults(connection: Connection, tables: Iterable[str], limit: int) -> list[str]:
    """Return a line per row that holds in some column what we never store there, at most `limit` of each table."""
    return [line for table in tables for line in _of_table(connection, table, limit)]


def _of_table(connection: Connection, table: str, limit: int) -> list[str]:
    row, columns = _TABLES[table]
    first_wrong = " ".join(f"WHEN NOT ({column.is_right}) THEN {at}" for at, column in enumerate(columns))
    # As bytes: the name itself may be what is no text.
    query = f"SELECT CAST({row} AS BLOB), CASE {first_wrong} END AS wrong FROM {table} WHERE wrong IS NOT NULL LIMIT ?"
    return [_line(table, name, columns[wrong]) for name, wrong in rows(connection, query, (limit,))]


def _line(table: str, name: bytes | None, column: _Column) -> str:
    row = f", row {shown(name.decode('utf-8', 'replace'))}" if name else ""
    return f"table {table}{row}: {column.name} is not {column.holds}"

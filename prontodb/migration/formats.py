"""The old programs' tables: recognised by name and columns, refused by name, and read row by row.

Text comes as bytes, so that what is not UTF-8 can be told from what is, and reported with its id.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite.schema import APPLICATION_ID
from prontodb.errors import CorruptError, InvalidSourceError, ProntoError, StorageFullError, shown
from prontodb.migration import log
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.storage.connection import Connection

SHARED, RUST, LIFETIMES = "kvstore", "kv", "sys_namespaces"
_COLUMNS = {
    SHARED: frozenset({"id", "address", "value", "created_at", "updated_at"}),
    RUST: frozenset(
        {"project", "namespace", "key", "context", "value", "created_at", "updated_at", "expires_at"}
    ),
    LIFETIMES: frozenset({"project", "namespace", "is_ttl", "default_ttl", "created_at"}),
}  # fmt: skip
_NEVER_CONNECTED = frozenset(
    {"meta_registry", "project_registry", "namespace_registry", "meta_mappings", "meta_routes"}
)
_HASHED_KEYS = "keys_"
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)

MAX_TEXT_BYTES = 8_192
"""Of an address, or of a part of one: no key is as long. What is longer is not even read."""


def _short(*columns: str) -> str:
    """Return SQL for text columns: the type of each, and what it holds unless that is too long."""
    return ", ".join(
        f"typeof({one}), CASE WHEN octet_length({one}) <= {MAX_TEXT_BYTES} THEN {one} END" for one in columns
    )


def _rubbish_apart(*columns: str) -> str:
    """Return SQL for columns that hold moments and numbers: as they are, or a word for what is too long to be one."""
    return ", ".join(
        f"CASE WHEN {one} IS NULL OR octet_length({one}) <= {MAX_TEXT_BYTES} THEN {one} ELSE 'too long' END"
        for one in columns
    )


_VALUE = "typeof(value), CASE WHEN octet_length(value) <= ?1 THEN value END, coalesce(octet_length(value), 0)"
SELECT = {
    SHARED: f"SELECT rowid, {_short('address')}, {_VALUE}, {_rubbish_apart('created_at', 'updated_at')} FROM kvstore "
    "ORDER BY rowid",
    RUST: f"SELECT rowid, {_short('project', 'namespace', 'key', 'context')}, {_VALUE}, "
    f"{_rubbish_apart('created_at', 'updated_at', 'expires_at')} FROM kv ORDER BY rowid",
    LIFETIMES: f"SELECT {_short('project', 'namespace')}, {_rubbish_apart('is_ttl', 'default_ttl')} "
    "FROM sys_namespaces ORDER BY project, namespace",
}
"""?1 is the largest value that is read."""

_ALL = "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view')"
_TABLE_COLUMNS = "SELECT name, hidden FROM pragma_table_xinfo(?)"
_TABLE_KIND = "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND lower(name) = ?"
_ROW_NAME = "SELECT 1 FROM pragma_table_info('kvstore') WHERE lower(name) = 'id' AND pk = 1 AND upper(type) = 'INTEGER'"
_COUNT = {name: f"SELECT count(*) FROM {name}" for name in _COLUMNS}

MAX_TABLES_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What one database holds: rows by table (SHARED, RUST, LIFETIMES), and the names of tables nobody knows."""

    rows: dict[str, int]
    unknown: tuple[str, ...]
    doubt: str | None
    """What is doubtful about its log."""


@contextmanager
def opened(path: str, name: str) -> Iterator[Connection]:
    """Open a settled private copy for reading, text as bytes. What goes wrong is told of `name`, the original."""
    try:
        connection = sqlite.connect(path, mode=sqlite.IMMUTABLE, any_thread=True)
        try:
            connection.text_factory = bytes
            sqlite.lock_down(connection)
            yield connection
        finally:
            connection.close()
    except sqlite.ERRORS as error:
        raise _refused(name, sqlite.translated(error, path)) from error
    except CorruptError as error:
        raise _refused(name, error) from error


def settle(path: str, name: str) -> Tables:
    """Play what lies beside a private copy into it, test it, and return what it holds.

    Raises `InvalidSourceError` for everything that is not wholly an old program's database.
    """
    try:
        heads, doubt = log.read(path, name), None
        connection = sqlite.connect(path)
        try:
            if heads is not None:
                doubt = log.check_played(heads, one(connection, "PRAGMA wal_checkpoint(PASSIVE)")[1], name)
            # Plays in the log, or takes back what was never committed; afterwards all is in the one file.
            one(connection, "PRAGMA journal_mode=DELETE")
            found = _recognised(connection, name)
            sqlite.lock_down(connection)
            line = one(connection, "PRAGMA quick_check")[0]
            if line != "ok":
                raise InvalidSourceError(f"{shown(name)} is damaged ({shown(line)}); {_WAY_OUT}")
            counts = {table: one(connection, _COUNT[table])[0] for table in found[0]}
            return Tables(rows=counts, unknown=found[1], doubt=doubt)
        finally:
            connection.close()
    except sqlite.ERRORS as error:
        raise _refused(name, sqlite.translated(error, path)) from error
    except CorruptError as error:
        raise _refused(name, error) from error


_WAY_OUT = "mend a copy of it with 'sqlite3 OLD .recover | sqlite3 NEW' and migrate that; nothing was imported"


def _refused(name: str, error: ProntoError) -> ProntoError:
    """Say of the original what SQLite says of its copy."""
    if isinstance(error, CorruptError):
        return InvalidSourceError(f"{shown(name)} is damaged, cut, or no database of SQLite; {_WAY_OUT}")
    if isinstance(error, StorageFullError):
        return error
    return InvalidSourceError(f"{shown(name)} cannot be read: {error} (said of a private copy of it)")


def _recognised(connection: Connection, name: str) -> tuple[list[str], tuple[str, ...]]:
    if one(connection, "PRAGMA application_id")[0] == APPLICATION_ID:
        raise InvalidSourceError(f"{shown(name)} is a keystore of this ProntoDB; 'prontodb copy' and 'import' take it")
    encoding = one(connection, "PRAGMA encoding")[0]
    if encoding != "UTF-8":
        raise InvalidSourceError(
            f"{shown(name)} keeps its text as {encoding}, which no old program did; make a copy that is UTF-8 with "
            "'sqlite3 OLD .dump | sqlite3 NEW' and migrate that"
        )
    objects = {str(item).lower(): str(type_) for type_, item in rows(connection, _ALL)}
    found = [table for table in _COLUMNS if table in objects]
    for table in found:
        _check_table(connection, table, objects[table], name)
    tables = sorted(item for item in objects if item not in _COLUMNS)
    strange = [item for item in tables if not item.startswith("sqlite_")]
    apart = [item for item in strange if item in _NEVER_CONNECTED or item.startswith(_HASHED_KEYS)]
    if apart and not _are_empty(connection, apart, objects):
        raise InvalidSourceError(
            f"{shown(name)} has the tables {_named(apart)}: a schema that the old program was never connected to, so "
            "that nobody can say what its rows mean; export them by hand (see ops/migration.md)"
        )
    if SHARED not in found and RUST not in found:
        held = f"it holds {_named(tables)}" if tables else "it holds no table"
        raise InvalidSourceError(f"{shown(name)} is no database of the old program (no table kvstore or kv); {held}")
    return found, tuple(item for item in strange if item not in apart)


def _check_table(connection: Connection, table: str, type_: str, name: str) -> None:
    """Raise unless this is a plain table with just the columns that we know the meaning of."""
    kind = one(connection, _TABLE_KIND, (table,))
    if type_ != "table" or kind is None or kind[0] != "table":
        what = type_ if kind is None else kind[0]
        raise InvalidSourceError(f"{shown(name)}: {table} is a {what}, not a table; it was not read")
    columns = {str(column).lower(): hidden for column, hidden in rows(connection, _TABLE_COLUMNS, (table,))}
    if columns.keys() != _COLUMNS[table] or any(columns.values()):
        odd = sorted(columns.keys() ^ _COLUMNS[table]) or sorted(column for column in columns if columns[column])
        raise InvalidSourceError(
            f"{shown(name)}: table {table} has other columns than the old program's ({_named(odd)}); it was not read"
        )
    named = table != SHARED or one(connection, _ROW_NAME) is not None
    if (kind[1] and table != LIFETIMES) or not named:
        raise InvalidSourceError(f"{shown(name)}: table {table} has no row ids, so that its rows cannot be named")


def _are_empty(connection: Connection, names: list[str], objects: dict[str, str]) -> bool:
    """True when tables are all empty; a view is never."""
    for item in names:
        if objects[item] != "table" or not _PLAIN_NAME.fullmatch(item):
            return False
        if one(connection, f"SELECT 1 FROM {item} LIMIT 1") is not None:
            return False
    return True


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MAX_TABLES_NAMED} more" if len(names) > MAX_TABLES_NAMED else ""
    return ", ".join(shown(item).strip("'") for item in names[:MAX_TABLES_NAMED]) + more

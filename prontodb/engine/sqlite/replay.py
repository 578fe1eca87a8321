"""Time travel: a copy of one place in the history carried on, change by change, where the journal keeps the values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prontodb.engine.sqlite.increment import Walk
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.engine.sqlite.transactions import HISTORY, LIFETIME, checksum
from prontodb.errors import CorruptError
from prontodb.storage.connection import chain_key, one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from prontodb.engine.sqlite.increment import JournalRow
    from prontodb.model.history import Mark
    from prontodb.storage.connection import Connection

_PUT_JOURNAL = "INSERT INTO journal (rev, first_rev, at, session, records, chain) VALUES (?, ?, ?, ?, ?, ?)"
_CREATED = "SELECT created_at FROM kvstore WHERE namespace_key = ? AND (ttl_expires_at IS NULL OR ttl_expires_at > ?)"
_DELETE = "DELETE FROM kvstore WHERE namespace_key = ?"
_PUT = (
    "INSERT INTO kvstore (namespace_key, value, created_at, updated_at, ttl_expires_at, rev, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_PUT_LIFETIME = "INSERT OR REPLACE INTO namespace_ttl (namespace, ttl_ms) VALUES (?, ?)"
_DROP_LIFETIME = "DELETE FROM namespace_ttl WHERE namespace = ?"
_SET_HISTORY = "UPDATE meta SET history = ?"
_SET, _VALUE_AT = "set", 4


def reachable(rows: Iterable[JournalRow], wanted: Callable[[JournalRow], bool]) -> list[JournalRow]:
    """Return the first of `rows`, as long as they are wanted; none when one of those does not tell the values."""
    found: list[JournalRow] = []
    for row in rows:
        if not wanted(row):
            break
        if not all(len(record) > _VALUE_AT for record in _records(row) if record[0] == _SET):
            return []
        found.append(row)
    return found


def _records(row: JournalRow) -> list[list[Any]]:
    try:
        found = json.loads(row[4])
        if isinstance(found, list) and all(isinstance(record, list) and len(record) > 1 for record in found):
            return found
    except (ValueError, RecursionError):
        pass
    raise CorruptError(f"the journal is damaged at revision {row[0]}")


def carry_on(staged: Connection, rows: Iterable[JournalRow]) -> Mark:
    """Make the changes of `rows` in a staged copy of the place that they follow; return the place they lead to.

    Each row is a commit, or a part of one, so the result is what the keystore was at that instant.
    """
    walk = Walk(mark_of(staged)[0], chain_key(staged))
    for row in rows:
        walk.step(row)
        staged.execute(_PUT_JOURNAL, row).close()
        for revision, record in enumerate(_records(row), row[1]):
            _change(staged, record, row[2], revision)
    return walk.mark


def _change(staged: Connection, record: list[Any], at_ms: int, revision: int) -> None:
    action, name = record[0], record[1]
    if action == LIFETIME:
        statement, values = (_DROP_LIFETIME, (name,)) if record[2] is None else (_PUT_LIFETIME, (name, record[2]))
        staged.execute(statement, values).close()
        return
    if action == HISTORY:
        staged.execute(_SET_HISTORY, (int(name == "on"),)).close()
        return
    # What replaces an expired entry is created anew, as when it was written.
    before = one(staged, _CREATED, (name, at_ms)) if action == _SET else None
    staged.execute(_DELETE, (name,)).close()
    if action == _SET:
        created_at = at_ms if before is None else before[0]
        expires_at, value = record[3], record[_VALUE_AT]
        stored = checksum(name, value.encode(), at_ms, expires_at, revision) + created_at
        staged.execute(_PUT, (name, value, created_at, at_ms, expires_at, revision, stored)).close()

"""The old design, for comparison: all users in one SQLite file behind key prefixes, as the Rust program kept them.

Same durability as ProntoDB's default (WAL, synchronous=FULL), a busy timeout of 5 s, and each write reads the row first
in a plain transaction. SQLite refuses such a transaction at once when another process wrote in between, whatever the
timeout: that is a failed transaction, and what the old program reported to its user.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlcipher3 import dbapi2 as sqlite

from prontodb import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from .worlds import Collected, Store

FILE = "shared.db"
BUSY_TIMEOUT_S = 5.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at INTEGER, expires_at INTEGER)"
)
_READ = "SELECT value FROM kv WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_PUT = (
    "INSERT INTO kv VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
    "updated_at = excluded.updated_at, expires_at = excluded.expires_at"
)
_DELETE = "DELETE FROM kv WHERE key = ?"
_RANGE = "SELECT key FROM kv WHERE key >= ? AND key < ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY key"

Changes = dict[str, str | None]
T = TypeVar("T")


def make(root: Path) -> None:
    """Make the database: once, before the agents come."""
    connection = _connected(root)
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute(_TABLE)
    connection.close()


def _connected(root: Path) -> Any:
    connection = sqlite.connect(str(root / FILE), timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class OneDatabase:
    """One process's connection to the shared database."""

    def __init__(self, root: Path) -> None:
        self._connection = _connected(root)

    def __enter__(self) -> OneDatabase:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    @asynccontextmanager
    async def visit(
        self, address: str, mode: str, wait_s: float | None, *, create: bool = True
    ) -> AsyncIterator[Store]:
        """There were no sessions: whoever names a user is that user."""
        yield Prefixed(self._connection, f"{address}:")


class Prefixed:
    """One user's part of the shared database."""

    session_id, epoch = "", None

    def __init__(self, connection: Any, prefix: str) -> None:
        self._connection, self._prefix = connection, prefix

    async def get(self, key: str) -> str | None:
        return self._transact(lambda: self._read(key))

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        wanted = list(keys)
        return self._transact(lambda: {key: self._read(key) for key in wanted})

    async def list_keys(self, prefix: str = "") -> list[str]:
        low = self._prefix + prefix
        rows = self._transact(lambda: self._fetched(_RANGE, low, low + "\U0010ffff", _now_ms()))
        return [key.removeprefix(self._prefix) for (key,) in rows]

    async def set(self, key: str, value: str, *, ttl: float | str | None = None) -> int:
        return self._transact(lambda: self._write({key: value}, float(ttl) if ttl else None))

    async def set_many(self, values: Mapping[str, str]) -> int:
        return self._transact(lambda: self._write(dict(values)))

    async def delete(self, key: str) -> bool:
        def run() -> bool:
            was_there = self._read(key) is not None
            self._write({key: None})
            return was_there

        return self._transact(run)

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool:
        def run() -> bool:
            fits = self._read(key) == expected
            if fits:
                self._write({key: value})
            return fits

        return self._transact(run)

    async def increment(self, key: str, by: int = 1) -> int:
        def run() -> int:
            total = int(self._read(key) or 0) + by
            self._write({key: str(total)})
            return total

        return self._transact(run)

    async def touch(self, key: str, ttl: float | str | None = None) -> bool:
        def run() -> bool:
            value = self._read(key)
            if value is not None:
                self._write({key: value}, float(ttl) if ttl else None)
            return value is not None

        return self._transact(run)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Collected]:
        """Collect changes; they are written together at the end."""
        collected = _Collected(self)
        yield collected
        self._transact(lambda: self._write(collected.changes))

    def _transact(self, run: Callable[[], T]) -> T:
        try:
            self._connection.execute("BEGIN DEFERRED")
            result = run()
            self._connection.execute("COMMIT")
        except sqlite.OperationalError as error:
            raise errors.BusyError(str(error)) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return result

    def _fetched(self, statement: str, *parameters: object) -> list[Any]:
        found: list[Any] = self._connection.execute(statement, parameters).fetchall()
        return found

    def _read(self, key: str) -> str | None:
        rows = self._fetched(_READ, self._prefix + key, _now_ms())
        return rows[0][0] if rows else None

    def _write(self, changes: Changes, ttl_s: float | None = None) -> int:
        now_ms = _now_ms()
        expires_ms = None if ttl_s is None else now_ms + round(ttl_s * 1_000)
        for key, value in changes.items():
            self._read(key)
            if value is None:
                self._fetched(_DELETE, self._prefix + key)
            else:
                self._fetched(_PUT, self._prefix + key, value, now_ms, expires_ms)
        return len(changes)


class _Collected:
    """Changes of a transaction that is not written yet."""

    def __init__(self, store: Prefixed) -> None:
        self._store = store
        self.changes: Changes = {}

    async def get(self, key: str) -> str | None:
        return self.changes[key] if key in self.changes else await self._store.get(key)

    def set(self, key: str, value: str) -> None:
        self.changes[key] = value

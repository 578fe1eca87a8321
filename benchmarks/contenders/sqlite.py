"""SQLite without us: raw and batched, which is the limit, and through aiosqlite in the two ways people write it.

All use the SQLite library, the pragmas and the columns that ProntoDB uses, less its journal, revision and checksum.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

import aiosqlite
from sqlcipher3 import dbapi2 as sqlite

from benchmarks.contenders import DURABLE, RELAXED, Contender, Durability, Promise
from prontodb.model.key import prefix_end
from prontodb.storage.connection import AUTOCHECKPOINT_PAGES, CACHE_KIB, JOURNAL_SIZE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PRAGMAS = (
    "PRAGMA page_size=4096",
    "PRAGMA auto_vacuum=INCREMENTAL",
    "PRAGMA journal_mode=WAL",
    f"PRAGMA cache_size=-{CACHE_KIB}",
    f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}",
    "PRAGMA secure_delete=FAST",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA mmap_size=0",
)
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS kvstore (id INTEGER PRIMARY KEY, namespace_key TEXT NOT NULL UNIQUE, "
    "value TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, ttl_expires_at INTEGER)",
    "CREATE INDEX IF NOT EXISTS kvstore_expiry ON kvstore (ttl_expires_at) WHERE ttl_expires_at IS NOT NULL",
)
UPSERT = (
    "INSERT INTO kvstore (namespace_key, value, created_at, updated_at) VALUES (?1, ?2, ?3, ?3) "
    "ON CONFLICT (namespace_key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at"
)
SELECT = "SELECT value FROM kvstore WHERE namespace_key = ? AND (ttl_expires_at IS NULL OR ttl_expires_at > ?)"
LIST = (
    "SELECT namespace_key, value FROM kvstore WHERE namespace_key >= ? AND namespace_key < ? "
    "AND (ttl_expires_at IS NULL OR ttl_expires_at > ?) ORDER BY namespace_key"
)


def now_ms() -> int:
    """Return the present time as every contender stores it."""
    return time.time_ns() // 1_000_000


def connect(path: Path, *, isolation_level: str | None = None, timeout: float = 5.0, is_synced: bool = True) -> Any:
    """Return a connection to a keystore-like file, made when it does not exist."""
    connection = sqlite.connect(str(path), isolation_level=isolation_level, timeout=timeout, check_same_thread=False)
    synchronous = "PRAGMA synchronous=FULL" if is_synced else "PRAGMA synchronous=NORMAL"
    for statement in (*PRAGMAS, synchronous, *SCHEMA):
        connection.execute(statement).close()
    return connection


def upsert_batch(connection: Any, pairs: Sequence[tuple[str, str]]) -> None:
    """Store pairs in one transaction."""
    at = now_ms()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(UPSERT, [(key, value, at) for key, value in pairs])
    connection.execute("COMMIT")


class Raw(Contender):
    """The binding alone, without an event loop: the physical limit of SQLite from Python."""

    name = "raw SQLite"
    promise = Promise(survives=Durability.POWER_LOSS, blocks=True)

    def __init__(self) -> None:
        self._connection: Any = None

    async def open(self, folder: Path) -> None:
        self._connection = connect(folder / "raw.db", is_synced=self.promise.survives is Durability.POWER_LOSS)

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        upsert_batch(self._connection, pairs)

    async def close(self) -> None:
        self._connection.close()

    def set(self, key: str, value: str) -> None:
        """Store one pair in a transaction of its own."""
        self._connection.execute(UPSERT, (key, value, now_ms())).close()

    def set_batch(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Store pairs in one transaction."""
        upsert_batch(self._connection, pairs)

    def get(self, key: str) -> str | None:
        """Return a value."""
        cursor = self._connection.execute(SELECT, (key, now_ms()))
        row = cursor.fetchone()
        cursor.close()
        return None if row is None else row[0]

    def entries(self, prefix: str) -> list[Any]:
        """Return the pairs whose keys begin with a prefix."""
        rows: list[Any] = self._connection.execute(LIST, (prefix, prefix_end(prefix), now_ms())).fetchall()
        return rows


class RawRelaxed(Raw):
    """The same with commits that are not synced."""

    name = "raw SQLite, relaxed"
    promise = Promise(survives=Durability.PROCESS_CRASH, blocks=True)


class _Aiosqlite(Contender):
    """One aiosqlite connection, shared by all tasks."""

    is_async = True
    isolation_level: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.db: aiosqlite.Connection

    async def open(self, folder: Path) -> None:
        is_synced = self.promise.survives is Durability.POWER_LOSS

        def connector() -> Any:
            return connect(folder / "aiosqlite.db", isolation_level=self.isolation_level, is_synced=is_synced)

        self.db = await aiosqlite.Connection(connector, iter_chunk_size=64)

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        at = now_ms()
        await self.db.execute("BEGIN IMMEDIATE")
        await self.db.executemany(UPSERT, [(key, value, at) for key, value in pairs])
        await self.db.execute("COMMIT")

    async def close(self) -> None:
        await self.db.close()

    async def get(self, key: str) -> str | None:
        """Return a value in three trips."""
        cursor = await self.db.execute(SELECT, (key, now_ms()))
        row = await cursor.fetchone()
        await cursor.close()
        return None if row is None else cast("str", row[0])


class AiosqliteCommitEach(_Aiosqlite):
    """Every set commits by itself, in one trip to the thread: the correct form, as fast as it can be written."""

    name = "aiosqlite, one commit per operation"
    promise = DURABLE

    async def set(self, key: str, value: str) -> None:
        """Store one pair in a transaction of its own."""
        await self.db.execute_fetchall(UPSERT, (key, value, now_ms()))

    async def get(self, key: str) -> str | None:
        """Return a value in one trip."""
        rows = await self.db.execute_fetchall(SELECT, (key, now_ms()))
        return next((cast("str", row[0]) for row in rows), None)

    async def entries(self, prefix: str) -> list[Any]:
        """Return the pairs whose keys begin with a prefix, in one trip."""
        return list(await self.db.execute_fetchall(LIST, (prefix, prefix_end(prefix), now_ms())))


class AiosqliteRelaxed(AiosqliteCommitEach):
    """The same with commits that are not synced."""

    name = "aiosqlite, one commit per operation, relaxed"
    promise = RELAXED


class AiosqliteNaive(_Aiosqlite):
    """Tasks share the connection's implicit transaction: what most programs do.

    Fast, since one commit carries everybody's work, and not isolated: a rollback discards what others wrote.
    """

    name = "aiosqlite, shared naively"
    promise = Promise(survives=Durability.POWER_LOSS, notes=("NOT isolated between tasks",))
    isolation_level = ""

    async def set(self, key: str, value: str) -> None:
        """Execute, then commit whatever has come together."""
        await self.db.execute(UPSERT, (key, value, now_ms()))
        await self.db.commit()


class AiosqliteMany:
    """A connection, and so a thread, for each of many files; every set commits by itself."""

    name = AiosqliteCommitEach.name
    promise = DURABLE
    is_ours = False
    most_keys = None

    def __init__(self) -> None:
        self.stores: list[AiosqliteCommitEach] = []

    async def open(self, folder: Path, addresses: int) -> None:
        """Open so many new files."""
        for number in range(addresses):
            place = folder / f"agent{number}"
            place.mkdir()
            store = AiosqliteCommitEach()
            await store.open(place)
            self.stores.append(store)

    async def fill(self, number: int, pairs: Sequence[tuple[str, str]]) -> None:
        """Store pairs in one of the files."""
        await self.stores[number].fill(pairs)

    async def close(self) -> None:
        """Close all of them."""
        for store in self.stores:
            await store.close()

"""Other stores inside one's own process, called on the event loop's thread; those not installed are said to be missing.

None is a dependency of ours. What they promise was counted by the scenario `syncs` and tested by killing a writer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import Contender, Durability, Promise, few_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LMDB_MAP_BYTES = 1024 * 1024 * 1024


class Diskcache(Contender):
    """diskcache.Cache with its default settings: WAL without a sync per commit."""

    name = "diskcache"
    promise = Promise(survives=Durability.PROCESS_CRASH, blocks=True)
    needs = ("diskcache",)

    def __init__(self) -> None:
        self._cache: Any = None

    async def open(self, folder: Path) -> None:
        self._cache = import_module("diskcache").Cache(str(folder))

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        with self._cache.transact():
            for key, value in pairs:
                self._cache.set(key, value)

    async def close(self) -> None:
        self._cache.close()

    def get(self, key: str) -> str | None:
        """Return a value."""
        value: str | None = self._cache.get(key)
        return value

    def set(self, key: str, value: str) -> None:
        """Store one pair."""
        self._cache.set(key, value)


class Lmdb(Contender):
    """lmdb with synced commits and a read transaction per get."""

    name = "lmdb"
    promise = Promise(survives=Durability.POWER_LOSS, blocks=True)
    needs = ("lmdb",)

    def __init__(self) -> None:
        self._environment: Any = None

    async def open(self, folder: Path) -> None:
        self._environment = import_module("lmdb").open(str(folder), map_size=LMDB_MAP_BYTES)

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        with self._environment.begin(write=True) as transaction:
            for key, value in pairs:
                transaction.put(key.encode(), value.encode())

    async def close(self) -> None:
        self._environment.close()

    def get(self, key: str) -> str | None:
        """Return a value."""
        with self._environment.begin() as transaction:
            value: bytes | None = transaction.get(key.encode())
        return None if value is None else value.decode()

    def entries(self, prefix: str) -> list[tuple[str, str]]:
        """Return the pairs whose keys begin with a prefix, by a cursor."""
        wanted, found = prefix.encode(), []
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(wanted):
                for key, value in cursor:
                    if not key.startswith(wanted):
                        break
                    found.append((key.decode(), value.decode()))
        return found

    def set(self, key: str, value: str) -> None:
        """Store one pair in a transaction of its own."""
        with self._environment.begin(write=True) as transaction:
            transaction.put(key.encode(), value.encode())


class Rocksdict(Contender):
    """rocksdict.Rdict with its default options: RocksDB's log is written by every set, and synced by none."""

    name = "rocksdict"
    promise = Promise(survives=Durability.PROCESS_CRASH, blocks=True)
    needs = ("rocksdict",)

    def __init__(self) -> None:
        self._rocksdict: Any = None
        self._db: Any = None

    async def open(self, folder: Path) -> None:
        self._rocksdict = import_module("rocksdict")
        self._db = self._rocksdict.Rdict(str(folder / "rocks"))
        options = self._rocksdict.WriteOptions()
        options.sync = self.promise.survives is Durability.POWER_LOSS
        self._db.set_write_options(options)

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        batch = self._rocksdict.WriteBatch()
        for key, value in pairs:
            batch.put(key, value)
        self._db.write(batch)

    async def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> str | None:
        """Return a value."""
        value: str | None = self._db.get(key)
        return value

    def set(self, key: str, value: str) -> None:
        """Store one pair."""
        self._db[key] = value


class RocksdictSynced(Rocksdict):
    """The same with `WriteOptions.sync`."""

    name = "rocksdict, synced"
    promise = Promise(survives=Durability.POWER_LOSS, blocks=True)


class Sqlitedict(Contender):
    """sqlitedict.SqliteDict with autocommit, which waits for the commit; it sets `synchronous=OFF` and nothing else."""

    name = "sqlitedict"
    most_keys = 10_000
    promise = Promise(
        survives=Durability.PROCESS_CRASH,
        blocks=True,
        notes=("a power loss may corrupt the file: synchronous=OFF", few_keys(most_keys)),
    )
    needs = ("sqlitedict",)

    def __init__(self) -> None:
        self._dict: Any = None

    async def open(self, folder: Path) -> None:
        # Its default is to note the caller's stack for each statement, for messages that nobody will read here.
        self._dict = import_module("sqlitedict").SqliteDict(
            str(folder / "sqlitedict.db"), autocommit=True, outer_stack=False
        )

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._dict.update(pairs)

    async def close(self) -> None:
        self._dict.close()

    def get(self, key: str) -> str | None:
        """Return a value."""
        value: str | None = self._dict.get(key)
        return value

    def set(self, key: str, value: str) -> None:
        """Store one pair."""
        self._dict[key] = value

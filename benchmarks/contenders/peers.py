"""Other stores people would pick; none is a dependency of ours, and those not installed are said to be missing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import Contender, Durability, Promise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LMDB_MAP_BYTES = 1024 * 1024 * 1024


class Diskcache(Contender):
    """diskcache.Cache with its default settings, called on the event loop's thread."""

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
    """lmdb with synced commits and a read transaction per get, called on the event loop's thread."""

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

    def set(self, key: str, value: str) -> None:
        """Store one pair in a transaction of its own."""
        with self._environment.begin(write=True) as transaction:
            transaction.put(key.encode(), value.encode())

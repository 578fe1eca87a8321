"""Stores with coroutines that agents' programs use; those that are not installed are said to be missing.

None is a dependency of ours. What they promise was counted by the scenario `syncs` and tested by killing a writer.
"""

from __future__ import annotations

import asyncio
import warnings
from contextlib import AsyncExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders import Contender, Durability, Promise, few_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMESPACE = ("agent1", "prod")


class _PyKeyValue(Contender):
    """One of py-key-value-aio's stores that keep their data on a disk; values are mappings, kept as JSON."""

    is_async = True
    module: ClassVar[str]

    def __init__(self) -> None:
        self._store: Any = None

    def make(self, module: Any, folder: Path) -> Any:
        """Return the store."""
        raise NotImplementedError

    async def open(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # Most of its stores warn that their layout may change between versions.
            warnings.simplefilter("ignore", UserWarning)
            self._store = self.make(import_module(self.module), folder)
        await self._store.setup()

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        await self._store.put_many([key for key, _ in pairs], [{"value": value} for _, value in pairs])

    async def close(self) -> None:
        if hasattr(self._store, "close"):  # the one that keeps nothing open has none
            await self._store.close()

    async def get(self, key: str) -> str | None:
        """Return a value."""
        found: dict[str, str] | None = await self._store.get(key)
        return None if found is None else found["value"]

    async def set(self, key: str, value: str) -> None:
        """Store one pair."""
        await self._store.put(key, {"value": value})


class PyKeyValueDisk(_PyKeyValue):
    """Its `DiskStore`: diskcache, called on the event loop's thread."""

    name = "py-key-value disk"
    module = "key_value.aio.stores.disk"
    promise = Promise(survives=Durability.PROCESS_CRASH, blocks=True)
    needs = ("key_value", "diskcache")
    package = "py-key-value-aio[disk]"

    def make(self, module: Any, folder: Path) -> Any:
        return module.DiskStore(directory=folder)


class PyKeyValueRocksdb(_PyKeyValue):
    """Its `RocksDBStore`: rocksdict without syncs, called on the event loop's thread."""

    name = "py-key-value rocksdb"
    module = "key_value.aio.stores.rocksdb"
    promise = Promise(survives=Durability.PROCESS_CRASH, blocks=True)
    needs = ("key_value", "rocksdict")
    package = "py-key-value-aio[rocksdb]"

    def make(self, module: Any, folder: Path) -> Any:
        return module.RocksDBStore(path=folder)


class PyKeyValueFiletree(_PyKeyValue):
    """Its `FileTreeStore`: a file per key, written beside, synced on the event loop's thread, and renamed."""

    name = "py-key-value filetree"
    module = "key_value.aio.stores.filetree"
    most_keys = 2_000
    promise = Promise(
        survives=Durability.POWER_LOSS,
        blocks=True,
        notes=("the latest renames are not synced: a power loss may undo them", few_keys(most_keys)),
    )
    needs = ("key_value", "aiofile")
    package = "py-key-value-aio[filetree]"

    def make(self, module: Any, folder: Path) -> Any:
        return module.FileTreeStore(data_directory=folder)


class Agentfs(Contender):
    """agentfs-sdk's key-value store: a table in a file of Turso's database, values as JSON."""

    name = "agentfs-sdk kv"
    is_async = True
    most_keys = 10_000
    promise = Promise(survives=Durability.POWER_LOSS, notes=("NOT isolated between tasks", few_keys(most_keys)))
    needs = ("agentfs_sdk",)
    package = "agentfs-sdk"

    def __init__(self) -> None:
        self._agent: Any = None

    async def open(self, folder: Path) -> None:
        agentfs = import_module("agentfs_sdk")
        self._agent = await agentfs.AgentFS.open(agentfs.AgentFSOptions(path=str(folder / "agent.db")))
        self.get, self.set = self._agent.kv.get, self._agent.kv.set

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        await asyncio.gather(*(self._agent.kv.set(key, value) for key, value in pairs))

    async def close(self) -> None:
        await self._agent.close()


class Langgraph(Contender):
    """LangGraph's AsyncSqliteStore; what tasks ask for while it works shares its next transaction."""

    name = "langgraph AsyncSqliteStore"
    is_async = True
    promise = Promise(
        survives=Durability.POWER_LOSS,
        notes=("the journal's removal is not synced: a power loss may undo the latest commit",),
    )
    needs = ("langgraph.store.sqlite",)
    package = "langgraph-checkpoint-sqlite"

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._store: Any = None

    async def open(self, folder: Path) -> None:
        store = import_module("langgraph.store.sqlite").AsyncSqliteStore
        self._store = await self._stack.enter_async_context(store.from_conn_string(str(folder / "store.db")))
        await self._store.setup()

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        await asyncio.gather(*(self.set(key, value) for key, value in pairs))

    async def close(self) -> None:
        await self._stack.aclose()

    async def get(self, key: str) -> str | None:
        """Return a value."""
        found = await self._store.aget(NAMESPACE, key)
        return None if found is None else found.value["value"]

    async def set(self, key: str, value: str) -> None:
        """Store one pair."""
        await self._store.aput(NAMESPACE, key, {"value": value})

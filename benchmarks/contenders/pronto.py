"""ProntoDB as its users have it: a manager, a session, default settings."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar

import prontodb
from benchmarks.contenders import DURABLE, RELAXED, Contender

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Pronto(Contender):
    """One address, in a session as it is by default: exclusive, with a cache."""

    name = "prontodb"
    promise = DURABLE
    is_ours = True
    is_async = True
    mode: ClassVar[str] = "exclusive"
    durability: ClassVar[str] = "full"

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.keystore: prontodb.Keystore

    async def open(self, folder: Path) -> None:
        settings = prontodb.Settings(durability=self.durability)
        manager = await self._stack.enter_async_context(prontodb.open(folder / "root", settings=settings))
        self.keystore = await self._stack.enter_async_context(manager.session("agent1", "prod", mode=self.mode))
        self.get, self.set = self.keystore.get, self.keystore.set

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        await self.keystore.set_many(dict(pairs))

    async def close(self) -> None:
        await self._stack.aclose()

    async def entries(self, prefix: str) -> list[tuple[str, str]]:
        """Return the pairs whose keys begin with a prefix."""
        return [(entry.key, entry.value) async for entry in self.keystore.scan(prefix)]


class ProntoShared(Pronto):
    """One address, in a session beside which others may write: every get asks SQLite."""

    name = "prontodb, shared session"
    mode = "shared"


class ProntoRelaxed(Pronto):
    """One address whose commits are not synced: `durability = "relaxed"`."""

    name = "prontodb, relaxed"
    promise = RELAXED
    durability = "relaxed"


class ProntoMany:
    """Many addresses of one root, each with its own session."""

    name = "prontodb"
    promise = DURABLE
    is_ours = True
    most_keys = None

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.keystores: list[prontodb.Keystore] = []

    async def open(self, folder: Path, addresses: int) -> None:
        """Open a session at each of so many new addresses."""
        settings = prontodb.Settings(max_open_keystores=max(256, addresses))
        manager = await self._stack.enter_async_context(prontodb.open(folder / "root", settings=settings))
        for number in range(addresses):
            session = manager.session(f"agent{number}", "prod")
            self.keystores.append(await self._stack.enter_async_context(session))

    async def fill(self, number: int, pairs: Sequence[tuple[str, str]]) -> None:
        """Store pairs at one of the addresses."""
        await self.keystores[number].set_many(dict(pairs))

    async def close(self) -> None:
        """End the sessions and the manager."""
        await self._stack.aclose()

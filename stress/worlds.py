"""Where agents live: at ProntoDB's addresses, or, for comparison, all in one SQLite file as the old design had it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import prontodb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from prontodb import SessionManager


class Collected(Protocol):
    """A transaction under way."""

    async def get(self, key: str) -> str | None: ...

    def set(self, key: str, value: str) -> None: ...


class Store(Protocol):
    """What both worlds give a visitor: the part of `prontodb.Keystore` that agents use."""

    @property
    def session_id(self) -> str: ...

    @property
    def epoch(self) -> int | None: ...

    async def get(self, key: str) -> str | None: ...

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]: ...

    async def list_keys(self, prefix: str = "") -> list[str]: ...

    async def set(self, key: str, value: str, *, ttl: float | str | None = None) -> int: ...

    async def set_many(self, values: Mapping[str, str]) -> int: ...

    async def delete(self, key: str) -> bool: ...

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool: ...

    async def increment(self, key: str, by: int = 1) -> int: ...

    async def touch(self, key: str, ttl: float | str | None = None) -> bool: ...

    def transaction(self) -> AbstractAsyncContextManager[Collected]: ...


class World(Protocol):
    """Opens sessions."""

    def visit(
        self, address: str, mode: str, wait_s: float | None, *, create: bool = True
    ) -> AbstractAsyncContextManager[Store]: ...


class Pronto:
    """ProntoDB, by its public API."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    def visit(
        self, address: str, mode: str, wait_s: float | None, *, create: bool = True
    ) -> AbstractAsyncContextManager[Store]:
        """Open a session at `user/cursor`."""
        user, _, cursor = address.partition("/")
        return self.manager.session(user, cursor, mode=mode, wait=wait_s, create=create)


@asynccontextmanager
async def entered(name: str, root: Path) -> AsyncIterator[World]:
    """Enter a world by its name."""
    if name == SHARED_WORLD:
        from .old_design import OneDatabase

        with OneDatabase(root) as database:
            yield database
        return
    async with prontodb.open(root) as manager:
        yield Pronto(manager)


PRONTO_WORLD, SHARED_WORLD = "prontodb", "shared"

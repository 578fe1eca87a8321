"""The engines that go through the conformance suite: one line each at the end."""

import time
from collections.abc import Callable

from prontodb.direct import lifecycle
from prontodb.engine.protocol import Engine, Keyspace
from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite.direct import DirectKeyspace
from prontodb.engine.sqlite.engine import SqliteEngine
from prontodb.errors import AddressNotFoundError
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.settings import Settings


class WallClock(ManualClock):
    """Expiry as the test says, deadlines by the machine: waiting for something real must end."""

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()


class DirectEngine:
    """One-shot keyspaces behind the engine protocol; they cannot wait for changes."""

    def __init__(self, root: str, clock: WallClock) -> None:
        self._layout, self._clock = Layout(root), clock
        self._lifecycle = lifecycle(self._layout, Limits(), clock)
        self._open: list[DirectKeyspace] = []

    async def create(self, address: Address) -> bool:
        """See `Engine.create`."""
        return self._lifecycle.create(address)

    async def drop(self, address: Address) -> bool:
        """See `Engine.drop`."""
        return self._lifecycle.delete(address)

    async def addresses(self, after: Address | None, limit: int) -> list[Address]:
        """See `Engine.addresses`."""
        found = folders.listed(self._layout)
        return [address for address in found if after is None or after < address][:limit]

    async def keyspace(self, address: Address) -> Keyspace:
        """See `Engine.keyspace`."""
        if not self._lifecycle.exists(address):
            raise AddressNotFoundError(address)
        keyspace = DirectKeyspace(
            self._layout, address, Limits(), self._clock, lifecycle=lambda: self._lifecycle, create=False
        )
        self._open.append(keyspace)
        return keyspace

    async def close(self) -> None:
        """See `Engine.close`."""
        while self._open:
            self._open.pop().close()


def sqlite_engine(root: str, clock: WallClock) -> Engine:
    """The async engine, as the manager builds it."""
    return SqliteEngine(lifecycle(Layout(root), Limits(), clock), Settings(max_open_keystores=8), clock)


ENGINES: dict[str, Callable[[str, WallClock], Engine]] = {
    "direct": DirectEngine,
    "sqlite": sqlite_engine,
}
"""Openers by name: each may be called several times on one root, as several processes would."""

CANNOT_WAIT = frozenset({"direct"})

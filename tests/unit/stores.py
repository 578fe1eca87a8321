"""Real keystores for tests without an event loop: time by hand, and a place to step in before each write."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from prontodb.direct import lifecycle, run
from prontodb.engine.sqlite.direct import DirectKeyspace
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.entry import Entry
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import Changes, Fence, Op, Position, Receipt

T = TypeVar("T")


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, which must not suspend."""
    result: T = run(coroutine)
    return result


def listed(items: AsyncIterator[T]) -> list[T]:
    """All items of an async iterator that never suspends."""

    async def collect() -> list[T]:
        return [item async for item in items]

    return done(collect())


class SteppedKeyspace:
    """A keyspace that calls `before_apply(n)` before its n-th write: another session's chance, or a fault."""

    def __init__(self, inner: DirectKeyspace, before_apply: Callable[[int], None]) -> None:
        self._inner, self._before_apply = inner, before_apply
        self.writes = 0

    async def apply(self, ops: Sequence[Op], fence: Fence) -> Receipt:
        self.writes += 1
        self._before_apply(self.writes)
        return await self._inner.apply(ops, fence)

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._inner.read(keys)

    async def scan(self, lo: str, hi: str | None, limit: int, *, reverse: bool = False) -> list[Entry]:
        return await self._inner.scan(lo, hi, limit, reverse=reverse)

    async def keys(self, lo: str, hi: str | None, limit: int) -> list[str]:
        return await self._inner.keys(lo, hi, limit)

    async def count(self, lo: str, hi: str | None) -> int:
        return await self._inner.count(lo, hi)

    async def position(self) -> Position:
        return await self._inner.position()

    async def changes(self, since: Position, limit: int) -> Changes:
        return await self._inner.changes(since, limit)

    async def wait(self, since: Position, timeout_s: float) -> bool:
        return await self._inner.wait(since, timeout_s)

    async def sweep(self, limit: int, fence: Fence, until_ms: int | None = None) -> int:
        return await self._inner.sweep(limit, fence, until_ms)

    async def lifetimes(self) -> Mapping[str, int]:
        return await self._inner.lifetimes()

    async def set_lifetime(self, namespace: str, ttl_ms: int | None, fence: Fence) -> None:
        await self._inner.set_lifetime(namespace, ttl_ms, fence)


class Stores:
    """Keystores of one root on one clock that stands still; `close` when done."""

    def __init__(self, root: str) -> None:
        self.root, self.clock = root, ManualClock()
        self._keyspaces: list[DirectKeyspace] = []

    def at(
        self,
        address: str,
        *,
        limits: Limits | None = None,
        before_apply: Callable[[int], None] | None = None,
    ) -> Keystore:
        """A new handle of `address`, which the first write makes."""
        layout, where = Layout(self.root), Address.parse(address)
        own = limits or Limits()
        keyspace = DirectKeyspace(
            layout,
            where,
            own,
            self.clock,
            lifecycle=lambda: lifecycle(layout, own, self.clock),
            durability="relaxed",  # no test here cuts the power
        )
        self._keyspaces.append(keyspace)
        stepped = keyspace if before_apply is None else SteppedKeyspace(keyspace, before_apply)
        return Keystore(stepped, where, Fence("test"), own, self.clock)

    def close(self) -> None:
        """Close every keyspace handed out."""
        for keyspace in self._keyspaces:
            keyspace.close()


def values(keystore: Keystore) -> dict[str, str]:
    """Everything that a keystore holds."""
    return {entry.key: entry.value for entry in listed(keystore.scan())}


def expiries(keystore: Keystore) -> dict[str, int | None]:
    """When everything that a keystore holds expires."""
    return {entry.key: entry.expires_at_ms for entry in listed(keystore.scan())}

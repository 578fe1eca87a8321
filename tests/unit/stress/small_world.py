"""A world of one dictionary per address, that raises on order; and agents that live in it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio

from stress.history import Operation, read_history
from stress.work import Orders, Stay, Work
from stress.worlds import Collected

HOUR_NS = 3_600_000_000_000
HOME = "agent001/prod"


class SmallStore:
    """One address. Whatever stands in `refusals` first is raised by the next operation, in its place."""

    def __init__(self, session_id: str, values: dict[str, str], refusals: deque[BaseException]) -> None:
        self.session_id, self.epoch = session_id, 7
        self._values, self._refusals = values, refusals
        self.lifetimes: list[float | str | None] = []

    def _asked(self) -> dict[str, str]:
        if self._refusals:
            raise self._refusals.popleft()
        return self._values

    async def get(self, key: str) -> str | None:
        return self._asked().get(key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        values = self._asked()
        return {key: values.get(key) for key in keys}

    async def list_keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self._asked() if key.startswith(prefix))

    async def set(self, key: str, value: str, *, ttl: float | str | None = None) -> int:
        self._asked()[key] = value
        self.lifetimes.append(ttl)
        return 1

    async def set_many(self, values: Mapping[str, str]) -> int:
        self._asked().update(values)
        return len(values)

    async def delete(self, key: str) -> bool:
        return self._asked().pop(key, None) is not None

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool:
        values = self._asked()
        fits = values.get(key) == expected
        if fits:
            values[key] = value
        return fits

    async def increment(self, key: str, by: int = 1) -> int:
        values = self._asked()
        values[key] = str(int(values.get(key, 0)) + by)
        return int(values[key])

    async def touch(self, key: str, ttl: float | str | None = None) -> bool:
        self.lifetimes.append(ttl)
        return key in self._asked()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Collected]:
        changes = _Changes(self._asked())
        yield changes
        self._asked().update(changes.made)


class _Changes:
    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self.made: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        return self._values.get(key)

    def set(self, key: str, value: str) -> None:
        self.made[key] = value


class SmallWorld:
    """Lets everybody in, unless a refusal stands at the door."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, str]] = {}
        self.refusals: deque[BaseException] = deque()
        """Raised by operations in sessions."""
        self.at_the_door: deque[BaseException] = deque()
        self.visits: list[tuple[str, str, float | None, bool]] = []
        self.left = 0
        """How many sessions were left."""

    @asynccontextmanager
    async def visit(
        self, address: str, mode: str, wait_s: float | None, *, create: bool = True
    ) -> AsyncIterator[SmallStore]:
        if self.at_the_door:
            raise self.at_the_door.popleft()
        self.visits.append((address, mode, wait_s, create))
        yield SmallStore(f"s-{len(self.visits)}", self.values.setdefault(address, {}), self.refusals)
        await anyio.lowlevel.checkpoint()  # leaving takes time, and so can be cancelled
        self.left += 1


class Life:
    """An agent's life in a small world."""

    def __init__(self, folder: Path, breaks: list[str], **orders: Any) -> None:
        self.folder, self.world = folder, SmallWorld()
        wanted = {"operations": 10_000, "size_bytes": 1 << 30, "agents": 2, **orders}
        self.work = Work(
            Orders(
                scenario="isolation",
                process="agent001-1",
                number=1,
                addresses=2,
                seed=1,
                root="",
                history=str(folder / "agent001-1.jsonl"),
                breaks=breaks,
                **wanted,
            ),
            self.world,
            Random(5),
        )
        self.work.until_ns = HOUR_NS * 24 * 365 * 100  # later than any clock

    async def stays(self, body: Callable[[Stay], Awaitable[None]], mode: str = "exclusive", **more: Any) -> bool:
        return await self.work.visit(HOME, mode, body, **more)

    def recorded(self, *ops: str) -> list[Operation]:
        """What it wrote down so far, of these kinds; of all when none is named."""
        return [one for one in read_history(self.folder) if not ops or one.op in ops]


@contextmanager
def life(folder: Path, *breaks: str, **orders: Any) -> Iterator[Life]:
    """A life that ends with the block."""
    lived = Life(folder, list(breaks), **orders)
    try:
        yield lived
    finally:
        lived.work.close()

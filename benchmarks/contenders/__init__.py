"""Those that are compared: each behind a small adapter that says honestly what it promises."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.workload import Workload

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measure import Plan

HOT_KEYS = 1_000
"""What an agent comes back to, and what fits the cache of its session many times."""


class Durability(StrEnum):
    """What an acknowledged write survives; only contenders of one class are ranked against each other."""

    POWER_LOSS = "power loss"
    PROCESS_CRASH = "process crash"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a contender promises of an acknowledged write, and what else must be known to compare it fairly."""

    survives: Durability
    blocks: bool = False
    """Its calls, waits for the disk included, run on the event loop's own thread: every other task stands still."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        blocks = ("blocks the event loop",) if self.blocks else ()
        return "; ".join((f"survives {self.survives}", *blocks, *self.notes))


DURABLE = Promise(survives=Durability.POWER_LOSS)
RELAXED = Promise(survives=Durability.PROCESS_CRASH)


def few_keys(count: int) -> str:
    """Return what a promise says of a store that is filled with so many keys only."""
    return f"holds {count:,} keys at most, as filling it is slow"


class Contender:
    """Opened in a folder of its own by `opened`, and filled with keys before anything is measured.

    `get(key)` and `set(key, value)` are plain functions, or coroutine functions where `is_async`; when a set has
    returned, the promise holds. A scenario lists only contenders that have what it calls.
    """

    name: ClassVar[str]
    promise: ClassVar[Promise]
    is_ours: ClassVar[bool] = False
    is_async: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    """Modules that must be importable."""
    package: ClassVar[str] = ""
    """What to install to have them."""
    programs: ClassVar[tuple[str, ...]] = ()
    """Programs that must be found on the path; Debian's packages have the same names."""
    most_keys: ClassVar[int | None] = None
    """So many keys at most are filled, in its favour, where filling takes too long; its promise says so."""

    get: Callable[[str], Any]
    set: Callable[[str, str], Any]

    @classmethod
    def why_missing(cls) -> str | None:
        """Return why it cannot take part here and what would help; None when it can."""
        if absent := [module for module in cls.needs if not _is_there(module)]:
            return f"not installed (pip install {cls.package or absent[0]})"
        if absent := [program for program in cls.programs if which(program) is None]:
            return f"not installed (apt-get install {absent[0]})"
        return None

    async def open(self, folder: Path) -> None:
        """Open the store in an empty folder."""
        raise NotImplementedError

    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Store pairs as fast as it can; not measured."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the store and whatever was started for it."""
        raise NotImplementedError


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # not even the package around it


def slug(name: str) -> str:
    """Return a name as `--against` takes it: `raw SQLite` is raw-sqlite."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Measured:
    """A contender that takes part, with the workload of all in its scenario."""

    def __init__(self, store: Any, workload: Workload) -> None:
        self.store, self.promise = store, store.promise
        most = store.most_keys
        self.workload = workload if most is None else Workload(min(most, len(workload.keys)))
        self.hot = Workload(min(HOT_KEYS, len(self.workload.keys)))


def invited(kinds: Sequence[type[Contender]], plan: Plan) -> list[type[Contender]]:
    """Return the kinds that the plan wants, installed or not; ours always."""
    return [kind for kind in kinds if kind.is_ours or plan.invites(slug(kind.name))]


@asynccontextmanager
async def opened(
    kinds: Sequence[type[Contender]], folder: Path, workload: Workload, plan: Plan
) -> AsyncIterator[dict[str, Measured]]:
    """Open each kind of contender that is wanted and installed, fill it with its keys, and close them in the end."""
    async with AsyncExitStack() as stack:
        stores: dict[str, Measured] = {}
        for kind in invited(kinds, plan):
            if kind.why_missing() is not None:
                continue
            measured = Measured(kind(), workload)
            place = folder / slug(kind.name)
            place.mkdir(mode=0o700)
            await measured.store.open(place)
            stack.push_async_callback(measured.store.close)
            for batch in measured.workload.batches():
                await measured.store.fill(batch)
            stores[kind.name] = measured
        yield stores


def missing(kinds: Sequence[type[Contender]], plan: Plan) -> list[str]:
    """Return a line for each contender that is wanted and not installed."""
    return [f"{kind.name}: {why}" for kind in invited(kinds, plan) if (why := kind.why_missing()) is not None]

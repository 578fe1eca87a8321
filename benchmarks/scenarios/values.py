"""What does a value's size cost: small, ten thousand and a million bytes?"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, Promise, opened
from benchmarks.contenders.peers import Diskcache, Lmdb, RocksdictSynced
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.redis_server import RedisAlways
from benchmarks.contenders.sqlite import AiosqliteCommitEach, Raw
from benchmarks.measure import Goal, Race
from benchmarks.rounds import gets, sets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan, Round

SIZES = {"1 KB": 1_000, "10 KB": 10_000, "1 MB": 1_000_000}
MOST_BYTES = 50_000_000
"""Of values of one size, in each store: a few keys when they are large, and the disk stays modest."""
PEERS = (Raw, AiosqliteCommitEach, Lmdb, RocksdictSynced, RedisAlways)
KINDS = (Pronto, ProntoShared, *PEERS, Diskcache)
READERS = (ProntoShared, *PEERS, Diskcache)
WRITERS = (Pronto, *PEERS)


class Sized:
    """One contender with a store for each size of value."""

    def __init__(self, promise: Promise) -> None:
        self.promise = promise
        self.of_size: dict[int, Measured] = {}


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Sized]]:
    """Open and fill a store of each contender for each size."""
    found: dict[str, Sized] = {}
    async with AsyncExitStack() as stack:
        for size in SIZES.values():
            place = folder / f"{size}-bytes"
            place.mkdir(mode=0o700)
            workload = Workload(max(2, min(plan.keys, MOST_BYTES // size) // 10), characters=size)
            stores = await stack.enter_async_context(opened(KINDS, place, workload, plan))
            for name, measured in stores.items():
                found.setdefault(name, Sized(measured.promise)).of_size[size] = measured
        yield found


def _of(size: int, run: Round) -> Round:
    async def run_sized(sized: Sized, ops: int) -> int:
        return await run(sized.of_size[size], ops)

    return run_sized


def _races() -> list[Race]:
    races = []
    for said, size in SIZES.items():
        for what, run, ours, kinds in (
            ("get, not cached", gets(1), ProntoShared, READERS),
            ("durable set, 1 task", sets(1), Pronto, WRITERS),
        ):
            races.append(
                Race(
                    name=f"{what}, values of {said}",
                    ops=max(10, 200_000 // size),
                    runners={kind.name: _of(size, run) for kind in kinds},
                    goals=tuple(
                        Goal(subject=ours.name, other=kind.name, by="time" if kind is Raw else "speed")
                        for kind in kinds
                        if not kind.is_ours
                    ),
                    family=f"{what}, by size",
                    axis="bytes",
                    at=size,
                )
            )
    return races


SCENARIO = Scenario(
    name="values",
    question="What do large values cost, to get and to set?",
    contenders=KINDS,
    arena=arena,
    races=lambda _plan: _races(),
)

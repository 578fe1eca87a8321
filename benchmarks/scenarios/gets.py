"""How fast is a get: of a few keys over and over in an exclusive session, and one that no cache of ours answers?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import opened
from benchmarks.contenders.peers import Diskcache, Lmdb
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.sqlite import AiosqliteNaive, Raw
from benchmarks.measure import Goal, Race, Target
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload, drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.contenders import Contender
    from benchmarks.measure import Plan, Round

KINDS = (Pronto, ProntoShared, Raw, AiosqliteNaive, Diskcache, Lmdb)
PAUSE_EVERY = 16
HOT_KEYS = 1_000
"""What an agent comes back to, and what fits the cache of its session many times."""


class _Measured:
    """A contender with the workload that all of this scenario share."""

    def __init__(self, store: Contender, workload: Workload) -> None:
        self.store, self.workload, self.promise = store, workload, store.promise
        self.hot = Workload(min(HOT_KEYS, len(workload.keys)))


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, _Measured]]:
    """Open and fill the contenders."""
    workload = Workload(plan.keys)
    async with opened(KINDS, folder, workload) as stores:
        measured = {name: _Measured(store, workload) for name, store in stores.items()}
        ours = stores[Pronto.name]
        assert isinstance(ours, Pronto)
        for key in measured[Pronto.name].hot.keys:
            await ours.keystore.get(key)
        yield measured


def _async(tasks: int, *, hot: bool = False) -> Round:
    async def run(measured: _Measured, ops: int) -> int:
        store, key = measured.store, (measured.hot if hot else measured.workload).key
        assert isinstance(store, Pronto | AiosqliteNaive)
        get_one = store.keystore.get if isinstance(store, Pronto) else store.get
        return await drive(tasks, ops, lambda _: get_one(key()), pause_every=PAUSE_EVERY)

    return run


def _blocking(*, hot: bool = False) -> Round:
    """Return a round that calls a store which knows no event loop, one get after the other."""

    async def run(measured: _Measured, ops: int) -> int:
        store, key = measured.store, (measured.hot if hot else measured.workload).key
        assert isinstance(store, Raw | Diskcache | Lmdb)
        get_one = store.get
        for _ in range(ops):
            get_one(key())
        return ops

    return run


def _hot() -> Race:
    ours = Pronto.name
    return Race(
        name="get, 1 task, hot",
        ops=20_000,
        runners={
            ours: _async(1, hot=True),
            Raw.name: _blocking(hot=True),
            Diskcache.name: _blocking(hot=True),
            Lmdb.name: _blocking(hot=True),
        },
        goals=(
            Goal(subject=ours, other=Raw.name, by="time", target=Target(relation="<=", limit=0.5)),
            Goal(subject=ours, other=Diskcache.name, target=Target(relation=">=", limit=1)),
            Goal(subject=ours, other=Lmdb.name, target=Target(relation=">=", limit=1)),
        ),
    )


def _race(tasks: int) -> Race:
    ours = ProntoShared.name
    return Race(
        name=f"get, {tasks} task{'s' * (tasks > 1)}, not cached",
        ops=5_000,
        runners={
            ours: _async(tasks),
            Raw.name: _blocking(),
            AiosqliteNaive.name: _async(tasks),
            Diskcache.name: _blocking(),
            Lmdb.name: _blocking(),
        },
        goals=(
            Goal(subject=ours, other=Raw.name, by="time", target=Target(relation="<=", limit=2.5)),
            Goal(subject=ours, other=AiosqliteNaive.name, target=Target(relation=">=", limit=15)),
            Goal(subject=ours, other=Diskcache.name, target=Target(relation=">=", limit=1)),
            Goal(subject=ours, other=Lmdb.name),
        ),
    )


SCENARIO = Scenario(
    name="gets",
    question="How fast is a get, hot in an exclusive session, and in a shared one, which no cache of ours answers?",
    contenders=KINDS,
    arena=arena,
    races=lambda _plan: (_hot(), _race(1), _race(100)),
)

"""How fast is a get: of a few keys over and over in an exclusive session, and one that no cache of ours answers?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, opened
from benchmarks.contenders.agents import Agentfs, Langgraph, PyKeyValueDisk, PyKeyValueFiletree, PyKeyValueRocksdb
from benchmarks.contenders.peers import Diskcache, Lmdb, Rocksdict, Sqlitedict
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.redis_server import RedisEverysec
from benchmarks.contenders.sqlite import AiosqliteNaive, Raw
from benchmarks.measure import Goal, Race, Target
from benchmarks.rounds import gets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan

# How sets are synced is no matter to a get: of those that come in both ways, one.
RECORDED = (
    Rocksdict,
    RedisEverysec,
    PyKeyValueDisk,
    PyKeyValueRocksdb,
    PyKeyValueFiletree,
    Agentfs,
    Langgraph,
    Sqlitedict,
)
"""Those that no target names."""
PEERS = (Raw, AiosqliteNaive, Diskcache, Lmdb, *RECORDED)
KINDS = (Pronto, ProntoShared, *PEERS)

MARK = "each answer looks by one system call whether the session still holds its address"
NO_TRIP = "ours makes no trip to a thread, so tasks have none to share; aiosqlite's hundreds share theirs"
CHECKED = "diskcache is a plain call: no coroutine, no checksum, no look whether the file is still the one at its path"


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill the contenders, and have our cache hold the hot keys."""
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        ours = stores[Pronto.name]
        for key in ours.hot.keys:
            await ours.store.get(key)
        yield stores


def _hot() -> Race:
    ours = Pronto.name
    return Race(
        name="get, 1 task, hot",
        ops=20_000,
        runners={kind.name: gets(1, hot=True) for kind in (Pronto, *PEERS)},
        goals=(
            Goal(subject=ours, other=Raw.name, by="time", target=Target(relation="<=", limit=0.5)),
            Goal(subject=ours, other=Diskcache.name, target=Target(relation=">=", limit=1)),
            Goal(subject=ours, other=Lmdb.name, target=Target(relation=">=", limit=1), why_missed=MARK),
            *(Goal(subject=ours, other=kind.name) for kind in RECORDED),
        ),
    )


def _race(tasks: int) -> Race:
    ours = ProntoShared.name
    return Race(
        name=f"get, {tasks:,} task{'s' * (tasks > 1)}, not cached",
        ops=5_000,
        runners={kind.name: gets(tasks) for kind in (ProntoShared, *PEERS)},
        goals=(
            Goal(subject=ours, other=Raw.name, by="time", target=Target(relation="<=", limit=2.5)),
            Goal(subject=ours, other=AiosqliteNaive.name, target=Target(relation=">=", limit=15), why_missed=NO_TRIP),
            Goal(subject=ours, other=Diskcache.name, target=Target(relation=">=", limit=1), why_missed=CHECKED),
            *(Goal(subject=ours, other=kind.name) for kind in (Lmdb, *RECORDED)),
        ),
        family="get, not cached",
        axis="tasks",
        at=tasks,
    )


SCENARIO = Scenario(
    name="gets",
    question="How fast is a get, hot in an exclusive session, and in a shared one, which no cache of ours answers?",
    contenders=KINDS,
    arena=arena,
    races=lambda plan: (_hot(), *(_race(tasks) for tasks in plan.tasks)),
)

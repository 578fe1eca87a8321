"""How fast are sets that survive a crash of the process, and not a loss of power?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, opened
from benchmarks.contenders.agents import PyKeyValueDisk, PyKeyValueRocksdb
from benchmarks.contenders.peers import Diskcache, Rocksdict, Sqlitedict
from benchmarks.contenders.pronto import ProntoRelaxed
from benchmarks.contenders.redis_server import RedisEverysec
from benchmarks.contenders.sqlite import AiosqliteRelaxed, RawRelaxed
from benchmarks.measure import Goal, Race
from benchmarks.rounds import batches, sets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan

PEERS = (
    RawRelaxed,
    AiosqliteRelaxed,
    Diskcache,
    Rocksdict,
    RedisEverysec,
    PyKeyValueDisk,
    PyKeyValueRocksdb,
    Sqlitedict,
)
KINDS = (ProntoRelaxed, *PEERS)


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill the contenders."""
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        yield stores


def _race(tasks: int) -> Race:
    return Race(
        name=f"relaxed sets, {tasks:,} task{'s' * (tasks > 1)}, one address",
        ops=1_000 if tasks == 1 else tasks * 10,
        runners={kind.name: sets(tasks) for kind in KINDS} | ({} if tasks == 1 else {RawRelaxed.name: batches(tasks)}),
        goals=tuple(Goal(subject=ProntoRelaxed.name, other=kind.name) for kind in PEERS),
        family="relaxed sets, one address",
        axis="tasks",
        at=tasks,
    )


SCENARIO = Scenario(
    name="relaxed-sets",
    question="How fast are sets that survive a crash of the process only, of one task and of many at one address?",
    contenders=KINDS,
    arena=arena,
    races=lambda plan: [_race(tasks) for tasks in plan.tasks],
)

"""How fast are durable sets of many tasks at one address?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, opened
from benchmarks.contenders.agents import Agentfs, Langgraph, PyKeyValueFiletree
from benchmarks.contenders.peers import Lmdb, RocksdictSynced
from benchmarks.contenders.pronto import Pronto
from benchmarks.contenders.redis_server import RedisAlways
from benchmarks.contenders.sqlite import AiosqliteCommitEach, AiosqliteNaive, Raw
from benchmarks.measure import Goal, Race, Target
from benchmarks.rounds import batches, sets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan

PEERS = (Lmdb, RocksdictSynced, RedisAlways, Agentfs, Langgraph, PyKeyValueFiletree)
KINDS = (Pronto, Raw, AiosqliteCommitEach, AiosqliteNaive, *PEERS)

JOURNAL = "a commit also writes the journal with its digests, a checksum for each entry, and takes two threads"
QUICK_SYNCS = "the quicker the disk syncs, the less there is to share: what is left is the processor's time"


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill the contenders."""
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        yield stores


def _race(tasks: int) -> Race:
    def target(limit: float) -> Target | None:
        # One task alone has nobody to share a commit with: for the record.
        return None if tasks == 1 else Target(relation=">=", limit=limit)

    ours = Pronto.name
    return Race(
        name=f"durable sets, {tasks:,} task{'s' * (tasks > 1)}, one address",
        ops=200 if tasks == 1 else tasks * 3,
        runners={kind.name: sets(tasks) for kind in KINDS} | ({} if tasks == 1 else {Raw.name: batches(tasks)}),
        goals=(
            Goal(subject=ours, other=Raw.name, target=target(0.55), why_missed=JOURNAL),
            Goal(subject=ours, other=AiosqliteCommitEach.name, target=target(5), why_missed=QUICK_SYNCS),
            Goal(subject=ours, other=AiosqliteNaive.name, target=target(1.2)),
            *(Goal(subject=ours, other=kind.name) for kind in PEERS),
        ),
        family="durable sets, one address",
        axis="tasks",
        at=tasks,
    )


SCENARIO = Scenario(
    name="durable-sets",
    question="How fast are durable sets of one task and of many at one address, journal and checksum included?",
    contenders=KINDS,
    arena=arena,
    races=lambda plan: [_race(tasks) for tasks in plan.tasks],
)

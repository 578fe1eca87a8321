"""How fast are durable sets of many tasks at one address?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import opened
from benchmarks.contenders.pronto import Pronto
from benchmarks.contenders.sqlite import AiosqliteCommitEach, AiosqliteNaive, Raw
from benchmarks.measure import Goal, Race, Target
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload, drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.contenders import Contender
    from benchmarks.measure import Plan, Round

KINDS = (Pronto, Raw, AiosqliteCommitEach, AiosqliteNaive)


class _Measured:
    """A contender with the workload that all of this scenario share."""

    def __init__(self, store: Contender, workload: Workload) -> None:
        self.store, self.workload, self.promise = store, workload, store.promise


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, _Measured]]:
    """Open and fill the contenders."""
    workload = Workload(plan.keys)
    async with opened(KINDS, folder, workload) as stores:
        yield {name: _Measured(store, workload) for name, store in stores.items()}


def _by_prontodb(tasks: int) -> Round:
    async def run(measured: _Measured, ops: int) -> int:
        assert isinstance(measured.store, Pronto)
        set_one, pair = measured.store.keystore.set, measured.workload.pair
        return await drive(tasks, ops, lambda _: set_one(*pair()))

    return run


def _by_aiosqlite(tasks: int) -> Round:
    async def run(measured: _Measured, ops: int) -> int:
        assert isinstance(measured.store, AiosqliteCommitEach | AiosqliteNaive)
        set_one, pair = measured.store.set, measured.workload.pair
        return await drive(tasks, ops, lambda _: set_one(*pair()))

    return run


def _raw(batch: int) -> Round:
    async def run(measured: _Measured, ops: int) -> int:
        store, pair = measured.store, measured.workload.pair
        assert isinstance(store, Raw)
        batches = max(1, ops // batch)
        for _ in range(batches):
            if batch == 1:
                store.set(*pair())
            else:
                store.set_batch([pair() for _ in range(batch)])
        return batches * batch

    return run


def _race(tasks: int) -> Race:
    def target(limit: float) -> Target | None:
        # One task alone has nobody to share a commit with: for the record.
        return None if tasks == 1 else Target(relation=">=", limit=limit)

    ours = Pronto.name
    return Race(
        name=f"durable sets, {tasks:,} task{'s' * (tasks > 1)}, one address",
        ops=200 if tasks == 1 else tasks * 3,
        runners={
            ours: _by_prontodb(tasks),
            Raw.name: _raw(tasks),
            AiosqliteCommitEach.name: _by_aiosqlite(tasks),
            AiosqliteNaive.name: _by_aiosqlite(tasks),
        },
        goals=(
            Goal(subject=ours, other=Raw.name, target=target(0.55)),
            Goal(subject=ours, other=AiosqliteCommitEach.name, target=target(5)),
            Goal(subject=ours, other=AiosqliteNaive.name, target=target(1.2)),
        ),
    )


SCENARIO = Scenario(
    name="durable-sets",
    question="How fast are durable sets of one task and of many at one address, journal and checksum included?",
    contenders=KINDS,
    arena=arena,
    races=lambda plan: [_race(tasks) for tasks in plan.tasks],
)

"""How fast are durable sets when every task has an address of its own?"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, slug
from benchmarks.contenders.pronto import ProntoMany
from benchmarks.contenders.sqlite import AiosqliteMany
from benchmarks.measure import Goal, Race, Target
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload, drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan

ALONE = "a commit for each set: two frames of the log instead of one, and all threads share one interpreter"


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill both contenders' addresses, which share a workload."""
    workload = Workload(max(1, plan.keys // plan.addresses))
    async with AsyncExitStack() as stack:
        stores: dict[str, Measured] = {}
        for store in (ProntoMany(), AiosqliteMany()):
            if not (store.is_ours or plan.invites(slug(store.name))):
                continue
            place = folder / slug(store.name)
            place.mkdir(mode=0o700)
            stack.push_async_callback(store.close)
            await store.open(place, plan.addresses)
            for number in range(plan.addresses):
                for batch in workload.batches():
                    await store.fill(number, batch)
            stores[store.name] = Measured(store, workload)
        yield stores


async def _by_prontodb(measured: Measured, ops: int) -> int:
    assert isinstance(measured.store, ProntoMany)
    keystores, pair = measured.store.keystores, measured.workload.pair
    return await drive(len(keystores), ops, lambda task: keystores[task].set(*pair()))


async def _by_aiosqlite(measured: Measured, ops: int) -> int:
    assert isinstance(measured.store, AiosqliteMany)
    stores, pair = measured.store.stores, measured.workload.pair
    return await drive(len(stores), ops, lambda task: stores[task].set(*pair()))


def _race(plan: Plan) -> Race:
    ours, other = ProntoMany.name, AiosqliteMany.name
    return Race(
        name=f"durable sets, {plan.addresses} tasks over {plan.addresses} addresses",
        ops=plan.addresses * 5,
        runners={ours: _by_prontodb, other: _by_aiosqlite},
        goals=(Goal(subject=ours, other=other, target=Target(relation=">=", limit=1.2), why_missed=ALONE),),
    )


SCENARIO = Scenario(
    name="many-addresses",
    question="How fast are durable sets when each task has an address of its own?",
    arena=arena,
    races=lambda plan: (_race(plan),),
)

"""How long does a store ever hold the event loop, so that no other task has its turn?"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import prontodb
from benchmarks.contenders import DURABLE, Measured, missing, opened
from benchmarks.contenders.agents import PyKeyValueRocksdb
from benchmarks.contenders.peers import Diskcache, Lmdb, RocksdictSynced
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.redis_server import RedisAlways
from benchmarks.contenders.sqlite import AiosqliteCommitEach, Raw
from benchmarks.measure import Findings, Row, Series, in_turn, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.contenders import Promise
    from benchmarks.measure import Plan

    Work = Callable[[int], Awaitable[object]]
    """What one of the tasks does, by its number; then the others have their turn."""

TICK_S = 0.001
ROUNDS_LONG = 3
"""A cell lasts as long as so many rounds, for a 99.9th percentile that is not just the longest."""
MAX_ROUNDS = 3
TASKS = 100
LARGE_BYTES = 1_000_000
LARGE_TASKS = 10
NOBODY = "no store"
SESSIONS = "prontodb, sessions"
PEERS = (AiosqliteCommitEach, Raw, Lmdb, RocksdictSynced, RedisAlways, Diskcache, PyKeyValueRocksdb)
KINDS = (Pronto, ProntoShared, *PEERS)
SETS, GETS = f"{TASKS} tasks, durable sets", f"{TASKS} tasks, gets not cached"
LARGE = f"{LARGE_TASKS} tasks, set and get 1 MB"
OPENS = f"{TASKS} tasks, open and close sessions"


class Held(NamedTuple):
    """How late a timer of TICK_S came, each time, sorted; and how much the tasks did meanwhile."""

    late_ms: list[float]
    per_second: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the least figure that so large a share of sorted ones does not pass."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


async def held(work: Work, tasks: int, seconds: float) -> Held:
    """Have the tasks work for a time, and one more task look how late its turn comes."""
    done, late_ms = 0, []
    begun = time.perf_counter()
    end = begun + seconds

    async def busy(task: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(task)
            done += 1

    workers = [asyncio.create_task(busy(task)) for task in range(tasks)]
    last = begun
    while last < end:
        await asyncio.sleep(TICK_S)
        now = time.perf_counter()
        late_ms.append(max(0.0, now - last - TICK_S) * 1_000)
        last = now
    await asyncio.gather(*workers)
    return Held(sorted(late_ms), done / (time.perf_counter() - begun))


def _set(measured: Measured) -> Work:
    store, pair = measured.store, measured.workload.pair
    return lambda _: _awaited(store.set(*pair()), is_async=store.is_async)


def _get(measured: Measured) -> Work:
    store, key = measured.store, measured.workload.key
    return lambda _: _awaited(store.get(key()), is_async=store.is_async)


def _large(measured: Measured) -> Work:
    store, workload = measured.store, Workload(LARGE_TASKS, characters=LARGE_BYTES)

    async def work(task: int) -> None:
        key = f"agent.large.note-{task}"
        await _awaited(store.set(key, workload.value()), is_async=store.is_async)
        await _awaited(store.get(key), is_async=store.is_async)

    return work


async def _awaited(done: Awaitable[object] | object, *, is_async: bool) -> None:
    if is_async:
        await done  # type: ignore[misc]
    # Also after a get of ours, which often does not wait: that others have a turn now and then is the caller's part.
    await asyncio.sleep(0)


async def _nothing(_task: int) -> None:
    await asyncio.sleep(TICK_S * 10)


def _come_and_go(manager: prontodb.SessionManager) -> Work:
    async def work(task: int) -> None:
        async with manager.session(f"agent{task}", "prod"):
            pass

    return work


def _figures(rounds: Sequence[Held]) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Return, of each thing that is told, its unit and a figure per round."""
    return {
        "a timer is late, median": ("ms", tuple(percentile(each.late_ms, 0.5) for each in rounds)),
        "a timer is late, 1 time in 1,000": ("ms", tuple(percentile(each.late_ms, 0.999) for each in rounds)),
        "a timer is late, at most": ("ms", tuple(each.late_ms[-1] for each in rounds)),
        "done": ("/s", tuple(each.per_second for each in rounds)),
    }


def findings_of(
    what: str, taken: Mapping[str, Sequence[Held]], ours: str, promises: Mapping[str, Promise | None]
) -> Findings:
    """Return the rows, which are of ours and of nobody, and the series, which are of all."""
    figures = {name: _figures(rounds) for name, rounds in taken.items()}
    findings = Findings()
    for told, (unit, each) in figures[ours].items():
        if unit == "ms":
            findings.rows.append(Row(what=f"{what}: {told}", unit=unit, figures=each))
    for told, (unit, _) in figures[ours].items():
        for name, found in figures.items():
            if name != NOBODY or unit == "ms":
                findings.series.append(
                    Series(
                        race=f"{what}: {told}",
                        contender=name,
                        promise=promises.get(name),
                        figures=found[told][1],
                        unit=unit,
                    )
                )
    return findings


async def probe(folder: Path, plan: Plan) -> Findings:
    """Run the contenders in turn, one kind of work after the other; each time also without any store."""
    findings = Findings(missing=missing(KINDS, plan))
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(opened(KINDS, folder, Workload(plan.keys), plan))
        manager = await stack.enter_async_context(prontodb.open(folder / "sessions"))
        promises: dict[str, Promise | None] = {name: measured.promise for name, measured in stores.items()}
        promises[SESSIONS] = DURABLE
        peers = [kind.name for kind in PEERS if kind.name in stores]
        works: dict[str, tuple[int, dict[str, Work]]] = {
            SETS: (TASKS, {name: _set(stores[name]) for name in (Pronto.name, *peers)}),
            GETS: (TASKS, {name: _get(stores[name]) for name in (ProntoShared.name, *peers)}),
            LARGE: (LARGE_TASKS, {name: _large(stores[name]) for name in (Pronto.name, *peers)}),
            OPENS: (TASKS, {SESSIONS: _come_and_go(manager)}),
        }
        for what, (tasks, runners) in works.items():
            ours = next(iter(runners))
            taken: dict[str, list[Held]] = {name: [] for name in (*runners, NOBODY)}
            for name in taken:  # addresses are made, caches filled
                await held(runners.get(name, _nothing), tasks, plan.round_s)
            for number in range(min(plan.rounds, MAX_ROUNDS)):
                findings.sync_ms.append(sync_time_ms(folder))
                gc.collect()
                for name in in_turn(taken, number):
                    seconds = plan.round_s * ROUNDS_LONG
                    taken[name].append(await held(runners.get(name, _nothing), tasks, seconds))
            found = findings_of(what, taken, ours, promises)
            findings.rows += found.rows
            findings.series += found.series
    return findings


SCENARIO = Scenario(
    name="loop-blocks",
    question="How long does a store ever hold the event loop, so that no other task has its turn?",
    probe=probe,
)

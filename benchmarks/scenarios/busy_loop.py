"""Who starves when the application computes on the event loop without a pause: its calls of the store, or itself?"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, missing, opened
from benchmarks.contenders.peers import Lmdb
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.redis_server import RedisAlways
from benchmarks.contenders.sqlite import AiosqliteCommitEach, Raw
from benchmarks.measure import Findings, Row, Series, in_turn, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from benchmarks.measure import Plan

TICKS_MS = (1, 5, 20)
"""What the application computes between two turns of the loop. Python asks a thread to hand over after 5 ms."""
SAMPLES_PER_S = 100
DEADLINE_ROUNDS = 4
"""As many samples as a round has time for when none takes longer than 10 ms; a call that starves has four rounds."""
STARVED_MS = 1_000
"""A call that takes longer beside an application that never waits has starved."""
MAX_ROUNDS = 3
WARM_UP_SAMPLES = 5
CALIBRATED_S = 0.05
ALONE = "the application alone"
PEERS = (AiosqliteCommitEach, Raw, Lmdb, RedisAlways)
KINDS = (Pronto, ProntoShared, *PEERS)
HOT, COLD, SET = "get, hot", "get, not cached", "durable set"
OURS = {HOT: Pronto, COLD: ProntoShared, SET: Pronto}


class Cell:
    """What happened in one round: how long the calls took, and how many ticks of the application passed meanwhile."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.ticks = 0
        self.seconds = 0.0


def compute(steps: int) -> int:
    """Be busy in pure Python for a fixed amount of work: it takes longer when another thread has the interpreter."""
    total = 0
    for step in range(steps):
        total ^= step
    return total


def steps_per_ms() -> float:
    """Return how many steps of `compute` are done in a millisecond while nothing else runs here."""
    steps, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < CALIBRATED_S:
        compute(1_000)
        steps += 1_000
    return steps / (taken * 1_000)


async def beside(call: Callable[[], Awaitable[object]], steps: int, samples: int, deadline_s: float) -> Cell:
    """Compute tick by tick on the loop while another task calls so many times, one after the other.

    At the deadline the application stops, whereupon a call that starves comes to its end, too: nothing hangs.
    """
    cell = Cell()
    begun = time.perf_counter()
    end = begun + deadline_s

    async def calls() -> None:
        while not cell.ms or (len(cell.ms) < samples and time.perf_counter() < end):
            asked = time.perf_counter()
            await call()
            cell.ms.append((time.perf_counter() - asked) * 1_000)
            await asyncio.sleep(0)  # one that never waits must not have the loop for itself

    caller = asyncio.create_task(calls())
    while not caller.done() and time.perf_counter() < end:
        compute(steps)
        cell.ticks += 1
        await asyncio.sleep(0)
    cell.seconds = time.perf_counter() - begun
    await caller
    return cell


def caller_of(measured: Measured, operation: str) -> Callable[[], Awaitable[object]]:
    """Return a call of one contender, to be awaited whether it blocks or not."""
    store = measured.store

    async def call() -> None:
        if operation == SET:
            done = store.set(*measured.workload.pair())
        else:
            done = store.get((measured.hot if operation == HOT else measured.workload).key())
        if store.is_async:
            await done

    return call


async def _nothing() -> None:
    """What the application alone is measured with."""


def rows_of(operation: str, tick_ms: int, cells: dict[str, list[Cell]]) -> list[Row]:
    """Return the table's lines for one operation and one length of tick."""
    ours, what = OURS[operation].name, f"{operation}, the loop busy in ticks of {tick_ms} ms"

    def progress(name: str) -> list[float]:
        return [cell.ticks / cell.seconds for cell in cells[name]]

    rows = [Row(what=f"{what}: longest", unit="ms", figures=tuple(max(cell.ms) for cell in cells[ours]))]
    if (other := AiosqliteCommitEach.name) in cells:
        pairs = zip(cells[ours], cells[other], strict=True)
        figures = tuple(median(own.ms) / median(theirs.ms) for own, theirs in pairs)
        rows.append(Row(what=f"{what}: median time against {other}", unit="x", figures=figures))
    if operation == SET:  # a get of ours runs on the loop: all that it takes from the application is its own time
        figures = tuple(own / alone for own, alone in zip(progress(ours), progress(ALONE), strict=True))
        rows.append(Row(what=f"{what}: the application's speed against it alone", unit="x", figures=figures))
    return rows


def series_of(operation: str, tick_ms: int, cells: dict[str, list[Cell]], stores: dict[str, Measured]) -> list[Series]:
    """Return the points of the curves over the length of a tick."""
    figures: dict[str, tuple[str, Callable[[Cell], float]]] = {
        "median": ("ms", lambda cell: median(cell.ms)),
        "longest": ("ms", lambda cell: max(cell.ms)),
        "the application's ticks": ("/s", lambda cell: cell.ticks / cell.seconds),
    }
    series = []
    for what, (unit, figure) in figures.items():
        for name, rounds in cells.items():
            if name == ALONE and unit == "ms":
                continue
            promise = stores[name].promise if name in stores else None
            if promise is not None and any(max(cell.ms) > STARVED_MS for cell in rounds):
                promise = replace(promise, notes=(*promise.notes, f"starved: > {STARVED_MS // 1_000} s"))
            series.append(
                Series(
                    race=f"{operation}, ticks of {tick_ms} ms: {what}",
                    contender=name,
                    promise=promise,
                    figures=tuple(figure(cell) for cell in rounds),
                    unit=unit,
                    family=f"{operation} on a busy loop: {what}",
                    axis="ms of a tick",
                    at=tick_ms,
                )
            )
    return series


async def probe(folder: Path, plan: Plan) -> Findings:
    """Run the contenders in turn, one tick's length after the other."""
    findings = Findings(missing=missing(KINDS, plan))
    samples, deadline_s = round(plan.round_s * SAMPLES_PER_S), plan.round_s * DEADLINE_ROUNDS
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        for key in stores[Pronto.name].hot.keys:
            await stores[Pronto.name].store.get(key)
        per_ms = steps_per_ms()
        for tick_ms in TICKS_MS:
            steps = round(per_ms * tick_ms)
            for operation, ours in OURS.items():
                names = [kind.name for kind in (ours, *PEERS) if kind.name in stores]
                calls = {name: caller_of(stores[name], operation) for name in names} | {ALONE: _nothing}
                for call in calls.values():
                    await beside(call, steps, WARM_UP_SAMPLES, deadline_s)
                cells: dict[str, list[Cell]] = {name: [] for name in calls}
                for number in range(min(plan.rounds, MAX_ROUNDS)):
                    findings.sync_ms.append(sync_time_ms(folder))
                    gc.collect()
                    for name in in_turn(calls, number):
                        cells[name].append(await beside(calls[name], steps, samples, deadline_s))
                findings.rows += rows_of(operation, tick_ms, cells)
                findings.series += series_of(operation, tick_ms, cells, stores)
    return findings


SCENARIO = Scenario(
    name="busy-loop",
    question="Who starves when the application computes on the event loop without a pause?",
    probe=probe,
)

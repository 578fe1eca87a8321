"""Does the log of a keystore stay bounded while many write to it without a pause and others read?"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, opened
from benchmarks.contenders.pronto import ProntoShared
from benchmarks.measure import Findings, Row, Series, Target, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload
from prontodb.engine.sqlite.upkeep import WAL_BOUND_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measure import Plan

ROUNDS_LONG = 100
"""The writing lasts as long as so many rounds: most of a minute."""
WRITERS, READERS = 100, 10
SAMPLED_S = 0.005
MIB = 1024 * 1024


def log_bytes(folder: Path) -> int:
    """Return the size of the largest SQLite log below a folder."""
    sizes = [0]
    for path in folder.rglob("*-wal"):
        with suppress(FileNotFoundError):  # it goes with the last connection
            sizes.append(path.stat().st_size)
    return max(sizes)


async def largest_log(measured: Measured, folder: Path, seconds: float) -> tuple[int, int]:
    """Write and read for a time; return the largest log in bytes, and how many sets there were."""
    store, workload = measured.store, measured.workload
    end = time.monotonic() + seconds
    largest = sets = 0

    async def write() -> None:
        nonlocal sets
        while time.monotonic() < end:
            await store.set(*workload.pair())
            sets += 1

    async def read() -> None:
        while time.monotonic() < end:
            key = workload.key()
            await store.get(key)
            await store.entries(key[:-1])
            await asyncio.sleep(0)

    async def look() -> None:
        nonlocal largest
        while time.monotonic() < end:
            largest = max(largest, log_bytes(folder))
            await asyncio.sleep(SAMPLED_S)

    await asyncio.gather(look(), *(write() for _ in range(WRITERS)), *(read() for _ in range(READERS)))
    return max(largest, log_bytes(folder)), sets


async def probe(folder: Path, plan: Plan) -> Findings:
    """Measure once: what counts is the largest log among many that began anew."""
    findings = Findings(sync_ms=[sync_time_ms(folder)])
    seconds = plan.round_s * ROUNDS_LONG
    async with opened((ProntoShared,), folder, Workload(plan.keys), plan) as stores:
        found, sets = await largest_log(stores[ProntoShared.name], folder, seconds)
    what = f"{WRITERS} tasks write and {READERS} read"
    bound = Target(relation="<=", limit=WAL_BOUND_BYTES / MIB)
    findings.rows = [Row(what=f"largest log while {what}", unit="MiB", figures=(found / MIB,), once=True, target=bound)]
    findings.series = [
        Series(
            race=f"{what}: sets",
            contender=ProntoShared.name,
            promise=ProntoShared.promise,
            figures=(sets / seconds,),
            unit="/s",
        )
    ]
    return findings


SCENARIO = Scenario(
    name="growing-log",
    question="Does the log stay bounded while many write without a pause and others read?",
    probe=probe,
)

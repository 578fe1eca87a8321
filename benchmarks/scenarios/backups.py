"""What does a backup cost after little has changed, beside a whole one?"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import prontodb
from benchmarks.measure import Findings, Row, Target, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from prontodb.engine.sqlite import opening
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from benchmarks.measure import Plan

VALUE_BYTES = 100
BATCH = 1_000
ONE = Address("agent", "prod")


def value() -> str:
    """Return a value that has not been before."""
    return os.urandom(VALUE_BYTES // 2).hex()


async def fill(keystore: prontodb.Keystore, keys: int, ttl: float | None = None, prefix: str = "app.key") -> None:
    """Store so many entries."""
    for begin in range(0, keys, BATCH):
        wanted = range(begin, min(keys, begin + BATCH))
        await keystore.set_many({f"{prefix}.{number}": value() for number in wanted}, ttl=ttl)


async def timed(work: Awaitable[object]) -> tuple[float, object]:
    """Return how long something takes, in seconds, and what it returns."""
    begun = time.perf_counter()
    found = await work
    return time.perf_counter() - begun, found


def vacuumed_s(layout: Layout, folder: Path) -> float:
    """Return how long SQLite takes for the copy alone, written and synced, and nothing read again."""
    target = folder / "copy.db"
    target.touch(mode=0o600)
    connection, _ = opening.open_reader(layout, ONE, busy_timeout_ms=5_000)
    begun = time.perf_counter()
    try:
        sqlite.vacuum_into(connection, str(target), lambda: False)
    finally:
        connection.close()
    file = os.open(target, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    taken = time.perf_counter() - begun
    target.unlink()
    return taken


async def _one_address(folder: Path, plan: Plan, findings: Findings) -> None:
    """One address of which 1 % changes: an increment beside a full backup of the same, in the same round."""
    root, rng = folder / "one", random.Random(1)
    times, sizes, against_copy, restores = [], [], [], []
    async with prontodb.open(root) as manager:
        async with manager.session(ONE.user, ONE.cursor) as keystore:
            await fill(keystore, plan.keys)
            await manager.backup(full=True)
            for _ in range(plan.rounds):
                changed = rng.sample(range(plan.keys), max(1, plan.keys // 100))
                findings.sync_ms.append(sync_time_ms(folder))
                for begin in range(0, len(changed), BATCH):
                    await keystore.set_many({f"app.key.{n}": value() for n in changed[begin : begin + BATCH]})
                small_s, small = await timed(manager.backup())
                copy_s = vacuumed_s(Layout(str(root)), folder)
                whole_s, whole = await timed(manager.backup(full=True))
                times.append(small_s / whole_s)
                against_copy.append(small_s / copy_s)
                sizes.append(small.size_bytes / whole.size_bytes)  # type: ignore[attr-defined]
        for _ in range(plan.rounds):
            whole_s, _ = await timed(manager.backup(full=True))
            restore_s, _ = await timed(manager.restore(user=ONE.user, cursor=ONE.cursor))
            restores.append(restore_s / whole_s)
    what = f"backup after 1 % of {plan.keys:,} entries changed"
    tenth, hundredth = Target(relation="<=", limit=0.1), Target(relation="<=", limit=0.01)
    findings.rows += [
        Row(what=f"{what}: time against a full one", unit="x", figures=tuple(times), target=tenth),
        Row(what=f"{what}: time against SQLite's copy alone", unit="x", figures=tuple(against_copy)),
        Row(what=f"{what}: bytes against a full one", unit="x", figures=tuple(sizes), target=hundredth),
        Row(what=f"restore of {plan.keys:,} entries: time against a full backup", unit="x", figures=tuple(restores)),
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Measure one address with many entries; many addresses with few are a question of their own."""
    findings = Findings()
    await _one_address(folder, plan, findings)
    return findings


SCENARIO = Scenario(
    name="backups",
    question="What does a backup cost when little has changed, beside a whole one? And a restore?",
    probe=probe,
)

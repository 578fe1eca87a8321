"""How do costs grow with the number of addresses: to create, list, open, sweep and back them up?"""

from __future__ import annotations

import asyncio
import random
from statistics import median
from typing import TYPE_CHECKING

import prontodb
from benchmarks.contenders import DURABLE
from benchmarks.measure import Findings, Row, Series, Target, sync_time_ms
from benchmarks.scenarios.backups import timed, value
from benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.measure import Plan

FEW, MANY = 10, 100
"""Addresses that change between two backups."""
SAMPLES = 20
"""Addresses that are created or opened one after the other, each for a figure of its own."""
MAX_ROUNDS = 3
REPEATED = 1_000
"""So many can be backed up whole more than once: ten times as many take a minute."""
TASKS = 8
"""Tasks that create the addresses between two points of the curve; this is not measured."""

CREATE, LIST, OPEN, SWEEP = "create one", "list", "open and close a session at one", "sweep"
WHOLE = "back up whole"
CHANGED = {FEW: f"back up after {FEW} changed", MANY: f"back up after {MANY} changed"}

Found = dict[str, list[float]]
"""Of each operation: the milliseconds it took, once for each time."""


class Root:
    """A root that grows."""

    def __init__(self, manager: prontodb.SessionManager) -> None:
        self._manager = manager
        self._random = random.Random(1)
        self.size = 0

    async def _create(self) -> None:
        number, self.size = self.size, self.size + 1
        await self._manager.create(f"agent{number}/prod")

    async def grow(self, size: int) -> list[float]:
        """Grow to so many addresses; return what each of the last ones took, which come one after the other."""

        async def work() -> None:
            while self.size < size - SAMPLES:
                await self._create()

        await asyncio.gather(*(work() for _ in range(TASKS)))
        return [await _ms(self._create()) for _ in range(size - self.size)]

    async def open_one(self) -> None:
        """Open a session at any address and close it."""
        async with self._manager.session(f"agent{self._random.randrange(self.size)}", "prod"):
            pass

    async def backups(self, changed: int, rounds: int) -> list[float]:
        """Return what backups take that each follow changes at so many addresses."""
        figures = []
        for _ in range(rounds):
            for number in self._random.sample(range(self.size), changed):
                async with self._manager.session(f"agent{number}", "prod") as keystore:
                    await keystore.set("app.state", value())
            figures.append(await _ms(self._manager.backup()))
        return figures

    async def measured(self, size: int, rounds: int) -> Found:
        """Grow to a size and measure everything there; the whole backup is what the others begin from."""
        manager = self._manager
        found = {
            CREATE: await self.grow(size),
            LIST: [await _ms(manager.addresses()) for _ in range(rounds)],
            OPEN: [await _ms(self.open_one()) for _ in range(SAMPLES)],
            SWEEP: [await _ms(manager.sweep()) for _ in range(rounds)],
            WHOLE: [await _ms(manager.backup(full=True)) for _ in range(rounds if size <= REPEATED else 1)],
        }
        found |= {CHANGED[count]: await self.backups(count, rounds) for count in CHANGED if count <= size}
        return found


async def _ms(work: Awaitable[object]) -> float:
    seconds, _ = await timed(work)
    return seconds * 1_000


EACH_IS_LOOKED_AT = "each address is looked at, as no address notes anything where others write: 0.1 to 0.2 ms"


def rows_of(found: Mapping[int, Found]) -> list[Row]:
    """Return the table's lines: backups of the two largest sizes, then what the largest costs against the other."""
    rows = []

    def row(what: str, figures: Sequence[float], base: Sequence[float], limit: float | None = None) -> None:
        target = None if limit is None else Target(relation="<=", limit=limit)
        ratios = tuple(each / median(base) for each in figures)
        why = EACH_IS_LOOKED_AT if what.startswith("backup") else ""
        rows.append(Row(what=what, unit="x", figures=ratios, target=target, why_missed=why))

    before, last = sorted(found)[-2:]
    few, many = CHANGED.values()
    for size in (before, last):
        what, here = f"backup after {FEW} of {size:,} addresses changed", found[size]
        row(f"{what}: time against a full one", here[few], here[WHOLE], 0.1)
        if FEW in found and size > FEW:
            row(f"{what}: time against {FEW} of {FEW}", here[few], found[FEW][few])
    here, there = found[last], found[before]
    if many in there:
        what = f"backup after {MANY} of {last:,} addresses changed: time against {MANY} of {before:,}"
        row(what, here[many], there[many], 3)
    for operation, limit in ((CREATE, 2), (OPEN, 2), (LIST, None), (SWEEP, None)):
        row(f"{operation} of {last:,} addresses: time against {before:,}", here[operation], there[operation], limit)
    return rows


def series_of(size: int, found: Found) -> list[Series]:
    """Return a point of each curve."""
    return [
        Series(
            race=f"{size:,} address{'es' * (size > 1)}: {operation}",
            contender="prontodb",
            promise=DURABLE,
            figures=tuple(figures),
            unit="ms",
            family=operation,
            axis="addresses",
            at=size,
        )
        for operation, figures in found.items()
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Let one root grow from size to size, since making many addresses takes its time."""
    findings = Findings()
    found: dict[int, Found] = {}
    async with prontodb.open(folder / "root") as manager:
        root = Root(manager)
        for size in plan.roots:
            findings.sync_ms.append(sync_time_ms(folder))
            found[size] = await root.measured(size, min(plan.rounds, MAX_ROUNDS))
            findings.series += series_of(size, found[size])
    findings.rows = rows_of(found)
    return findings


SCENARIO = Scenario(
    name="addresses",
    question="How do costs grow with the number of addresses: to create, list, open, sweep and back them up?",
    probe=probe,
)

"""How fast is a list of all entries below a prefix, per entry?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contenders import Measured, opened
from benchmarks.contenders.peers import Lmdb
from benchmarks.contenders.pronto import ProntoShared
from benchmarks.contenders.sqlite import AiosqliteCommitEach, Raw
from benchmarks.measure import Goal, Race
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan, Round

KINDS = (ProntoShared, Raw, AiosqliteCommitEach, Lmdb)
SHORTENED = {"10": 1, "1,000": 3}
"""How many entries share the beginning of a key without so many of its last digits."""


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill the contenders."""
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        yield stores


def _lists(digits: int) -> Round:
    """Return a round of lists below random prefixes; an operation is an entry that was listed."""

    async def run(measured: Measured, ops: int) -> int:
        store, key, each = measured.store, measured.workload.key, int(10**digits)
        lists = max(1, ops // each)
        for _ in range(lists):
            found = store.entries(key()[:-digits])
            if store.is_async:
                found = await found
            assert len(found) == each
        return lists * each

    return run


def _race(plan: Plan, said: str, digits: int) -> Race:
    return Race(
        name=f"list {said} of {plan.keys:,} entries by prefix",
        ops=10_000,
        runners={kind.name: _lists(digits) for kind in KINDS},
        goals=tuple(
            Goal(subject=ProntoShared.name, other=kind.name, by="time" if kind is Raw else "speed")
            for kind in KINDS
            if not kind.is_ours
        ),
        family="list by prefix, each entry",
        axis="entries",
        at=10**digits,
    )


SCENARIO = Scenario(
    name="prefix-lists",
    question="How fast is a list of all entries below a prefix, per entry?",
    contenders=KINDS,
    arena=arena,
    races=lambda plan: [_race(plan, said, digits) for said, digits in SHORTENED.items()],
)

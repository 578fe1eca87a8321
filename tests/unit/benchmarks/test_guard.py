"""A guard against getting slower: ratios of one run, so far from what they are that no noise trips them.

Each side's best round counts, as whatever else a machine does can only make a round slower. What they are on a quiet
machine stands in `ops/figures.md`; `python -m benchmarks` is what measures.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks.contenders import opened
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.sqlite import AiosqliteCommitEach, Raw
from benchmarks.measure import Plan, Race, run_race
from benchmarks.rounds import batches, gets, sets
from benchmarks.scenarios import one_shot, sessions
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.contenders import Contender, Measured
    from benchmarks.measure import Arena, Round

PLAN = replace(Plan.quick(rounds=7), round_s=0.05, keys=5_000)


async def best_us(race: Race, arena: Arena, folder: Path) -> dict[str, float]:
    """Return the best round of each contender, in microseconds per operation."""
    async with arena(folder, PLAN) as stores:
        figures, _ = await run_race(race, stores, PLAN, folder)
    return {name: min(taken) for name, taken in figures.items()}


def arena_of(*kinds: type[Contender]) -> Arena:
    @asynccontextmanager
    async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
        async with opened(kinds, folder, Workload(plan.keys), plan) as stores:
            if Pronto.name in stores:
                for key in stores[Pronto.name].hot.keys:
                    await stores[Pronto.name].store.get(key)
            yield stores

    return arena


@pytest.mark.parametrize(
    ("ours", "other", "runners", "most"),
    [
        pytest.param(Pronto, Raw, (gets(1, hot=True), gets(1, hot=True)), 2, id="a hot get beside raw SQLite"),
        pytest.param(ProntoShared, Raw, (gets(1), gets(1)), 8, id="a get past the cache beside raw SQLite"),
        pytest.param(Pronto, Raw, (sets(100), batches(100)), 10, id="sets of 100 tasks beside raw batches"),
        pytest.param(Pronto, AiosqliteCommitEach, (sets(100), sets(100)), 1, id="sets of 100 tasks beside aiosqlite"),
        pytest.param(Pronto, AiosqliteCommitEach, (sets(1), sets(1)), 8, id="sets of one task beside aiosqlite"),
    ],
)
async def test_an_operation_takes_no_more_times_as_long_as(
    ours: type[Contender], other: type[Contender], runners: tuple[Round, Round], most: float, tmp_path: Path
) -> None:
    race = Race(name="guard", ops=2_000, runners=dict(zip((ours.name, other.name), runners, strict=True)))
    us = await best_us(race, arena_of(ours, other), tmp_path)
    assert us[ours.name] <= most * us[other.name]


async def test_a_session_is_opened_and_closed_within_reason(tmp_path: Path) -> None:
    assert sessions.SCENARIO.races is not None
    race = sessions.SCENARIO.races(PLAN)[0]
    us = await best_us(race, sessions.arena, tmp_path)
    assert us[sessions.EXCLUSIVE] <= 50 * us[sessions.FILE]


async def test_a_one_shot_get_starts_within_reason(tmp_path: Path) -> None:
    us = await best_us(one_shot.RACE, one_shot.arena, tmp_path)
    assert us[one_shot.GET] <= 10 * us[one_shot.PASS]

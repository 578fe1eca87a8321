"""What is lost when many raise one counter is counted, and ours lose nothing."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import slug
from benchmarks.contenders.sqlite import AiosqliteNaive
from benchmarks.scenarios.contention import (
    BY_TASKS,
    CompareAndSet,
    GetThenSet,
    Immediate,
    Increment,
    OldDesign,
    Raised,
    ended,
    opened,
    rows_of,
    total,
    wanted,
)
from tests.unit.benchmarks.plans import TINY

RAISES = 10


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    found = ended(100, [Raised(30, 0, 1.0), Raised(20, 5, 2.0)], 142)
    assert (found.acknowledged, found.failed, found.lost, found.per_second) == (50, 5, 8, 25)


@pytest.mark.parametrize("kind", [Increment, CompareAndSet, Immediate])
async def test_the_correct_forms_lose_no_update(tmp_path: Path, kind: Any) -> None:
    async with opened(kind, tmp_path) as store:
        await asyncio.gather(*(store.raise_one() for _ in range(RAISES)))
        assert await total(store) == RAISES


async def test_a_get_and_then_a_set_loses_updates(tmp_path: Path) -> None:
    async with opened(GetThenSet, tmp_path) as store:
        await asyncio.gather(*(store.raise_one() for _ in range(RAISES)))
        assert await total(store) < RAISES


async def test_a_deferred_transaction_fails_when_another_wrote_since_it_read(tmp_path: Path) -> None:
    async with opened(OldDesign, tmp_path) as store, opened(OldDesign, tmp_path) as other:
        await asyncio.to_thread(store.raise_one)
        # The other has read when we write: what it then writes would rest on a value that is gone.
        read = other.get
        other.get = lambda key: (read(key), store.raise_one())[0]
        with pytest.raises(OldDesign.refused, match="locked"):
            other.raise_one()
        assert await total(store) == 2


def test_lost_updates_stand_beside_speed_where_there_is_contention() -> None:
    ours, theirs = ended(0, [Raised(10, 0, 1.0)], 10), ended(0, [Raised(40, 0, 1.0)], 4)
    taken = {Increment.name: [ours] * 3, GetThenSet.name: [theirs] * 3}
    contended = {row.what: (row.reached, row.verdict) for row in rows_of("100 tasks", taken, is_contended=True)}
    assert contended == {
        "100 tasks, prontodb, increment: lost updates": (0, "met"),
        "100 tasks, prontodb, increment: failed": (0, "met"),
        "100 tasks, aiosqlite, get then set: lost updates": (36, ""),
        "100 tasks, aiosqlite, get then set: failed": (0, ""),
        "100 tasks, increment: speed against aiosqlite, get then set": (0.25, ""),
    }
    assert len(rows_of("1 task", taken, is_contended=False)) == 1


def test_those_take_part_whose_contender_is_named() -> None:
    named = replace(TINY, against=frozenset({slug(AiosqliteNaive.name)}))
    assert wanted(BY_TASKS, named) == [Increment, CompareAndSet, GetThenSet]

"""The arithmetic that figures and verdicts stand on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.contenders import DURABLE
from benchmarks.measure import MET, MISSED, NOISY, Goal, Plan, Race, Row, Target, run_race, spread_of
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import VALUE_CHARACTERS, Workload, drive
from prontodb.model.progress import Progress
from tests.unit.benchmarks.plans import TINY


def row(figures: tuple[float, ...], relation: str = ">=", limit: float = 1.0) -> Row:
    return Row(what="speed", unit="x", figures=figures, target=Target(relation=relation, limit=limit))


def test_a_target_is_met_when_the_whole_spread_reaches_it() -> None:
    assert row((1.0, 1.2, 1.4)).verdict == MET
    assert row((0.8, 0.9, 1.0), "<=").verdict == MET


def test_a_target_is_missed_when_the_whole_spread_falls_short() -> None:
    assert row((0.7, 0.8, 0.99)).verdict == MISSED
    assert row((1.01, 1.2, 1.4), "<=").verdict == MISSED


def test_a_target_inside_the_spread_is_left_open() -> None:
    assert row((0.9, 1.1, 1.2)).verdict == NOISY
    assert row((0.9, 1.1, 1.2), "<=").verdict == NOISY


def test_without_a_target_there_is_no_verdict() -> None:
    assert Row(what="for the record", unit="", figures=(1.0,)).verdict == ""


@pytest.mark.parametrize("figures", [(2.0,), (2.0, 2.0), (0.5, 0.5)])
def test_a_few_rounds_leave_any_target_open_unless_once_is_by_design(figures: tuple[float, ...]) -> None:
    assert row(figures).verdict == NOISY
    assert replace(row(figures), once=True).verdict == (MET if figures[0] > 1 else MISSED)


def test_a_target_has_one_of_two_relations() -> None:
    with pytest.raises(ValueError, match=">="):
        Target(relation="==", limit=1)


def test_what_is_reached_is_the_median() -> None:
    assert row((9.0, 1.0, 2.0)).reached == 2.0


def test_few_rounds_have_their_extremes_as_spread() -> None:
    for count in range(1, 8):
        assert spread_of([float(figure) for figure in range(count)]) == (0, count - 1)


def test_more_rounds_leave_outliers_outside_the_spread() -> None:
    assert spread_of([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]) == (1, 6)
    low, high = spread_of([float(figure) for figure in range(101)])
    assert 35 < low < 50 < high < 65


def test_speed_is_the_others_time_over_ours_in_the_same_turn() -> None:
    us = {"ours": [10.0, 20.0], "theirs": [50.0, 60.0]}
    assert Goal(subject="ours", other="theirs").figures(us) == (5, 3)
    assert Goal(subject="ours", other="theirs", by="time").figures(us) == (0.2, 1 / 3)


def test_a_goal_names_the_race_and_the_other() -> None:
    made = Goal(subject="ours", other="theirs").row("gets", {"ours": [1.0], "theirs": [2.0]})
    assert (made.what, made.unit, made.figures) == ("gets: speed against theirs", "x", (2.0,))


async def test_contenders_run_in_turn_and_the_warm_up_is_dropped(tmp_path) -> None:  # type: ignore[no-untyped-def]
    order: list[str] = []

    def runner(name: str):  # type: ignore[no-untyped-def]
        async def run(store: object, ops: int) -> int:
            order.append(name)
            return ops

        return run

    race = Race(name="race", ops=1, runners={name: runner(name) for name in ("a", "b", "absent")}, goals=())
    told: list[int] = []
    figures, controls = await run_race(race, {"a": None, "b": None}, TINY, tmp_path, told.append)
    turns = order[4:]  # after two short goes each that find how many operations fill a round
    assert turns == ["a", "b", "b", "a"] * ((TINY.rounds + 1) // 2), "each turn begins with the next one"
    assert {name: len(us) for name, us in figures.items()} == {"a": TINY.rounds, "b": TINY.rounds}
    assert len(controls) == TINY.rounds
    assert all(control > 0 for control in controls)
    assert told == list(range(TINY.rounds + 1))


async def test_a_scenario_tells_how_far_all_its_races_are(tmp_path: Path) -> None:
    async def run(_: object, ops: int) -> int:
        return ops

    @asynccontextmanager
    async def arena(_: Path, _plan: Plan) -> AsyncIterator[dict[str, SimpleNamespace]]:
        yield {"a": SimpleNamespace(promise=DURABLE)}

    races = [Race(name=name, ops=1, runners={"a": run}) for name in ("first", "second")]
    made = Scenario(name="both", question="?", arena=arena, races=lambda _: races)
    told: list[Progress] = []
    found = await made.run(tmp_path, TINY, told.append)
    turns = TINY.rounds + 1
    assert [(each.what, each.done, each.total) for each in told] == [
        ("first" if n < turns else "second", n, 2 * turns) for n in range(2 * turns)
    ]
    assert [series.race for series in found.series] == ["first", "second"]


def test_no_value_is_ever_written_twice() -> None:
    workload = Workload(10)
    values = [value for batch in workload.batches() for _, value in batch] + [workload.value() for _ in range(990)]
    assert len(set(values)) == 1_000
    assert {len(value) for value in values} == {VALUE_CHARACTERS}


async def test_the_work_is_shared_among_the_tasks() -> None:
    seen: list[int] = []

    async def operation(task: int) -> None:
        seen.append(task)

    assert await drive(3, 10, operation) == 9
    assert sorted(seen) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_tasks_that_never_wait_still_take_turns() -> None:
    seen: list[int] = []

    async def operation(task: int) -> None:
        seen.append(task)

    await drive(2, 8, operation, pause_every=2)
    assert seen == [0, 0, 1, 1, 0, 0, 1, 1]

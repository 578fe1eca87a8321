"""The clockwork over several processes, and under a wall clock that somebody sets."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import anyio
import pytest

from prontodb.errors import BusyError, SecretError
from prontodb.schedule.clockwork import Job, Last
from prontodb.schedule.timetable import MAX_MISSED, Cron, Every, Timetable
from tests.unit.schedule.world import (
    DAY,
    HOUR,
    MINUTE,
    START_MS,
    YEARS,
    MemoryLedger,
    VirtualClock,
    World,
    job,
    nothing,
    raising,
    taking,
    until,
)

# Taking over


async def test_who_takes_over_goes_on_in_phase_and_runs_no_beat_twice(world: World) -> None:
    slow = job(Every(100), taking(20))
    await world.run(210, slow)  # stopped in the middle of the run of beat 200
    await until(250)
    await world.run(460, slow)
    assert world.ledger.beats() == world.ledger.at() == [0, 100, 200, 300, 400]
    assert world.ledger.outcomes() == ["done", "done", "cancelled", "done", "done"]
    assert world.ledger.missed() == [0] * 5


async def test_beats_while_nobody_ran_are_made_up_for_by_one_run(world: World) -> None:
    await world.run(50, job(Every(100)), Job("nightly", Cron("0 3 * * *"), nothing))
    await until(3 * DAY + 50)
    await world.run(3 * DAY + 120, job(Every(100)), Job("nightly", Cron("0 3 * * *"), nothing))
    assert world.ledger.at() == [0, 3 * DAY + 50, 3 * DAY + 100]
    assert world.ledger.beats() == [0, 3 * DAY, 3 * DAY + 100]
    assert world.ledger.missed() == [0, 3 * DAY // 100 - 1, 0]
    assert world.ledger.beats("nightly") == [3 * HOUR - DAY, 2 * DAY + 3 * HOUR]
    assert world.ledger.missed("nightly") == [0, 2]


async def test_a_retry_is_taken_over_too(world: World) -> None:
    failing = job(Every(DAY), raising(SecretError("no")))
    await world.run(50, failing)
    await until(60)
    await world.run(100, failing)
    assert world.ledger.at() == [0, 30, 90]
    assert world.ledger.attempts() == [1, 2, 3]


async def test_a_run_whose_runner_died_is_tried_again_but_not_at_once(world: World) -> None:
    await world.ledger.began("job", START_MS, 0, 1)
    await until(300)
    await world.run(1_000, job(Every(DAY)))
    assert world.ledger.at() == [0, 330]
    assert world.ledger.attempts() == [1, 2]
    assert world.ledger.beats() == [0, 0]


async def test_beats_dropped_by_the_one_before_are_not_made_up_for_by_the_next(world: World) -> None:
    await world.run(160, job(Every(MINUTE), taking(150)))
    await world.run(200, job(Every(MINUTE), taking(150)))
    assert world.ledger.at() == [0, 180]
    assert world.ledger.missed() == [0, 2]


async def test_a_job_that_changes_while_the_ledger_is_read_goes_by_its_new_timetable(world: World) -> None:
    class Slow(MemoryLedger):
        async def last(self, name: str) -> Last | None:
            found = await super().last(name)
            await anyio.sleep(10)
            return found

    world.ledger = Slow(world.clock)
    await world.ledger.ended(await world.ledger.began("job", START_MS, 0, 1), "done", None, None)
    async with world.running(job(Every(100))) as clockwork:
        await until(5)
        clockwork.change([job(Cron("0 * * * *"))])
        await until(HOUR + 10)
    assert world.ledger.beats() == world.ledger.at() == [0, HOUR]


async def test_one_clockwork_does_not_run_twice_at_once(world: World) -> None:
    async with world.running(job(Every(MINUTE))) as clockwork:
        await until(10)
        with pytest.raises(BusyError, match="runs already"):
            await clockwork.run()
        await until(70)
    assert world.ledger.at() == [0, 60]


async def test_a_clockwork_that_was_stopped_runs_again_where_the_ledger_stands(world: World) -> None:
    clockwork = world.clockwork(job(Every(100)))
    with anyio.move_on_after(150):
        await clockwork.run()
    await world.run(250, job(Every(100)))
    with anyio.move_on_after(100):
        await clockwork.run()
    assert world.ledger.at() == [0, 100, 200, 300]


# The wall clock is set


@pytest.mark.parametrize("set_s", [YEARS, -YEARS, -START_MS // 1_000, 2 * HOUR, -2 * HOUR, -MINUTE])
async def test_a_wall_clock_that_is_set_neither_stops_nor_multiplies_intervals(
    world: World, set_s: int, events: list[tuple[str, dict[str, object]]]
) -> None:
    async with world.running(job(Every(MINUTE), taking(5)), Job("weekly", Every(7 * DAY), nothing)):
        await until(30 * MINUTE + 30)
        world.clock.set_s = set_s
        await until(HOUR - 1)
    assert world.ledger.at() == list(range(0, HOUR, MINUTE))
    assert set(world.ledger.missed()) == {0}
    assert world.ledger.at("weekly") == [0]
    assert events == [("clock.set", {"by_s": set_s})]
    moved = [beat - at for beat, at in zip(world.ledger.beats(), world.ledger.at(), strict=True)]
    assert moved == [0] * 31 + [set_s] * 29, "the ledger's beats are moments of the wall clock as it is"


@pytest.mark.parametrize(("set_s", "extra"), [(YEARS, 1), (-YEARS, 0), (-START_MS // 1_000, 0)])
async def test_the_calendar_goes_on_from_wherever_the_wall_clock_is_set(world: World, set_s: int, extra: int) -> None:
    async with world.running(job(Cron("0 * * * *"))):
        await until(5 * HOUR + 600)
        world.clock.set_s = set_s
        await until(10 * HOUR - 1)
    at = world.ledger.at()
    assert [moment for moment in at if moment % HOUR == 0] == list(range(0, 10 * HOUR, HOUR))
    caught_up = [moment for moment in at if moment % HOUR]
    assert len(caught_up) == extra, "one for ten years of beats"
    assert all(0 <= moment - (5 * HOUR + 600) <= 30 for moment in caught_up)
    assert world.ledger.missed() == [0] * 6 + [MAX_MISSED] * extra + [0] * 4


@pytest.mark.parametrize("timetable", [Every(HOUR), Cron("0 * * * *")])
async def test_a_clock_put_back_a_little_brings_no_beat_a_second_time(world: World, timetable: Timetable) -> None:
    await world.run(HOUR + 60, job(timetable))
    world.clock.set_s = -600
    await world.run(3 * HOUR, job(timetable))
    assert world.ledger.beats() == [0, HOUR, 2 * HOUR]
    assert world.ledger.at() == [0, HOUR, 2 * HOUR + 600]


@pytest.mark.parametrize(("timetable", "at"), [(Every(2 * HOUR), 10), (Cron("0 */2 * * *"), 0)])
async def test_a_last_beat_far_in_the_future_stops_no_job(world: World, timetable: Timetable, at: int) -> None:
    world.clock.set_s = YEARS
    await world.run(10, job(timetable))
    world.clock.set_s = 0
    # Each process lives for less than the interval: counting anew at each start would never come to a run.
    for number in range(1, 6):
        await world.run(number * HOUR + 60, job(timetable))
    assert world.ledger.at() == [0, 10, 2 * HOUR + at, 4 * HOUR + at]
    assert world.ledger.beats() == [YEARS, at, 2 * HOUR + at, 4 * HOUR + at]
    assert set(world.ledger.missed()) == {0}


@pytest.mark.slow
async def test_changes_of_local_time_double_and_lose_no_run(world: World) -> None:
    for start, hours in ((datetime(2025, 3, 29, 23, tzinfo=UTC), 23), (datetime(2025, 10, 25, 22, tzinfo=UTC), 25)):
        began = anyio.current_time()
        world.clock = VirtualClock(round((start.timestamp() - began - 60) * 1_000))
        world.ledger = MemoryLedger(world.clock)
        before = round(start.timestamp() * 1_000) - HOUR * 1_000
        for name in ("hourly", "nightly"):  # what ran an hour before is no job that never ran
            await world.ledger.ended(await world.ledger.began(name, before, 0, 1), "done", None, None)
        await world.run(
            began + 59 + hours * HOUR,
            Job("hourly", Cron("0 * * * *", "Europe/Berlin"), nothing),
            Job("nightly", Cron("30 2 * * *", "Europe/Berlin"), nothing),
        )
        assert Counter(run.name for run in world.ledger.runs) == {"hourly": 1 + hours, "nightly": 2}
        assert set(world.ledger.missed("hourly")) == {0}

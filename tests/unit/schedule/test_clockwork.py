"""The clockwork: beats and failures, jobs that come and go, a ledger that fails."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from random import Random

import anyio
import pytest

from prontodb.errors import BusyError, NotFoundError, SecretError
from prontodb.schedule.clockwork import PATIENCE, Ended, Job, Skipped
from prontodb.schedule.timetable import Cron, Every
from tests.unit.schedule.world import (
    DAY,
    HOUR,
    MINUTE,
    START_MS,
    YEARS,
    MemoryLedger,
    World,
    job,
    nothing,
    raising,
    taking,
    until,
)

# Beats


@pytest.mark.slow
async def test_a_day_of_the_usual_schedules_runs_every_beat_once(world: World) -> None:
    await world.run(
        DAY - 1,
        Job("sweep", Every(MINUTE), nothing),
        Job("incremental", Every(HOUR), taking(5)),
        Job("full", Cron("0 3 * * *"), taking(600)),
        Job("verify", Every(7 * DAY), taking(60)),
        Job("prune", Every(DAY), nothing),
    )
    runs = world.ledger.runs
    assert Counter(run.name for run in runs) == {"sweep": 1440, "incremental": 24, "full": 2, "verify": 1, "prune": 1}
    assert {(run.outcome, run.missed, run.attempt) for run in runs} == {("done", 0, 1)}
    assert world.ledger.beats("sweep") == world.ledger.at("sweep") == list(range(0, DAY, MINUTE))
    assert world.ledger.beats("incremental") == list(range(0, DAY, HOUR))
    assert world.ledger.beats("full") == [3 * HOUR - DAY, 3 * HOUR], (
        "the first at once, for the beat of the night before"
    )
    assert world.ledger.at("full") == [0, 3 * HOUR]


async def test_beats_that_come_while_the_job_runs_are_dropped_and_counted(world: World) -> None:
    await world.run(400, job(Every(MINUTE), taking(150)))
    assert world.ledger.beats() == world.ledger.at() == [0, 180, 360]
    assert world.ledger.missed() == [0, 2, 2]


async def test_a_job_that_takes_its_whole_interval_loses_no_beat(world: World) -> None:
    await world.run(200, job(Every(MINUTE), taking(60)))
    assert world.ledger.at() == [0, 60, 120, 180]


async def test_different_jobs_run_at_the_same_time(world: World) -> None:
    await world.run(100, Job("slow", Every(HOUR), taking(90)), Job("quick", Every(10), nothing))
    assert world.ledger.at("quick") == list(range(0, 100, 10))


async def test_a_machine_that_slept_runs_once_for_all_beats_it_missed(world: World) -> None:
    async with world.running(job(Every(MINUTE))):
        await until(95)
        world.clock.slept_s = 3 * HOUR
        await until(250)
    slept = 3 * HOUR
    assert world.ledger.at() == [0, 60, 120, 180, 240]
    assert world.ledger.beats() == [0, 60, 120 + slept, 180 + slept, 240 + slept]
    assert world.ledger.missed() == [0, 0, 180, 0, 0]


async def test_jitter_delays_a_beat_and_never_comes_before_it_or_loses_one(world: World) -> None:
    world.rng = Random(7)
    await world.run(HOUR - 1, job(Every(MINUTE), jitter_s=20), Job("wide", Cron("* * * * *"), nothing, jitter_s=9_999))
    late = [at - beat for at, beat in zip(world.ledger.at(), world.ledger.beats(), strict=True)]
    assert all(0 <= seconds < 20 for seconds in late)
    assert len(set(late)) > 50
    assert world.ledger.missed() == [0] * len(late)
    wide = world.ledger.of("wide")[1:]
    assert all(0 <= run.at_s * 1_000 - (run.beat_ms - START_MS) < 60_000 for run in wide)
    assert {run.missed for run in wide} == {0}


# Failures


async def test_a_failed_run_is_tried_again_after_ever_longer_waits(world: World) -> None:
    await world.run(4 * HOUR, job(Every(DAY), raising(SecretError("bring it"))))
    waits = [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]
    assert world.ledger.at() == [sum(waits[:number]) for number in range(10)]
    assert world.ledger.attempts() == list(range(1, 11))
    assert set(world.ledger.beats()) == {0}
    assert {(run.outcome, run.error, run.missed) for run in world.ledger.runs} == {("failed", "bring it", 0)}


async def test_a_retry_comes_up_to_a_quarter_earlier_by_chance(world: World) -> None:
    world.rng = Random(7)
    await world.run(100, job(Every(DAY), raising(OSError())))
    first, second, third = world.ledger.at()
    assert 22.5 <= second - first <= 30
    assert 45 <= third - second <= 60


async def test_the_next_beat_takes_the_place_of_a_later_retry(world: World) -> None:
    failing = [True]

    async def run() -> str:
        if failing[0]:
            raise SecretError("no")
        return "report"

    async with world.running(job(Every(100), run)):
        await until(250)
        failing[0] = False
        await until(450)
        failing[0] = True
        await until(550)
    assert world.ledger.at() == [0, 30, 90, 100, 200, 300, 400, 500, 530]
    assert world.ledger.attempts() == [1, 2, 3, 1, 1, 1, 1, 1, 2]
    assert world.ledger.beats() == [0, 0, 0, 100, 200, 300, 400, 500, 500]
    assert [run.report for run in world.ledger.runs if run.outcome == "done"] == ["report", "report"]
    assert set(world.ledger.missed()) == {0}


async def test_a_run_beyond_its_deadline_is_a_failure(world: World) -> None:
    await world.run(100, job(Every(DAY), taking(50), deadline_s=20))
    assert world.ledger.at() == [0, 50]
    assert world.ledger.outcomes() == ["timeout", "timeout"]
    assert world.ledger.runs[0].error == "it did not end within its deadline of 20 s"
    assert world.ledger.runs[0].ended_ms == START_MS + 20_000


async def test_a_job_that_has_a_reason_not_to_run_is_no_failure(world: World) -> None:
    await world.run(150, job(Every(MINUTE), raising(Skipped("somebody else does it"))))
    assert world.ledger.at() == [0, 60, 120]
    assert {(run.outcome, run.error) for run in world.ledger.runs} == {("skipped", "somebody else does it")}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SecretError("bring the secret"), "bring the secret"),
        (KeyError("hunter2"), "KeyError"),
        (ValueError("hunter2"), "ValueError"),
        (TimeoutError("hunter2"), "TimeoutError"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hunter2"), "OSError (ENOSPC)"),
        (ExceptionGroup("hunter2", [SecretError("bring the secret")]), "bring the secret"),
        (ExceptionGroup("hunter2", [SecretError("a"), SecretError("b")]), "ExceptionGroup"),
    ],
)
async def test_no_error_of_a_job_ends_the_clockwork_or_tells_a_value(
    world: World, error: Exception, told: str, events: list[tuple[str, dict[str, object]]]
) -> None:
    await world.run(35, job(Every(HOUR), raising(error)), Job("other", Every(10), nothing))
    assert [(run.outcome, run.error) for run in world.ledger.of("job")] == [("failed", told)] * 2
    assert world.ledger.at("other") == [0, 10, 20, 30]
    assert [name for name, _ in events] == ["job.failed"] * 2
    assert "hunter2" not in repr(events)
    assert events[0][1]["reason"] == told
    assert str(events[0][1]["where"]).startswith("tests.unit.schedule.world:")


# Pause, change, by hand


async def test_beats_of_a_paused_job_are_dropped_and_not_counted(world: World) -> None:
    async with world.running(job(Every(MINUTE))) as clockwork:
        await until(90)
        world.ledger.pausing.add("job")
        await until(HOUR + 5)
        assert clockwork.upcoming() == [("job", None)]
        world.ledger.pausing.clear()  # as another process does
        await until(HOUR + 130)
    assert world.ledger.at() == [0, 60, HOUR + 60, HOUR + 120]
    assert set(world.ledger.missed()) == {0}


async def test_a_resumed_job_is_noticed_within_a_slice(world: World) -> None:
    world.ledger.pausing.add("job")
    async with world.running(job(Every(DAY))):
        await until(1_005)
        world.ledger.pausing.clear()
        await until(1_036)
    assert len(world.ledger.at()) == 1
    assert 1_005 <= world.ledger.at()[0] <= 1_035


async def test_a_paused_job_is_not_tried_again(world: World) -> None:
    async with world.running(job(Every(HOUR), raising(SecretError("no")))):
        await until(10)
        world.ledger.pausing.add("job")
        await until(600)
        world.ledger.pausing.clear()
        await until(HOUR + 10)
    assert world.ledger.at() == [0, HOUR]


async def test_jobs_come_go_and_change_while_the_clockwork_runs(world: World) -> None:
    async with world.running(Job("kept", Every(100), nothing), Job("gone", Every(100), nothing)) as clockwork:
        await until(150)
        clockwork.change([Job("kept", Every(100), nothing), Job("new", Every(100), nothing)])
        await until(330)
        clockwork.change([Job("kept", Every(50), nothing), Job("new", Cron("*/10 * * * *"), nothing)])
        await until(410)
        assert [name for name, _ in clockwork.upcoming()] == ["kept", "new"]
        await until(610)
    assert world.ledger.at("gone") == [0, 100]
    assert world.ledger.at("kept") == [0, 100, 200, 300, 350, 400, 450, 500, 550, 600]
    assert world.ledger.at("new") == [150, 250, 600]


async def test_a_job_that_is_removed_and_comes_back_never_runs_beside_itself(world: World) -> None:
    running, most = 0, 0

    async def run() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(50)
        running -= 1

    async with world.running(job(Every(MINUTE), run)) as clockwork:
        await until(10)
        clockwork.change([])
        await until(20)
        clockwork.change([job(Every(MINUTE), run)])
        await until(115)
    assert most == 1
    assert world.ledger.at() == [0, 60]
    assert world.ledger.outcomes() == ["done", "done"], "the first was not cancelled by its removal"


async def test_a_job_run_by_hand_is_recorded_for_its_beat(world: World) -> None:
    async def run() -> str:
        return "report"

    clockwork = world.clockwork(job(Every(100), run))
    await until(30)
    assert await clockwork.once("job") == Ended("done", "report")
    await until(460)
    await clockwork.once("job")
    await world.run(600, job(Every(100), run))
    assert world.ledger.at() == [30, 460, 530]
    assert world.ledger.beats() == [30, 430, 530]
    assert world.ledger.missed() == [0, 3, 0]


async def test_a_run_by_hand_waits_for_the_scheduled_one_and_the_other_way_round(world: World) -> None:
    async with world.running(job(Every(100), taking(30))) as clockwork:
        await until(10)
        await clockwork.once("job")
        assert anyio.current_time() == 60
        await until(90)
        await clockwork.once("job")
        await until(190)
    assert world.ledger.at() == [0, 30, 90]
    assert world.ledger.beats() == [0, 0, 0]


async def test_a_failure_by_hand_is_returned_and_recorded(world: World) -> None:
    clockwork = world.clockwork(job(Every(100), raising(SecretError("bring it"))))
    for _ in range(2):
        assert await clockwork.once("job") == Ended("failed", None, "bring it")
    assert world.ledger.attempts() == [1, 2]


async def test_a_paused_job_runs_by_hand(world: World) -> None:
    world.ledger.pausing.add("job")
    async with world.running(job(Every(100))) as clockwork:
        await until(10)
        await clockwork.once("job")
        await until(350)
    assert world.ledger.at() == [10]


async def test_a_job_that_does_not_exist_is_not_run(world: World) -> None:
    with pytest.raises(NotFoundError, match="'nap' does not exist; there are: job"):
        await world.clockwork(job(Every(100))).once("nap")


async def test_upcoming_tells_the_next_moment_on_the_wall(world: World) -> None:
    def next_s() -> float | None:
        ((_, at_ms),) = clockwork.upcoming()
        return None if at_ms is None else (at_ms - START_MS) / 1_000

    failing: list[Exception] = []

    async def run() -> None:
        await anyio.sleep(10)
        if failing:
            raise failing[0]

    async with world.running(job(Every(1_000), run)) as clockwork:
        assert next_s() is None, "nobody has read the ledger yet"
        await until(5)
        assert next_s() == 1_000
        await until(500)
        world.clock.set_s = -YEARS
        assert next_s() == 1_000 - YEARS
        failing.append(SecretError("no"))
        await until(1_020)
        assert next_s() == 1_040 - YEARS


# Stopping, and a ledger that fails


async def test_a_run_that_is_stopped_is_recorded_as_cancelled(world: World) -> None:
    await world.run(10, job(Every(100), taking(50)))
    assert world.ledger.outcomes() == ["cancelled"]
    assert world.ledger.runs[0].ended_ms == START_MS + 10_000


async def test_a_ledger_that_fails_for_a_while_costs_no_beat(
    world: World, events: list[tuple[str, dict[str, object]]]
) -> None:
    ran = []

    async def run() -> None:
        ran.append(anyio.current_time())

    async with world.running(job(Every(100), run)):
        await until(150)
        world.ledger.broken = BusyError("the ledger is locked")
        before = world.ledger.calls
        await until(550)
        world.ledger.broken = None
        assert world.ledger.calls - before < 30
        await until(650)
    assert ran == [0, 100, 200, 300, 400, 500, 600]
    assert world.ledger.at() == [0, 100, 600]
    assert {name for name, _ in events} == {"ledger.failed"}
    assert events[0][1] == {"job": "job", "reason": "the ledger is locked"}


async def test_who_cannot_read_the_ledger_waits_and_then_goes_on_in_phase(world: World) -> None:
    await world.run(10, job(Every(100)))
    world.ledger.broken = BusyError("the ledger is locked")
    async with world.running(job(Every(100))):
        await until(130)
        world.ledger.broken = None
        await until(210)
    assert world.ledger.beats() == [0, 100, 200]
    assert 130 <= world.ledger.at()[1] <= 160


async def test_a_ledger_that_can_never_be_read_stops_no_job(world: World) -> None:
    world.ledger.broken = BusyError("the ledger is locked")
    ran = []

    async def run() -> None:
        ran.append(anyio.current_time())

    await world.run(HOUR, job(Every(MINUTE), run))
    assert ran[:2] == [PATIENCE * 30, PATIENCE * 30 + MINUTE]
    assert len(ran) == 55
    assert world.ledger.calls < 500


async def test_a_ledger_that_never_answers_holds_up_nobody_for_ever(world: World) -> None:
    class Deaf(MemoryLedger):
        async def began(self, name: str, beat_ms: int, missed: int, attempt: int) -> int:
            await anyio.sleep_forever()
            return 0

    ran = []

    async def run() -> None:
        ran.append(anyio.current_time())

    world.ledger = Deaf(world.clock)
    await world.run(200, job(Every(100), run))
    assert ran == [60, 160]


# On asyncio, where it runs


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_nobody_sent_us_is_a_failure_of_the_job(world: World) -> None:
    recorded = anyio.Event()

    async def run() -> None:
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost

    class Telling(MemoryLedger):
        async def ended(self, run_id: int, outcome: str, report: object, error: str | None) -> None:
            await super().ended(run_id, outcome, report, error)
            recorded.set()

    world.ledger = Telling(world.clock)
    async with world.running(job(Every(DAY), run)) as clockwork:
        await recorded.wait()
        await anyio.wait_all_tasks_blocked()
        ((_, next_ms),) = clockwork.upcoming()
        assert next_ms is not None, "its turn goes on"
        assert next_ms < world.clock.wall_ms() + 31_000
    assert [(run.outcome, run.error) for run in world.ledger.runs] == [("failed", "CancelledError")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_run_that_is_stopped_on_asyncio_is_recorded_too(world: World) -> None:
    began = anyio.Event()

    async def run() -> None:
        began.set()
        await anyio.sleep_forever()

    task = asyncio.ensure_future(world.clockwork(job(Every(DAY), run)).run())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.ledger.outcomes() == ["cancelled"]

"""What the clockwork's tests share: a virtual clock, a ledger in memory, and processes that come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import anyio

from prontodb.errors import ProntoError
from prontodb.model.clock import Clock
from prontodb.schedule.clockwork import Clockwork, Job, Last
from prontodb.schedule.timetable import Timetable

MINUTE, HOUR, DAY = 60, 3_600, 86_400
YEARS = 3_650 * DAY
START_MS = round(datetime(2025, 6, 2, tzinfo=UTC).timestamp() * 1_000)  # a Monday


class VirtualClock(Clock):
    """The test's own time; `set_s` is what somebody set the wall clock by, `slept_s` how long the machine slept."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self.start_ms, self.set_s, self.slept_s = start_ms, 0, 0

    def wall_ms(self) -> int:
        return self.start_ms + int((self.boottime_s() + self.set_s) * 1_000)

    def boottime_s(self) -> float:
        return anyio.current_time() + self.slept_s


class Unmoved(Random):
    """A dice without surprise: no jitter, the whole back-off."""

    def random(self) -> float:
        return 0.0


@dataclass
class Run:
    """A line of the ledger, with the moment it was written at."""

    name: str
    beat_ms: int
    missed: int
    attempt: int
    at_s: float
    outcome: str | None = None
    report: object = None
    error: str | None = None
    ended_ms: int | None = None


@dataclass
class MemoryLedger:
    """A ledger as a file would keep it; `broken` makes every call fail."""

    clock: Clock
    runs: list[Run] = field(default_factory=list)
    pausing: set[str] = field(default_factory=set)
    broken: ProntoError | None = None
    calls: int = 0

    async def _door(self) -> None:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken

    async def last(self, name: str) -> Last | None:
        await self._door()
        runs = self.of(name)
        failures = 0
        for run in reversed(runs):
            if run.outcome in ("done", "skipped"):
                break
            failures += run.outcome != "cancelled"
        return Last(beat_ms=runs[-1].beat_ms, failures=failures, ended_ms=runs[-1].ended_ms) if runs else None

    async def paused(self, name: str) -> bool:
        await self._door()
        return name in self.pausing

    async def began(self, name: str, beat_ms: int, missed: int, attempt: int) -> int:
        await self._door()
        self.runs.append(Run(name, beat_ms, missed, attempt, anyio.current_time()))
        return len(self.runs) - 1

    async def ended(self, run_id: int, outcome: str, report: object, error: str | None) -> None:
        await self._door()
        run = self.runs[run_id]
        assert run.outcome is None
        run.outcome, run.report, run.error, run.ended_ms = outcome, report, error, self.clock.wall_ms()

    def of(self, name: str) -> list[Run]:
        return [run for run in self.runs if run.name == name]

    def at(self, name: str = "job") -> list[float]:
        """When the runs of a job began, in seconds since the start."""
        return [run.at_s for run in self.of(name)]

    def beats(self, name: str = "job") -> list[float]:
        """The beats of the runs of a job, in seconds since the start."""
        return [(run.beat_ms - START_MS) / 1_000 for run in self.of(name)]

    def missed(self, name: str = "job") -> list[int]:
        return [run.missed for run in self.of(name)]

    def attempts(self, name: str = "job") -> list[int]:
        return [run.attempt for run in self.of(name)]

    def outcomes(self, name: str = "job") -> list[str | None]:
        return [run.outcome for run in self.of(name)]


class World:
    """A clock, a ledger, and clockworks that share them."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.ledger = MemoryLedger(self.clock)
        self.rng: Random = Unmoved()

    def clockwork(self, *jobs: Job) -> Clockwork:
        return Clockwork(jobs, self.ledger, self.clock, self.rng)

    async def run(self, until_s: float, *jobs: Job) -> None:
        """Run jobs until a moment, as one process would that is stopped then."""
        with anyio.move_on_after(until_s - anyio.current_time()):
            await self.clockwork(*jobs).run()

    @asynccontextmanager
    async def running(self, *jobs: Job) -> AsyncIterator[Clockwork]:
        async with anyio.create_task_group() as tasks:
            clockwork = self.clockwork(*jobs)
            tasks.start_soon(clockwork.run)
            yield clockwork
            tasks.cancel_scope.cancel()


async def until(moment_s: float) -> None:
    await anyio.sleep_until(moment_s)


async def nothing() -> None:
    pass


def taking(seconds: float) -> Callable[[], Awaitable[object]]:
    async def run() -> None:
        await anyio.sleep(seconds)

    return run


def raising(error: Exception) -> Callable[[], Awaitable[object]]:
    async def run() -> None:
        raise error

    return run


def job(timetable: Timetable, run: Callable[[], Awaitable[object]] = nothing, **more: Any) -> Job:
    return Job("job", timetable, run, **more)

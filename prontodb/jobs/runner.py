"""Whoever runs a root's jobs on schedule: one over all processes, by a lock; the next takes over when it is gone."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio

from prontodb.errors import BusyError, ProntoError
from prontodb.jobs import plan
from prontodb.log import event
from prontodb.model.layout import JOBS_LOCK_FILE, Layout
from prontodb.registry import configuration
from prontodb.schedule.clockwork import CANCELLED, DONE, SKIPPED, Clockwork, Ended, Job, Last
from prontodb.storage import lock
from prontodb.storage.process import ourselves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from prontodb.model.clock import Clock
    from prontodb.registry.jobs import JobRegistry, Run
    from prontodb.schedule.schedules import Schedule

    T = TypeVar("T")

    class Beside(Protocol):
        """Runs blocking work on a thread."""

        def __call__(self, work: Callable[[], T], *, brief: bool = False) -> Awaitable[T]: ...


PAUSED = "paused:"
"""The note that a job's beats are dropped; `paused:*` is for all of them."""
ALL = "*"
LOOK_S = 1.0
"""How often a runner looks at its lock and at the settings file, and who waits to be the runner at the lock."""
_FINE = (DONE, SKIPPED)
"""Outcomes after which nothing is tried again before its time."""
_LOOKED_BACK = 20


def failures_in_a_row(runs: list[Run]) -> int:
    """Return how many of the newest runs failed one after another; `runs` has the newest first."""
    count = 0
    for run in runs:
        if run.outcome in _FINE:
            break
        count += run.outcome != CANCELLED
    return count


class Book:
    """The clockwork's ledger: the index of jobs, asked on a thread."""

    def __init__(self, registry: JobRegistry, clock: Clock, beside: Beside) -> None:
        self._registry, self._clock, self._beside = registry, clock, beside
        self._runner = str(ourselves())

    async def last(self, name: str) -> Last | None:
        """See `Ledger.last`."""
        runs = await self._beside(lambda: self._registry.runs(name, _LOOKED_BACK), brief=True)
        if not runs:
            return None
        last = runs[0]
        # One that was cut short by the end of its runner is made up for, like one whose runner died.
        ended_ms = None if last.outcome == CANCELLED else last.ended_at_ms
        return Last(beat_ms=last.beat_at_ms, failures=failures_in_a_row(runs), ended_ms=ended_ms)

    async def paused(self, name: str) -> bool:
        """See `Ledger.paused`."""
        notes = await self._beside(self._registry.notes, brief=True)
        return PAUSED + name in notes or PAUSED + ALL in notes

    async def began(self, name: str, beat_ms: int, missed: int, attempt: int) -> int:
        """See `Ledger.began`."""
        return await self._beside(
            lambda: self._registry.begin(
                name, beat_ms, self._clock.wall_ms(), missed=missed, attempt=attempt, runner=self._runner
            ),
            brief=True,
        )

    async def ended(self, run_id: int, outcome: str, report: object, error: str | None) -> None:
        """See `Ledger.ended`."""
        fields = as_fields(report)
        await self._beside(
            lambda: self._registry.end(run_id, self._clock.wall_ms(), outcome, fields, error), brief=True
        )


def as_fields(report: object) -> dict[str, Any] | None:
    """Return a report as JSON-able fields, long lists as their length; None for none."""
    if report is None:
        return None
    found = asdict(report) if is_dataclass(report) and not isinstance(report, type) else {"result": str(report)}
    return {name: _short(value) for name, value in found.items()}


def _short(value: object) -> object:
    if isinstance(value, (list, tuple, dict)) and len(value) > _LOOKED_BACK:
        return f"{len(value):,} of them"
    return value


class Runner:
    """The scheduled jobs of one root, for as long as `run` runs. `jobs` is what to call for each name."""

    def __init__(
        self,
        layout: Layout,
        registry: JobRegistry,
        clock: Clock,
        rng: Random,
        beside: Beside,
        jobs: Mapping[str, Callable[[], Awaitable[object]]],
    ) -> None:
        self._layout, self._registry, self._beside, self._jobs = layout, registry, beside, jobs
        self._clock, self._rng = clock, rng
        self._book = Book(registry, clock, beside)
        self._stamp: object = None
        self._clockwork = Clockwork(self._scheduled(self._read()), self._book, clock, rng)
        self.is_runner = anyio.Event()
        """Set once this process is the one that runs the jobs."""

    def _read(self) -> dict[str, Schedule]:
        """Read the schedules from the settings file; raises when it is wrong."""
        self._stamp = configuration.stamp(self._layout)
        found, warnings = plan.schedules_of(configuration.section(self._layout, "jobs"))
        for warning in warnings:
            event("settings.warning", reason=warning)
        return found

    def _scheduled(self, schedules: Mapping[str, Schedule]) -> list[Job]:
        return [
            Job(name, found.timetable, self._jobs[name], jitter_s=found.jitter_s, deadline_s=found.deadline_s)
            for name, found in schedules.items()
            if found.enabled and name in self._jobs
        ]

    async def run(self) -> None:
        """Be the runner of the root as soon as nobody else is, until cancelled."""
        while True:
            held = await self._take()
            try:
                await self._run(held)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._beside(held.release, brief=True)

    async def once(self, name: str) -> Ended:
        """Run one job now, whoever is the runner, also one that is switched off; recorded like any run."""
        if name in self._jobs and name not in dict(self._clockwork.upcoming()):
            switched_on = {name: replace(self._read()[name], enabled=True)}
            return await Clockwork(self._scheduled(switched_on), self._book, self._clock, self._rng).once(name)
        return await self._clockwork.once(name)

    async def _take(self) -> lock.HeldLock:
        told = False
        while True:
            try:
                return await self._beside(self._try, brief=True)
            except BusyError as error:
                if not told:
                    event("jobs.waiting", runner=str(error.holder))
                    told = True
            except ProntoError as error:
                event("jobs.not_taken", reason=str(error))
            await anyio.sleep(LOOK_S)

    def _try(self) -> lock.HeldLock:
        return lock.acquire(
            self._layout.root,
            self._layout.jobs_lock_parts(),
            JOBS_LOCK_FILE,
            purpose="run the jobs",
            wait_s=0,
            one_shot=True,
            tries=1,
        )

    async def _run(self, held: lock.HeldLock) -> None:
        event("jobs.taken")
        try:
            # Whatever is said to be under way was cut short by the death of whoever ran it.
            await self._beside(self._registry.bury, brief=True)
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._clockwork.run)
            self.is_runner.set()
            while held.still_there:
                await anyio.sleep(LOOK_S)
                await self._look_at_settings()
            # Somebody took the lock file away: another runner may be there already.
            event("jobs.lock_lost")
            tasks.cancel_scope.cancel()

    async def _look_at_settings(self) -> None:
        try:
            if configuration.stamp(self._layout) == self._stamp:
                return
            schedules = await self._beside(self._read, brief=True)
        except ProntoError as error:
            # The schedules of before go on.
            event("settings.refused", reason=str(error))
            return
        self._clockwork.change(self._scheduled(schedules))
        event("settings.read_again", jobs=len(schedules))

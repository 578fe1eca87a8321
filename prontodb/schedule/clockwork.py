"""The clockwork: runs jobs at their beats, and knows time and not work.

Rules that it obeys:
- Beats are counted from the ledger's last one, never from the start of a process: who takes over goes on in phase.
- One run makes up for all beats that passed since the last; they are counted, not made up for one by one.
- A job never runs beside itself; different jobs do not wait for each other.
- Intervals are counted by the clock that nobody sets (`boottime_s`); only the calendar asks the wall clock.
- No error of a job ends the clockwork, and none of the ledger costs a beat.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

from prontodb.errors import BusyError, NotFoundError, ProntoError, shown
from prontodb.log import event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from random import Random

    from anyio.abc import TaskGroup

    from prontodb.model.clock import Clock
    from prontodb.schedule.timetable import Timetable

DONE, FAILED, TIMEOUT, CANCELLED, SKIPPED = "done", "failed", "timeout", "cancelled", "skipped"
"""The outcomes of a run. Cancelled: its runner was stopped. Skipped: it had a reason not to, which is no failure."""

SLICE_S = 30.0
"""The longest wait: how long it may take until a resumed job, a woken machine or a clock that was set is noticed."""
BACK_OFF_S = 30.0
MAX_BACK_OFF_S = 3_600.0
PATIENCE = 10
"""Slices that a job waits for a ledger that cannot be read, before it runs as if it never had."""
LEDGER_WAIT_S = 60.0

_SET_MS = 1_000
"""The wall clock was set when it is off by this much; less is the noise of reading two clocks."""
_BELIEVED_MS = 3_600_000
"""A last beat may lie ahead of the wall clock by this much and its own interval: the clock was put right, or back."""

T = TypeVar("T")


class Skipped(Exception):  # noqa: N818 - a job says it, and it is no error
    """Raised by a job that has nothing to do now; the reason is recorded, and the next beat is the regular one."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, and when. `run` is called anew for each run; its result is the run's report."""

    name: str
    timetable: Timetable
    run: Callable[[], Awaitable[object]]
    jitter_s: float = field(default=0.0, kw_only=True)
    deadline_s: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """A job's newest run. `failures`: in a row, up to it. `ended_ms` None: its runner died, and it counts as failed."""

    beat_ms: int
    failures: int
    ended_ms: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `error`: why it failed, or was skipped; it holds no value of any entry."""

    outcome: str
    report: object = None
    error: str | None = None


class Ledger(Protocol):
    """Where runs are written down, shared by processes. Any method may raise `ProntoError`: no beat is lost by it."""

    async def last(self, name: str) -> Last | None:
        """Return the run that began last, whichever its beat; None when the job never ran."""

    async def paused(self, name: str) -> bool:
        """Return whether the beats of a job are to be dropped."""

    async def began(self, name: str, beat_ms: int, missed: int, attempt: int) -> int:
        """Write down that a run begins; return its id."""

    async def ended(self, run_id: int, outcome: str, report: object, error: str | None) -> None:
        """Write down how a run ended."""


class _Time:
    """Two clocks: the one on the wall, and a steady one. `offset_ms` is what the first shows beyond the second."""

    __slots__ = ("_clock", "_offset_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ms = clock.wall_ms() - self.steady_ms()

    def wall_ms(self) -> int:
        return self._clock.wall_ms()

    def steady_ms(self) -> int:
        return int(self._clock.boottime_s() * 1_000)

    def offset_ms(self) -> int:
        offset_ms = self.wall_ms() - self.steady_ms()
        if abs(offset_ms - self._offset_ms) >= _SET_MS:
            event("clock.set", by_s=(offset_ms - self._offset_ms) / 1_000)
            self._offset_ms = offset_ms
        return self._offset_ms


class _Wheel:
    """One job's place in time. `beat`, `passed` and `due` are on its dial: the wall clock's, or the steady one's."""

    __slots__ = (
        "job",
        "beat",  # of the last run; None: it never ran
        "beat_ms",  # the same as the ledger knows it
        "passed",  # the last beat that no run will come for any more
        "next",  # the beat after that; None: it never ran
        "due",  # the same with its jitter
        "again_at",  # a retry or the first run, on the steady dial
        "attempt",
        "failures",
        "changed",
        "gone",
        "known",  # the ledger was read
        "paused",
        "running",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.changed = anyio.Event()
        self.gone = self.paused = self.running = False
        self.forget()

    def forget(self) -> None:
        """Know nothing of the past, until the ledger is read."""
        self.known = False
        self.beat: int | None = None
        self.passed: int | None = None
        self.next: int | None = None
        self.due: int | None = None
        self.again_at: int | None = None
        self.beat_ms = self.attempt = self.failures = 0


class Clockwork:
    """Runs jobs at their beats while `run` runs. One at a time may do so for one ledger; that is its owner's care."""

    def __init__(self, jobs: Iterable[Job], ledger: Ledger, clock: Clock, rng: Random) -> None:
        self._ledger, self._rng, self._time = ledger, rng, _Time(clock)
        self._wheels = {job.name: _Wheel(job) for job in jobs}
        # By name, and kept: a job that is removed and comes back must not run beside the run it left behind.
        self._locks: dict[str, anyio.Lock] = {}
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Run jobs at their beats until cancelled; a run under way is cancelled with it, and recorded so."""
        if self._tasks is not None:
            raise BusyError("this clockwork runs already; await its end, or make another one")
        try:
            async with anyio.create_task_group() as self._tasks:
                # New ones: somebody else may have run jobs since.
                self._wheels = {name: self._added(wheel.job) for name, wheel in self._wheels.items()}
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def change(self, jobs: Iterable[Job]) -> None:
        """Have these jobs from now on. One with the same timetable keeps its beat; no run under way is cancelled.

        A job with another timetable goes on as after a restart: if one of its beats lies between its last run and now,
        it runs at once.
        """
        before, self._wheels = self._wheels, {}
        for name, job in {job.name: job for job in jobs}.items():
            wheel = self._wheels[name] = before.pop(name) if name in before else self._added(job)
            replaced, wheel.job = wheel.job, job
            if replaced.timetable != job.timetable and wheel.beat is not None:
                wheel.beat = wheel.passed = wheel.beat_ms - self._offset_ms(job)
                self._plan(wheel)
            wheel.changed.set()
        for wheel in before.values():
            wheel.gone = True
            wheel.changed.set()

    def _added(self, job: Job) -> _Wheel:
        wheel = _Wheel(job)
        if self._tasks is not None:
            self._tasks.start_soon(self._turn, wheel)
        return wheel

    async def once(self, name: str) -> Ended:
        """Run a job now, by hand, paused or not: recorded like any run, for the beat that was last due.

        Waits for a run of it that is under way. A failure is returned, not raised. `run` need not be running.
        """
        wheel = self._wheels.get(name)
        if wheel is None:
            raise NotFoundError(f"job {shown(name)} does not exist; there are: {', '.join(self._wheels) or 'none'}")
        async with self._lock(name):
            if self._tasks is None or not wheel.known:
                await self._take_over(wheel)
            beat = self._latest(wheel)
            again = beat == wheel.beat and wheel.failures > 0
            ended = await self._perform(wheel, beat, wheel.attempt + 1 if again else 1, by_hand=True)
        wheel.changed.set()
        return ended

    def upcoming(self) -> list[tuple[str, int | None]]:
        """Return for each job when it runs next; None when it is paused, or `run` has not read the ledger yet."""
        return [(name, self._next_ms(wheel)) for name, wheel in self._wheels.items()]

    def _next_ms(self, wheel: _Wheel) -> int | None:
        if wheel.paused or not wheel.known:
            return None
        offset_ms = self._offset_ms(wheel.job)
        if wheel.running:
            beat = self._latest(wheel)
            return wheel.job.timetable.next_after(beat, beat) + offset_ms
        moments = [] if wheel.due is None else [wheel.due + offset_ms]
        if wheel.again_at is not None:
            moments.append(wheel.again_at + self._time.offset_ms())
        return min(moments)

    # One job's turn: take over from whoever ran it, then wait and run, wait and run.

    async def _turn(self, wheel: _Wheel) -> None:
        await self._begin(wheel)
        while not wheel.gone:
            wait_s = await self._wait_s(wheel)
            if wait_s > 0:
                await _rest(wheel, wait_s)
            else:
                await self._beat(wheel)

    async def _begin(self, wheel: _Wheel) -> None:
        for _ in range(PATIENCE):
            async with self._lock(wheel.job.name):
                if wheel.known or wheel.gone or await self._take_over(wheel):
                    return
            await _rest(wheel, SLICE_S)
        # Work that is done once too often beats work that is never done.
        wheel.known = True
        if wheel.beat is None:
            self._first(wheel)

    async def _take_over(self, wheel: _Wheel) -> bool:
        """Read where the job stands; False when the ledger does not tell."""
        try:
            last = await self._ledger.last(wheel.job.name)
        except (ProntoError, OSError) as error:
            event("ledger.failed", job=wheel.job.name, reason=_reason(error))
            return False
        wheel.forget()
        wheel.known = True
        job = wheel.job  # it may have changed meanwhile
        offset_ms = self._offset_ms(job)
        # A clock was wrong when that beat was written, or is now. Who waits for a beat of the future, or counts anew at
        # each start, may wait for ever.
        if last is None or self._is_ahead(job.timetable, last.beat_ms - offset_ms, self._now(job)):
            self._first(wheel)
            return True
        wheel.beat_ms = last.beat_ms
        wheel.beat = wheel.passed = last.beat_ms - offset_ms
        steady_ms = self._time.steady_ms()
        if last.ended_ms is None:
            # Not at once: it may be this very job that kills its process.
            wheel.failures = wheel.attempt = max(1, last.failures)
            wheel.again_at = steady_ms + self._back_off_ms(wheel)
        else:
            wheel.failures = wheel.attempt = last.failures
            ended = min(last.ended_ms - self._time.offset_ms(), steady_ms)
            if last.failures:
                wheel.again_at = ended + self._back_off_ms(wheel)
            if last.beat_ms < last.ended_ms <= self._time.wall_ms():
                wheel.passed = job.timetable.latest(last.ended_ms - offset_ms - 1, wheel.beat)
        self._plan(wheel)
        return True

    async def _wait_s(self, wheel: _Wheel) -> float:
        """Return how long to rest before the next look; 0 when the job is due."""
        wheel.paused = await self._is_paused(wheel)
        now = self._now(wheel.job)
        if wheel.passed is not None:
            self._keep_up(wheel, wheel.passed, now)
        if wheel.paused:
            return SLICE_S
        waits_ms = [] if wheel.due is None else [wheel.due - now]
        if wheel.again_at is not None:
            waits_ms.append(wheel.again_at - self._time.steady_ms())
        return min(waits_ms) / 1_000

    async def _beat(self, wheel: _Wheel) -> None:
        async with self._lock(wheel.job.name):
            if wheel.gone:
                return
            beat = self._latest(wheel)
            if wheel.passed is None or beat > wheel.passed:
                await self._perform(wheel, beat, 1)
            elif wheel.beat is not None and wheel.again_at is not None and wheel.again_at <= self._time.steady_ms():
                await self._perform(wheel, wheel.beat, wheel.attempt + 1)
            # Else somebody ran it by hand while this waited for the lock.

    async def _perform(self, wheel: _Wheel, beat: int, attempt: int, *, by_hand: bool = False) -> Ended:
        """Run a job for a beat, its lock held, and write it down."""
        job = wheel.job
        missed = 0 if wheel.beat is None else job.timetable.between(wheel.beat, beat)
        if beat != wheel.beat:  # else it keeps the moment that was written, though the clock was set since
            wheel.beat_ms = beat + self._offset_ms(job)
        wheel.beat = wheel.passed = beat
        wheel.attempt, wheel.again_at, wheel.running = attempt, None, True
        beat_ms = wheel.beat_ms
        self._plan(wheel)
        ended = Ended(CANCELLED)
        run_id = await self._record(job.name, lambda: self._ledger.began(job.name, beat_ms, missed, attempt))
        try:
            ended = await self._run(job, by_hand=by_hand)
        finally:
            wheel.running = False
            if run_id is not None:
                await self._record(
                    job.name, lambda: self._ledger.ended(run_id, ended.outcome, ended.report, ended.error)
                )
        if ended.outcome in (FAILED, TIMEOUT):
            wheel.failures += 1
            wheel.again_at = self._time.steady_ms() + self._back_off_ms(wheel)
        else:
            wheel.failures = 0
        # Beats that came meanwhile are dropped; the next run counts them. One that comes with the end is not late.
        assert wheel.passed is not None
        wheel.passed = max(wheel.passed, wheel.job.timetable.latest(self._now(wheel.job) - 1, wheel.passed))
        self._plan(wheel)
        return ended

    async def _run(self, job: Job, *, by_hand: bool) -> Ended:
        await anyio.lowlevel.checkpoint_if_cancelled()  # while it was written down that it begins
        with anyio.move_on_after(job.deadline_s):
            try:
                return Ended(DONE, await job.run())
            except Skipped as skipped:
                return Ended(SKIPPED, None, str(skipped))
            except anyio.get_cancelled_exc_class() as error:
                await anyio.lowlevel.checkpoint_if_cancelled()
                if by_hand:
                    raise
                # Nobody cancelled us. On asyncio, the job awaited something that was cancelled; raised further, that
                # would end this job's turn without a word.
                return _failed(job, error)
            except Exception as error:  # noqa: BLE001 - whatever a job raises is recorded, and its next beat comes
                return _failed(job, error)
        reason = f"it did not end within its deadline of {job.deadline_s:g} s"
        event("job.failed", job=job.name, outcome=TIMEOUT, reason=reason)
        return Ended(TIMEOUT, None, reason)

    # The ledger

    async def _record(self, name: str, write: Callable[[], Awaitable[T]]) -> T | None:
        """Write to the ledger, also when cancelled: a run that is not ended there looks like one whose runner died."""
        reason = f"it did not answer within {LEDGER_WAIT_S:g} s"
        with anyio.move_on_after(LEDGER_WAIT_S, shield=True):
            try:
                return await write()
            except (ProntoError, OSError) as error:
                reason = _reason(error)
        event("ledger.failed", job=name, reason=reason)
        return None

    async def _is_paused(self, wheel: _Wheel) -> bool:
        try:
            return await self._ledger.paused(wheel.job.name)
        except (ProntoError, OSError) as error:
            event("ledger.failed", job=wheel.job.name, reason=_reason(error))
            return wheel.paused

    # Moments

    def _plan(self, wheel: _Wheel) -> None:
        """Set the moment of the next beat."""
        timetable = wheel.job.timetable
        assert wheel.passed is not None
        wheel.next = timetable.next_after(wheel.passed, wheel.passed)
        # Never up to the beat after it: that one would be lost.
        span_ms = timetable.next_after(wheel.next, wheel.next) - wheel.next
        wheel.due = wheel.next + self._jitter_ms(wheel.job, span_ms)

    def _first(self, wheel: _Wheel) -> None:
        """Have a job that never ran run now."""
        now = self._now(wheel.job)
        span_ms = wheel.job.timetable.next_after(now) - now
        wheel.again_at = self._time.steady_ms() + self._jitter_ms(wheel.job, span_ms)

    def _keep_up(self, wheel: _Wheel, passed: int, now: int) -> None:
        """Drop beats uncounted, where the job is paused; begin anew where the wall clock was set back behind them."""
        ahead = self._is_ahead(wheel.job.timetable, passed, now)
        if ahead or (wheel.paused and wheel.next is not None and wheel.next <= now):
            wheel.beat = wheel.passed = passed = wheel.job.timetable.latest(now, passed)
            wheel.beat_ms = passed + self._offset_ms(wheel.job)
            wheel.attempt = 0
            self._plan(wheel)
        if wheel.paused:
            wheel.again_at = None

    def _latest(self, wheel: _Wheel) -> int:
        """Return the beat that a run now would be for."""
        now = self._now(wheel.job)
        latest = wheel.job.timetable.latest(now, wheel.passed)
        if wheel.next is not None and wheel.next <= now:
            latest = max(latest, wheel.next)  # whatever a zone does to its clocks, what was planned comes
        return latest if wheel.passed is None else max(latest, wheel.passed)

    @staticmethod
    def _is_ahead(timetable: Timetable, beat: int, now: int) -> bool:
        """True when a beat that was lies so far in the future that a clock must have been wrong."""
        return beat > now and beat - now > min(timetable.next_after(beat, beat) - beat, _BELIEVED_MS)

    def _jitter_ms(self, job: Job, span_ms: int) -> int:
        return int(self._rng.random() * min(job.jitter_s * 1_000, span_ms))

    def _back_off_ms(self, wheel: _Wheel) -> int:
        # Up to a quarter earlier: what failed together does not come back together.
        doubled_s = BACK_OFF_S * 2 ** min(wheel.failures - 1, 10)
        return int(min(doubled_s, MAX_BACK_OFF_S) * 1_000 * (1 - self._rng.random() / 4))

    def _now(self, job: Job) -> int:
        return self._time.wall_ms() if job.timetable.by_calendar else self._time.steady_ms()

    def _offset_ms(self, job: Job) -> int:
        """What a moment on the job's dial lacks to one on the wall."""
        return 0 if job.timetable.by_calendar else self._time.offset_ms()

    def _lock(self, name: str) -> anyio.Lock:
        return self._locks.setdefault(name, anyio.Lock())


async def _rest(wheel: _Wheel, seconds: float) -> None:
    with anyio.move_on_after(min(seconds, SLICE_S)):
        await wheel.changed.wait()
        wheel.changed = anyio.Event()


def _failed(job: Job, error: BaseException) -> Ended:
    where = _where(error)
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # of a task group that the job works with
    reason = _reason(error)
    event("job.failed", job=job.name, outcome=FAILED, reason=reason, where=_where(error) or where)
    return Ended(FAILED, None, reason)


def _reason(error: BaseException) -> str:
    """Return the message of an error of ours; of any other its kind alone, since its text may hold a value."""
    if isinstance(error, ProntoError):
        return str(error)
    kind = type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    return kind if number is None else f"{kind} ({errno.errorcode.get(number, number)})"


def _where(error: BaseException) -> str | None:
    """Return the line that raised, which is all that is told of an error that nobody expected."""
    step, line = error.__traceback__, None
    while step is not None:  # as deep as the stack was
        line = f"{step.tb_frame.f_globals.get('__name__')}:{step.tb_lineno}"
        step = step.tb_next
    return line

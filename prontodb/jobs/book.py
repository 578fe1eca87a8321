"""The jobs of a root as people see them: their schedules, their runs, and what is paused."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidInputError, shown
from prontodb.jobs import plan
from prontodb.jobs.runner import ALL, PAUSED
from prontodb.model.layout import JOBS_LOCK_FILE
from prontodb.registry import configuration
from prontodb.storage import lock
from prontodb.storage.files import open_root

if TYPE_CHECKING:
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.registry.jobs import JobRegistry, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job: when it runs and when it did. `next_at_ms` None: it is paused or switched off; in the past: it is due.

    `last` is its newest run, whatever became of it.
    """

    name: str
    schedule: str
    enabled: bool
    paused: bool
    next_at_ms: int | None
    last: Run | None

    def as_dict(self) -> dict[str, object]:
        """Return the row as JSON-able fields."""
        return asdict(self)


class JobBook:
    """Lists, pauses and resumes the jobs of one root. Synchronous."""

    def __init__(self, layout: Layout, registry: JobRegistry, clock: Clock) -> None:
        self._layout, self._registry, self._clock = layout, registry, clock
        self.notes: list[str] = []
        """What the calls so far have to tell the reader; whoever shows them empties the list."""

    def runs(self, name: str | None = None, limit: int = 50) -> list[Run]:
        """Return the last runs of one job or of all, the newest first."""
        if name is not None:
            _checked(name)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise InvalidInputError("limit must be a whole number from 1 up")
        return self._registry.runs(name, min(limit, 2**31))

    def pause(self, name: str | None = None) -> None:
        """Drop the beats of a job, or of all."""
        self._registry.note(PAUSED + (ALL if name is None else _checked(name)), str(self._clock.wall_ms()))

    def resume(self, name: str | None = None) -> None:
        """Go on with a job, or with all that are paused."""
        if name is not None:
            self._registry.note(PAUSED + _checked(name), None)
            if PAUSED + ALL in self._registry.notes():
                self.notes.append(f"all jobs are paused still; {name} goes on with: prontodb jobs resume")
            return
        for note in self._registry.notes():
            if note.startswith(PAUSED):
                self._registry.note(note, None)

    def runner(self) -> str | None:
        """Return who runs the jobs now; None when nobody does."""
        try:
            with open_root(self._layout.root, *self._layout.jobs_lock_parts()) as folder:
                seen = lock.look(folder, JOBS_LOCK_FILE)
        except FileNotFoundError:
            return None
        return str(seen) if seen is not None and seen.held else None

    # Last, since below it `list` is no longer the built-in type.

    def list(self) -> list[JobRow]:
        """Return every job."""
        schedules, warnings = plan.schedules_of(configuration.section(self._layout, "jobs"))
        self.notes += warnings
        notes = self._registry.notes()
        rows = []
        for name, schedule in schedules.items():
            runs = self._registry.runs(name, 1)
            paused = PAUSED + name in notes or PAUSED + ALL in notes
            last = runs[0] if runs else None
            next_at_ms: int | None = None
            if schedule.enabled and not paused:
                now_ms = self._clock.wall_ms()
                next_at_ms = now_ms if last is None else schedule.timetable.next_after(last.beat_at_ms, last.beat_at_ms)
            rows.append(
                JobRow(
                    name=name,
                    schedule=str(schedule.timetable),
                    enabled=schedule.enabled,
                    paused=paused,
                    next_at_ms=next_at_ms,
                    last=last,
                )
            )
        return rows


def _checked(name: object) -> str:
    if not isinstance(name, str) or name not in plan.DEFAULTS:
        raise InvalidInputError(f"job {shown(name)} does not exist; there are: {', '.join(plan.JOBS)}")
    return name

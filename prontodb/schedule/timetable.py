"""When the beats of a job are: at an interval counted from a beat, or by the calendar of a zone.

Moments are whole milliseconds UTC. A timetable is right once it is built: everything in it was checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from prontodb.errors import InvalidSettingsError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_INTERVAL_S = 1
MAX_INTERVAL_S = 10 * 365 * 86_400
MAX_MISSED = 10_000
"""Missed beats are counted up to here: more of them tell nobody anything."""

_MAX_EXPRESSION = 200
_MAX_ZONE = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Beyond these years there is no calendar, only a clock that is wrong.
_FIRST_MS, _LAST_MS = -30_000_000_000_000, 220_000_000_000_000
_FAR_MS = 100 * 365 * 86_400_000
# When clocks are put back, local times come twice; no zone since 1970 put them back by more.
_FOLD_MS = 4 * 3_600_000
_FIVE_FIELDS = "five fields, minute hour day month weekday, such as '0 3 * * *' or '*/15 8-18 * * MON-FRI'"
_UNITS = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


class Timetable(Protocol):
    """The beats of a job. `beat_ms` is one that is known, where there is one: an interval is counted from it."""

    by_calendar: ClassVar[bool]
    """True when beats are moments of the wall clock; else they are counted in seconds that pass, whatever it shows."""

    def next_after(self, moment_ms: int, beat_ms: int | None = None) -> int:
        """Return the first beat after a moment."""

    def latest(self, moment_ms: int, beat_ms: int | None = None) -> int:
        """Return the last beat that is not after a moment."""

    def between(self, beat_ms: int, later_ms: int) -> int:
        """Return how many beats lie after `beat_ms` and before `later_ms`: at most `MAX_MISSED`."""


@dataclass(frozen=True, slots=True)
class Every:
    """A beat every so many seconds, from any beat on; to the millisecond."""

    by_calendar: ClassVar[bool] = False

    seconds: float

    def __post_init__(self) -> None:
        number = isinstance(self.seconds, int | float) and not isinstance(self.seconds, bool)
        # NaN compares false with everything, so it is outside too.
        if not (number and MIN_INTERVAL_S <= self.seconds <= MAX_INTERVAL_S):
            raise InvalidSettingsError(f"{_told(self.seconds)} is no interval; allowed: from 1 s to 10 years")
        object.__setattr__(self, "seconds", round(self.seconds * 1_000) / 1_000)

    @property
    def interval_ms(self) -> int:
        """The interval in whole milliseconds."""
        return round(self.seconds * 1_000)

    def next_after(self, moment_ms: int, beat_ms: int | None = None) -> int:
        """Return the first beat after a moment, in phase with `beat_ms`; without one the moment is a beat."""
        return self.latest(moment_ms, beat_ms) + self.interval_ms

    def latest(self, moment_ms: int, beat_ms: int | None = None) -> int:
        """Return the last beat that is not after a moment, in phase with `beat_ms`; without one the moment itself."""
        return moment_ms if beat_ms is None else moment_ms - (moment_ms - beat_ms) % self.interval_ms

    def between(self, beat_ms: int, later_ms: int) -> int:
        """Return how many beats lie after `beat_ms` and before `later_ms`: at most `MAX_MISSED`."""
        return min(max(0, (later_ms - beat_ms - 1) // self.interval_ms), MAX_MISSED)

    def __str__(self) -> str:
        return f"every {duration(self.interval_ms)}"


@dataclass(frozen=True, slots=True)
class Cron:
    """Beats by five fields of cron, in the local time of an IANA zone.

    Where clocks are changed, the rules are those of Debian's cron: a job of fixed times runs once on that day, at the
    end of the gap or at the first of two equal local times; one of every hour or minute keeps to hours that pass.
    """

    by_calendar: ClassVar[bool] = True

    expression: str
    zone: str = "UTC"
    _tzinfo: tzinfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tzinfo", _zone(self.zone))
        words = self.expression.split() if isinstance(self.expression, str) else []
        expression = " ".join(words)
        if len(words) != 5 or len(expression) > _MAX_EXPRESSION:
            raise InvalidSettingsError(f"{shown(self.expression)} is no cron expression; allowed: {_FIVE_FIELDS}")
        object.__setattr__(self, "expression", expression)
        try:
            next(CronSim(expression, _EPOCH))
        except CronSimError as error:
            wrong = str(error).removeprefix("Bad ")
            raise InvalidSettingsError(
                f"{shown(expression)} has a wrong {wrong}, or one that never comes; allowed: {_FIVE_FIELDS}"
            ) from error
        except StopIteration as error:
            raise InvalidSettingsError(f"{shown(expression)} never comes; allowed: {_FIVE_FIELDS}") from error

    def next_after(self, moment_ms: int, beat_ms: int | None = None) -> int:  # noqa: ARG002 - the calendar is the phase
        """Return the first beat after a moment."""
        return next(self._after(moment_ms), moment_ms + _FAR_MS)

    def latest(self, moment_ms: int, beat_ms: int | None = None) -> int:  # noqa: ARG002 - the calendar is the phase
        """Return the last beat that is not after a moment."""
        # Backwards, a moment that comes twice is taken for the first: start behind both, as the beats are in order.
        start = moment_ms + 1_000 + (0 if self._tzinfo is UTC else _FOLD_MS)
        if not _FIRST_MS <= start <= _LAST_MS:
            return moment_ms - _FAR_MS
        beats = CronSim(self.expression, self._local(start), reverse=True)
        return next((at for beat in beats if (at := _ms(beat)) <= moment_ms), moment_ms - _FAR_MS)

    def between(self, beat_ms: int, later_ms: int) -> int:
        """Return how many beats lie after `beat_ms` and before `later_ms`: at most `MAX_MISSED`."""
        count = 0
        for at in islice(self._after(beat_ms), MAX_MISSED):
            if at >= later_ms:
                break
            count += 1
        return count

    def _after(self, moment_ms: int) -> Iterator[int]:
        """The beats after a moment: for 50 years, then or in a year without calendar none."""
        if not _FIRST_MS <= moment_ms <= _LAST_MS:
            return
        last = moment_ms
        for beat in CronSim(self.expression, self._local(moment_ms)):
            # In the second of two equal hours the first one's beats are offered again; they are over.
            if (at := _ms(beat)) > last:
                last = at
                yield at

    def _local(self, moment_ms: int) -> datetime:
        return (_EPOCH + timedelta(seconds=moment_ms // 1_000)).astimezone(self._tzinfo)

    def __str__(self) -> str:
        return f"cron '{self.expression}' ({self.zone})"


def duration(ms: int) -> str:
    """Return a duration as text that `ttl_ms` reads, exactly: '90 s', '1 m', '2 w'."""
    unit, size = next((unit, size) for unit, size in _UNITS if ms % size == 0)
    return f"{ms // size} {unit}"


def _told(seconds: object) -> str:
    # Python refuses to write out whole numbers of very many digits.
    if isinstance(seconds, int) and abs(seconds) >= 2**63:
        return "a number beyond 64 bits"
    return f"{seconds} s" if isinstance(seconds, int | float) else shown(seconds)


def _ms(beat: datetime) -> int:
    return (beat - _EPOCH) // timedelta(milliseconds=1)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # needs no data, and is by far the fastest
    try:
        # OSError: the name of a folder of zones. ValueError: no name at all, such as a path out of them.
        if not isinstance(name, str) or not name.isascii() or not 1 <= len(name) <= _MAX_ZONE:
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise InvalidSettingsError(
            f"zone {shown(name)} is not known to this machine; allowed: 'UTC', or an IANA name such as 'Europe/Berlin' "
            "(a machine without zones needs the package tzdata)"
        ) from error

"""Time comes in as an argument: the clock of the machine, and one for tests that only moves when told."""

from __future__ import annotations

import time

# Where there is none, a suspended machine's time stands still.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clocks. Expiry uses the wall clock, deadlines the monotonic one (D24)."""

    __slots__ = ()

    def wall_ms(self) -> int:
        """Integer milliseconds UTC since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go backwards; only differences mean anything."""
        return time.monotonic()

    def boottime_s(self) -> float:
        """Like `monotonic_s`, and goes on while the machine sleeps; the same for all processes until it boots."""
        return time.clock_gettime(_BOOTTIME)


class ManualClock(Clock):
    """A clock that stands still until `advance` or `set_wall_ms` moves it."""

    __slots__ = ("_wall_ms", "_monotonic_s")

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = 0.0

    def wall_ms(self) -> int:
        """The wall clock as last set."""
        return self._wall_ms

    def monotonic_s(self) -> float:
        """Seconds advanced so far."""
        return self._monotonic_s

    def boottime_s(self) -> float:
        """Seconds advanced so far; a manual machine never sleeps."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._wall_ms += round(seconds * 1_000)
        self._monotonic_s += seconds

    def set_wall_ms(self, wall_ms: int) -> None:
        """Set the wall clock as an administrator would; the monotonic clock does not notice."""
        self._wall_ms = wall_ms

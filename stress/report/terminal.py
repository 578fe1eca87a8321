"""A run on the terminal: one line while it goes, on stderr, and the summary at its end."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .units import clean, count, figure, some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self, TextIO

DRAWN_EVERY_S, SAID_EVERY_S = 0.1, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a scenario is."""

    scenario: str
    elapsed_s: float
    of_s: float
    agents: int
    """Those alive."""
    operations: int
    ops_per_s: float
    faults: Mapping[str, int] = field(default_factory=dict)
    """Made so far, by name."""
    stage: str = ""
    """What is done when the agents do not work: starting, looking at what is left, judging."""
    alarms: int = 0
    """What agents saw themselves that ought not to be; the checks at the end have the word."""


class LiveLine:
    """Shows how a run gets on, for the length of a block: a line drawn anew in place, or without a terminal a line now
    and then. Trouble with stderr is no trouble of the run."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._in_place = is_terminal(stream)
        self._next_at, self._scenario = 0.0, ""
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def show(self, progress: Progress) -> None:
        """Draw the progress when it is time to; at once when a scenario begins."""
        now = self._clock()
        if progress.scenario == self._scenario and now < self._next_at:
            return
        if progress.scenario != self._scenario:
            self.end()
        self._scenario = progress.scenario
        if not self._in_place:
            self._next_at = now + SAID_EVERY_S
            self._write(progress_text(progress) + "\n")
            return
        self._next_at = now + DRAWN_EVERY_S
        # Drawn over, then the rest erased: nothing is blank in between. The last column stays free, where some
        # terminals begin a new line.
        self._write(f"\r{progress_text(progress, _columns(self._stream) - 1)}\x1b[K")
        self._is_drawn = True

    def say(self, text: str) -> None:
        """Say something in a line of its own."""
        self._write(("\r\x1b[K" if self._is_drawn else "") + clean(text) + "\n")
        self._is_drawn = False

    def end(self) -> None:
        """Leave the last line standing."""
        if self._is_drawn:
            self._write("\n")
        self._is_drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # Closed, gone, or of an encoding that lacks a letter: then nobody watches.
            return


def progress_text(progress: Progress, columns: int | None = None) -> str:
    """Return the progress in one line, with as many of its parts as fit, the most needed first."""
    faults = ", ".join(f"{name} {number}" for name, number in progress.faults.items())
    # Each with its rank: the last ones go first when there is no room.
    parts = [
        (0, clean(f"{progress.scenario} {progress.stage or f'{progress.elapsed_s:.0f} of {progress.of_s:.0f} s'}")),
        (1, some(progress.alarms, "alarm").upper() if progress.alarms else ""),
        (4, some(progress.agents, "agent")),
        (3, f"{count(progress.operations)} operations"),
        (2, figure(progress.ops_per_s, "ops/s")),
        (5, clean(f"faults: {faults}") if faults else ""),
    ]
    parts = [part for part in parts if part[1]]
    while columns is not None and len(parts) > 1 and len(_joined(parts)) > columns:
        parts.remove(max(parts))
    return _joined(parts)[:columns]


def _joined(parts: list[tuple[int, str]]) -> str:
    return " | ".join(text for _, text in parts)


def is_terminal(stream: TextIO) -> bool:
    """Return True when a line can be drawn anew where `stream` goes."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def wants_colour(stream: TextIO) -> bool:
    """Return True on a terminal, unless NO_COLOR says that nobody wants it."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return shutil.get_terminal_size().columns

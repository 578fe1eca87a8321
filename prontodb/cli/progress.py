"""How far a long command is, on stderr: a bar on a terminal, elsewhere a line now and then; and sizes and durations.

A short command says nothing where its talk is kept, and what is drawn on a terminal is gone before anything else is
said, whatever ends the command. Trouble with stderr never becomes trouble of the command.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from math import ceil
from typing import TYPE_CHECKING

from prontodb.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, TextIO

    from prontodb.model.progress import Progress

FIRST_LINE_S, NEXT_LINE_S = 2.0, 5.0
NEXT_DRAWING_S = 0.1
"""Drawing takes about 0.1 ms: once per unit would be felt with many small ones."""
GUESS_AFTER_S = 1.0
"""How long a rate is measured before the time left is told."""
NAME_CHARACTERS = 80
"""The longest name in a line that no width bounds."""
UNKNOWN_COLUMNS = 80

_SIZES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DURATIONS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
# The widest first: columns at least, how the line looks. The last field is our own text, escaped and cut.
_FORMS = (
    (80, "{percentage:3.0f}%|{bar:20}| {desc}"),
    (60, "{percentage:3.0f}%|{bar:10}| {desc}"),
    (0, "{percentage:3.0f}% {desc}"),
)
_CUT = "..."  # not one character: a terminal without UTF-8 would get its escape, six wide


def size_text(size: int) -> str:
    """Return a number of bytes in the largest binary unit that fits: 512 B, 35.2 MiB."""
    if size < 1_024:
        return f"{size} B"
    amount, power = size / 1_024, 0
    # What would be shown as 1,024.0 is one of the next unit.
    while amount >= 1_023.95 and power < len(_SIZES) - 1:
        amount, power = amount / 1_024, power + 1
    return f"{amount:,.1f} {_SIZES[power]}"


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units, cut and not rounded: 0.4 s, 40 s, 1 h 3 m."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    whole = int(seconds)
    largest = next(n for n, (_, length) in enumerate(_DURATIONS) if whole >= length)
    parts = []
    for unit, length in _DURATIONS[largest : largest + 2]:
        amount, whole = divmod(whole, length)
        if amount:
            parts.append(f"{amount:,} {unit}")
    return " ".join(parts)


class Shown:
    """Shows how a command gets on, for the length of a block: `title` is the command's, `unit` what it counts.

    `update` is called with each progress, from one thread at a time; most calls cost a look at the clock.
    """

    def __init__(self, title: str, unit: str, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._title, self._unit, self._quiet, self._clock = title, unit, quiet, clock
        self._form: _Bar | _Lines | None = None
        self._pace = _Pace()
        self._next_at = 0.0

    def __enter__(self) -> Self:
        if not self._quiet:
            self._form = _bar_if_possible() or _Lines()
            self._next_at = self._clock() + self._form.first_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        form, self._form = self._form, None
        if form is not None:
            form.close()

    def update(self, progress: Progress) -> None:
        """Take note of the progress, and show it when it is time to."""
        form = self._form
        if form is None:
            return
        now = self._clock()
        left_s = self._pace.left_s(now, progress)
        if now < self._next_at:
            return
        self._next_at = now + form.next_s
        told = f"{self._title}: {progress.done:,} of {progress.total:,} {self._unit}"
        if progress.done_bytes:
            told += f", {size_text(progress.done_bytes)}"
        if left_s is not None:
            told += f", about {duration_text(ceil(left_s))} left"
        form.show(told, progress.what, _place(progress))


def _place(progress: Progress) -> tuple[int, int]:
    """Return how far it is, of how much: in bytes where the total is known, since units differ in size."""
    if progress.total_bytes:
        return progress.done_bytes, progress.total_bytes
    return progress.done, progress.total


class _Pace:
    """How fast it goes since the first look."""

    __slots__ = ("_began_at", "_first", "_in_bytes", "_last")

    def __init__(self) -> None:
        self._began_at, self._first, self._last, self._in_bytes = 0.0, 0, -1, False

    def left_s(self, now: float, progress: Progress) -> float | None:
        """Return about how many seconds are left; None as long as nobody can say."""
        (done, total), in_bytes = _place(progress), bool(progress.total_bytes)
        # Another measure, or a new round that counts from the start: what was measured says nothing of it.
        if self._last < 0 or done < self._last or in_bytes != self._in_bytes:
            self._began_at, self._first, self._in_bytes = now, done, in_bytes
        self._last = done
        took_s, did = now - self._began_at, done - self._first
        if took_s < GUESS_AFTER_S or did <= 0 or done >= total:
            return None
        return (total - done) * took_s / did


class _Lines:
    """Whole lines, for files and for programs that read along."""

    first_s, next_s = FIRST_LINE_S, NEXT_LINE_S

    def show(self, told: str, name: str, _place: tuple[int, int]) -> None:
        """Say it in one line."""
        output.note(told + _in_brackets(output.escaped(name), NAME_CHARACTERS))

    def close(self) -> None:
        """Nothing is open."""


class _Bar:
    """One line of a terminal, drawn over and over."""

    first_s, next_s = 0.0, NEXT_DRAWING_S

    def __init__(self, bar_type: Any, stream: TextIO) -> None:
        self._screen = _Screen(stream)
        # Neither a thread that watches the bar nor a lock for other processes: both outlive the command.
        bar_type.monitor_interval = 0
        bar_type.set_lock(threading.RLock())
        # All that the environment could set otherwise is named, so that nobody's setting for other programs counts.
        self._bar = bar_type(
            iterable=None,
            desc="",
            total=None,
            leave=False,
            file=self._screen,
            ncols=1,
            nrows=2,
            ascii=not self._screen.has("█"),
            disable=False,
            unit="",
            unit_scale=False,
            dynamic_ncols=False,
            smoothing=0,
            bar_format="{desc}",
            initial=0,
            position=0,
            postfix=None,
            write_bytes=False,
            lock_args=None,
            colour=None,
            delay=0,
            gui=False,
        )

    def show(self, told: str, name: str, place: tuple[int, int]) -> None:
        """Draw the line anew, as wide as the terminal is now."""
        columns = self._screen.columns()
        bar = self._bar
        # The last column stays free: some terminals begin a new line when it is written.
        bar.ncols = max(1, columns - 1)
        bar.bar_format = next(form for least, form in _FORMS if columns >= least)
        bar.n, bar.total = min(place), max(1, place[1])
        frame = bar.bar_format.format(percentage=0, bar="", desc=told)
        bar.set_description_str(told + _in_brackets(self._screen.text(name), bar.ncols - len(frame)), refresh=True)

    def close(self) -> None:
        """Take the line away."""
        self._bar.close()
        self._screen.flush()


def _in_brackets(name: str, room: int) -> str:
    if not name:
        return ""
    room -= len(" ()")
    if len(name) > room:
        name = name[: room - len(_CUT)] + _CUT if room > 2 * len(_CUT) else ""
    return f" ({name})" if name else ""


class _Screen:
    """A terminal as the bar's drawer wants it: a stream that never fails, and shows what it cannot write escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "ascii"

    def write(self, text: str) -> None:
        """Write, if that is possible."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            return

    def flush(self) -> None:
        """Bring it onto the screen, if that is possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def columns(self) -> int:
        """How wide the terminal is now."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or UNKNOWN_COLUMNS
        except (OSError, ValueError):
            return UNKNOWN_COLUMNS

    def has(self, text: str) -> bool:
        """True when the terminal's encoding knows these characters."""
        try:
            text.encode(self.encoding)
        except (UnicodeError, LookupError):
            return False
        return True

    def text(self, value: str) -> str:
        """Return a value without controls, invisible characters and what the encoding lacks."""
        plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in output.escaped(value))
        return plain.encode(self.encoding, "backslashreplace").decode(self.encoding)


def _bar_if_possible() -> _Bar | None:
    stream = sys.stderr
    try:
        # A terminal that calls itself dumb may not know how to go back in a line.
        if stream is None or not stream.isatty() or os.environ.get("TERM") == "dumb":
            return None
        # Only here: importing it takes longer than many a command. ValueError: it reads the environment, and TQDM_NCOLS
        # may hold anything.
        from tqdm import tqdm  # type: ignore[import-untyped]
    except (ImportError, ValueError):
        return None
    return _Bar(tqdm, stream)

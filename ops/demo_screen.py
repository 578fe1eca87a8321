"""How the demo looks: headings, tables, progress; colour on a terminal only, plain ASCII where it must be."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

MIN_WIDTH, MAX_WIDTH, WIDTH_OFF_TERMINAL = 80, 120, 100
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"
FANCY = "─│├└·✓✗…"
PLAIN = "-||`.+x~"


class Screen:
    """Writes to one stream, as wide and as colourful as it can bear."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        columns = shutil.get_terminal_size((WIDTH_OFF_TERMINAL, 0)).columns
        self.width = max(MIN_WIDTH, min(MAX_WIDTH, columns))
        dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = self._is_terminal and not dull
        try:
            FANCY.encode(stream.encoding or "ascii")
            self._spelling: dict[int, str] = {}
        except UnicodeError:
            self._spelling = dict(zip(map(ord, FANCY), PLAIN, strict=True))
        self._passing = False

    def paint(self, text: str, colour: str) -> str:
        """Return text in a colour, where there are colours."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def line(self, text: str = "") -> None:
        """Write one line; it takes the place of what was passing."""
        if self._passing:
            self._stream.write("\r\x1b[K")
            self._passing = False
        self._stream.write(text.translate(self._spelling) + "\n")
        self._stream.flush()

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces; nothing off a terminal."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K" + text[: self.width - 1].translate(self._spelling))
            self._stream.flush()
            self._passing = True

    def heading(self, text: str) -> None:
        """Write a heading over the whole width."""
        self.line()
        self.line(f"{self.paint(text, BOLD)} {self.paint('─' * (self.width - len(text) - 1), DIM)}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under a head: the first column to the left, numbers to the right."""
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

        def laid_out(row: Sequence[str]) -> str:
            first, *others = zip(row, widths, strict=True)
            return "  " + "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])

        self.line(self.paint(laid_out(head), DIM))
        for row in rows:
            self.line(laid_out(row))

    def matrix(
        self, head: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]], colour_of: Callable[[str, str], str]
    ) -> None:
        """Write counts by row and column, `·` for none; `#` for any where there is no room for numbers.

        `colour_of(row, column)` colours the counts that are not zero.
        """
        label = max(len(name) for name, _ in rows)
        digits = max(len(str(count)) for _, counts in rows for count in counts)
        room = (self.width - label - 4) // len(head)
        words = list(head) if max(map(len, head)) < room else ["".join(filter(str.isdigit, name)) for name in head]
        numeric = max(digits, *map(len, words)) < room
        cell = min(room, max(digits, *map(len, words)) + 2) if numeric else 2
        # Without room for words beside each other they stand upright, at most two digits high.
        lines = [words] if numeric else [[f"{word:>2}"[at] for word in words] for at in range(2)]
        for line in lines:
            self.line(self.paint("  " + " " * label + "  " + "".join(word.rjust(cell) for word in line), DIM))
        for name, counts in rows:
            cells = [
                self.paint((str(count) if numeric else "#").rjust(cell), colour_of(name, column))
                if count
                else self.paint("·".rjust(cell), DIM)
                for column, count in zip(head, counts, strict=True)
            ]
            self.line(f"  {name.ljust(label)}  {''.join(cells)}")

    def command(self, text: str, said: str) -> None:
        """Write a command as typed at a shell, and what it said, long lines wrapped."""
        self.line(f"  $ {text}")
        for line in said.splitlines():
            for part in textwrap.wrap(line, self.width - 4, break_on_hyphens=False) if line else []:
                self.line(f"  {self.paint(part, CYAN)}")

    def verdict(self, text: str, *, held: bool) -> None:
        """Write whether something held."""
        mark = self.paint("✓", GREEN) if held else self.paint("✗", RED)
        self.line(f"  {mark} {text}")


def sized(size_bytes: float) -> str:
    """Return a size for people."""
    return f"{size_bytes:.0f} B" if size_bytes < 1_024 else f"{size_bytes / 1_024:,.0f} KiB"


def quiet_end() -> None:
    """Let the interpreter end in peace after the reader of stdout has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Tables: in columns that fit on a terminal, else with tabs between, for programs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from prontodb.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

NARROWEST = 6
"""A column that must give way keeps this many characters."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with what it counts: 1 address, 1,000 addresses."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def show(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head on a terminal; elsewhere without one, with tabs between."""
    if rows and output.on_terminal():
        for line in columns([head, *rows], shutil.get_terminal_size().columns):
            output.line(line)
    else:
        for row in rows:
            output.line("\t".join(row))


def columns(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a table as lines of at most `width` characters: the widest of the later columns give way first."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    # The first one is never cut: it is there to be copied.
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(range(1, len(widths)), key=lambda n: widths[n])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return ["  ".join(_fit(text, room) for text, room in zip(row, widths, strict=True)).rstrip() for row in rows]


def _fit(text: str, room: int) -> str:
    return text.ljust(room) if len(text) <= room else f"{text[: room - 1]}…"

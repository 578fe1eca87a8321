"""Every process ends, by itself or as it was meant to, and leaves nothing behind."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath, Ending
    from ..history import History
    from ..verdict import Verdict

CHECK = "endings"
NOTHING_HANGS, NOTHING_STAYS = 12, 15
HUNG = 86
"""The exit code of an agent whose own watchdog ended it: an operation never returned."""


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check how each process ended, and that neither processes nor unfinished files are left."""
    tally = Tally(CHECK)
    for ending in aftermath.endings:
        tally.count(NOTHING_HANGS)
        tally.count(NOTHING_STAYS)
        if ending.code == HUNG:
            tally.violate(NOTHING_HANGS, f"{ending.process} never ended: an operation of it did not return")
        elif not ending.was_meant:
            tally.violate(NOTHING_STAYS, f"{ending.process} {_how(ending)}{_last_words(ending)}")
    for leftover in aftermath.leftovers:
        tally.violate(NOTHING_STAYS, f"left behind when all was over: {leftover}")
    return tally.verdict()


def _how(ending: Ending) -> str:
    if ending.code >= 0:
        return f"ended with exit code {ending.code}, which nobody had meant"
    known = {number.value: number.name for number in signal.Signals}
    return f"was ended by {known.get(-ending.code, f'signal {-ending.code}')}, which no fault had sent"


def _last_words(ending: Ending) -> str:
    lines = ending.last_words.strip().splitlines()
    return f"; its last words: {lines[-1]}" if lines else ""

"""One exclusive session at an address, and never beside shared ones.

Only what is certain counts: a session is there from the moment its opening had returned to the moment its closing was
called. One that was never closed is there until it was last heard of; one that was put out by force, or whose lock file
a fault deleted, until just before that. A lost registry excuses nobody: the locks are no part of it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .stays import Stay, stays
from .tally import Tally, milliseconds

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import Fault, History, Operation
    from ..verdict import Verdict

CHECK = "holders"
PROMISE = 13
LOCKS = "locks"
FAULT_LASTS_NS = 1_000_000_000
"""A fault is written down before it is made: for so long after that it may still come."""


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check that no two sessions were certainly at one address at once, unless both were shared."""
    tally = Tally(CHECK)
    cuts = history.faults_of(LOCKS)
    at_address: defaultdict[str, list[tuple[Stay, int]]] = defaultdict(list)
    for stay in stays(history).values():
        at_address[stay.address].append((stay, end_ns(stay, cuts)))
    for guests in at_address.values():
        guests.sort(key=lambda guest: guest[0].opened_ns)
        _check_address(guests, tally)
    return tally.verdict()


def end_ns(stay: Stay, cuts: list[Fault]) -> int:
    """Return until when a session was certainly there."""
    end = stay.seen_ns if stay.closed is None else stay.closed.called_ns
    end = min([end, *(eviction.called_ns for eviction in stay.evictions)])
    for fault in cuts:
        until_ns = fault.at_ns + FAULT_LASTS_NS if fault.until_ns is None else fault.until_ns
        if fault.target == stay.address and fault.at_ns < end and stay.opened_ns <= until_ns:
            end = min(end, fault.at_ns)
    return end


def _check_address(guests: list[tuple[Stay, int]], tally: Tally) -> None:
    """Compare each session with those before it that stayed longest: if it meets anybody, it meets them."""
    alone: tuple[Stay, int] | None = None
    shared: tuple[Stay, int] | None = None
    for stay, end in guests:
        rivals = [rival for rival in (alone, shared if stay.is_exclusive else None) if rival]
        tally.count(PROMISE, 1 if rivals else 0)
        for rival, rival_end in rivals:
            if rival_end > stay.opened_ns:
                _violate(rival, rival_end, stay, tally)
        if stay.is_exclusive:
            alone = _longer(alone, (stay, end))
        else:
            shared = _longer(shared, (stay, end))


def _longer(one: tuple[Stay, int] | None, other: tuple[Stay, int]) -> tuple[Stay, int]:
    return one if one and one[1] > other[1] else other


def _violate(first: Stay, first_end: int, second: Stay, tally: Tally) -> None:
    tally.violate(
        PROMISE,
        f"{second.opened.process} opened {second.mode} session {second.session} at {first.address} while "
        f"{first.opened.process} was there with {first.mode} session {first.session}, and stayed at least "
        f"{milliseconds(first_end - second.opened_ns)} longer",
        first.opened,
        second.opened,
        _proof(first),
    )


def _proof(stay: Stay) -> Operation:
    """The operation that shows that a session was still there."""
    return stay.last if stay.closed is None else stay.closed

"""Who lost the address writes no more: each acknowledged write is held against the moment its session was replaced."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..history import CAS, DELETE, LEND, OK, RAISE, RENEW, SET, SET_MANY, TRANSACT
from .moves import Moves
from .stays import Stay, stays
from .tally import Tally, milliseconds

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "fences"
PROMISE = 13
WRITES = (SET, SET_MANY, TRANSACT, DELETE, CAS, RAISE, LEND, RENEW)
SAYS_WHETHER = (DELETE, CAS, RENEW)
"""These may have found nothing to do, and say so."""
FENCED = "FencedError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """How and when a session lost its address."""

    by: Operation
    at_ns: int
    text: str


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check that no session wrote after it was replaced or put out, and that epochs rise."""
    tally, sessions = Tally(CHECK), stays(history)
    orders = _exclusive_by_address(sessions)
    fences = {session: _fence(stay, orders[stay.address]) for session, stay in sessions.items()}
    _check_writes(history, sessions, fences, tally)
    moves = Moves(history)
    for order in orders.values():
        _check_epochs(order, moves, tally)
    lost = sum(fence is not None for fence in fences.values())
    refused = sum(write.error == FENCED for write in history.of(*WRITES))
    note = f"sessions that lost their address or were followed by another: {lost:,}; writes refused: {refused:,}"
    return tally.verdict(*([note] if lost else []))


def _check_writes(history: History, sessions: dict[str, Stay], fences: dict[str, Fence | None], tally: Tally) -> None:
    """Each acknowledged write is a question; of each session the first wrong answer is told."""
    told: set[str] = set()
    for write in history.of(*WRITES):
        if write.session not in sessions or not _has_written(write):
            continue
        tally.count(PROMISE)
        fence = fences[write.session]
        if fence is None or write.called_ns <= fence.at_ns or write.session in told:
            continue
        told.add(write.session)
        late = milliseconds(write.called_ns - fence.at_ns)
        tally.violate(
            PROMISE,
            f"{write.process} had a {write.op} of {write.key} at {write.address} acknowledged in session "
            f"{write.session}, {late} after {fence.text}",
            sessions[write.session].opened,
            fence.by,
            write,
        )


def _has_written(write: Operation) -> bool:
    return write.outcome == OK and (write.op not in SAYS_WHETHER or write.result is True)


def _exclusive_by_address(sessions: dict[str, Stay]) -> defaultdict[str, list[Stay]]:
    """The exclusive sessions of each address, in the order in which their openings returned."""
    found: defaultdict[str, list[Stay]] = defaultdict(list)
    for stay in sorted(sessions.values(), key=lambda stay: stay.opened_ns):
        if stay.is_exclusive:
            found[stay.address].append(stay)
    return found


def _fence(stay: Stay, order: list[Stay]) -> Fence | None:
    """The first of: the next exclusive session was there, somebody had put it out."""
    fences = [
        Fence(by=eviction, at_ns=eviction.returned_ns, text=f"{eviction.process} had put it out by force")
        for eviction in stay.evictions
        if eviction.outcome == OK and eviction.returned_ns is not None
    ]
    later = bisect_left(order, stay.opened_ns + 1, key=lambda other: other.opened_ns)
    heir = next((other for other in islice(order, later, None) if _is_newer(other, stay)), None)
    if heir is not None:
        text = f"{heir.opened.process} had opened exclusive session {heir.session} there"
        fences.append(Fence(by=heir.opened, at_ns=heir.opened_ns, text=text))
    return min(fences, key=lambda fence: fence.at_ns, default=None)


def _is_newer(heir: Stay, stay: Stay) -> bool:
    """False when the epochs say the opposite: whoever was stopped on the way out of `open` comes late, not second."""
    return heir.epoch is not None and (stay.epoch is None or heir.epoch > stay.epoch)


def _check_epochs(order: list[Stay], moves: Moves, tally: Tally) -> None:
    """Hold each epoch against that of the last opening that was over before this one began."""
    opened = [stay.opened_ns for stay in order]
    for stay in order:
        before = bisect_left(opened, stay.opened.called_ns)
        if before == 0:
            continue
        former = order[before - 1]
        if former.epoch is None or stay.epoch is None:
            continue
        if moves.between(stay.address, former.opened.called_ns, stay.opened_ns):
            continue
        tally.count(PROMISE)
        if stay.epoch <= former.epoch:
            tally.violate(
                PROMISE,
                f"{stay.opened.process} opened {stay.address} at epoch {stay.epoch} after {former.opened.process} "
                f"had opened it at epoch {former.epoch}: epochs must rise",
                former.opened,
                stay.opened,
            )

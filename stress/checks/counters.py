"""Counters count exactly: acknowledged raises stand in one order, which time, reads and the end agree with.

A raise returns the sum after it, so each acknowledged one says which stretch of the counter's line it covered: from
its sum less what it added, to its sum. A read covers a single point, and what is found at the end is a last read. In
the order of that line everything must follow: no two stretches overlap, nothing stands before what had returned
before it was called, and gaps are filled by raises of unknown outcome that had been called by then. With raises by 1
this is linearizability exactly [Herlihy and Wing 1990: "Linearizability: a correctness condition for concurrent
objects"]; with others, how the unknown ones share several gaps is judged by their totals.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from ..history import COUNTER, FAILED, GET, OK, RAISE
from ..verdict import Verdict, Violation
from .settled import left_out, unsettled

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "counters"
EXACT = 10
"""The promise: a counter ends at exactly the acknowledged raises, and each key's history is linearizable."""
MOST_UNKNOWN = 1_000_000
"""Above such a total of unknown raises, which sums they can make is not worked out."""
AFTER_ALL = 1 << 63
"""The moment of the aftermath."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What one acknowledged operation says of the counter's line."""

    start: int
    end: int
    called: int
    returned: int
    operation: Operation | None
    """None: what was found at the end."""

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands in the order of the line; reads of one value in the order of their calls."""
        return self.start, self.end, self.called

    def __str__(self) -> str:
        if self.operation is None:
            return f"the end at {self.end:,}"
        return f"a read of {self.end:,}" if self.operation.op == GET else f"a raise to {self.end:,}"


@dataclass(frozen=True, slots=True)
class _Counter:
    name: str
    marks: list[_Mark]
    """In the order of the line."""
    unknown: list[Operation]
    """Raises that may have happened, in the order of their calls."""


_Finding: TypeAlias = tuple[str, tuple[_Mark, ...]]


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge each counter alone; of each, one violation is told: whatever follows may follow from it."""
    operations: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in history.of(RAISE, GET, family=COUNTER):
        operations[operation.address, operation.key].append(operation)
    skipped = unsettled(history)
    checked = undecided = 0
    violations: list[Violation] = []
    for (address, key), told in operations.items():
        if address in skipped:
            continue
        counter = _counter(f"{key} at {address}", told, _ending(aftermath, address, key))
        checked += len(counter.marks)
        undecided += not _is_small(counter)
        finding = _impossible(counter) or _overlap(counter) or _disorder(counter) or _gap(counter)
        if finding:
            text, marks = finding
            violations.append(Violation(check=CHECK, promise=EXACT, text=text, stretch=_stretch(marks)))
    return Verdict(
        check=CHECK,
        checked={EXACT: checked},
        violations=tuple(violations),
        undecided=undecided,
        notes=left_out(skipped, {address for address, _ in operations}),
    )


def _ending(aftermath: Aftermath, address: str, key: str) -> list[_Mark]:
    """Return the last read; nothing where the address could not be read, which is another checker's matter."""
    if address not in aftermath.contents:
        return []
    text, _ = aftermath.contents[address].get(key, (None, 0))
    value = _number(text)
    return [_Mark(value, value, AFTER_ALL, AFTER_ALL, None)]


def _counter(name: str, operations: list[Operation], ending: list[_Mark]) -> _Counter:
    marks = [_mark(operation) for operation in operations if operation.outcome == OK] + ending
    unknown = [operation for operation in operations if operation.op == RAISE and operation.outcome not in (OK, FAILED)]
    return _Counter(name, sorted(marks, key=lambda mark: mark.place), unknown)


def _mark(operation: Operation) -> _Mark:
    assert operation.returned_ns is not None
    end = _number(operation.result)
    start = end - operation.argument if operation.op == RAISE else end
    return _Mark(start, end, operation.called_ns, operation.returned_ns, operation)


def _number(text: object) -> int:
    """Return a counter's value; absent is 0, and what is no number is -1, which no counter can be."""
    try:
        return 0 if text is None else int(str(text))
    except ValueError:
        return -1


def _impossible(counter: _Counter) -> _Finding | None:
    for mark in counter.marks:
        if mark.start < 0:
            return f"{counter.name} was never below 0 or no number, yet {mark} was seen", (mark,)
    return None


def _overlap(counter: _Counter) -> _Finding | None:
    """Find two that covered the same stretch: the one behind stands before the end of the one that reaches furthest."""
    furthest: _Mark | None = None
    for mark in counter.marks:
        if furthest and mark.start < furthest.end:
            return f"{counter.name}: {furthest} and {mark} overlap, so one of them was lost", (furthest, mark)
        if not furthest or mark.end > furthest.end:
            furthest = mark
    return None


def _disorder(counter: _Counter) -> _Finding | None:
    """Find one that was called after another, further along the line, had returned."""
    latest: _Mark | None = None
    for mark in counter.marks:
        if latest and mark.returned < latest.called:
            return f"{counter.name}: {latest} came after {mark} had been acknowledged", (mark, latest)
        if not latest or mark.called > latest.called:
            latest = mark
    return None


def _gap(counter: _Counter) -> _Finding | None:
    """Find a gap that no raises of unknown outcome can have filled in time.

    Those before a mark happened by the time that it, or any further along the line, had returned. Which sums they can
    make is a set of numbers, kept as the bits of one.
    """
    if not _is_small(counter):
        return None
    times = list(accumulate((mark.returned for mark in reversed(counter.marks)), min))[::-1]
    waiting = iter([*counter.unknown, None])
    upcoming = next(waiting)
    sums, owed = 1, 0
    origin = _Mark(0, 0, 0, 0, None)
    for (before, mark), time in zip(pairwise([origin, *counter.marks]), times, strict=True):
        owed += max(0, mark.start - before.end)
        while upcoming and upcoming.called_ns <= time:
            sums |= sums << upcoming.argument
            upcoming = next(waiting)
        if not sums >> owed & 1:
            text = f"{counter.name}: {mark}, which the raises that may have happened by then do not add up to"
            return text, (mark,) if before is origin else (before, mark)
    return None


def _is_small(counter: _Counter) -> bool:
    total: int = sum(operation.argument for operation in counter.unknown)
    return total <= MOST_UNKNOWN


def _stretch(marks: tuple[_Mark, ...]) -> tuple[Operation, ...]:
    operations = [mark.operation for mark in marks if mark.operation is not None]
    return tuple(sorted(operations, key=lambda operation: operation.called_ns))

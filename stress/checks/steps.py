"""What each operation on one register says: the state it needs, the state it leaves, and when it can have happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from ..history import CAS, DELETE, FAILED, GET, OK, SET, Operation

NEVER: Final = 1 << 63
"""The return of what never returned, and the moment of the aftermath: later than every moment of a run."""


class Special(Enum):
    """States and effects that are no value."""

    SAME = "leaves the state as it is"
    OTHER = "a value that nobody of those looked at asks for"
    BEFORE = "whatever those not looked at had written before"


State: TypeAlias = str | Special | None
"""None: the key is absent."""
Need: TypeAlias = Literal["any", "is", "not"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Step:
    """One operation as a change of state, at one instant from `called` to `returned`."""

    called: int
    returned: int
    need: Need = "any"
    value: State = None
    """What the state must be, or must not be."""
    gives: State = Special.SAME
    is_certain: bool = True
    """False: it may have happened at some time after its call, or never."""
    operation: Operation | None = None
    """None: what was found in the aftermath, a last read."""
    seen_by: Step | None = None
    """Whose answer shows that it happened, though it never said so."""

    @property
    def is_write(self) -> bool:
        return self.gives is not Special.SAME

    def fits(self, state: State, loose: Mapping[State, frozenset[State]]) -> bool:
        """Return whether it can be the next; `loose` tells of states that may be any of several values."""
        if self.need == "any":
            return True
        if state in loose:
            return self.need == "not" or self.value in loose[state]
        return (state == self.value) is (self.need == "is")


def steps_of(operations: Iterable[Operation], ending: Sequence[State] = ()) -> list[Step]:
    """Return the steps that one register's operations were or may have been; `ending` is its last state, if known.

    What failed did nothing, and reads without an answer say nothing: both are left out. A write that never said it
    was done, of a value that was seen and that nobody else wrote, was done before the first who saw it returned.
    """
    steps = [step for operation in operations if (step := _step(operation))]
    steps += [Step(called=NEVER, returned=NEVER, need="is", value=value) for value in ending]
    seen = _first_seen(steps)
    writers: dict[State, list[Step]] = defaultdict(list)
    for step in steps:
        if step.gives is not None and step.is_write:
            writers[step.gives].append(step)
    settled: dict[Step, Step] = {}
    waiting = list(seen)
    while waiting:
        value = waiting.pop()
        if len(writers[value]) != 1 or writers[value][0].is_certain:
            continue
        (writer,) = writers[value]
        settled[writer] = _seen(writer, seen[value])
        if writer.need == "is" and writer.value is not None:  # what it replaced, it saw
            before = seen.get(writer.value)
            if before is None or settled[writer].returned < before.returned:
                seen[writer.value] = settled[writer]
                waiting.append(writer.value)
    return [settled.get(step, step) for step in steps]


def _step(operation: Operation) -> Step | None:
    is_certain = operation.outcome == OK
    if operation.outcome == FAILED or (operation.op == GET and not is_certain):
        return None
    need, value, gives = _change(operation, is_certain=is_certain)
    return Step(
        called=operation.called_ns,
        returned=operation.returned_ns if is_certain and operation.returned_ns is not None else NEVER,
        need=need,
        value=value,
        gives=gives,
        is_certain=is_certain,
        operation=operation,
    )


def _change(operation: Operation, *, is_certain: bool) -> tuple[Need, State, State]:
    """Return what an operation needs of the state, the value it compares with, and what it gives."""
    if operation.op == GET:
        return "is", operation.result, Special.SAME
    if operation.op == SET:
        return "any", None, operation.argument
    if operation.op == DELETE:
        if not is_certain:
            return "any", None, None
        return ("not", None, None) if operation.result else ("is", None, Special.SAME)
    assert operation.op == CAS, operation.op
    expected, value = operation.argument
    if is_certain and not operation.result:
        return "not", expected, Special.SAME
    return "is", expected, value


def _first_seen(steps: list[Step]) -> dict[State, Step]:
    """Return, of each value, who saw it and returned first."""
    seen: dict[State, Step] = {}
    for step in steps:
        if step.is_certain and step.need == "is" and step.value is not None:
            before = seen.get(step.value)
            if before is None or step.returned < before.returned:
                seen[step.value] = step
    return seen


def _seen(writer: Step, seer: Step) -> Step:
    return Step(
        called=writer.called,
        returned=seer.returned,
        need=writer.need,
        value=writer.value,
        gives=writer.gives,
        operation=writer.operation,
        seen_by=seer,
    )

"""A copied address appears whole: its two marks are equal, and are what the source had while it was copied."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import COPY, FAILED, MARK, OK, RENAME, TRANSACT
from .moments import NEVER, over_ns
from .moves import Moves, target_of
from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "copies"
KEPT, WHOLE, AT_ONE_INSTANT = 1, 3, 27


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge every copy by what was read at its target, and by what lies everywhere at the end."""
    tally = Tally(CHECK)
    written: dict[str, Operation] = {}
    at: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.of(TRANSACT, family=MARK):
        if operation.outcome != FAILED:
            written[operation.argument[operation.key]] = operation
            at[operation.address].append(operation)
    moves = Moves(history)
    for copy in history.of(COPY):
        if copy.outcome == OK:
            _judge(copy, written, at[copy.address], moves, tally)
            _judge_copy_at_end(copy, aftermath, tally)
    for rename in history.of(RENAME):
        if rename.outcome == OK:
            before = _marked(at[rename.address], moves, rename.address, rename.called_ns, rename.called_ns - 1)
            _judge_end(target_of(rename), before, rename, aftermath, tally)
    for address, marks_there in at.items():
        _judge_end(address, _marked(marks_there, moves, address, NEVER, NEVER), None, aftermath, tally)
    for address, found in aftermath.contents.items():
        marks = {key: value for key, (value, _) in found.items() if key.startswith(f"{MARK}.")}
        tally.count(WHOLE, bool(marks))
        if marks and (len(marks) != 2 or len(set(marks.values())) != 1):
            tally.violate(WHOLE, f"{address} has half a mark at the end: {marks}")
    return tally.verdict()


def _marked(marks: list[Operation], moves: Moves, address: str, by_ns: int, until_ns: int) -> Operation | None:
    """Return a mark that was acknowledged by then at an address that nothing replaced from there until the end."""
    for write in reversed(marks):
        if write.outcome == OK and write.returned_ns is not None and write.returned_ns <= by_ns:
            return None if moves.between(address, write.called_ns, until_ns) else write
    return None


def _judge_copy_at_end(copy: Operation, aftermath: Aftermath, tally: Tally) -> None:
    """Nobody touches a copy once it was made: at the end it has what was read there then."""
    there = aftermath.contents.get(copy.argument["target"])
    if there is None:
        return  # where it went is for the check of the registry
    tally.count(KEPT)
    for key, value in copy.result["marks"].items():
        if there.get(key, (None, 0))[0] != value:
            tally.violate(
                KEPT, f"{copy.argument['target']} no longer has the mark that was read when it was made", copy
            )
            return


def _judge_end(
    address: str, write: Operation | None, rename: Operation | None, aftermath: Aftermath, tally: Tally
) -> None:
    """A mark that was made, and carried along by a renaming, is there at the end, or a later one."""
    if write is None or address not in aftermath.contents:
        return
    tally.count(KEPT)
    if not any(key.startswith(f"{MARK}.") for key in aftermath.contents[address]):
        shown = [write] if rename is None else [write, rename]
        tally.violate(KEPT, f"{address} has no mark at the end, though one was acknowledged there", *shown)


def _judge(
    copy: Operation, written: dict[str, Operation], at_source: list[Operation], moves: Moves, tally: Tally
) -> None:
    found = set(copy.result["marks"].values())
    target = copy.argument["target"]
    tally.count(WHOLE)
    if len(found) != 1:
        tally.violate(WHOLE, f"{target} was copied from {copy.address} with half a mark", copy)
        return
    (value,) = found
    if value is None:
        write = _marked(at_source, moves, copy.address, copy.called_ns, over_ns(copy))
        if write is not None:  # else the source may have been made anew in the meantime: nothing is certain
            tally.count(AT_ONE_INSTANT)
            text = f"{target} has no mark, though {copy.address} had one before the copying began"
            tally.violate(AT_ONE_INSTANT, text, write, copy)
        return
    tally.count(AT_ONE_INSTANT)
    write = written.get(value)
    if write is None:
        tally.violate(AT_ONE_INSTANT, f"{target} has a mark that nobody wrote: {value}", copy)
    elif copy.returned_ns is not None and write.called_ns > copy.returned_ns:
        tally.violate(AT_ONE_INSTANT, f"{target} has a mark that was written after it was copied", copy, write)
    elif (other := _replaced_before(copy, write, at_source)) is not None:
        text = f"{target} has a mark that {copy.address} no longer had when the copying began"
        tally.violate(AT_ONE_INSTANT, text, write, other, copy)


def _replaced_before(copy: Operation, write: Operation, at_source: list[Operation]) -> Operation | None:
    """Return a mark that had surely taken this one's place before the copying began."""
    if write.returned_ns is None:
        return None
    for other in at_source:
        is_over = other.outcome == OK and other.returned_ns is not None and other.returned_ns < copy.called_ns
        if is_over and write.returned_ns < other.called_ns:
            return other
    return None

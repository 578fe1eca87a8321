"""A copied address appears whole: its two marks are equal, and are what the source had while it was copied."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import COPY, FAILED, MARK, OK, TRANSACT
from ..verdict import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "copies"
WHOLE, AT_ONE_INSTANT = 3, 27


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge every copy by what was read at its target, and by what lies everywhere at the end."""
    written: dict[str, Operation] = {}
    at: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.of(TRANSACT, family=MARK):
        if operation.outcome != FAILED:
            written[operation.argument[operation.key]] = operation
            at[operation.address].append(operation)
    violations: list[Violation] = []
    copies = [operation for operation in history.of(COPY) if operation.outcome == OK]
    for copy in copies:
        violations += _judged(copy, written, at[copy.address])
    addresses = 0
    for address, found in aftermath.contents.items():
        marks = {key: value for key, (value, _) in found.items() if key.startswith(f"{MARK}.")}
        addresses += bool(marks)
        if marks and (len(marks) != 2 or len(set(marks.values())) != 1):
            violations.append(_violation(WHOLE, f"{address} has half a mark at the end: {marks}"))
    return Verdict(
        check=CHECK, checked={WHOLE: addresses + len(copies), AT_ONE_INSTANT: len(copies)}, violations=tuple(violations)
    )


def _judged(copy: Operation, written: dict[str, Operation], at_source: list[Operation]) -> Iterator[Violation]:
    found = set(copy.result["marks"].values())
    target = copy.argument["target"]
    if len(found) != 1:
        yield _violation(WHOLE, f"{target} was copied from {copy.address} with half a mark", copy)
        return
    (value,) = found
    if value is None:
        return  # the source may have been made anew in the meantime: nothing certain
    write = written.get(value)
    if write is None:
        yield _violation(AT_ONE_INSTANT, f"{target} has a mark that nobody wrote: {value}", copy)
    elif copy.returned_ns is not None and write.called_ns > copy.returned_ns:
        yield _violation(AT_ONE_INSTANT, f"{target} has a mark that was written after it was copied", copy, write)
    else:
        yield from _replaced_before(copy, write, at_source)


def _replaced_before(copy: Operation, write: Operation, at_source: list[Operation]) -> Iterator[Violation]:
    """Yield a violation when the mark had surely been replaced before the copying began."""
    for other in at_source:
        replaced = other.outcome == OK and other.returned_ns is not None and other.returned_ns < copy.called_ns
        if replaced and write.returned_ns is not None and write.returned_ns < other.called_ns:
            text = f"{copy.argument['target']} has a mark that {copy.address} no longer had when the copying began"
            yield _violation(AT_ONE_INSTANT, text, write, other, copy)
            return


def _violation(promise: int, text: str, *stretch: Operation) -> Violation:
    return Violation(check=CHECK, promise=promise, text=text, stretch=stretch)

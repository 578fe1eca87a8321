"""Transactions are whole: both halves of a pair are always of one transaction, that was begun and not refused.

Every transaction writes one value, of its own, to both keys of a pair; reads ask for both in one snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..history import FAILED, GET_MANY, OK, PAIR, TRANSACT
from ..verdict import Verdict, Violation
from .settled import left_out, unsettled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "transactions"
UNSEEN, WHOLE = 11, 3
"""The promises: nobody sees another's unfinished transaction, and afterwards all or nothing of each is there."""
AFTER_ALL = 1 << 63
"""The moment of the aftermath."""

_Writers: TypeAlias = dict[tuple[str, str, str], "Operation"]
"""Address, key and value: the transaction that wrote it, or tried to."""
_Halves: TypeAlias = dict[str, str | None]


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge every snapshot that was read, and the aftermath as a last one."""
    skipped = unsettled(history)
    writers: _Writers = {
        (operation.address, key, value): operation
        for operation in history.of(TRANSACT, family=PAIR)
        for key, value in operation.argument.items()
    }
    used = {address for address, _, _ in writers}
    checked = {UNSEEN: 0, WHOLE: 0}
    violations: list[Violation] = []

    def judge(promise: int, address: str, halves: _Halves, at_ns: int, *read: Operation) -> None:
        checked[promise] += 1
        if wrong := next(_wrongs(writers, address, halves, at_ns), None):
            text, stretch = wrong
            shown = sorted((*stretch, *read), key=lambda operation: operation.called_ns)
            violations.append(Violation(check=CHECK, promise=promise, text=text, stretch=tuple(shown)))

    for read in history.of(GET_MANY, family=PAIR):
        if read.outcome == OK and read.address not in skipped:
            assert read.returned_ns is not None
            for halves in _pairs(read.result):
                judge(UNSEEN, read.address, halves, read.returned_ns, read)
    for address in sorted(used & aftermath.contents.keys() - skipped):
        there = {key: value for key, (value, _) in aftermath.contents[address].items()}
        written = {key: there.get(key) for place, key, _ in writers if place == address}
        for halves in _pairs(written):
            judge(WHOLE, address, halves, AFTER_ALL)
    return Verdict(check=CHECK, checked=checked, violations=tuple(violations), notes=left_out(skipped, used))


def _pairs(values: _Halves) -> Iterator[_Halves]:
    """Yield each pair of which both halves are there to be compared."""
    pairs: dict[str, _Halves] = {}
    for key, value in sorted(values.items()):
        pairs.setdefault(key.rpartition(".")[0], {})[key] = value
    yield from (halves for halves in pairs.values() if len(halves) > 1)


def _wrongs(
    writers: _Writers, address: str, halves: _Halves, at_ns: int
) -> Iterator[tuple[str, tuple[Operation, ...]]]:
    """Yield what is wrong with one snapshot of one pair, the plainest first: a sentence, and whose transactions."""
    name = f"{next(iter(halves)).rpartition('.')[0]} at {address}"
    seen: list[Operation] = []
    for key, value in halves.items():
        if value is None:
            continue
        writer = writers.get((address, key, value))
        if writer is None:
            yield f"{name}: {key} had a value that no transaction wrote", ()
        elif writer.outcome == FAILED:
            yield f"{name}: {key} had the value of a transaction that said it failed", (writer,)
        elif writer.called_ns > at_ns:
            yield f"{name}: {key} had the value of a transaction that had not begun", (writer,)
        else:
            seen.append(writer)
    if len(set(halves.values())) > 1:
        yield f"{name} was torn: its halves were of different transactions", tuple(seen)

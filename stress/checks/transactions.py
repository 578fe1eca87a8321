"""Transactions are whole: both halves of a pair are always of one transaction, that was begun and not refused.

Every transaction writes one value, of its own, to both keys of a pair; reads ask for both in one snapshot. So a pair
that is whole is one register, and the search for registers says whether one was lost or read too late.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ..aftermath import Aftermath
from ..history import COPY, DROP, FAILED, GET, GET_MANY, OK, PAIR, REGISTER, RENAME, RESTORE, SET, TRANSACT, History
from ..verdict import Verdict, Violation
from . import registers
from .settled import left_out, unsettled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..history import Operation

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
    # What was torn is in no order, and told already.
    order = Verdict(check=CHECK) if violations else _in_order(history, aftermath)
    return Verdict(
        check=CHECK,
        checked={**checked, **order.checked},
        violations=(*violations, *(replace(one, check=CHECK) for one in order.violations)),
        undecided=order.undecided,
        notes=left_out(skipped, used),
    )


def _in_order(history: History, aftermath: Aftermath) -> Verdict:
    """Judge whole pairs as registers: none that was acknowledged is lost, none is read once another took its place."""
    torn: set[tuple[str, str]] = set()
    ends: dict[str, dict[str, tuple[str, int]]] = {}
    for address, contents in aftermath.contents.items():
        ends[address] = {}
        for halves in _pairs({key: value for key, (value, _) in contents.items() if key.startswith(f"{PAIR}.")}):
            name = _register(next(iter(halves)))
            (value, *others) = set(halves.values())
            if others or value is None:
                torn.add((address, name))
            else:
                ends[address][name] = (value, 0)
    told = [one for one in _as_registers(history) if (one.address, one.key) not in torn]
    return registers.check(History(operations=told), Aftermath(contents=ends))


def _as_registers(history: History) -> Iterator[Operation]:
    for one in history.operations:
        if one.op == TRANSACT and one.family == PAIR:
            yield replace(one, op=SET, key=_register(one.key), argument=one.argument[one.key])
        elif one.op == GET_MANY and one.family == PAIR and one.outcome == OK:
            for halves in _pairs(one.result):
                if len(set(halves.values())) == 1:
                    key, value = next(iter(halves.items()))
                    yield replace(one, op=GET, key=_register(key), argument=None, result=value)
        elif one.op in (DROP, RENAME, RESTORE, COPY):
            yield one  # they say which addresses are not judged


def _register(key: str) -> str:
    return f"{REGISTER}.{key.rpartition('.')[0]}"


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

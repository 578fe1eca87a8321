"""An address is there or not, and everybody agrees on it: creating and deleting are linearizable per address.

Whether an address exists is a register: creating is a compare-and-set from nothing, deleting and renaming delete, a
session that found no address read nothing, one that was let in read something. So the search for registers judges it
(`registers.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..aftermath import Aftermath
from ..history import (
    CAS,
    CREATE,
    DELETE,
    DROP,
    FAILED,
    GET,
    OK,
    OPEN,
    OPENED,
    REGISTER,
    RENAME,
    UNKNOWN,
    History,
    Operation,
)
from ..verdict import Verdict
from . import registers

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECK = "lifecycle"
PROMISE = 24
ABSENT = "AddressNotFoundError"
KEY = f"{REGISTER}.exists"


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge who made and deleted which address, and who found it there."""
    pool = {operation.address for operation in history.of(CREATE, DROP)}
    as_register = [
        told for operation in history.operations if operation.address in pool for told in _as_register(operation)
    ]
    as_register += [_at_the_end(address, history, aftermath) for address in sorted(pool)]
    judged = registers.check(History(operations=as_register), Aftermath())
    times = sum(judged.checked.values())
    violations = tuple(
        replace(one, check=CHECK, promise=PROMISE, text=f"who made and deleted it cannot be put in order: {one.text}")
        for one in judged.violations
    )
    return replace(judged, check=CHECK, checked={PROMISE: times}, violations=violations)


def _at_the_end(address: str, history: History, aftermath: Aftermath) -> Operation:
    """Return the last look at an address as an operation."""
    after_ns = max((one.returned_ns or one.called_ns for one in history.operations), default=0) + 1
    looked = Operation(
        process="aftermath-1",
        number=0,
        op=GET,
        address=address,
        session="",
        key=KEY,
        argument=None,
        called_ns=after_ns,
        returned_ns=after_ns + 1,
        outcome=OK,
    )
    if address in aftermath.folders:
        looked.op, looked.argument, looked.result = CAS, [None, "aftermath"], False
    return looked


def _as_register(operation: Operation) -> Iterator[Operation]:
    """Yield what an operation says about whether its address exists; nothing, where it says nothing."""
    value = f"{operation.process}:{operation.number}"
    happened = operation.outcome in (OK, UNKNOWN, OPENED)
    if operation.outcome == FAILED and operation.error == ABSENT:
        yield replace(operation, op=GET, key=KEY, argument=None, outcome=OK, result=None, error="")
    elif operation.op == CREATE and happened:
        yield replace(operation, op=CAS, key=KEY, argument=[None, value])
    elif operation.op == DROP and happened:
        yield replace(operation, op=DELETE, key=KEY, argument=None)
    elif operation.op == RENAME and happened:
        result = True if operation.outcome == OK else None
        yield replace(operation, op=DELETE, key=KEY, argument=None, result=result)
    elif operation.op == OPEN and operation.outcome == OK:
        # It was there: a compare-and-set from nothing would have failed.
        yield replace(operation, op=CAS, key=KEY, argument=[None, value], result=False)

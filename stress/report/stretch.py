"""A stretch of history as lines that can be read: when, who, what, of what, how long, how it ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..history import CLOSE, EVICT, OPEN, OPENED
from .units import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..history import Operation

MAX_LINES = 120
"""A checker returns the shortest stretch it can; what is longer than this nobody reads to the end."""
MAX_VALUE = 60
_SESSION_LETTERS = 12


def stretch_lines(operations: Sequence[Operation]) -> list[str]:
    """Return one line for each operation, in aligned columns: milliseconds since the first call and until the return,
    process, operation, its place, what it was given and what it returned, how it ended."""
    shown, left_out = _ends_of(operations)
    began_ns = min((operation.called_ns for operation in shown), default=0)
    has_addresses = len({operation.address for operation in shown}) > 1 or any(not op.key for op in shown)
    has_sessions = any(operation.op in (OPEN, CLOSE, EVICT) for operation in shown)
    rows = [_row(operation, began_ns, has_addresses, has_sessions) for operation in shown]
    lines = _aligned(rows)
    if left_out:
        lines.insert(MAX_LINES // 2, f"... {left_out:,} more operations ...")
    return lines


def _ends_of(operations: Sequence[Operation]) -> tuple[list[Operation], int]:
    """Return the operations, or the first and last of too many, and how many are left out."""
    if len(operations) <= MAX_LINES:
        return list(operations), 0
    half = MAX_LINES // 2
    return [*operations[:half], *operations[-half:]], len(operations) - 2 * half


def _row(operation: Operation, began_ns: int, has_addresses: bool, has_sessions: bool) -> list[str]:
    returned_ns = operation.returned_ns
    return [
        f"{(operation.called_ns - began_ns) / 1e6:.3f}",
        ".. ?" if returned_ns is None else f".. {(returned_ns - began_ns) / 1e6:.3f} ms",
        clean(operation.process),
        *([clean(operation.session[:_SESSION_LETTERS])] if has_sessions else []),
        *([clean(operation.address)] if has_addresses else []),
        clean(operation.op),
        clean(operation.key),
        _given_and_got(operation),
        "never returned" if operation.outcome == OPENED else clean(f"{operation.outcome} {operation.error}".rstrip()),
    ]


def _given_and_got(operation: Operation) -> str:
    given = "" if operation.argument is None else _value(operation.argument)
    # A read that found nothing says so; a call that failed returned nothing at all.
    got = _value(operation.result) if operation.outcome == "ok" else ""
    return f"{given} -> {got}".strip() if got else given


def _value(value: object) -> str:
    text = clean(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def _aligned(rows: list[list[str]]) -> list[str]:
    """Return the rows with their columns under each other, the first one, which is a figure, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True) if width]
        lines.append("  ".join([first.rjust(widths[0]), *cells]).rstrip())
    return lines

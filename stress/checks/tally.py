"""What a checker writes down while it goes through a history; its verdict at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..verdict import Verdict, Violation

if TYPE_CHECKING:
    from ..history import Operation


class Tally:
    """Counts what one checker put to the test, and keeps what it found."""

    def __init__(self, check: str) -> None:
        self.check = check
        self._checked: Counter[int] = Counter()
        self._violations: list[Violation] = []

    def count(self, promise: int, times: int = 1) -> None:
        """Count that a promise was put to the test."""
        self._checked[promise] += times

    def violate(self, promise: int, text: str, *stretch: Operation) -> None:
        """Write a violation down; the operations that show it may come in any order, and twice."""
        shown = {(operation.process, operation.number): operation for operation in stretch}
        in_order = tuple(sorted(shown.values(), key=lambda operation: operation.called_ns))
        self._violations.append(Violation(check=self.check, promise=promise, text=text, stretch=in_order))

    def verdict(self, *notes: str) -> Verdict:
        """Return what there is."""
        checked = dict(sorted(self._checked.items()))
        return Verdict(check=self.check, checked=checked, violations=tuple(self._violations), notes=notes)


def milliseconds(ns: int) -> str:
    """Return a duration as people read it."""
    return f"{ns / 1_000_000:,.1f} ms"

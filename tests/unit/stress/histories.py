"""Small histories written by hand: each operation comes after the one before, unless its moments are given."""

from __future__ import annotations

from typing import Any

from stress.aftermath import Aftermath
from stress.history import OK, OPENED, History, Operation
from stress.verdict import Verdict

HALL = "hall/shared"


class Story:
    """Operations told one after the other; `history()` has them in the order of their calls.

    Told without moments, each operation begins after the last one told has returned. Operations that are concurrent
    are told with `at=(called, returned)`.
    """

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._numbers: dict[str, int] = {}
        self._now = 0

    def told(
        self,
        op: str,
        key: str = "",
        argument: Any = None,
        result: Any = None,
        *,
        outcome: str = OK,
        at: tuple[int, int] | None = None,
        by: str = "agent01-1",
        address: str = HALL,
        session: str = "",
        error: str = "",
    ) -> Operation:
        """Add one operation and return it. With outcome `OPENED` it has no return, whatever `at` says."""
        called, returned = at or (self._now + 10, self._now + 20)
        self._now = max(self._now, called, returned)
        self._numbers[by] = self._numbers.get(by, 0) + 1
        operation = Operation(
            process=by,
            number=self._numbers[by],
            op=op,
            address=address,
            session=session,
            key=key,
            argument=argument,
            called_ns=called,
            returned_ns=None if outcome == OPENED else returned,
            outcome=outcome,
            result=result,
            error=error,
        )
        self._operations.append(operation)
        return operation

    def history(self) -> History:
        """Return what was told."""
        operations = sorted(self._operations, key=lambda operation: (operation.called_ns, operation.process))
        return History(operations=operations, ended_ns=self._now + 10)


def found(contents: dict[str, str] | None = None, address: str = HALL, **others: Any) -> Aftermath:
    """Return an aftermath in which one address holds these entries."""
    entries = {key: (value, number) for number, (key, value) in enumerate((contents or {}).items(), 1)}
    return Aftermath(contents={address: entries}, **others)


def stretches(verdict: Verdict) -> list[tuple[Operation, ...]]:
    """Return the stretch of each violation."""
    return [violation.stretch for violation in verdict.violations]


def texts(verdict: Verdict) -> list[str]:
    """Return the sentence of each violation."""
    return [violation.text for violation in verdict.violations]

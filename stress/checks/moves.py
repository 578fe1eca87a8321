"""Where a keystore was replaced as a whole, or filled from elsewhere: what was said of it before says nothing after."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import COPY, DROP, FAILED, MIGRATE, RENAME, RESTORE
from .moments import NEVER, over_ns

if TYPE_CHECKING:
    from ..history import History, Operation

EVERYWHERE = ""


class Moves:
    """All deletions, renamings, restores, copies and migrations of a history, by the addresses they change."""

    def __init__(self, history: History) -> None:
        spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for operation in history.of(DROP, RENAME, RESTORE, COPY, MIGRATE):
            if operation.outcome != FAILED:
                for address in _replaced_by(operation):
                    spans[address].append((operation.called_ns, over_ns(operation)))
        self._spans = {address: sorted(each) for address, each in spans.items()}
        # The latest end among all that began so far: one search tells whether any span reaches into an interval.
        self._reach = {address: _running_maximum([until for _, until in each]) for address, each in self._spans.items()}

    def between(self, address: str, from_ns: int, until_ns: int) -> bool:
        """True when the keystore of an address may have been replaced in this time."""
        return any(self._touches(place, from_ns, until_ns) for place in (address, EVERYWHERE))

    def _touches(self, address: str, from_ns: int, until_ns: int) -> bool:
        begun = bisect_left(self._spans.get(address, ()), (until_ns, NEVER))
        return begun > 0 and self._reach[address][begun - 1] >= from_ns


def target_of(operation: Operation) -> str:
    """Return the address that a copy or a renaming leads to; '' when it names none."""
    argument = operation.argument
    return str(argument.get("target") or "") if isinstance(argument, dict) else ""


def changed_by(operation: Operation) -> set[str]:
    """Return the addresses whose contents an operation replaces or adds to; none where it restores to another root."""
    if is_elsewhere(operation):
        return set()
    if operation.op == COPY:
        return {target_of(operation)}
    if operation.op == RENAME:
        return {operation.address, target_of(operation)}
    return {target_of(operation) or operation.address}


def is_elsewhere(operation: Operation) -> bool:
    """True for what changes another root than the one that is judged."""
    return operation.op == RESTORE and isinstance(operation.argument, dict) and "into" in operation.argument


def _replaced_by(operation: Operation) -> set[str]:
    """Return the addresses of an operation; of an import those that its source has, where it says so."""
    if operation.op == MIGRATE and isinstance(operation.argument, dict) and "targets" in operation.argument:
        return set(operation.argument["targets"])
    return changed_by(operation)


def _running_maximum(moments: list[int]) -> list[int]:
    highest, found = 0, []
    for moment in moments:
        highest = max(highest, moment)
        found.append(highest)
    return found

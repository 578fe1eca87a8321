"""Every operation ends in success or in a typed error, and no error comes without something that explains it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prontodb import errors

from ..history import CREATE, DROP, EVICT, RENAME, RESTORE
from .registry import Fate, fates
from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "errors"
PROMISE = 44
SHOWN = 5
"""So many operations of each error are shown; the rest is counted."""
CANCELLED = "Cancelled"
NOT_FOUND = "AddressNotFoundError"

ALWAYS = frozenset(
    {"AddressBusyError", "BusyError", "ConflictError", "RevisionConflictError", "WaitTimeoutError", CANCELLED}
)
"""What agents that share an address bring about themselves."""
EXPLAINED_BY: dict[str, frozenset[str]] = {
    # A stop, a kill, a lost registry put nobody out that lives: a session is lost by force, or with its lock file.
    "FencedError": frozenset({"takeover", "locks", EVICT}),
    "SessionNotFoundError": frozenset({"takeover", EVICT}),
    "StorageFullError": frozenset({"full-disk"}),
    # Deadlines go on while a process is stopped: its commit may be done, and the answer too late.
    "OutcomeUnknownError": frozenset({"failing-writes", "full-disk", "read-only", "stop"}),
    "UnavailableError": frozenset({"failing-writes", "full-disk", "read-only"}),
    "ReadOnlyError": frozenset({"read-only"}),
    "ClosedError": frozenset({"cancel"}),
    "AddressNotFoundError": frozenset({DROP, RENAME, CREATE}),
    "AddressGoneError": frozenset({DROP, RENAME, RESTORE}),
    "AddressExistsError": frozenset({DROP, RENAME, CREATE}),
}
"""Error to the faults and operations one of which must have begun before. What stands nowhere is never explained."""


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check each error that an operation raised: is it ours, and is there a reason for it?"""
    tally, begun, more, made = Tally(CHECK), _begun(history), Counter[str](), fates(history)
    explained = _explained(aftermath)
    found: Counter[str] = Counter()
    for operation in history.operations:
        if operation.returned_ns is None:
            continue
        tally.count(PROMISE)
        fault = _what_is_wrong(operation, begun, explained)
        if fault is None or _was_never_made(operation, made):
            continue
        found[operation.error] += 1
        if found[operation.error] > SHOWN:
            more[operation.error] += 1
        else:
            place = f" at {operation.address}" if operation.address else ""
            tally.violate(PROMISE, f"a {operation.op} of {operation.process}{place} raised {fault}", operation)
    return tally.verdict(*(f"{error}: {count:,} more like those shown" for error, count in sorted(more.items())))


def _what_is_wrong(operation: Operation, begun: dict[str, int], explained: dict[str, list[str]]) -> str | None:
    error = operation.error
    if not error or error in ALWAYS:
        return None
    if not _is_typed(error):
        return f"{error}, which is no error of ProntoDB"
    reasons = {*EXPLAINED_BY.get(error, ()), *explained.get(error, ())}
    ended_ns = operation.returned_ns or 0
    if any(reason in begun and begun[reason] <= ended_ns for reason in reasons):
        return None
    if not reasons:
        return f"{error}, which nothing explains"
    return f"{error}, though none of what explains it had happened: {', '.join(sorted(reasons))}"


def _was_never_made(operation: Operation, made: dict[str, Fate]) -> bool:
    """Return whether an address was rightly not found: nobody had begun to make it by then."""
    if operation.error != NOT_FOUND:
        return False
    makers = made[operation.address].made if operation.address in made else []
    return all(maker.called_ns > (operation.returned_ns or 0) for maker in makers)


def _is_typed(error: str) -> bool:
    kind = getattr(errors, error, None)
    return isinstance(kind, type) and issubclass(kind, errors.ProntoError)


def _begun(history: History) -> dict[str, int]:
    """When each kind of fault and of operation first began."""
    found: dict[str, int] = {}
    for name, at_ns in (
        *((fault.name, fault.at_ns) for fault in history.faults),
        *((operation.op, operation.called_ns) for operation in history.operations),
    ):
        found[name] = min(at_ns, found.get(name, at_ns))
    return found


def _explained(aftermath: Aftermath) -> dict[str, list[str]]:
    """What the faults of the run themselves say that they bring about."""
    found = aftermath.facts.get("explained")
    return found if isinstance(found, dict) else {}

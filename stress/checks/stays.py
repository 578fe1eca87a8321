"""Sessions as the history tells of them: who opened one, when it was left, when it was taken away."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..history import CLOSE, EVICT, OK, OPEN

if TYPE_CHECKING:
    from ..history import History, Operation

EXCLUSIVE, SHARED = "exclusive", "shared"


@dataclass(slots=True, kw_only=True)
class Stay:
    """One session that was opened with acknowledgement."""

    session: str
    opened: Operation
    opened_ns: int
    """When the opening returned."""
    last: Operation
    """The last operation in it."""
    closed: Operation | None = None
    evictions: list[Operation] = field(default_factory=list)
    """Calls to end it by force, whatever came of them."""

    @property
    def address(self) -> str:
        """Where it is."""
        return self.opened.address

    @property
    def mode(self) -> str:
        """Its mode."""
        return str(self.opened.argument.get("mode", EXCLUSIVE)) if self.opened.argument else EXCLUSIVE

    @property
    def is_exclusive(self) -> bool:
        """True when nobody may be beside it."""
        return self.mode == EXCLUSIVE

    @property
    def epoch(self) -> int | None:
        """The epoch it was told; None: it has none of its own."""
        epoch = self.opened.result.get("epoch")
        return epoch if isinstance(epoch, int) else None

    @property
    def seen_ns(self) -> int:
        """When it was last heard of."""
        return last_event_ns(self.last)


def stays(history: History) -> dict[str, Stay]:
    """Return all sessions that wrote or could write, by id, in the order of the calls that opened them."""
    found: dict[str, Stay] = {}
    for opened in history.of(OPEN):
        if opened.outcome == OK and opened.returned_ns is not None:
            session = opened.result["session"]
            stay = Stay(session=session, opened=opened, opened_ns=opened.returned_ns, last=opened)
            if stay.mode in (EXCLUSIVE, SHARED):
                found[session] = stay
    for operation in history.operations:
        known = found.get(operation.session)
        if known is None or operation.op == OPEN:
            continue
        if operation.op == EVICT:
            known.evictions.append(operation)
        elif operation.op == CLOSE:
            known.closed = known.closed or operation
        elif last_event_ns(operation) > known.seen_ns:
            known.last = operation
    return found


def last_event_ns(operation: Operation) -> int:
    """Return when its return was recorded, or else its call."""
    return operation.called_ns if operation.returned_ns is None else operation.returned_ns

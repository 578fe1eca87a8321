"""Anchors: places in a keystore's history that are kept outside of it, so that a change of what lies before shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prontodb.model.address import Address
    from prontodb.model.history import Mark

MOST = 16
"""Anchors kept of one address."""
NEWEST = 4
"""Of those, as many are the last ones; the others are spread over what came before."""

RESTORED, VERIFIED, ACCEPTED = "restored", "verified", "accepted"
"""What else than a session's end leaves an anchor."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the history of the keystore at an address stood. `by`: the session that ended then, or what was done."""

    address: Address
    mark: Mark
    at_ms: int
    by: str


def to_drop(marks: Sequence[Mark]) -> int | None:
    """Return which of an address's anchors, the oldest first, goes for want of room; None while there is enough.

    The one that lies closest between its neighbours, measured by how far back it lies: the older, the sparser. The
    oldest goes last, since it vouches for the most.
    """
    if len(marks) <= MOST:
        return None
    newest = marks[-1].revision

    def closeness(number: int) -> float:
        before, here, after = marks[number - 1 : number + 2]
        if not before.incarnation == here.incarnation == after.incarnation:
            return float("inf")
        return (after.revision - before.revision) / (abs(newest - here.revision) + 1)

    chosen = min(range(1, len(marks) - NEWEST), key=closeness)
    return 0 if closeness(chosen) == float("inf") else chosen

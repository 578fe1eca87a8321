"""Whether the wall clock is to be believed before anything is deleted by it (promise 19).

It is compared with the clock that counts from the boot: since both were noted last, as much must have passed by each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from prontodb.model import strict_json

MAX_DIFFERENCE_S = 300.0
MAX_NUMBER = 2**53
"""No clock of ours comes near; past it, seconds and milliseconds no longer add up."""
BELIEVED_AFTER_S = 86_400.0
"""A clock that was set, and has stood by it for a day, is right: somebody meant it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What both clocks said at one instant of one boot; `doubted_at_s`: since when they disagree with it."""

    boot: str
    wall_ms: int
    boottime_s: float
    doubted_at_s: float | None = None
    doubted_wall_ms: int | None = None

    def encode(self) -> str:
        """Return the reference as a note."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str | None) -> Reference | None:
        """Return the reference in a note; None for one that we did not write."""
        try:
            found = strict_json.loads(text or "")
            if not isinstance(found, dict):
                return None
            reference = cls(**found)
            numbers = (reference.wall_ms, reference.boottime_s)
            optional = (reference.doubted_at_s, reference.doubted_wall_ms)
            present = [*numbers, *(number for number in optional if number is not None)]
            sound = all(type(number) in (int, float) and abs(number) < MAX_NUMBER for number in present)
        except (ValueError, TypeError):
            return None
        return reference if sound and isinstance(reference.boot, str) else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """`doubt` says why the wall clock is not believed, None when it is; `reference` is to be kept for the next time."""

    doubt: str | None
    reference: Reference


def judge(before: Reference | None, boot: str, wall_ms: int, boottime_s: float) -> Judgement:
    """Compare the clocks with what they said before. After a boot there is nothing to compare with."""
    now = Reference(boot, wall_ms, boottime_s)
    if before is None or before.boot != boot or boottime_s < before.boottime_s:
        return Judgement(None, now)
    ahead_s = _ahead_s(before.wall_ms, before.boottime_s, now)
    if abs(ahead_s) <= MAX_DIFFERENCE_S:
        return Judgement(None, now)
    since_s, since_wall_ms = before.doubted_at_s, before.doubted_wall_ms
    if since_s is None or since_wall_ms is None or abs(_ahead_s(since_wall_ms, since_s, now)) > MAX_DIFFERENCE_S:
        since_s, since_wall_ms = boottime_s, wall_ms  # set just now, or set once more
    elif boottime_s - since_s >= BELIEVED_AFTER_S:
        return Judgement(None, now)
    doubt = (
        f"the wall clock was set {_told(abs(ahead_s))} {'forward' if ahead_s > 0 else 'back'}: nothing is swept until "
        "it is set right or has stood by it for a day; if it is right now: prontodb jobs once sweep --trust-clock"
    )
    kept = Reference(before.boot, before.wall_ms, before.boottime_s, since_s, since_wall_ms)
    return Judgement(doubt, kept)


def _ahead_s(wall_ms: int, boottime_s: float, now: Reference) -> float:
    """Return by how much more the wall clock has gone on than the other one."""
    return (now.wall_ms - wall_ms) / 1_000 - (now.boottime_s - boottime_s)


def _told(seconds: float) -> str:
    for size, unit in ((86_400 * 365, "years"), (86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"

"""Moments as people write and read them: UTC unless they say otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prontodb.errors import InvalidInputError, shown
from prontodb.model.entry import MAX_MOMENT_MS

_MILLISECOND = timedelta(milliseconds=1)
_WAY_OUT = "write it like 2026-11-21T10:00:00Z, or 2026-11-21 for its beginning in UTC"


def moment_of(given: object) -> int:
    """Return a moment as integer milliseconds UTC: an aware datetime, or ISO 8601 text (UTC where no zone is given)."""
    if isinstance(given, str):
        try:
            found = datetime.fromisoformat(given.strip())
        except ValueError:
            raise InvalidInputError(f"{shown(given)} is not a moment; {_WAY_OUT}") from None
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
    elif isinstance(given, datetime):
        if given.tzinfo is None:
            raise InvalidInputError("a moment must be an aware datetime: datetime.now(UTC)")
        found = given
    else:
        raise InvalidInputError(f"a moment is an aware datetime or ISO text, not {type(given).__name__}")
    # Through a difference: timestamp() knows no year before 1970 on every system.
    found_ms = (found - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND
    if not 0 <= found_ms <= MAX_MOMENT_MS:
        raise InvalidInputError(f"{shown(str(given))} lies outside the years 1970 to 9999")
    return found_ms


def text_of(at_ms: int | None) -> str:
    """Return a moment as text to the second, in UTC; '-' for none."""
    if at_ms is None:
        return "-"
    found = datetime.fromtimestamp(min(max(at_ms, 0), MAX_MOMENT_MS) / 1_000, UTC)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")

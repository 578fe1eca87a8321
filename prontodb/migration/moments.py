"""Moments and lifetimes as the old programs wrote them; what nobody can read is unknown, and never a reason to stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from prontodb.model.entry import MAX_MOMENT_MS
from prontodb.model.ttl import MAX_TTL_MS

UNKNOWN = -1
"""Stands for a moment that cannot be told, while rows are compared. An entry shows such a one as the moment 0, 1970."""
NEVER = -1
"""Stands for no expiry."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_TEXT_BYTES = 64


def moment_ms(stored: object) -> int:
    """Return a stored moment as integer milliseconds UTC, UNKNOWN for rubbish.

    Numbers are seconds since 1970, as SQLite and the Rust program write them; text (as bytes) is ISO 8601, in UTC
    where it names no zone.
    """
    if isinstance(stored, bytes):
        # What is remembered must be short, however much rubbish there is.
        return _of_text(stored) if len(stored) <= _MAX_TEXT_BYTES else UNKNOWN
    if isinstance(stored, bool) or not isinstance(stored, (int, float)):
        return UNKNOWN
    # Cut before multiplying: not a number, infinite and huge are all outside.
    if not 0 <= stored <= MAX_MOMENT_MS // 1_000:
        return UNKNOWN
    return stored * 1_000 if isinstance(stored, int) else round(stored * 1_000)


@lru_cache(4_096)
def _of_text(stored: bytes) -> int:
    try:
        found = datetime.fromisoformat(stored.decode().strip())
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        at_ms = (found - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):  # a UnicodeDecodeError is a ValueError
        return UNKNOWN
    return at_ms if 0 <= at_ms <= MAX_MOMENT_MS else UNKNOWN


def expiry_ms(stored: object) -> tuple[int, bool]:
    """Return a stored moment of expiry, NEVER for none, and whether it could be read.

    The old program wrote the present time plus a lifetime: zero and what lies before it is rubbish, too.
    """
    if stored is None:
        return NEVER, True
    at_ms = moment_ms(stored)
    return (at_ms, True) if at_ms > 0 else (NEVER, False)


def ttl_ms(stored: object) -> int | None:
    """Return a namespace's default lifetime, stored in seconds, as milliseconds; None when it is none."""
    if isinstance(stored, bool) or not isinstance(stored, int) or not 0 < stored <= MAX_TTL_MS // 1_000:
        return None
    return stored * 1_000

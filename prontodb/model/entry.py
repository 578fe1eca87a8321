"""An entry: one key with its value, revision and moments."""

from __future__ import annotations

from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime


MAX_MOMENT_MS = 253_402_300_799_999
"""The end of the year 9999: datetime ends there."""

_MIN_MOMENT_MS = -62_135_596_800_000  # the beginning of the year 1, where it begins


class Entry(Value):
    """One row of a keystore. Moments are integer milliseconds UTC; the `_at` properties are aware datetimes."""

    __slots__ = ("key", "value", "created_at_ms", "updated_at_ms", "expires_at_ms", "revision")

    key: str
    value: str
    created_at_ms: int
    updated_at_ms: int
    expires_at_ms: int | None
    revision: int

    def __init__(
        self,
        key: str,
        value: str,
        created_at_ms: int,
        updated_at_ms: int,
        expires_at_ms: int | None,
        revision: int,
    ) -> None:
        # Filled one by one: this runs for every read, and the loop of _fill would be a fifth of its cost.
        put = object.__setattr__
        put(self, "key", key)
        put(self, "value", value)
        put(self, "created_at_ms", created_at_ms)
        put(self, "updated_at_ms", updated_at_ms)
        put(self, "expires_at_ms", expires_at_ms)
        put(self, "revision", revision)

    def is_live(self, now_ms: int) -> bool:
        """True unless the entry has expired at that moment."""
        return self.expires_at_ms is None or self.expires_at_ms > now_ms

    @property
    def created_at(self) -> datetime:
        """When the key was first set (since it was last absent)."""
        return moment(self.created_at_ms)

    @property
    def updated_at(self) -> datetime:
        """When the value or its expiry last changed."""
        return moment(self.updated_at_ms)

    @property
    def expires_at(self) -> datetime | None:
        """When the entry expires; None when it does not."""
        return None if self.expires_at_ms is None else moment(self.expires_at_ms)


def moment(at_ms: int) -> datetime:
    """Return integer milliseconds UTC as an aware datetime: beyond the years 1 to 9999, the nearest there is."""
    from datetime import UTC, datetime, timedelta

    within_ms = min(max(at_ms, _MIN_MOMENT_MS), MAX_MOMENT_MS)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=within_ms)

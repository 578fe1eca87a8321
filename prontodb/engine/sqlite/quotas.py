"""What an address uses of its quotas, judged inside the write transaction: no counter is shared but the journal."""

from __future__ import annotations

import os

from prontodb.errors import QuotaExceededError
from prontodb.log import event
from prontodb.storage.connection import one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.engine.sqlite.context import Context
    from prontodb.model.address import Address
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

PAGE_SIZE = 4_096
WAL_BYTES = 64 * 1024 * 1024
"""More than a WAL grows to between checkpoints."""
WINDOW_MS = 1_000
ENTRIES, BYTES, RATE = "max_entries", "max_keystore_bytes", "writes_per_second"

OUT_OF_ORDER = 16
"""Rows of the journal that may lie about their moment: of writers that were stopped between reading the clock and
beginning to write."""

NEAR: dict[tuple[str, str], str] = {}
"""What was told of quotas that are nearly used up, by path and quota: once, until they are left again."""

# Expired entries that a sweep took away are nobody's writing; a row holds nothing else then.
_RECENT = "SELECT at, rev - first_rev + 1, substr(records, 1, 10) = '[[\"expire\"' FROM journal ORDER BY rev DESC"


def used_bytes(connection: Connection) -> int:
    """Return how many bytes of a keystore are in use; free pages are there for the next writes."""
    pages: int = one(connection, "PRAGMA page_count")[0]
    free: int = one(connection, "PRAGMA freelist_count")[0]
    return (pages - free) * PAGE_SIZE


def log_bytes(path: str) -> int:
    """Return how large the log of a keystore is: a reader keeps it from being carried into the file, however long."""
    try:
        return os.lstat(f"{path}-wal").st_size
    except OSError:
        return 0


def used_entries(connection: Connection) -> int:
    """Return how many rows there are, expired ones with them."""
    count: int = one(connection, "SELECT count(*) FROM kvstore")[0]
    return count


class Rate:
    """How many changes may still be made in this second, over all processes: a window of one second slides along.

    Changes up to a second before and after the present moment count. So no second of the journal ever holds more than
    the limit, whatever the order in which writers read their clocks; and after the clock was set back, nobody waits
    for longer than two seconds for moments that are still to come.
    """

    __slots__ = ("_connection", "_limit", "_now_ms", "_recent", "_used")

    def __init__(self, connection: Connection, limit: int, now_ms: int) -> None:
        self._connection, self._limit, self._now_ms = connection, limit, now_ms
        self._recent = self._read()
        self._used = sum(count for _, count in self._recent)

    def _read(self) -> list[tuple[int, int]]:
        """Return when the changes of this window were made and how many at a time, the newest first."""
        found: list[tuple[int, int]] = []
        early = 0
        cursor = self._connection.execute(_RECENT)
        try:
            for at, count, is_sweep in cursor:
                if not self._now_ms - WINDOW_MS < at < self._now_ms + WINDOW_MS:
                    early += 1
                    if early > OUT_OF_ORDER:
                        break
                elif not is_sweep:
                    found.append((at, count))
        finally:
            cursor.close()
        return found

    def check(self, changes: int) -> None:
        """Raise `QuotaExceededError` when so many changes more are too many now."""
        if changes > self._limit:
            raise QuotaExceededError(RATE, self._limit, given=changes)
        if self._used + changes > self._limit:
            raise QuotaExceededError(RATE, self._limit, self._retry_after_s(changes))

    def take(self, changes: int) -> None:
        """Count changes that were staged."""
        self._used += changes

    def _retry_after_s(self, changes: int) -> float:
        used = self._used
        for at, count in sorted(self._recent):
            used -= count
            if used + changes <= self._limit:
                return float(max(at + WINDOW_MS - self._now_ms, 1) / 1_000)
        return WINDOW_MS / 1_000  # what stands in the way is being written at this very moment


class Nearness:
    """Tells once in a process of each quota of an address that is nearly used up; again when it was left meanwhile."""

    __slots__ = ("_address", "_counted_at", "_entries", "_limits", "_path")

    def __init__(self, address: Address, path: str, limits: Limits) -> None:
        self._address, self._path, self._limits = address, path, limits
        self._counted_at, self._entries = -1, 0

    def look(self, connection: Connection, context: Context, size_bytes: int) -> list[tuple[str, int, int]]:
        """Before the commit: return the quotas that it brings near their end, each with what is used and allowed."""
        crossed = []
        for quota, most, used in (
            (ENTRIES, self._limits.max_entries, self._count(connection, context)),
            (BYTES, self._limits.max_keystore_bytes, self._measure(connection, size_bytes)),
        ):
            if most is None or used < self._limits.soft * most:
                NEAR.pop((self._path, quota), None)
            elif (self._path, quota) not in NEAR:
                crossed.append((quota, used, most))
        return crossed

    def _count(self, connection: Connection, context: Context) -> int:
        most = self._limits.max_entries
        # Ids only ever bound the number of rows from above; they are counted again after one change in a hundred.
        if most is None or context.highest_id < self._limits.soft * most:
            return 0
        if self._counted_at < 0 or context.revision - self._counted_at >= max(1, most // 100):
            self._entries, self._counted_at = used_entries(connection), context.revision
        return self._entries

    def _measure(self, connection: Connection, size_bytes: int) -> int:
        most = self._limits.max_keystore_bytes
        far = most is None or size_bytes + WAL_BYTES < self._limits.soft * most
        return 0 if far else used_bytes(connection)

    def tell(self, crossed: list[tuple[str, int, int]]) -> None:
        """After the commit: report what it brought near its end."""
        for quota, used, most in crossed:
            event("quota.near", address=self._address, quota=quota, used=used, allowed=most)
            NEAR[self._path, quota] = f"{self._address} uses {used:,} of {most:,} ({quota})"


def usage(connection: Connection, limits: Limits) -> dict[str, dict[str, object]]:
    """Return each quota in force with what is allowed, what is used and whether that is near the end."""
    found: dict[str, dict[str, object]] = {}
    for quota, most, used in (
        (ENTRIES, limits.max_entries, used_entries),
        (BYTES, limits.max_keystore_bytes, used_bytes),
    ):
        if most is not None:
            count = used(connection)
            found[quota] = {"allowed": most, "used": count, "near": count >= limits.soft * most}
    if limits.writes_per_second is not None:
        found[RATE] = {"allowed": limits.writes_per_second}
    return found

"""The ledger of a migration: every row read, where it goes, and its fate; on disk, so that memory does not grow.

A row that goes to several addresses has a line for each. No line holds a value: those stay in the copies of the
source, and are fetched by their row ids when an address is written.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from prontodb.migration.formats import RUST, SHARED
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prontodb.storage.files import Folder

FILE = "ledger.db"

UNDECIDED, SUPERSEDED, EXPIRED, MIGRATED, REPORTED = range(5)
"""Fates, so that of a row with several lines the highest counts."""

# Flags of a line: what is worth telling of a row that is migrated all the same.
MORE_PARTS, WAS_BLOB, WAS_NUMBER, TIME_UNKNOWN, EXPIRY_UNKNOWN, DOTS_INSIDE, THERE, BY_ROW = (1 << n for n in range(8))

LINES_AT_ONCE = 5_000
CACHE_KIB = 32_768
"""Of the ledger, and once more of the source's copy while values are read."""

# No column is NULL: binding None takes three times as long as any other value (ops/benchmarks.md).
_COLUMNS = (
    "origin INTEGER, row INTEGER, place INTEGER, slot INTEGER, key TEXT, identity TEXT, created INTEGER, "
    "updated INTEGER, expires INTEGER, digest INTEGER, flags INTEGER, fate INTEGER, reason INTEGER, detail TEXT"
)
_SCHEMA = (
    f"CREATE TABLE read (n INTEGER PRIMARY KEY, {_COLUMNS})",
    # The same in the order of the addresses' keys, so that each address is one stretch of it.
    f"CREATE TABLE line (n INTEGER, {_COLUMNS}, PRIMARY KEY (slot, key, n)) WITHOUT ROWID",
    "CREATE TABLE lifetime (n INTEGER PRIMARY KEY, place INTEGER, slot INTEGER, namespace TEXT, ttl_ms INTEGER, "
    "old TEXT, fate INTEGER, reason INTEGER, detail TEXT)",
    # Where the old `get` showed something else than the newest line of a key: the line that it showed.
    "CREATE TABLE shown (slot INTEGER, key TEXT, first INTEGER, newest INTEGER)",
    # Keys that an address had, and deleted: they are not brought back.
    "CREATE TABLE gone (slot INTEGER, key TEXT, PRIMARY KEY (slot, key)) WITHOUT ROWID",
)
_INDEX = "CREATE INDEX line_reported ON line (reason, n) WHERE fate = 4"
_PUT = "INSERT INTO read VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# The only row of its key has nothing to be compared with.
_ORDER = (
    "INSERT INTO line SELECT n, origin, row, place, slot, key, identity, created, updated, expires, digest, flags, "
    "CASE WHEN fate <> 0 OR slot < 0 THEN fate WHEN count(*) OVER same > 1 THEN 0 "
    "WHEN expires BETWEEN 0 AND ? THEN 2 WHEN reason <> 0 THEN 4 ELSE 3 END, reason, detail "
    "FROM read WINDOW same AS (PARTITION BY slot, key) ORDER BY slot, key, n"
)
_PUT_LIFETIME = (
    "INSERT INTO lifetime (place, slot, namespace, ttl_ms, old, fate, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_SHOWN = "INSERT INTO shown VALUES (?, ?, ?, ?)"
_GROUPED = (
    "SELECT slot, key, n, origin, place, identity, updated, expires, digest, reason FROM line "
    "WHERE slot >= 0 AND fate = 0 AND (slot, key) > (?, ?) ORDER BY slot, key, n"
)
_DECIDE = "UPDATE line SET fate = ?, reason = ?, detail = ? WHERE slot = ? AND key = ? AND n = ?"
_FLAG_PAGE = "UPDATE line SET flags = flags | 64 WHERE slot = ? AND key BETWEEN ? AND ? AND fate = 3"
_SUPERSEDE = "UPDATE line SET fate = 1, reason = 0, detail = '' WHERE slot = ? AND key = ? AND n <> ?"
_FATE = "UPDATE line SET fate = ? WHERE slot = ? AND key = ? AND n = ?"
_REFUSE_KEY = "UPDATE line SET fate = 4, reason = ?, detail = ? WHERE slot = ? AND key = ?"
_FLAG = "UPDATE line SET flags = flags | ? WHERE slot = ? AND key = ? AND n = ?"
_REFUSE = "UPDATE line SET fate = 4, reason = ?, detail = ? WHERE slot = ? AND fate = 3 AND flags & 64 = 0"
_REFUSE_LIFETIMES = "UPDATE lifetime SET fate = 4, reason = ?, detail = ? WHERE slot = ? AND fate IN (0, 3)"
_DECIDE_LIFETIME = "UPDATE lifetime SET fate = ?, reason = ?, detail = ? WHERE n = ?"
# A row with several lines has the highest fate of them, and the reason of the last that was reported.
_ROWS = (
    "(SELECT max(fate) AS fate, max(CASE fate WHEN 4 THEN reason ELSE 0 END) AS reason, "
    "max(CASE fate WHEN 3 THEN flags ELSE 0 END) AS flags FROM line GROUP BY origin, row)"
)
_FATES = "SELECT fate, count(*), coalesce(sum(flags & 64 <> 0), 0) FROM {} GROUP BY fate"
_REASONS = "SELECT reason, count(*) FROM {} WHERE fate = 4 GROUP BY reason ORDER BY 2 DESC, 1"
_FLAGS = f"SELECT {', '.join(f'coalesce(sum(flags & {1 << n} <> 0), 0)' for n in range(8))} FROM {{}} WHERE fate = 3"
_OF_PLACES = "SELECT place, fate, count(*), sum(flags & 64 <> 0) FROM line GROUP BY place, fate ORDER BY place, fate"
_OF_SLOT = "SELECT fate, count(*), coalesce(sum(flags & 64 <> 0), 0) FROM line WHERE slot = ? GROUP BY fate"
_REPORTED = (
    "SELECT slot, n, origin, row, place, key, reason, detail FROM line WHERE fate = 4 AND (slot, key, n) > (?, ?, ?) "
    "ORDER BY slot, key, n LIMIT 1000"
)
_OF_REASON = "SELECT origin, row, place, key, reason, detail FROM line WHERE fate = 4 AND reason = ? ORDER BY n LIMIT ?"
_SHOWN = (
    "SELECT newest.place, newest.key, newest.origin, first.row, newest.row, first.updated, newest.updated, newest.fate "
    "FROM shown JOIN line AS newest ON (newest.slot, newest.key, newest.n) = (shown.slot, shown.key, shown.newest) "
    "JOIN line AS first ON (first.slot, first.key, first.n) = (shown.slot, shown.key, shown.first) "
    "WHERE newest.fate <> 4 ORDER BY shown.slot, shown.key LIMIT ?"
)
_COUNT_SHOWN = (
    "SELECT count(*) FROM shown JOIN line ON (line.slot, line.key, line.n) = (shown.slot, shown.key, shown.newest) "
    "WHERE fate <> 4"
)
_KEYS = (
    "SELECT n, key, created, updated, expires, digest FROM line "
    "WHERE slot = ? AND fate = 3 AND key > ? ORDER BY key LIMIT ?"
)
_ORIGINS = "SELECT DISTINCT origin FROM line WHERE slot = ? AND fate = 3 AND flags & 64 = 0"
_VALUES = {
    table: "SELECT line.key, old.value, line.created, line.updated, line.expires "
    f"FROM line JOIN old.{table} AS old ON old.rowid = line.row "
    "WHERE line.slot = ? AND line.origin = ? AND line.fate = 3 AND line.flags & 64 = 0 ORDER BY line.key"
    for table in (SHARED, RUST)
}
_LIFETIMES = "SELECT n, namespace, ttl_ms, old FROM lifetime WHERE slot = ? AND fate = 3 ORDER BY namespace, n"
_UNDECIDED_LIFETIMES = "SELECT n, slot, namespace, ttl_ms FROM lifetime WHERE fate = 0 ORDER BY slot, namespace, n"
_LIFETIME_FATES = "SELECT fate, count(*) FROM lifetime GROUP BY fate"
_REPORTED_LIFETIMES = "SELECT place, old, reason, detail FROM lifetime WHERE fate = 4 ORDER BY n LIMIT ?"
_ATTACH, _DETACH = "ATTACH ? AS old", "DETACH old"


class Line(NamedTuple):
    """One row on its way to one address, as it stands in the ledger. Moments in ms, -1 where there is none."""

    origin: int
    row: int
    place: int
    slot: int
    key: str
    identity: str
    created: int
    updated: int
    expires: int
    digest: int
    flags: int
    fate: int
    reason: int
    detail: str


class Grouped(NamedTuple):
    """What decides between the rows of one key."""

    slot: int
    key: str
    n: int
    origin: int
    place: int
    identity: str
    updated: int
    expires: int
    digest: int
    reason: int
    """Why it cannot be migrated, though it may be what was written last; 0 when it can."""


class Reported(NamedTuple):
    """One reported row."""

    origin: int
    row: int
    place: int
    key: str
    reason: int
    detail: str


class Held(NamedTuple):
    """A line that is to be written, as far as it is compared with what an address has."""

    n: int
    key: str
    created: int
    updated: int
    expires: int
    digest: int


class Ledger:
    """The ledger file in a private folder, which nobody else has open and no crash need spare.

    Used from one thread at a time, whichever that is: the session manager does each step on some thread.
    """

    def __init__(self, folder: Folder) -> None:
        folder.create(FILE, b"")
        self._connection = sqlite.connect(f"{folder.path}/{FILE}", any_thread=True)
        self._waiting: list[tuple[object, ...]] = []
        self._lines = 0
        self._source = "line"
        try:
            # Sorting goes to disk, past the cache; nothing here need survive anything.
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
                self._run(f"PRAGMA {pragma}")
            sqlite.spill_into(self._connection, folder.path)
            for statement in _SCHEMA:
                self._run(statement)
            self._run("BEGIN IMMEDIATE")
        except BaseException:
            self.close()
            raise

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self._connection.execute(sql, parameters).close()

    def close(self) -> None:
        """Close the file."""
        sqlite.spill_into(self._connection, None)
        self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Group changes in one transaction: much faster than one by one."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self._run("COMMIT")

    # Reading the source

    def add(self, line: Line, *, is_copy: bool = False) -> None:
        """Add the line of a row; `is_copy`: another line of the same row."""
        self._lines += 1
        if is_copy:
            self._source = _ROWS
        self._waiting.append((self._lines, *line))
        if len(self._waiting) >= LINES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._connection.executemany(_PUT, self._waiting).close()
        self._waiting.clear()

    def add_lifetime(
        self, place: int, slot: int, namespace: str, ttl_ms: int, old: str, fate: int, reason: int, detail: str
    ) -> None:
        """Add a namespace with a default lifetime."""
        self._run(_PUT_LIFETIME, (place, slot, namespace, ttl_ms, old, fate, reason, detail))

    def all_added(self, now_ms: int) -> None:
        """Put the lines into the order of their addresses and keys; those that are alone with their key are decided."""
        self._flush()
        self._run(_ORDER, (now_ms,))
        self._run("DROP TABLE read")
        self._run(_INDEX)
        self._run("COMMIT")

    # Deciding

    def undecided(self, after: tuple[int, str]) -> Iterator[Grouped]:
        """Yield the undecided lines behind a slot and key, in their order: those of one key together, as read."""
        cursor = self._connection.execute(_GROUPED, after)
        try:
            for row in cursor:
                yield Grouped(*row)
        finally:
            cursor.close()

    def supersede(self, newest: Sequence[tuple[int, int, str, int]]) -> None:
        """Give the newest line of a key its fate, told with slot, key and number: all others are superseded."""
        self._connection.executemany(_SUPERSEDE, [line[1:] for line in newest]).close()
        self._connection.executemany(_FATE, newest).close()

    def refuse_keys(self, found: Sequence[tuple[int, str, int, str]]) -> None:
        """Report all lines of a key: reason, detail, slot, key."""
        self._connection.executemany(_REFUSE_KEY, found).close()

    def decide(self, fates: Sequence[tuple[int, int, str, int, str, int]]) -> None:
        """Set fate, reason and detail of lines, which slot, key and number tell."""
        self._connection.executemany(_DECIDE, fates).close()

    def flag(self, flags: Sequence[tuple[int, int, str, int]]) -> None:
        """Add flags to lines, which slot, key and number tell."""
        self._connection.executemany(_FLAG, flags).close()

    def note_shown(self, found: Sequence[tuple[int, str, int, int]]) -> None:
        """Note of slot and key which line the old `get` showed, and which is the newest instead."""
        self._connection.executemany(_PUT_SHOWN, found).close()

    def refuse(self, slot: int, reason: int, detail: str) -> None:
        """Report every row that was to go to an address, and is not there yet."""
        self._run(_REFUSE, (reason, detail, slot))
        self._run(_REFUSE_LIFETIMES, (reason, detail, slot))

    def undecided_lifetimes(self) -> list[tuple[int, int, str, int]]:
        """Return number, slot, namespace and ttl of lifetimes, those of one namespace together."""
        return rows(self._connection, _UNDECIDED_LIFETIMES)

    def decide_lifetimes(self, fates: Sequence[tuple[int, int, str, int]]) -> None:
        """Set fate, reason and detail of lifetimes, given with their number last."""
        self._connection.executemany(_DECIDE_LIFETIME, fates).close()

    # Of one address

    def pages(self, slot: int, at_once: int) -> Iterator[list[Held]]:
        """Yield the lines to be written at an address, in the order of their keys."""
        last = ""
        while page := [Held(*row) for row in rows(self._connection, _KEYS, (slot, last, at_once))]:
            yield page
            last = page[-1].key

    def of_slot(self, slot: int) -> tuple[int, int]:
        """Return how many lines an address is to have, and how many of those it has already."""
        found = {fate: (count, there) for fate, count, there in rows(self._connection, _OF_SLOT, (slot,))}
        return found.get(MIGRATED, (0, 0))

    def values(self, slot: int, copies: Mapping[int, tuple[str, str]]) -> Iterator[tuple[str, bytes, int, int, int]]:
        """Yield key, value, created, updated and expiry of what is still to be written at an address.

        `copies`: the private copy and the table of each origin. The value of a number is its digits.
        """
        connection = self._connection
        for (origin,) in rows(connection, _ORIGINS, (slot,)):
            path, table = copies[origin]
            self._run(_ATTACH, (f"{sqlite.uri(path)}?mode=ro&immutable=1",))
            self._run(f"PRAGMA old.cache_size=-{CACHE_KIB}")
            connection.text_factory = bytes
            cursor = connection.execute(_VALUES[table], (slot, origin))
            try:
                for key, value, created, updated, expires in cursor:
                    text = value if isinstance(value, bytes) else b"%d" % value
                    yield key.decode(), text, created, updated, expires
            finally:
                cursor.close()
                connection.text_factory = str
                self._run(_DETACH)

    def flag_there(self, slot: int, page: Sequence[Held]) -> None:
        """Flag a whole page of lines as there already."""
        self._run(_FLAG_PAGE, (slot, page[0].key, page[-1].key))

    def forget_there(self, slot: int) -> None:
        """Forget what an address had already: it is looked at again."""
        self._run("UPDATE line SET flags = flags & ~64 WHERE slot = ? AND fate = 3", (slot,))

    def lifetimes(self, slot: int) -> list[tuple[int, str, int, str]]:
        """Return number, namespace, ttl and old name of the lifetimes that an address is to have."""
        return rows(self._connection, _LIFETIMES, (slot,))

    def forget_gone(self, slot: int, key: str) -> None:
        """Note that a key is there again."""
        self._run("DELETE FROM gone WHERE slot = ? AND key = ?", (slot, key))

    def note_gone(self, slot: int, key: str) -> None:
        """Note that an address had a key, and deleted it."""
        self._run("INSERT OR IGNORE INTO gone VALUES (?, ?)", (slot, key))

    def is_gone(self, slot: int, key: str) -> bool:
        """True for a key that an address deleted."""
        return one(self._connection, "SELECT 1 FROM gone WHERE slot = ? AND key = ?", (slot, key)) is not None

    # Counting

    def fates(self) -> tuple[dict[int, int], int]:
        """Return how many rows have each fate, and of how many migrated ones their addresses had it all already."""
        found = rows(self._connection, _FATES.format(self._source))
        return {fate: count for fate, count, _ in found}, sum(there for fate, _, there in found if fate == MIGRATED)

    def of_places(self) -> list[tuple[int, int, int, int]]:
        """Return place, fate, how many lines, and how many of them were there already."""
        return rows(self._connection, _OF_PLACES)

    def flags(self) -> list[int]:
        """Return how many migrated rows have each flag."""
        return list(one(self._connection, _FLAGS.format(self._source)))

    def reasons(self) -> list[tuple[int, int]]:
        """Return each reason and how many rows were reported for it, the most frequent first."""
        return rows(self._connection, _REASONS.format(self._source))

    def examples(self, reason: int, limit: int) -> list[Reported]:
        """Return the first rows that were reported for a reason."""
        return [Reported(*row) for row in rows(self._connection, _OF_REASON, (reason, limit))]

    def reported(self) -> Iterator[Reported]:
        """Yield every reported row, in the order of addresses and keys."""
        last: tuple[int, str, int] = (-2, "", 0)
        while page := rows(self._connection, _REPORTED, last):
            for slot, n, *row in page:
                found = Reported(*row)
                last = (slot, found.key, n)
                yield found

    def count_shown(self) -> int:
        """Return of how many keys the old `get` showed something else than the newest value."""
        found: int = one(self._connection, _COUNT_SHOWN)[0]
        return found

    def shown(self, limit: int) -> list[tuple[int, str, int, int, int, int, int, int]]:
        """Return such keys: place, key, origin, row shown, newest row, when each was written, the newest's fate."""
        return rows(self._connection, _SHOWN, (limit,))

    def lifetime_fates(self) -> dict[int, int]:
        """Return how many default lifetimes have each fate."""
        return dict(rows(self._connection, _LIFETIME_FATES))

    def reported_lifetimes(self, limit: int) -> list[tuple[int, str, int, str]]:
        """Return place, old name, reason and detail of lifetimes that could not be carried over."""
        return rows(self._connection, _REPORTED_LIFETIMES, (limit,))

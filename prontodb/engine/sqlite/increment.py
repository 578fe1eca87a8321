"""What changed in a keystore since a place in its history: read from a live one, and put into a copy of that place.

The journal says which keys changed and the entries what they are now; each is checked against the other, and the
journal's chain against the place it must go on from, both when it is read and when it is put in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite.digest import COLUMNS, Digest, hashes_of, row_hash
from prontodb.engine.sqlite.schema import CHAIN_BYTES
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.engine.sqlite.transactions import OF_NO_ENTRY, entry_of, lifetimes, records_of
from prontodb.engine.sqlite.writing import next_chain
from prontodb.errors import CorruptError, shown
from prontodb.model.history import Mark
from prontodb.storage.connection import chain_key, digest_key, one, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prontodb.storage.connection import Connection

    JournalRow = tuple[int, int, int, str, str, bytes]
    """Of the journal: rev, first_rev, at, session, records, chain."""
    Row = tuple[str, str, int, int, int | None, int, int]
    """Of kvstore: `digest.COLUMNS`."""

PAGE = 500
"""Rows read or written by one statement."""

_JOURNAL = "SELECT rev, first_rev, at, session, records, chain FROM journal WHERE rev > ? AND rev <= ? ORDER BY rev"
_FLOOR = "SELECT floor, floor_chain FROM meta"
_CHAIN_AT = "SELECT chain FROM journal WHERE rev = ?"
_ENTRIES = f"SELECT {COLUMNS} FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))"
_OPTIONS = "SELECT history, audit, token_epoch FROM meta"
_PUT_JOURNAL = "INSERT INTO journal (rev, first_rev, at, session, records, chain) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))"
_PUT = f"INSERT INTO kvstore ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PUT_LIFETIME = "INSERT INTO namespace_ttl (namespace, ttl_ms) VALUES (?, ?)"
_PUT_OPTIONS = "UPDATE meta SET history = ?, audit = ?, token_epoch = ?"


@dataclass(frozen=True, slots=True)
class Options:
    """What a keystore says of itself, whole: default lifetimes by namespace in ms, and its switches."""

    lifetimes_ms: Mapping[str, int]
    history: int
    audit: int
    token_epoch: int


class Walk:
    """A walk along the journal from one place in the history to a later one: unbroken, and who changed last."""

    def __init__(self, since: Mark, chain_key: bytes) -> None:
        self.mark, self._chain_key = since, chain_key
        self.last: dict[str, int] = {}
        """The revision of each changed key's last change; 0 when that took the entry away."""
        self.at_ms: int | None = None

    def step(self, row: JournalRow) -> None:
        """Take one row of the journal; `CorruptError` unless it follows."""
        rev, first_rev, at, session, records, chain = row
        mark = self.mark
        if first_rev != mark.revision + 1:
            raise CorruptError(f"the journal goes from revision {mark.revision} to {first_rev}")
        if next_chain(bytes.fromhex(mark.chain), rev, first_rev, at, session, records, self._chain_key) != chain:
            raise CorruptError(f"the journal's row of revision {rev} does not follow from the one before it")
        # The shape of all records; what was done, once more by number.
        records_of(first_rev, rev, records)
        for number, record in enumerate(json.loads(records), first_rev):
            if record[0] not in OF_NO_ENTRY:
                self.last[record[1]] = number if record[0] == "set" else 0
        self.mark, self.at_ms = Mark(mark.incarnation, rev, chain.hex()), at

    def check(self, row: Row) -> None:
        """Take one entry that changed; `CorruptError` unless the journal says the same."""
        entry_of(row)
        if self.last.get(row[0], 0) != row[5]:
            raise CorruptError(f"entry {shown(row[0])} is not what the journal says was written last")

    @property
    def gone(self) -> list[str]:
        """The keys whose last change took their entry away."""
        return [key for key, revision in self.last.items() if not revision]

    @property
    def there(self) -> list[str]:
        """The keys whose last change left an entry."""
        return [key for key, revision in self.last.items() if revision]


# Reading


def can_go_on(connection: Connection, since: Mark, now: Mark, floor: int) -> bool:
    """True when the history in a keystore's journal leads on from `since`, all of it."""
    if since.incarnation != now.incarnation or not floor <= since.revision <= now.revision:
        return False
    if since.revision == floor:
        found = one(connection, _FLOOR)[1]
    else:
        found = (one(connection, _CHAIN_AT, (since.revision,)) or (None,))[0]
    return isinstance(found, bytes) and found.hex() == since.chain


class Reading:
    """One look at a keystore for what changed since `since`: one read transaction, which closing the connection ends.

    `journal` first, then `entries`; both check what they yield. `now` is where the history stands.
    """

    def __init__(self, connection: Connection, since: Mark | None) -> None:
        self._connection = connection
        connection.execute("BEGIN DEFERRED").close()
        self.now, self.floor = mark_of(connection)
        self.since = since
        self.goes_on = since is not None and can_go_on(connection, since, self.now, self.floor)
        self._walk = Walk(since or self.now, chain_key(connection))

    @property
    def at_ms(self) -> int | None:
        """When the last change was made that was walked over."""
        return self._walk.at_ms

    def options(self) -> Options:
        """Return the lifetimes and switches."""
        history, audit, token_epoch = one(self._connection, _OPTIONS)
        return Options(lifetimes(self._connection), history, audit, token_epoch)

    def journal(self) -> Iterator[JournalRow]:
        """Yield the journal's rows after `since`."""
        cursor = self._connection.execute(_JOURNAL, (self._walk.mark.revision, self.now.revision))
        try:
            for row in cursor:
                self._walk.step(row)
                yield row
        finally:
            cursor.close()
        if self._walk.mark != self.now:
            raise CorruptError(f"the journal ends at revision {self._walk.mark.revision}, not at {self.now.revision}")

    @property
    def gone(self) -> list[str]:
        """After `journal`: the keys that have no entry any more."""
        return self._walk.gone

    def entries(self) -> Iterator[Row]:
        """Yield the entries that the changes left behind; `CorruptError` where one is missing."""
        there = self._walk.there
        for begin in range(0, len(there), PAGE):
            wanted = there[begin : begin + PAGE]
            found = rows(self._connection, _ENTRIES, (json.dumps(wanted),))
            for row in found:
                self._walk.check(row)
                yield row
            if len(found) != len(wanted):
                lost = next(iter(set(wanted) - {row[0] for row in found}))
                raise CorruptError(f"entry {shown(lost)} is lost: the journal knows it, the keystore does not")


# Putting in


class Writing:
    """What changed, put into a staged copy of the place it goes on from; the caller holds one transaction open.

    In the order in which it is read: `journal` rows, then `gone`, then `entries`, then `finish`.
    """

    def __init__(self, connection: Connection, digest: Digest) -> None:
        self._connection = connection
        self._walk = Walk(mark_of(connection)[0], chain_key(connection))
        self._digest, self._hash_key = digest, digest_key(connection)
        self._seen: set[str] = set()

    @property
    def mark(self) -> Mark:
        """Where the history stands."""
        return self._walk.mark

    def journal(self, found: Sequence[JournalRow]) -> None:
        """Add rows to the journal."""
        for row in found:
            if len(row[5]) != CHAIN_BYTES:
                raise CorruptError("a row of the journal has a chain of another length")
            self._walk.step(row)
        self._connection.executemany(_PUT_JOURNAL, found).close()

    def gone(self, keys: Sequence[str]) -> None:
        """Take entries away; exactly those that the journal says are gone."""
        if set(keys) != set(self._walk.gone):
            raise CorruptError("the keys that are gone are not those that the journal says")
        for begin in range(0, len(keys), PAGE):
            self._replace(keys[begin : begin + PAGE], ())

    def entries(self, found: Sequence[Row]) -> None:
        """Put entries in the place of those with the same keys."""
        for row in found:
            self._walk.check(row)
            if row[0] in self._seen:
                raise CorruptError(f"entry {shown(row[0])} stands twice in it")
            self._seen.add(row[0])
        self._replace([row[0] for row in found], found)

    def _replace(self, keys: Sequence[str], found: Sequence[Row]) -> None:
        before = hashes_of(self._connection, keys)
        self._connection.execute(_DELETE, (json.dumps(list(keys)),)).close()
        self._connection.executemany(_PUT, found).close()
        self._digest = self._digest.changed(before.values(), (row_hash(row, self._hash_key) for row in found))

    def finish(self, options: Options) -> Digest:
        """Set the lifetimes and switches; return the digest that results. `CorruptError` when entries are missing."""
        missing = len(self._walk.there) - len(self._seen)
        if missing:
            raise CorruptError(f"{missing} changed entries are missing")
        put_options(self._connection, options)
        return self._digest


def put_options(connection: Connection, options: Options) -> None:
    """Make a staged copy have these lifetimes and switches, and no others."""
    connection.execute("DELETE FROM namespace_ttl").close()
    pairs: Iterable[tuple[str, int]] = options.lifetimes_ms.items()
    connection.executemany(_PUT_LIFETIME, list(pairs)).close()
    connection.execute(_PUT_OPTIONS, (options.history, options.audit, options.token_epoch)).close()

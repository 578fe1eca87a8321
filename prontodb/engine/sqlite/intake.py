"""Entries that bring their own moments: put into a staged keystore that nobody sees yet, with their journal.

What must result is known before it is read again: `Intake` keeps the digest up, `check` compares it with the file.
"""

from __future__ import annotations

import json
from _blake2 import blake2b
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import snapshot
from prontodb.engine.sqlite.digest import Digest, digest_of, hashes_of, row_hash
from prontodb.engine.sqlite.transactions import LIFETIME, OF_NO_ENTRY, checksum, records_of
from prontodb.engine.sqlite.writing import DIGEST_BYTES, MAX_RECORDS, next_chain
from prontodb.errors import CorruptError, shown
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prontodb.engine.sqlite.digest import Row
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection

    Given = tuple[str, str, int, int, int | None]
    """Key, value, created_at, updated_at, ttl_expires_at."""

_PUT = "INSERT INTO kvstore (namespace_key, value, created_at, updated_at, {}rev, checksum) VALUES ({})"
_PUT_EXPIRING = _PUT.format("ttl_expires_at, ", "?, ?, ?, ?, ?, ?, ?")
# Two statements, since binding None takes three times as long as any other value.
_PUT_LASTING = _PUT.format("", "?, ?, ?, ?, ?, ?")
_DELETE = "DELETE FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))"
_JOURNAL = "INSERT INTO journal (rev, first_rev, at, session, records, chain) VALUES (?, ?, ?, ?, ?, ?)"
_PUT_LIFETIME = "INSERT OR REPLACE INTO namespace_ttl (namespace, ttl_ms) VALUES (?, ?)"
_FIRST_OF = "SELECT min(rev) FROM journal WHERE session = ?"
_SINCE = "SELECT first_rev, rev, records FROM journal WHERE rev >= ? ORDER BY rev"

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Intake:
    """Takes entries into a staged keystore in one transaction; whoever made the file discards it after an error."""

    def __init__(self, path: str, session: str, now_ms: int, *, is_new: bool, secret: Secret | None = None) -> None:
        self._path, self._session, self._now_ms, self._is_new = path, session, now_ms, is_new
        self._connection = snapshot.open_staged(path, secret, unlogged=True)
        try:
            mark, _ = snapshot.mark_of(self._connection)
            self._revision, self._chain = mark.revision, bytes.fromhex(mark.chain)
            self._hash_key = sqlite.digest_key(self._connection)
            self._digest = Digest() if is_new else digest_of(self._connection)
            self._keeps_values = bool(one(self._connection, "SELECT history FROM meta")[0])
            self._records: list[tuple[object, ...]] = []
            snapshot.begin(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def connection(self) -> Connection:
        """The staged keystore, to look at what it has."""
        return self._connection

    def put(self, given: Sequence[Given]) -> None:
        """Put entries in, in the place of those with the same keys; at most `MAX_RECORDS` at a time."""
        expiring: list[Row] = []
        lasting: list[tuple[object, ...]] = []
        come: list[int] = []
        for key, value, created_at, updated_at, expires_at in given:
            self._revision += 1
            stored = value.encode()
            total = checksum(key, stored, updated_at, expires_at, self._revision) + created_at
            row = (key, value, created_at, updated_at, expires_at, self._revision, total)
            come.append(row_hash(row, self._hash_key))
            if expires_at is None:
                lasting.append((*row[:4], self._revision, total))
            else:
                expiring.append(row)
            digest = blake2b(stored, digest_size=DIGEST_BYTES).hexdigest()
            self._record(
                ("set", key, digest, expires_at, value) if self._keeps_values else ("set", key, digest, expires_at)
            )
        gone: list[int] = []
        if not self._is_new:
            keys = [row[0] for row in given]
            gone = list(hashes_of(self._connection, keys).values())
            self._connection.execute(_DELETE, (json.dumps(keys),)).close()
        self._connection.executemany(_PUT_LASTING, lasting).close()
        self._connection.executemany(_PUT_EXPIRING, expiring).close()
        self._digest = self._digest.changed(gone, come)

    def put_lifetime(self, namespace: str, ttl_ms: int) -> None:
        """Give a namespace a default lifetime."""
        self._connection.execute(_PUT_LIFETIME, (namespace, ttl_ms)).close()
        self._revision += 1
        self._record((LIFETIME, namespace, ttl_ms))

    def _record(self, record: tuple[object, ...]) -> None:
        self._records.append(record)
        if len(self._records) >= MAX_RECORDS:
            self._write_journal()

    def _write_journal(self) -> None:
        if not self._records:
            return
        text, last = _to_json(self._records), self._revision
        first = last - len(self._records) + 1
        key = sqlite.chain_key(self._connection)
        self._chain = next_chain(self._chain, last, first, self._now_ms, self._session, text, key)
        # A bytearray, which is bound as it is; for bytes the binding looks for an adapter first.
        row = (last, first, self._now_ms, self._session, text, bytearray(self._chain))
        self._connection.execute(_JOURNAL, row).close()
        self._records.clear()

    def finish(self) -> Digest:
        """Commit, test the file, and return the digest of what it must hold now."""
        self._write_journal()
        snapshot.end(self._connection, self._path)
        return self._digest


def check(path: str, expected: Digest, secret: Secret | None = None) -> None:
    """Read a staged keystore from end to end; `CorruptError` unless it holds just what was put in."""
    connection = snapshot.open_copy(path, secret)
    try:
        found = digest_of(connection)
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        connection.close()
    if found != expected:
        raise CorruptError(
            f"{shown(path)} holds {found.entries:,} entries that are not the {expected.entries:,} put into it; "
            "look at the disk and the system's log"
        )


def changes_since(connection: Connection, session: str) -> Iterator[tuple[str, bool]]:
    """Yield key and whether it was set, for every change since a session's first, oldest first; nothing without one."""
    first = one(connection, _FIRST_OF, (session,))[0]
    if first is None:
        return
    cursor = connection.execute(_SINCE, (first,))
    try:
        for first_rev, rev, records in cursor:
            for action, name in records_of(first_rev, rev, records):
                if action not in OF_NO_ENTRY:
                    yield name, action == "set"
    finally:
        cursor.close()

"""The digest of a keystore's contents: of its entries and nothing else, whatever the order, kept up change by change.

The hashes of all entries are added modulo 2^256: AdHash of Bellare and Micciancio, "A New Paradigm for Collision-Free
Hashing: Incrementality at Reduced Cost" (Eurocrypt 1997). What left is subtracted, so that the digest after a change
costs as much as the change. It finds accidents and mistakes of ours; against forgers stand the files' SHA-256.

Manifests show it to everybody: the hashes of an encrypted keystore are keyed, so that nobody finds an entry by trying,
and those of two keystores, or of two generations of one, have nothing to do with each other.
"""

from __future__ import annotations

from _blake2 import blake2b
from binascii import crc32
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite.transactions import entry_of
from prontodb.errors import CorruptError
from prontodb.storage.connection import digest_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from prontodb.engine.sqlite.auditing import Stored
    from prontodb.storage.connection import Connection

HASH_BYTES = 32
_MODULUS = 2 ** (8 * HASH_BYTES)
COLUMNS = "namespace_key, value, created_at, updated_at, ttl_expires_at, rev, checksum"
"""A stored row as this module takes it."""
STOP_EVERY = 1_024

Row = tuple[str, str, int, int, "int | None", int, int]


def row_hash(row: Sequence[Any], hash_key: bytes) -> int:
    """Return the hash of one row of `COLUMNS`; its checksum, which follows from the rest, is left out.

    `hash_key` is the `digest_key` of the keystore, empty for a plain one.
    """
    key, value, created_at, updated_at, expires_at, revision, _ = row
    return _hash(
        key.encode(),
        value.encode(),
        created_at,
        updated_at,
        -1 if expires_at is None else expires_at,
        revision,
        hash_key,
    )


def _hash(
    key: bytes, value: bytes, created_at: int, updated_at: int, expires_at: int, revision: int, hash_key: bytes
) -> int:
    text = b"%d %d %d %d %d " % (created_at, updated_at, expires_at, revision, len(key)) + key + value
    return int.from_bytes(blake2b(text, digest_size=HASH_BYTES, key=hash_key).digest())


def stored_hash(row: Stored, hash_key: bytes) -> int | None:
    """Return the hash of one row as `auditing.stored` yields it; None of a row that is none of ours."""
    key, value, expires_at, revision, created_at, updated_at, _ = row
    if key is None or value is None or not (isinstance(created_at, int) and isinstance(updated_at, int)):
        return None
    if not (isinstance(revision, int) and isinstance(expires_at, int | None)):
        return None
    return _hash(key, value, created_at, updated_at, -1 if expires_at is None else expires_at, revision, hash_key)


def checked_hash(row: Sequence[Any], hash_key: bytes) -> int:
    """Return the hash of one stored row of `COLUMNS`; `CorruptError` when its checksum is wrong.

    What `entry_of` and `row_hash` do, with each text encoded once: of a large keystore, every row passes here.
    """
    key, value, created_at, updated_at, expires_at, revision, stored = row
    try:
        name, text = key.encode(), value.encode()
        expiry = -1 if expires_at is None else expires_at
        total = crc32(b"%s\x00%d\x00%d\x00%d" % (name, updated_at, expiry, revision), crc32(text)) + created_at
        if total == stored:
            return _hash(name, text, created_at, updated_at, expiry, revision, hash_key)
    except (TypeError, AttributeError, UnicodeEncodeError):
        pass  # a column of another type than ours: said below
    entry_of(row)
    raise CorruptError("an entry is damaged: its columns are of other types than ours; restore it from a backup")


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest and of how many entries it is. Immutable: every change returns a new one."""

    total: int = 0
    entries: int = 0

    def changed(self, gone: Iterable[int], come: Iterable[int]) -> Digest:
        """Return the digest after the rows with the hashes `gone` left and those with `come` came."""
        left, new = list(gone), list(come)
        return Digest((self.total + sum(new) - sum(left)) % _MODULUS, self.entries + len(new) - len(left))

    @property
    def hex(self) -> str:
        """The digest as text."""
        return self.total.to_bytes(HASH_BYTES).hex()

    @classmethod
    def of_hex(cls, text: str, entries: int) -> Digest:
        """Return what `hex` and `entries` were of."""
        return cls(int(text, 16), entries)


def digest_of(connection: Connection, stop: Callable[[], bool] = lambda: False) -> Digest:
    """Read every entry, live and expired, and return the digest; `CorruptError` at one whose checksum is wrong.

    Ends early, with what has been read, once `stop()` is true.
    """
    total = entries = 0
    hash_key = digest_key(connection)
    cursor = connection.execute(f"SELECT {COLUMNS} FROM kvstore ORDER BY id")
    try:
        for row in cursor:
            total += checked_hash(row, hash_key)
            entries += 1
            if entries % STOP_EVERY == 0 and stop():
                break
    finally:
        cursor.close()
    return Digest(total % _MODULUS, entries)


def hashes_of(connection: Connection, keys: Sequence[str]) -> dict[str, int]:
    """Return the hash of the row of each of `keys` that has one; `CorruptError` where its checksum is wrong."""
    import json

    cursor = connection.execute(
        f"SELECT {COLUMNS} FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(keys)),),
    )
    try:
        found: dict[str, int] = {}
        hash_key = digest_key(connection)
        for row in cursor:
            found[row[0]] = checked_hash(row, hash_key)
        return found
    finally:
        cursor.close()

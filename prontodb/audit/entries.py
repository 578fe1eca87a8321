"""The entries against the journal: each is what its last record says, and none is missing that should be there.

Memory is bounded however long the journal is: keys are told apart by a hash, and looked at in several parts when there
are many. The hash has a random key of its own, so that nobody can choose keys that would be taken for each other.
"""

from __future__ import annotations

import os
import re
import struct
from _blake2 import blake2b
from typing import TYPE_CHECKING

from prontodb.audit.report import ENTRY, Finding
from prontodb.engine.sqlite.digest import Digest, stored_hash
from prontodb.engine.sqlite.transactions import HISTORY, LIFETIME, OF_NO_ENTRY, checksum
from prontodb.engine.sqlite.writing import DIGEST_BYTES
from prontodb.errors import shown
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeGuard

    from prontodb.audit.chain import Recorded
    from prontodb.audit.report import Point
    from prontodb.engine.sqlite.auditing import Stored

RECORDS_EACH = 250_000
"""Records whose keys are looked at in one part; a part of as many different keys takes about 60 MB."""

CARRIED_BY = ("migrate",)
"""Sessions that brought entries over from elsewhere with the moments that they had there: no record tells those."""

_GONE = b""
_STATE = struct.Struct(">Qqqq16s")
"""Revision, updated, created, expires, digest of the value; in one piece, since there are many."""
_UNKNOWN, _NEVER = -1, -(2**63)
_DIGEST, _EXPIRY = 2, 3
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)


def parts_of(records: int) -> int:
    """Return in how many parts the keys of so many records are looked at."""
    return 1 + max(0, records - 1) // RECORDS_EACH


class Tally:
    """What one part of the keys should be, by the records so far; then the entries are held against it."""

    def __init__(self, floor: int, part: int = 0, parts: int = 1) -> None:
        self._floor, self._part, self._parts = floor, part, parts
        self._secret = os.urandom(16)
        self._should: dict[int, bytes] = {}
        self.entries = self.unseen = 0

    def _hash(self, key: bytes) -> int | None:
        """Return a key's hash; None when it belongs to another part."""
        # Which part is told by another hash, the same in every part.
        if self._parts > 1 and int.from_bytes(blake2b(key, digest_size=4).digest()) % self._parts != self._part:
            return None
        return int.from_bytes(blake2b(key, digest_size=8, key=self._secret).digest())

    def record(self, row: Recorded) -> None:
        """Take the records of one row of the journal."""
        carried = row.session in CARRIED_BY
        for revision, record in enumerate(row.records, row.first):
            action, key = str(record[0]), str(record[1])
            if action in OF_NO_ENTRY:
                continue
            place = self._hash(key.encode("utf-8", "surrogatepass"))
            if place is None:
                continue
            if action == "set":
                created = _UNKNOWN if carried else self._created(self._should.get(place), row)
                self._should[place] = _state(revision, _UNKNOWN if carried else row.at_ms, created, record)
            else:
                self._should[place] = _GONE

    def _created(self, before: bytes | None, row: Recorded) -> int:
        """Return when an entry was created that is set now: what replaces an absent or expired one begins anew."""
        if before is None:
            # What the pruned part had of it nobody knows.
            return row.at_ms if not self._floor else _UNKNOWN
        if before == _GONE:
            return row.at_ms
        updated: int
        created: int
        _, updated, created, expires, _ = _STATE.unpack(before)
        if expires == _NEVER or expires > row.at_ms:
            return created
        # Both in one commit: then the store has judged by what was there before it.
        return row.at_ms if updated not in (row.at_ms, _UNKNOWN) else _UNKNOWN

    def entry(self, row: Stored) -> Finding | None:
        """Hold one entry against its record; return what is wrong with it."""
        key, value, expires_at, revision, created_at, updated_at, _ = row
        if key is None:
            return Finding(ENTRY, _number(revision), None, "the key of an entry is no text: nobody can find it")
        place = self._hash(key)
        if place is None:
            return None
        self.entries += 1
        should = self._should.pop(place, None)
        name = shown(key.decode("utf-8", "backslashreplace"))
        if should is None:
            if isinstance(revision, int) and 0 < revision <= self._floor:
                self.unseen += 1  # its record is pruned
                return None if _is_summed(row) else _missummed(name, revision)
            return Finding(ENTRY, _number(revision), None, f"entry {name} has no record that it could come from")
        if should == _GONE:
            return Finding(ENTRY, _number(revision), None, f"entry {name} is there, but its last record took it away")
        wanted, updated, created, expires, digest = _STATE.unpack(should)
        if revision != wanted:
            what = f"entry {name} says to be of revision {_number(revision)}, its last record is {wanted}"
        elif value is None or blake2b(value, digest_size=DIGEST_BYTES).digest() != digest:
            what = f"the value of entry {name} is not the one that record {wanted} set"
        elif (_NEVER if expires_at is None else expires_at) != expires:
            what = f"the expiry of entry {name} is not the one that record {wanted} set"
        elif updated not in (updated_at, _UNKNOWN) or created not in (created_at, _UNKNOWN):
            what = f"the moments of entry {name} are not those of its records, the last of which is {wanted}"
        else:
            return None if _is_summed(row) else _missummed(name, wanted)
        return Finding(ENTRY, wanted, None, what)

    def lost(self) -> Iterator[int]:
        """After all entries: the revisions whose entries should be there and are not."""
        for should in self._should.values():
            if should != _GONE:
                yield _STATE.unpack(should)[0]


class Contents:
    """The entries held against what backups have that were made at this very revision: nothing was written since.

    So an entry is judged, too, whose record is pruned; and one is missed of which no record tells any more.
    """

    def __init__(self, points: Iterable[Point], hash_key: bytes) -> None:
        self._points = [point for point in points if point.digest is not None]
        self._key, self._digest, self._entries = hash_key, Digest(), 0
        self._is_ours = True

    def entry(self, row: Stored) -> None:
        """Take one entry."""
        if not self._points:
            return
        come = stored_hash(row, self._key)
        if come is None:
            self._is_ours = False
        else:
            self._digest = self._digest.changed((), (come,))
        self._entries += 1

    def compare(self) -> tuple[Point | None, Finding | None]:
        """After all entries: a backup that has exactly these, when all have, and what is wrong with them else."""
        for point in self._points:
            if not self._is_ours or (self._entries, self._digest.hex) != (point.entries, point.digest):
                what = (
                    f"the entries are not those that {point.source} of {text_of(point.at_ms)} has of this revision, "
                    f"{point.revision} ({point.entries} entries then, {self._entries} now), and no record tells of a "
                    "change: some were forged, dropped or put back"
                )
                return None, Finding(ENTRY, None, None, what)
        return (self._points[-1] if self._points else None), None


def _is_summed(row: Stored) -> bool:
    """True when the checksum beside an entry is that of what it holds."""
    key, value, expires_at, revision, created_at, updated_at, summed = row
    if not (key is not None and value is not None and isinstance(summed, int) and isinstance(created_at, int)):
        return False
    if not (isinstance(updated_at, int) and isinstance(expires_at, int | None) and isinstance(revision, int)):
        return False
    try:
        return summed - created_at == checksum(key.decode(), value, updated_at, expires_at, revision)
    except UnicodeDecodeError:
        return False


def _missummed(name: str, revision: int) -> Finding:
    return Finding(ENTRY, revision, None, f"the checksum of entry {name} is not that of what it holds")


class Declared:
    """What the records say of the keystore itself: default lifetimes, and whether values are kept."""

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._lifetimes: dict[str, tuple[int, object]] = {}
        self._history: tuple[int, bool] | None = None

    def record(self, row: Recorded) -> None:
        """Take the records of one row of the journal."""
        for revision, record in enumerate(row.records, row.first):
            if record[0] == LIFETIME:
                self._lifetimes[str(record[1])] = revision, record[2] if len(record) > _DIGEST else None
            elif record[0] == HISTORY:
                self._history = revision, record[1] == "on"

    def compare(self, keeps_history: int, lifetimes: dict[str, int]) -> Iterator[Finding]:
        """Hold what the keystore says against it; of what was pruned nothing is known."""
        revision, kept = self._history or (None, keeps_history if self._floor else 0)
        if kept != keeps_history:
            what = f"whether values are kept ({'on' if keeps_history else 'off'}) is not what its last record says"
            yield Finding(ENTRY, revision, None, what)
        for namespace in sorted({*lifetimes, *self._lifetimes}, key=str):
            found = self._lifetimes.get(namespace)
            if found is None and self._floor:
                continue
            last, wanted = found or (None, None)
            if lifetimes.get(namespace) != wanted:
                what = f"the default lifetime of namespace {shown(namespace)} is not the one that its last record set"
                yield Finding(ENTRY, last, None, what)


def _state(revision: int, updated: int, created: int, record: list[object]) -> bytes:
    digest, expires = record[2] if len(record) > _DIGEST else None, record[3] if len(record) > _EXPIRY else None
    # A record that says something else has a chain that holds, so it was forged: then no entry can be what it says.
    said = bytes.fromhex(digest) if isinstance(digest, str) and _HEX.fullmatch(digest) else b""
    return _STATE.pack(revision, updated, created, expires if _is_moment(expires) else _NEVER, said)


def _is_moment(found: object) -> TypeGuard[int]:
    return isinstance(found, int) and 0 <= found < 2**63


def _number(revision: object) -> int | None:
    return revision if isinstance(revision, int) else None

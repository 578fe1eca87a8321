"""The entries against the journal: each is what its last record says, and none is missing that should be there.

Memory is bounded however long the journal is: keys are told apart by a hash, and looked at in several parts when there
are many. The hash has a random key of its own, so that nobody can choose keys that would be taken for each other.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from typing import TYPE_CHECKING

from prontodb.audit.report import ENTRY, Finding
from prontodb.engine.sqlite.transactions import OF_NO_ENTRY
from prontodb.engine.sqlite.writing import DIGEST_BYTES
from prontodb.errors import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.audit.chain import Records
    from prontodb.engine.sqlite.auditing import Stored

RECORDS_EACH = 250_000
"""Records whose keys are looked at in one part; a part of as many different keys takes about 60 MB."""

_GONE = b""
_REVISION_BYTES = 8


def parts_of(records: int) -> int:
    """Return in how many parts the keys of so many records are looked at."""
    return 1 + max(0, records - 1) // RECORDS_EACH


class Tally:
    """What one part of the keys should be, by the records so far; then the entries are held against it."""

    def __init__(self, part: int = 0, parts: int = 1) -> None:
        self._part, self._parts = part, parts
        self._secret = os.urandom(16)
        self._should: dict[int, bytes] = {}
        self.entries = self.unseen = 0

    def _hash(self, key: bytes) -> int | None:
        """Return a key's hash; None when it belongs to another part."""
        # Which part is told by another hash, the same in every part.
        if self._parts > 1 and int.from_bytes(blake2b(key, digest_size=4).digest()) % self._parts != self._part:
            return None
        return int.from_bytes(blake2b(key, digest_size=8, key=self._secret).digest())

    def record(self, first: int, records: Records) -> None:
        """Take the records of one row, whose first revision is given."""
        for revision, record in enumerate(records, first):
            action, key = str(record[0]), str(record[1])
            if action in OF_NO_ENTRY:
                continue
            place = self._hash(key.encode("utf-8", "surrogatepass"))
            if place is not None:
                self._should[place] = _state(revision, record) if action == "set" else _GONE

    def entry(self, row: Stored, floor: int) -> Finding | None:
        """Hold one entry against its record; return what is wrong with it."""
        key, value, expires_at, revision = row
        place = self._hash(key or b"")
        if place is None:
            return None
        self.entries += 1
        should = self._should.pop(place, None)
        name = shown((key or b"").decode("utf-8", "backslashreplace"))
        if should is None:
            if isinstance(revision, int) and revision <= floor:
                self.unseen += 1  # its record is pruned
                return None
            return Finding(ENTRY, _number(revision), None, f"entry {name} has no record that it could come from")
        if should == _GONE:
            return Finding(ENTRY, _number(revision), None, f"entry {name} is there, but its last record took it away")
        wanted = int.from_bytes(should[:_REVISION_BYTES])
        if revision != wanted:
            what = f"entry {name} says to be of revision {_number(revision)}, its last record is {wanted}"
            return Finding(ENTRY, wanted, None, what)
        digest = blake2b(value or b"", digest_size=DIGEST_BYTES).hexdigest()
        if value is None or _state(wanted, ["set", "", digest, expires_at]) != should:
            return Finding(ENTRY, wanted, None, f"entry {name} is not what record {wanted} says was written")
        return None

    def lost(self) -> Iterator[int]:
        """After all entries: the revisions whose entries should be there and are not."""
        for should in self._should.values():
            if should != _GONE:
                yield int.from_bytes(should[:_REVISION_BYTES])


def _state(revision: int, record: list[object]) -> bytes:
    """Return what an entry must be: its revision, then a hash over its value's digest and its expiry."""
    digest, expires_at = record[2] if len(record) > 2 else None, record[3] if len(record) > 3 else None
    said = blake2b(f"{digest} {expires_at}".encode(), digest_size=DIGEST_BYTES).digest()
    return revision.to_bytes(_REVISION_BYTES) + said


def _number(revision: object) -> int | None:
    return revision if isinstance(revision, int) else None

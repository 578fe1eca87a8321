"""The records of one journal as people look at them: the last ones that they ask for, the newest last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.audit.chain import records_in
from prontodb.audit.report import AuditRecord
from prontodb.engine.sqlite import auditing
from prontodb.errors import CorruptError, InvalidInputError
from prontodb.model.moments import moment_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.engine.sqlite.auditing import Row
    from prontodb.storage.connection import Connection

NEWEST = 2**63 - 1
MAX_RECORDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records to look for. `since_revision` and `since_ms`: from there on, that one included."""

    key: str | None = None
    session: str | None = None
    since_revision: int | None = None
    since_ms: int | None = None
    limit: int = 100

    def has(self, record: AuditRecord) -> bool:
        """True for a record that is asked for."""
        return (self.key is None or record.key == self.key) and (
            self.since_revision is None or record.revision >= self.since_revision
        )

    def is_over(self, row: Row) -> bool:
        """True for a row before which there is nothing more that is asked for."""
        return self.since_revision is not None and row[0] < self.since_revision


def wanted_records(*, key: object, session: object, since: object, limit: object) -> Wanted:
    """Return what a caller asks for, checked: `since` is a revision, an aware datetime or ISO text."""
    if not isinstance(key, str | None) or not isinstance(session, str | None):
        raise InvalidInputError("key and session are texts")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= MAX_RECORDS:
        raise InvalidInputError(f"limit is a whole number from 1 to {MAX_RECORDS:,}")
    if since is None or isinstance(since, bool) or not isinstance(since, int):
        at_ms = None if since is None else moment_of(since)
        return Wanted(key=key, session=session, since_ms=at_ms, limit=limit)
    return Wanted(key=key, session=session, since_revision=since, limit=limit)


def newest(connection: Connection, wanted: Wanted) -> tuple[list[AuditRecord], bool]:
    """Return the last records that are wanted, the newest last, and whether there are more of them.

    Read backwards in pages, so that the last hundred of a million are found at once.
    """
    found: list[AuditRecord] = []
    for row in _backwards(connection):
        if wanted.is_over(row):
            break
        if wanted.session is not None and row[3] != wanted.session:
            continue
        if wanted.since_ms is not None and not (isinstance(row[2], int) and row[2] >= wanted.since_ms):
            continue  # by the clock, which may have been set back: what is older may still come
        for record in reversed(_records_of(row)):
            if wanted.has(record):
                if len(found) == wanted.limit:
                    return found[::-1], True
                found.append(record)
    return found[::-1], False


def _backwards(connection: Connection) -> Iterator[Row]:
    at = NEWEST
    while page := auditing.before(connection, at):
        yield from page
        at = page[-1][0]


def _records_of(row: Row) -> list[AuditRecord]:
    rev, first_rev, at_ms, session, text, _ = row
    records = records_in(text)
    if not (isinstance(first_rev, int) and isinstance(at_ms, int) and isinstance(session, str) and records is not None):
        raise CorruptError(f"record {rev} of the journal is damaged; 'prontodb audit verify' says more")
    return [
        AuditRecord(
            revision=revision,
            at_ms=at_ms,
            session=session,
            action=str(record[0]),
            key=str(record[1]),
            # Whatever else the record holds, it may be a value.
            digest=record[2] if record[0] == "set" and len(record) > 2 and isinstance(record[2], str) else None,
            expires_at_ms=record[3] if record[0] == "set" and len(record) > 3 and isinstance(record[3], int) else None,
        )
        for revision, record in enumerate(records, first_rev)
    ]

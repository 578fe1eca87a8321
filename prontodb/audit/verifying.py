"""The audit of one keystore: its journal along the chain past every anchor, its entries against their last records.

In steps, each a snapshot of its own, so that writers and checkpoints go on; only the entries of one part are read from
one snapshot, since they must be of one moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prontodb.audit.chain import Walk, recorded
from prontodb.audit.entries import Contents, Declared, Tally, parts_of
from prontodb.audit.report import ENTRY, PRUNED, AddressAudit, Finding
from prontodb.engine.sqlite import auditing
from prontodb.errors import StoppedError, UnavailableError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from prontodb.audit.report import Point
    from prontodb.model.address import Address
    from prontodb.storage.connection import Connection

MAX_FINDINGS = 20
"""Entries named of one address; past that their number says more."""
ENTRIES_EACH = 5_000
"""Entries between two looks whether to go on."""


TRIES = 5
"""How often the audit begins anew, because what it had not seen yet was pruned under way."""


class _PrunedMeanwhileError(Exception):
    """Records were pruned before they were seen: what they did to the entries is not known."""


class Verifying:
    """One audit. `steps` yields how many records and entries it has looked at, and returns what it found."""

    def __init__(
        self,
        connection: Connection,
        address: Address,
        points_of: Callable[[str], Sequence[Point]],
        *,
        stop: Callable[[], bool],
    ) -> None:
        self._connection, self._address = connection, address
        self._points_of, self._key, self._stop = points_of, auditing.key_of(connection), stop
        self._seen = 0

    def steps(self) -> Generator[int, None, AddressAudit]:
        """Test everything; raises when it cannot be read."""
        for _ in range(TRIES):
            try:
                return (yield from self._once())
            except _PrunedMeanwhileError:
                self._seen = 0
        raise UnavailableError(f"the journal of {self._address} is being pruned; try again")

    def _once(self) -> Generator[int, None, AddressAudit]:
        """Test the chain with the first part of the keys, then the other parts."""
        page = auditing.page(self._connection, 0)
        walk = Walk(page.floor, page.floor_chain, self._points_of(page.head.incarnation), self._key)
        if walk.fault is None and page.within_floor is not None:
            what = f"record {page.within_floor} lies in the part that is said to be pruned, up to revision {page.floor}"
            walk.fault = Finding(PRUNED, page.within_floor, page.floor, what)
        parts = parts_of(page.head.revision - page.floor)
        tally, declared = Tally(page.floor, 0, parts), Declared(page.floor)
        incarnation, floor, head = page.head.incarnation, page.floor, page.head.revision
        # As far as it went when we began: whoever writes faster than we read would be followed for ever.
        while page.rows and walk.fault is None and walk.revision < head:
            yield from self._walk(walk, (tally, declared), page, incarnation)
            page = auditing.page(self._connection, walk.revision)
        findings: list[Finding] = []
        content: Point | None = None
        if walk.fault is None:
            with auditing.held(self._connection):
                yield from self._to_the_end(walk, (tally, declared), incarnation)
                if walk.fault is None:
                    findings += self._declarations(declared)
                    contents = self._contents(walk, incarnation)
                    yield from self._entries(tally, findings, contents)
                    content, other = contents.compare()
                    findings += [] if other is None else [other]
        audit = AddressAudit(
            address=self._address,
            incarnation=incarnation,
            revision=walk.revision,
            chain=walk.chain.hex(),
            floor=floor,
            records=walk.records,
            keyed=bool(self._key),
            outrun=walk.anchor is None and floor > 0 and bool(self._points_of(incarnation)),
            anchor=walk.anchor,
            content=content,
        )
        if walk.fault is not None:
            return replace(audit, findings=(walk.fault,))
        torn = auditing.damage(self._connection)
        if torn is not None:
            findings.append(Finding(ENTRY, None, None, f"SQLite's own check: {shown(torn)}"))
        entries, unseen = tally.entries, tally.unseen
        for part in range(1, parts):
            tally = yield from self._another_part(part, parts, findings)
            entries, unseen = entries + tally.entries, unseen + tally.unseen
        return replace(audit, findings=_first(findings), entries=entries, unseen=unseen, notes=_notes(audit, unseen))

    # Along the journal

    def _walk(
        self, walk: Walk, takers: tuple[Tally, Declared], page: auditing.Page, incarnation: str
    ) -> Generator[int, None, None]:
        self._check(page, incarnation, walk.revision)
        for row in walk.page(page.rows):
            for taker in takers:
                taker.record(row)
            self._seen += len(row.records)
        yield self._seen

    def _check(self, page: auditing.Page, incarnation: str, at: int) -> None:
        if self._stop():
            raise StoppedError("the audit was stopped")
        if page.head.incarnation != incarnation:
            raise UnavailableError(f"{self._address} was restored while it was looked at; try again")
        if page.floor > at:
            raise _PrunedMeanwhileError

    def _to_the_end(self, walk: Walk, takers: tuple[Tally, Declared], incarnation: str) -> Generator[int, None, None]:
        """Take what was written meanwhile, all of it in the one snapshot that the entries are read from."""
        while walk.fault is None:
            page = auditing.page(self._connection, walk.revision)
            self._check(page, incarnation, walk.revision)
            if not page.rows:
                break
            yield from self._walk(walk, takers, page, incarnation)
        walk.end()

    def _another_part(self, part: int, parts: int, findings: list[Finding]) -> Generator[int, None, Tally]:
        """Tell another part of the keys from the records, which the chain has been tested for already."""
        with auditing.held(self._connection):
            page = auditing.page(self._connection, 0)
            tally = Tally(page.floor, part, parts)
            while page.rows:
                for row in page.rows:
                    told = recorded(row)
                    if told is not None:
                        tally.record(told)
                        self._seen += len(told.records)
                if self._stop():
                    raise StoppedError("the audit was stopped")
                yield self._seen
                page = auditing.page(self._connection, page.rows[-1][0])
            yield from self._entries(tally, findings)
        return tally

    # The entries

    def _declarations(self, declared: Declared) -> Generator[Finding, None, None]:
        """Hold what the keystore says of itself against the records; the caller holds the snapshot."""
        wrong = auditing.misshapen(self._connection)
        if wrong is not None:
            yield Finding(ENTRY, None, None, f"the keystore's own records: {wrong}")
        else:
            yield from declared.compare(*auditing.settings(self._connection))

    def _contents(self, walk: Walk, incarnation: str) -> Contents:
        """Return what the entries are held against as a whole: backups that were made just where the history ends."""
        here = walk.revision, walk.chain.hex()
        points = [one for one in self._points_of(incarnation) if (one.revision, one.chain) == here]
        return Contents(points, auditing.digest_key_of(self._connection))

    def _entries(
        self, tally: Tally, findings: list[Finding], contents: Contents | None = None
    ) -> Generator[int, None, None]:
        """Hold every entry against its record; the caller holds the snapshot that the last record came from."""
        for number, row in enumerate(auditing.stored(self._connection), 1):
            if contents is not None:
                contents.entry(row)
            found = tally.entry(row)
            if found is not None:
                findings.append(found)
            if number % ENTRIES_EACH == 0:
                if self._stop():
                    raise StoppedError("the audit was stopped")
                del findings[MAX_FINDINGS * 10 :]
                yield self._seen + number
        for revision in tally.lost():
            what = f"entry {self._key_of(revision)} is lost, or an older one: record {revision} set it last"
            findings.append(Finding(ENTRY, revision, None, what))

    def _key_of(self, revision: int) -> str:
        row = auditing.row_at(self._connection, revision)
        told = None if row is None else recorded(row)
        if told is None or not 0 <= revision - told.first < len(told.records):
            return "?"
        return shown(told.records[revision - told.first][1])


def _first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return what was found in order of revisions, the first one first."""
    ordered = sorted(findings, key=lambda one: (one.revision is None, one.revision or 0))
    more = len(ordered) - MAX_FINDINGS
    if more > 0:
        ordered[MAX_FINDINGS:] = [Finding(ENTRY, None, None, f"and {more:,} more entries")]
    return tuple(ordered)


def _notes(audit: AddressAudit, unseen: int) -> tuple[str, ...]:
    notes = []
    if audit.outrun:
        notes.append(
            f"its anchors lie in the part that is said to be pruned, up to revision {audit.floor:,}: nothing outside "
            f"of the file vouches for what it holds; if that was our pruning, say so: prontodb audit accept "
            f"{audit.address}; if not, restore it from a backup"
        )
    if audit.floor:
        notes.append(f"records up to {audit.floor:,} are pruned")
    if unseen and audit.content is not None:
        notes.append(f"{unseen:,} entries are older than the journal: they are as {audit.content.source} has them")
    elif unseen:
        notes.append(
            f"{unseen:,} entries are older than the journal: nothing here can tell whether they are as written"
        )
    return tuple(notes)

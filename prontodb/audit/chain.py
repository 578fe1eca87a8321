"""Along the journal from its beginning: does each record follow from the one before, and lead where the anchors say?

A pure core: rows and anchors come in, the first thing that is wrong comes out. Rules it obeys:

- Nothing is believed before it is tested, not even the type of a column.
- The first bad record is named, and nothing is said about those after it: a broken chain vouches for none of them.
- An anchor binds all records before it. Without a key, whoever can write the file can compute a chain that holds; it
  leads to another anchor.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from prontodb.audit.report import CUT, DROPPED, EDITED, PRUNED, REORDERED, REWRITTEN, Finding, Point
from prontodb.engine.sqlite.writing import next_chain
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prontodb.engine.sqlite.auditing import Row
    from prontodb.engine.sqlite.increment import JournalRow


Records = list[list[object]]
"""Of one row of the journal: what was done, to which key, and what more there is to say of it."""


class Recorded(NamedTuple):
    """What one row of the journal tells: its first revision, when, by which session, and one record each."""

    first: int
    at_ms: int
    session: str
    records: Records


class Walk:
    """A walk from the floor to the head. `fault` is the first thing that is wrong; then there is nothing more to do."""

    def __init__(self, floor: int, floor_chain: bytes, points: Iterable[Point], key: bytes = b"") -> None:
        self.revision, self.records = floor, 0
        self.anchor: Point | None = None
        self.fault: Finding | None = None
        self._chain, self._key = floor_chain, key
        ordered = sorted(points, key=lambda point: point.revision)
        # What was pruned cannot be tested any more.
        self._points = [point for point in ordered if point.revision >= floor]
        for point in self._here():
            if point.chain == floor_chain.hex():
                self.anchor = point
            else:
                what = f"the part that was pruned, up to revision {floor}, is not what {_named(point)} vouches for"
                self.fault = Finding(PRUNED, None, floor, what)

    @property
    def chain(self) -> bytes:
        """The chain up to here."""
        return self._chain

    def _here(self) -> list[Point]:
        """Take the anchors off that stand at or before where we are."""
        found = [point for point in self._points if point.revision <= self.revision]
        self._points = self._points[len(found) :]
        return found

    def page(self, rows: Sequence[Row]) -> list[Recorded]:
        """Take the next rows; return those that are sound, up to the first fault."""
        sound: list[Recorded] = []
        for number, row in enumerate(rows):
            found = self._step(row, rows[number + 1 :])
            if found is None or self.fault is not None:
                break
            sound.append(found)
        return sound

    def _step(self, row: Row, ahead: Sequence[Row]) -> Recorded | None:
        whole, first = _whole(row), self.revision + 1
        if whole is None:
            self._found(EDITED, row[0], "is not what was written there: it holds something else than its changes")
            return None
        (rev, first_rev, at, session, text, chain), records = whole
        if first_rev > first:
            what = f"{_range(first, first_rev - 1)} missing: dropped from the middle"
            self.fault = Finding(DROPPED, first, first_rev - 1, what)
        elif first_rev < first or next_chain(self._chain, rev, first_rev, at, session, text, self._key) != chain:
            if self._is_moved(rev, first_rev, chain, ahead):
                self._found(REORDERED, rev, "stands where another was: records were reordered")
            else:
                self._found(EDITED, rev, "does not follow from the one before it: it was edited, or forged")
        else:
            self.revision, self._chain = rev, chain
            self.records += len(records)
            self._check_points()
        return Recorded(first_rev, at, session, records)

    def _found(self, kind: str, rev: int, what: str) -> None:
        first = min(self.revision + 1, rev)
        self.fault = Finding(kind, first, rev, f"{_range(first, rev, verb='')} {what}")

    def _check_points(self) -> None:
        for point in self._here():
            if (point.revision, point.chain) != (self.revision, self._chain.hex()):
                begin = (0 if self.anchor is None else self.anchor.revision) + 1
                what = (
                    f"{_range(begin, point.revision, verb='')} or some of them were rewritten: they lead elsewhere "
                    f"than {_named(point)} says"
                )
                self.fault = Finding(REWRITTEN, begin, point.revision, what)
                return
            self.anchor = point

    def _is_moved(self, rev: int, first_rev: int, chain: bytes, ahead: Sequence[Row]) -> bool:
        """True when what should stand here stands further on, with its own chain or with the one that stands here."""
        for _, _, at, session, text, other in ahead:
            if isinstance(at, int) and isinstance(session, str) and isinstance(text, str):
                made = next_chain(self._chain, rev, first_rev, at, session, text, self._key)
                if made in (other, chain):
                    return True
        return False

    def end(self) -> None:
        """The journal ends here: what an anchor says of later records is missing."""
        if self.fault is None and self._points:
            last = self._points[-1]
            what = (
                f"{_range(self.revision + 1, last.revision)} missing: the tail was cut, or the file is an older copy "
                f"of itself; {_named(last)} vouches for them"
            )
            self.fault = Finding(CUT, self.revision + 1, last.revision, what)


def _whole(row: Row) -> tuple[JournalRow, Records] | None:
    """Return a row whose columns are what they should be, and its records; None for any other."""
    rev, first_rev, at, session, text, chain = row
    if not (isinstance(first_rev, int) and isinstance(at, int)):
        return None
    if not (isinstance(session, str) and isinstance(text, str) and isinstance(chain, bytes)):
        return None
    records = records_in(text)
    if records is None or len(records) != rev - first_rev + 1:
        return None
    return (rev, first_rev, at, session, text, chain), records


def recorded(row: Row) -> Recorded | None:
    """Return what a row tells, whether or not it follows from the one before; None when it tells nothing."""
    whole = _whole(row)
    return None if whole is None else Recorded(whole[0][1], whole[0][2], whole[0][3], whole[1])


def records_in(text: object) -> Records | None:
    """Return the records of a row; None when it holds something else."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and all(
        isinstance(record, list) and len(record) > 1 and isinstance(record[0], str) and isinstance(record[1], str)
        for record in found
    ):
        return found
    return None


def _range(first: int, last: int, verb: str = " is| are") -> str:
    one, _, many = verb.partition("|")
    return f"record {first}{one}" if first >= last else f"records {first} to {last}{many}"


def _named(point: Point) -> str:
    return f"the anchor of {text_of(point.at_ms)} ({point.source})"

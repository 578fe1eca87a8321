"""The report of a migration or its plan: counts that add up, reasons with examples, and what changes for readers."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from prontodb.migration import verify
from prontodb.migration.ledger import EXPIRED, MIGRATED, REPORTED, SUPERSEDED
from prontodb.migration.reasons import TEXTS, Reason
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.migration.ledger import Reported
    from prontodb.migration.plan import Plan

EXAMPLES = 5
"""Rows named for each reason; the whole list is for a file."""

_FLAGS = (
    "more than four parts: user and cursor are the first two, the rest is the key",
    "the value was a BLOB; its bytes are UTF-8 and came over as they are",
    "the value was a number; its digits came over",
    "a time could not be read; it is kept as unknown (1970-01-01)",
    "the expiry could not be read; the entry lives on",
    "a part had a '.' inside; the key is all parts as they stood",
    "",
    "of several rows one had no readable time; the last row counts as the newest",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One old row: the table it lies in, its row id, whose it was, and what it was called."""

    database: str
    table: str
    row: int
    old: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonReport:
    """Why rows were reported, how many, and the first of them."""

    reason: str
    text: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceReport:
    """One old place. `address` None: it has none, for the reason."""

    old: str
    address: str | None
    read: int
    migrated: int
    there: int
    """Of those migrated: the address had them all already, exactly."""
    expired: int
    superseded: int
    reported: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownReport:
    """A key of which the old `get` showed another row than the one written last. Row ids; moments as text."""

    old: str
    key: str
    database: str
    table: str
    row_shown: int
    shown_written_at: str
    row_newest: int
    newest_written_at: str
    newest_expired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What a migration did, or with `dry_run` would do: read = migrated + expired + superseded + reported."""

    source: str
    dry_run: bool
    read: int
    migrated: int
    there: int
    expired: int
    superseded: int
    reported: int
    namespaces: int
    """Default lifetimes of namespaces that are carried over, or there already; `namespaces_reported` could not be."""
    namespaces_reported: tuple[tuple[str, str], ...]
    places: tuple[PlaceReport, ...]
    reasons: tuple[ReasonReport, ...]
    flags: tuple[tuple[str, int], ...]
    shown_otherwise: int
    shown: tuple[ShownReport, ...]
    written: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def is_complete(self) -> bool:
        """True when nothing was reported and no address failed."""
        return not (self.reported or self.failed or self.namespaces_reported)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain values, for JSON."""
        return asdict(self) | {"complete": self.is_complete}


def made(plan: Plan, *, dry_run: bool, written: list[str]) -> MigrationReport:
    """Return the report of a plan as its ledger stands; `CorruptError` unless the counts add up.

    How long it all took is for the caller to say.
    """
    (fates, there), ledger = verify.counts(plan), plan.ledger
    lifetimes = ledger.lifetime_fates()
    return MigrationReport(
        source=os.fsencode(plan.source.path).decode("utf-8", "backslashreplace"),
        dry_run=dry_run,
        read=plan.rows,
        migrated=fates.get(MIGRATED, 0),
        there=there,
        expired=fates.get(EXPIRED, 0),
        superseded=fates.get(SUPERSEDED, 0),
        reported=fates.get(REPORTED, 0),
        namespaces=lifetimes.get(MIGRATED, 0) + lifetimes.get(SUPERSEDED, 0),
        namespaces_reported=tuple(
            (old, _sentence(reason, detail)) for _, old, reason, detail in ledger.reported_lifetimes(1_000)
        ),
        places=tuple(_places(plan)),
        reasons=tuple(
            ReasonReport(
                reason=Reason(reason).name.lower(),
                text=TEXTS[Reason(reason)],
                rows=count,
                examples=tuple(example(plan, one) for one in ledger.examples(reason, EXAMPLES)),
            )
            for reason, count in ledger.reasons()
        ),
        flags=tuple((text, count) for text, count in zip(_FLAGS, ledger.flags(), strict=True) if text and count),
        shown_otherwise=ledger.count_shown(),
        shown=tuple(_shown(plan, row) for row in ledger.shown(EXAMPLES)),
        written=tuple(written),
        failed=tuple((str(address), reason) for address, reason in plan.failed),
        notes=tuple(plan.source.notes),
        seconds=0.0,
    )


def example(plan: Plan, one: Reported) -> Example:
    """Return a reported row in words."""
    origin = plan.origins[one.origin]
    old = plan.places.places[one.place].old if one.place >= 0 else ""
    return Example(database=origin.database, table=origin.table, row=one.row, old=old, key=one.key, detail=one.detail)


def lines(plan: Plan, report: MigrationReport) -> Iterator[dict[str, object]]:
    """Yield the whole report for a file: the summary, then a line for every row that was reported."""
    yield {"kind": "summary"} | report.as_dict()
    for one in plan.ledger.reported():
        found = example(plan, one)
        reason = Reason(one.reason)
        yield {"kind": "reported", "reason": reason.name.lower(), "text": TEXTS[reason]} | asdict(found)
    for row in plan.ledger.shown(-1):
        yield {"kind": "shown_otherwise"} | asdict(_shown(plan, row))


def _sentence(reason: int, detail: str) -> str:
    text = TEXTS.get(Reason(reason), "")
    return f"{text}: {detail}" if text and detail else text or detail


def _places(plan: Plan) -> Iterator[PlaceReport]:
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for place, fate, count, there in plan.ledger.of_places():
        found.setdefault(place, {})[fate] = (count, there)
    for number, one in enumerate(plan.places.places):
        fates = found.get(number, {})
        if not fates and not one.mapped:
            continue
        yield PlaceReport(
            old=one.old,
            address=None if one.address is None else str(one.address),
            read=one.read,
            migrated=fates.get(MIGRATED, (0, 0))[0],
            there=fates.get(MIGRATED, (0, 0))[1],
            expired=fates.get(EXPIRED, (0, 0))[0],
            superseded=fates.get(SUPERSEDED, (0, 0))[0],
            reported=fates.get(REPORTED, (0, 0))[0],
            reason="" if one.address is not None else one.reason,
        )


def _shown(plan: Plan, row: tuple[int, str, int, int, int, int, int, int]) -> ShownReport:
    place, key, origin, first, newest, first_at, newest_at, fate = row
    return ShownReport(
        old=plan.places.places[place].old,
        key=key,
        database=plan.origins[origin].database,
        table=plan.origins[origin].table,
        row_shown=first,
        shown_written_at=text_of(first_at if first_at >= 0 else None),
        row_newest=newest,
        newest_written_at=text_of(newest_at if newest_at >= 0 else None),
        newest_expired=fate == EXPIRED,
    )

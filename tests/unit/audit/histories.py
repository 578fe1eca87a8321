"""Journals made in memory, as the engine would write them, and walked over."""

from __future__ import annotations

import json

from prontodb.audit.chain import Walk
from prontodb.audit.report import Finding, Point
from prontodb.engine.sqlite.schema import CHAIN_START
from prontodb.engine.sqlite.writing import next_chain

Row = tuple[int, object, object, object, object, object]


def journal(commits: list[int], key: bytes = b"") -> list[Row]:
    """A journal of commits with so many changes each."""
    rows: list[Row] = []
    chain, revision = CHAIN_START, 0
    for number, size in enumerate(commits):
        first = revision + 1
        revision += size
        records = [["set", f"key{first + n}", f"{first + n:032x}", None] for n in range(size)]
        text, session, at = json.dumps(records, separators=(",", ":")), f"s-{number}", 1_000 + number
        chain = next_chain(chain, revision, first, at, session, text, key)
        rows.append((revision, first, at, session, text, chain))
    return rows


def linked(rows: list[Row], start: bytes = CHAIN_START, key: bytes = b"") -> list[Row]:
    """The same rows with a chain that holds: what somebody makes who can compute it."""
    found: list[Row] = []
    for rev, first, at, session, text, _ in rows:
        start = next_chain(start, rev, first, at, session, text, key)  # type: ignore[arg-type]
        found.append((rev, first, at, session, text, start))
    return found


def point(row: Row) -> Point:
    """An anchor made when a row was the last one."""
    assert isinstance(row[5], bytes)
    return Point(row[0], row[5].hex(), "s-anchor", 1_700_000_000_000)


def walked(rows: list[Row], points: list[Point], key: bytes = b"", page: int = 3) -> Walk:
    """A walk to the end, in pages."""
    walk = Walk(0, CHAIN_START, points, key)
    for begin in range(0, len(rows), page):
        if walk.fault is None:
            walk.page(rows[begin : begin + page])
    walk.end()
    return walk


def fault(rows: list[Row], points: list[Point], key: bytes = b"", page: int = 3) -> Finding:
    found = walked(rows, points, key, page).fault
    assert found is not None, rows
    return found

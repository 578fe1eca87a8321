"""The chain alone: whatever is done to a recorded list of rows shows, and the first bad record is named."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prontodb.audit.chain import Walk
from prontodb.audit.report import CUT, DROPPED, EDITED, PRUNED, REORDERED, REWRITTEN
from prontodb.engine.sqlite.schema import CHAIN_START
from tests.unit.audit.histories import Row, fault, journal, linked, point, walked

REV: Final = 0
FIRST: Final = 1
AT: Final = 2
SESSION: Final = 3
RECORDS: Final = 4
CHAIN: Final = 5

commits = st.lists(st.integers(1, 4), min_size=1, max_size=12)
pages = st.integers(1, 5)


def edited(row: Row, column: int, to: object) -> Row:
    return (*row[:column], to, *row[column + 1 :])  # type: ignore[return-value]


def another(row: Row, column: int, data: st.DataObject) -> object:
    """Something else of the kind that belongs into a column, or of any other kind."""
    kinds: dict[int, st.SearchStrategy[Any]] = {
        REV: st.integers(1, 50),
        FIRST: st.integers(-5, 50),
        AT: st.integers(0, 5_000),
        SESSION: st.text(max_size=8),
        RECORDS: st.sampled_from(["", "[]", "[1]", '[["set"]]', '[["del","x"]]', '[["set","key1","00",null]]']),
        CHAIN: st.binary(min_size=16, max_size=16),
    }
    kind = kinds[column] if column == REV else kinds[column] | st.none() | st.just(1.5)
    found = data.draw(kind)
    assume(found != row[column])
    return found


@given(commits, pages)
def test_what_was_recorded_is_sound_and_reaches_its_last_anchor(sizes: list[int], page: int) -> None:
    rows = journal(sizes)
    walk = walked(rows, [point(row) for row in rows], page=page)
    assert walk.fault is None
    assert (walk.revision, walk.records) == (sum(sizes), sum(sizes))
    assert walk.anchor == point(rows[-1])


@given(commits, pages, st.data())
@settings(max_examples=300)
def test_any_edit_of_any_column_is_named_by_its_record(sizes: list[int], page: int, data: st.DataObject) -> None:
    rows = journal(sizes)
    number, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(range(6)))
    changed = edited(rows[number], column, another(rows[number], column, data))
    others = [row for n, row in enumerate(rows) if n != number]
    assume(all(row[REV] != changed[REV] for row in others))  # the column is a primary key
    tampered = sorted([*others, changed], key=lambda row: row[REV])
    found = fault(tampered, [point(rows[-1])], page=page)
    first = rows[number - 1][REV] + 1 if number else 1
    # A row that was moved to an earlier place is found there; else the row itself is the first bad one.
    assert found.revision is not None
    assert found.revision <= first
    if changed[REV] >= rows[number][REV]:
        assert found.revision == first


@given(commits, pages, st.data())
def test_any_dropped_row_is_named(sizes: list[int], page: int, data: st.DataObject) -> None:
    rows = journal(sizes)
    number = data.draw(st.integers(0, len(rows) - 1))
    found = fault(rows[:number] + rows[number + 1 :], [point(rows[-1])], page=page)
    assert found.kind == (CUT if number == len(rows) - 1 else DROPPED)
    assert (found.revision, found.until) == ((rows[number - 1][REV] if number else 0) + 1, rows[number][REV])


@given(st.integers(2, 9), pages, st.data(), st.booleans())
def test_any_two_rows_that_changed_places_are_named_by_the_first(
    count: int, page: int, data: st.DataObject, with_chain: bool
) -> None:
    rows = journal([1] * count)
    one, other = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
    end = CHAIN + 1 if with_chain else CHAIN
    a, b = rows[one], rows[other]
    tampered = list(rows)
    tampered[one], tampered[other] = (*a[:AT], *b[AT:end], *a[end:]), (*b[:AT], *a[AT:end], *b[end:])  # type: ignore[assignment]
    found = fault(tampered, [point(rows[-1])], page=page)
    assert found.revision == one + 1
    # Beyond the page that is at hand nobody looks for it.
    assert found.kind in ({REORDERED} if one // page == other // page else {REORDERED, EDITED})


@given(commits, pages, st.data())
def test_a_cut_tail_is_noticed_back_to_the_last_anchor_and_not_before(
    sizes: list[int], page: int, data: st.DataObject
) -> None:
    rows = journal(sizes)
    anchored = data.draw(st.integers(0, len(rows) - 1))
    left = data.draw(st.integers(0, len(rows)))
    walk = walked(rows[:left], [point(rows[anchored])], page=page)
    if left > anchored:
        assert walk.fault is None
        return
    assert walk.fault is not None
    assert (walk.fault.kind, walk.fault.until) == (CUT, rows[anchored][REV])
    assert walk.fault.revision == (rows[left - 1][REV] if left else 0) + 1


@given(commits, pages, st.data())
def test_a_chain_computed_anew_is_caught_by_the_next_anchor(sizes: list[int], page: int, data: st.DataObject) -> None:
    rows = journal(sizes)
    number = data.draw(st.integers(0, len(rows) - 1))
    anchored = data.draw(st.integers(number, len(rows) - 1))
    before = data.draw(st.integers(0, number)) if number else 0
    forged = linked([edited(row, SESSION, "forger") if n == number else row for n, row in enumerate(rows)])
    points = [point(rows[anchored])] + ([point(rows[before])] if before < number else [])
    found = fault(forged, points, page=page)
    assert (found.kind, found.until) == (REWRITTEN, rows[anchored][REV])
    assert found.revision == (rows[before][REV] if before < number else 0) + 1


@given(commits, pages, st.data())
def test_with_a_key_nobody_without_it_can_add_a_record(sizes: list[int], page: int, data: st.DataObject) -> None:
    key = b"chain key"
    rows = journal(sizes, key)
    assert walked(rows, [], key, page).fault is None
    number = data.draw(st.integers(0, len(rows) - 1))
    start = rows[number - 1][CHAIN] if number else CHAIN_START
    assert isinstance(start, bytes)
    forged = rows[:number] + linked(rows[number:], start, b"another key")
    found = fault(forged, [], key, page)
    assert (found.kind, found.revision) == (EDITED, rows[number][FIRST])


def test_an_anchor_in_the_pruned_part_says_nothing_and_one_at_its_end_must_fit() -> None:
    rows = journal([2, 2, 2])
    floor_chain = rows[1][CHAIN]
    assert isinstance(floor_chain, bytes)
    walk = Walk(4, floor_chain, [point(rows[0]), point(rows[1]), point(rows[2])])
    walk.page(rows[2:])
    walk.end()
    assert (walk.fault, walk.anchor) == (None, point(rows[2]))
    lie = Walk(4, bytes(16), [point(rows[0]), point(rows[1])]).fault
    assert lie is not None
    assert (lie.kind, lie.until) == (PRUNED, 4)


@pytest.mark.parametrize("records", ['[["set","k","00",null],["set","k","00",null]]', "[" * 100_000, '{"a":1}'])
def test_records_that_are_none_are_an_edit_even_with_a_chain_that_holds(records: str) -> None:
    rows = linked([edited(journal([1])[0], RECORDS, records)])
    assert fault(rows, []).kind == EDITED

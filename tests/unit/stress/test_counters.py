"""The counters' checker: acknowledged raises order themselves, and time, reads and the end must agree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress.aftermath import Aftermath
from stress.checks import counters
from stress.checks.counters import EXACT, check
from stress.history import DROP, FAILED, GET, OK, OPENED, RAISE, UNKNOWN
from tests.unit.stress.histories import HALL, Story, found, stretches, texts

ONE = "counter.1"


def test_raises_reads_and_an_end_that_agree_pass_and_are_counted() -> None:
    story = Story()
    story.told(GET, ONE, None, None)
    story.told(RAISE, ONE, 1, 1)
    story.told(RAISE, ONE, 5, 6)
    story.told(GET, ONE, None, "6")
    story.told(RAISE, "counter.2", 1, 1)
    verdict = check(story.history(), found({ONE: "6", "counter.2": "1"}))
    assert verdict.violations == ()
    assert verdict.checked == {EXACT: 7}


def test_two_raises_that_end_at_the_same_sum_are_found() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, 1)
    first = story.told(RAISE, ONE, 1, 2, at=(30, 60))
    second = story.told(RAISE, ONE, 1, 2, at=(40, 50), by="agent02-1")
    verdict = check(story.history(), found({ONE: "2"}))
    assert stretches(verdict) == [(first, second)]
    assert texts(verdict) == [f"{ONE} at {HALL}: a raise to 2 and a raise to 2 overlap, so one of them was lost"]


def test_raises_that_overlap_are_found() -> None:
    story = Story()
    first = story.told(RAISE, ONE, 5, 5, at=(10, 30))
    second = story.told(RAISE, ONE, 3, 7, at=(10, 30), by="agent02-1")
    story.told(RAISE, ONE, 1, 8, at=(10, 40), by="agent03-1")
    assert stretches(check(story.history(), found({ONE: "8"}))) == [(first, second)]


def test_a_read_in_the_middle_of_a_raise_is_found() -> None:
    story = Story()
    raised = story.told(RAISE, ONE, 5, 5, at=(10, 30))
    read = story.told(GET, ONE, None, "3", at=(10, 30), by="agent02-1")
    assert stretches(check(story.history(), found({ONE: "5"}))) == [(raised, read)]


def test_a_raise_to_less_than_one_acknowledged_before_is_found() -> None:
    story = Story()
    before = story.told(RAISE, ONE, 1, 2)
    after = story.told(RAISE, ONE, 1, 1)
    assert stretches(check(story.history(), found({ONE: "2"}))) == [(before, after)]


def test_a_read_of_less_than_was_acknowledged_before_is_found() -> None:
    story = Story()
    raised = story.told(RAISE, ONE, 1, 1)
    read = story.told(GET, ONE, None, None)
    verdict = check(story.history(), found({ONE: "1"}))
    assert stretches(verdict) == [(raised, read)]
    assert texts(verdict) == [f"{ONE} at {HALL}: a read of 0 came after a raise to 1 had been acknowledged"]


def test_reads_that_go_backwards_are_found() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, 1, at=(10, 100))
    later = story.told(GET, ONE, None, "1", at=(20, 30), by="agent02-1")
    earlier = story.told(GET, ONE, None, None, at=(40, 50), by="agent02-1")
    assert stretches(check(story.history(), found({ONE: "1"}))) == [(later, earlier)]


def test_a_read_of_what_was_raised_only_afterwards_is_found() -> None:
    story = Story()
    read = story.told(GET, ONE, None, "1")
    raised = story.told(RAISE, ONE, 1, 1)
    assert stretches(check(story.history(), found({ONE: "1"}))) == [(read, raised)]


def test_reads_beside_a_raise_may_see_it_or_not() -> None:
    for seen in (None, "1"):
        story = Story()
        story.told(RAISE, ONE, 1, 1, at=(10, 40))
        story.told(GET, ONE, None, seen, at=(20, 30), by="agent02-1")
        assert stretches(check(story.history(), found({ONE: "1"}))) == []


@pytest.mark.parametrize("there", [None, "1", "3"])
def test_an_end_other_than_the_acknowledged_raises_is_found(there: str | None) -> None:
    story = Story()
    first = story.told(RAISE, ONE, 1, 1)
    second = story.told(RAISE, ONE, 1, 2)
    verdict = check(story.history(), found({} if there is None else {ONE: there}))
    assert stretches(verdict) == [(second if there else first,)]
    assert f"the end at {there or 0}" in texts(verdict)[0]


@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
def test_a_raise_of_unknown_outcome_may_have_happened_or_not(outcome: str) -> None:
    for there in ("2", "3"):
        story = Story()
        story.told(RAISE, ONE, 2, 2)
        story.told(RAISE, ONE, 1, outcome=outcome, by="agent02-1")
        assert stretches(check(story.history(), found({ONE: there}))) == []


def test_a_raise_of_unknown_outcome_may_happen_long_after_it_was_called() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, outcome=OPENED, by="agent02-1")
    story.told(RAISE, ONE, 1, 1)
    story.told(GET, ONE, None, "1")
    story.told(GET, ONE, None, "2")
    story.told(RAISE, ONE, 1, 3)
    assert stretches(check(story.history(), found({ONE: "3"}))) == []


def test_a_gap_before_any_unknown_raise_had_begun_is_found() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, 1)
    far = story.told(RAISE, ONE, 1, 3)
    story.told(RAISE, ONE, 1, outcome=OPENED, by="agent02-1")
    verdict = check(story.history(), found({ONE: "3"}))
    assert [stretch[-1] for stretch in stretches(verdict)] == [far]


def test_one_unknown_raise_fills_one_gap_and_not_two() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, outcome=UNKNOWN, by="agent02-1")
    filled = story.told(RAISE, ONE, 1, 2)
    second = story.told(RAISE, ONE, 1, 4)
    assert stretches(check(story.history(), found({ONE: "4"}))) == [(filled, second)]


def test_a_gap_that_unknown_raises_do_not_add_up_to_is_found() -> None:
    for there, is_right in (("3", True), ("5", True), ("8", True), ("4", False), ("9", False)):
        story = Story()
        story.told(RAISE, ONE, 3, outcome=OPENED)
        story.told(RAISE, ONE, 5, outcome=OPENED, by="agent02-1")
        assert (stretches(check(story.history(), found({ONE: there}))) == []) is is_right, there


def test_a_raise_that_failed_must_not_be_counted() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, 1)
    story.told(RAISE, ONE, 1, outcome=FAILED)
    assert stretches(check(story.history(), found({ONE: "1"}))) == []
    assert len(stretches(check(story.history(), found({ONE: "2"})))) == 1


def test_a_value_that_is_no_number_is_found() -> None:
    story = Story()
    read = story.told(GET, ONE, None, "token:agent02:1")
    assert stretches(check(story.history(), found())) == [(read,)]


def test_too_many_unknown_raises_leave_the_question_open_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MOST_UNKNOWN", 10)
    story = Story()
    story.told(RAISE, ONE, 11, outcome=OPENED)
    verdict = check(story.history(), found({ONE: "4"}))
    assert (verdict.violations, verdict.undecided) == ((), 1)


def test_counters_of_dropped_and_of_unreadable_addresses_have_no_end() -> None:
    story = Story()
    story.told(RAISE, ONE, 1, 1)
    assert check(story.history(), Aftermath()).checked == {EXACT: 1}
    story.told(DROP, outcome=OPENED)
    verdict = check(story.history(), found())
    assert (verdict.violations, verdict.checked, len(verdict.notes)) == ((), {}, 1)


@settings(max_examples=50)
@given(st.data())
def test_a_right_counter_always_passes_and_one_with_a_lost_raise_never(data: st.DataObject) -> None:
    """Points are chosen inside intervals; raises that never returned may have happened."""
    story, total, raised = Story(), 0, 0
    for point in range(100, 100 + 10 * data.draw(st.integers(1, 20)), 10):
        at = (point - data.draw(st.integers(1, 60)), point + data.draw(st.integers(1, 60)))
        kind = data.draw(st.sampled_from([OK, OK, UNKNOWN, OPENED, GET]))
        by = data.draw(st.integers(1, 3))
        if kind == GET:
            story.told(GET, ONE, None, str(total) if total else None, at=at, by=f"reader{point}-1")
        elif kind == OK:
            total += by
            raised += 1
            story.told(RAISE, ONE, by, total, at=at, by=f"raiser{point}-1")
        else:
            total += by if data.draw(st.booleans()) else 0
            story.told(RAISE, ONE, by, outcome=kind, at=at, by=f"raiser{point}-1")
    assert stretches(check(story.history(), found({ONE: str(total)}))) == []
    if raised:
        assert stretches(check(story.history(), found()))

"""The pairs' checker: both halves are of one transaction, that was begun and did not fail."""

from __future__ import annotations

import pytest

from stress.checks.registers import LINEARIZABLE
from stress.checks.transactions import UNSEEN, WHOLE, check
from stress.history import DROP, FAILED, GET_MANY, OK, OPENED, TRANSACT, UNKNOWN, Operation
from tests.unit.stress.histories import HALL, Story, found, stretches, texts

LEFT, RIGHT = "pair.1.left", "pair.1.right"


def both(value: str) -> dict[str, str]:
    return {LEFT: value, RIGHT: value}


def write(story: Story, value: str, outcome: str = OK) -> Operation:
    return story.told(TRANSACT, LEFT, both(value), outcome=outcome)


def read(story: Story, left: str | None, right: str | None, at: tuple[int, int] | None = None) -> Operation:
    return story.told(GET_MANY, LEFT, [LEFT, RIGHT], {LEFT: left, RIGHT: right}, at=at, by="agent02-1")


def test_whole_pairs_pass_and_are_counted() -> None:
    story = Story()
    read(story, None, None)
    write(story, "a")
    read(story, "a", "a")
    write(story, "b")
    verdict = check(story.history(), found(both("b")))
    assert verdict.violations == ()
    assert verdict.checked == {UNSEEN: 2, WHOLE: 1, LINEARIZABLE: 5}


def test_a_whole_transaction_that_was_acknowledged_and_is_lost_is_found() -> None:
    story = Story()
    write(story, "a")
    lost = write(story, "b")
    verdict = check(story.history(), found(both("a")))
    (stretch,) = stretches(verdict)
    assert (lost.process, lost.number) in {(one.process, one.number) for one in stretch}
    assert verdict.violations[0].promise == LINEARIZABLE
    assert check(story.history(), found({})).violations


def test_a_whole_pair_that_is_read_after_another_took_its_place_is_found() -> None:
    story = Story()
    write(story, "a")
    write(story, "b")
    read(story, "a", "a")
    assert [one.promise for one in check(story.history(), found(both("b"))).violations] == [LINEARIZABLE]


def test_halves_of_two_transactions_are_found() -> None:
    story = Story()
    first, second = write(story, "a"), write(story, "b")
    torn = read(story, "a", "b")
    verdict = check(story.history(), found(both("b")))
    assert stretches(verdict) == [(first, second, torn)]
    assert texts(verdict) == [f"pair.1 at {HALL} was torn: its halves were of different transactions"]
    assert verdict.violations[0].promise == UNSEEN


@pytest.mark.parametrize("outcome", [OK, UNKNOWN, OPENED])
def test_half_a_transaction_is_found(outcome: str) -> None:
    story = Story()
    written = write(story, "a", outcome)
    torn = read(story, None, "a")
    assert stretches(check(story.history(), found(both("a")))) == [(written, torn)]


@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
def test_a_transaction_of_unknown_outcome_may_be_seen_or_not(outcome: str) -> None:
    for seen in ("a", "b"):
        story = Story()
        write(story, "a")
        write(story, "b", outcome)
        read(story, seen, seen)
        assert stretches(check(story.history(), found(both(seen)))) == []


def test_a_transaction_seen_while_it_runs_is_right() -> None:
    story = Story()
    story.told(TRANSACT, LEFT, both("a"), at=(10, 40))
    read(story, "a", "a", at=(20, 30))
    assert stretches(check(story.history(), found(both("a")))) == []


def test_a_transaction_seen_before_it_began_is_found() -> None:
    story = Story()
    early = read(story, "a", "a")
    late = write(story, "a")
    verdict = check(story.history(), found(both("a")))
    assert stretches(verdict) == [(early, late)]
    assert "that had not begun" in texts(verdict)[0]


def test_a_transaction_that_said_it_failed_and_was_seen_is_found() -> None:
    story = Story()
    failed = write(story, "a", FAILED)
    seen = read(story, "a", "a")
    verdict = check(story.history(), found())
    assert stretches(verdict) == [(failed, seen)]
    assert "said it failed" in texts(verdict)[0]


def test_a_value_that_no_transaction_wrote_is_found() -> None:
    story = Story()
    write(story, "a")
    seen = read(story, "a", "x")
    verdict = check(story.history(), found(both("a")))
    assert stretches(verdict) == [(seen,)]
    assert texts(verdict) == [f"pair.1 at {HALL}: {RIGHT} had a value that no transaction wrote"]


def test_a_pair_that_lies_there_torn_is_found() -> None:
    story = Story()
    written = write(story, "a", OPENED)
    verdict = check(story.history(), found({LEFT: "a"}))
    assert [(violation.promise, violation.stretch) for violation in verdict.violations] == [(WHOLE, (written,))]


def test_a_failed_transaction_that_lies_there_is_found() -> None:
    story = Story()
    failed = write(story, "a", FAILED)
    assert stretches(check(story.history(), found(both("a")))) == [(failed,)]


def test_reads_that_did_not_end_and_dropped_addresses_say_nothing() -> None:
    story = Story()
    write(story, "a")
    story.told(GET_MANY, LEFT, [LEFT, RIGHT], outcome=UNKNOWN)
    assert check(story.history(), found(both("a"))).checked == {WHOLE: 1, LINEARIZABLE: 2}
    story.told(DROP)
    verdict = check(story.history(), found({LEFT: "a"}))
    assert (verdict.violations, verdict.checked, len(verdict.notes)) == ((), {}, 1)

"""The ledger's checker: what was acknowledged is there, what failed is not, and nothing is half there."""

from __future__ import annotations

import pytest

from stress.aftermath import Aftermath
from stress.checks.acknowledged import KEPT, REFUSED, WHOLE, check
from stress.history import (
    COPY,
    DROP,
    FAILED,
    OK,
    OPENED,
    RENAME,
    SET,
    SET_MANY,
    TRANSACT,
    UNKNOWN,
)
from tests.unit.stress.histories import HALL, Story, found, stretches, texts

ONE, TWO, THREE = (f"ledger.agent01-1.{number}" for number in (1, 2, 3))
BOTH = {TWO: "ledger:agent01-1:2", THREE: "ledger:agent01-1:3"}


def test_what_was_acknowledged_and_is_there_passes_and_is_counted() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    story.told(SET_MANY, TWO, BOTH)
    verdict = check(story.history(), found({ONE: "a", **BOTH, "token.agent01.1": "of no concern here"}))
    assert verdict.violations == ()
    assert verdict.checked == {KEPT: 3, WHOLE: 1}


def test_an_acknowledged_write_that_is_gone_is_found() -> None:
    story = Story()
    story.told(SET, TWO, "b", 1)
    lost = story.told(SET, ONE, "a", 2)
    verdict = check(story.history(), found({TWO: "b"}))
    assert stretches(verdict) == [(lost,)]
    assert texts(verdict) == [f"acknowledged write of {ONE} at {HALL} is gone"]
    assert verdict.violations[0].promise == KEPT


def test_each_lost_key_of_an_acknowledged_operation_is_found() -> None:
    story = Story()
    written = story.told(TRANSACT, TWO, BOTH)
    assert stretches(check(story.history(), found(BOTH))) == []
    assert stretches(check(story.history(), found({TWO: BOTH[TWO]}))) == [(written,)]
    assert stretches(check(story.history(), found())) == [(written,), (written,)]


def test_another_value_than_the_acknowledged_one_is_found() -> None:
    story = Story()
    written = story.told(SET, ONE, "a", 1)
    verdict = check(story.history(), found({ONE: "b"}))
    assert stretches(verdict) == [(written,)]
    assert "a value that nobody wrote there" in texts(verdict)[0]


def test_a_key_that_nobody_tried_to_write_is_found() -> None:
    verdict = check(Story().history(), found({ONE: "a"}))
    assert [(violation.promise, violation.stretch) for violation in verdict.violations] == [(KEPT, ())]


@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
@pytest.mark.parametrize("there", [{}, {ONE: "a"}])
def test_a_write_of_unknown_outcome_may_be_there_or_not(outcome: str, there: dict[str, str]) -> None:
    story = Story()
    story.told(SET, ONE, "a", outcome=outcome)
    assert stretches(check(story.history(), found(there))) == []


@pytest.mark.parametrize("op", [SET_MANY, TRANSACT])
@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
def test_an_operation_of_unknown_outcome_that_is_half_there_is_found(op: str, outcome: str) -> None:
    story = Story()
    halved = story.told(op, TWO, BOTH, outcome=outcome)
    for whole in ({}, BOTH):
        assert stretches(check(story.history(), found(whole))) == []
    verdict = check(story.history(), found({THREE: BOTH[THREE]}))
    assert [(violation.promise, violation.stretch) for violation in verdict.violations] == [(WHOLE, (halved,))]
    assert "1 of its 2 keys" in texts(verdict)[0]


def test_a_write_that_said_it_failed_and_is_there_is_found() -> None:
    story = Story()
    refused = story.told(SET, ONE, "a", outcome=FAILED, error="StorageFullError")
    assert check(story.history(), found()).checked[REFUSED] == 1
    verdict = check(story.history(), found({ONE: "a"}))
    assert [(violation.promise, violation.stretch) for violation in verdict.violations] == [(REFUSED, (refused,))]


def test_a_write_that_failed_and_was_repeated_may_be_there() -> None:
    story = Story()
    story.told(SET, ONE, "a", outcome=FAILED)
    story.told(SET, ONE, "a", 1)
    assert stretches(check(story.history(), found({ONE: "a"}))) == []


def test_an_address_that_cannot_be_read_is_one_violation_for_all_that_was_acknowledged_there() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    last = story.told(SET, TWO, "b", 2)
    story.told(SET, THREE, "c", outcome=OPENED)
    for errors, why in (([], "it is not there"), ([f"{HALL}: damaged"], f"{HALL}: damaged")):
        verdict = check(story.history(), Aftermath(errors=errors))
        assert stretches(verdict) == [(last,)]
        assert texts(verdict) == [f"2 acknowledged keys at {HALL} cannot be read: {why}"]


def test_an_address_where_nothing_was_acknowledged_need_not_exist() -> None:
    story = Story()
    story.told(SET, ONE, "a", outcome=OPENED)
    assert stretches(check(story.history(), Aftermath())) == []


@pytest.mark.parametrize("outcome", [OK, UNKNOWN, OPENED])
def test_addresses_that_were_dropped_or_renamed_are_left_out_and_said_to_be(outcome: str) -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    story.told(SET, ONE, "a", 1, address="hall/other")
    story.told(DROP, address=HALL, outcome=outcome)
    story.told(RENAME, address="hall/other", argument="hall/new", outcome=outcome)
    verdict = check(story.history(), found({ONE: "a"}, address="hall/new"))
    assert verdict.violations == ()
    assert verdict.notes == (f"not judged, since dropped, renamed, restored or copied over: hall/other, {HALL}",)


def test_a_drop_that_failed_excuses_nothing() -> None:
    story = Story()
    lost = story.told(SET, ONE, "a", 1)
    story.told(DROP, outcome=FAILED)
    assert stretches(check(story.history(), found())) == [(lost,)]


def test_a_copy_excuses_its_destination_alone() -> None:
    story = Story()
    lost = story.told(SET, ONE, "a", 1)
    story.told(COPY, argument="hall/copy")
    aftermath = Aftermath(contents={HALL: {}, "hall/copy": {ONE: ("a", 1)}})
    assert stretches(check(story.history(), aftermath)) == [(lost,)]

"""Who made and deleted an address, and who found it there, must fit into one order."""

from __future__ import annotations

import pytest

from stress.aftermath import Aftermath
from stress.checks.lifecycle import PROMISE, check
from tests.unit.stress.made import Made, clean, judge, only

POOL = "pool/0001"
THERE, GONE = Aftermath(folders=[POOL]), Aftermath()


def created(
    made: Made, at: int, *, result: bool = True, by: str = "a01-1", outcome: str = "ok", error: str = ""
) -> None:
    made.did(by, "create", at=at, address=POOL, result=result, outcome=outcome, error=error)


def dropped(
    made: Made, at: int, *, result: bool = True, by: str = "a01-1", outcome: str = "ok", error: str = ""
) -> None:
    made.did(by, "drop", at=at, address=POOL, result=result, outcome=outcome, error=error)


def absent(made: Made, op: str, at: int) -> None:
    made.did("a02-1", op, at=at, address=POOL, outcome="failed", error="AddressNotFoundError")


def test_a_life_from_making_to_deleting_is_clean_and_counted() -> None:
    made = Made()
    absent(made, "open", 1)
    created(made, 10)
    created(made, 12, result=False, by="a02-1")
    made.opened("a02-1", "s1", at=14, address=POOL)
    dropped(made, 20)
    dropped(made, 22, result=False, by="a02-1")
    absent(made, "copy", 24)
    # Seven that say what they found, and the last look.
    assert clean(judge(check, made, GONE)) == {PROMISE: 8}


@pytest.mark.parametrize("op", ["open", "copy", "rename", "drop"])
def test_nobody_finds_nothing_where_an_address_is(op: str) -> None:
    made = Made()
    created(made, 10)
    absent(made, op, 20)
    violation = only(judge(check, made, THERE))
    assert violation.promise == PROMISE
    assert violation.text.startswith("who made and deleted it cannot be put in order: ")
    assert POOL in violation.text
    assert [one.called_ns // 1_000_000 for one in violation.stretch][:2] == [10, 20]


def test_nobody_is_let_in_where_no_address_is() -> None:
    made = Made()
    created(made, 10)
    dropped(made, 20)
    made.opened("a02-1", "s1", at=30, address=POOL)
    assert [one.called_ns // 1_000_000 for one in only(judge(check, made, GONE)).stretch] == [20, 30]


@pytest.mark.parametrize("result", [True, False])
def test_making_and_deleting_say_whether_they_did_it(result: bool) -> None:
    made = Made()
    created(made, 10)
    dropped(made, 20)
    dropped(made, 30, result=result)
    created(made, 40, result=not result)
    created(made, 50, result=result)
    verdict = judge(check, made, THERE)
    if result:
        only(verdict)
    else:
        assert clean(verdict) == {PROMISE: 6}


def test_an_address_that_was_made_and_is_not_there_at_the_end_is_found() -> None:
    made = Made()
    created(made, 10)
    assert clean(judge(check, made, THERE)) == {PROMISE: 2}
    assert "a read returned nothing" in only(judge(check, made, GONE)).text


def test_an_address_that_was_deleted_and_is_there_at_the_end_is_found() -> None:
    made = Made()
    created(made, 10)
    dropped(made, 20)
    only(judge(check, made, THERE))


@pytest.mark.parametrize("outcome", ["unknown", "open"])
@pytest.mark.parametrize("aftermath", [THERE, GONE], ids=["there", "gone"])
def test_what_nobody_knows_the_outcome_of_may_have_happened_or_not(outcome: str, aftermath: Aftermath) -> None:
    made = Made()
    created(made, 10)
    dropped(made, 20, outcome=outcome)
    clean(judge(check, made, aftermath))


def test_a_deletion_that_was_refused_did_nothing() -> None:
    made = Made()
    created(made, 10)
    dropped(made, 20, outcome="failed", error="AddressBusyError")
    clean(judge(check, made, THERE))
    only(judge(check, made, GONE))


def test_those_that_overlap_may_have_come_in_any_order() -> None:
    made = Made()
    created(made, 10)
    made.did("a01-1", "drop", at=20, until=40, address=POOL, result=True)
    made.opened("a02-1", "s1", at=30, address=POOL)
    made.did("a03-1", "open", at=31, address=POOL, outcome="failed", error="AddressNotFoundError")
    clean(judge(check, made, GONE))


def test_a_renamed_address_is_gone_from_its_old_name() -> None:
    made = Made()
    created(made, 10)
    made.did("a01-1", "rename", "", {"target": "moved/a01-1-1"}, at=20, address=POOL)
    assert clean(judge(check, made, GONE)) == {PROMISE: 3}
    only(judge(check, made, THERE))
    made.did("a02-1", "rename", "", {"target": "moved/a02-1-1"}, at=30, address=POOL)
    only(judge(check, made, GONE))


def test_other_refusals_say_nothing_of_whether_it_exists() -> None:
    made = Made()
    created(made, 10)
    made.did("a02-1", "open", at=20, address=POOL, outcome="failed", error="WaitTimeoutError")
    made.did("a02-1", "set", "mark.left", "v", at=30, address=POOL, outcome="failed", error="FencedError")
    assert clean(judge(check, made, THERE)) == {PROMISE: 2}


def test_addresses_that_nobody_makes_or_deletes_are_not_asked() -> None:
    made = Made()
    made.opened("a02-1", "s1", at=14, address="hall/000")
    made.did("a02-1", "open", at=20, address="hall/000", outcome="failed", error="AddressNotFoundError")
    assert clean(judge(check, made, GONE)) == {}


def test_each_address_is_judged_by_itself() -> None:
    made = Made()
    created(made, 10)
    made.did("a01-1", "drop", at=20, address="pool/0002", result=True)
    made.did("a01-1", "create", at=12, address="pool/0002", result=True)
    made.did("a01-1", "create", at=30, address="pool/0003", result=True)
    assert "pool/0003" in only(judge(check, made, THERE)).text

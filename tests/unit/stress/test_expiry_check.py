"""What counts as read too late or gone too early, and what nobody can know."""

import pytest

from stress.aftermath import Aftermath
from stress.checks.expiry import check
from stress.history import Operation
from tests.unit.stress.made import HOME, MS, Made, clean, judge, only

KEY = "lease.1"


def lend(made: Made, value: str, ttl: int, *, at: int, process: str = "a01-1", **more: object) -> Operation:
    return made.did(process, "lend", KEY, [value, ttl], 1, at=at, **more)  # type: ignore[arg-type]


def renew(made: Made, ttl: int, *, at: int, result: bool | None = True, **more: object) -> Operation:
    return made.did("a02-1", "renew", KEY, ttl, result, at=at, **more)  # type: ignore[arg-type]


def get(made: Made, value: str | None, *, at: int, until: int | None = None) -> Operation:
    return made.did("a03-1", "get", KEY, None, value, at=at, until=until)


@pytest.fixture
def made() -> Made:
    """At 10 something was lent for 100: it is there until 108, and gone from 114 on; between them nobody knows."""
    made = Made()
    lend(made, "v1", 100, at=10)
    return made


def test_there_while_it_lives_and_gone_afterwards_is_clean(made: Made) -> None:
    get(made, "v1", at=20)
    get(made, None, at=107, until=112)
    get(made, "v1", at=109)
    get(made, None, at=200)
    assert clean(judge(check, made)) == {17: 2, 18: 1}


def test_a_value_after_its_end_is_found(made: Made) -> None:
    late = get(made, "v1", at=150)
    violation = only(judge(check, made))
    assert violation.promise == 17
    assert violation.stretch == (made.history.operations[0], late)
    assert violation.text == (
        "a03-1 read lease.1 at team/one and was told 'v1', lent for 100.0 ms by a01-1: 36.9 ms after its end"
    )


def test_nothing_while_it_lives_is_found(made: Made) -> None:
    early = get(made, None, at=50)
    violation = only(judge(check, made))
    assert violation.promise == 18
    assert violation.stretch == (made.history.operations[0], early)
    assert violation.text == (
        "a03-1 found nothing under lease.1 at team/one, though a01-1 had lent it as 'v1', "
        "and it had at least 56.9 ms to live"
    )


def test_reads_of_many_keys_count_too(made: Made) -> None:
    made.did("a03-1", "get_many", KEY, [KEY], {KEY: None}, at=50)
    only(judge(check, made))


def test_a_renewal_begins_the_time_anew(made: Made) -> None:
    renewal = renew(made, 100, at=60)
    get(made, "v1", at=150)
    assert clean(judge(check, made)) == {17: 1, 18: 1}
    early = get(made, None, at=151)
    violation = only(judge(check, made))
    assert violation.stretch == (renewal, early)
    assert "a02-1 had renewed it" in violation.text


def test_a_value_after_the_end_of_its_renewal_is_found(made: Made) -> None:
    renewal = renew(made, 100, at=60)
    late = get(made, "v1", at=170)
    violation = only(judge(check, made))
    assert violation.stretch == (made.history.operations[0], renewal, late)
    assert "and renewed by a02-1: 6.9 ms after its end" in violation.text


@pytest.mark.parametrize("outcome", ["unknown", "open"])
def test_a_renewal_that_may_have_been_excuses_both(made: Made, outcome: str) -> None:
    renew(made, 60, at=90, result=None, outcome=outcome)
    get(made, "v1", at=150)
    get(made, None, at=155)
    assert clean(judge(check, made)) == {17: 1}


def test_a_renewal_that_may_have_been_adds_no_more_than_its_time(made: Made) -> None:
    renew(made, 60, at=90, result=None, outcome="open")
    get(made, "v1", at=250)
    assert only(judge(check, made)).promise == 17


def test_a_renewal_that_may_have_shortened_it_excuses_nothing_found(made: Made) -> None:
    renew(made, 10, at=20, result=None, outcome="unknown")
    get(made, None, at=80)
    assert clean(judge(check, made)) == {}


def test_of_renewals_that_may_have_been_one_may_have_made_room_for_the_next(made: Made) -> None:
    renew(made, 60, at=90, result=None, outcome="open")
    renew(made, 60, at=160, result=None, outcome="open")
    get(made, "v1", at=200)
    assert clean(judge(check, made)) == {17: 1}


@pytest.mark.parametrize("outcome", ["ok", "failed"])
def test_a_renewal_that_did_nothing_changes_nothing(made: Made, outcome: str) -> None:
    renew(made, 100, at=90, result=False, outcome=outcome)
    get(made, "v1", at=150)
    assert only(judge(check, made)).promise == 17


def test_a_renewal_after_the_end_can_bring_nothing_back(made: Made) -> None:
    renew(made, 100, at=140, result=None, outcome="open")
    get(made, "v1", at=150)
    assert only(judge(check, made)).promise == 17


def test_a_deletion_in_between_or_perhaps_in_between_excuses_nothing_found(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, True, at=30, until=60)
    get(made, None, at=50)
    get(made, None, at=70)
    assert clean(judge(check, made)) == {}


def test_a_deletion_that_found_nothing_excuses_nobody(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, False, at=30)
    get(made, None, at=50)
    only(judge(check, made))


def test_a_deletion_before_the_loan_excuses_nobody(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, True, at=5)
    get(made, None, at=50)
    only(judge(check, made))


def test_a_loan_at_the_same_time_may_come_first_or_last() -> None:
    made = Made()
    lend(made, "v1", 100, at=10, until=20)
    lend(made, "v2", 15, at=12, until=18, process="a02-1")
    get(made, None, at=50)
    get(made, "v1", at=60)
    get(made, "v2", at=21)
    assert clean(judge(check, made)) == {17: 2, 18: 1}


def test_a_loan_at_the_same_time_gives_the_other_no_more_time() -> None:
    made = Made()
    first = lend(made, "v1", 15, at=10, until=20)
    lend(made, "v2", 100, at=12, until=18, process="a02-1")
    late = get(made, "v1", at=60)
    assert only(judge(check, made)).stretch == (first, late)


def test_what_was_replaced_before_is_found(made: Made) -> None:
    second = lend(made, "v2", 100, at=30, process="a02-1")
    stale = get(made, "v1", at=50)
    violation = only(judge(check, made))
    assert violation.promise == 18
    assert violation.stretch == (made.history.operations[0], second, stale)
    assert "told 'v1', though a02-1 had lent it as 'v2' since" in violation.text


def test_a_loan_nobody_knows_of_is_no_proof() -> None:
    made = Made()
    lend(made, "v1", 100, at=10, outcome="unknown")
    get(made, None, at=50)
    get(made, "v1", at=500)
    assert clean(judge(check, made)) == {}


def test_the_next_acknowledged_write_of_its_session_settles_what_was_unknown(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, None, at=20, outcome="unknown", session="s2")
    get(made, None, at=25)
    assert clean(judge(check, made)) == {}
    made.did("a02-1", "lend", "lease.2", ["w", 100], 1, at=30, session="s2")
    lend(made, "v2", 100, at=40)
    get(made, None, at=50)
    assert only(judge(check, made)).promise == 18


def test_the_next_life_settles_what_a_killed_process_had_begun(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, None, at=20, outcome="open")
    made.did("a02-2", "get", "lease.2", None, None, at=30)
    lend(made, "v2", 100, at=40)
    get(made, None, at=50)
    assert only(judge(check, made)).promise == 18


def test_what_a_stopped_process_had_begun_long_ago_may_still_come(made: Made) -> None:
    made.did("a02-1", "delete", KEY, None, None, at=20, until=9_000)
    lend(made, "v2", 5_000, at=4_000)
    get(made, None, at=5_000)
    assert clean(judge(check, made)) == {}


@pytest.mark.parametrize(("op", "argument"), [("drop", None), ("restore", None), ("copy", {"target": HOME})])
def test_a_keystore_that_was_replaced_meanwhile_tells_nothing(made: Made, op: str, argument: object) -> None:
    made.did("a09-1", op, "", argument, at=30, address="team/two" if op == "copy" else HOME)
    get(made, None, at=50)
    get(made, "v1", at=500)
    assert clean(judge(check, made)) == {}


def test_the_same_key_elsewhere_is_another_lease(made: Made) -> None:
    made.did("a03-1", "get", KEY, None, None, at=50, address="team/two")
    assert clean(judge(check, made)) == {}


def test_what_overlaps_a_wrong_clock_is_not_judged() -> None:
    made = Made()
    made.fault("clock", at=40, until=60)
    lend(made, "v1", 100, at=39, until=41)
    get(made, None, at=50)
    get(made, None, at=70)
    get(made, "v1", at=900)
    assert clean(judge(check, made)) == {}


def test_a_lease_that_a_wrong_clock_ended_is_found_once_the_clock_is_right(made: Made) -> None:
    made.fault("clock", at=30, until=40)
    get(made, None, at=35)
    lost = get(made, None, at=50)
    violation = only(judge(check, made))
    assert violation.promise == 19
    assert violation.stretch == (made.history.operations[0], lost)
    assert "after the wall clock was set right again" in violation.text


def test_a_lease_that_outlived_a_wrong_clock_is_clean(made: Made) -> None:
    made.fault("clock", at=30, until=40)
    get(made, "v1", at=50)
    assert clean(judge(check, made)) == {17: 1, 19: 1}


def test_between_two_faults_of_the_clock_nothing_is_judged(made: Made) -> None:
    made.fault("clock", at=30, until=40)
    made.fault("clock", at=60, until=None)
    get(made, None, at=50)
    get(made, None, at=70)
    assert clean(judge(check, made)) == {}


def test_a_renewal_under_a_wrong_clock_ends_nobody_knows_when(made: Made) -> None:
    made.fault("clock", at=30, until=40)
    renew(made, 10, at=35)
    get(made, None, at=50)
    get(made, "v1", at=900)
    assert clean(judge(check, made)) == {}


@pytest.mark.parametrize(
    ("contents", "read_at", "promise"), [({}, 50, 18), ({KEY: ("v1", 1)}, 500, 17), ({KEY: ("v2", 1)}, 500, 10)]
)
def test_the_last_look_is_a_read(made: Made, contents: dict[str, tuple[str, int]], read_at: int, promise: int) -> None:
    facts: dict[str, object] = {"read_ns": (read_at * MS, (read_at + 1) * MS)}
    verdict = judge(check, made, Aftermath(contents={HOME: contents}, facts=facts))
    assert [violation.promise for violation in verdict.violations] == ([promise])


def test_a_last_look_without_its_moment_or_address_is_none(made: Made) -> None:
    assert clean(judge(check, made, Aftermath(contents={HOME: {}}))) == {}
    assert clean(judge(check, made, Aftermath(facts={"read_ns": (50 * MS, 51 * MS)}))) == {}


def test_a_value_that_nobody_lent_there_is_found(made: Made) -> None:
    get(made, "another", at=20)
    assert only(judge(check, made)).promise == 10


def test_a_value_that_was_lent_elsewhere_is_found(made: Made) -> None:
    elsewhere = lend(made, "w1", 100, at=12, address="team/two")
    read = get(made, "w1", at=20)
    violation = only(judge(check, made))
    assert (violation.promise, violation.stretch) == (7, (elsewhere, read))

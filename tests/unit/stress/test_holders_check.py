"""What counts as two sessions at one address, and what does not."""

import pytest

from stress.checks.holders import check
from tests.unit.stress.made import Made, clean, judge, only


def test_a_hand_over_is_clean() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.closed("a01-1", "s1", at=10, until=30)
    made.opened("a02-1", "s2", at=2, until=10)
    assert clean(judge(check, made)) == {13: 1}


def test_sessions_at_different_addresses_never_meet() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.opened("a02-1", "s2", at=2, address="team/two")
    made.did("a01-1", "get", at=50, session="s1")
    assert clean(judge(check, made)) == {}


def test_two_exclusive_sessions_at_once_are_found() -> None:
    made = Made()
    first = made.opened("a01-1", "s1", at=1)
    second = made.opened("a02-1", "s2", at=5)
    closing = made.closed("a01-1", "s1", at=10)
    made.closed("a02-1", "s2", at=12)
    violation = only(judge(check, made))
    assert violation.promise == 13
    assert violation.stretch == (first, second, closing)
    assert violation.text == (
        "a02-1 opened exclusive session s2 at team/one while a01-1 was there with exclusive session s1, "
        "and stayed at least 4.0 ms longer"
    )


@pytest.mark.parametrize(("first_mode", "second_mode"), [("shared", "exclusive"), ("exclusive", "shared")])
def test_an_exclusive_session_beside_a_shared_one_is_found(first_mode: str, second_mode: str) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, mode=first_mode)
    made.opened("a02-1", "s2", at=5, mode=second_mode)
    made.closed("a01-1", "s1", at=10)
    assert f"{second_mode} session s2" in only(judge(check, made)).text


def test_shared_sessions_and_readers_may_be_there_together() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, mode="shared")
    made.opened("a02-1", "s2", at=2, mode="shared")
    made.opened("a03-1", "s3", at=3, mode="read")
    for number in (1, 2, 3):
        made.closed(f"a0{number}-1", f"s{number}", at=10)
    made.opened("a04-1", "s4", at=20)
    made.closed("a04-1", "s4", at=30)
    assert clean(judge(check, made)) == {13: 1}


def test_the_longest_stay_counts_not_the_latest() -> None:
    made = Made()
    long = made.opened("a01-1", "s1", at=1, mode="shared")
    made.opened("a02-1", "s2", at=2, mode="shared")
    made.closed("a02-1", "s2", at=4)
    intruder = made.opened("a03-1", "s3", at=10)
    leaving = made.closed("a01-1", "s1", at=20)
    assert only(judge(check, made)).stretch == (long, intruder, leaving)


def test_a_killed_holder_is_there_until_it_was_last_heard_of() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.did("a01-1", "set", "ledger.a01-1.1", "v", at=9, session="s1", outcome="open")
    made.opened("a02-1", "s2", at=8, until=10)
    assert clean(judge(check, made)) == {13: 1}


def test_a_holder_without_an_end_that_is_heard_of_afterwards_is_found() -> None:
    made = Made()
    first = made.opened("a01-1", "s1", at=1)
    second = made.opened("a02-1", "s2", at=5)
    sign = made.did("a01-1", "set", "ledger.a01-1.1", "v", at=9, session="s1", outcome="open")
    assert only(judge(check, made)).stretch == (first, second, sign)


def test_an_abandoned_session_is_not_there_because_its_process_goes_on() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.opened("a02-1", "s2", at=5)
    made.closed("a02-1", "s2", at=8)
    made.opened("a01-1", "s3", at=10)
    made.closed("a01-1", "s3", at=20)
    assert clean(judge(check, made)) == {13: 2}


@pytest.mark.parametrize("outcome", ["ok", "unknown", "open"])
def test_who_was_put_out_by_force_is_gone_from_the_call_on(outcome: str) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.did("faults-1", "evict", at=4, session="s1", outcome=outcome)
    made.opened("a02-1", "s2", at=5)
    made.closed("a01-1", "s1", at=10)
    assert clean(judge(check, made)) == {13: 1}


def test_a_take_over_of_another_session_excuses_nobody() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.did("faults-1", "evict", at=4, session="s9")
    made.opened("a02-1", "s2", at=5)
    made.closed("a01-1", "s1", at=10)
    only(judge(check, made))


@pytest.mark.parametrize("at", [0, 4], ids=["written down before it opened", "while it was there"])
def test_a_lock_file_that_a_fault_deleted_explains_the_second(at: int) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.fault("locks", "team/one", at=at)
    made.opened("a02-1", "s2", at=5)
    made.closed("a01-1", "s1", at=10)
    assert clean(judge(check, made)) == {13: 1}


@pytest.mark.parametrize(("target", "at", "until"), [("team/two", 4, None), ("team/one", 20, None), ("team/one", 0, 1)])
def test_a_fault_elsewhere_or_at_another_time_excuses_nobody(target: str, at: int, until: int | None) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.fault("locks", target, at=at, until=until)
    made.opened("a02-1", "s2", at=5)
    made.closed("a01-1", "s1", at=10)
    only(judge(check, made))


def test_a_lost_registry_excuses_nobody() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.fault("registry", "registry", at=4)
    made.opened("a02-1", "s2", at=5)
    made.closed("a01-1", "s1", at=10)
    only(judge(check, made))


def test_an_opening_that_was_refused_is_no_session() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.did("a02-1", "open", "", {"mode": "exclusive"}, at=5, outcome="failed", error="AddressBusyError")
    made.closed("a01-1", "s1", at=10)
    assert clean(judge(check, made)) == {}

"""The registers' checker: what no order explains is found and shown by few operations, what some order does passes."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.aftermath import Aftermath
from stress.checks import registers
from stress.checks.registers import LINEARIZABLE, check, contradiction, is_impossible
from stress.checks.steps import NEVER, steps_of
from stress.history import CAS, DELETE, DROP, FAILED, GET, OK, OPENED, SET, UNKNOWN, Operation
from tests.unit.stress.histories import HALL, Story, found, stretches, texts
from tests.unit.stress.right_register import answer, simulate

ONE = "register.1"


def test_a_right_history_passes_and_is_counted() -> None:
    story = Story()
    story.told(GET, ONE, None, None)
    story.told(SET, ONE, "a", 1)
    story.told(GET, ONE, None, "a")
    story.told(CAS, ONE, ["a", "b"], True)
    story.told(CAS, ONE, ["a", "c"], False)
    story.told(GET, ONE, None, "b")
    story.told(DELETE, ONE, None, True)
    story.told(DELETE, ONE, None, False)
    story.told(CAS, ONE, [None, "d"], True)
    verdict = check(story.history(), found({ONE: "d"}))
    assert (verdict.violations, verdict.undecided) == ((), 0)
    assert verdict.checked == {LINEARIZABLE: 10}


def test_a_stale_read_is_found_and_shown_by_three_operations() -> None:
    story = Story()
    story.told(SET, ONE, "x", 1)
    story.told(GET, ONE, None, "x")
    old = story.told(SET, ONE, "a", 1)
    story.told(GET, ONE, None, "a")
    new = story.told(SET, ONE, "b", 2)
    stale = story.told(GET, ONE, None, "a", by="agent02-1")
    story.told(GET, ONE, None, "b")
    verdict = check(story.history(), found({ONE: "b"}))
    assert stretches(verdict) == [(old, new, stale)]
    assert texts(verdict) == [
        f"{ONE} at {HALL}: a read returned a, which no order of what was done before and meanwhile explains"
    ]


def test_a_stale_read_is_found_among_many_concurrent_writes() -> None:
    story = Story()
    old = story.told(SET, ONE, "a", 1)
    for number in range(30):
        story.told(SET, ONE, f"{number}", 1, at=(100, 1000 + number), by=f"agent{number + 10}-1")
    new = story.told(SET, ONE, "b", 2, at=(2000, 2010))
    story.told(GET, ONE, None, "b", at=(2020, 2030))
    stale = story.told(GET, ONE, None, "a", at=(2040, 2050))
    verdict = check(story.history(), found({ONE: "b"}))
    assert stretches(verdict) == [(old, new, stale)]


def test_a_lost_update_is_found() -> None:
    story = Story()
    old = story.told(SET, ONE, "a", 1)
    first = story.told(CAS, ONE, ["a", "b"], True, at=(100, 200))
    second = story.told(CAS, ONE, ["a", "c"], True, at=(100, 200), by="agent02-1")
    verdict = check(story.history(), Aftermath())
    assert stretches(verdict) == [(old, first, second)]


def test_a_read_that_goes_back_beside_a_running_write_is_found() -> None:
    story = Story()
    old = story.told(SET, ONE, "a", 1)
    new = story.told(SET, ONE, "b", 2, at=(100, 200))
    seen = story.told(GET, ONE, None, "b", at=(110, 120), by="agent02-1")
    back = story.told(GET, ONE, None, "a", at=(130, 140), by="agent03-1")
    assert stretches(check(story.history(), found({ONE: "b"}))) == [(old, new, seen, back)]


def test_reads_beside_a_running_write_may_see_it_or_not() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    story.told(SET, ONE, "b", 2, at=(100, 200))
    story.told(GET, ONE, None, "a", at=(110, 120), by="agent02-1")
    story.told(GET, ONE, None, "b", at=(130, 140), by="agent03-1")
    assert stretches(check(story.history(), found({ONE: "b"}))) == []


def test_a_value_that_nobody_wrote_is_found() -> None:
    story = Story()
    read = story.told(GET, ONE, None, "x")
    verdict = check(story.history(), found())
    assert stretches(verdict) == [(read,)]
    assert texts(verdict) == [f"{ONE} at {HALL}: a read returned x, which nobody wrote there"]


@pytest.mark.parametrize(("op", "argument", "outcome"), [(SET, "x", FAILED), (CAS, ["a", "x"], OK)])
def test_a_value_whose_write_did_nothing_is_found_with_that_write(op: str, argument: Any, outcome: str) -> None:
    story = Story()
    failed = story.told(op, ONE, argument, False, outcome=outcome)
    read = story.told(GET, ONE, None, "x")
    verdict = check(story.history(), found())
    assert stretches(verdict) == [(failed, read)]
    assert texts(verdict) == [f"{ONE} at {HALL}: a read returned x, whose write said that it did nothing"]


def test_a_value_read_before_its_write_began_is_found() -> None:
    story = Story()
    read = story.told(GET, ONE, None, "a")
    written = story.told(SET, ONE, "a", 1)
    assert stretches(check(story.history(), found({ONE: "a"}))) == [(read, written)]


def test_an_end_that_no_order_leads_to_is_found() -> None:
    story = Story()
    old = story.told(SET, ONE, "a", 1)
    new = story.told(SET, ONE, "b", 2)
    verdict = check(story.history(), found({ONE: "a"}))
    assert stretches(verdict) == [(old, new)]
    assert "at the end there was a" in texts(verdict)[0]
    assert stretches(check(story.history(), found())) == [(new,)]


def test_an_end_that_cannot_be_read_says_nothing() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    assert check(story.history(), Aftermath()).checked == {LINEARIZABLE: 1}


def test_a_second_delete_of_one_value_is_found_far_into_a_history() -> None:
    story = Story()
    for number in range(200):
        story.told(SET, ONE, f"{number}", 1)
        story.told(DELETE, ONE, None, True)
    last = story.told(DELETE, ONE, None, True)
    (stretch,) = stretches(check(story.history(), found()))
    assert stretch[-1] is last
    assert len(stretch) == 2


def test_a_delete_of_what_was_there_that_found_nothing_is_found() -> None:
    story = Story()
    written = story.told(SET, ONE, "a", 1)
    blind = story.told(DELETE, ONE, None, False)
    assert stretches(check(story.history(), Aftermath())) == [(written, blind)]


def test_a_compare_and_set_that_did_not_find_what_was_there_is_found() -> None:
    story = Story()
    written = story.told(SET, ONE, "a", 1)
    blind = story.told(CAS, ONE, ["a", "b"], False)
    verdict = check(story.history(), found({ONE: "a"}))
    assert stretches(verdict) == [(written, blind)]
    assert "a compare-and-set did not find a" in texts(verdict)[0]


@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
@pytest.mark.parametrize("there", ["a", "b"])
def test_a_write_of_unknown_outcome_may_have_happened_or_not(outcome: str, there: str) -> None:
    for op, argument in ((SET, "b"), (CAS, ["a", "b"])):
        story = Story()
        story.told(SET, ONE, "a", 1)
        story.told(op, ONE, argument, outcome=outcome, by="agent02-1")
        assert stretches(check(story.history(), found({ONE: there}))) == []


def test_an_open_write_may_happen_late_but_not_twice() -> None:
    story = Story()
    opened = story.told(SET, ONE, "b", outcome=OPENED, by="agent02-1")
    story.told(SET, ONE, "a", 1)
    story.told(GET, ONE, None, "a")
    seen = story.told(GET, ONE, None, "b")
    assert stretches(check(story.history(), found({ONE: "b"}))) == []
    again = story.told(SET, ONE, "c", 1)
    story.told(GET, ONE, None, "b")
    assert stretches(check(story.history(), found({ONE: "b"}))) == [(opened, seen, again)]


@pytest.mark.parametrize("outcome", [UNKNOWN, OPENED])
def test_a_delete_of_unknown_outcome_may_explain_absence_once(outcome: str) -> None:
    story = Story()
    story.told(DELETE, ONE, outcome=outcome, by="agent02-1")
    story.told(SET, ONE, "a", 1)
    story.told(GET, ONE, None, None)
    assert stretches(check(story.history(), found())) == []
    story.told(SET, ONE, "b", 1)
    story.told(GET, ONE, None, None)
    assert len(stretches(check(story.history(), found()))) == 1


def test_an_open_write_that_nobody_saw_may_explain_what_found_something_else() -> None:
    for op, argument in ((CAS, ["a", "c"]), (DELETE, None)):
        story = Story()
        story.told(SET, ONE, "b", outcome=OPENED, by="agent02-1")
        story.told(SET, ONE, "a", 1)
        story.told(DELETE, ONE, None, True) if op == DELETE else None
        story.told(op, ONE, argument, op == DELETE)
        assert stretches(check(story.history(), Aftermath())) == [], op


def test_reads_that_never_returned_and_writes_that_failed_say_nothing() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    story.told(GET, ONE, outcome=OPENED, by="agent02-1")
    story.told(DELETE, ONE, outcome=FAILED)
    assert stretches(check(story.history(), found({ONE: "a"}))) == []


def test_a_search_that_takes_too_long_is_given_up_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    for number in range(12):  # deletes of what was there, one more than there were values
        story.told(SET, ONE, f"{number}", 1, at=(100, 1000), by=f"agent{number}-1")
        story.told(DELETE, ONE, None, True, at=(100, 1000), by=f"agent{number + 20}-1")
    story.told(DELETE, ONE, None, True, at=(100, 1000), by="agent50-1")
    monkeypatch.setattr(registers, "MOST_CONFIGURATIONS", 1000)
    monkeypatch.setattr(registers, "MOST_FOR_A_PART", 1000)
    verdict = check(story.history(), found())
    assert (verdict.violations, verdict.undecided) == ((), 1)


def test_registers_of_dropped_addresses_are_left_out_and_said_to_be() -> None:
    story = Story()
    story.told(SET, ONE, "a", 1)
    story.told(DROP)
    verdict = check(story.history(), found())
    assert (verdict.violations, verdict.checked, len(verdict.notes)) == ((), {}, 1)


# Against all orders there are

VALUES = ("a", "b", "c", "d", "e", "f")


def has_an_order(operations: list[Operation], ending: str | None) -> bool:
    """Try every order of every choice of those that may have happened."""
    sure = [one for one in operations if one.outcome == OK]
    maybe = [one for one in operations if one.outcome in (UNKNOWN, OPENED) and one.op != GET]
    for choice in range(1 << len(maybe)):
        chosen = sure + [one for place, one in enumerate(maybe) if choice >> place & 1]
        if any(explains(order, ending) for order in permutations(chosen)):
            return True
    return False


def explains(order: tuple[Operation, ...], ending: str | None) -> bool:
    state: str | None = None
    latest = 0
    for operation in order:
        returned = operation.returned_ns if operation.outcome == OK else NEVER
        assert returned is not None
        if returned < latest:
            return False
        latest = max(latest, operation.called_ns)
        result, state = answer(state, operation.op, operation.argument)
        if operation.outcome == OK and result != operation.result:
            return False
    return state == ending


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Operation], str | None]:
    story = Story()
    values = list(VALUES)
    for number in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from([GET, GET, SET, SET, DELETE, CAS]))
        outcome = draw(st.sampled_from([OK, OK, OK, UNKNOWN, OPENED, FAILED]))
        called = draw(st.integers(1, 12))
        some = st.sampled_from([None, *VALUES[:4]])
        argument = {SET: values[0], CAS: [draw(some), values[0]]}.get(op)
        result = {GET: draw(some), SET: 1}.get(op, draw(st.booleans()))
        if op in (SET, CAS):
            values.pop(0)
        at = (called, called + draw(st.integers(1, 8)))
        story.told(op, ONE, argument, result, outcome=outcome, at=at, by=f"agent{number}-1")
    return story.history().operations, draw(st.sampled_from([None, *VALUES[:4]]))


@given(histories())
def test_the_checker_agrees_with_trying_every_order(drawn: tuple[list[Operation], str | None]) -> None:
    operations, ending = drawn
    assert (contradiction(steps_of(operations, [ending])) == []) is has_an_order(operations, ending)


# A register that is right


@pytest.mark.parametrize("seed", range(12))
def test_a_right_register_always_passes(seed: int) -> None:
    chance = Random(seed)
    processes = chance.choice([2, 4, 8, 16])
    operations, ending = simulate(chance, ONE, 400, processes, unknown=chance.choice([0, 0.05, 0.3]))
    assert contradiction(steps_of(operations, [ending])) == []


@pytest.mark.parametrize("seed", range(60))
def test_no_part_of_what_a_right_register_did_is_called_impossible(seed: int) -> None:
    chance = Random(seed)
    operations, ending = simulate(chance, ONE, 30, chance.choice([2, 4, 8]), unknown=chance.choice([0.1, 0.5]))
    steps = steps_of(operations, [ending])
    for _ in range(20):
        part = chance.sample(steps, chance.randrange(1, 8))
        assert not is_impossible(steps, part), part


@pytest.mark.parametrize("seed", range(12))
def test_a_right_register_with_one_stale_read_does_not_pass(seed: int) -> None:
    chance = Random(seed)
    operations, ending = simulate(chance, ONE, 400, 8, unknown=0.05)
    reads = [one for one in operations if one.op == GET and one.outcome == OK and one.result is not None]
    stale = next(one for one in reads if one.called_ns > 3000)
    stale.result = reads[2].result
    proof = contradiction(steps_of(operations, [ending]))
    assert proof
    assert len(proof) <= 4

"""The table of checkers, and the helpers that several of them lean on."""

import pytest

from stress.checks import CHECKS
from stress.checks.moves import Moves
from stress.promises import PROMISES
from tests.unit.stress.made import HOME, MS, Made, clean, judge


def test_every_checker_finds_nothing_in_an_empty_run_and_counts_nothing() -> None:
    for name, check in CHECKS.items():
        verdict = judge(check, Made())
        assert verdict.check == name
        assert clean(verdict) == {}


def test_the_words_of_each_promise_are_one_plain_line() -> None:
    assert all(1 <= number <= 45 for number in PROMISES)
    assert all(len(text) < 90 and "\n" not in text for text in PROMISES.values())


@pytest.mark.parametrize(
    ("from_ms", "until_ms", "is_moved"), [(1, 9, False), (1, 10, True), (12, 14, True), (20, 30, True), (21, 30, False)]
)
def test_a_move_counts_from_its_call_to_its_return(from_ms: int, until_ms: int, is_moved: bool) -> None:
    made = Made()
    made.did("a01-1", "drop", at=10, until=20)
    made.did("a01-1", "drop", at=12, until=13)
    made.did("a01-1", "drop", at=40, outcome="failed", error="AddressBusyError")
    assert Moves(made.history).between(HOME, from_ms * MS, until_ms * MS) is is_moved


def test_a_move_that_never_returned_may_still_come_and_one_without_address_is_everywhere() -> None:
    made = Made()
    made.did("a01-1", "migrate", at=10, outcome="open", address="")
    assert Moves(made.history).between("any/where", 500 * MS, 600 * MS)
    assert not Moves(made.history).between("any/where", 1 * MS, 2 * MS)


def test_a_copy_changes_its_target_alone() -> None:
    made = Made()
    made.did("a01-1", "copy", "", {"target": "team/two"}, at=10)
    moves = Moves(made.history)
    assert moves.between("team/two", 0, 50 * MS)
    assert not moves.between(HOME, 0, 50 * MS)

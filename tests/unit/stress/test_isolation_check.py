"""What counts as reading another's token, and what does not."""

import pytest

from stress.aftermath import Aftermath
from stress.checks.isolation import check, matrix
from tests.unit.stress.made import HOME, Made, clean, judge, only

OTHER = "team/two"
MINE, THEIRS = "token:a01:secret", "token:a02:secret"


@pytest.fixture
def made() -> Made:
    """Two agents, each with a token at its own address."""
    made = Made()
    made.did("a01-1", "set", "token.a01.1", MINE, 1, at=1)
    made.did("a02-1", "set", "token.a02.1", THEIRS, 1, at=2, address=OTHER)
    return made


def test_own_tokens_own_keys_and_misses_are_clean(made: Made) -> None:
    made.did("a01-2", "get", "token.a01.1", None, MINE, at=5)
    made.did("a01-2", "get_many", "token.a01.1", ["token.a01.1"], {"token.a01.1": MINE, "token.a01.9": None}, at=6)
    made.did("a01-2", "peek", "token.a02.1", None, None, at=7)
    made.did("a01-2", "keys", "", None, ["token.a01.1", "ledger.a02-1.1"], at=8)
    aftermath = Aftermath(
        contents={HOME: {"token.a01.1": (MINE, 1), "note": ("token", 2)}}, tokens={HOME: {"a01": 1, "a02": 0}}
    )
    assert clean(judge(check, made, aftermath)) == {7: 5}


def test_an_answer_about_another_agents_key_is_found(made: Made) -> None:
    peek = made.did("a01-1", "peek", "token.a02.1", None, THEIRS, at=5)
    violation = only(judge(check, made))
    assert violation.stretch == (peek,)
    assert violation.promise == 7
    assert violation.text == f"a01 asked {HOME} for token.a02.1, which is another's, and was told '{THEIRS}'"


def test_another_agents_value_under_an_own_key_is_found(made: Made) -> None:
    read = made.did("a01-1", "get", "token.a01.1", None, THEIRS, at=5)
    assert only(judge(check, made)).stretch == (read,)


def test_another_agents_value_among_many_is_found(made: Made) -> None:
    told = {"token.a01.1": MINE, "token.a01.2": THEIRS}
    read = made.did("a01-1", "get_many", "token.a01.1", list(told), told, at=5)
    violation = only(judge(check, made))
    assert violation.stretch == (read,)
    assert "read token.a01.2" in violation.text


def test_a_listing_with_another_agents_keys_is_found_once(made: Made) -> None:
    listing = made.did("a01-1", "keys", "", None, ["token.a01.1", "token.a02.1", "token.a02.2"], at=5)
    violation = only(judge(check, made))
    assert violation.stretch == (listing,)
    assert "token.a02.1, 2 such in all" in violation.text


@pytest.mark.parametrize(
    "aftermath",
    [
        Aftermath(tokens={HOME: {"a01": 3, "a02": 1}}),
        Aftermath(contents={HOME: {"token.a01.1": (THEIRS, 1)}}),
        Aftermath(contents={HOME: {"note": (THEIRS, 1)}}),
        Aftermath(contents={HOME: {"token.a02.1": (MINE, 1)}}),
    ],
    ids=["bytes", "value", "value under any key", "key"],
)
def test_what_lies_at_an_address_of_somebody_who_never_wrote_there_is_found(made: Made, aftermath: Aftermath) -> None:
    assert only(judge(check, made, aftermath)).text == f"{HOME} holds a token of a02, who never wrote there"


@pytest.mark.parametrize("op", ["copy", "rename"])
def test_what_a_copy_brought_is_explained_also_by_several_steps(made: Made, op: str) -> None:
    made.did("a03-1", op, "", {"target": "team/between"}, at=10, address=OTHER)
    made.did("a03-1", op, "", {"target": HOME}, at=11, address="team/between", outcome="open")
    made.did("a01-1", "peek", "token.a02.1", None, THEIRS, at=20)
    made.did("a01-1", "keys", "", None, ["token.a02.1"], at=21)
    judged = judge(check, made, Aftermath(tokens={HOME: {"a02": 1}, "team/between": {"a02": 1}}))
    assert clean(judged) == {7: 4}


def test_a_copy_that_failed_explains_nothing(made: Made) -> None:
    made.did("a03-1", "copy", "", {"target": HOME}, at=10, address=OTHER, outcome="failed", error="ConflictError")
    only(judge(check, made, Aftermath(tokens={HOME: {"a02": 1}})))


def test_a_write_that_was_taken_back_may_have_left_its_bytes(made: Made) -> None:
    made.did("a02-1", "set", "token.a02.2", "token:a02:2", at=5, outcome="failed", error="StorageFullError")
    assert clean(judge(check, made, Aftermath(tokens={HOME: {"a02": 1}}))) == {7: 1}


def test_reads_that_failed_tell_nothing(made: Made) -> None:
    made.did("a01-1", "peek", "token.a02.1", at=5, outcome="failed", error="BusyError")
    made.did("a01-1", "keys", at=6, outcome="failed", error="BusyError")
    assert clean(judge(check, made)) == {}


def test_the_matrix_is_empty_but_for_the_diagonal(made: Made) -> None:
    made.did("a01-1", "get", "token.a01.1", None, MINE, at=5)
    made.did("a01-1", "get", "token.a01.1", None, MINE, at=6)
    made.did("a01-1", "peek", "token.a02.1", None, None, at=7)
    agents, rows = matrix(made.history, Aftermath(tokens={HOME: {"a01": 4}, OTHER: {"a02": 2}}))
    assert agents == ["a01", "a02"]
    assert rows == [[4, 0], [0, 2]]


def test_the_matrix_shows_who_read_whose_token(made: Made) -> None:
    made.did("a01-1", "peek", "token.a02.1", None, THEIRS, at=5)
    made.did("a01-1", "get", "token.a01.1", None, "token:a02:other", at=6)
    aftermath = Aftermath(contents={OTHER: {"token.a02.1": (THEIRS, 1)}}, tokens={OTHER: {"a02": 1, "a01": 1}})
    assert matrix(made.history, aftermath)[1] == [[0, 2], [1, 1]]

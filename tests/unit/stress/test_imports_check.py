"""Every row of an old database is there at the end, unless an agent had set that key itself."""

from __future__ import annotations

import pytest

from stress.aftermath import Aftermath
from stress.checks.imports import EXACT, NEVER_OVERWRITTEN, UNTOUCHED, check
from tests.unit.stress.made import Made, clean, judge, only

OLD = "old000/prod"
ROWS = {"note.1": "one", "note.2": "two"}


def found(contents: dict[str, str], **facts: object) -> Aftermath:
    entries = {key: (value, 1) for key, value in contents.items()}
    return Aftermath(contents={OLD: entries}, facts={"source": {OLD: ROWS}, "source_changed": False, **facts})


def claimed(value: str, *, key: str = "note.1", outcome: str = "ok", address: str = OLD, at: int = 10) -> Made:
    made = Made()
    made.did("a01-1", "set", key, value, 1, at=at, address=address, outcome=outcome)
    return made


def test_rows_that_came_over_are_clean_and_counted() -> None:
    assert clean(judge(check, Made(), found(ROWS | {"own": "x"}))) == {UNTOUCHED: 1, EXACT: 2}


def test_a_run_that_imported_nothing_counts_nothing() -> None:
    assert clean(judge(check, claimed("v"), Aftermath())) == {}


def test_a_row_that_an_agent_had_set_stays_the_agents() -> None:
    assert clean(judge(check, claimed("mine"), found(ROWS | {"note.1": "mine"}))) == {
        UNTOUCHED: 1,
        EXACT: 2,
        NEVER_OVERWRITTEN: 1,
    }


def test_a_row_that_is_not_there_is_found() -> None:
    violation = only(judge(check, Made(), found({"note.1": "one"})))
    assert (violation.promise, violation.stretch) == (EXACT, ())
    assert violation.text == f"note.2 at {OLD} did not come over, and nobody deleted it"


def test_an_address_that_is_not_there_lacks_every_row() -> None:
    aftermath = Aftermath(facts={"source": {OLD: ROWS}})
    assert [one.promise for one in judge(check, Made(), aftermath).violations] == [EXACT, EXACT]


def test_a_row_with_a_value_of_nobodys_is_found() -> None:
    made = claimed("mine")
    violation = only(judge(check, made, found(ROWS | {"note.1": "half"})))
    assert (violation.promise, violation.stretch) == (EXACT, tuple(made.history.operations))
    assert violation.text == f"note.1 at {OLD} has a value that neither the source nor an agent gave it"


def test_an_import_that_wrote_over_an_agents_value_is_found() -> None:
    made = claimed("mine")
    violation = only(judge(check, made, found(ROWS)))
    assert (violation.promise, violation.stretch) == (NEVER_OVERWRITTEN, tuple(made.history.operations))
    assert violation.text == f"note.1 at {OLD} was set by an agent, and an import wrote over it"


def test_of_several_agents_any_may_have_been_the_last() -> None:
    made = claimed("first")
    made.did("a02-1", "set", "note.1", "second", 1, at=20, address=OLD)
    for value in ("first", "second"):
        assert clean(judge(check, made, found(ROWS | {"note.1": value})))[NEVER_OVERWRITTEN] == 1
    assert [one.argument for one in only(judge(check, made, found(ROWS))).stretch] == ["first"]


@pytest.mark.parametrize("outcome", ["unknown", "open"])
def test_what_an_agent_may_have_set_may_be_there_or_not(outcome: str) -> None:
    made = claimed("mine", outcome=outcome)
    clean(judge(check, made, found(ROWS)))
    clean(judge(check, made, found(ROWS | {"note.1": "mine"})))


def test_what_an_agent_failed_to_set_must_not_be_there() -> None:
    made = claimed("mine", outcome="failed")
    assert NEVER_OVERWRITTEN not in clean(judge(check, made, found(ROWS)))
    assert "neither the source nor an agent" in only(judge(check, made, found(ROWS | {"note.1": "mine"}))).text


@pytest.mark.parametrize(("key", "address"), [("other", OLD), ("note.1", "old001/prod")])
def test_what_is_set_elsewhere_claims_nothing(key: str, address: str) -> None:
    made = claimed("mine", key=key, address=address)
    assert clean(judge(check, made, found(ROWS))) == {UNTOUCHED: 1, EXACT: 2}


def test_a_source_that_is_not_what_it_was_is_found() -> None:
    violation = only(judge(check, Made(), found(ROWS, source_changed=True)))
    assert violation.promise == UNTOUCHED
    assert violation.text == "the source is no longer byte for byte what it was"


def test_a_last_import_that_failed_is_found() -> None:
    violation = only(judge(check, Made(), found(ROWS, import_failed=[[OLD, "it is held"]])))
    assert (violation.promise, violation.text) == (EXACT, f"the last import failed at {OLD}: it is held")


def test_a_row_that_the_source_never_had_is_found() -> None:
    violation = only(judge(check, Made(), found(ROWS | {"note.3": "three"})))
    assert violation.promise == EXACT
    assert violation.text == f"note.3 at {OLD} came over, and the source has no such row"

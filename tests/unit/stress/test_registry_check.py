"""What must be listed and lie there, what must be gone, and what may be either."""

import pytest

from stress.aftermath import Aftermath
from stress.checks.registry import check
from tests.unit.stress.made import HOME, Made, clean, judge, only

THERE = Aftermath(listed={HOME: "active"}, folders=[HOME])
GONE = Aftermath()


@pytest.mark.parametrize("op", ["create", "open"])
def test_an_address_that_was_made_is_there(op: str) -> None:
    made = Made()
    made.did("a01-1", op, "", {"mode": "exclusive"}, at=1)
    assert clean(judge(check, made, THERE)) == {22: 1, 23: 1, 24: 1, 25: 1} if op == "open" else {23: 1, 24: 1, 25: 1}


def test_an_address_that_was_made_and_is_gone_is_found() -> None:
    made = Made()
    created = made.did("a01-1", "create", at=1)
    violations = judge(check, made, GONE).violations
    assert [(each.promise, each.stretch) for each in violations] == [(24, (created,)), (25, (created,))]
    assert violations[0].text == (
        f"{HOME} is gone, though a create of a01-1 was acknowledged and nothing deleted it since"
    )


def test_an_address_that_is_listed_as_missing_is_not_dropped_but_gone() -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    violations = judge(check, made, Aftermath(listed={HOME: "missing"})).violations
    assert [each.promise for each in violations] == [23, 24]


def test_an_address_that_was_deleted_is_gone() -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    dropped = made.did("a01-1", "drop", at=5)
    assert clean(judge(check, made, GONE)) == {24: 1}
    violation = only(judge(check, made, THERE))
    assert (violation.promise, violation.stretch) == (24, (dropped,))
    assert violation.text.startswith(f"{HOME} still lies there, though a drop of a01-1 was acknowledged")


def test_an_address_that_was_deleted_and_is_only_listed_is_found() -> None:
    made = Made()
    made.did("a01-1", "drop", at=5)
    texts = [each.text for each in judge(check, made, Aftermath(listed={HOME: "missing"})).violations]
    assert len(texts) == 2
    assert texts[1].startswith(f"{HOME} still is listed, though a drop of a01-1 was acknowledged")


def test_an_address_that_was_deleted_and_made_again_is_there() -> None:
    made = Made()
    made.did("a01-1", "drop", at=1)
    made.did("a02-1", "open", at=5)
    assert 24 in clean(judge(check, made, THERE))
    assert judge(check, made, GONE).violations


@pytest.mark.parametrize("outcome", ["unknown", "open"])
@pytest.mark.parametrize("aftermath", [THERE, GONE])
def test_what_a_kill_left_unknown_may_be_either(outcome: str, aftermath: Aftermath) -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    made.did("a02-1", "drop", at=5, outcome=outcome)
    made.did("a03-1", "create", at=9, outcome=outcome)
    assert 24 not in clean(judge(check, made, aftermath))


@pytest.mark.parametrize("aftermath", [THERE, GONE])
def test_what_was_made_and_deleted_at_the_same_time_may_be_either(aftermath: Aftermath) -> None:
    made = Made()
    made.did("a01-1", "create", at=1, until=8)
    made.did("a02-1", "drop", at=5, until=10)
    assert 24 not in clean(judge(check, made, aftermath))


def test_a_deletion_that_failed_deleted_nothing() -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    made.did("a02-1", "drop", at=5, outcome="failed", error="AddressBusyError")
    assert 24 in clean(judge(check, made, THERE))
    assert judge(check, made, GONE).violations


def test_a_renamed_address_is_where_it_was_renamed_to() -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    made.did("a01-1", "rename", "", {"target": "team/new"}, at=5)
    there = Aftermath(listed={"team/new": "active"}, folders=["team/new"])
    assert clean(judge(check, made, there)) == {23: 1, 24: 2, 25: 1}
    assert {each.text.partition(" ")[0] for each in judge(check, made, THERE).violations} == {HOME, "team/new"}


def test_the_target_of_a_copy_is_there_and_so_is_its_source() -> None:
    made = Made()
    made.did("a01-1", "create", at=1)
    made.did("a01-1", "copy", "", {"target": "team/new"}, at=5)
    assert {each.text.partition(" ")[0] for each in judge(check, made, THERE).violations} == {"team/new"}


@pytest.mark.parametrize(
    ("aftermath", "text"),
    [
        (Aftermath(folders=[HOME]), f"{HOME} has a folder with a keystore, and the registry does not list it"),
        (Aftermath(listed={HOME: "active"}), f"the registry lists {HOME} as active, and there is no folder of it"),
        (
            Aftermath(listed={HOME: "damaged"}, folders=[HOME]),
            f"{HOME} lies there, and the registry lists it as damaged",
        ),
    ],
)
def test_a_registry_that_disagrees_with_the_folders_is_found(aftermath: Aftermath, text: str) -> None:
    violation = only(judge(check, Made(), aftermath))
    assert (violation.promise, violation.text) == (23, text)


def test_a_session_that_is_said_to_live_is_found() -> None:
    violation = only(judge(check, Made(), Aftermath(sessions=["s1"])))
    assert violation.promise == 22
    assert violation.text == "session s1 is said to live, though every process has ended"

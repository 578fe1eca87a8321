"""What a backup must hold, what it must not, and what it may."""

import pytest

from stress.aftermath import Aftermath
from stress.checks.backups import check
from tests.unit.stress.made import HOME, Made, clean, judge, only

BOTH = {"ledger.a01-1.2": "v2", "ledger.a01-1.3": "v3"}


@pytest.fixture
def made() -> Made:
    """One write before the backup, one set of two while it is made, one write after it."""
    made = Made()
    made.did("a01-1", "set", "ledger.a01-1.1", "v1", 1, at=1)
    made.did("a02-1", "backup", "", None, "b1", at=10, until=20, address="")
    made.did("a01-1", "set_many", "ledger.a01-1.2", BOTH, 3, at=15)
    made.did("a01-1", "set", "ledger.a01-1.4", "v4", 4, at=30)
    return made


def restored(contents: dict[str, str], name: str = "b1") -> Aftermath:
    return Aftermath(backups={"b1": ""}, restored={name: {HOME: contents}})


@pytest.mark.parametrize("meanwhile", [{}, BOTH], ids=["without", "with"])
def test_what_was_written_meanwhile_may_be_in_it_or_not(made: Made, meanwhile: dict[str, str]) -> None:
    assert clean(judge(check, made, restored({"ledger.a01-1.1": "v1"} | meanwhile))) == {26: 1, 27: 3}


@pytest.mark.parametrize("contents", [{}, {"ledger.a01-1.1": "another"}])
def test_a_write_from_before_that_is_not_in_it_is_found(made: Made, contents: dict[str, str]) -> None:
    violation = only(judge(check, made, restored(contents)))
    assert violation.promise == 27
    assert violation.stretch == tuple(made.history.operations[:2])
    assert violation.text == (f"backup b1 of {HOME} lacks ledger.a01-1.1, which a01-1 had acknowledged before it began")


def test_a_write_from_afterwards_that_is_in_it_is_found(made: Made) -> None:
    violation = only(judge(check, made, restored({"ledger.a01-1.1": "v1", "ledger.a01-1.4": "v4"})))
    assert [each.op for each in violation.stretch] == ["backup", "set"]
    assert violation.stretch[1].key == "ledger.a01-1.4"
    assert violation.text.endswith("has ledger.a01-1.4, which a01-1 wrote only after it had ended")


def test_half_of_what_was_written_at_once_is_found(made: Made) -> None:
    violation = only(judge(check, made, restored({"ledger.a01-1.1": "v1", "ledger.a01-1.3": "v3"})))
    assert [each.op for each in violation.stretch] == ["set_many"]
    assert "has 1 of the 2 keys that a01-1 wrote at once" in violation.text


@pytest.mark.parametrize("outcome", ["unknown", "open", "failed"])
def test_a_write_that_was_not_acknowledged_need_not_be_in_it(outcome: str) -> None:
    made = Made()
    made.did("a01-1", "set", "ledger.a01-1.1", "v1", at=1, outcome=outcome)
    made.did("a02-1", "backup", "", None, "b1", at=10)
    assert clean(judge(check, made, restored({}))) == {26: 1}


def test_a_write_to_an_address_that_was_replaced_since_need_not_be_in_it(made: Made) -> None:
    made.did("a03-1", "restore", at=5)
    assert clean(judge(check, made, restored({}))) == {26: 1, 27: 2}


def test_other_addresses_and_families_are_not_asked(made: Made) -> None:
    made.did("a01-1", "set", "ledger.a01-1.9", "v9", at=2, address="team/two")
    made.did("a01-1", "set", "register.1", "v9", at=3)
    aftermath = restored({"ledger.a01-1.1": "v1"})
    aftermath.restored["b1"]["team/two"] = {"ledger.a01-1.9": "v9"}
    assert 27 in clean(judge(check, made, aftermath))


def test_pairs_in_it_are_equal(made: Made) -> None:
    def pair(left: str | None, right: str | None) -> Aftermath:
        sides = {"pair.1.left": left, "pair.1.right": right}
        return restored({"ledger.a01-1.1": "v1"} | {key: side for key, side in sides.items() if side is not None})

    first = made.did("a01-1", "transact", "pair.1.left", {"pair.1.left": "p1", "pair.1.right": "p1"}, at=2)
    second = made.did("a01-1", "transact", "pair.1.left", {"pair.1.left": "p2", "pair.1.right": "p2"}, at=4)
    assert clean(judge(check, made, pair("p1", "p1"))) == {26: 1, 27: 4}
    assert only(judge(check, made, pair("p1", "p2"))).stretch == (first, second)
    assert only(judge(check, made, pair(None, "p2"))).stretch == (second,)


def test_a_listed_backup_that_is_not_whole_is_found(made: Made) -> None:
    violation = only(judge(check, made, Aftermath(backups={"b1": "", "b0": "segment 3 is missing"})))
    assert violation.promise == 26
    assert violation.text == "backup b0 is listed and is not whole: segment 3 is missing"


def test_a_backup_that_was_acknowledged_and_is_not_listed_is_found(made: Made) -> None:
    violation = only(judge(check, made, Aftermath()))
    assert (violation.promise, [each.op for each in violation.stretch]) == (26, ["backup"])
    assert violation.text == "backup b1 of a02-1 was acknowledged and is not listed"


@pytest.mark.parametrize("outcome", ["unknown", "open", "failed"])
def test_a_backup_that_was_not_acknowledged_need_not_be_listed(outcome: str) -> None:
    made = Made()
    made.did("a02-1", "backup", at=10, outcome=outcome)
    assert clean(judge(check, made, Aftermath())) == {}


def test_a_backup_whose_maker_was_killed_is_still_held_to_whole_writes(made: Made) -> None:
    aftermath = restored({"ledger.a01-1.3": "v3"}, name="b7")
    assert [each.op for each in only(judge(check, made, aftermath)).stretch] == ["set_many"]


def test_an_address_that_is_not_in_it_at_all_is_found(made: Made) -> None:
    nothing = Aftermath(backups={"b1": ""}, restored={"b1": {}})
    assert "lacks ledger.a01-1.1" in only(judge(check, made, nothing)).text


def test_an_address_that_it_said_it_could_not_have_is_not_asked_for() -> None:
    made = Made()
    made.did("a01-1", "set", "ledger.a01-1.1", "v1", 1, at=1)
    made.did("a02-1", "backup", "", None, {"id": "b1", "failed": [HOME]}, at=10, until=20, address="")
    assert clean(judge(check, made, Aftermath(backups={"b1": ""}, restored={"b1": {}}))) == {26: 1}


def test_what_restores_elsewhere_or_imports_elsewhere_excuses_nothing(made: Made) -> None:
    made.did("a02-1", "restore", "", {"into": "trial"}, at=5, address="")
    made.did("a03-1", "migrate", "", {"targets": ["team/two"]}, at=6, address="")
    only(judge(check, made, restored({})))
    made.did("a03-1", "migrate", "", {"targets": [HOME]}, at=7, address="")
    assert clean(judge(check, made, restored({}))) == {26: 1, 27: 2}


@pytest.mark.parametrize(("op", "name"), [("verify", "problems"), ("restore", "failed")])
def test_what_agents_were_told_meanwhile_is_found_but_on_a_bad_disk(made: Made, op: str, name: str) -> None:
    told = made.did("a02-1", op, "", {"into": "trial"}, {name: [["b1", "a flipped bit"]]}, at=25, address="")
    violation = only(judge(check, made, restored({"ledger.a01-1.1": "v1"})))
    assert (violation.promise, violation.stretch) == (26, (told,))
    made.fault("full-disk", at=24, until=26)
    clean(judge(check, made, restored({"ledger.a01-1.1": "v1"})))

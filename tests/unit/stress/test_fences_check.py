"""What counts as a write by somebody who had lost the address, and what does not."""

from typing import Any

import pytest

from stress.checks.fences import check
from tests.unit.stress.made import Made, clean, judge, only


def replaced(**more: Any) -> Made:
    """Session s1 came first, s2 was there from 11 on."""
    made, epoch = Made(), more.pop("epoch", 4)
    made.opened("a01-1", "s1", at=1, epoch=epoch, **more)
    made.opened("a02-1", "s2", at=10, epoch=epoch + 1)
    return made


def test_a_session_that_raised_no_epoch_fences_nobody() -> None:
    # That it should not have been let in is for the check of holders.
    made = Made()
    made.opened("a01-1", "s1", at=1, epoch=4)
    made.opened("a02-1", "s2", at=10, epoch=None)
    made.did("a01-1", "set", "ledger.1", "v", 1, at=20, session="s1")
    assert clean(judge(check, made)) == {13: 1}


def test_writes_before_the_next_session_and_of_the_next_one_are_clean() -> None:
    made = replaced(epoch=4)
    made.did("a01-1", "set", "ledger.a01-1.1", "v", 1, at=5, session="s1")
    made.did("a01-1", "set", "ledger.a01-1.2", "v", 1, at=11, session="s1")
    made.did("a02-1", "set", "ledger.a02-1.1", "v", 1, at=20, session="s2")
    verdict = judge(check, made)
    assert clean(verdict) == {13: 4}
    assert verdict.notes == ("sessions that lost their address or were followed by another: 1; writes refused: 0",)


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_a_write_after_the_next_session_had_opened_is_found(mode: str) -> None:
    made = replaced(mode=mode)
    write = made.did("a01-1", "set", "ledger.a01-1.1", "v", 1, at=20, session="s1")
    made.did("a01-1", "set", "ledger.a01-1.2", "v", 1, at=30, session="s1")
    violation = only(judge(check, made))
    assert violation.promise == 13
    assert violation.stretch == (*made.history.operations[:2], write)
    assert violation.text == (
        "a01-1 had a set of ledger.a01-1.1 at team/one acknowledged in session s1, "
        "9.0 ms after a02-1 had opened exclusive session s2 there"
    )


@pytest.mark.parametrize(
    ("op", "argument", "result"),
    [
        ("set_many", {"ledger.1": "v"}, 1),
        ("transact", {"ledger.1": "v"}, 1),
        ("delete", None, True),
        ("cas", ["x", "v"], True),
        ("raise", 1, 7),
        ("lend", ["v", 50], 1),
        ("renew", 50, True),
    ],
)
def test_every_kind_of_write_counts(op: str, argument: Any, result: Any) -> None:
    made = replaced()
    made.did("a01-1", op, "ledger.1", argument, result, at=20, session="s1")
    only(judge(check, made))


@pytest.mark.parametrize("op", ["delete", "cas", "renew"])
def test_what_found_nothing_to_do_has_written_nothing(op: str) -> None:
    made = replaced()
    made.did("a01-1", op, "ledger.1", None, False, at=20, session="s1")
    assert clean(judge(check, made)) == {13: 1}  # the epochs rose


def test_reads_refusals_and_open_calls_are_no_writes() -> None:
    made = replaced()
    made.did("a01-1", "get", "register.1", None, "v", at=20, session="s1")
    made.did("a01-1", "set", "ledger.1", "v", at=21, session="s1", outcome="failed", error="FencedError")
    made.did("a01-1", "set", "ledger.2", "v", at=22, session="s1", outcome="unknown", error="Cancelled")
    made.did("a01-1", "set", "ledger.3", "v", at=23, session="s1", outcome="open")
    verdict = judge(check, made)
    assert clean(verdict) == {13: 1}
    assert verdict.notes[0].endswith("writes refused: 1")


def test_a_write_after_being_put_out_is_found() -> None:
    made = Made()
    opened = made.opened("a01-1", "s1", at=1, mode="shared")
    evicted = made.did("faults-1", "evict", at=5, session="s1")
    write = made.did("a01-1", "raise", "counter.1", 1, 2, at=20, session="s1")
    verdict = judge(check, made)
    assert verdict.notes[0].startswith("sessions that lost their address or were followed by another: 1;")
    violation = only(verdict)
    assert violation.stretch == (opened, evicted, write)
    assert "14.0 ms after faults-1 had put it out by force" in violation.text


@pytest.mark.parametrize("outcome", ["failed", "unknown", "open"])
def test_who_may_not_have_been_put_out_may_write(outcome: str) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1)
    made.did("faults-1", "evict", at=5, session="s1", outcome=outcome)
    made.did("a01-1", "raise", "counter.1", 1, 2, at=20, session="s1")
    assert clean(judge(check, made)) == {13: 1}


def test_a_shared_session_replaces_nobody() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, mode="shared")
    made.opened("a02-1", "s2", at=10, mode="shared")
    made.did("a01-1", "set", "ledger.1", "v", 1, at=20, session="s1")
    assert clean(judge(check, made)) == {13: 1}


def test_whoever_was_stopped_on_the_way_in_is_older_than_its_return_says() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, until=2, epoch=5)
    made.opened("a02-1", "s2", at=1, until=10, epoch=4)
    made.did("a01-1", "set", "ledger.1", "v", 1, at=20, session="s1")
    assert clean(judge(check, made)) == {13: 1}


def test_an_epoch_that_does_not_rise_is_found() -> None:
    made = Made()
    former = made.opened("a01-1", "s1", at=1, epoch=5)
    later = made.opened("a02-1", "s2", at=10, epoch=5)
    violation = only(judge(check, made))
    assert violation.stretch == (former, later)
    assert violation.text == "a02-1 opened team/one at epoch 5 after a01-1 had opened it at epoch 5: epochs must rise"


def test_of_two_sessions_at_one_epoch_neither_is_the_older_one() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, epoch=5)
    made.opened("a02-1", "s2", at=10, epoch=5)
    made.did("a01-1", "set", "ledger.1", "v", 1, at=20, session="s1")
    assert "epochs must rise" in only(judge(check, made)).text


@pytest.mark.parametrize("epochs", [(None, 5), (5, None)])
def test_an_epoch_that_nobody_was_told_is_not_compared(epochs: tuple[int | None, int | None]) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, epoch=epochs[0])
    made.opened("a02-1", "s2", at=10, epoch=epochs[1])
    assert clean(judge(check, made)) == {}


def test_epochs_of_openings_that_overlap_may_come_in_any_order() -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, until=20, epoch=5)
    made.opened("a02-1", "s2", at=10, until=21, epoch=4)
    assert clean(judge(check, made)) == {}


@pytest.mark.parametrize(("op", "argument"), [("drop", None), ("rename", {"target": "team/one"}), ("restore", None)])
def test_another_keystore_at_the_address_begins_anew(op: str, argument: Any) -> None:
    made = Made()
    made.opened("a01-1", "s1", at=1, epoch=50)
    made.did("a03-1", op, "", argument, at=5, address="team/two" if op == "rename" else "team/one")
    made.opened("a02-1", "s2", at=10, epoch=3)
    assert clean(judge(check, made)) == {}

"""What endings, errors, doctor and audit must be like when all is over."""

import pytest

from stress.aftermath import Aftermath, Ending
from stress.checks import endings, errors, soundness
from tests.unit.stress.made import Made, clean, judge, only


def ended(code: int, *, was_meant: bool = False, last_words: str = "") -> Aftermath:
    return Aftermath(endings=[Ending(process="a01-1", code=code, was_meant=was_meant, last_words=last_words)])


@pytest.mark.parametrize("code", [0, -9])
def test_an_ending_that_was_meant_is_clean(code: int) -> None:
    assert clean(judge(endings.check, Made(), ended(code, was_meant=True))) == {12: 1, 15: 1}


@pytest.mark.parametrize("was_meant", [True, False])
def test_a_process_that_its_watchdog_ended_never_ended(was_meant: bool) -> None:
    violation = only(judge(endings.check, Made(), ended(86, was_meant=was_meant)))
    assert violation.promise == 12
    assert violation.text == "a01-1 never ended: an operation of it did not return"


@pytest.mark.parametrize(
    ("aftermath", "text"),
    [
        (
            ended(1, last_words="Traceback ...\nValueError: no\n"),
            "a01-1 ended with exit code 1, which nobody had meant; its last words: ValueError: no",
        ),
        (ended(-11), "a01-1 was ended by SIGSEGV, which no fault had sent"),
        (ended(-40), "a01-1 was ended by signal 40, which no fault had sent"),
        (Aftermath(leftovers=["staging/x"]), "left behind when all was over: staging/x"),
    ],
)
def test_unmeant_endings_and_leftovers_are_found(aftermath: Aftermath, text: str) -> None:
    violation = only(judge(endings.check, Made(), aftermath))
    assert (violation.promise, violation.text) == (15, text)


def test_sound_keystores_and_journals_are_clean() -> None:
    assert clean(judge(soundness.check, Made(), Aftermath(examined=3, audited=40))) == {5: 3, 6: 3, 43: 40}


@pytest.mark.parametrize(
    ("aftermath", "promise"),
    [
        (Aftermath(examined=1, problems=["keystore.db of team/one is damaged"]), 5),
        (Aftermath(examined=1, problems=["metadata.json of team/one is torn"]), 6),
        (Aftermath(examined=1, errors=["team/one: CorruptError"]), 5),
        (Aftermath(audited=1, audit_problems=["record 7 of team/one was edited"]), 43),
    ],
)
def test_whatever_is_still_found_is_a_violation(aftermath: Aftermath, promise: int) -> None:
    assert only(judge(soundness.check, Made(), aftermath)).promise == promise


def raising(*names: str, at: int = 10) -> Made:
    made = Made()
    for name in names:
        made.did("a01-1", "set", "ledger.a01-1.1", "v", at=at, outcome="failed", error=name)
    return made


def test_success_and_what_agents_bring_about_themselves_is_clean() -> None:
    made = raising("AddressBusyError", "WaitTimeoutError", "RevisionConflictError", "Cancelled")
    made.did("a01-1", "get", "register.1", at=20)
    made.did("a01-1", "get", "register.1", at=30, outcome="open")
    assert clean(judge(errors.check, made)) == {44: 5}


@pytest.mark.parametrize("name", ["KeyError", "shown", "sqlite3.OperationalError"])
def test_an_error_that_is_not_ours_is_found(name: str) -> None:
    made = raising(name)
    violation = only(judge(errors.check, made))
    assert (violation.promise, violation.stretch) == (44, tuple(made.history.operations))
    assert violation.text == f"a set of a01-1 at team/one raised {name}, which is no error of ProntoDB"


@pytest.mark.parametrize("name", ["CorruptError", "DeniedError", "ProntoError", "QuotaExceededError"])
def test_an_error_that_nothing_can_explain_is_found(name: str) -> None:
    assert only(judge(errors.check, raising(name))).text.endswith(f"raised {name}, which nothing explains")


@pytest.mark.parametrize(("name", "fault"), [("StorageFullError", "full-disk"), ("FencedError", "locks")])
def test_an_error_needs_a_fault_that_began_before_it_ended(name: str, fault: str) -> None:
    made = raising(name)
    assert "none of what explains it had happened" in only(judge(errors.check, made)).text
    made.fault(fault, at=50)
    only(judge(errors.check, made))
    made.fault(fault, at=5)
    assert clean(judge(errors.check, made)) == {44: 1}


@pytest.mark.parametrize(("name", "op"), [("AddressNotFoundError", "drop"), ("FencedError", "evict")])
def test_an_error_may_come_of_an_operation(name: str, op: str) -> None:
    made = raising(name)
    made.opened("a02-1", "s1", at=1)
    only(judge(errors.check, made))
    made.did("a02-1", op, at=5)
    assert clean(judge(errors.check, made)) == {44: 3}


def test_an_address_that_nobody_had_begun_to_make_is_rightly_not_found() -> None:
    made = raising("AddressNotFoundError")
    made.opened("a02-1", "s1", at=12)
    assert clean(judge(errors.check, made)) == {44: 2}
    made.opened("a02-1", "s0", at=4)
    only(judge(errors.check, made))


@pytest.mark.parametrize("name", ["stop", "kill", "registry", "clock"])
def test_what_puts_nobody_out_explains_no_fence(name: str) -> None:
    made = raising("FencedError")
    made.fault(name, "a01-1", at=5, until=9)
    only(judge(errors.check, made))


def test_faults_say_themselves_what_they_explain_once_they_were_made() -> None:
    made = raising("CorruptError")
    aftermath = Aftermath(facts={"explained": {"CorruptError": ["bit-flip"]}})
    only(judge(errors.check, made, aftermath))
    made.fault("bit-flip", at=5)
    assert clean(judge(errors.check, made, aftermath)) == {44: 1}


def test_of_each_error_five_are_shown_and_the_rest_is_counted() -> None:
    verdict = judge(errors.check, raising(*["KeyError"] * 8, "CorruptError"))
    assert len(verdict.violations) == 6
    assert verdict.notes == ("KeyError: 3 more like those shown",)

"""What was copied is whole, and is what its source had while it was copied."""

from __future__ import annotations

import pytest

from stress.aftermath import Aftermath
from stress.checks.copies import AT_ONE_INSTANT, KEPT, WHOLE, check
from stress.history import Operation
from tests.unit.stress.made import HOME, Made, clean, judge, only

TARGET = "copied/a02-1-1"


def marked(made: Made, value: str, at: int, *, until: int | None = None, outcome: str = "ok", **more: str) -> Operation:
    marks = {"mark.left": value, "mark.right": value}
    return made.did("a01-1", "transact", "mark.left", marks, at=at, until=until, outcome=outcome, **more)


def copied(made: Made, left: str | None, right: str | None, at: int, until: int | None = None) -> Operation:
    marks = {"marks": {"mark.left": left, "mark.right": right}}
    return made.did("a02-1", "copy", "", {"target": TARGET}, marks, at=at, until=until)


def lying(**marks: str) -> Aftermath:
    return Aftermath(contents={HOME: {f"mark.{side}": (value, 1) for side, value in marks.items()}})


def test_a_whole_copy_of_what_the_source_had_is_clean_and_counted() -> None:
    made = Made()
    marked(made, "a", 1)
    copied(made, "a", "a", 10)
    marked(made, "b", 20)
    copied(made, "b", "b", 30)
    assert clean(judge(check, made, lying(left="b", right="b"))) == {KEPT: 1, WHOLE: 3, AT_ONE_INSTANT: 2}


def test_a_copy_of_an_address_without_marks_is_whole_and_proves_no_instant() -> None:
    made = Made()
    copied(made, None, None, 10)
    assert clean(judge(check, made)) == {WHOLE: 1}


@pytest.mark.parametrize(("left", "right"), [("a", "b"), ("a", None), (None, "b")])
def test_a_copy_with_half_a_mark_is_found(left: str | None, right: str | None) -> None:
    made = Made()
    marked(made, "a", 1)
    marked(made, "b", 3)
    copy = copied(made, left, right, 10)
    violation = only(judge(check, made))
    assert (violation.promise, violation.stretch) == (WHOLE, (copy,))
    assert violation.text == f"{TARGET} was copied from {HOME} with half a mark"


def test_a_mark_that_nobody_wrote_is_found() -> None:
    made = Made()
    marked(made, "a", 1)
    copy = copied(made, "x", "x", 10)
    violation = only(judge(check, made))
    assert (violation.promise, violation.stretch) == (AT_ONE_INSTANT, (copy,))
    assert violation.text == f"{TARGET} has a mark that nobody wrote: x"


def test_a_mark_whose_writing_had_failed_is_one_that_nobody_wrote() -> None:
    made = Made()
    marked(made, "a", 1, outcome="failed")
    copied(made, "a", "a", 10)
    assert "nobody wrote" in only(judge(check, made)).text


def test_a_mark_from_after_the_copying_is_found() -> None:
    made = Made()
    copy = copied(made, "a", "a", 10, until=20)
    write = marked(made, "a", 30)
    violation = only(judge(check, made))
    assert violation.stretch == (copy, write)
    assert violation.text == f"{TARGET} has a mark that was written after it was copied"


def test_a_mark_that_had_been_replaced_before_the_copying_is_found() -> None:
    made = Made()
    old, new = marked(made, "a", 1), marked(made, "b", 5)
    copy = copied(made, "a", "a", 10)
    violation = only(judge(check, made))
    assert (violation.promise, violation.stretch) == (AT_ONE_INSTANT, (old, new, copy))
    assert violation.text == f"{TARGET} has a mark that {HOME} no longer had when the copying began"


def test_a_mark_that_was_replaced_while_it_was_copied_may_be_the_old_or_the_new_one() -> None:
    for seen in "ab":
        made = Made()
        marked(made, "a", 1)
        marked(made, "b", 15)
        copied(made, seen, seen, 10, until=20)
        clean(judge(check, made))


def test_of_marks_that_were_written_at_once_either_may_have_stayed() -> None:
    for seen in "ab":
        made = Made()
        marked(made, "a", 1, until=6)
        marked(made, "b", 4, until=8)
        copied(made, seen, seen, 10)
        clean(judge(check, made))


@pytest.mark.parametrize("outcome", ["unknown", "open"])
def test_a_mark_of_unknown_outcome_may_be_there_and_may_not_have_replaced_another(outcome: str) -> None:
    for seen in "ab":
        made = Made()
        marked(made, "a", 1)
        marked(made, "b", 5, outcome=outcome)
        copied(made, seen, seen, 10)
        clean(judge(check, made))


def test_a_mark_at_another_address_replaces_nothing_here() -> None:
    made = Made()
    marked(made, "a", 1)
    marked(made, "b", 5, address="team/two")
    copied(made, "a", "a", 10)
    clean(judge(check, made))


@pytest.mark.parametrize("outcome", ["failed", "unknown", "open"])
def test_a_copy_that_was_not_acknowledged_says_nothing(outcome: str) -> None:
    made = Made()
    made.did("a02-1", "copy", "", {"target": TARGET}, None, at=10, outcome=outcome)
    assert clean(judge(check, made)) == {}


@pytest.mark.parametrize("marks", [{"left": "a"}, {"right": "a"}, {"left": "a", "right": "b"}])
def test_half_a_mark_that_lies_there_at_the_end_is_found(marks: dict[str, str]) -> None:
    made = Made()
    marked(made, "a", 1)
    violation = only(judge(check, made, lying(**marks)))
    assert violation.promise == WHOLE
    assert violation.text.startswith(f"{HOME} has half a mark at the end: ")


def test_other_keys_at_the_end_are_not_asked() -> None:
    assert clean(judge(check, Made(), Aftermath(contents={HOME: {"counter.1": ("7", 7)}}))) == {}


def test_an_empty_copy_of_what_surely_had_a_mark_is_found() -> None:
    made = Made()
    write = marked(made, "a", 1)
    copy = copied(made, None, None, 10)
    violation = only(judge(check, made))
    assert (violation.promise, violation.stretch) == (AT_ONE_INSTANT, (write, copy))
    made.did("a03-1", "drop", at=5)
    assert clean(judge(check, made)) == {WHOLE: 1}


def test_a_mark_that_is_gone_at_the_end_is_found() -> None:
    made = Made()
    write = marked(made, "a", 1)
    empty = Aftermath(contents={HOME: {}})
    violation = only(judge(check, made, empty))
    assert (violation.promise, violation.stretch) == (KEPT, (write,))
    made.did("a03-1", "drop", at=5)
    assert clean(judge(check, made, empty)) == {}


def test_a_mark_that_a_renaming_lost_is_found() -> None:
    made = Made()
    write = marked(made, "a", 1)
    rename = made.did("a03-1", "rename", "", {"target": "moved/1"}, at=5)
    violation = only(judge(check, made, Aftermath(contents={"moved/1": {}})))
    assert (violation.promise, violation.stretch) == (KEPT, (write, rename))


@pytest.mark.parametrize("there", [{}, {"left": "b", "right": "b"}])
def test_a_copy_that_is_not_at_the_end_what_it_was_is_found(there: dict[str, str]) -> None:
    made = Made()
    marked(made, "a", 1)
    copy = copied(made, "a", "a", 10)
    aftermath = lying(left="a", right="a")
    assert clean(judge(check, made, aftermath))
    aftermath.contents[TARGET] = {f"mark.{side}": (value, 1) for side, value in there.items()}
    violation = only(judge(check, made, aftermath))
    assert (violation.promise, violation.stretch) == (KEPT, (copy,))

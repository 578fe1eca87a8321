"""Whether the wall clock is believed: compared with the clock that counts from the boot, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.jobs.trust import BELIEVED_AFTER_S, MAX_DIFFERENCE_S, Reference, judge

NOON = 1_700_000_000_000
BEFORE = Reference("boot", NOON, 1_000.0)


@pytest.mark.parametrize("passed_s", [0.0, 60.0, 86_400.0, 10 * 365 * 86_400.0])
@pytest.mark.parametrize("set_s", [0.0, 299.0, -299.0])
def test_a_clock_that_goes_on_like_the_other_is_believed_and_noted_anew(passed_s: float, set_s: float) -> None:
    now = judge(BEFORE, "boot", NOON + round((passed_s + set_s) * 1_000), 1_000.0 + passed_s)
    assert now.doubt is None
    assert now.reference == Reference("boot", NOON + round((passed_s + set_s) * 1_000), 1_000.0 + passed_s)


@pytest.mark.parametrize(
    ("set_s", "said"),
    [(301, "5 minutes forward"), (-7_200, "2 hours back"), (86_400 * 365 * 10, "10 years forward"),
     (-NOON / 1_000, "54 years back")],
)  # fmt: skip
def test_a_clock_that_was_set_is_doubted_and_what_it_said_before_stays_noted(set_s: float, said: str) -> None:
    now = judge(BEFORE, "boot", NOON + round((60 + set_s) * 1_000), 1_060.0)
    assert now.doubt is not None
    assert said in now.doubt
    assert "--trust-clock" in now.doubt
    assert (now.reference.wall_ms, now.reference.boottime_s) == (BEFORE.wall_ms, BEFORE.boottime_s)


def test_a_doubt_lasts_over_many_looks_and_ends_when_the_clock_is_set_right() -> None:
    reference = BEFORE
    for minute in range(1, 20):
        judged = judge(reference, "boot", NOON + (minute * 60 + 3_600) * 1_000, 1_000.0 + minute * 60)
        assert judged.doubt is not None, minute
        reference = judged.reference
    assert judge(reference, "boot", NOON + 20 * 60_000, 1_000.0 + 20 * 60).doubt is None


def test_a_clock_that_stood_by_it_for_a_day_is_believed_and_one_set_again_begins_the_day_anew() -> None:
    def look(reference: Reference, passed_s: float, set_s: float) -> tuple[str | None, Reference]:
        found = judge(reference, "boot", NOON + round((passed_s + set_s) * 1_000), 1_000.0 + passed_s)
        return found.doubt, found.reference

    doubt, reference = look(BEFORE, 60, 3_600)
    assert doubt
    doubt, kept = look(reference, 59 + BELIEVED_AFTER_S, 3_600)
    assert doubt
    assert look(kept, 60 + BELIEVED_AFTER_S, 3_600)[0] is None
    doubt, kept = look(reference, 50_000, 7_200)
    assert doubt
    doubt, kept = look(kept, 60 + BELIEVED_AFTER_S, 7_200)
    assert doubt, "it was set once more: a day from then on"
    assert look(kept, 50_000 + BELIEVED_AFTER_S, 7_200)[0] is None


@pytest.mark.parametrize(("boot", "boottime_s"), [("another", 5_000.0), ("boot", 999.0)])
def test_after_a_boot_there_is_nothing_to_compare_with(boot: str, boottime_s: float) -> None:
    now = judge(BEFORE, boot, NOON + 10**10, boottime_s)
    assert now.doubt is None
    assert now.reference == Reference(boot, NOON + 10**10, boottime_s)
    assert judge(None, boot, 0, boottime_s).doubt is None


@given(st.integers(-(10**12), 10**12), st.floats(0, 10**8))
def test_it_is_doubted_exactly_when_the_two_clocks_disagree_by_more_than_five_minutes(
    set_ms: int, passed: float
) -> None:
    passed_s = round(passed)
    now = judge(BEFORE, "boot", NOON + passed_s * 1_000 + set_ms, 1_000.0 + passed_s)
    assert (now.doubt is not None) == (abs(set_ms) > MAX_DIFFERENCE_S * 1_000)


def test_a_note_says_it_and_whatever_else_stands_there_is_no_note() -> None:
    doubted = judge(BEFORE, "boot", NOON + 10**9, 1_060.0).reference
    for reference in (BEFORE, doubted):
        assert Reference.decode(reference.encode()) == reference
    for text in (None, "", "{", "[]", "1", '{"boot": "b"}', '{"boot": 1, "wall_ms": 1, "boottime_s": 1}',
                 '{"boot": "b", "wall_ms": "1", "boottime_s": 1}', '{"boot": "b", "wall_ms": true, "boottime_s": 1}',
                 '{"boot": "b", "wall_ms": 1, "boottime_s": NaN}',
                 '{"boot": "b", "wall_ms": 1, "boottime_s": 1, "doubted_at_s": "x"}',
                 '{"boot": "b", "wall_ms": 1, "boottime_s": 1, "more": 1}'):  # fmt: skip
        assert Reference.decode(text) is None, text

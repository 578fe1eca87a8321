"""Figures have few digits and sensible units, and text is only ever read."""

import pytest

from stress.report.markup import decades, round_steps
from stress.report.units import NONE, clean, count, digits, duration, figure, index, percent, seconds, size, some


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (None, NONE),
        (0, "0 µs"),
        (1, "1 µs"),
        (85.4, "85 µs"),
        (999.4, "999 µs"),
        (999.6, "1.00 ms"),
        (1_000, "1 ms"),
        (1_239, "1.24 ms"),
        (12_345, "12.3 ms"),
        (999_400, "999 ms"),
        (999_600, "1.00 s"),
        (63_200_000, "63.2 s"),
        (3_600_000_000, "3,600 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit_that_fits(us: float | None, text: str) -> None:
    assert duration(us) == text


def test_other_figures_are_as_short() -> None:
    assert [digits(value) for value in (0, 0.1234, 5.678, 12.34, 99.96, 1_234.5)] == [
        "0",
        "0.123",
        "5.68",
        "12.3",
        "100",
        "1,234",
    ]
    assert [percent(value) for value in (0, 0.00001, 0.5, 0.99999, 1)] == [
        "0 %",
        "< 0.01 %",
        "50 %",
        "> 99.9 %",
        "100 %",
    ]
    assert [index(value) for value in (1, 0.9999, 0.5)] == ["1.000", "0.999", "0.500"]
    assert [size(value) for value in (None, 512, 1_023.7, 16_777_216_000)] == [NONE, "512 B", "1.00 KiB", "15.6 GiB"]
    assert [seconds(value) for value in (None, 0, 0.0042, 3.2, 60, 3_600)] == [
        NONE,
        "0 s",
        "4.20 ms",
        "3.20 s",
        "60 s",
        "3,600 s",
    ]
    assert (some(1, "fault"), some(1_200, "fault"), some(2, "address", "addresses")) == (
        "1 fault",
        "1,200 faults",
        "2 addresses",
    )
    assert (count(None), figure(None, "us"), figure(0.456, "ratio"), figure(1_500, "us")) == (
        NONE,
        NONE,
        "0.46",
        "1.50 ms",
    )


def test_nothing_that_a_screen_would_obey_is_left_in_a_text() -> None:
    assert clean("a\x1b[31m\x00\x9b\u202eb\u2028\ud800\té 漢") == "a\\x1b[31m\\x00\\x9b\\u202eb\\u2028\\ud800\\té 漢"
    assert clean("a\nb") == "a\\nb"


def test_scales_end_at_round_values_beyond_the_data() -> None:
    assert round_steps(60, 4) == [0, 20, 40, 60]
    assert round_steps(0, 4) == [0, 1]
    assert round_steps(0.03, 3)[-1] >= 0.03
    assert decades(180, 22_600) == [100, 1_000, 10_000, 100_000]
    assert decades(100, 100) == [100, 1_000]

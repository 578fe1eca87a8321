"""Old moments and lifetimes: what can be read is exact, everything else is unknown and stops nothing."""

import pytest

from prontodb.migration.moments import NEVER, UNKNOWN, expiry_ms, moment_ms, ttl_ms

T0 = 1_700_000_000


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (T0, T0 * 1_000),
        (0, 0),
        (float(T0), T0 * 1_000),
        (1_700_000_000.123, 1_700_000_000_123),
        (b"2023-11-14 22:13:20", T0 * 1_000),  # SQLite's CURRENT_TIMESTAMP
        (b"2023-11-14T22:13:20Z", T0 * 1_000),
        (b"2023-11-14T23:13:20+01:00", T0 * 1_000),
        (b"2023-11-14 22:13:20.5", T0 * 1_000 + 500),
        (b" 2023-11-14T22:13:20Z ", T0 * 1_000),
        (b"1970-01-01", 0),
        (253_402_300_799, 253_402_300_799_000),  # the last second of 9999
    ],
)
def test_a_moment_that_can_be_read_is_exact(stored: object, expected: int) -> None:
    assert moment_ms(stored) == expected


@pytest.mark.parametrize(
    "stored",
    [
        None, True, b"", b"yesterday", b"\xff\xfe", b"2023-13-45", b"1969-12-31 23:59:59", b"9" * 100, -1, -0.5,
        1_700_000_000_000, 2**62, float("inf"), float("-inf"), float("nan"), 1e300, b"0001-01-01T00:00:00+14:00",
    ],
)  # fmt: skip
def test_a_moment_that_cannot_be_read_is_unknown(stored: object) -> None:
    assert moment_ms(stored) == UNKNOWN


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, (NEVER, True)),
        (T0, (T0 * 1_000, True)),
        (0, (NEVER, False)),
        (-5, (NEVER, False)),
        (b"x", (NEVER, False)),
    ],
)
def test_an_expiry_that_cannot_be_read_costs_nobody_an_entry(stored: object, expected: tuple[int, bool]) -> None:
    assert expiry_ms(stored) == expected


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(60, 60_000), (1, 1_000), (3_153_600_000, 3_153_600_000_000), (3_153_600_001, None), (0, None), (-1, None),
     (None, None), (True, None), (1.5, None), (b"60", None)],
)  # fmt: skip
def test_a_default_lifetime_is_a_number_of_seconds_up_to_100_years(stored: object, expected: int | None) -> None:
    assert ttl_ms(stored) == expected

"""Lifetimes: seconds or text, in whole milliseconds, above zero and at most a hundred years."""

import math

import pytest

from prontodb.errors import InvalidTtlError
from prontodb.model.operation import FOREVER, INHERIT
from prontodb.model.ttl import MAX_TTL_MS, lifetime_ms, ttl_ms


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (1, 1_000),
        (0.001, 1),
        (1.5, 1_500),
        ("90", 90_000),
        ("90s", 90_000),
        (" 90 s ", 90_000),
        ("15m", 900_000),
        ("24h", 86_400_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("250ms", 250),
        ("0.5h", 1_800_000),
        ("2.5", 2_500),
        (MAX_TTL_MS // 1_000, MAX_TTL_MS),
        (f"{MAX_TTL_MS}ms", MAX_TTL_MS),
        ("36500d", MAX_TTL_MS),
    ],
)
def test_a_duration_is_milliseconds(ttl: object, expected: int) -> None:
    assert ttl_ms(ttl) == expected


@pytest.mark.parametrize(
    "ttl",
    [
        *(0, -1, 0.0, -0.5, 0.0001, "0", "0s", "0.0001s", "-1", "+1", "", " ", "s", "1x", "1 m 2", "1h30m", "1e3"),
        *("0x10", "\u0661", "1,5", "1_000", "never", "1\n2", "9" * 16, "36501d", 10**12, 1e300, -1e300, 10**5_000),
        *(math.nan, math.inf, -math.inf, True, False, None, b"1", [1], MAX_TTL_MS // 1_000 + 1),
    ],
    ids=lambda ttl: "huge" if isinstance(ttl, int) and ttl > 10**20 else repr(ttl)[:20],
)
def test_what_is_no_duration_in_range_is_refused(ttl: object) -> None:
    with pytest.raises(InvalidTtlError) as caught:
        ttl_ms(ttl)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_no_lifetime_is_inherited_and_never_is_forever() -> None:
    assert lifetime_ms(None) == INHERIT
    assert lifetime_ms("never") == FOREVER
    assert lifetime_ms("1s") == 1_000
    assert FOREVER != INHERIT

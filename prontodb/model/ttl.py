"""Lifetimes: seconds as a number, or text like '15m'; kept as integer milliseconds."""

from __future__ import annotations

from prontodb.errors import InvalidTtlError, shown
from prontodb.model.operation import FOREVER, INHERIT

NEVER = "never"
"""The ttl of an entry that must not expire, whatever its namespace's default lifetime says."""

MAX_TTL_MS = 100 * 365 * 86_400_000
"""100 years of 365 days."""

_UNIT_MS = {"ms": 1, "s": 1_000, "": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TEXT = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s?(ms|s|m|h|d|w|)"
_WAY_OUT = "write seconds, or a number with ms, s, m, h, d or w: 90, 15m, 24h"


def ttl_ms(
    ttl: object,
    name: str = "ttl",
    *,
    too_short: str = "to drop an entry delete it",
    too_long: str = "leave the ttl out to keep it",
) -> int:
    """Return a duration as milliseconds: above 0, at most 100 years. `ttl`: int or float seconds, or text.

    `name`, and the ways out of one that is `too_short` or `too_long`, are those of an entry unless said otherwise.
    """
    if isinstance(ttl, str):
        import re  # only text needs it, and a one-shot `get` has none

        match = re.fullmatch(_TEXT, ttl.strip(), re.ASCII)
        if match is None:
            raise InvalidTtlError(f"{name} {shown(ttl)} is not a duration; {_WAY_OUT}")
        number, unit = match.groups()
        # Exact for the whole numbers people write; a fraction is rounded to the millisecond.
        whole = int(number) * _UNIT_MS[unit] if "." not in number else round(float(number) * _UNIT_MS[unit])
    elif isinstance(ttl, int) and not isinstance(ttl, bool):
        whole = ttl * 1_000
    elif isinstance(ttl, float):
        if ttl != ttl or ttl in (float("inf"), float("-inf")):
            raise InvalidTtlError(f"{name} {ttl} is not a duration; {_WAY_OUT}")
        # Cut before multiplying: the product of a huge one would be infinite.
        whole = round(max(-1.0, min(ttl, float(MAX_TTL_MS))) * 1_000)
    else:
        raise InvalidTtlError(f"{name} must be a number of seconds or text, not {type(ttl).__name__}")
    if whole <= 0:
        raise InvalidTtlError(f"{name} {_told(ttl)} must be above zero; {too_short}")
    if whole > MAX_TTL_MS:
        raise InvalidTtlError(f"{name} {_told(ttl)} is above the limit of 100 years; {too_long}")
    return whole


def _told(ttl: float | str) -> str:
    # Python refuses to write out whole numbers of very many digits.
    return "of over 64 bits" if isinstance(ttl, int) and abs(ttl) >= 2**63 else shown(str(ttl))


def lifetime_ms(ttl: object) -> int:
    """Return what an operation's `ttl_ms` must be: INHERIT for None, FOREVER for 'never', else the duration."""
    if ttl is None:
        return INHERIT
    return FOREVER if ttl == NEVER else ttl_ms(ttl)

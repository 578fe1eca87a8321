"""The fewest of some things that still fail: leave out halves, then quarters, down to one by one.

The idea of delta debugging [Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing input"], with a
limit on how often it asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

MOST_QUESTIONS = 400
Thing = TypeVar("Thing")


def shrink(things: list[Thing], still_fails: Callable[[list[Thing]], bool], most: int = MOST_QUESTIONS) -> list[Thing]:
    """Return a part of `things` that still fails, none of which can be left out, if there were questions enough."""
    size = max(1, len(things) // 2)
    asked = 0
    while True:
        start, was_smaller = 0, False
        while start < len(things):
            if asked == most:
                return things
            fewer = things[:start] + things[start + size :]
            asked += 1
            if still_fails(fewer):
                things, was_smaller = fewer, True
            else:
                start += size
        if size == 1 and not was_smaller:
            return things
        size = max(1, size // 2)

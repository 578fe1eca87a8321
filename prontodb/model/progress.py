"""How far a long operation is: what it hands to whoever watches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at a long operation. Totals may grow while it runs."""

    what: str
    """What is being worked on, such as an address; empty when nothing has a name."""
    done: int
    """Units that are done, of `total`."""
    total: int
    done_bytes: int = 0
    total_bytes: int | None = None
    """The bytes there are in all; None when nobody knows yet."""


def never() -> bool:
    """Whether to stop a long operation, for those who do not mean to."""
    return False

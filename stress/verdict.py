"""What a checker says of a history: how much it checked, and each violation with the shortest stretch that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .aftermath import Aftermath
    from .history import History, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One promise that did not hold."""

    check: str
    promise: int
    """Its number in `PROMISES`."""
    text: str
    """One sentence: what was promised, what was seen."""
    stretch: tuple[Operation, ...] = ()
    """The fewest operations that show it, in the order of their calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one checker found."""

    check: str
    checked: dict[int, int] = field(default_factory=dict)
    """Per promise, how often it was put to the test; those that never were are left out."""
    violations: tuple[Violation, ...] = ()
    undecided: int = 0
    """Questions that were given up because an answer would have taken too long; no violations, and not hidden."""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A promise that nothing was asked of is not one that held.
        object.__setattr__(self, "checked", {promise: times for promise, times in self.checked.items() if times})


class Check(Protocol):
    """A checker: a pure function of what was recorded and what was found afterwards."""

    def __call__(self, history: History, aftermath: Aftermath) -> Verdict: ...

"""Who is ahead in a race, class by class: what an acknowledged write survives is never mixed in one ranking."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import Durability
from benchmarks.measure import LEAST_ROUNDS, spread_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Data = dict[str, Any]

OURS = "prontodb"
"""How the names of our own contenders begin."""
TOO_FEW = "too few rounds to name one"
LEAST_POINTS = 3
"""Fewer amounts make no curve."""
LOG_FROM = 30.0
"""Figures so many times apart are drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One contender's figures in one race."""

    race: str
    contender: str
    survives: str
    """What an acknowledged write survives; empty when that is no question here."""
    notes: str
    """What it promises besides."""
    unit: str
    figures: tuple[float, ...]
    family: str = ""
    axis: str = ""
    at: float = 0

    @property
    def is_ours(self) -> bool:
        """True when it is ProntoDB."""
        return self.contender.startswith(OURS)

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return median(self.figures)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which figures the true median lies; see `spread_of`."""
        return spread_of(self.figures)


Line = tuple[Standing, ...]
"""One contender at each amount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """Those of a race whose acknowledged writes survive the same, the best median first."""

    survives: str
    ranked: tuple[Standing, ...]

    @property
    def title(self) -> str:
        """What they have in common."""
        return class_title(self.survives)

    @property
    def level(self) -> tuple[Standing, ...]:
        """The first, and those whose spreads overlap with its own: between them the figures cannot tell."""
        first = self.ranked[0]
        low, high = first.spread
        return tuple(one for one in self.ranked if one.spread[0] <= high and one.spread[1] >= low)

    @property
    def said(self) -> str:
        """Who is ahead, in a few words; empty for one that is alone."""
        if len(self.ranked) == 1:
            return ""
        if min(len(one.figures) for one in self.ranked) < LEAST_ROUNDS:
            return TOO_FEW
        if len(self.level) == 1:
            return f"{_word(self.ranked[0].unit)}: {self.ranked[0].contender}"
        return f"too noisy to name one of {' / '.join(one.contender for one in self.level)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One race: its classes, the strongest promise first."""

    name: str
    unit: str
    classes: tuple[Class, ...]

    @property
    def standings(self) -> list[Standing]:
        """All of them, class by class."""
        return [one for each in self.classes for one in each.ranked]

    @property
    def is_log(self) -> bool:
        """True when some are so far apart that a plain scale would show the small ones as nothing."""
        return is_log(one.median for one in self.standings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Races that differ in one amount only: for each class, each contender's standings by that amount, ours first."""

    family: str
    axis: str
    unit: str
    classes: tuple[tuple[str, tuple[Line, ...]], ...]


def class_title(survives: str) -> str:
    """Return what contenders have in common whose acknowledged writes survive the same."""
    return f"survives {survives}" if survives else "no promise about writes"


def is_log(figures: Iterable[float]) -> bool:
    """True when figures are to be drawn on a logarithmic scale."""
    found = list(figures)
    return min(found) > 0 and max(found) > LOG_FROM * min(found)


def is_more_better(unit: str) -> bool:
    """True for rates; times and amounts are better when they are small."""
    return unit.endswith("/s")


def better(unit: str) -> str:
    """Return which way is better, in words."""
    return "higher is better" if is_more_better(unit) else "lower is better"


def _word(unit: str) -> str:
    return "fastest" if is_more_better(unit) or unit in ("us", "ms", "s") else "lowest"


def standings_of(scenario: Mapping[str, Any]) -> list[Standing]:
    """Return a scenario's series, read from the JSON."""
    return [
        Standing(
            race=one["race"],
            contender=one["contender"],
            survives=one["survives"],
            # The class says the first part already.
            notes=one["promise"].removeprefix(f"survives {one['survives']}").removeprefix("; "),
            unit=one["unit"],
            figures=tuple(one["figures"]),
            family=one["family"],
            axis=one["axis"],
            at=one["at"] or 0,
        )
        for one in scenario["series"]
    ]


def contests(scenario: Mapping[str, Any]) -> list[Contest]:
    """Return the races of a scenario in the order they were run."""
    found: dict[tuple[str, str], list[Standing]] = {}
    for one in standings_of(scenario):
        found.setdefault((one.race, one.unit), []).append(one)
    return [Contest(name=name, unit=unit, classes=_classes(ones)) for (name, unit), ones in found.items()]


def _classes(standings: Sequence[Standing]) -> tuple[Class, ...]:
    return tuple(
        Class(survives=survives, ranked=tuple(sorted(ones, key=_rank)))
        for survives in _survivals(standings)
        if (ones := [one for one in standings if one.survives == survives])
    )


def _survivals(standings: Iterable[Standing]) -> Iterator[str]:
    """Yield what writes survive, the strongest promise first, and whatever else a report says."""
    yield from Durability
    yield from dict.fromkeys(one.survives for one in standings if one.survives not in list(Durability))


def _rank(one: Standing) -> float:
    return -one.median if is_more_better(one.unit) else one.median


def growths(scenario: Mapping[str, Any]) -> list[Growth]:
    """Return the families that have enough races to be curves."""
    found: dict[tuple[str, str, str], list[Standing]] = {}
    for one in standings_of(scenario):
        if one.family and one.at > 0 and one.median > 0:
            found.setdefault((one.family, one.axis, one.unit), []).append(one)
    return [
        Growth(family=family, axis=axis, unit=unit, classes=_curves(ones))
        for (family, axis, unit), ones in found.items()
        if len({one.at for one in ones}) >= LEAST_POINTS
    ]


def _curves(standings: Sequence[Standing]) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    made = []
    for survives in _survivals(standings):
        lines: dict[str, list[Standing]] = {}
        for one in sorted((one for one in standings if one.survives == survives), key=lambda one: one.at):
            lines.setdefault(one.contender, []).append(one)
        ordered = sorted(lines.values(), key=lambda line: (not line[0].is_ours, _rank(line[-1])))
        if ordered:
            made.append((survives, tuple(map(tuple, ordered))))
    return tuple(made)

"""The arithmetic of a comparison: rounds in turn, ratios with their spread, and what may be concluded from them."""

from __future__ import annotations

import gc
import math
import os
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from benchmarks.contenders import Promise

    Store = Any
    """What a race's functions are handed: a contender, opened and filled."""
    Round = Callable[[Store, int], Awaitable[int]]
    """Does about so many operations with a store; returns how many it did."""
    Arena = Callable[[Path, "Plan"], AbstractAsyncContextManager[Mapping[str, Store]]]

MET, MISSED, NOISY = "met", "missed", "too noisy"
CONFIDENCE = 0.92
"""How sure the spread should be to hold the true median; with fewer than five rounds it cannot be, and is min..max."""
LEAST_ROUNDS = 3
"""Of fewer rounds nobody can say how much they vary."""
MAX_CALIBRATED_OPS = 2_000_000
SYNC_BYTES = 4_096
SYNCS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: rounds counted, seconds a contender has in each, tasks, keys, addresses, processes.

    `roots` and `fleets` are the points of a curve: how many addresses a root has, how many processes run at once.
    `against` are the slugs of those that take part beside us, all when it is None.
    """

    rounds: int
    round_s: float
    tasks: tuple[int, ...]
    keys: int
    addresses: int
    roots: tuple[int, ...]
    footprints: tuple[int, ...]
    processes: int
    processes_s: float
    fleets: tuple[int, ...]
    against: frozenset[str] | None = None

    def invites(self, slug: str) -> bool:
        """True when the contender of this slug is to take part beside us."""
        return self.against is None or slug in self.against

    @staticmethod
    def standard(rounds: int = 7) -> Plan:
        """What the figures in ops/figures.md stand on; some minutes."""
        return Plan(
            rounds=rounds,
            round_s=0.5,
            tasks=(1, 100, 1_000),
            keys=100_000,
            addresses=128,
            roots=(1, 10, 100, 1_000, 10_000),
            footprints=(256, 1_000),
            processes=8,
            processes_s=1.5,
            fleets=(1, 2, 4, 8, 16),
        )

    @staticmethod
    def quick(rounds: int = 2) -> Plan:
        """Enough to see that everything runs; a minute at most, and no figures to quote."""
        return Plan(
            rounds=rounds,
            round_s=0.03,
            tasks=(1, 100),
            keys=2_000,
            addresses=16,
            roots=(1, 10, 50),
            footprints=(16,),
            processes=2,
            processes_s=0.1,
            fleets=(1, 2),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should be: at least or at most `limit`."""

    relation: str
    limit: float

    def __post_init__(self) -> None:
        if self.relation not in (">=", "<="):
            raise ValueError(f"a target is >= or <= a limit, not {self.relation}")

    def holds(self, figure: float) -> bool:
        """True when `figure` reaches the target."""
        return figure >= self.limit if self.relation == ">=" else figure <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a figure per round, and the target it is held against (None: for the record)."""

    what: str
    unit: str
    figures: tuple[float, ...]
    once: bool = False
    """Measured a single time by design, since it does not vary as times do; any other row needs LEAST_ROUNDS."""
    target: Target | None = None
    why_missed: str = ""
    """Where it is known that the target is not reached here: the cause, in a line."""

    @property
    def reached(self) -> float:
        """The median."""
        return median(self.figures)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which figures the true median lies; see `spread_of`."""
        return spread_of(self.figures)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `too noisy` when the target lies inside the spread or rounds are few; empty without one."""
        if self.target is None:
            return ""
        if not self.once and len(self.figures) < LEAST_ROUNDS:
            return NOISY
        low, high = (self.target.holds(figure) for figure in self.spread)
        if low != high:
            return NOISY
        return MET if low else MISSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What one contender did in one race, a figure per round: microseconds per operation unless `unit` says else.

    Races of one `family` differ in one amount only, `at` of what `axis` names: together they are a curve.
    """

    race: str
    contender: str
    promise: Promise | None
    figures: tuple[float, ...]
    unit: str = "us"
    family: str = ""
    axis: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Which of two contenders is compared with which: as speed (higher is better) or as time (lower is better)."""

    subject: str
    other: str
    by: str = "speed"
    target: Target | None = None
    why_missed: str = ""

    def figures(self, us: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
        """Return a ratio per round. Both sides ran in the same turn, so a slow moment of the machine hits both."""
        pairs = zip(us[self.subject], us[self.other], strict=True)
        return tuple(other / own if self.by == "speed" else own / other for own, other in pairs)

    def row(self, race: str, us: Mapping[str, Sequence[float]]) -> Row:
        """Return the line of the table for what was measured."""
        what = f"{race}: {self.by} against {self.other}"
        return Row(what=what, unit="x", figures=self.figures(us), target=self.target, why_missed=self.why_missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """Several contenders doing the same work in turn; `ops` is a fixed amount for whoever measures by amount.

    `family`, `axis` and `at` are those of the series that come of it.
    """

    name: str
    ops: int
    runners: Mapping[str, Round]
    goals: tuple[Goal, ...] = ()
    family: str = ""
    axis: str = ""
    at: float | None = None

    def series(self, contender: str, promise: Promise | None, us: Sequence[float]) -> Series:
        """Return what one contender did here."""
        return Series(
            race=self.name,
            contender=contender,
            promise=promise,
            figures=tuple(us),
            family=self.family,
            axis=self.axis,
            at=self.at,
        )


@dataclass(slots=True, kw_only=True)
class Findings:
    """What a scenario found out."""

    rows: list[Row] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sync_ms: list[float] = field(default_factory=list)


def spread_of(figures: Sequence[float]) -> tuple[float, float]:
    """Return the narrowest pair of measured figures that holds the true median with CONFIDENCE; else min..max.

    By order statistics, without assuming a distribution: more rounds narrow it, where min..max would only widen.
    """
    ordered, count = sorted(figures), len(figures)
    inner = 0
    # The k-th smallest lies above the true median with the chance that fewer than k of `count` coins show heads.
    for k in range(1, (count + 1) // 2):
        outside = 2 * sum(math.comb(count, heads) for heads in range(k + 1)) / 2**count
        if 1 - outside < CONFIDENCE:
            break
        inner = k
    return ordered[inner], ordered[count - 1 - inner]


def sync_time_ms(folder: Path) -> float:
    """Return what writing and syncing 4 KiB takes now: the median of a few, as a control of the disk."""
    path = folder / "sync-control"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        taken = []
        for number in range(SYNCS):
            begun = time.perf_counter()
            os.pwrite(file, os.urandom(SYNC_BYTES), number * SYNC_BYTES)
            os.fdatasync(file)
            taken.append((time.perf_counter() - begun) * 1_000)
        return median(taken)
    finally:
        os.close(file)


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Return the order of a round: each begins with the next one, so that nobody is always the first."""
    listed = list(names)
    first = number % len(listed)
    return [*listed[first:], *listed[:first]]


async def timed(run: Round, store: Store, ops: int) -> tuple[float, int]:
    """Return the microseconds per operation and the number of operations of one round."""
    gc.collect()
    begun = time.perf_counter()
    done = await run(store, ops)
    return (time.perf_counter() - begun) * 1e6 / done, done


async def run_race(
    race: Race, stores: Mapping[str, Store], plan: Plan, folder: Path, tell: Callable[[int], None] = lambda _: None
) -> tuple[dict[str, list[float]], list[float]]:
    """Run the contenders that take part in turn; return their figures and the disk's control before each turn.

    A first short go finds how many operations fill a round; a whole round as warm-up is dropped. `tell` hears before
    each turn how many there were: whatever it takes to show that is in nobody's time.
    """
    runners = {name: run for name, run in race.runners.items() if name in stores}
    ops: dict[str, int] = {}
    for name, run in runners.items():
        us, done = await timed(run, stores[name], 1)
        us, done = await timed(run, stores[name], max(done, min(race.ops, round(plan.round_s * 2e5 / us))))
        ops[name] = max(1, min(MAX_CALIBRATED_OPS, round(plan.round_s * 1e6 / us)))
    figures: dict[str, list[float]] = {name: [] for name in runners}
    controls = []
    for number in range(plan.rounds + 1):
        tell(number)
        control = sync_time_ms(folder)
        for name in in_turn(runners, number):
            us, _ = await timed(runners[name], stores[name], ops[name])
            if number:
                figures[name].append(us)
        if number:
            controls.append(control)
    return figures, controls

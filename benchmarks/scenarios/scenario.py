"""What a scenario is: a question, and races or a probe that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import missing
from benchmarks.measure import Findings, run_race
from prontodb.model.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import Any

    from benchmarks.measure import Arena, Plan, Race

    Tell = Callable[[Progress], None]


def untold(_: Progress) -> None:
    """Tell nobody how far it is."""


def _placed(tell: Tell, race: str, before: int, total: int) -> Callable[[int], None]:
    return lambda done: tell(Progress(what=race, done=before + done, total=total))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Either `races` over the stores that `arena` opens, or a `probe` that measures in its own way."""

    name: str
    question: str
    contenders: Sequence[type[Any]] = ()
    arena: Arena | None = None
    races: Callable[[Plan], Sequence[Race]] | None = None
    probe: Callable[[Path, Plan], Awaitable[Findings]] | None = None

    async def run(self, folder: Path, plan: Plan, tell: Tell = untold) -> Findings:
        """Measure in an empty folder and return what was found; `tell` hears of a probe, or of each round."""
        if self.probe is not None:
            tell(Progress(what="", done=0, total=1))
            return await self.probe(folder, plan)
        assert self.arena is not None
        assert self.races is not None
        findings = Findings(missing=missing(self.contenders, plan))
        async with self.arena(folder, plan) as stores:
            races = self.races(plan)
            for number, race in enumerate(races):
                tell_place = _placed(tell, race.name, number * (plan.rounds + 1), len(races) * (plan.rounds + 1))
                us, controls = await run_race(race, stores, plan, folder, tell_place)
                findings.sync_ms += controls
                findings.rows += [goal.row(race.name, us) for goal in race.goals if goal.other in us]
                findings.series += [race.series(name, stores[name].promise, taken) for name, taken in us.items()]
        return findings

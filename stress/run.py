"""A run: each scenario in a root of its own: agents and faults at once, then a look at what is left, then judgement."""

from __future__ import annotations

import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from .aftermath import Aftermath
from .checks import CHECKS
from .fleet import Fleet, Past
from .history import History, Recorder, read_history
from .inspection import RUN_MARK, inspect, until_gone
from .report.figures import Scene
from .report.terminal import Progress
from .work import Orders
from .worlds import PRONTO_WORLD

if TYPE_CHECKING:
    from prontodb import SessionManager

    from .faults.fault import Fault
    from .plan import Plan
    from .scenarios.scenario import Scenario
    from .verdict import Verdict

FAULT_EVERY_S = 1.2
"""Between two faults of one kind, on the average, with up to KINDS_AT_ONCE kinds; longer with more."""
KINDS_AT_ONCE = 3
FAULTS_AT_LEAST = 6
"""Of one kind, however short the run."""
LOOK_EVERY_S = 0.5
GONE_S = 10.0
FAULT_MAKER = "faults-1"


Show = Callable[[Progress], None]


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where one scenario is played."""

    scenario: Scenario
    plan: Plan
    faults: Sequence[Fault]
    skipped: Mapping[str, str]
    root: Path
    place: Path
    """For files of faults and sources, and what is restored on trial."""
    history: Path
    words: Path
    """What agents wrote to stderr."""

    @classmethod
    def made(cls, scenario: Scenario, plan: Plan, faults: Sequence[Fault], skipped: Mapping[str, str]) -> Stage:
        """Make the folders."""
        report = Path(plan.report)
        stage = cls(
            scenario=scenario,
            plan=plan,
            faults=faults,
            skipped=skipped,
            root=Path(plan.root) / scenario.name,
            place=report / "scratch" / scenario.name,
            history=report / "history" / scenario.name,
            words=report / "agents" / scenario.name,
        )
        for folder in (stage.root, stage.place, stage.history, stage.words):
            folder.mkdir(parents=True, mode=0o700)
        return stage


async def play(stage: Stage, show: Show) -> Scene:
    """Play one scenario and judge it."""
    try:
        scene = await _play(stage, show)
        if any(verdict.violations for verdict in scene.verdicts) and any(one.takes_root_away for one in stage.faults):
            # What shows a violation must outlast the fault that takes it away.
            shutil.copytree(stage.root, Path(stage.plan.report) / "data" / stage.scenario.name, symlinks=True)
        return scene
    finally:
        for fault in stage.faults:
            fault.release()


async def _play(stage: Stage, show: Show) -> Scene:
    scenario, plan = stage.scenario, stage.plan
    addresses, mark = scenario.addresses(plan), uuid.uuid4().hex
    environment = {RUN_MARK: mark}
    recorder = Recorder(stage.history / f"{FAULT_MAKER}.jsonl")
    show(_staged(scenario.name, "starting"))
    try:
        for fault in stage.faults:
            environment |= fault.prepare(stage.root, stage.place)
        facts = {} if scenario.prepare is None else await scenario.prepare(stage.root, stage.place, plan)
        fleet = Fleet(
            _orders(stage, addresses, facts),
            plan.agents,
            root=stage.root,
            folder=stage.words,
            recorder=recorder,
            environment=environment,
        )
        began_ns = await _work(stage, fleet, show)
        ended_ns = time.monotonic_ns()
    finally:
        for fault in stage.faults:
            fault.finish()
        recorder.close()
    await until_gone(mark, GONE_S)
    history = History(
        operations=read_history(stage.history),
        faults=fleet.faults,
        began_ns=began_ns,
        ended_ns=min(ended_ns, fleet.until_ns),
    )

    def looking(at: str) -> None:
        show(_staged(scenario.name, f"looking at {at}", len(history.operations)))

    aftermath = await _look(stage, facts, history, mark, looking)
    aftermath.endings += fleet.endings
    aftermath.facts["explained"] = _explained(stage.faults)
    return _judged(stage, history, aftermath, looking)


def _orders(stage: Stage, addresses: int, facts: dict[str, Any]) -> Callable[[int, str, Past], Orders]:
    plan = stage.plan

    def orders(number: int, process: str, past: Past) -> Orders:
        return Orders(
            scenario=stage.scenario.name,
            process=process,
            number=number,
            agents=plan.agents,
            addresses=addresses,
            seed=plan.seed,
            root=str(stage.root),
            history=str(stage.history / f"{process}.jsonl"),
            operations=max(0, plan.operations - past.done - past.failed),
            size_bytes=max(0, (plan.mebibytes << 20) - past.size_bytes),
            breaks=list(plan.breaks),
            facts=facts,
        )

    return orders


async def _work(stage: Stage, fleet: Fleet, show: Show) -> int:
    """Have the agents work while faults are made; return when that began."""
    async with anyio.create_task_group() as watching:
        watching.start_soon(_watch, stage, fleet, show)
        async with anyio.create_task_group() as working:
            await working.start(fleet.work, stage.plan.seconds)
            began_ns = time.monotonic_ns()
            with anyio.move_on_after((fleet.until_ns - began_ns) / 1e9):
                async with anyio.create_task_group() as making:
                    for fault in stage.faults:
                        making.start_soon(_make_again_and_again, stage, fault, fleet)
                    await fleet.over.wait()
                    making.cancel_scope.cancel()
        watching.cancel_scope.cancel()
    return began_ns


async def _make_again_and_again(stage: Stage, fault: Fault, fleet: Fleet) -> None:
    """Make one kind of fault at random instants, until we are cancelled."""
    chance = Random(f"{stage.plan.seed}/{stage.scenario.name}/{fault.name}")
    # What is always under some fault does nothing that could go wrong.
    crowding = max(1.0, len(stage.faults) / KINDS_AT_ONCE)
    longest_s = 2 * min(FAULT_EVERY_S * crowding, stage.plan.seconds / FAULTS_AT_LEAST)
    while True:
        await anyio.sleep(chance.uniform(0, longest_s))
        await fault.make(fleet, chance)


async def _watch(stage: Stage, fleet: Fleet, show: Show) -> None:
    before, before_ns = 0, time.monotonic_ns()
    while True:
        await anyio.sleep(LOOK_EVERY_S)
        totals, now_ns = fleet.totals(), time.monotonic_ns()
        done = totals.done + totals.failed
        began_ns = fleet.until_ns - int(stage.plan.seconds * 1e9)
        show(
            Progress(
                scenario=stage.scenario.name,
                stage="" if fleet.until_ns else "starting",
                elapsed_s=(now_ns - began_ns) / 1e9 if fleet.until_ns else 0.0,
                of_s=stage.plan.seconds,
                agents=fleet.alive,
                operations=done,
                ops_per_s=(done - before) * 1e9 / (now_ns - before_ns),
                faults=Counter(fault.name for fault in fleet.faults),
                alarms=totals.alarms,
            )
        )
        before, before_ns = done, now_ns


def _staged(scenario: str, stage: str, operations: int = 0) -> Progress:
    return Progress(scenario=scenario, stage=stage, elapsed_s=0, of_s=0, agents=0, operations=operations, ops_per_s=0)


async def _look(
    stage: Stage, facts: dict[str, Any], history: History, mark: str, say: Callable[[str], None]
) -> Aftermath:
    if stage.scenario.world != PRONTO_WORLD:
        return Aftermath()
    look = stage.scenario.look

    async def also(manager: SessionManager, history: History, aftermath: Aftermath) -> None:
        if look is not None:
            say("what the scenario left")
            await look(manager, facts, history, aftermath)

    return await inspect(stage.root, stage.place, history, mark=mark, also=also, say=say)


def _explained(faults: Sequence[Fault]) -> dict[str, list[str]]:
    """Return which typed errors the faults explain: error to names of faults."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        for error in sorted(fault.explains):
            found.setdefault(error, []).append(fault.name)
    return found


def _judged(stage: Stage, history: History, aftermath: Aftermath, say: Callable[[str], None]) -> Scene:
    verdicts: list[Verdict] = []
    for name in stage.scenario.checks:
        say(f"the history: {name}")
        verdicts.append(CHECKS[name](history, aftermath))
    return Scene(
        name=stage.scenario.name,
        question=stage.scenario.question,
        plan=stage.plan,
        history=history,
        aftermath=aftermath,
        verdicts=verdicts,
        skipped_faults=stage.skipped,
        is_even=stage.scenario.is_even,
    )

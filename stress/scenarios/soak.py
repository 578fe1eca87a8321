"""Does it all hold at once, and for long? Every other scenario of ProntoDB, side by side in one root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import backup, churn, contention, crowd, isolation, migrate, ttl
from .scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from prontodb import SessionManager

    from ..aftermath import Aftermath
    from ..history import History
    from ..plan import Plan
    from ..work import Work

PARTS = (isolation, contention, ttl, churn, backup, migrate, crowd)
CROWD = 100


async def agent(work: Work) -> None:
    """Take part in one of the scenarios: the agents go round them."""
    number = work.orders.number
    turn = number % len(PARTS)
    part = PARTS[turn]
    work.place = number // len(PARTS)
    work.addresses = work.orders.facts["addresses"][part.SCENARIO.name]
    await part.SCENARIO.agent(work)


async def prepare(root: Path, place: Path, plan: Plan) -> dict[str, Any]:
    """Make ready for all of them."""
    facts: dict[str, Any] = {"addresses": {}}
    for turn, part in enumerate(PARTS):
        group = max(1, len(range(turn, plan.agents, len(PARTS))))
        of_part = plan.part(agents=group, addresses=CROWD if part is crowd else None)
        facts["addresses"][part.SCENARIO.name] = part.SCENARIO.addresses(of_part)
        if part.SCENARIO.prepare is not None:
            facts |= await part.SCENARIO.prepare(root, place, of_part)
    return facts


async def look(manager: SessionManager, facts: dict[str, Any], history: History, aftermath: Aftermath) -> None:
    """Look at what each of them left."""
    for part in PARTS:
        if part.SCENARIO.look is not None:
            await part.SCENARIO.look(manager, facts, history, aftermath)


SCENARIO = Scenario(
    name="soak",
    question="Does it all hold at once, and for long?",
    agent=agent,
    prepare=prepare,
    look=look,
    checks=tuple(dict.fromkeys(check for part in PARTS for check in part.SCENARIO.checks)),
    breaks=tuple(dict.fromkeys(name for part in PARTS for name in part.SCENARIO.breaks)),
)

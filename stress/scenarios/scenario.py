"""What a scenario is: what each agent does, what is made ready before, what is looked at afterwards and checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..worlds import PRONTO_WORLD, Pronto

if TYPE_CHECKING:
    from prontodb import SessionManager

    from ..aftermath import Aftermath
    from ..history import History
    from ..plan import Plan
    from ..work import Work

    Prepare = Callable[[Path, Path, Plan], Awaitable[dict[str, Any]]]
    Look = Callable[[SessionManager, dict[str, Any], History, Aftermath], Awaitable[None]]

ALWAYS = ("endings", "errors", "registry", "soundness")
"""The checkers of every scenario on ProntoDB."""


def as_many_as_agents(plan: Plan) -> int:
    """One address for each agent."""
    return plan.agents


def whole_manager(work: Work) -> SessionManager:
    """Return the manager of an agent in ProntoDB's world, for what is done to whole addresses."""
    assert isinstance(work.world, Pronto)
    return work.world.manager


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One question put to a fleet of agents."""

    name: str
    question: str
    agent: Callable[[Work], Awaitable[None]]
    """What one agent does until its time is over."""
    checks: tuple[str, ...]
    breaks: tuple[str, ...] = ()
    """The known faults that can show in it."""
    addresses: Callable[[Plan], int] = as_many_as_agents
    """How many, where the plan does not say. Raises `PlanError` for a plan that makes no sense."""
    prepare: Prepare | None = None
    """Makes ready in (root, folder for files, plan); returns what agents and `look` are told."""
    look: Look | None = None
    """Looks afterwards at what only this scenario knows."""
    is_even: bool = False
    """True when all agents do the same."""
    world: str = PRONTO_WORLD

"""What would the same load be in the old design? One SQLite file for all, for comparison; nothing is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..old_design import make
from ..worlds import SHARED_WORLD
from . import isolation
from .scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from ..plan import Plan


async def _prepare(root: Path, place: Path, plan: Plan) -> dict[str, Any]:
    make(root)
    return {}


SCENARIO = Scenario(
    name="shared-database",
    question="What would the same load be in the old design, one SQLite file for all?",
    agent=isolation.SCENARIO.agent,
    is_even=True,
    checks=("endings",),
    prepare=_prepare,
    world=SHARED_WORLD,
)

"""Does an entry live exactly as long as it was lent? Lent, renewed and read while others sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import moves
from ..breaks import EARLY_EXPIRY
from ..history import SWEEP
from .scenario import ALWAYS, Scenario, whole_manager

if TYPE_CHECKING:
    from ..plan import Plan
    from ..work import Stay, Work

AGENTS_PER_ADDRESS = 4
SWEEPER_OF = 4
"""One of so many agents sweeps."""
EXCLUSIVE_SHARE = 0.15
MOST_MOVES = 60
WAIT_S = 2.0
SHORTEST_MS, LONGEST_MS = 20, 3_000
MOVES = ((moves.lease(SHORTEST_MS, LONGEST_MS), 70), (moves.look_at_lease, 25), (moves.ledger, 5))


async def agent(work: Work) -> None:
    """Sweep, or lend."""
    if work.place % SWEEPER_OF == SWEEPER_OF - 1:
        await _sweep(work)
    else:
        await _lend(work)


async def _sweep(work: Work) -> None:
    manager = whole_manager(work)

    async def sweep() -> dict[str, object]:
        report = await manager.sweep()
        return {"entries": report.entries, "held": report.held, "skipped": report.skipped or ""}

    while work.goes_on:
        await work.operate(SWEEP, sweep, is_long=True)
        await work.rest(0.2)


async def _lend(work: Work) -> None:
    async def live(stay: Stay) -> None:
        await moves.move_about(stay, MOVES, work.chance.randint(1, MOST_MOVES))

    while work.goes_on:
        address = f"leases/{work.chance.randrange(work.addresses):03}"
        mode = "exclusive" if work.chance.random() < EXCLUSIVE_SHARE else "shared"
        await work.visit(address, mode, live, wait_s=WAIT_S)
        await work.rest(0.02)


def addresses(plan: Plan) -> int:
    """One for every few agents."""
    return plan.addresses or max(1, plan.agents // AGENTS_PER_ADDRESS)


SCENARIO = Scenario(
    name="ttl",
    question="Does an entry live exactly as long as it was lent, while others sweep?",
    agent=agent,
    addresses=addresses,
    checks=("expiry", "acknowledged", "holders", "fences", *ALWAYS),
    breaks=(EARLY_EXPIRY,),
)

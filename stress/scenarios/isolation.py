"""Does every agent have its address to itself? Each lives at its own, and asks for what is not its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import moves
from ..breaks import EARLY_EXPIRY, LEAKY, LOST_ACK, LOST_RAISE, SKIPPED_FENCE, STALE_READ, TORN_PAIR
from ..plan import PlanError
from .scenario import ALWAYS, Scenario

if TYPE_CHECKING:
    from ..plan import Plan
    from ..work import Stay, Work

MOST_MOVES = 400
"""In one session: then it is left and opened again."""
LEAST_LEASE_MS, LONGEST_LEASE_MS = 200, 4_000
MOVES = (
    (moves.ledger, 20),
    (moves.register, 15),
    (moves.counter, 10),
    (moves.pair, 10),
    (moves.token, 25),
    (moves.peek, 10),
    (moves.lease(LEAST_LEASE_MS, LONGEST_LEASE_MS), 10),
)


async def agent(work: Work) -> None:
    """Live at the own address."""
    own = f"{work.agent}/prod"

    async def live(stay: Stay) -> None:
        await moves.move_about(stay, MOVES, MOST_MOVES)

    while work.goes_on:
        if not await work.visit(own, "exclusive", live):
            await work.rest(0.05)


def addresses(plan: Plan) -> int:
    """One for each."""
    if plan.addresses not in (None, plan.agents):
        raise PlanError(f"in isolation every agent has an address of its own: leave out --addresses {plan.addresses}")
    return plan.agents


SCENARIO = Scenario(
    name="isolation",
    question="Does every agent have its address to itself?",
    agent=agent,
    is_even=True,
    addresses=addresses,
    checks=(
        "isolation",
        "acknowledged",
        "registers",
        "counters",
        "transactions",
        "expiry",
        "holders",
        "fences",
        *ALWAYS,
    ),
    breaks=(LEAKY, LOST_ACK, STALE_READ, LOST_RAISE, TORN_PAIR, EARLY_EXPIRY, SKIPPED_FENCE),
)

"""Do many agents at one address take turns, and share it, without losing anything?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import moves
from ..breaks import DOUBLE_HOLDER, EARLY_EXPIRY, LOST_ACK, LOST_RAISE, SKIPPED_FENCE, STALE_READ, TORN_PAIR
from .scenario import ALWAYS, Scenario

if TYPE_CHECKING:
    from ..plan import Plan
    from ..work import Stay, Work

PHASE_S = 1.2
EXCLUSIVE_PHASES = 3
"""In one of so many phases all come alone: where others are always there together, nobody alone would ever get in."""
OUT_OF_PHASE, OF_FEW = 0.05, 0.3
"""The share of visits that go against the phase: of a crowd, and of few agents, who let each other in at any time."""
MOST_ALONE, MOST_TOGETHER = 8, 60  # moves in one session
WAIT_S = 2.0
LEAST_LEASE_MS, LONGEST_LEASE_MS = 500, 8_000
MOVES = (
    (moves.ledger, 20),
    (moves.register, 40),
    (moves.counter, 20),
    (moves.pair, 15),
    (moves.lease(LEAST_LEASE_MS, LONGEST_LEASE_MS), 5),
)


async def agent(work: Work) -> None:
    """Come alone or together with others, for a few moves."""
    chance, contrary = work.chance, max(OUT_OF_PHASE, min(OF_FEW, 1 / work.orders.agents))
    while work.goes_on:
        address, phase = f"hall/{chance.randrange(work.addresses):03}", _phase()
        alone = (phase % EXCLUSIVE_PHASES == 0) != (chance.random() < contrary)
        most = chance.randint(1, MOST_ALONE if alone else MOST_TOGETHER)

        async def live(stay: Stay, most: int = most, phase: int = phase) -> None:
            await moves.move_about(stay, MOVES, most, while_=lambda: _phase() == phase)

        await work.visit(address, "exclusive" if alone else "shared", live, wait_s=WAIT_S)
        # Who leaves lets others in before it asks again.
        await work.rest(0.02)


def _phase() -> int:
    """The same for all agents at any moment: their clock is the machine's."""
    return int(time.monotonic() / PHASE_S)


def addresses(plan: Plan) -> int:
    """One for all."""
    return plan.addresses or 1


SCENARIO = Scenario(
    name="contention",
    question="Do many agents at one address take turns, and share it, without losing anything?",
    agent=agent,
    is_even=True,
    addresses=addresses,
    checks=("registers", "counters", "transactions", "acknowledged", "holders", "fences", "expiry", *ALWAYS),
    breaks=(DOUBLE_HOLDER, LOST_ACK, STALE_READ, LOST_RAISE, TORN_PAIR, EARLY_EXPIRY, SKIPPED_FENCE),
)

"""Do addresses come and go whole? Created, copied, renamed and deleted while others live in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import moves
from ..history import COPY, CREATE, DROP, RENAME
from .scenario import ALWAYS, Scenario, whole_manager

if TYPE_CHECKING:
    from prontodb import SessionManager

    from ..plan import Plan
    from ..work import Stay, Work

ADDRESSES_PER_AGENT = 2
MOST_MOVES = 10
WAIT_S = 1.0
MOVES = ((moves.mark, 60), (moves.counter, 40))


async def agent(work: Work) -> None:
    """Make, live in, copy, rename and delete addresses of a pool that all share."""
    manager, chance = whole_manager(work), work.chance
    while work.goes_on:
        address = f"pool/{chance.randrange(work.addresses):04}"
        kind = chance.random()
        if kind < 0.25:
            await _create(work, manager, address)
        elif kind < 0.65:
            await _live_at(work, address)
        elif kind < 0.80:
            await _copy(work, manager, address)
        elif kind < 0.85:
            await _rename(work, manager, address)
        else:
            await _drop(work, manager, address)
        await work.rest(0.01)


async def _live_at(work: Work, address: str) -> None:
    async def live(stay: Stay) -> None:
        await moves.move_about(stay, MOVES, work.chance.randint(1, MOST_MOVES))

    mode = "exclusive" if work.chance.random() < 0.3 else "shared"
    await work.visit(address, mode, live, wait_s=WAIT_S, create=False)


async def _create(work: Work, manager: SessionManager, address: str) -> None:
    await work.operate(CREATE, lambda: manager.create(address), address=address)


async def _drop(work: Work, manager: SessionManager, address: str) -> None:
    await work.operate(DROP, lambda: manager.delete(address), address=address)


async def _rename(work: Work, manager: SessionManager, address: str) -> None:
    target = f"moved/{work.orders.process}-{work.serial()}"
    await work.operate(RENAME, lambda: manager.rename(address, target), address=address, argument={"target": target})


async def _copy(work: Work, manager: SessionManager, address: str) -> None:
    """Copy to a name that nobody else uses, and read there what the source had at some instant of the copying."""
    target = f"copied/{work.orders.process}-{work.serial()}"

    async def copy() -> dict[str, object]:
        await manager.copy(address, target)
        user, _, cursor = target.partition("/")
        async with manager.session(user, cursor, mode="read") as keystore:
            return {"marks": await keystore.get_many(list(moves.MARKS))}

    await work.operate(COPY, copy, address=address, argument={"target": target}, cancellable=False)


def addresses(plan: Plan) -> int:
    """Some for each agent: more would never meet."""
    return plan.addresses or plan.agents * ADDRESSES_PER_AGENT


SCENARIO = Scenario(
    name="churn",
    question="Do addresses come and go whole, while others live in them?",
    agent=agent,
    is_even=True,
    addresses=addresses,
    checks=("lifecycle", "copies", "holders", "fences", *ALWAYS),
)

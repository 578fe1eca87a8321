"""Do a thousand addresses, or ten thousand, live beside each other? `--addresses` says how many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

import prontodb

from .. import moves
from ..breaks import LOST_ACK, LOST_RAISE, TORN_PAIR
from ..history import BACKUP, LIST, SWEEP
from .backup import told
from .scenario import ALWAYS, Scenario, whole_manager

if TYPE_CHECKING:
    from pathlib import Path

    from prontodb import SessionManager

    from ..aftermath import Aftermath
    from ..history import History
    from ..plan import Plan
    from ..work import Stay, Work

DEFAULT_ADDRESSES = 1_000
MAKERS = 8
"""Tasks that make the addresses before the agents come."""
MOST_MOVES = 6
WAIT_S = 1.0
MOVES = ((moves.ledger, 40), (moves.counter, 25), (moves.pair, 20), (moves.register, 15))


async def agent(work: Work) -> None:
    """Do the housekeeping of all, or live at one after the other."""
    if work.place == 0:
        await _keep_house(work)
    else:
        await _wander(work)


async def _wander(work: Work) -> None:
    async def live(stay: Stay) -> None:
        await moves.move_about(stay, MOVES, work.chance.randint(1, MOST_MOVES))

    while work.goes_on:
        mode = "exclusive" if work.chance.random() < 0.5 else "shared"
        await work.visit(_address(work.chance.randrange(work.addresses)), mode, live, wait_s=WAIT_S)


async def _keep_house(work: Work) -> None:
    manager = whole_manager(work)

    async def list_all() -> int:
        return len(await manager.addresses())

    async def sweep() -> int:
        return (await manager.sweep()).entries

    async def backup() -> str | dict[str, Any] | None:
        return told(await manager.backup())

    jobs = ((LIST, list_all), (SWEEP, sweep), (BACKUP, backup))
    while work.goes_on:
        op, job = work.chance.choice(jobs)
        await work.operate(op, job, is_long=True)
        await work.rest(0.5)


def _address(number: int) -> str:
    return f"crowd{number // 100:03}/{number:05}"


def addresses(plan: Plan) -> int:
    """A thousand, where nobody says."""
    return plan.addresses or DEFAULT_ADDRESSES


async def prepare(root: Path, place: Path, plan: Plan) -> dict[str, Any]:
    """Make all addresses."""
    began = time.monotonic()
    async with prontodb.open(root) as manager, anyio.create_task_group() as makers:
        for first in range(MAKERS):
            makers.start_soon(_make, manager, range(first, addresses(plan), MAKERS))
    return {"created_s": time.monotonic() - began, "created": addresses(plan)}


async def _make(manager: SessionManager, numbers: range) -> None:
    for number in numbers:
        await manager.create(_address(number))


async def look(manager: SessionManager, facts: dict[str, Any], history: History, aftermath: Aftermath) -> None:
    """Say what making them cost."""
    aftermath.notes.append(
        f"{facts['created']:,} addresses were made in {facts['created_s']:.1f} s, one after the other"
    )


SCENARIO = Scenario(
    name="crowd",
    question="Do a thousand addresses, or ten thousand, live beside each other?",
    agent=agent,
    addresses=addresses,
    prepare=prepare,
    look=look,
    checks=("acknowledged", "registers", "counters", "transactions", "backups", "holders", "fences", *ALWAYS),
    breaks=(LOST_ACK, TORN_PAIR, LOST_RAISE),
)

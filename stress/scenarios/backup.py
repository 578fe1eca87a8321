"""Is a backup of living addresses what they were at one instant? Made, verified and restored while all write."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import moves
from ..breaks import LOST_ACK, LOST_RAISE, TORN_PAIR
from ..history import BACKUP, RESTORE, VERIFY
from .scenario import ALWAYS, Scenario, whole_manager

if TYPE_CHECKING:
    from prontodb import SessionManager

    from ..plan import Plan
    from ..work import Stay, Work

KEEPER_OF = 16
"""One of so many agents, and the first one always, makes backups."""
FULL_SHARE, VERIFY_SHARE, RESTORE_SHARE = 0.15, 0.2, 0.15
MOST_MOVES = 200
MOVES = ((moves.ledger, 50), (moves.pair, 25), (moves.counter, 25))


async def agent(work: Work) -> None:
    """Keep backups, or write."""
    if work.place % KEEPER_OF == 0:
        await _keep(work)
    else:
        await _write(work)


async def _write(work: Work) -> None:
    async def live(stay: Stay) -> None:
        await moves.move_about(stay, MOVES, MOST_MOVES)

    while work.goes_on:
        await work.visit(f"{work.agent}/kept", "exclusive", live)
        await work.rest(0.05)


async def _keep(work: Work) -> None:
    manager, chance = whole_manager(work), work.chance
    while work.goes_on:
        kind = chance.random()
        if kind < VERIFY_SHARE:
            await work.operate(VERIFY, lambda: _verify(work, manager), is_long=True)
        elif kind < VERIFY_SHARE + RESTORE_SHARE:
            into = Path(work.orders.facts["place"]) / f"{work.orders.process}-{work.serial()}"
            argument = {"into": into.name}
            await work.operate(RESTORE, partial(_restore, work, manager, into), argument=argument, is_long=True)
        else:
            await work.operate(BACKUP, lambda: _backup(work, manager), is_long=True)
        await work.rest(0.3)


async def _backup(work: Work, manager: SessionManager) -> str | dict[str, Any] | None:
    report = await manager.backup(full=work.chance.random() < FULL_SHARE)
    work.tally.alarms += len(report.failed) + len(report.doubtful)
    return told(report)


def told(report: Any) -> str | dict[str, Any] | None:
    """Return what the history is told of a backup: its id, and which addresses it could not have."""
    return {"id": report.id, "failed": [address for address, _ in report.failed]} if report.failed else report.id


async def _verify(work: Work, manager: SessionManager) -> dict[str, Any]:
    report = await manager.verify()
    work.tally.alarms += len(report.problems)
    return {"problems": [list(problem) for problem in report.problems]}


async def _restore(work: Work, manager: SessionManager, into: Path) -> dict[str, Any] | None:
    """Restore the newest backup to another root, and throw that away."""
    if not (await manager.backups()).backups:
        return None
    try:
        report = await manager.restore(into=into)
        work.tally.alarms += len(report.failed)
        return {"backup": report.backup, "failed": [list(one) for one in report.failed]}
    finally:
        shutil.rmtree(into, ignore_errors=True)


async def prepare(root: Path, place: Path, plan: Plan) -> dict[str, Any]:
    """Tell agents where to restore to."""
    return {"place": str(place)}


SCENARIO = Scenario(
    name="backup",
    question="Is a backup of living addresses what they were at one instant?",
    agent=agent,
    prepare=prepare,
    checks=("backups", "acknowledged", "transactions", "counters", "holders", "fences", *ALWAYS),
    breaks=(LOST_ACK, TORN_PAIR, LOST_RAISE),
)

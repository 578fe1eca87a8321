"""What does it cost to open and close a session, beside opening and closing the keystore's file alone?"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import prontodb
from benchmarks.contenders import DURABLE, Durability, Promise
from benchmarks.measure import Goal, Race, Target
from benchmarks.scenarios.scenario import Scenario
from prontodb.engine.sqlite import opening
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan, Round

EXCLUSIVE, SHARED, READ = (f"prontodb, {mode} session" for mode in ("exclusive", "shared", "read"))
FILE = "the keystore's file alone"
ALONE = "agent2/prod"
LOCKED = Promise(survives=Durability.POWER_LOSS, notes=("locked, registered, fenced",))
PROMISES = {EXCLUSIVE: LOCKED, SHARED: LOCKED, READ: None, FILE: DURABLE}


class _Measured:
    """One root with one address, and how it is opened."""

    def __init__(self, manager: prontodb.SessionManager, promise: Promise | None) -> None:
        self.manager, self.promise = manager, promise


@asynccontextmanager
async def arena(folder: Path, _plan: Plan) -> AsyncIterator[Mapping[str, _Measured]]:
    """Open a root; its keystore stays open in the pool, as it does for an agent that comes and goes.

    The file that is opened alone is of another address, which nobody has open.
    """
    async with prontodb.open(folder / "root", settings=prontodb.Settings()) as manager:
        for address in ("agent1/prod", ALONE):
            await manager.create(address)
        yield {name: _Measured(manager, promise) for name, promise in PROMISES.items()}


def _sessions(mode: str) -> Round:
    async def run(measured: _Measured, ops: int) -> int:
        for _ in range(ops):
            async with measured.manager.session("agent1", "prod", mode=mode):
                pass
        return ops

    return run


async def _file(measured: _Measured, ops: int) -> int:
    """Open the file for writing with all checks and pragmas, and close it."""
    layout, address, limits = Layout(measured.manager.root), Address.parse(ALONE), Limits()
    for _ in range(ops):
        connection, _ = opening.open_writer(layout, address, limits)
        connection.close()
    return ops


def _race(name: str, mode: str, target: Target | None = None) -> Race:
    return Race(
        name=f"open and close, {mode} session",
        ops=100,
        runners={name: _sessions(mode), FILE: _file},
        goals=(Goal(subject=name, other=FILE, by="time", target=target),),
    )


AT_MOST = Target(relation="<=", limit=12)

SCENARIO = Scenario(
    name="sessions",
    question="What does opening and closing a session cost, beside opening and closing the keystore's file alone?",
    arena=arena,
    races=lambda _plan: (
        _race(EXCLUSIVE, "exclusive", AT_MOST),
        _race(SHARED, "shared", AT_MOST),
        _race(READ, "read"),
    ),
)

"""Does an old database come over whole while agents already live at its addresses?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlcipher3 import dbapi2 as sqlite

from prontodb import errors

from .. import moves
from ..history import MIGRATE
from .scenario import ALWAYS, Scenario, whole_manager

if TYPE_CHECKING:
    from prontodb import SessionManager

    from ..aftermath import Aftermath
    from ..history import History
    from ..plan import Plan
    from ..work import Stay, Work

FILE = "old.db"
ROWS = 200
"""Of each old user."""
CLAIM_SHARE = 0.15
"""Of the moves at an old user's address, those that set one of the keys that the source has, too."""
MOST_MOVES = 12
WAIT_S = 1.0
SOURCE = "source"
_TABLE = (
    "CREATE TABLE kvstore (id INTEGER PRIMARY KEY, address TEXT NOT NULL, value TEXT NOT NULL, created_at TIMESTAMP, "
    "updated_at TIMESTAMP)"
)
_AT = "2023-11-14 22:13:20"


async def agent(work: Work) -> None:
    """Import the source again and again, or live at the addresses that it goes to."""
    if work.place == 0:
        await _import(work)
    else:
        await _live(work)


async def _import(work: Work) -> None:
    manager, source = whole_manager(work), work.orders.facts[SOURCE]
    targets = [_address(number) for number in range(work.orders.facts["users"])]
    while work.goes_on:
        await work.operate(MIGRATE, lambda: _migrate(manager, source), argument={"targets": targets}, is_long=True)
        await work.rest(0.5)


async def _migrate(manager: SessionManager, source: str) -> dict[str, Any]:
    report = await manager.migrate(source)
    return {"migrated": report.migrated, "reported": report.reported, "failed": len(report.failed)}


async def _live(work: Work) -> None:
    async def live(stay: Stay) -> None:
        await moves.move_about(stay, ((moves.ledger, 10), (_claim, 2)), work.chance.randint(1, MOST_MOVES))

    while work.goes_on:
        await work.visit(_address(work.chance.randrange(work.addresses)), "shared", live, wait_s=WAIT_S)
        # An address is imported while nobody is there.
        await work.rest(0.5)


async def _claim(stay: Stay) -> None:
    """Set a key that the source has, too: whose it is from then on, no import may take it."""
    await stay.set(_key(stay.work.chance.randrange(ROWS)), stay.work.unique())


def _address(number: int) -> str:
    return f"old{number:03}/prod"


def _key(number: int) -> str:
    return f"old.area{number % 7}.note{number:05}"


def _value(user: int, number: int) -> str:
    return f"old:{user}:{number}:" + "x" * (number % 50)


def addresses(plan: Plan) -> int:
    """How many users the old database has."""
    return plan.addresses or max(2, plan.agents // 2)


async def prepare(root: Path, place: Path, plan: Plan) -> dict[str, Any]:
    """Make the old database."""
    path = place / FILE
    connection = sqlite.connect(str(path), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_TABLE)
    rows = (
        (f"{_address(user).replace('/', '.')}.{_key(number)}", _value(user, number), _AT, _AT)
        for user in range(addresses(plan))
        for number in range(ROWS)
    )
    connection.executemany("INSERT INTO kvstore (address, value, created_at, updated_at) VALUES (?, ?, ?, ?)", rows)
    connection.execute("COMMIT")
    connection.close()
    return {SOURCE: str(path), "sha256": _digest(path), "users": addresses(plan)}


async def look(manager: SessionManager, facts: dict[str, Any], history: History, aftermath: Aftermath) -> None:
    """Import once more, now that nobody is there, and say what should be where."""
    path = Path(facts[SOURCE])
    try:
        report = await manager.migrate(path)
        aftermath.facts["import_failed"] = [list(one) for one in report.failed]
    except errors.ProntoError as error:
        aftermath.facts["import_failed"] = [["", str(error)]]
    aftermath.facts["source_changed"] = _digest(path) != facts["sha256"]
    aftermath.facts["source"] = {
        _address(user): {_key(number): _value(user, number) for number in range(ROWS)} for user in range(facts["users"])
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


SCENARIO = Scenario(
    name="migrate",
    question="Does an old database come over whole, while agents already live at its addresses?",
    agent=agent,
    addresses=addresses,
    prepare=prepare,
    look=look,
    checks=("imports", "acknowledged", *ALWAYS),
)

"""Cancelling anything at any instant: no open transaction, and what the note says of the outcome is true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb.errors import ConflictError, outcome_is_unknown, was_committed
from prontodb.keystore import Keystore
from prontodb.manager import SessionManager
from tests.checking import root_faults
from tests.managing import PATIENCE_S, Child, descriptors, managed, threads

ROUNDS = 60
SEED = 20_260_211

WRITER = """
import sys
from prontodb.direct import OneShot, run
from prontodb.model.address import Address
for line in sys.stdin:
    with OneShot(sys.argv[1], Address("agent", "test")) as keystore:
        run(keystore.set("other.process", line.strip()))
    print("written", flush=True)
"""
"""Another process, which writes once for each line it is told."""

Act = Callable[[SessionManager, Keystore, int], Awaitable[object]]


async def transact(_: SessionManager, ks: Keystore, number: int) -> None:
    async with ks.transaction() as tx:
        await tx.get("counter")
        tx.set(f"t{number}", "v")
        tx.set(f"t{number}.twin", "v")


async def open_session(manager: SessionManager, _: Keystore, number: int) -> None:
    async with manager.session("agent", f"s{number}") as ks:
        await ks.set("a", "1")


async def raise_counter(_: SessionManager, ks: Keystore, number: int) -> None:
    await ks.increment("n", number)


async def scan_all(_: SessionManager, ks: Keystore, number: int) -> None:
    assert len([entry async for entry in ks.scan("scanned.")]) == 200
    assert await ks.count("scanned.") == 200
    await ks.list_keys("scanned.")


ACTS: dict[str, Act] = {
    "set": lambda _, ks, n: ks.set(f"t{n}", "v"),
    "set_many": lambda _, ks, n: ks.set_many({f"t{n}": "v", f"t{n}.twin": "v"}),
    "transaction": transact,
    "set_namespace_ttl": lambda _, ks, n: ks.set_namespace_ttl(f"t{n}", 60),
}
"""What leaves a trace of round n, which must be there exactly when the note says so."""

COMMITTED, NOTHING, UNKNOWN = "the write was committed", "nothing was written", "outcome unknown"
CANCELLERS = ("native", "scope", "native twice")


async def note_after(act: Callable[[], Awaitable[object]], canceller: str, delay: tuple[int, float]) -> str | None:
    """Begin `act` and cancel it; return the notes of the cancellation, or None when `act` was done before."""
    ticks, delay_s = delay
    said: list[str] = []
    asked: list[tuple[bool, bool]] = []
    scope = anyio.CancelScope()
    begun = False

    async def body() -> None:
        nonlocal begun
        begun = True
        with scope:
            try:
                await act()
            except asyncio.CancelledError as error:
                said.append(" ".join(getattr(error, "__notes__", ())))
                # By a call, too, for who must not depend on words.
                asked.append((was_committed(error), outcome_is_unknown(error)))
                raise
            except ConflictError:
                said.append(NOTHING)

    task = asyncio.create_task(body())
    for _ in range(ticks):
        await asyncio.sleep(0)
    if delay_s:
        await asyncio.sleep(delay_s)
    if canceller == "scope":
        scope.cancel()
    else:
        task.cancel()
        if canceller == "native twice":
            await asyncio.sleep(0)
            task.cancel()
    with anyio.fail_after(PATIENCE_S):
        await asyncio.wait([task])
    assert all(told == (COMMITTED in said[0], UNKNOWN in said[0]) for told in asked)
    if not begun:
        return NOTHING
    return said[0] if said else None


def instant(chance: random.Random) -> tuple[int, float]:
    """Some loop ticks, or some fractions of a millisecond: both sides of a commit, and its middle."""
    return (chance.randrange(0, 14), 0.0) if chance.random() < 0.7 else (0, chance.random() * 0.004)


async def is_stored(name: str, ks: Keystore, number: int) -> bool:
    if name == "set_namespace_ttl":
        return f"t{number}" in await ks.namespace_ttls()
    found = await ks.get_many([f"t{number}", f"t{number}.twin"])
    if name != "set":
        assert (found[f"t{number}"] is None) == (found[f"t{number}.twin"] is None), "half of a write was kept"
    return found[f"t{number}"] is not None


async def changed(manager: SessionManager, name: str, number: int) -> bool:
    """Tell whether round n of a change of a whole address has happened."""
    there = {str(row.address) for row in await manager.addresses()}
    return {
        "create": f"made/{number}" in there,
        "delete": f"gone/{number}" not in there,
        "rename": f"new/{number}" in there,
        "copy": f"copy/{number}" in there,
    }[name]


@pytest.mark.parametrize("name", ["create", "delete", "rename", "copy"])
async def test_a_cancelled_change_of_an_address_says_whether_it_was_made(root: Path, name: str) -> None:
    chance = random.Random(f"{SEED} {name}")
    outcomes = set()
    async with managed(root) as manager:
        for number in range(ROUNDS // 3):
            await manager.create(f"gone/{number}")
            acts: dict[str, Callable[[], Awaitable[object]]] = {
                "create": partial(manager.create, f"made/{number}"),
                "delete": partial(manager.delete, f"gone/{number}"),
                "rename": partial(manager.rename, f"gone/{number}", f"new/{number}"),
                "copy": partial(manager.copy, f"gone/{number}", f"copy/{number}"),
            }
            act = acts[name]
            note = await note_after(act, CANCELLERS[number % 2], (chance.randrange(0, 30), chance.random() * 0.01))
            happened = await changed(manager, name, number)
            where = f"round {number} of seed {SEED}: {note!r}, made: {happened}"
            assert happened == (note is None or COMMITTED in note), where
            outcomes.add(note is None)
    assert False in outcomes, f"no round of seed {SEED} was cancelled in time"
    assert root_faults(str(root)) == []


@pytest.mark.parametrize("name", ACTS)
async def test_the_note_on_a_cancelled_write_is_true(root: Path, name: str) -> None:
    chance = random.Random(f"{SEED} {name}")
    outcomes = set()
    async with (
        managed(root, lanes=1, durability="full") as manager,
        manager.session("agent", "test", mode="shared") as ks,
    ):
        for number in range(ROUNDS):
            noise = [asyncio.create_task(ks.increment("counter")) for _ in range(chance.randrange(3))]
            act = partial(ACTS[name], manager, ks, number)
            note = await note_after(act, CANCELLERS[number % 3], instant(chance))
            stored = await is_stored(name, ks, number)
            where = f"round {number} of seed {SEED}: {note!r}, stored: {stored}"
            if note is None or COMMITTED in note:
                assert stored, where
            elif UNKNOWN in note:
                assert CANCELLERS[number % 3] == "native twice", where
            else:  # without a note it was cancelled before it wrote
                assert not stored, where
                assert NOTHING in note or not note, where
            outcomes.add(note or str(note))
            with anyio.fail_after(PATIENCE_S):
                await ks.set("next", "works")
            await asyncio.gather(*noise)
    assert len(outcomes) > 1, f"the rounds of seed {SEED} ended all too much alike: {outcomes}"
    assert root_faults(str(root)) == []


async def test_increments_that_were_cancelled_count_exactly_when_they_say_so(root: Path) -> None:
    chance = random.Random(SEED)
    sure = 0
    async with managed(root, durability="full") as manager, manager.session("agent", "test", mode="shared") as ks:
        for number in range(ROUNDS):
            before = int(await ks.get("n") or 0)
            note = await note_after(lambda: ks.increment("n"), CANCELLERS[number % 3], instant(chance))
            if note is not None and UNKNOWN in note:
                await ks.set("fence", "behind it")
                sure += int(await ks.get("n") or 0) - before
            else:
                sure += note is None or COMMITTED in note
            assert int(await ks.get("n") or 0) == sure, f"round {number} of seed {SEED}"


async def test_after_every_cancellation_another_process_can_write_at_once(root: Path) -> None:
    chance = random.Random(SEED)
    acts: list[Act] = [*ACTS.values(), open_session, scan_all, raise_counter]
    with Child(WRITER, root) as other:
        async with managed(root, lanes=2) as manager, manager.session("agent", "test", mode="shared") as ks:
            await ks.set_many({f"scanned.{n}": "v" for n in range(200)})
            for number in range(ROUNDS):
                act = partial(acts[number % len(acts)], manager, ks, number)
                await note_after(act, CANCELLERS[number % 3], instant(chance))
                other.tell(str(number))
                assert await asyncio.to_thread(other.line) == "written"
                assert await ks.get("other.process") == str(number)


async def test_cancelled_sessions_scans_and_openings_leave_no_descriptor(root: Path) -> None:
    chance = random.Random(SEED)
    before = threads(), descriptors()
    acts: list[Act] = [
        open_session,
        scan_all,
        lambda manager, _, n: manager.copy("agent/test", f"agent/copy{n}"),
    ]
    async with managed(root, max_open_keystores=2) as manager, manager.session("agent", "test", mode="shared") as ks:
        await ks.set_many({f"scanned.{n}": "v" for n in range(200)})
        for number in range(ROUNDS):
            act = partial(acts[number % len(acts)], manager, ks, number)
            await note_after(act, CANCELLERS[number % 3], instant(chance))
        for address in [row.address for row in await manager.addresses()]:
            async with manager.session(address.user, address.cursor, mode="read") as whole:
                await whole.count()
    assert (threads(), descriptors()) == before
    assert root_faults(str(root)) == []


async def test_a_cancelled_error_is_raised_as_it_was(root: Path) -> None:
    """So that asyncio's own timeouts and anyio's scopes recognize it."""
    async with managed(root) as manager, manager.session("agent", "test", mode="shared") as ks:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await ks.set("a", "1")
        with pytest.raises(TimeoutError), anyio.fail_after(0):
            await ks.wait_for("never", timeout=PATIENCE_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_forever(ks), 0.001)


async def _forever(ks: Any) -> None:
    while True:
        await ks.increment("n")

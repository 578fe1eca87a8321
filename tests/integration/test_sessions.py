"""Sessions of the library: who gets in beside whom, who is told what, and that none shares what is one's own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from prontodb.errors import (
    AddressBusyError,
    AddressNotFoundError,
    InvalidInputError,
    ReadOnlyError,
)
from prontodb.manager import SessionManager
from prontodb.model.holder import Holder
from tests.checking import root_faults
from tests.managing import PATIENCE_S, managed
from tests.sessions import holder, session_files, stop

BESIDE = {("shared", "shared"), ("read", "exclusive"), ("read", "shared"), ("read", "read")}
BESIDE |= {(second, first) for first, second in BESIDE}


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    async with managed(root, wait_s=PATIENCE_S) as opened:
        yield opened


# Who gets in


@pytest.mark.parametrize("first", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("second", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("where", ["task", "process"])
async def test_who_gets_in_beside_whom(
    root: Path, manager: SessionManager, first: str, second: str, where: str
) -> None:
    async def gets_in() -> bool:
        try:
            async with manager.session("agent", "test", mode=second, wait=0):
                return True
        except AddressBusyError:
            return False

    await manager.create("agent/test")
    if where == "task":
        async with manager.session("agent", "test", mode=first):
            assert await gets_in() is ((first, second) in BESIDE)
    else:
        with holder(root, first) as other:
            assert other.line()
            assert await gets_in() is ((first, second) in BESIDE)
            other.end()
    assert await gets_in()


async def test_a_busy_address_names_its_holder_and_the_way_out(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        session = other.line()
        with pytest.raises(AddressBusyError) as caught:
            async with manager.session("agent", "test", wait=0):
                pass
        said = str(caught.value)
        for part in ("agent/test", session, f"pid {other.process.pid}", os.uname().nodename, "since 20", "exclusive"):
            assert part in said
        assert f"prontodb session end {session}" in said
        (found,) = caught.value.holders
        assert isinstance(found, Holder)
        assert (found.session, found.process.pid) == (session, other.process.pid)


async def test_a_killed_holder_is_replaced_at_once_and_leaves_no_session(root: Path, manager: SessionManager) -> None:
    for mode in ("exclusive", "shared"):
        with holder(root, mode) as other:
            session = other.line()
            assert [found.id for found in await manager.sessions()] == [session]
            other.process.kill()
            other.process.wait()
            assert await manager.sessions() == []
            async with manager.session("agent", "test", wait=0) as ks:
                assert [found.id for found in await manager.sessions()] == [ks.session_id]
        assert session_files(root) == []


async def test_a_waiter_of_another_process_gets_in_when_the_holder_leaves_or_dies(
    root: Path, manager: SessionManager
) -> None:
    for dies in (False, True):
        with holder(root) as other:
            other.line()
            waiting = asyncio.create_task(self_id(manager))
            await anyio.sleep(0.02)
            assert not waiting.done()
            if dies:
                other.process.kill()
            else:
                other.end()
            assert await waiting


async def self_id(manager: SessionManager) -> str:
    async with manager.session("agent", "test") as ks:
        return ks.session_id


async def test_a_stopped_holder_is_neither_reaped_nor_passed_by(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        session = other.line()
        stop(other)
        with pytest.raises(AddressBusyError, match=session):
            async with manager.session("agent", "test", wait=0.05):
                pass
        assert [found.id for found in await manager.sessions()] == [session]
        other.process.send_signal(signal.SIGCONT)
        other.tell('ks.set("a", "1")')
        assert other.line() == "1"


async def test_waiters_of_one_process_are_served_in_order(manager: SessionManager) -> None:
    order: list[int] = []

    async def enter(number: int) -> None:
        async with manager.session("agent", "test"):
            order.append(number)

    async with manager.session("agent", "test"), anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(enter, number)
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.02)
        assert order == []
        tasks.start_soon(enter, 20)
        first = manager._live._live
        (held,) = first.values()
        await manager._live.end(held)
    assert order == list(range(21))


async def test_no_time_to_wait_still_takes_what_is_free(manager: SessionManager) -> None:
    for _ in range(50):
        async with manager.session("agent", "test", wait=0):
            pass


async def test_the_wait_ends_at_its_deadline_also_in_the_queue(manager: SessionManager) -> None:
    async with manager.session("agent", "test") as ks, anyio.create_task_group() as tasks:

        async def refused() -> None:
            with pytest.raises(AddressBusyError, match=ks.session_id):
                async with manager.session("agent", "test", wait=0.05):
                    pass

        for _ in range(5):
            tasks.start_soon(refused)


@pytest.mark.parametrize("wait", [-1, float("nan"), "1", True])
async def test_a_wait_that_is_none_is_refused(manager: SessionManager, wait: Any) -> None:
    with pytest.raises(InvalidInputError, match="wait must be"):
        async with manager.session("agent", "test", wait=wait):
            pass


async def test_a_mode_or_labels_that_are_none_are_refused(manager: SessionManager) -> None:
    bad: list[dict[str, Any]] = [
        {"mode": "owner"},
        {"mode": None},
        {"labels": ["a"]},
        {"labels": {"a": 1}},
        {"labels": {"a": "x\n"}},
        {"labels": {"a": "x" * 101}},
        {"labels": {str(n): "x" for n in range(17)}},
    ]
    for options in bad:
        with pytest.raises(InvalidInputError, match=r"mode must be|label"):
            async with manager.session("agent", "test", **options):
                pass
    assert await manager.addresses() == [], "nothing was made"


async def test_a_reading_session_writes_nothing_and_makes_nothing(root: Path, manager: SessionManager) -> None:
    with pytest.raises(AddressNotFoundError):
        async with manager.session("agent", "test", mode="read"):
            pass
    async with manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        async with manager.session("agent", "test", mode="read") as reader:
            assert await reader.get("a") == "1"
            assert await reader.list_keys() == ["a"]
            for write in (
                reader.set("a", "2"),
                reader.delete("a"),
                reader.increment("n"),
                reader.set_many({"b": "1"}),
                reader.clear(),
                reader.touch("a", 5),
                reader.set_namespace_ttl("ns", 5),
                reader.compare_and_set("a", "1", "2"),
            ):
                with pytest.raises(ReadOnlyError, match="mode='exclusive' or 'shared'"):
                    await write
            await ks.set("a", "2")
            assert await reader.get("a") == "2"
        assert [found.mode for found in await manager.sessions()] == ["exclusive"]


async def test_copies_and_exports_read_beside_a_session_and_write_to_none_that_is_held(root: Path) -> None:
    async with managed(root, wait_s=0.01) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        await manager.copy("agent/test", "agent/copy")
        lines = [line async for line in manager.export("agent/test")]
        assert any('"a"' in line for line in lines)
        for write in (
            manager.copy("agent/copy", "agent/test", on_conflict="replace"),
            manager.import_lines("agent/test", lines, on_conflict="replace"),
        ):
            with pytest.raises(AddressBusyError, match=ks.session_id):
                await write
        assert await ks.get("a") == "1"
        # Whoever holds the session hands it over, and may read from another address into its own.
        await manager.copy("agent/copy", ks, on_conflict="replace")
        await ks.set("b", "2")
        report = await manager.copy(ks, "agent/third", keys=["b"])
        assert report.copied == 1
        async with manager.session("agent", "third", mode="read") as third:
            assert await third.list_keys() == ["b"]


# Taking turns under load


ROUNDS = 60

RIVAL = """
import asyncio, os, random, sys, prontodb
from prontodb.errors import AddressBusyError
root, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
place = os.path.join(os.path.dirname(root), "inside")
counts = {"exclusive": 0, "shared": 0, "busy": 0, "wrong": 0}
def others(name):
    return [entry for entry in os.listdir(place) if entry != name]
async def stay(manager, number):
    mode = chance.choice(["exclusive", "exclusive", "shared"])
    name = f"{mode}-{os.getpid()}-{number}-{chance.random()}"
    try:
        async with manager.session("agent", "test", mode=mode, wait=chance.choice([0, 0.05, 30])) as ks:
            open(os.path.join(place, name), "w").close()
            seen = others(name)
            if mode == "exclusive" and seen or any(entry.startswith("exclusive") for entry in seen):
                counts["wrong"] += 1
            await ks.increment("visits")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 200)
            seen = others(name)
            if mode == "exclusive" and seen or any(entry.startswith("exclusive") for entry in seen):
                counts["wrong"] += 1
            os.unlink(os.path.join(place, name))
            counts[mode] += 1
    except AddressBusyError:
        counts["busy"] += 1
async def task(manager, number):
    for _ in range(rounds):
        await stay(manager, number)
async def main():
    settings = prontodb.Settings(durability="relaxed", wait_s=30)
    async with prontodb.open(root, settings=settings) as manager:
        print("ready", flush=True); input()
        await asyncio.gather(*(task(manager, number) for number in range(3)))
asyncio.run(main())
import json
print(json.dumps(counts))
"""


@pytest.mark.slow
def test_processes_and_tasks_in_all_modes_never_share_an_exclusive_address(root: Path) -> None:
    from tests.roots import together

    (root.parent / "inside").mkdir()
    seed = random.randrange(10**6)
    said = together(RIVAL, [(root, seed + number, ROUNDS) for number in range(6)])
    counts = [json.loads(line) for line in said]
    assert sum(count["wrong"] for count in counts) == 0, f"seed {seed}"
    stays = sum(count["exclusive"] + count["shared"] for count in counts)
    assert stays + sum(count["busy"] for count in counts) == 6 * 3 * ROUNDS
    assert stays > 270, f"seed {seed}: {counts}"

    async def visits() -> str | None:
        async with managed(root) as manager, manager.session("agent", "test") as ks:
            return await ks.get("visits")

    assert asyncio.run(visits()) == str(stays), f"seed {seed}"
    assert root_faults(str(root)) == []


# Nobody waits for another address


async def test_waiting_for_a_held_address_holds_up_no_other(root: Path, manager: SessionManager) -> None:
    """Promise 9: many wait for an address whose holder is stopped, and the neighbours notice nothing."""
    with holder(root) as other:
        other.line()
        stop(other)
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(self_id, manager)
            with anyio.fail_after(PATIENCE_S):
                for number in range(20):
                    async with manager.session("agent", f"free{number}") as ks:
                        await ks.set("a", "1")
                        assert await ks.list_keys() == ["a"]
            tasks.cancel_scope.cancel()
        other.process.send_signal(signal.SIGCONT)


async def test_changes_of_held_addresses_wait_without_keeping_others_from_their_work(root: Path) -> None:
    async with (
        managed(root, wait_s=3_600) as manager,
        manager.session("agent", "test"),
        anyio.create_task_group() as tasks,
    ):
        for _ in range(6):
            tasks.start_soon(manager.delete, "agent/test")
            tasks.start_soon(manager.rename, "agent/test", "agent/new")
        await anyio.sleep(0.05)
        with anyio.fail_after(PATIENCE_S * 2):
            async with manager.session("agent", "free") as ks:
                await ks.set("a", "1")
                assert await ks.count() == 1
                assert await manager.create("agent/other")
        tasks.cancel_scope.cancel()


async def test_doctor_looks_past_an_open_session(root: Path, manager: SessionManager) -> None:
    async with manager.session("agent", "test") as ks, manager.session("agent", "other", mode="shared"):
        await ks.set("a", "1")
        report = await manager.doctor(deep=True)
        assert [finding.what for finding in report.findings if finding.level == "error"] == []
        report = await manager.doctor(repair=True)
        assert await ks.get("a") == "1"
        await ks.set("a", "2")
        assert len(await manager.sessions()) == 2

"""Sessions of the library: who gets in beside whom, who is told what, and what is left when they end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import prontodb
from prontodb.errors import (
    AddressBusyError,
    AddressNotFoundError,
    ClosedError,
    FencedError,
    InvalidInputError,
    ReadOnlyError,
    SessionNotFoundError,
)
from prontodb.manager import SessionManager
from prontodb.model.holder import Holder
from prontodb.session import live as live_module
from prontodb.storage import process
from tests.checking import root_faults
from tests.managing import PATIENCE_S, Child, descriptors, managed, threads
from tests.roots import python

BESIDE = {("shared", "shared"), ("read", "exclusive"), ("read", "shared"), ("read", "read")}
BESIDE |= {(second, first) for first, second in BESIDE}

HOLDER = """
import asyncio, sys, prontodb
from prontodb.errors import ProntoError
async def main():
    settings = prontodb.Settings(durability="relaxed", wait_s=float(sys.argv[3]))
    async with prontodb.open(sys.argv[1], settings=settings) as manager:
        async with manager.session("agent", "test", mode=sys.argv[2], labels={"task": "hold"}) as ks:
            print(ks.session_id, flush=True)
            for line in sys.stdin:
                try:
                    print(await eval(line), flush=True)
                except ProntoError as error:
                    print(type(error).__name__, flush=True)
asyncio.run(main())
"""
"""A process with a session at agent/test that evaluates the lines it is told, `ks` being its keystore."""


def holder(root: Path, mode: str = "exclusive", wait_s: float = PATIENCE_S) -> Child:
    return Child(HOLDER, root, mode, wait_s)


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    async with managed(root, wait_s=PATIENCE_S) as opened:
        yield opened


def lock_folder(root: Path) -> Path:
    return root / "registry/locks/agent@test"


def session_files(root: Path) -> list[str]:
    return sorted(path.name for path in lock_folder(root).iterdir() if path.name.startswith("s-"))


def stop(child: Child) -> None:
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED | os.WNOWAIT)


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
    said = together(RIVAL, [(root, seed + number, 60) for number in range(6)])
    counts = [json.loads(line) for line in said]
    assert sum(count["wrong"] for count in counts) == 0, f"seed {seed}"
    stays = sum(count["exclusive"] + count["shared"] for count in counts)
    assert stays + sum(count["busy"] for count in counts) == 6 * 3 * 60
    assert stays > 300, f"seed {seed}: {counts}"

    async def visits() -> str | None:
        async with managed(root) as manager, manager.session("agent", "test") as ks:
            return await ks.get("visits")

    assert asyncio.run(visits()) == str(stays), f"seed {seed}"
    assert root_faults(str(root)) == []


# Ending by others


async def test_a_session_that_is_asked_ends_in_order_and_says_so(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    async with managed(root) as other, other.session("agent", "test") as ks:
        await ks.set("a", "1")
        ended = await manager.end_session(ks.session_id)
        assert (ended.id, ended.mode) == (ks.session_id, "exclusive")
        assert ks.closed
        for call in (ks.get("a"), ks.set("a", "2"), ks.list_keys()):
            with pytest.raises(ClosedError, match="asked to end"):
                await call
        async with manager.session("agent", "test", wait=0) as new:
            assert await new.get("a") == "1"
        with pytest.raises(SessionNotFoundError):
            await manager.end_session(ks.session_id)


async def test_one_that_does_not_heed_is_named_with_the_way_to_force_it(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        session = other.line()
        stop(other)
        with pytest.raises(AddressBusyError, match=f"session end {session} --force"):
            await manager.end_session(session, wait=0.05)


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
async def test_a_stopped_session_put_out_by_force_writes_no_more(
    root: Path, manager: SessionManager, mode: str
) -> None:
    """Fault 11: stopped, put out, replaced, continued: its write is refused and the new holder's value stays."""
    with holder(root, mode) as other:
        session = other.line()
        other.tell('ks.set("a", "before")')
        other.line()
        if mode == "exclusive":
            other.tell('ks.get("a")')
            assert other.line() == "before"
        stop(other)
        await manager.end_session(session, force=True)
        assert [found.id for found in await manager.sessions()] == []
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "new")
            other.process.send_signal(signal.SIGCONT)
            other.tell('ks.set("a", "late")')
            assert other.line() == "FencedError"
            other.tell('ks.get("a")')
            assert other.line() == "FencedError", "nor does it read from memory"
            assert await ks.get("a") == "new"
        other.end()
    # The lock of the one that was put out is free now: what was kept for it is cleared away.
    assert await manager.sessions() == []
    assert list((lock_folder(root) / "retired").iterdir()) == []
    async with managed(root) as again, again.session("agent", "test") as ks:
        assert await ks.get("a") == "new"


async def test_put_out_while_it_works_it_hears_of_it_at_its_next_operation(root: Path, manager: SessionManager) -> None:
    async with managed(root) as other, other.session("agent", "test") as ks:
        await ks.set("a", "1")
        assert [await ks.get("a"), await ks.get("a")] == ["1", "1"]
        await manager.end_session(ks.session_id, force=True)
        for call in (ks.get("a"), ks.exists("a"), ks.set("a", "2"), ks.list_keys(), ks.increment("n")):
            with pytest.raises(FencedError, match="put out by force"):
                await call
        async with manager.session("agent", "test", wait=0) as new:
            assert await new.get("a") == "1"


BEGIN = """
from prontodb.storage import connection as sqlite
kept = sqlite.connect(sys.argv[1] + "/addresses/agent/test/keystore.db")
kept.execute("BEGIN IMMEDIATE").close()
"""


async def test_one_stopped_inside_a_transaction_is_named_and_can_be_killed(root: Path, manager: SessionManager) -> None:
    """Nothing of ours holds SQLite's lock for longer than a moment; this stands for one stopped in that moment."""
    with holder(root) as other:
        session = other.line()
        other.tell(f"asyncio.sleep(0, exec({BEGIN!r}, globals()))")
        assert other.line() == "None"
        stop(other)
        with pytest.raises(AddressBusyError, match="--force --kill") as caught:
            await manager.end_session(session, force=True, wait=0.1)
        assert re.search(rf"is locked by pid {other.process.pid}\b", str(caught.value))
        await manager.end_session(session, force=True, kill=True)
        assert other.process.wait() == -signal.SIGKILL
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "1")


async def test_a_session_whose_process_cannot_be_told_apart_is_not_killed(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pid that was used again, another boot, another pid namespace."""
    with holder(root) as other:
        session = other.line()
        monkeypatch.setattr(process, "start_time", lambda _: 1)
        with pytest.raises(prontodb.errors.UnavailableError, match="has not ended"):
            await manager.end_session(session, force=True, kill=True, wait=0.05)
        assert other.process.poll() is None


async def test_kill_alone_is_refused(manager: SessionManager) -> None:
    async with manager.session("agent", "test") as ks:
        with pytest.raises(InvalidInputError, match="--force"):
            await manager.end_session(ks.session_id, kill=True)


@pytest.mark.parametrize("session", ["", "s-1", "../../x", "s-0011223344556677889g"])
async def test_what_is_no_session_is_refused(manager: SessionManager, session: str) -> None:
    with pytest.raises(InvalidInputError, match="no session's id"):
        await manager.end_session(session)


# The registry describes, and proves nothing


async def test_a_session_is_described(root: Path, manager: SessionManager) -> None:
    with holder(root, "shared") as other:
        session = other.line()
        (found,) = await manager.sessions()
        assert (found.id, str(found.address), found.mode) == (session, "agent/test", "shared")
        assert found.pid == other.process.pid
        assert found.process_started == process.start_time(other.process.pid)
        assert found.labels == {"task": "hold"}
        assert found.boot == process.ourselves().boot
        assert found.host == os.uname().nodename
        assert found.pid_namespace == process.ourselves().pid_namespace
        assert found.started_at_ms is not None
        assert found.last_seen_ms is not None
        assert json.loads(json.dumps(found.as_dict()))["address"] == "agent/test"


def registry_file(root: Path) -> Path:
    return root / "registry/active_sessions.db"


@pytest.mark.parametrize("harm", ["removed", "garbage", "all"])
async def test_a_lost_or_damaged_registry_hides_nobody_and_heals(
    root: Path, manager: SessionManager, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    monkeypatch.setattr(live_module, "BEAT_S", 0.01)
    async with managed(root) as other, other.session("agent", "test") as ks:
        for ending in ("", "-wal", "-shm"):
            path = registry_file(root).with_name(registry_file(root).name + ending)
            if harm == "garbage" and not ending:
                path.write_bytes(b"garbage" * 1_000)
            else:
                path.unlink(missing_ok=True)
        found = await manager.sessions()
        assert [session.id for session in found] == [ks.session_id]
        with pytest.raises(AddressBusyError):
            async with manager.session("agent", "test", wait=0):
                pass
        await ks.set("a", "1")
        with anyio.fail_after(PATIENCE_S):
            while (await manager.sessions())[0].last_seen_ms is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_a_row_of_a_session_that_is_gone_is_taken_away(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        other.line()
        other.process.kill()
        other.process.wait()
    assert len(manager._sessions._registry.rows()) == 1
    assert await manager.sessions() == []
    assert manager._sessions._registry.rows() == []


async def test_a_locked_registry_holds_up_no_session_and_is_caught_up_with(root: Path, manager: SessionManager) -> None:
    from tests.managing import LOCK_HOLDER

    async with manager.session("agent", "first"):
        pass
    with Child(LOCK_HOLDER, registry_file(root)) as blocker:
        blocker.tell("BEGIN IMMEDIATE")
        assert blocker.line() == "done"
        async with manager.session("agent", "test") as ks:
            await ks.set("a", "1")
            assert [found.id for found in await manager.sessions()] == [ks.session_id]
            blocker.tell("ROLLBACK")
            assert blocker.line() == "done"
            await manager._live._roll.flush()
            assert [row.holder.session for row in manager._sessions._registry.rows()] == [ks.session_id]


async def test_a_session_looks_alive_by_its_lock_and_not_by_its_pid(root: Path, manager: SessionManager) -> None:
    """Promise 21: the record names a pid that lives, of another boot; the lock is free, so it is dead."""
    from prontodb.model.address import Address
    from prontodb.model.holder import Process, new_session_id
    from prontodb.session.door import Door

    await manager.create("agent/test")
    session = new_session_id(str(root), Address("agent", "test"))
    record = Holder(Process(os.getpid(), 1, "another boot", "vm"), "session", 1, session, "exclusive", 3)
    door = manager._live._door
    assert isinstance(door, Door)
    door._lifecycle.hold(Address("agent", "test"), "", holder=record).abandon()
    assert await manager.sessions() == []
    async with manager.session("agent", "test", wait=0) as ks:
        assert ks.epoch is not None


# Ending of everything


async def test_a_manager_ends_the_sessions_that_are_left(root: Path) -> None:
    stack = AsyncExitStack()
    async with managed(root) as manager:
        kept = [
            await stack.enter_async_context(manager.session("agent", f"c{n}", mode=mode))
            for n, mode in enumerate(("exclusive", "shared", "shared"))
        ]
    for ks in kept:
        with pytest.raises(ClosedError):
            await ks.get("a")
    await stack.aclose()
    async with managed(root) as manager:
        assert await manager.sessions() == []
        for n in range(3):
            async with manager.session("agent", f"c{n}", wait=0):
                pass
    assert root_faults(str(root)) == []


async def test_an_exception_inside_is_raised_as_it_is_and_ends_every_session(root: Path) -> None:
    for kind in (ZeroDivisionError, KeyboardInterrupt, SystemExit, asyncio.CancelledError):
        with pytest.raises(kind) as caught:
            async with managed(root) as manager, manager.session("agent", "test"):
                raise kind
        assert type(caught.value) is kind
        async with managed(root) as manager:
            assert await manager.sessions() == []


async def test_the_child_of_a_fork_holds_nothing(root: Path) -> None:
    async with managed(root) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        await ks.get("a")
        shared = manager.session("agent", "other", mode="shared")
        other = await shared.__aenter__()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = []
            for handle in (ks, other):
                try:
                    handle.get("a").send(None)
                except BaseException as error:  # noqa: BLE001
                    said.append(type(error).__name__)
            os.write(writing, " ".join(said).encode())
            signal.pause()
            os._exit(0)
        try:
            assert os.read(reading, 100).decode() == "ClosedError ClosedError"
            await shared.__aexit__(None, None, None)
            (found,) = await manager.sessions()
            assert found.id == ks.session_id
            for live in list(manager._live._live.values()):
                await manager._live.end(live)
            # The child lives on, and the lock is free all the same.
            async with manager.session("agent", "test", wait=0):
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reading)
            os.close(writing)


@pytest.mark.slow
async def test_a_thousand_cancellations_leave_no_lock_descriptor_or_thread(root: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    before = threads(), descriptors()
    async with managed(root, wait_s=PATIENCE_S) as manager:
        await manager.create("agent/test")
        async with manager.session("agent", "warm"):
            pass

        async def stay(mode: str) -> None:
            async with manager.session("agent", "test", mode=mode) as ks:
                await ks.increment("n")

        for number in range(1_000):
            mode = "exclusive" if number % 3 else "shared"
            ticks = chance.randrange(40)
            if number % 2:
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(stay, mode)
                        for _ in range(ticks):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()
            else:
                task = asyncio.create_task(stay(mode))
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
                task.cancel()
                await asyncio.wait([task])
            assert len(manager._live) == 0, f"round {number} of seed {seed}"
            if number % 50 == 0:
                assert session_files(root) == [], f"round {number} of seed {seed}"
                async with manager.session("agent", "test", wait=0) as ks:
                    await ks.set("fence", str(number))
        assert manager._engine._reserved == 0
    assert (threads(), descriptors()) == before, f"seed {seed}"
    assert root_faults(str(root)) == []


MANY = """
import asyncio, os, resource, sys, threading, prontodb
limit, count = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
async def main():
    settings = prontodb.Settings(durability="relaxed", wait_s=60)
    from contextlib import AsyncExitStack
    async with prontodb.open(sys.argv[1], settings=settings) as manager, AsyncExitStack() as stack:
        handles = []
        for number in range(count):
            handles.append(await stack.enter_async_context(manager.session(f"agent{number}", "prod")))
        for number, ks in enumerate(handles):
            await ks.set("a", str(number))
        for number, ks in reversed(list(enumerate(handles))):
            assert await ks.get("a") == str(number)
        print(len(os.listdir("/proc/self/fd")), manager._engine.open_keystores, threading.active_count())
        try:
            while True:
                await stack.enter_async_context(manager.session(f"more{len(handles)}", "prod"))
                handles.append(None)
        except prontodb.errors.UnavailableError as error:
            print(len(handles), error)
asyncio.run(main())
"""


@pytest.mark.slow
def test_six_hundred_sessions_at_once_need_no_more_than_1024_descriptors(root: Path) -> None:
    done = python(MANY, root, 1_024, 600)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    open_files, keystores, running = (int(number) for number in first.split())
    assert open_files <= 600 + 6 * keystores + 64
    assert running <= 12
    assert int(second.split()[0]) >= 900
    assert f"{second.split()[0]} sessions are open" in second


TERMINATED = """
import asyncio, os, signal, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1], end_on_sigterm=True) as manager:
        async with manager.session("agent", "test") as ks, manager.session("agent", "other", mode="shared"):
            await ks.set("a", "1")
            print("ready", flush=True)
            try:
                await asyncio.sleep(600)
            finally:
                print("cancelled", flush=True)
asyncio.run(main())
"""


async def test_sigterm_ends_every_session_in_order_where_that_is_asked_for(root: Path, manager: SessionManager) -> None:
    with Child(TERMINATED, root) as other:
        assert other.line() == "ready"
        assert len(await manager.sessions()) == 2
        other.process.send_signal(signal.SIGTERM)
        assert other.line() == "cancelled"
        assert other.process.wait(PATIENCE_S) == 143
    assert session_files(root) == []
    assert (lock_folder(root) / "address.lock").read_bytes() == b"", "it let go by itself"
    assert manager._sessions._registry.rows() == []

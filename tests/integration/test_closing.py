"""Closing always ends, and leaves no thread, descriptor or process: however the block was left."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from prontodb.composition import open_manager
from prontodb.errors import BusyError, ClosedError
from tests.checking import root_faults
from tests.managing import (
    PATIENCE_S,
    descriptors,
    environment,
    keystore_at,
    lock_holder,
    managed,
    program,
    threads,
    until,
)


@pytest.fixture(autouse=True)
def leaves_nothing(root: Path) -> Iterator[None]:
    """Whatever a test did: it left no thread, descriptor or child, and no damage."""
    before = threads(), descriptors()
    yield
    assert (threads(), descriptors()) == before
    assert multiprocessing.active_children() == []
    assert root_faults(str(root)) == []


async def use(root: Path, *, addresses: int = 5) -> None:
    """Open a manager and use all of it."""
    async with managed(root) as manager:
        for number in range(addresses):
            async with manager.session("agent", f"c{number}") as ks:
                await ks.set("a", "1")
                assert [entry.key async for entry in ks.scan()] == ["a"]
                assert await ks.count() == 1
        await manager.copy("agent/c0", "agent/copy", on_conflict="replace")
        await manager.addresses()


async def test_after_use_nothing_is_left(root: Path) -> None:
    for _ in range(3):
        await use(root)


async def test_an_unused_manager_leaves_nothing(root: Path) -> None:
    async with managed(root):
        pass


async def test_the_bodys_own_error_is_raised_and_nothing_is_left(root: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with keystore_at(root) as ks:
            await ks.set("a", "1")
            raise ZeroDivisionError


async def test_a_cancelled_body_leaves_nothing(root: Path) -> None:
    for native in (True, False):
        reached = anyio.Event()

        async def body(reached: anyio.Event = reached) -> None:
            async with keystore_at(root) as ks:
                await ks.set("a", "1")
                reached.set()
                await anyio.sleep_forever()

        if native:
            task = asyncio.create_task(body())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(body)
                await reached.wait()
                tasks.cancel_scope.cancel()


async def test_closing_that_is_cancelled_natively_again_and_again_ends(root: Path) -> None:
    entered = anyio.Event()

    async def body() -> None:
        async with keystore_at(root) as ks:
            await ks.set("a", "1")
            entered.set()

    for ticks in range(12):
        task = asyncio.create_task(body())
        await entered.wait()
        for _ in range(ticks):
            await anyio.lowlevel.checkpoint()
        while not task.done():
            task.cancel()
            await anyio.lowlevel.checkpoint()
        entered = anyio.Event()


async def test_closing_twice_is_closing_once(root: Path) -> None:
    opening = open_manager(str(root))
    manager = await opening.__aenter__()
    await manager.create("agent/test")
    await manager._engine.close()
    await manager._engine.close()
    await opening.__aexit__(None, None, None)


async def test_two_who_close_at_once_both_wait_for_the_end(root: Path) -> None:
    before = threads()
    async with managed(root) as manager:
        await manager.create("agent/test")
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(manager._engine.close)
        assert threads() == before


async def test_writes_under_way_are_acknowledged_or_fail_typed_and_both_are_true(root: Path) -> None:
    async with managed(root, lanes=2) as manager:
        session = manager.session("agent", "test")
        ks = await session.__aenter__()
        tasks = [asyncio.create_task(ks.set(f"k{n:03}", "v")) for n in range(300)]
        tasks += [asyncio.create_task(ks.increment("n")) for _ in range(20)]
        for _ in range(4):
            await anyio.lowlevel.checkpoint()
    # The manager is closed, its writers are not; each has its answer now.
    with anyio.fail_after(PATIENCE_S):
        found = await asyncio.gather(*tasks, return_exceptions=True)
    await session.__aexit__(None, None, None)
    assert {type(outcome) for outcome in found} <= {int, ClosedError}
    async with keystore_at(root) as again:
        stored = await again.get_many([f"k{n:03}" for n in range(300)])
        for number, outcome in enumerate(found[:300]):
            assert (stored[f"k{number:03}"] == "v") == isinstance(outcome, int)
        raises = sum(isinstance(outcome, int) for outcome in found[300:])
        assert int(await again.get("n") or 0) == raises


async def test_closing_does_not_wait_for_a_lock_that_somebody_holds(root: Path) -> None:
    async with keystore_at(root, wait_s=60) as ks:
        await ks.set("a", "1")
        with lock_holder(root, "agent/test"):
            task = asyncio.create_task(ks.set("a", "2"))
            lifetime = asyncio.create_task(ks.set_namespace_ttl("ns", 5))
            for _ in range(5):
                await anyio.sleep(0.005)
            # Leave the block, and with it the session and the manager, while the file is still locked.
            with anyio.fail_after(PATIENCE_S):
                await ks._keyspace._engine.close()  # type: ignore[attr-defined]
            found = await asyncio.gather(task, lifetime, return_exceptions=True)
            assert all(isinstance(outcome, (BusyError, ClosedError)) for outcome in found)


async def test_a_manager_is_of_no_use_after_its_block(root: Path) -> None:
    async with managed(root) as manager:
        await manager.create("agent/test")

    async def opened() -> None:
        async with manager.session("agent", "test"):
            pass

    async def exported() -> None:
        async for _ in manager.export("agent/test"):
            pass

    for call in (
        opened(),
        exported(),
        manager.addresses(),
        manager.create("agent/new"),
        manager.delete("agent/test"),
        manager.rename("agent/test", "agent/new"),
        manager.describe("agent/test"),
        manager.copy("agent/test", "agent/new"),
        manager.import_lines("agent/test", []),
        manager.doctor(),
    ):
        with pytest.raises(ClosedError, match="the manager is closed"):
            await call


async def test_cancelled_openings_leave_nothing(root: Path) -> None:
    """aiosqlite alone leaves nine descriptors after twenty of these."""
    async with managed(root) as manager:
        await manager.create("agent/test")
    before = threads(), descriptors()

    async def body() -> None:
        async with (
            managed(root) as manager,
            manager.session("agent", "test") as ks,
            manager.session("agent", "new"),
        ):
            await ks.get("a")

    for ticks in range(60):
        task = asyncio.create_task(body())
        for _ in range(ticks):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        await asyncio.wait([task])
    assert (threads(), descriptors()) == before


async def test_a_session_that_is_cancelled_while_it_opens_leaves_no_trace_in_the_manager(root: Path) -> None:
    async with managed(root) as manager:
        for ticks in range(30):
            task = asyncio.create_task(_stay(manager.session("agent", f"c{ticks}")))
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            task.cancel()
            await asyncio.wait([task])
            await manager.delete(f"agent/c{ticks}")  # refused while a session is open
        assert await manager.addresses() == []
        await until(lambda: manager._engine.open_keystores == 0)


async def _stay(session: object) -> None:
    async with session:  # type: ignore[attr-defined]
        await anyio.sleep_forever()


# Loops that end too early, each in a process that must end by itself

TASK_LEFT_BEHIND = """
import asyncio, sys, prontodb
async def body(opened):
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        opened.set()
        while True:
            await ks.increment("n")
            async with manager.session("agent", "other") as other:
                await other.set("a", "1")
async def main():
    opened = asyncio.Event()
    asyncio.get_running_loop().background = asyncio.create_task(body(opened))
    await opened.wait()
    for _ in range(int(sys.argv[2])):
        await asyncio.sleep(0)
asyncio.run(main())
print("ended")
"""

LOOP_CLOSED = """
import asyncio, sys, prontodb
loop = asyncio.new_event_loop()
async def main():
    global manager, ks, kept
    kept = prontodb.open(sys.argv[1])
    manager = await kept.__aenter__()
    session = manager.session("agent", "test")
    ks = await session.__aenter__()
    kept = (kept, session)
    await ks.set("a", "1")
    await ks.count()
    if sys.argv[2] == "writing":
        global tasks
        tasks = [loop.create_task(ks.set(f"k{n}", "x" * 100_000)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
loop.run_until_complete(main())
loop.close()
print("closed", flush=True)
if sys.argv[2] == "dropped":
    del manager, ks, kept
"""

INTERRUPTED = """
import asyncio, sys, signal, os, prontodb
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        while True:
            await ks.increment("n")
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended")
"""


def end_of(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that must end by itself."""
    # Warnings as they come, not as errors: an unclosed connection may warn, but no more than that.
    command = [part for part in program(text, *arguments) if part not in ("-W", "error")]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=PATIENCE_S)


@pytest.mark.parametrize("ticks", [0, 5, 10, 11, 12, 13, 40])
def test_a_manager_in_a_task_is_closed_when_asyncio_run_ends(root: Path, ticks: int) -> None:
    done = end_of(TASK_LEFT_BEHIND, root, ticks)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


@pytest.mark.parametrize("state", ["idle", "dropped", "writing"])
def test_an_interpreter_ends_although_the_loop_was_closed_over_a_manager(root: Path, state: str) -> None:
    done = end_of(LOOP_CLOSED, root, state)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def test_an_interrupt_closes_the_manager(root: Path) -> None:
    done = end_of(INTERRUPTED, root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


async def test_the_next_manager_goes_on_where_an_abandoned_one_was(root: Path) -> None:
    end_of(LOOP_CLOSED, root, "writing")
    async with keystore_at(root) as ks:
        assert await ks.get("a") == "1"
        with anyio.fail_after(PATIENCE_S):
            await ks.set("a", "2")

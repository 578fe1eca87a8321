"""Sessions end however their manager does: left, cancelled, failed, forked, terminated; and many at once."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from prontodb.errors import (
    ClosedError,
)
from prontodb.manager import SessionManager
from tests.checking import root_faults
from tests.managing import PATIENCE_S, Child, descriptors, managed, threads
from tests.roots import python
from tests.sessions import lock_folder, session_files


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    async with managed(root, wait_s=PATIENCE_S) as opened:
        yield opened


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
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "count"),
    [(512, 300), pytest.param(4_096, 1_000, marks=pytest.mark.plain("what they hold does not matter to so many"))],
)
def test_many_sessions_at_once_take_one_descriptor_each(root: Path, limit: int, count: int) -> None:
    done = python(MANY, root, limit, count)
    assert done.returncode == 0, done.stderr
    open_files, keystores, running = (int(number) for number in done.stdout.split())
    assert open_files <= count + 6 * keystores + 64
    assert running <= 12


@pytest.mark.slow
def test_beyond_the_descriptors_the_error_names_the_number(root: Path) -> None:
    done = python(MANY, root, 256, 256)
    assert done.returncode == 1
    assert re.search(r"UnavailableError: 18\d sessions are open, all that .* \(ulimit -n\)", done.stderr)


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

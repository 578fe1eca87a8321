"""The pool of open keystores: what is opened, closed for others and opened again, and who may use it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from prontodb.composition import open_manager
from prontodb.engine.sqlite.engine import SqliteEngine, SqliteKeyspace
from prontodb.engine.sqlite.lifecycle import FAILPOINT
from prontodb.errors import (
    AddressGoneError,
    AddressNotFoundError,
    BusyError,
    ClosedError,
    UnsupportedBackendError,
)
from prontodb.keystore import Keystore
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.model.operation import Fence, Op, Position
from tests.managing import PATIENCE_S, descriptors, lock_holder, managed, ran, taken_away, threads, until

HERE = Address("agent", "test")
OPS = (Op("a", "1"),)
ME = Fence("me")


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    """A manager that keeps three keystores open."""
    async with managed(root, max_open_keystores=3) as opened:
        yield opened


async def sessions(stack: AsyncExitStack, manager: SessionManager, count: int) -> list[Keystore]:
    return [await stack.enter_async_context(manager.session("agent", f"c{n}")) for n in range(count)]


def open_addresses(engine: SqliteEngine) -> list[str]:
    return sorted(address.cursor for address in engine._stores)


# The seam


async def test_the_engine_makes_lists_and_drops_addresses(manager: SessionManager) -> None:
    engine = manager._engine
    names = [Address("a", "x"), Address("a", "y"), Address("b")]
    for address in names:
        assert await engine.create(address)
        assert not await engine.create(address)
    assert await engine.addresses(None, 10) == names
    assert await engine.addresses(names[0], 1) == [names[1]]
    assert await engine.drop(names[1])
    assert not await engine.drop(names[1])
    assert await engine.addresses(names[0], 10) == [names[2]]
    with pytest.raises(AddressNotFoundError):
        await engine.keyspace(names[1])


# The pool


async def test_handles_reopen_what_was_closed_for_others(manager: SessionManager) -> None:
    async with AsyncExitStack() as stack:
        handles = await sessions(stack, manager, 10)
        for step in range(3):
            for number, ks in enumerate(handles):
                await ks.set("who", f"{number}.{step}")
                assert manager._engine.open_keystores <= 3
        for number, ks in enumerate(handles):
            assert await ks.get("who") == f"{number}.2"
            assert await ks.list_keys() == ["who"]
            assert [entry.value async for entry in ks.scan()] == [f"{number}.2"]


async def test_the_least_recently_used_is_closed_first(manager: SessionManager) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await sessions(stack, manager, 3)
        for ks in (first, third, second, first):
            await ks.get("a")
        await stack.enter_async_context(manager.session("agent", "new"))
        assert open_addresses(manager._engine) == ["c0", "c1", "new"]
        await second.set("a", "1")
        await third.get("a")
        assert open_addresses(manager._engine) == ["c1", "c2", "new"]


async def test_many_addresses_at_once_stay_within_the_pool(manager: SessionManager) -> None:
    engine = manager._engine
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        async with manager.session("agent", f"c{number}", wait=PATIENCE_S) as ks:
            for step in range(3):
                await ks.set("a", str(step))
                most = max(most, engine.open_keystores)
                assert await ks.get("a") == str(step)

    before = descriptors()
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(work, number)
    assert most <= 3
    assert descriptors() - before < 40 + 40, "beside one for each session's lock"


async def test_a_keystore_that_somebody_waits_for_is_never_closed_for_others(root: Path) -> None:
    async with (
        managed(root, max_open_keystores=1, wait_s=PATIENCE_S, lanes=1) as manager,
        AsyncExitStack() as stack,
    ):
        first, second = await sessions(stack, manager, 2)
        with lock_holder(root, "agent/c0") as holder:
            waiting = asyncio.create_task(first.set("a", "1"))
            await until(lambda: open_addresses(manager._engine) == ["c0"] and _store_of(first).busy)
            other = asyncio.create_task(second.set("a", "2"))
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert open_addresses(manager._engine) == ["c0"]
            holder.tell("ROLLBACK")
            assert (await waiting, await other) == (1, 1)


async def test_a_pool_whose_keystores_are_all_in_use_is_busy_at_the_deadline(root: Path) -> None:
    async with managed(root, max_open_keystores=1, wait_s=0.02) as manager, AsyncExitStack() as stack:
        first, second = await sessions(stack, manager, 2)
        watch = first.watch()
        waiting = asyncio.create_task(anext(watch))
        await until(lambda: open_addresses(manager._engine) == ["c0"] and _store_of(first).pins > 0)
        with pytest.raises(BusyError, match="max_open_keystores"):
            await second.set("a", "1")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await second.set("a", "1") == 1


async def test_many_who_open_one_address_share_it(root: Path) -> None:
    async with managed(root) as manager:
        before = descriptors()
        async with AsyncExitStack() as stack:
            handles: list[Keystore] = []

            async def enter() -> None:
                handles.append(await stack.enter_async_context(manager.session("agent", "test", mode="shared")))

            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(enter)
            assert manager._engine.open_keystores == 1
            assert descriptors() - before < 10 + 50, "beside one for each session's lock"
            assert len({ks.session_id for ks in handles}) == 50


async def test_an_opener_that_is_cancelled_does_not_take_the_others_along(root: Path) -> None:
    async with managed(root) as manager:
        await manager.create("agent/test")
        before = descriptors()
        tasks = [asyncio.create_task(manager._engine.keyspace(HERE)) for _ in range(3)]
        await anyio.lowlevel.checkpoint()
        tasks[0].cancel()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled()
        for task in tasks[1:]:
            assert isinstance(task.result(), SqliteKeyspace)
        await manager.delete("agent/test")
        assert descriptors() == before


async def test_a_failed_opening_fails_everybody_who_waits_and_is_tried_again(manager: SessionManager) -> None:
    found = await asyncio.gather(*(manager._engine.keyspace(HERE) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [AddressNotFoundError] * 3
    await manager._engine.create(HERE)
    await manager._engine.keyspace(HERE)


# An address that went and came back


async def test_a_handle_never_moves_over_to_a_new_keystore_of_its_name(root: Path) -> None:
    async with (
        managed(root) as manager,
        managed(root) as other,
        manager.session("agent", "test", mode="shared") as old,
    ):
        await old.set("a", "old")
        taken_away(root, "agent/test")
        async with other.session("agent", "test", mode="shared") as theirs:
            await theirs.set_many({"a": "new", "b": "new"})
        for _ in range(2):
            for call in (
                old.set("c", "lost"),
                old.delete("a"),
                old.increment("n"),
                old.set_namespace_ttl("ns", 5),
                old.list_keys(),
                old.count(),
                old.clear(),
                old.namespaces(),
            ):
                with pytest.raises(AddressGoneError):
                    await call
        # What is read inline is what was open; never the other keystore's.
        assert await _value_or_gone(old, "b") in (None, "gone")
        async with manager.session("agent", "test", mode="shared") as new:
            assert await new.get_many(["a", "b", "c"]) == {"a": "new", "b": "new", "c": None}
            assert await new.set("c", "1") == 3
        with pytest.raises(AddressGoneError):
            await old.set("d", "lost")
        with pytest.raises(AddressGoneError):
            await old.get("a")


async def _value_or_gone(ks: Keystore, key: str) -> str | None:
    try:
        return await ks.get(key)
    except AddressGoneError:
        return "gone"


async def test_a_session_at_an_address_that_another_process_removed_makes_it_anew(root: Path) -> None:
    async with managed(root) as manager, managed(root) as other:
        async with manager.session("agent", "test") as ks:
            await ks.set("a", "1")
        await other.delete("agent/test")
        with pytest.raises(AddressNotFoundError):
            async with manager.session("agent", "test", create=False):
                pass
        async with manager.session("agent", "test") as ks:
            assert await ks.get("a") is None
            assert await ks.set("a", "2") == 1


# Who may use it


def _store_of(ks: Keystore) -> Any:
    return cast("SqliteKeyspace", ks._keyspace)._current


KEYSPACE_CALLS: dict[str, Callable[[SqliteKeyspace], Any]] = {
    "read": lambda k: k.read(("a",)),
    "read many": lambda k: k.read([str(n) for n in range(100)]),
    "apply": lambda k: k.apply(OPS, ME),
    "scan": lambda k: k.scan("", None, 10),
    "scan many": lambda k: k.scan("", None, 1_000),
    "keys": lambda k: k.keys("", None, 10),
    "count": lambda k: k.count("", None),
    "position": lambda k: k.position(),
    "changes": lambda k: k.changes(Position("x", 0), 10),
    "wait": lambda k: k.wait(Position("x", 0), 1),
    "sweep": lambda k: k.sweep(10, ME),
    "lifetimes": lambda k: k.lifetimes(),
    "set_lifetime": lambda k: k.set_lifetime("ns", 5_000, ME),
}
ENGINE_CALLS: dict[str, Callable[[SqliteEngine], Any]] = {
    "create": lambda e: e.create(Address("new")),
    "drop": lambda e: e.drop(HERE),
    "addresses": lambda e: e.addresses(None, 10),
    "keyspace": lambda e: e.keyspace(HERE),
}


async def test_nothing_works_after_close(root: Path) -> None:
    async with managed(root) as manager:
        await manager.create(HERE)
        engine = manager._engine
        keyspace = await engine.keyspace(HERE)
    for call in KEYSPACE_CALLS.values():
        with pytest.raises(ClosedError, match="the manager is closed"):
            await call(keyspace)
    for act in ENGINE_CALLS.values():
        with pytest.raises(ClosedError, match="the manager is closed"):
            await act(engine)
    await engine.close()


@pytest.mark.parametrize("goes_on", [False, True], ids=["", "and runs the same loop on"])
async def test_a_child_made_by_fork_cannot_use_what_its_parent_opened(root: Path, goes_on: bool) -> None:
    async with managed(root) as manager:
        await manager.create(HERE)
        engine = manager._engine
        keyspace = await engine.keyspace(HERE)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            if goes_on:
                asyncio._set_running_loop(engine.loop)
            _report_and_exit(keyspace, engine, writing)
        os.close(writing)
        with open(reading) as file:
            report = file.read()
        os.waitpid(child, 0)
        assert report == "", report
        assert (await keyspace.apply(OPS, ME)).revision == 1


def _report_and_exit(keyspace: SqliteKeyspace, engine: SqliteEngine, pipe: int) -> None:
    """In the child: say which calls did not raise at once, and leave without any of the parent's clean-up."""
    try:
        calls = {name: call(keyspace) for name, call in KEYSPACE_CALLS.items()}
        calls |= {name: act(engine) for name, act in ENGINE_CALLS.items()}
        for name, coroutine in calls.items():
            try:
                coroutine.send(None)
            except ClosedError as error:
                if "another process" not in str(error):
                    os.write(pipe, f"{name}: {error}\n".encode())
            except BaseException as error:  # noqa: BLE001 - the parent reads what it was
                os.write(pipe, f"{name}: {error!r}\n".encode())
            else:
                os.write(pipe, f"{name} went on\n".encode())
        try:
            engine.close().send(None)
        except StopIteration:
            pass
        else:
            os.write(pipe, b"close went on\n")
    finally:
        os._exit(0)


def test_without_asyncio_opening_says_what_is_needed(root: Path) -> None:
    opening = open_manager(str(root)).__aenter__()
    with pytest.raises(UnsupportedBackendError, match="asyncio"):
        opening.send(None)
    assert list(root.iterdir()) == []


TRIO = """
import sys, trio, prontodb
async def main():
    try:
        async with prontodb.open(sys.argv[1]):
            print("opened")
    except prontodb.errors.UnsupportedBackendError as error:
        print(error)
trio.run(main)
"""


def test_on_trio_opening_says_what_is_needed(root: Path) -> None:
    pytest.importorskip("trio", reason="trio is not installed")
    assert "asyncio" in ran(TRIO, root)


# Closing


async def test_close_waits_for_an_address_in_the_making(root: Path) -> None:
    """Closed by another task in the middle of a creation: the creation ends, and nothing of it is left behind."""
    reached, go_on = threading.Event(), threading.Event()

    def hook(step: str) -> None:
        if step == "create.staged":
            reached.set()
            assert go_on.wait(PATIENCE_S)

    before = threads(), descriptors()
    FAILPOINT.append(hook)
    try:
        async with managed(root) as manager:
            creating = asyncio.create_task(manager.create("agent/test"))
            await until(reached.is_set)
            closing = asyncio.create_task(manager._engine.close())
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert not closing.done()
            go_on.set()
            await closing
            assert await creating is True
    finally:
        FAILPOINT.remove(hook)
        go_on.set()
    assert (threads(), descriptors()) == before

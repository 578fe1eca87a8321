"""Watching and waiting: changes arrive in order, positions can be taken up again, and waits end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from prontodb.errors import AddressGoneError, ClosedError, CompactedError, WaitTimeoutError
from prontodb.keystore import Keystore
from prontodb.model.clock import ManualClock
from prontodb.watching import Watch
from tests.managing import PATIENCE_S, keystore_at, managed, taken_away


@pytest.fixture
def clock() -> ManualClock:
    """Time that only moves when told."""
    return ManualClock()


@pytest.fixture
async def ks(root: Path, clock: ManualClock) -> AsyncIterator[Keystore]:
    """A keystore on that clock."""
    async with keystore_at(root, clock=clock) as keystore:
        yield keystore


async def started(ks: Keystore, prefix: str = "", since: str | None = None) -> Watch:
    watch = ks.watch(prefix, since)
    await watch.start()
    return watch


async def taken(watch: Watch, count: int) -> list[tuple[str, str | None]]:
    with anyio.fail_after(PATIENCE_S):
        changes = [await anext(watch) for _ in range(count)]
    return [(change.key, None if change.entry is None else change.entry.value) for change in changes]


async def test_changes_come_in_order_with_deletions(ks: Keystore) -> None:
    watch = await started(ks)
    await ks.set("a", "1")
    await ks.set_many({"b": "2", "c": "3"})
    await ks.delete("b")
    await ks.delete("never there")
    await ks.set_namespace_ttl("ns", 5)
    assert await taken(watch, 3) == [("a", "1"), ("c", "3"), ("b", None)]


async def test_only_the_prefix_is_seen(ks: Keystore) -> None:
    watch = await started(ks, "app.")
    await ks.set_many({"app": "1", "app.x": "2", "apps": "3", "other": "4"})
    await ks.set("app.y", "5")
    assert await taken(watch, 2) == [("app.x", "2"), ("app.y", "5")]


async def test_changes_of_one_key_may_come_as_one_and_the_last_is_never_missing(ks: Keystore) -> None:
    watch = await started(ks)
    for n in range(100):
        await ks.set("a", str(n))
    assert await taken(watch, 1) == [("a", "99")]


async def test_a_watcher_that_waits_is_woken_by_a_commit(ks: Keystore) -> None:
    watch = await started(ks)
    waiting = asyncio.create_task(taken(watch, 1))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    await ks.set("a", "1")
    assert await waiting == [("a", "1")]


async def test_many_changes_pass_in_pages_without_a_gap(root: Path) -> None:
    async with keystore_at(root, max_page=10) as ks:
        watch = await started(ks)
        for n in range(25):
            await ks.set(f"k{n:02}", str(n))
        assert await taken(watch, 25) == [(f"k{n:02}", str(n)) for n in range(25)]


async def test_a_position_can_be_taken_up_after_every_single_change(ks: Keystore) -> None:
    watch = ks.watch()
    assert watch.position is None
    await watch.start()
    positions = [watch.position]
    await ks.set_many({"a": "1", "b": "2", "c": "3"})
    await ks.set("d", "4")
    for _ in range(4):
        await anext(watch)
        positions.append(watch.position)
    for number, position in enumerate(positions):
        assert position is not None
        assert (
            await taken(ks.watch(since=position), 4 - number)
            == [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")][number:]
        )


async def test_a_position_outlives_its_manager(root: Path) -> None:
    async with keystore_at(root) as ks:
        watch = await started(ks)
        await ks.set("a", "1")
        await anext(watch)
        position = watch.position
        await ks.set("b", "2")
    async with keystore_at(root) as ks:
        assert await taken(ks.watch(since=position), 1) == [("b", "2")]


async def test_an_entry_that_expires_before_it_is_handed_out_comes_as_gone(ks: Keystore, clock: ManualClock) -> None:
    watch = await started(ks)
    await ks.set_many({"a": "1", "b": "2"}, ttl=1)
    await ks.set("c", "3")
    assert await taken(watch, 1) == [("a", "1")]
    clock.advance(1)
    assert await taken(watch, 2) == [("b", None), ("c", "3")]


async def test_several_tasks_share_the_changes_of_one_watch(ks: Keystore) -> None:
    watch = await started(ks)
    waiting = [asyncio.create_task(taken(watch, 1)) for _ in range(2)]
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    await ks.set_many({"a": "1", "b": "2"})
    assert await asyncio.gather(*waiting) == [[("a", "1")], [("b", "2")]]


async def test_cancelling_a_wait_loses_no_change(ks: Keystore) -> None:
    watch = await started(ks)
    for n in range(5):
        with anyio.move_on_after(0):
            await anext(watch)
        await ks.set(f"k{n}", "v")
    assert await taken(watch, 5) == [(f"k{n}", "v") for n in range(5)]


async def test_a_position_of_a_keystore_that_was_made_anew_is_refused(root: Path) -> None:
    async with managed(root) as manager:
        async with manager.session("agent", "test") as ks:
            watch = await started(ks)
            position = watch.position
        await manager.delete("agent/test")
        async with manager.session("agent", "test") as ks:
            await ks.set("a", "1")
            with pytest.raises(CompactedError):
                await anext(ks.watch(since=position))


async def test_a_position_of_the_future_is_refused(ks: Keystore) -> None:
    here = await ks._keyspace.position()
    with pytest.raises(CompactedError):
        await anext(ks.watch(since=f"{here.incarnation}:{here.revision + 1}"))


async def test_a_watch_ends_when_its_session_does(ks: Keystore) -> None:
    watch = await started(ks)
    waiting = asyncio.create_task(taken(watch, 1))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    ks.close()
    with pytest.raises(ClosedError):
        await waiting


async def test_a_watch_ends_when_its_manager_is_closed(root: Path) -> None:
    async with managed(root) as manager:
        session = manager.session("agent", "test")
        ks = await session.__aenter__()
        watch = await started(ks)
        waiting = asyncio.create_task(taken(watch, 1))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
    with pytest.raises(ClosedError):
        await waiting
    await session.__aexit__(None, None, None)


async def test_a_watch_ends_when_its_address_is_gone(root: Path) -> None:
    async with keystore_at(root) as ks:
        watch = await started(ks)
        waiting = asyncio.create_task(taken(watch, 1))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        taken_away(root, "agent/test")
        with pytest.raises(AddressGoneError):
            await waiting


# Waiting for one key


async def test_wait_for_returns_at_once_what_is_there(ks: Keystore) -> None:
    await ks.set("a", "1")
    assert await ks.wait_for("a", timeout=0) == "1"
    assert await ks.wait_for("a", lambda value: value == "1", timeout=0) == "1"
    assert await ks.wait_for("b", lambda value: value is None, timeout=0) is None


async def test_wait_for_without_time_looks_also_where_looking_takes_some(root: Path) -> None:
    async with (
        managed(root, max_open_keystores=1) as manager,
        manager.session("agent", "test") as ks,
        manager.session("agent", "other") as other,
    ):
        await ks.set("a", "1")
        await other.set("a", "2")  # of two keystores one is open: the next look at the first begins with opening it
        assert await ks.wait_for("a", timeout=0) == "1"
        assert await other.wait_for("a", timeout=0) == "2"


async def test_a_timeout_of_the_predicate_itself_is_raised_as_it_is(ks: Keystore) -> None:
    def gives_up(_: str | None) -> bool:
        raise TimeoutError("the predicate's own")

    with pytest.raises(TimeoutError, match="the predicate's own") as caught:
        await ks.wait_for("a", gives_up, timeout=PATIENCE_S)
    assert not isinstance(caught.value, WaitTimeoutError)


async def test_wait_for_returns_once_the_key_is_as_wanted(ks: Keystore) -> None:
    seen: list[str | None] = []

    def wanted(value: str | None) -> bool:
        seen.append(value)
        return value == "3"

    waiting = asyncio.create_task(ks.wait_for("a", wanted, timeout=PATIENCE_S))
    for value in ("1", "2", "3"):
        await ks.set("other", value)
        await ks.set("a", value)
    assert await waiting == "3"
    assert seen[-1] == "3"


async def test_wait_for_notices_an_expiry_which_is_no_commit(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("lease", "held", ttl=60)
    waiting = asyncio.create_task(ks.wait_for("lease", lambda value: value is None, timeout=PATIENCE_S))
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    clock.advance(61)
    assert await waiting is None


@pytest.mark.parametrize("timeout_s", [0, -1, 0.01])
async def test_wait_for_ends_at_its_timeout(ks: Keystore, timeout_s: float) -> None:
    with pytest.raises(WaitTimeoutError) as caught:
        await ks.wait_for("never", timeout=timeout_s)
    assert isinstance(caught.value, TimeoutError)
    assert "'never'" in str(caught.value)


@pytest.mark.parametrize("timeout_s", [float("inf"), 10**400, 1e308], ids=["infinity", "digits", "float"])
async def test_wait_for_with_more_than_any_time_ends_with_the_wish(ks: Keystore, timeout_s: float) -> None:
    waiting = asyncio.create_task(ks.wait_for("a", timeout=timeout_s))
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    await ks.set("a", "1")
    assert await waiting == "1"


@pytest.mark.parametrize("timeout_s", [-float("inf"), -(10**400), -1e308], ids=["infinity", "digits", "float"])
async def test_wait_for_with_less_than_no_time_looks_once(ks: Keystore, timeout_s: float) -> None:
    with pytest.raises(WaitTimeoutError, match="within 0 s"):
        await ks.wait_for("a", timeout=timeout_s)
    await ks.set("a", "1")
    assert await ks.wait_for("a", timeout=timeout_s) == "1"


async def test_wait_for_takes_its_timeout_from_the_settings(root: Path) -> None:
    async with keystore_at(root, wait_s=0.01) as ks:
        with pytest.raises(WaitTimeoutError):
            await ks.wait_for("never")


async def test_an_error_of_the_predicate_is_raised(ks: Keystore) -> None:
    def fails(_: str | None) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ks.wait_for("a", fails)

"""An open keystore: shared commits, a busy file, and what a cancelled or abandoned write says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from prontodb.engine.sqlite import open_keystore, opening, writing
from prontodb.engine.sqlite.engine import SqliteKeyspace
from prontodb.engine.sqlite.open_keystore import LANE_READS_AFTER_SLOW, READS_BEFORE_READER, OpenKeystore
from prontodb.errors import (
    AddressGoneError,
    BusyError,
    ClosedError,
    FencedError,
    OutcomeUnknownError,
    RevisionConflictError,
    UnavailableError,
)
from prontodb.keystore import Keystore
from prontodb.model.clock import ManualClock
from prontodb.model.operation import Fence, Op
from prontodb.storage import connection as sqlite
from tests.managing import PATIENCE_S, descriptors, keystore_at, lock_holder, managed, until, waited_for


@pytest.fixture
async def ks(root: Path) -> AsyncIterator[Keystore]:
    """A keystore on one lane."""
    async with keystore_at(root, lanes=1) as keystore:
        yield keystore


def keyspace_of(ks: Keystore) -> SqliteKeyspace:
    return cast("SqliteKeyspace", ks._keyspace)


def store_of(ks: Keystore) -> OpenKeystore:
    return keyspace_of(ks)._current


def journal_rows(ks: Keystore) -> list[tuple[int, int]]:
    connection = sqlite.connect(store_of(ks).path, mode=sqlite.READ_ONLY, busy_timeout_ms=1_000)
    try:
        return [tuple(row) for row in sqlite.rows(connection, "SELECT first_rev, rev FROM journal ORDER BY rev")]
    finally:
        connection.close()


class Gate:
    """Something that the lane's thread runs into and waits at, until the test opens it."""

    def __init__(self) -> None:
        self.reached, self._opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        """On the lane's thread."""
        self.reached.set()
        assert self._opened.wait(PATIENCE_S), "the test never opened the gate"

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def block(ks: Keystore, gate: Gate) -> None:
    """Hold the lane up before it gets to anything that is queued from now on."""
    store_of(ks).lane.run(gate.wait)
    await until(gate.reached.is_set)


def wait_once_judged(store: OpenKeystore, gate: Gate) -> None:
    """Hold the lane up inside the next transaction: after its batches were judged, before it commits."""

    def step() -> int:
        if not gate.reached.is_set() and any(
            call.receipt is not None for calls in list(store._under_way) for call in calls
        ):
            gate.wait()
        return 0

    writer = store._writer
    assert writer is not None
    writer.set_progress_handler(step, 1)


def note_of(error: BaseException) -> str:
    (note,) = error.__notes__
    return note


async def cancelled_note(task: asyncio.Task[object]) -> str:
    with anyio.fail_after(PATIENCE_S), pytest.raises(asyncio.CancelledError) as caught:
        await task
    return note_of(caught.value)


# Where reads are done


async def test_without_inline_reads_nothing_is_read_on_the_loop(root: Path) -> None:
    async with keystore_at(root, inline_reads=False, mode="shared") as ks:
        await ks.set_many({f"k{n}": "1" for n in range(5)})
        loop, on_loop = threading.get_ident(), []
        store = store_of(ks)
        writer = store._writer
        assert writer is not None

        def look() -> int:
            on_loop.append(threading.get_ident() == loop)
            return 0

        writer.set_progress_handler(look, 1)
        for _ in range(READS_BEFORE_READER + 3):
            assert await ks.get("k1") == "1"
            assert await ks.get_many(["k1", "k2"]) == {"k1": "1", "k2": "1"}
            assert len([entry async for entry in ks.scan("k")]) == 5
            assert len(await ks.list_keys("k")) == 5
            assert await ks.namespace_ttls() == {}
            assert await ks.wait_for("k1") == "1"
        writer.set_progress_handler(None, 0)
        assert on_loop
        assert not any(on_loop)
        assert store.reader is None


# Shared commits


async def test_a_connection_for_reads_is_opened_once_there_are_some(ks: Keystore) -> None:
    await ks.set("a", "1")
    before = descriptors()
    for _ in range(READS_BEFORE_READER):
        assert not await ks.exists("absent")
    assert (descriptors(), store_of(ks).reader) == (before, None)
    assert not await ks.exists("absent")
    # The file and its log, and no third one that SQLite keeps for looking whose log it is.
    assert descriptors() == before + 2
    assert store_of(ks).read_inline(lambda connection: sqlite.one(connection, "SELECT 7")) == (7,)


async def test_without_a_connection_for_reads_the_lane_answers(ks: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refused(*_: object, **__: object) -> None:
        tries.append(1)
        raise UnavailableError("no descriptor is left")

    monkeypatch.setattr(opening, "open_reader", refused)
    await ks.set("a", "1")
    writer = store_of(ks)._writer
    for number in range(READS_BEFORE_READER + 5):
        assert not await ks.exists("absent")
        await ks.set("a", str(number))
    assert (len(tries), store_of(ks)._writer) == (1, writer), "the writing connection is not at fault"


async def test_nobody_reads_through_a_connection_before_its_file_is_known_to_be_ours(
    ks: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = store_of(ks), []
    check = store._check_identity

    def looked(found: tuple[int, int]) -> None:
        seen.append(store.reader)
        check(found)

    monkeypatch.setattr(store, "_check_identity", looked)
    for _ in range(READS_BEFORE_READER + 1):
        await ks.exists("absent")
    assert seen == [None]
    assert store.reader is not None


@pytest.mark.parametrize(("for_s", "on_the_lane"), [(math.inf, LANE_READS_AFTER_SLOW), (-1.0, 1)])
async def test_after_a_slow_read_some_go_to_the_lane(
    ks: Keystore, monkeypatch: pytest.MonkeyPatch, for_s: float, on_the_lane: int
) -> None:
    for _ in range(READS_BEFORE_READER + 1):
        await ks.exists("absent")
    store = store_of(ks)
    monkeypatch.setattr(open_keystore, "LANE_READS_FOR_S", for_s)
    with monkeypatch.context() as slow:
        slow.setattr(open_keystore, "SLOW_READ_S", -1.0)
        store.read_inline(lambda _: None)
    refused = 0
    with contextlib.suppress(StopIteration):
        while True:
            try:
                store.read_inline(lambda _: next(iter(())))
            except BusyError:
                refused += 1
    assert refused == on_the_lane


async def test_what_waits_for_the_lane_goes_into_one_commit(ks: Keystore, gate: Gate) -> None:
    await block(ks, gate)
    tasks = [asyncio.create_task(ks.set(f"k{n}", "v")) for n in range(50)]
    await until(lambda: len(store_of(ks)._waiting) == 50)
    gate.open()
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 51))
    assert journal_rows(ks) == [(1, 50)]


async def test_concurrent_writers_share_commits_by_themselves(ks: Keystore) -> None:
    async def write(number: int) -> None:
        for step in range(5):
            await ks.set(f"k{number}.{step}", "v")

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(write, number)
    rows = journal_rows(ks)
    assert rows[-1][1] == 200
    assert len(rows) < 100


async def test_a_batch_that_fails_fails_alone(ks: Keystore, gate: Gate) -> None:
    await ks.set("a", "1")
    await block(ks, gate)
    calls = [
        ks.set("b", "2"),
        ks.set("a", "wrong", expect=7),
        ks.set("a", "2", expect=1),
        ks.set("a", "late", expect=1),
        ks._keyspace.apply((Op("c", "x"), Op("a", "x", expect=0)), Fence("s")),
        ks._keyspace.apply((Op("c", "fenced"),), Fence("s", epoch=99)),
        ks.set("d", "4"),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: len(store_of(ks)._waiting) == len(calls))
    gate.open()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [found[0], found[2], found[6]] == [2, 3, 4]
    assert [type(found[n]) for n in (1, 3, 4)] == [RevisionConflictError] * 3
    assert isinstance(found[5], FencedError)
    assert await ks.get_many(["a", "b", "c", "d"]) == {"a": "2", "b": "2", "c": None, "d": "4"}
    assert journal_rows(ks) == [(1, 1), (2, 4)]  # one commit for all that passed


async def test_a_group_that_is_too_large_becomes_several_and_loses_nothing(ks: Keystore, gate: Gate) -> None:
    await block(ks, gate)
    tasks = [asyncio.create_task(ks.set_many({f"{n}.{i}": "v" for i in range(900)})) for n in range(4)]
    await until(lambda: len(store_of(ks)._waiting) == 4)
    gate.open()
    await asyncio.gather(*tasks)
    assert await ks.count() == 3_600


async def test_each_caller_gets_an_error_of_its_own(root: Path, gate: Gate) -> None:
    async with managed(root, lanes=1) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        await block(ks, gate)
        tasks = [asyncio.create_task(ks.set("a", str(n))) for n in range(2)]
        await until(lambda: len(store_of(ks)._waiting) == 2)
        (root / "addresses/agent/test").rename(root / "addresses/agent/moved")
        gate.open()
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, AddressGoneError)
        assert isinstance(second, AddressGoneError)
        assert first is not second
        assert str(first) == str(second)


async def test_a_group_takes_no_more_once_its_values_are_large(
    ks: Keystore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_keystore, "MAX_GROUP_CHARACTERS", 10)
    await block(ks, gate)
    tasks = [asyncio.create_task(ks.set(f"k{n}", "sixty!")) for n in range(5)]
    await until(lambda: len(store_of(ks)._waiting) == 5)
    gate.open()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
    assert journal_rows(ks) == [(1, 2), (3, 4), (5, 5)]


@contextlib.asynccontextmanager
async def second_of_two_commits(ks: Keystore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[int]]:
    """The write of a commit that hangs, begun before the loop had the outcome of the one before."""
    apply, first, second = writing.apply, Gate(), Gate()
    gates = [first, second]

    def held_up(*arguments: Any) -> None:
        if gates:
            gates.pop(0).wait()
        apply(*arguments)

    monkeypatch.setattr(writing, "apply", held_up)
    one = asyncio.create_task(ks.set("a", "1"))
    await until(first.reached.is_set)
    other = asyncio.create_task(ks.set("b", "1"))
    await until(lambda: bool(store_of(ks)._waiting))
    first.open()
    assert waited_for(second.reached.is_set)  # blocks the loop on purpose: it has not heard of the first yet
    assert await one == 1
    try:
        yield other
    finally:
        second.open()


async def test_a_session_ends_after_its_commit_although_another_ended_as_it_began(
    ks: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with second_of_two_commits(ks, monkeypatch) as other:
        store = store_of(ks)
        assert store.busy
        ending = asyncio.create_task(store.withdraw(ks._fence))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert not ending.done()
    await ending
    assert await other == 2
    assert not store.busy


async def test_a_commit_that_hangs_is_given_up_although_another_ended_as_it_began(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with (
        keystore_at(root, lanes=1, clock=clock) as ks,
        second_of_two_commits(ks, monkeypatch) as other,
    ):
        clock.advance(1_000)
        store_of(ks)._look_for_stuck()
        with anyio.fail_after(PATIENCE_S), pytest.raises(OutcomeUnknownError, match="has not ended in time"):
            await other


# A busy file


async def test_a_busy_file_is_retried_until_it_is_free(root: Path) -> None:
    async with keystore_at(root, wait_s=PATIENCE_S) as ks:
        with lock_holder(root, "agent/test") as holder:
            task = asyncio.create_task(ks.set("a", "1"))
            counting = asyncio.create_task(ks.increment("n"))
            await until(lambda: bool(store_of(ks)._waiting))
            assert await ks.get("a") is None  # readers do not wait
            holder.tell("ROLLBACK")
            assert await task in (1, 2)
            assert await counting == 1


@pytest.mark.parametrize("wait_s", [0, 0.05])
async def test_a_file_that_stays_busy_ends_in_an_error_at_the_deadline(root: Path, wait_s: float) -> None:
    async with keystore_at(root, wait_s=wait_s, lanes=1) as ks:
        await ks.set("a", "1")
        with lock_holder(root, "agent/test"):
            for call in (ks.set("a", "2"), ks.delete("a"), ks.increment("a"), ks.set_namespace_ttl("ns", 5)):
                with pytest.raises(BusyError):
                    await call
            outcomes = await asyncio.gather(*(ks.set(f"k{n}", "v") for n in range(20)), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {BusyError}
            assert await ks.get("a") == "1"
        assert await ks.set("a", "2") == 2
        assert await ks.count() == 1


async def test_a_locked_address_does_not_delay_another_on_its_lane(root: Path) -> None:
    async with (
        managed(root, lanes=1, wait_s=PATIENCE_S) as manager,
        manager.session("agent", "test") as locked,
        manager.session("agent", "free") as free,
    ):
        with lock_holder(root, "agent/test") as holder:
            waiting = asyncio.create_task(locked.set("a", "1"))
            await until(lambda: bool(store_of(locked)._waiting))
            for n in range(20):
                await free.set("a", str(n))
            assert not waiting.done()
            holder.tell("ROLLBACK")
            await waiting


# Cancellation: the note is true


async def test_a_write_that_was_not_picked_up_is_withdrawn(ks: Keystore, gate: Gate) -> None:
    await block(ks, gate)
    task = asyncio.create_task(ks.set("a", "1"))
    await until(lambda: bool(store_of(ks)._waiting))
    task.cancel()
    assert "nothing was written; the write was withdrawn" in await cancelled_note(task)
    gate.open()
    assert await ks.set("b", "1") == 1
    assert await ks.get("a") is None


async def test_a_write_in_its_commit_is_waited_for_and_its_revision_told(ks: Keystore, gate: Gate) -> None:
    store = store_of(ks)
    wait_once_judged(store, gate)
    task = asyncio.create_task(ks.set("a", "1"))
    await until(gate.reached.is_set)
    task.cancel()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not task.done()  # judged is not committed
    gate.open()
    assert "committed as revision 1" in await cancelled_note(task)
    assert await ks.get("a") == "1"


async def test_a_commit_that_fails_after_all_is_not_called_committed(root: Path, gate: Gate) -> None:
    async with keystore_at(root, lanes=1) as ks:
        wait_once_judged(store_of(ks), gate)
        task = asyncio.create_task(ks.set("a", "1"))
        await until(gate.reached.is_set)
        task.cancel()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        (root / "addresses/agent/test").rename(root / "addresses/agent/moved")
        gate.open()
        assert "nothing was written" in await cancelled_note(task)
        (root / "addresses/agent/moved").rename(root / "addresses/agent/test")
        assert await ks.get("a") is None


async def test_a_scope_that_is_cancelled_waits_for_the_commit_too(ks: Keystore, gate: Gate) -> None:
    wait_once_judged(store_of(ks), gate)
    scope, ended = anyio.CancelScope(), anyio.Event()

    async def write() -> None:
        with scope:
            await ks.set("a", "1")
        assert scope.cancelled_caught
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await until(gate.reached.is_set)
        scope.cancel()  # by now it is in its commit, which a deadline alone could not promise
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert not ended.is_set()
        gate.open()
    assert ended.is_set()
    assert await ks.get("a") == "1"


async def test_cancelled_twice_a_write_says_that_its_outcome_is_unknown(ks: Keystore, gate: Gate) -> None:
    wait_once_judged(store_of(ks), gate)
    task = asyncio.create_task(ks.set("a", "1"))
    await until(gate.reached.is_set)
    for _ in range(2):
        task.cancel()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
    assert "outcome unknown" in await cancelled_note(task)
    gate.open()
    await ks.set("b", "1")


async def test_a_cancelled_write_to_a_busy_file_is_given_up(root: Path) -> None:
    """In the very tick in which the lane hands the group back, and before."""
    async with keystore_at(root, wait_s=PATIENCE_S, lanes=1) as ks:
        store = store_of(ks)
        with lock_holder(root, "agent/test"):
            for in_same_tick in (True, False):
                task = asyncio.create_task(ks.set("a", "1"))
                await until(lambda: bool(store._waiting) and store._queued)
                if in_same_tick:
                    through = threading.Event()
                    store.lane.run(through.set)
                    await anyio.lowlevel.checkpoint()
                    assert waited_for(through.is_set)  # blocks the loop on purpose
                task.cancel()
                assert "nothing was written" in await cancelled_note(task)
        assert await ks.set("b", "1") == 1
        assert await ks.get("a") is None


async def test_a_write_cancelled_while_its_store_stops_ends(ks: Keystore, gate: Gate) -> None:
    await block(ks, gate)
    tasks = [asyncio.create_task(ks.set("a", "1")) for _ in range(2)]
    await until(lambda: len(store_of(ks)._waiting) == 2)
    closing = cast("SqliteKeyspace", ks._keyspace)._engine._close_store(store_of(ks))
    tasks[0].cancel()
    assert "nothing was written" in await cancelled_note(tasks[0])
    with pytest.raises(ClosedError):
        await tasks[1]
    gate.open()
    await closing


async def test_setting_a_lifetime_tells_its_outcome_too(ks: Keystore, gate: Gate) -> None:
    await block(ks, gate)
    task = asyncio.create_task(ks.set_namespace_ttl("ns", 5))
    await until(lambda: store_of(ks).pins > 0)
    task.cancel()
    await anyio.lowlevel.checkpoint()
    gate.open()
    note = await cancelled_note(task)
    assert ("committed" in note) == (await ks.namespace_ttls() == {"ns": 5.0})


# A lane that does not come back


async def test_a_commit_that_does_not_end_is_given_up_as_unknown(root: Path, gate: Gate) -> None:
    clock = ManualClock()
    async with keystore_at(root, clock=clock, lanes=1, wait_s=1) as ks:
        store = store_of(ks)
        wait_once_judged(store, gate)
        stuck, cancelled = (asyncio.create_task(ks.set(key, "1")) for key in "ab")
        await until(gate.reached.is_set)
        behind = asyncio.create_task(ks.set("c", "1"))
        await until(lambda: bool(store._waiting))
        cancelled.cancel()
        await anyio.lowlevel.checkpoint()
        clock.advance(60)
        store._look_for_stuck()
        with pytest.raises(OutcomeUnknownError):
            await stuck
        with pytest.raises(BusyError):
            await behind
        assert "outcome unknown" in await cancelled_note(cancelled)
        gate.open()
        # What was given up as unknown was committed, what was called not begun was not.
        assert await ks.set("d", "1") == 3
        assert await ks.get_many(["a", "b", "c"]) == {"a": "1", "b": "1", "c": None}


async def test_what_goes_wrong_inside_a_commit_reaches_everybody_who_waits(ks: Keystore, gate: Gate) -> None:
    store = store_of(ks)

    def fail() -> int:
        raise MemoryError  # the binding turns this into an interrupted statement

    writer = store._writer
    assert writer is not None
    writer.set_progress_handler(fail, 1)
    outcomes = await asyncio.gather(*(ks.set(f"k{n}", "v") for n in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert await ks.set("after", "v") == 1
    assert await ks.count() == 1


# Gone and back


async def test_every_write_after_an_address_went_says_so(root: Path) -> None:
    async with keystore_at(root) as ks:
        await ks.set("a", "1")
        (root / "addresses/agent/test").rename(root / "addresses/agent/moved")
        for _ in range(3):
            for call in (ks.set("a", "2"), ks.increment("n"), ks.set_namespace_ttl("ns", 5)):
                with pytest.raises(AddressGoneError):
                    await call
        (root / "addresses/agent/moved").rename(root / "addresses/agent/test")
        assert await ks.set("a", "3") == 2
        assert await ks.count() == 1

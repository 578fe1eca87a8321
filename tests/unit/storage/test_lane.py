"""A lane: aiosqlite's thread runs our functions in order, and ends when it is told, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import aiosqlite
import anyio
import pytest

from prontodb.errors import ClosedError, UnavailableError, UnsupportedBackendError
from prontodb.storage import lane as lane_module
from prontodb.storage.lane import Lane, Mailbox, outlast, running_loop
from tests.managing import PATIENCE_S, environment, program, ran, threads, until


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    """A lane, and no thread of it afterwards."""
    before = threads()
    opened = Lane()
    yield opened
    await opened.close()
    assert threads() == before


# What we rely on in aiosqlite, whose version is pinned for it


async def test_aiosqlite_runs_what_its_connection_executes_on_a_thread_of_its_own() -> None:
    ran_on: list[int] = []

    class Cursor:
        def fetchall(self) -> list[str]:
            return ["rows"]

    class Runner:
        def execute(self, call: object, parameters: object = ()) -> Cursor:
            assert callable(call)
            call()
            return Cursor()

        def close(self) -> None:
            ran_on.append(threading.get_ident())

    before = threads()
    connection = await aiosqlite.Connection(Runner, iter_chunk_size=64)  # type: ignore[arg-type]
    call: Any = lambda: ran_on.append(threading.get_ident())  # noqa: E731 - to aiosqlite it is a statement
    assert list(await connection.execute_fetchall(call)) == ["rows"]
    (thread,) = threads() - before
    ended = connection.stop()
    assert ended is not None
    await ended
    connection._thread.join(PATIENCE_S)
    assert ran_on == [thread, thread]
    assert threads() == before


def test_aiosqlite_never_logs_what_it_executes() -> None:
    assert not logging.getLogger("aiosqlite").isEnabledFor(logging.DEBUG)


# Running


async def test_functions_run_in_order_on_one_thread(lane: Lane) -> None:
    seen: list[tuple[int, int]] = []
    futures = [lane.run(lambda n=n: seen.append((n, threading.get_ident()))) for n in range(1_000)]  # type: ignore[misc]
    await asyncio.gather(*futures)
    assert [n for n, _ in seen] == list(range(1_000))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


async def test_each_function_has_its_own_result_or_error(lane: Lane) -> None:
    def fail() -> None:
        raise KeyError("mine")

    first, second, third = lane.run(lambda: 1), lane.run(fail), lane.run(lambda: 3)
    with pytest.raises(KeyError):
        await second
    assert (await first, await third) == (1, 3)


async def test_even_an_exit_inside_a_function_reaches_its_waiter_alone(lane: Lane) -> None:
    def leave() -> None:
        raise SystemExit(3)

    future = lane.run(leave)
    with pytest.raises(SystemExit):
        await future
    assert await lane.run(lambda: "next") == "next"


async def test_a_thread_starts_with_the_first_function_only() -> None:
    before = threads()
    lane = Lane()
    assert threads() == before
    assert lane.load == 0
    await lane.close()
    with pytest.raises(ClosedError):
        lane.run(lambda: None)


async def test_load_counts_what_waits_and_runs(lane: Lane) -> None:
    gate = threading.Event()
    futures = [lane.run(lambda: gate.wait(PATIENCE_S)) for _ in range(3)]
    assert lane.load >= 3
    gate.set()
    await asyncio.gather(*futures)
    await until(lambda: lane.load == 0)


async def test_functions_that_arrive_during_a_turn_are_run_too(lane: Lane) -> None:
    count = 1_000
    done = []
    for n in range(count):
        lane.run(lambda n=n: done.append(n))  # type: ignore[misc]
        if n % 100 == 0:
            await anyio.lowlevel.checkpoint()
    await until(lambda: len(done) == count)


# Lingering


def turns_counted(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with each trip through aiosqlite's queue."""
    turns: list[object] = []
    begin = lane._begin_turn

    def counted() -> None:
        if lane._connection is not None:
            turns.append(lane)
        begin()

    monkeypatch.setattr(lane, "_begin_turn", counted)
    return turns


async def test_a_task_that_comes_again_and_again_makes_one_trip(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "LINGER_S", PATIENCE_S)
    turns = turns_counted(lane, monkeypatch)
    assert [await lane.run(lambda n=n: n) for n in range(200)] == list(range(200))  # type: ignore[misc]
    assert len(turns) == 1
    await until(lambda: lane.load == 0)


async def test_an_idle_thread_hands_itself_back(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "LINGER_S", 0)
    turns = turns_counted(lane, monkeypatch)
    for _ in range(3):
        await lane.run(lambda: None)
        await until(lambda: lane._turn is None)
    assert len(turns) == 3


@pytest.mark.parametrize("linger_s", [0.0, 0.0002, 10.0])
async def test_no_function_is_forgotten_by_a_thread_that_goes_or_stays(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, linger_s: float
) -> None:
    monkeypatch.setattr(lane_module, "LINGER_S", linger_s)
    spread = random.Random(7)

    async def come(count: int) -> int:
        done = 0
        for _ in range(count):
            done += await lane.run(lambda: 1)
            if spread.random() < 0.3:  # let it fall idle, by about the time for which it lingers
                await anyio.sleep(spread.random() * 0.0004)
        return done

    with anyio.fail_after(PATIENCE_S):
        assert await asyncio.gather(*(come(500) for _ in range(4))) == [500] * 4


async def test_a_thread_that_lingers_keeps_nothing_alive(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    class Thing:
        """What a function or its result may hold."""

    monkeypatch.setattr(lane_module, "LINGER_S", PATIENCE_S)
    thing = Thing()
    seen = weakref.ref(thing)
    assert await lane.run(lambda thing=thing: thing) is thing  # type: ignore[misc]
    del thing
    await until(lambda: seen() is None)


async def test_close_does_not_wait_for_a_thread_to_stop_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "LINGER_S", 10 * PATIENCE_S)
    before = threads()
    lane = Lane()
    await lane.run(lambda: None)
    await until(lambda: lane._lingers)
    with anyio.fail_after(PATIENCE_S):
        await lane.close()
    assert threads() == before


async def test_close_at_any_moment_of_a_turn_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "LINGER_S", 10 * PATIENCE_S)
    before = threads()
    for ticks in range(30):
        lane = Lane()
        if ticks % 2:
            await lane.run(lambda: None)
        last = lane.run(lambda: "done")
        for _ in range(ticks // 2):
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(PATIENCE_S):
            await lane.close()
        assert last.result() == "done"
    assert threads() == before


CLOSED_UNDER_IT = """
import asyncio, threading
from prontodb.storage import lane as lanes
lanes.LINGER_S = 0.05
loop = asyncio.new_event_loop()
gone = threading.Event()
async def main():
    global lane
    lane = lanes.Lane()
    get = lane._bell.get
    def told(**given):
        if not given:  # it has looked at the loop, and stays
            gone.set()
        return get(**given)
    class Bell:
        put = lane._bell.put
        get = staticmethod(told)
    lane._bell = Bell()
    await lane.run(lambda: None)
loop.run_until_complete(main())
loop.close()
print(gone.wait(60))
"""


def test_a_loop_that_is_closed_over_a_lingering_thread_brings_no_traceback() -> None:
    done = subprocess.run(program(CLOSED_UNDER_IT), capture_output=True, text=True, env=environment(), timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


# Cancellation


async def test_run_to_end_returns_after_the_end_when_cancelled(lane: Lane) -> None:
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert gate.wait(PATIENCE_S)
        ended.set()

    task = asyncio.create_task(lane.run_to_end(work))
    await until(begun.is_set)
    task.cancel()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_run_to_end_keeps_to_itself_an_error_that_nobody_waits_for(lane: Lane) -> None:
    gate = threading.Event()

    def work() -> None:
        assert gate.wait(PATIENCE_S)
        raise KeyError("nobody is there")

    with anyio.CancelScope() as scope:
        lane.loop.call_soon(scope.cancel)
        lane.loop.call_soon(gate.set)
        await lane.run_to_end(work)
    assert scope.cancelled_caught


async def test_outlast_waits_through_cancellations_of_every_kind() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait() -> BaseException | None:
        with anyio.move_on_after(0):
            return await outlast(future)
        return None

    task = asyncio.create_task(wait())
    for _ in range(3):
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert not task.done()
        task.cancel()
    await anyio.lowlevel.checkpoint()
    future.set_result(1)
    assert isinstance(await task, asyncio.CancelledError)
    assert await outlast(future) is None


async def test_outlast_gives_up_at_its_deadline() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert await outlast(future, 0) is None
    assert not future.done()


async def test_no_task_stands_behind_what_is_queued(lane: Lane) -> None:
    """`asyncio.run` cancels all tasks when it ends."""
    gate, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert gate.wait(PATIENCE_S)

    first = lane.run(work)
    await until(begun.is_set)
    second = lane.run(lambda: "done")
    tasks = [str(task.get_coro()) for task in asyncio.all_tasks()]
    assert not any("Lane." in task for task in tasks), "nothing that asyncio would cancel"
    gate.set()
    with anyio.fail_after(PATIENCE_S):
        assert await second == "done"
        await first


async def test_a_thread_that_starts_while_asyncio_cancels_its_turn_ends_too(lane: Lane) -> None:
    future = lane.run(lambda: "done")
    for _ in range(2):
        await anyio.lowlevel.checkpoint()
        if lane._turn is not None:
            lane._turn.cancel()
    with anyio.fail_after(PATIENCE_S):
        assert await future == "done"


# Closing


async def test_close_runs_what_is_queued_first() -> None:
    lane = Lane()
    futures = [lane.run(lambda n=n: n) for n in range(10)]  # type: ignore[misc]
    await lane.close()
    assert [future.result() for future in futures] == list(range(10))
    assert await lane.close() is None


async def test_close_ends_the_thread_also_when_cancelled() -> None:
    before = threads()
    lane = Lane()
    gate, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert gate.wait(PATIENCE_S)

    future = lane.run(work)
    await until(begun.is_set)
    closing = asyncio.create_task(lane.close())
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
        closing.cancel()
    await anyio.lowlevel.checkpoint()
    gate.set()
    assert isinstance(await closing, asyncio.CancelledError)
    assert future.done()
    assert threads() == before


async def test_close_gives_up_a_thread_that_the_system_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "CLOSE_S", 0.05)
    lane = Lane()
    gate, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(PATIENCE_S)

    future = lane.run(work)
    await until(begun.is_set)
    before = threads()
    with anyio.fail_after(PATIENCE_S):
        await lane.close()
    assert threads() == before
    gate.set()
    await until(lambda: threads() < before)
    with anyio.fail_after(PATIENCE_S):
        await future


# Elsewhere


def test_a_lane_needs_a_running_asyncio_loop() -> None:
    with pytest.raises(UnsupportedBackendError, match="asyncio"):
        running_loop()
    with pytest.raises(UnsupportedBackendError):
        Lane()


ABANDONED = """
import asyncio, sys
from prontodb.storage.lane import Lane
loop = asyncio.new_event_loop()
async def main():
    global lane
    lane = Lane()
    print(await lane.run(lambda: "ran"))
loop.run_until_complete(main())
loop.close()
if sys.argv[1] == "drop":
    del lane
"""


@pytest.mark.parametrize("fate", ["keep", "drop"])
def test_an_interpreter_ends_although_its_loop_was_closed_over_a_lane(fate: str) -> None:
    done = subprocess.run(
        program(ABANDONED, fate), capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "ResourceWarning" in done.stderr or not done.stderr


NO_THREADS = """
import asyncio, sys, threading
from prontodb.errors import UnavailableError
from prontodb.storage.lane import Lane
def refuse(thread):
    raise RuntimeError("can't start new thread")  # what Python says when the system refuses
async def main():
    lane = Lane()
    start, threading.Thread.start = threading.Thread.start, refuse
    found = await asyncio.gather(*(lane.run(lambda: 1) for _ in range(3)), return_exceptions=True)
    threading.Thread.start = start
    print(*(type(error).__name__ for error in found), await lane.run(lambda: "then it works"))
    await lane.close()
asyncio.run(main())
"""


def test_a_thread_that_cannot_start_is_a_typed_error_for_all_who_wait() -> None:
    name = UnavailableError.__name__
    assert ran(NO_THREADS) == f"{name} {name} {name} then it works\n"


# The mailbox


async def test_a_loop_gets_every_letter_once_and_those_of_a_thread_in_order() -> None:
    each, senders = 2_000, 4
    got: list[tuple[int, int]] = []
    mailbox = Mailbox(running_loop())

    def send(sender: int) -> None:
        for number in range(each):
            mailbox.put(got.append, ((sender, number),))

    await asyncio.gather(*(asyncio.to_thread(send, sender) for sender in range(senders)))
    await until(lambda: len(got) >= each * senders)
    for sender in range(senders):
        assert [number for who, number in got if who == sender] == list(range(each))


async def test_a_busy_loop_is_woken_once_for_many_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = running_loop()
    mailbox, wake = Mailbox(loop), loop.call_soon_threadsafe
    got: list[int] = []
    wakes: list[object] = []

    def counted(call: Any, *arguments: Any) -> asyncio.Handle:
        wakes.append(call)
        return wake(call, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    for number in range(100):
        mailbox.put(got.append, (number,))
    await until(lambda: len(got) == 100)
    mailbox.put(got.append, (100,))
    await until(lambda: len(got) == 101)
    assert len(wakes) == 2


async def test_ctrl_c_in_the_middle_loses_no_letter() -> None:
    class Loop:
        """One that calls when it is told to."""

        def __init__(self) -> None:
            self.calls: list[Any] = []

        def call_soon(self, call: Any) -> None:
            self.calls.append(call)

        call_soon_threadsafe = call_soon

    def interrupt() -> None:
        raise KeyboardInterrupt

    loop = Loop()
    got: list[int] = []
    mailbox = Mailbox(cast("asyncio.AbstractEventLoop", loop))
    mailbox.put(got.append, (1,))
    mailbox.put(interrupt, ())
    mailbox.put(got.append, (2,))
    with pytest.raises(KeyboardInterrupt):
        loop.calls.pop()()
    assert got == [1]
    loop.calls.pop()()
    assert got == [1, 2]


async def test_a_letter_that_fails_keeps_none_of_the_others() -> None:
    loop = running_loop()
    mailbox = Mailbox(loop)
    got: list[int] = []
    told: list[object] = []
    loop.set_exception_handler(lambda _loop, context: told.append(type(context["exception"])))
    mailbox.put(got.append, (1,))
    mailbox.put(int, ("x",))
    mailbox.put(got.append, (2,))
    await until(lambda: len(got) == 2)
    loop.set_exception_handler(None)
    assert told == [ValueError]

"""Worker threads behind aiosqlite: each lane runs the short functions of many keystores, in order.

This module alone touches aiosqlite and asyncio. A lane is an aiosqlite `Connection` whose connector returns our own
object: its public `execute_fetchall` then runs a callable on aiosqlite's thread. `tests/unit/storage/test_lane.py`
pins that behaviour for the versions allowed in `pyproject.toml`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, cast

import aiosqlite
import anyio

from prontodb.errors import ClosedError, UnavailableError, UnsupportedBackendError
from prontodb.log import event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# aiosqlite logs statements with their parameters at DEBUG, and parameters are values.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

ITER_CHUNK_SIZE = 64
LINGER_S = 0.05
"""How long a lane's thread waits for more before it hands itself back to aiosqlite."""
SETTLED = object()
"""Returned by a function that has told its waiters itself: nothing goes to its future."""
CLOSE_S = 30.0
"""How long closing waits for a thread that the operating system holds up, such as in an fsync."""

Future = asyncio.Future
TimerHandle = asyncio.TimerHandle
CancelledError = asyncio.CancelledError
T = TypeVar("T")


class _Done:
    """What `execute_fetchall` expects of a cursor."""

    __slots__ = ()

    def fetchall(self) -> None:
        """Nothing to fetch: results go to their waiters one by one."""


class _Runner:
    """Stands where aiosqlite expects a database connection; its `execute` runs what it is given."""

    __slots__ = ()

    def execute(self, call: Callable[[], None], _parameters: object = ()) -> _Done:
        """Run `call` on this thread."""
        call()
        return _Done()

    def close(self) -> None:
        """Nothing to close: keystores close their own connections, on this thread."""


current_loop = asyncio._get_running_loop
"""Returns the running loop, None without one, and in the child of a fork until it runs one of its own."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running asyncio loop; `UnsupportedBackendError` on any other backend."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise UnsupportedBackendError("ProntoDB runs on asyncio only: use asyncio.run or anyio.run") from error


class Home:
    """The loop that handles belong to. The child of a fork has no home, even where it runs the same loop on."""

    __slots__ = ("__weakref__", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: object = loop
        _homes.add(self)


_homes: weakref.WeakSet[Home] = weakref.WeakSet()


def _after_fork() -> None:
    for home in _homes:
        home.loop = _homes  # which no loop is


os.register_at_fork(after_in_child=_after_fork)


class Mailbox:
    """What threads have to tell a loop, which is woken once for all that comes while it is busy.

    To wake it is a system call, and gives the interpreter's lock away.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._letters: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._is_coming = False

    def put(self, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """From any thread: have the loop call `call`; nothing when the loop is closed and nobody waits."""
        self._letters.append((call, arguments))
        # Set back before the letters are read: one that finds it set is read, or comes after that and wakes the loop.
        if not self._is_coming:
            self._is_coming = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                return

    def _deliver(self) -> None:
        self._is_coming = False
        left = len(self._letters)
        try:
            # What comes meanwhile waits for the next tick: others are to have their turn as well.
            while left:
                left -= 1
                call, arguments = self._letters.popleft()
                try:
                    call(*arguments)
                except Exception as error:  # noqa: BLE001 - a bug of ours must not keep the others from theirs
                    said = "a lane's result could not be handed over"
                    self._loop.call_exception_handler({"message": said, "exception": error})
        finally:
            if left:  # Ctrl-C, here of all places: the loop may go on
                self._loop.call_soon(self._deliver)


class Lane:
    """One worker thread. Functions handed to it run in order, one at a time, each as short as one transaction.

    Lanes of one loop share a `mailbox`; without one, a lane has its own. What aiosqlite's thread is given to run is a
    turn: all functions that wait, and then those that come within LINGER_S after the last. So a busy lane, and one
    task that writes again and again, make the trip through aiosqlite's queue once.
    """

    def __init__(self, mailbox: Mailbox | None = None) -> None:
        self.loop = running_loop()
        self._mailbox = mailbox or Mailbox(self.loop)
        self._connection: aiosqlite.Connection | None = None
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._turn: Future[Any] | None = None
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_called = self._lingers = False
        self._spawned: set[asyncio.Task[None]] = set()
        self._open = True

    @property
    def load(self) -> int:
        """How many functions wait or run."""
        return len(self._waiting) + (self._turn is not None and not self._lingers)

    def submit(self, call: Callable[[], Any], future: Future[Any]) -> None:
        """Queue `call` for the thread; its result or exception goes to `future`. From the loop only."""
        if not self._open:
            raise ClosedError("the manager is closed")
        self._waiting.append((call, future))
        # In this order, and the thread in the other: it sees what waits, or is seen to linger.
        if self._turn is None or self._lingers:
            self.expect()

    def expect(self) -> None:
        """Have the thread called at the next tick, so that whatever else comes until then goes along.

        Who is about to answer a caller, who may well come again at once, saves it a tick by this.
        """
        if not self._is_called:
            self._is_called = True
            self.loop.call_soon(self._call_thread)

    def _call_thread(self) -> None:
        """On the loop: have the thread see to what waits."""
        self._is_called = False
        if not self._waiting:
            return
        if self._turn is None:
            self._begin_turn()
        elif self._lingers:
            self._bell.put(None)

    def _begin_turn(self) -> None:
        if self._connection is None:
            turn: Future[Any] = self.loop.create_task(self._start())
        else:
            # To the type checker a callable is no SQL; to _Runner it is all there is.
            call: Any = self._connection.execute_fetchall(cast("str", self._run_turn))
            # Its first step hands the function over and says what it waits for, which is all that there is to wait
            # for: no task, which asyncio would cancel when the loop ends, and complain of when it is left behind.
            turn = call.send(None)
            call.close()
        self._turn = turn
        turn.add_done_callback(self._turn_ended)

    def _turn_ended(self, turn: Future[Any]) -> None:
        """On the loop: begin another turn for what came as this one ended, or when its start was cancelled."""
        _taken(turn)
        if self._turn is turn:
            self._turn = None
            if self._waiting:
                self._begin_turn()

    def run(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call` and return the future of its result."""
        future: Future[T] = self.loop.create_future()
        self.submit(call, future)
        return future

    async def run_to_end(self, call: Callable[[], T], on_cancel: Callable[[], None] | None = None) -> T:
        """Run `call` and return its result; when cancelled, wait for its end first, so that it never runs on alone.

        `on_cancel` is called before that wait: it may tell `call` to make haste.
        """
        future = self.run(call)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            if on_cancel is not None:
                on_cancel()
            future.add_done_callback(_taken)
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
            raise
        return future.result()

    def spawn(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Run a coroutine on the loop that nobody's cancellation reaches, but asyncio's when the loop ends."""
        task = self.loop.create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    def tell(self, call: Callable[..., object], *arguments: object) -> None:
        """From the lane's thread: have the loop call `call`; nothing when the loop is closed and nobody waits."""
        self._mailbox.put(call, arguments)

    async def _start(self) -> None:
        connection = aiosqlite.Connection(cast("Callable[[], Any]", _Runner), iter_chunk_size=ITER_CHUNK_SIZE)
        # A loop that was closed before its manager must not keep the interpreter from ending: to a commit that is
        # under way then, this is a kill like any other.
        connection._thread.daemon = True
        try:
            # Shielded: a cancelled start would leave aiosqlite's thread behind (omnilib/aiosqlite#259).
            with anyio.CancelScope(shield=True):
                self._connection = await connection
        except RuntimeError as error:
            # Python's word for a thread that the system would not start.
            while self._waiting:
                _fail(self._waiting.popleft()[1], UnavailableError(f"cannot start a worker thread: {error}"))

    def _run_turn(self) -> None:
        """On the thread: run what waits, and what comes meanwhile or soon after."""
        while True:
            try:
                call, future = self._waiting.popleft()
            except IndexError:
                if self._linger():
                    continue
                return
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to its waiter, never lost
                self.tell(_fail, future, error)
            else:
                if result is not SETTLED:
                    self.tell(self._finish, future, result)
            # A thread that lingers shall not keep alive what it was given last.
            del call, future
            result = None

    def _finish(self, future: Future[Any], result: object) -> None:
        """On the loop: answer the caller."""
        if not future.done():
            future.set_result(result)
        self.expect()

    def _linger(self) -> bool:
        """On the thread: wait for the bell; True when there may be more to do."""
        self._lingers = True
        try:
            if not self._waiting:
                self._bell.get(timeout=LINGER_S if self._open else 0)
            return True
        except Empty:
            if self.loop.is_closed():
                # aiosqlite would tell the loop that the turn has ended, and its thread end in a traceback.
                self._bell.get()
            return False
        finally:
            self._lingers = False

    async def close(self) -> BaseException | None:
        """Run what is queued, then end the thread; returns when it has ended, with a cancellation that came meanwhile.

        Shield this: it heeds no cancellation.
        """
        self._open = False
        self._bell.put(None)
        if self._waiting and self._turn is None:
            self._begin_turn()
        cancelled: BaseException | None = None
        deadline = self.loop.time() + CLOSE_S
        while (turn := self._turn) is not None and self.loop.time() < deadline:
            cancelled = await outlast(turn, deadline - self.loop.time()) or cancelled
            if turn.done():  # its own callback may be a tick away
                self._turn_ended(turn)
        connection, self._connection = self._connection, None
        if connection is not None:
            ended = connection.stop()
            assert ended is not None
            cancelled = await outlast(ended, deadline - self.loop.time()) or cancelled
            if ended.done():
                # aiosqlite reports its end from inside the thread; when we return no thread may be left.
                connection._thread.join()
            else:
                event("lane.stuck", waited_s=CLOSE_S)
        return cancelled


async def outlast(future: Future[Any], timeout_s: float | None = None) -> BaseException | None:
    """Wait for the end of a future, whatever it brings; return a native cancellation that came meanwhile.

    anyio's shields do not hold back `Task.cancel()`, with which asyncio ends its tasks when the loop ends.
    """
    cancelled: BaseException | None = None
    deadline = None if timeout_s is None else future.get_loop().time() + timeout_s
    with anyio.CancelScope(shield=True):
        while not future.done():
            left_s = None if deadline is None else deadline - future.get_loop().time()
            if left_s is not None and left_s <= 0:
                break
            try:
                await asyncio.wait([future], timeout=left_s)
            except asyncio.CancelledError as error:
                cancelled = error
    return cancelled


def _taken(future: Future[Any]) -> None:
    """Take an error that nobody waits for, so that asyncio does not report it as lost."""
    if not future.cancelled():
        future.exception()


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)

"""A keystore open in this process: a writing connection on a lane, and one on the loop once there is much to read.

Writers share commits: what waits when the lane gets to it goes into one transaction, and each is acknowledged after
the commit that holds it. All attributes belong to the loop, except where a method says that it runs on the lane.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import anyio

from prontodb.engine.sqlite import opening, writing
from prontodb.errors import (
    COMMITTED_NOTE,
    UNKNOWN_NOTE,
    AddressGoneError,
    AddressNotFoundError,
    BusyError,
    ClosedError,
    CorruptError,
    OutcomeUnknownError,
    ProntoError,
    ReadOnlyError,
    StorageFullError,
    UnavailableError,
    shown,
)
from prontodb.log import event
from prontodb.storage import connection as sqlite
from prontodb.storage.files import identity
from prontodb.storage.lane import SETTLED, CancelledError, Future, Lane, TimerHandle, outlast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prontodb.engine.sqlite.context import Target
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.operation import Fence, Op, Receipt
    from prontodb.model.settings import Settings
    from prontodb.storage.connection import Connection

T = TypeVar("T")

_BROKEN = (StorageFullError, CorruptError, UnavailableError, OutcomeUnknownError)

_COMMITTED = COMMITTED_NOTE
_NOTHING = "ProntoDB: nothing was written"
_UNKNOWN = UNKNOWN_NOTE
"""How the note on a cancellation begins."""

MAX_GROUP_OPS = 1_024
MAX_GROUP_CHARACTERS = 8 * 1024 * 1024
"""Past so many in its values a group takes no more calls: large values gain nothing from a shared commit, and what the
journal keeps of them must fit into one row (SQLite's limit is a billion bytes)."""
BUSY_TIMEOUT_MS = 4
"""How long SQLite waits on a lane: a locked keystore must not hold up the others of its lane."""
RETRY_S = (0.002, 0.02)
"""A busy group goes back to the loop and comes again after a random time between these."""
READS_BEFORE_READER = 2
"""Reads that the lane does before a connection for reads on the loop is opened: to open one takes about as long as
these do, and then some 90 KiB and two descriptors (`python -m benchmarks footprint`)."""
READS_BEFORE_ANOTHER_TRY = 1_000
"""And so many when it could not be opened."""
SLOW_READ_S = 0.002
LANE_READS_AFTER_SLOW = 64
LANE_READS_FOR_S = 0.1
"""After a read on the loop took over SLOW_READ_S, so many go to the lane, or those of this time: it may have been
another thread that was slow, and on a busy loop each trip to the lane takes longer than the read did."""
LOOK_EVERY_S = 0.05
"""How long reads may go on at an address that another process renamed or removed; each look costs a system call."""
STUCK_S = 5.0
"""Least time before an operation that the lane does not finish is given up; more when `wait_s` is more."""


class _Call(writing.Batch):
    """One caller's batch on its way; `settled` once its outcome is known to the loop."""

    __slots__ = ("deadline", "future", "settled")

    def __init__(self, ops: Sequence[Op], fence: Fence, future: Future[Receipt], deadline: float) -> None:
        self.ops, self.fence, self.receipt, self.error = ops, fence, None, None
        self.future, self.deadline, self.settled = future, deadline, False

    def settle(self) -> None:
        """On the loop: tell the waiter."""
        self.settled = True
        future = self.future
        if future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            assert self.receipt is not None
            future.set_result(self.receipt)


class OpenKeystore:
    """The connections of one address, and who waits for them."""

    def __init__(self, layout: Layout, address: Address, lane: Lane, settings: Settings, clock: Clock) -> None:
        self.layout, self.address, self.lane = layout, address, lane
        self._limits, self._clock, self._durability = settings.limits, clock, settings.durability
        self.path = layout.keystore_path(address)
        self.identity: tuple[int, int] | None = None
        self.reader: Connection | None = None
        self._writer: Connection | None = None  # the lane's own
        self._target: Target | None = None
        self.read_only = False
        self.closed = False
        self.pins = 0
        self.used = 0
        self.lane_reads = 0
        self._lane_reads_until = 0.0
        # Without inline reads the lane does them all; where nothing can be written there is but the one connection.
        self._reads_before_reader = READS_BEFORE_READER if settings.inline_reads else float("inf")
        self._looked_at = 0.0
        self._waiting: deque[_Call] = deque()
        # A group each, from when the lane begins to take calls until the loop has their outcome: the lane may be at the
        # next one by then. The lane appends, the loop takes them off in the same order.
        self._under_way: deque[list[_Call]] = deque()
        self._queued = False
        self._timer: TimerHandle | None = None
        self._committed: anyio.Event | None = None

    # Opening and closing

    def open_on_lane(self) -> None:
        """On the lane: open the writing connection, or the reading one where nothing can be written."""
        try:
            self._open_writer()
            return
        except ReadOnlyError:
            self.read_only = True
        except UnavailableError:
            folder = os.path.dirname(self.path)
            if os.access(folder, os.W_OK) or not os.path.exists(folder):
                raise
            self.read_only = True
        except StorageFullError:
            # Reads do without, one by one, until there is room again.
            self._check_identity(identity(self.path) or (0, 0))
            return
        try:
            self._open_reader()
        except BaseException:
            self.close_on_lane()
            raise

    def _open_reader(self) -> None:
        reader, found = opening.open_reader(
            self.layout, self.address, any_thread=True, knows_log=self._writer is not None
        )
        try:
            self._check_identity(found)
        except BaseException:
            reader.close()
            raise
        self.reader = reader  # from now on the loop reads through it

    def _open_writer(self) -> None:
        try:
            self._writer, self._target = opening.open_writer(
                self.layout,
                self.address,
                self._limits,
                durability=self._durability,
                busy_timeout_ms=BUSY_TIMEOUT_MS,
                any_thread=True,
            )
        except AddressNotFoundError:
            if self.identity is None:
                raise
            raise self.gone() from None
        try:
            self._check_identity(self._target.identity)
        except BaseException:
            self._close_writer()
            raise

    def _check_identity(self, found: tuple[int, int]) -> None:
        """A store never moves over to another file of the same name: its handles belong to the one they opened."""
        if self.identity is None:
            self.identity = found
        elif self.identity != found:
            raise self.gone()

    def gone(self) -> AddressGoneError:
        """What to raise when the path leads elsewhere."""
        return AddressGoneError(f"address {self.address} was renamed, removed or replaced; open a new session")

    def _close_writer(self) -> None:
        writer, self._writer, self._target = self._writer, None, None
        if writer is not None:
            writer.close()

    def close_on_lane(self) -> None:
        """On the lane, once nobody uses it any more: close the reader, then the writer, who tidies up."""
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.close()
        self._close_writer()

    @property
    def busy(self) -> bool:
        """True while somebody waits for this store or uses it."""
        return bool(self.pins or self._waiting or self._under_way or self._queued)

    # Reading

    def read_inline(self, work: Callable[[Connection], T]) -> T:
        """Run a short read on the loop's own thread; `BusyError` sends the caller to the lane."""
        reader = self.reader
        if reader is None:
            raise BusyError("no reading connection now")
        begun = time.perf_counter()
        if self.lane_reads and not self.read_only:
            self.lane_reads = self.lane_reads - 1 if begun < self._lane_reads_until else 0
            raise BusyError("reads were slow a moment ago")
        if begun - self._looked_at > LOOK_EVERY_S:
            if not self.still_there:
                raise self.gone()
            self._looked_at = begun
        try:
            return work(reader)
        except sqlite.ERRORS as error:
            raise self._reader_failed(error) from error
        finally:
            ended = time.perf_counter()
            if ended - begun > SLOW_READ_S:
                self.lane_reads, self._lane_reads_until = LANE_READS_AFTER_SLOW, ended + LANE_READS_FOR_S

    def _reader_failed(self, error: sqlite.Error) -> ProntoError:
        failure = sqlite.translated(error, self.path)
        if not isinstance(failure, BusyError) and not self.read_only:
            # Never go on with a connection that reported damage or an I/O error (D8); the lane's serves meanwhile.
            reader, self.reader = self.reader, None
            if reader is not None:
                reader.close()
        return failure

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a short read: on the loop when that is free, else on the lane, up to the deadline."""
        try:
            return self.read_inline(work)
        except BusyError:
            if self.read_only:
                raise
        return await self.read_on_lane(work)

    async def read_on_lane(self, work: Callable[[Connection], T]) -> T:
        """Run a read on the lane, up to the deadline."""

        def looked(connection: Connection, _target: Target) -> T:
            if not self.still_there:
                raise self.gone()
            if self.reader is None and not self.closed:
                self._open_reader_in_time()
            return work(connection)

        try:
            return await self.on_writer(looked)
        except StorageFullError:
            return opening.read_as_it_is(self.layout, self.address, work)

    def _open_reader_in_time(self) -> None:
        """On the lane, before a read: open the reading connection once there were some; do without where it fails."""
        if self._reads_before_reader:
            self._reads_before_reader -= 1
            return
        try:
            self._open_reader()
        except AddressGoneError:
            raise
        except ProntoError as error:
            # As when no descriptor is left: the connection at hand answers as well.
            self._reads_before_reader = READS_BEFORE_ANOTHER_TRY
            event("reader.failed", address=self.address, error=type(error).__name__)

    async def on_writer(self, work: Callable[[Connection, Target], T]) -> T:
        """Run `work` on the lane's connection; comes again while the file is busy, up to the deadline."""
        deadline = self._clock.monotonic_s() + self._limits.wait_s
        self.pins += 1
        try:
            while True:
                try:
                    return await self.lane.run_to_end(lambda: self._with_writer(work))
                except BusyError as error:
                    if self._clock.monotonic_s() >= deadline:
                        raise sqlite.with_writer_named(error, self.path) from error
                await anyio.sleep(random.uniform(*RETRY_S))  # noqa: S311 - spreads retries, guards nothing
        finally:
            self.pins -= 1

    async def change(self, work: Callable[[Connection, Target], T]) -> T:
        """`on_writer` for what changes something: when cancelled, a note says what became of it."""
        begun = abandoned = False
        outcome = _UNKNOWN

        def tracked(connection: Connection, target: Target) -> T:
            nonlocal begun, outcome
            begun = True
            if abandoned:
                raise ClosedError("nobody waits for this any more")
            outcome = _UNKNOWN
            try:
                result = work(connection, target)
            except OutcomeUnknownError:
                raise
            except ProntoError as error:
                outcome = f"{_NOTHING}; {error}"
                raise
            outcome = _COMMITTED
            return result

        try:
            return await self.on_writer(tracked)
        except CancelledError as cancelled:
            abandoned = True
            cancelled.add_note(outcome if begun else f"{_NOTHING}; the write was withdrawn")
            raise

    def _with_writer(self, work: Callable[[Connection, Target], T]) -> T:
        """On the lane: run `work`, opening the connection if it is not; drop it after an error it may not survive."""
        if self._writer is None:
            if self.read_only:
                raise ReadOnlyError(f"{shown(self.path)} cannot be written here; reading still works")
            if self.closed:  # what is opened now, nobody would close
                raise ClosedError(f"the keystore of {self.address} was closed before this began")
            self._open_writer()
        assert self._writer is not None
        assert self._target is not None
        try:
            return work(self._writer, self._target)
        except sqlite.ERRORS as error:
            failure = sqlite.translated(error, self.path)
            if not isinstance(failure, BusyError):
                self._close_writer()
            raise failure from error
        except _BROKEN:
            # Never go on with a connection after a full disk, an I/O error or damage (D8).
            self._close_writer()
            raise

    # Writing

    async def apply(self, ops: Sequence[Op], fence: Fence) -> Receipt:
        """Have `ops` applied by the next commit; see `Keyspace.apply`."""
        if self.read_only:
            raise ReadOnlyError(f"{shown(self.path)} cannot be written here; reading still works")
        future: Future[Receipt] = self.lane.loop.create_future()
        call = _Call(ops, fence, future, self._clock.monotonic_s() + self._limits.wait_s)
        self._waiting.append(call)
        if not self._queued:
            self._queue()
        try:
            return await future
        except CancelledError as cancelled:
            await self._cancelled(call, cancelled)
            raise

    def _queue(self) -> None:
        not_begun: Future[object] = self.lane.loop.create_future()
        not_begun.add_done_callback(self._lane_failed)
        self.lane.submit(self._commit, not_begun)
        self._queued = True
        if self._timer is None:
            self._timer = self.lane.loop.call_later(self._patience_s, self._look_for_stuck)

    def _lane_failed(self, not_begun: Future[object]) -> None:
        """On the loop: the lane could not even start its thread, so nothing of what waits was begun."""
        self._queued = False
        error = not_begun.exception()
        if isinstance(error, ProntoError):
            self._fail_waiting(error)

    @property
    def _patience_s(self) -> float:
        return max(STUCK_S, self._limits.wait_s)

    async def _cancelled(self, call: _Call, cancelled: BaseException) -> None:
        """Withdraw a cancelled call, or wait for the commit that has it; say which in a note."""
        try:
            self._waiting.remove(call)
        except ValueError:
            if not call.settled:
                # The cancellation took the old future with it; settling looks at this one from now on. A group that
                # finds the file busy does not come again for it.
                call.future, call.deadline = self.lane.loop.create_future(), 0.0
                with anyio.CancelScope(shield=True):
                    try:
                        await call.future
                    except ProntoError:
                        pass
                    except CancelledError:
                        pass
            if not call.settled or isinstance(call.error, OutcomeUnknownError):
                cancelled.add_note(f"{_UNKNOWN}; the write may or may not have been committed")
            elif call.error is None and call.receipt is not None:
                cancelled.add_note(f"{_COMMITTED} as revision {call.receipt.revision}")
            else:
                cancelled.add_note(f"{_NOTHING}; {call.error or 'the write was withdrawn'}")
        else:
            cancelled.add_note(f"{_NOTHING}; the write was withdrawn")

    def _commit(self) -> object:
        """On the lane: commit what waits as one group."""
        calls: list[_Call] = []
        self._under_way.append(calls)
        self._queued = False
        ops = characters = 0
        while self._waiting and ops < MAX_GROUP_OPS and characters < MAX_GROUP_CHARACTERS:
            try:
                call = self._waiting.popleft()
            except IndexError:  # withdrawn by the loop in this instant
                break
            calls.append(call)
            ops += len(call.ops)
            for op in call.ops:
                if op.value is not None:
                    characters += len(op.value)
        if not calls:
            self._under_way.pop()
            return SETTLED
        try:
            now_ms = self._clock.wall_ms()
            self._with_writer(lambda connection, target: writing.apply(connection, target, calls, now_ms))
        except BusyError as error:
            self.lane.tell(self._come_again, calls, error)
        except ProntoError as error:
            for call in calls:
                call.receipt, call.error = None, error.copy()
            self.lane.tell(self._hand_out, calls)
        except BaseException as error:  # noqa: BLE001 - a bug of ours must not leave anybody waiting
            for call in calls:
                call.receipt, call.error = None, OutcomeUnknownError(f"the commit failed: {type(error).__name__}")
            event("commit.failed", address=self.address, error=type(error).__name__)
            self.lane.tell(self._hand_out, calls)
        else:
            self.lane.tell(self._hand_out, calls)
        return SETTLED

    def _come_again(self, calls: list[_Call], error: BusyError) -> None:
        """On the loop: put a busy group back, those past their deadline excepted, and queue it after a short while."""
        self._is_over(calls)
        now = self._clock.monotonic_s()
        again: list[_Call] = []
        given_up: BusyError | None = None
        for call in calls:
            call.receipt = call.error = None
            if call.future.done():
                call.settled = True  # given up on in this very tick
                continue
            if now < call.deadline and not self.closed:
                again.append(call)
            else:
                given_up = given_up or sqlite.with_writer_named(error, self.path)
                call.error = given_up.copy()
                call.settle()
        self._waiting.extendleft(reversed(again))
        if self._waiting and not self._queued:
            self._queued = True
            self.lane.loop.call_later(random.uniform(*RETRY_S), self._queue_again)  # noqa: S311 - spreads retries

    def _queue_again(self) -> None:
        self._queued = False
        if self._waiting:
            try:
                self._queue()
            except ClosedError as error:
                self._fail_waiting(error)

    def _is_over(self, calls: list[_Call]) -> None:
        """On the loop: forget a group, and any before it whose outcome an interrupt kept from us."""
        while self._under_way and self._under_way.popleft() is not calls:
            pass

    def _hand_out(self, calls: list[_Call]) -> None:
        """On the loop: acknowledge a committed group, or hand each its error."""
        self._is_over(calls)
        for call in calls:
            call.settle()
        if self._waiting and not self._queued:
            self._queue_again()
        self.lane.expect()
        committed, self._committed = self._committed, None
        if committed is not None:
            committed.set()

    def _look_for_stuck(self) -> None:
        """On the loop, now and then while calls are under way: give up those that the lane does not finish."""
        self._timer = None
        now, patience_s = self._clock.monotonic_s(), self._patience_s - self._limits.wait_s
        for call in list(self._waiting):
            if now >= call.deadline + patience_s:
                try:
                    self._waiting.remove(call)
                except ValueError:  # the lane took it in this instant
                    continue
                call.error = BusyError(f"{shown(self.path)}: the disk did not get to this write in time; try again")
                call.settle()
        said = f"the commit to {shown(self.path)} has not ended in time; read before writing"
        for calls in list(self._under_way):
            for call in list(calls):
                if now >= call.deadline + patience_s and not call.future.done():
                    # The commit goes on; only this waiter is told, and its batch stays as the commit will leave it.
                    call.future.set_exception(OutcomeUnknownError(said))
        if self._waiting or self._under_way or self._queued:
            self._timer = self.lane.loop.call_later(1.0, self._look_for_stuck)

    def _fail_waiting(self, error: ProntoError) -> None:
        while self._waiting:
            try:
                call = self._waiting.popleft()
            except IndexError:  # the lane took the last one in this instant
                break
            call.error = error.copy()
            call.settle()

    async def withdraw(self, fence: Fence) -> None:
        """Fail the calls of a session that ends, and wait for the commit that may hold some of them, within bounds."""
        self._fail_those_of(fence)
        if self._under_way:
            cancelled = await outlast(self.lane.run(lambda: None), STUCK_S)
            self._fail_those_of(fence)  # a group that found the file busy has been put back
            if cancelled is not None:
                raise cancelled

    def _fail_those_of(self, fence: Fence) -> None:
        for call in [call for call in list(self._waiting) if call.fence is fence]:
            try:
                self._waiting.remove(call)
            except ValueError:  # the lane took it in this instant
                continue
            call.error = ClosedError(f"the session at {self.address} ended before this write began")
            call.settle()

    def stop(self) -> None:
        """On the loop: end the timer and fail what nobody will do any more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail_waiting(ClosedError(f"the manager of {self.address} was closed before this write began"))
        committed, self._committed = self._committed, None
        if committed is not None:
            committed.set()  # whoever waits for a commit shall notice

    # Waiting for commits

    @property
    def still_there(self) -> bool:
        """False when the path leads elsewhere: nobody commits to this file any more."""
        return identity(self.path) == self.identity

    def version(self) -> object:
        """Return what changes whenever another connection commits; None when it cannot be told at once."""
        try:
            return id(self.reader), self.read_inline(_data_version)
        except BusyError:
            return None

    async def local_commit(self, timeout_s: float) -> bool:
        """Return True at the next commit through this store, False after `timeout_s`."""
        if self._committed is None:
            self._committed = anyio.Event()
        committed = self._committed
        with anyio.move_on_after(timeout_s):
            await committed.wait()
        return committed.is_set()


def _data_version(connection: Connection) -> int:
    found: int = sqlite.one(connection, "PRAGMA data_version")[0]
    return found

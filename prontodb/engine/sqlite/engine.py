"""The async engine: a bounded pool of open keystores over a few lanes, behind the seam's two protocols."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, TypeVar

import anyio

from prontodb.engine.sqlite import changing, fencing, folders, opening, transactions, upkeep, writing
from prontodb.engine.sqlite.open_keystore import OpenKeystore
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.errors import (
    REFUSALS,
    AddressNotFoundError,
    BusyError,
    ClosedError,
    CorruptError,
    StorageFullError,
    UnavailableError,
    shown,
)
from prontodb.log import event
from prontodb.model.operation import frees_room
from prontodb.storage import connection as sqlite
from prontodb.storage import reserve
from prontodb.storage.lane import CancelledError, Future, Home, Lane, Mailbox, current_loop, outlast, running_loop
from prontodb.storage.lock import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.errors import ProntoError
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.entry import Entry
    from prontodb.model.history import Mark
    from prontodb.model.operation import Changes, Fence, Op, Position, Receipt
    from prontodb.model.settings import Settings
    from prontodb.storage.connection import Connection

T = TypeVar("T")

SIDE_LANES = 3
"""Threads for what takes long: scans, counts, address changes. Started when first needed."""
INLINE_ROWS = 64
"""A scan of at most this many entries is read on the loop's thread."""
DESCRIPTORS_EACH = 6
PLACE_POLL_S = 0.005
"""How often an opening looks whether one of the keystores that are all in use has become free."""
LOCK_POLL_S = (0.002, 0.01)
"""How often what somebody holds is tried: the lock of an address, or its file that is to be opened."""
POLL_S = (0.02, 0.25)
"""`wait` looks for other processes' commits this often: quickly at first, then less and less."""


class SqliteEngine:
    """Keystores as SQLite files, one per address. Belongs to one event loop and one process."""

    def __init__(
        self, lifecycle: Lifecycle, settings: Settings, clock: Clock, *, max_descriptors: int = 1_000_000
    ) -> None:
        self._lifecycle, self._settings, self._clock = lifecycle, settings, clock
        self._layout = lifecycle.layout
        self._max_descriptors = max_descriptors
        self._reserved = 0  # of the descriptors, those of sessions
        self._pid, self.loop = os.getpid(), running_loop()
        self.home = Home(self.loop)
        mailbox = Mailbox(self.loop)
        self._lanes = [Lane(mailbox) for _ in range(settings.lane_count)]
        self._side_lanes = [Lane(mailbox) for _ in range(SIDE_LANES)]
        self._next_lane = 0
        self._tick = 0
        self._stores: dict[Address, OpenKeystore] = {}
        self._opening: dict[Address, Future[OpenKeystore]] = {}
        self._admitted = 0  # of the pool's places, those taken by keystores that are just being opened
        self._closing: set[Future[None]] = set()
        self._open = True

    @property
    def open_keystores(self) -> int:
        """How many keystores are open now."""
        return len(self._stores)

    def check_usable(self) -> None:
        """Raise `ClosedError` after close, in a child process after a fork (D10), and on another event loop."""
        if os.getpid() != self._pid:
            raise ClosedError("this manager was opened in another process; open one here (spawn, do not fork)")
        if running_loop() is not self.loop:
            raise ClosedError("this manager was opened on another event loop; open one on this loop, in this thread")
        if not self._open:
            raise ClosedError("the manager is closed")

    # Addresses

    async def create(self, address: Address) -> bool:
        """See `Engine.create`."""
        return await self.patiently(lambda: self._lifecycle.create(address))

    async def drop(self, address: Address) -> bool:
        """See `Engine.drop`."""
        self.check_usable()
        await self.release(address)
        return await self.patiently(lambda: self._lifecycle.delete(address))

    async def addresses(self, after: Address | None, limit: int) -> list[Address]:
        """See `Engine.addresses`."""
        found = await self.beside(lambda: folders.listed(self._layout))
        return [address for address in found if after is None or after < address][:limit]

    async def keyspace(self, address: Address, wait_s: float | None = None) -> SqliteKeyspace:
        """See `Engine.keyspace`; `wait_s` is how long to try while its file is locked."""
        store = self._stores.get(address)
        if store is not None and not store.still_there:
            # Another process deleted or replaced it: what is open here serves its old handles no longer.
            await self.release(address)
        store = await self.store(address, wait_s=wait_s)
        return SqliteKeyspace(self, store)

    async def beside(
        self, work: Callable[[], T], *, brief: bool = False, on_cancel: Callable[[], None] | None = None
    ) -> T:
        """Run something long on a side thread; when cancelled, return once it has ended.

        One thread is kept for what is `brief`, so that it need not wait for a scan of minutes. `on_cancel` may tell
        `work` to make haste.
        """
        self.check_usable()
        lanes = self._side_lanes if brief else self._side_lanes[:-1]
        return await min(reversed(lanes), key=lambda lane: lane.load).run_to_end(work, on_cancel)

    async def patiently(self, work: Callable[[], T], wait_s: float | None = None) -> T:
        """Run what takes locks of addresses, again while others hold them, up to the deadline.

        Cancelled, it says by a note what became of it (`errors.was_committed`, `errors.outcome_is_unknown`).
        `work` itself must not wait for a lock: it would keep a thread from those who use other addresses.
        """
        deadline = self._clock.monotonic_s() + (self._settings.wait_s if wait_s is None else wait_s)
        tries = 0
        while True:
            tries += 1
            try:
                return await changing.told(self.beside, work)
            except BusyError:
                if tries >= TRIES and self._clock.monotonic_s() >= deadline:
                    raise
            await anyio.sleep(random.uniform(*LOCK_POLL_S))  # noqa: S311 - spreads retries, guards nothing

    async def scan_beside(self, store: OpenKeystore, work: Callable[[Connection], T]) -> T:
        """Run a long read of a store's file on a side thread, over a read-only connection of its own."""
        address = store.address

        busy_ms = round(self._settings.wait_s * 1_000)

        def read() -> T:
            try:
                return opening.read(self._layout, address, work, busy_timeout_ms=busy_ms, only=store.identity)
            except AddressNotFoundError:
                raise store.gone() from None

        return await self.beside(read)

    # The pool

    @property
    def max_open(self) -> int:
        """How many keystores may be open now: as set, and as the descriptors that sessions leave allow."""
        left = (self._max_descriptors - self._reserved) // DESCRIPTORS_EACH
        return max(1, min(self._settings.max_open_keystores, left))

    async def reserve_descriptor(self) -> None:
        """Set one descriptor aside for a session's lock, closing keystores for it where that must be."""
        self.check_usable()
        if self._max_descriptors - self._reserved <= DESCRIPTORS_EACH:
            raise UnavailableError(
                f"{self._reserved} sessions are open, all that this process's open files allow (ulimit -n); "
                "raise that limit or end sessions"
            )
        self._reserved += 1
        over = len(self._stores) + self._admitted - self.max_open
        if over > 0:
            try:
                await self._evict(over)
            except BaseException:
                self._reserved -= 1
                raise

    def free_descriptor(self) -> None:
        """Give a session's descriptor back."""
        self._reserved -= 1

    async def store(
        self, address: Address, identity: tuple[int, int] | None = None, wait_s: float | None = None
    ) -> OpenKeystore:
        """Return the open store of an address, opening it if need be; with `identity`, only that very file.

        While its file is locked, as long as somebody recovers its log, it is tried again for `wait_s`.
        """
        deadline = self._clock.monotonic_s() + (self._settings.wait_s if wait_s is None else wait_s)
        tries = 0
        while True:
            self.check_usable()
            store = self._stores.get(address)
            if store is None:
                tries += 1
                try:
                    store = await self._open_store(address)
                except BusyError as error:
                    if not isinstance(error.__cause__, sqlite.ERRORS):
                        raise  # of another kind, such as a pool that is full: it has been waited for
                    if tries >= TRIES and self._clock.monotonic_s() >= deadline:
                        raise sqlite.with_writer_named(error, self._layout.keystore_path(address)) from error
                    await anyio.sleep(random.uniform(*LOCK_POLL_S))  # noqa: S311 - spreads retries, guards nothing
                    continue
            if store.closed:
                continue
            if identity is not None and store.identity != identity:
                raise store.gone()
            self.touch(store)
            return store

    def touch(self, store: OpenKeystore) -> None:
        """Note a use, for the choice of what to close."""
        self._tick += 1
        store.used = self._tick

    async def _open_store(self, address: Address) -> OpenKeystore:
        if (under_way := self._opening.get(address)) is not None:
            return await _shielded(under_way)
        lane = self._lanes[self._next_lane % len(self._lanes)]
        self._next_lane += 1
        result: Future[OpenKeystore] = lane.loop.create_future()
        self._opening[address] = result
        # The opener may be cancelled while others wait for the same store: the work goes on without it.
        work = lane.spawn(self._open_on(lane, address, result))
        work.add_done_callback(lambda _: self._opening_ended(address, result))
        return await _shielded(result)

    async def _open_on(self, lane: Lane, address: Address, result: Future[OpenKeystore]) -> None:
        store = OpenKeystore(self._layout, address, lane, self._settings, self._clock)
        try:
            await self._make_room()
            try:
                await self._open_in_its_place(lane, store)
            finally:
                self._admitted -= 1
            self._stores[address] = store
            event("keystore.opened", address=address, open_keystores=len(self._stores))
        except BaseException as error:
            del self._opening[address]
            if type(error) is UnavailableError:
                error = UnavailableError(f"{error} ({len(self._stores)} keystores are open)")
            if isinstance(error, CancelledError):
                # The event loop ends. The lane may be at it all the same: what it opens is closed right after.
                self._closing_on(lane, store)
                error = ClosedError("the event loop ended before the keystore was open")
            if not result.done():
                result.set_exception(error)
                result.exception()  # waiters raise it; without any it is no loss to report
            if not isinstance(error, Exception):
                raise
        else:
            del self._opening[address]
            if not result.done():
                result.set_result(store)

    def _opening_ended(self, address: Address, result: Future[OpenKeystore]) -> None:
        """Answer those who wait for an opening that asyncio cancelled before its first step, when the loop ended."""
        if not result.done():
            del self._opening[address]
            result.set_exception(ClosedError("the event loop ended before the keystore was open"))
            result.exception()

    async def _open_in_its_place(self, lane: Lane, store: OpenKeystore) -> None:
        try:
            await lane.run(store.open_on_lane)
        except UnavailableError as error:
            # Out of descriptors looks like this: close what was used longest ago, once.
            if type(error) is not UnavailableError or not await self._evict(max(1, len(self._stores) // 2)):
                raise
            await lane.run(store.open_on_lane)

    async def _make_room(self) -> None:
        """Take a place in the pool, closing others for it; `BusyError` when all stay in use up to the deadline."""
        deadline = self._clock.monotonic_s() + self._settings.wait_s
        while (over := len(self._stores) + self._admitted + 1 - self.max_open) > 0:
            self.check_usable()
            if not await self._evict(over):
                if self._clock.monotonic_s() >= deadline:
                    raise BusyError(
                        f"all {self.max_open} keystores that may be open at once are in use; "
                        "raise max_open_keystores, or use fewer addresses at the same time"
                    )
                await anyio.sleep(PLACE_POLL_S)
        self._admitted += 1

    async def _evict(self, count: int) -> int:
        """Close up to `count` idle keystores, least recently used first; return how many."""
        idle = sorted((store for store in self._stores.values() if not store.busy), key=lambda store: store.used)
        for store in idle[:count]:
            await _shielded(self._close_store(store))
        return len(idle[:count])

    def _close_store(self, store: OpenKeystore) -> Future[None]:
        del self._stores[store.address]
        store.stop()
        return self._closing_on(store.lane, store)

    def _closing_on(self, lane: Lane, store: OpenKeystore) -> Future[None]:
        done = lane.run(store.close_on_lane)
        self._closing.add(done)
        done.add_done_callback(self._closing.discard)
        return done

    async def release(self, address: Address) -> None:
        """Close the keystore of an address if it is open here."""
        store = self._stores.get(address)
        if store is not None:
            await _shielded(self._close_store(store))

    async def close(self) -> None:
        """See `Engine.close`; waits for commits that have begun."""
        if not self._open or os.getpid() != self._pid:
            return
        self._open = False
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while self._opening:
                cancelled = await outlast(next(iter(self._opening.values()))) or cancelled
            for store in list(self._stores.values()):
                self._close_store(store)
            for done in list(self._closing):
                cancelled = await outlast(done) or cancelled
                if (error := done.exception()) is not None:
                    event("close.failed", error=type(error).__name__)
            for lane in (*self._lanes, *self._side_lanes):
                cancelled = await lane.close() or cancelled
        if cancelled is not None:
            raise cancelled


async def _shielded(future: Future[T]) -> T:
    """Wait for a future that others may wait for too: a cancelled waiter does not cancel it."""
    done = anyio.Event()
    future.add_done_callback(lambda _: done.set())
    await done.wait()
    return future.result()


class SqliteKeyspace:
    """One address's entries in one SQLite file; see `Keyspace`."""

    def __init__(self, engine: SqliteEngine, store: OpenKeystore) -> None:
        self._engine, self._current = engine, store
        self._address, self._identity = store.address, store.identity
        self._clock = engine._clock
        self._max_read_bytes = engine._settings.limits.max_batch_bytes

    async def _store(self) -> OpenKeystore:
        """Return the open store: the one at hand, or after it was closed for others, opened again."""
        engine, store = self._engine, self._current
        if engine.home.loop is not current_loop():
            engine.check_usable()
        if store.closed or not engine._open:
            self._current = store = await engine.store(self._address, self._identity)
        return store

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Keyspace.read`."""
        engine, store = self._engine, self._current
        if engine.home.loop is not current_loop():
            engine.check_usable()
        if store.closed or not engine._open:
            store = await self._store()
        engine._tick = store.used = engine._tick + 1
        now_ms, most = self._clock.wall_ms(), self._max_read_bytes
        if len(keys) <= INLINE_ROWS:
            try:
                if len(keys) == 1:
                    return [store.read_inline(lambda connection: transactions.read_one(connection, keys[0], now_ms))]
                return store.read_inline(lambda connection: transactions.read(connection, keys, now_ms, most))
            except BusyError:
                if store.read_only:
                    raise
            except CorruptError as error:
                self._denied("get", keys, None, error)
                raise
        try:
            return await store.read_on_lane(lambda connection: transactions.read(connection, keys, now_ms, most))
        except CorruptError as error:
            self._denied("get", keys, None, error)
            raise

    def _denied(self, operation: str, keys: Sequence[str], session: str | None, error: ProntoError) -> None:
        """Report a call that the keystore refused, or could not do for damage: the audit's log listens."""
        key = shown(keys[0]) if len(keys) == 1 else None
        event(
            "call.denied",
            root=self._engine._layout.root,
            principal=getattr(error, "principal", None),
            address=self._address,
            operation=operation,
            key=key,
            session=session,
            error=type(error).__name__,
        )

    async def apply(self, ops: Sequence[Op], fence: Fence) -> Receipt:
        """See `Keyspace.apply`."""
        engine, store = self._engine, self._current
        if engine.home.loop is not current_loop():
            engine.check_usable()
        if store.closed or not engine._open:
            store = await self._store()
        engine._tick = store.used = engine._tick + 1
        try:
            return await store.apply(ops, fence)
        except REFUSALS as error:
            self._denied("write", [op.key for op in ops], fence.session, error)
            raise
        except StorageFullError:
            if not (frees_room(ops) and await self._spend_reserve()):
                raise
        try:
            return await store.apply(ops, fence)
        finally:
            await self._keep_reserve()

    async def _spend_reserve(self) -> bool:
        return await self._engine.beside(lambda: reserve.spend(self._engine._layout))

    async def _keep_reserve(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._engine.beside(lambda: reserve.keep(self._engine._layout))

    async def scan(self, lo: str, hi: str | None, limit: int, *, reverse: bool = False) -> list[Entry]:
        """See `Keyspace.scan`."""
        now_ms = self._clock.wall_ms()

        if limit <= INLINE_ROWS and not reverse:
            found = await (await self._store()).read(lambda c: transactions.first_page(c, lo, hi, limit, now_ms))
            if found is not None:
                return found
        return await self._beside(lambda c: transactions.scan(c, lo, hi, limit, now_ms, reverse=reverse))

    async def keys(self, lo: str, hi: str | None, limit: int) -> list[str]:
        """See `Keyspace.keys`."""
        now_ms = self._clock.wall_ms()

        if limit <= INLINE_ROWS:
            found = await (await self._store()).read(lambda c: transactions.first_keys(c, lo, hi, limit, now_ms))
            if found is not None:
                return found
        return await self._beside(lambda c: transactions.keys(c, lo, hi, limit, now_ms))

    async def count(self, lo: str, hi: str | None) -> int:
        """See `Keyspace.count`."""
        now_ms = self._clock.wall_ms()
        return await self._beside(lambda connection: transactions.count(connection, lo, hi, now_ms))

    async def _beside(self, work: Callable[[Connection], T]) -> T:
        store = await self._store()
        store.pins += 1
        try:
            return await self._engine.scan_beside(store, work)
        finally:
            store.pins -= 1

    async def position(self) -> Position:
        """See `Keyspace.position`."""
        return await (await self._store()).read(transactions.position)

    async def mark(self) -> Mark:
        """Return where the history stands."""
        return (await (await self._store()).read(mark_of))[0]

    async def changes(self, since: Position, limit: int) -> Changes:
        """See `Keyspace.changes`."""
        now_ms = self._clock.wall_ms()
        store = await self._store()
        if store.read_only:
            return store.read_inline(lambda connection: transactions.changes(connection, since, limit, now_ms))
        return await store.read_on_lane(lambda connection: transactions.changes(connection, since, limit, now_ms))

    async def wait(self, since: Position, timeout_s: float) -> bool:
        """See `Keyspace.wait`: polls SQLite's data_version, and is woken at once by commits of this process."""
        deadline = self._clock.monotonic_s() + timeout_s
        store = await self._store()
        store.pins += 1
        try:
            pause_s, longest_s = POLL_S
            seen: object = None
            while True:
                self._engine.check_usable()
                if not store.still_there:
                    raise store.gone()
                version = store.version()
                if version is None or version != seen:
                    seen = version
                    if await store.read(transactions.position) != since:
                        return True
                left_s = deadline - self._clock.monotonic_s()
                if left_s <= 0:
                    return False
                if await store.local_commit(min(pause_s, left_s)):
                    seen = None
                pause_s = min(pause_s * 1.5, longest_s)
        finally:
            store.pins -= 1

    async def sweep(self, limit: int, fence: Fence, until_ms: int | None = None) -> int:
        """See `Keyspace.sweep`."""
        store = await self._store()

        def work(connection: Connection, target: Target) -> int:
            return writing.sweep(connection, target, limit, fence, self._clock.wall_ms(), until_ms)

        return await self._with_reserve(store, work)

    async def prune_journal(self, pruning: upkeep.Pruning, fence: Fence) -> int:
        """Take some old rows out of the journal; return how many changes they told of, 0 when none is left to go."""
        store = await self._store()
        return await self._with_reserve(
            store,
            lambda connection, target: pruning.step(connection, target, fence, self._clock.wall_ms()),
        )

    async def give_back(self) -> int:
        """Give some free pages back to the disk; return how many bytes, 0 when none are left."""
        return await (await self._store()).on_writer(lambda connection, _: upkeep.give_back(connection))

    async def cut_log(self) -> bool:
        """Cut the log to nothing; False when a reader or writer is in the way."""
        return await (await self._store()).on_writer(lambda connection, _: upkeep.cut_log(connection))

    async def _with_reserve(self, store: OpenKeystore, work: Callable[[Connection, Target], T]) -> T:
        """Run a small write that must go through on a full disk, too: in the room of the reserve."""
        try:
            return await store.change(work)
        except StorageFullError:
            if not await self._spend_reserve():
                raise
        try:
            return await store.change(work)
        finally:
            await self._keep_reserve()

    async def lifetimes(self) -> Mapping[str, int]:
        """See `Keyspace.lifetimes`."""
        return await (await self._store()).read(transactions.lifetimes)

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the keystore's file."""
        return self._identity

    @property
    def still_there(self) -> bool:
        """False when the address's path leads elsewhere."""
        return self._current.still_there

    async def take_over(self, lock: tuple[int, int], check: Callable[[], None]) -> int:
        """Raise the epoch and return it: whoever held the address before writes no more. See `fencing.take_over`."""
        store = await self._store()

        def work(connection: Connection, target: Target) -> int:
            return fencing.take_over(connection, target, lock, self._clock.wall_ms(), check)

        return await self._with_reserve(store, work)

    async def check_lock(self, lock: tuple[int, int], check: Callable[[], None]) -> int:
        """Raise the epoch if the lock file is another one than the last exclusive holder's; return it."""
        store = await self._store()
        # Nearly always there is nothing to do, and reading waits for nobody.
        noted, epoch = await store.read(fencing.noted)
        if noted in (None, lock):
            check()
            return epoch
        return await store.change(
            lambda connection, target: fencing.check_lock(connection, target, lock, self._clock.wall_ms(), check)
        )

    async def withdraw(self, fence: Fence) -> None:
        """Fail what waits to be written under a fence, and return once nothing of it is under way."""
        if not self._current.closed:
            await self._current.withdraw(fence)

    async def set_lifetime(self, namespace: str, ttl_ms: int | None, fence: Fence) -> None:
        """See `Keyspace.set_lifetime`."""
        store = await self._store()
        await store.change(
            lambda connection, target: writing.set_lifetime(
                connection, target, namespace, ttl_ms, fence, self._clock.wall_ms()
            )
        )

"""The engine without an event loop: the same transactions, run where they are called, for one-shot commands.

Its methods are coroutines that never suspend, so `run` can drive a `Keystore` over it to the end in one step.
"""

from __future__ import annotations

import time

from prontodb.engine.sqlite import opening, transactions
from prontodb.errors import AddressNotFoundError, BusyError, ProntoError, StorageFullError
from prontodb.storage import connection as sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.entry import Entry
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.operation import Changes, Fence, Op, Position, Receipt
    from prontodb.storage.connection import Connection

BUSY_TIMEOUT_MS = 50
"""How long SQLite itself waits for a lock before we look at our own deadline again."""


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive a coroutine that never suspends to its end and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a direct keyspace never suspends")


class DirectKeyspace:
    """The keyspace of one address for the length of one command.

    Reads take no lock and make nothing: at an address that does not exist they find nothing. A write takes the lock of
    the address, makes the address when `create` says so, and holds the lock for the one operation. `attached`: it takes
    no lock, since a session holds it for us, and its fence decides.
    """

    def __init__(
        self,
        layout: Layout,
        address: Address,
        limits: Limits,
        clock: Clock,
        *,
        lifecycle: Callable[[], Lifecycle],
        durability: str = "full",
        create: bool = True,
        attached: bool = False,
    ) -> None:
        self._attached = attached
        self._layout, self._address, self._limits, self._clock = layout, address, limits, clock
        self._lifecycle, self._durability, self._create = lifecycle, durability, create
        self._reader: Connection | None = None

    def close(self) -> None:
        """Close what is open."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def exists(self) -> bool:
        """True when the address has a keystore."""
        found: bool = self._read(lambda _: True, False)
        return found

    def _read(self, work: Callable[[Connection], Any], nothing: Any) -> Any:
        """Run a reading transaction; return `nothing` at an address that does not exist."""
        if self._reader is None:
            busy_ms = round(self._limits.wait_s * 1_000)
            try:
                self._reader, _ = opening.open_reader(self._layout, self._address, busy_timeout_ms=busy_ms)
            except AddressNotFoundError:
                return nothing
            except StorageFullError:
                return opening.read_as_it_is(self._layout, self._address, work)
        try:
            return work(self._reader)
        except sqlite.ERRORS as error:
            raise sqlite.translated(error, self._layout.keystore_path(self._address)) from error

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """See `Keyspace.read`."""
        now_ms = self._clock.wall_ms()
        most = self._limits.max_batch_bytes
        found: list[Entry | None] = self._read(lambda c: transactions.read(c, keys, now_ms, most), [None] * len(keys))
        return found

    async def scan(self, lo: str, hi: str | None, limit: int, *, reverse: bool = False) -> list[Entry]:
        """See `Keyspace.scan`."""
        now_ms = self._clock.wall_ms()
        found: list[Entry] = self._read(lambda c: transactions.scan(c, lo, hi, limit, now_ms, reverse=reverse), [])
        return found

    async def keys(self, lo: str, hi: str | None, limit: int) -> list[str]:
        """See `Keyspace.keys`."""
        now_ms = self._clock.wall_ms()
        found: list[str] = self._read(lambda c: transactions.keys(c, lo, hi, limit, now_ms), [])
        return found

    async def count(self, lo: str, hi: str | None) -> int:
        """See `Keyspace.count`."""
        now_ms = self._clock.wall_ms()
        found: int = self._read(lambda c: transactions.count(c, lo, hi, now_ms), 0)
        return found

    async def lifetimes(self) -> Mapping[str, int]:
        """See `Keyspace.lifetimes`."""
        found: Mapping[str, int] = self._read(transactions.lifetimes, {})
        return found

    async def position(self) -> Position:
        """See `Keyspace.position`."""
        found: Position | None = self._read(transactions.position, None)
        if found is None:
            raise AddressNotFoundError(self._address)
        return found

    async def changes(self, since: Position, limit: int) -> Changes:
        """See `Keyspace.changes`."""
        now_ms = self._clock.wall_ms()
        found: Changes | None = self._read(lambda c: transactions.changes(c, since, limit, now_ms), None)
        if found is None:
            raise AddressNotFoundError(self._address)
        return found

    async def wait(self, since: Position, timeout_s: float) -> bool:
        """Waiting needs the async engine."""
        raise ProntoError("a one-shot keyspace does not wait; open a manager")

    async def apply(self, ops: Sequence[Op], fence: Fence) -> Receipt:
        """See `Keyspace.apply`."""
        from prontodb.engine.sqlite import writing
        from prontodb.model.operation import frees_room
        from prontodb.storage import reserve

        batch = writing.Batch(ops, fence)

        def write() -> None:
            self._write("write", lambda c, target, now_ms: writing.apply(c, target, (batch,), now_ms))

        if frees_room(ops):
            reserve.in_its_room(self._layout, write)
        else:
            write()
        if batch.error is not None:
            raise batch.error
        assert batch.receipt is not None
        return batch.receipt

    async def sweep(self, limit: int, fence: Fence, until_ms: int | None = None) -> int:
        """See `Keyspace.sweep`."""
        from prontodb.engine.sqlite import writing
        from prontodb.storage import reserve

        def sweep() -> int:
            found: int = self._write("sweep", lambda c, t, now_ms: writing.sweep(c, t, limit, fence, now_ms, until_ms))
            return found

        return reserve.in_its_room(self._layout, sweep)

    async def set_lifetime(self, namespace: str, ttl_ms: int | None, fence: Fence) -> None:
        """See `Keyspace.set_lifetime`."""
        from prontodb.engine.sqlite import writing

        self._write("write", lambda c, t, now_ms: writing.set_lifetime(c, t, namespace, ttl_ms, fence, now_ms))

    def _write(self, purpose: str, work: Callable[[Connection, Target, int], Any]) -> Any:
        from prontodb.engine.sqlite import folders

        # The reader goes first: the last connection to close must be the one that can tidy up.
        self.close()
        lifecycle = self._lifecycle()
        lifecycle.prepare_root()
        if self._attached:
            return self._write_held(work, None)
        with lifecycle.hold(self._address, purpose) as held:
            folders.remove_plain_remains(self._layout, self._address)
            try:
                return self._write_held(work, held.identity)
            except AddressNotFoundError:
                if not self._create:
                    raise
            lifecycle.create_held(self._address)
            return self._write_held(work, held.identity)

    def _write_held(self, work: Callable[[Connection, Target, int], Any], lock: tuple[int, int] | None) -> Any:
        deadline = self._clock.monotonic_s() + self._limits.wait_s
        connection, target = opening.insist(
            lambda: opening.open_writer(
                self._layout,
                self._address,
                self._limits,
                durability=self._durability,
                busy_timeout_ms=BUSY_TIMEOUT_MS,
            ),
            self._layout.keystore_path(self._address),
            self._clock,
            deadline,
        )
        target.lock = lock
        try:
            while True:
                try:
                    return work(connection, target, self._clock.wall_ms())
                except BusyError as error:
                    # Sessions of other processes write without the address lock; SQLite orders us among them.
                    if self._clock.monotonic_s() >= deadline:
                        raise sqlite.with_writer_named(error, target.path) from error
                    time.sleep(0.001)
        finally:
            connection.close()

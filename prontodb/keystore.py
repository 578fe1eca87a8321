"""The handle that users hold: everything a keystore can do, written once above the seam.

Imports nothing that waits: over a keyspace that never suspends, the same methods run without an event loop, which is
how one-shot commands use them (`direct.py`).
"""

from __future__ import annotations

from prontodb.errors import (
    BusyError,
    ClosedError,
    FencedError,
    InvalidInputError,
    LimitError,
    NotANumberError,
    ReadOnlyError,
    RevisionConflictError,
    outcome_is_unknown,
    shown,
)
from prontodb.model.key import after, check_key, check_prefix, check_value, namespace_of, prefix_end, project_of
from prontodb.model.limits import PAGE_BYTES
from prontodb.model.operation import ABSENT, FOREVER, INHERIT, READ, WRITE, Op
from prontodb.model.ttl import lifetime_ms, ttl_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from typing import Protocol

    from prontodb.access import Gate
    from prontodb.cache import Cache, CacheReport
    from prontodb.engine.protocol import Keyspace
    from prontodb.errors import ProntoError
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.entry import Entry
    from prontodb.model.limits import Limits
    from prontodb.model.operation import Fence, Receipt
    from prontodb.transaction import Transaction
    from prontodb.turns import Turns
    from prontodb.watching import Watch

    class Cancellable(Protocol):
        """What we use of anyio's cancel scope."""

        def cancel(self) -> None: ...


FIRST_PAGE = 64
"""Entries in the first page of a scan, small enough to be read at once; later pages grow to the limit."""

_MAX_DIGITS = 19  # of 64 bits
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_LONGEST_WAIT_S = 10**10  # three hundred years; beyond them a wait is one without end

Ttl = float | str | None
"""A lifetime: seconds, text like '15m', 'never', or None for the default of the key's namespace."""


class Keystore:
    """One address's keystore, for one session.

    Every method is one step: it has all of its effect or none. Cancelling one that only reads has no effect. Cancelling
    a write either withdraws it, or waits for the commit that already holds it and says so in a note on the
    cancellation; no transaction is ever left open. All methods raise `ClosedError` once the session has ended.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        address: Address,
        fence: Fence,
        limits: Limits,
        clock: Clock,
        turns: Turns | None = None,
        *,
        guard: Callable[[], None] | None = None,
        cache: Cache | None = None,
        writes: bool = True,
        gate: Gate | None = None,
    ) -> None:
        self._keyspace, self._address, self._fence = keyspace, address, fence
        self._limits, self._clock, self._turns = limits, clock, turns
        self._guard, self._cache, self._writes, self._gate = guard, cache, writes, gate
        self._cached: CacheReport | None = None
        self._ended: ProntoError | None = None
        self._waits: set[Cancellable] = set()

    @property
    def address(self) -> Address:
        """The address this handle belongs to."""
        return self._address

    @property
    def session_id(self) -> str:
        """The name with which this handle's changes begin in the journal."""
        return self._fence.session

    @property
    def epoch(self) -> int | None:
        """The epoch against which the store checks each write of this session; None when it only reads."""
        return self._fence.epoch

    @property
    def cache(self) -> CacheReport | None:
        """What the cache of an exclusive session did so far; None for sessions that have none."""
        return self._cached if self._cache is None else self._cache.report()

    @property
    def closed(self) -> bool:
        """True once the session has ended, by leaving its block or because somebody else ended it."""
        return self._ended is not None

    def __repr__(self) -> str:
        return f"<Keystore {self._address}{' (closed)' if self.closed else ''}>"

    def close(self, reason: ProntoError | None = None) -> None:
        """End the handle's use, and what waits for changes; its session does this. A second call does nothing.

        `reason` is what every later call raises; by default `ClosedError`.
        """
        if self._ended is None:
            self._ended = reason or ClosedError(
                f"the session at {self._address} has ended; open another with manager.session(...)"
            )
        if self._cache is not None:
            self._cached = self._cache.report()
            self._cache.stop()
            self._cache = None
        for wait in list(self._waits):
            wait.cancel()

    def _guarded_by(self, gate: Gate | None) -> None:
        """Put the handle behind another gate, or behind none; what waits for changes asks it before it goes on."""
        self._gate = gate
        for wait in list(self._waits):
            wait.cancel()

    # Reading

    async def get(self, key: str) -> str | None:
        """Return the value of `key`, or None when it is absent or expired."""
        cache = self._cache
        if cache is not None and type(key) is str:
            if self._gate is not None:
                self._gate.check(READ, key)
            entry = cache.find(key)
            if entry is not None:
                return entry.value
        entry = await self._read(key)
        return None if entry is None else entry.value

    async def entry(self, key: str) -> Entry | None:
        """Return the entry of `key`: value, revision and moments; None when absent or expired."""
        return await self._read(key)

    async def exists(self, key: str) -> bool:
        """Return whether `key` has a live entry."""
        return await self._read(key) is not None

    async def get_many(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Return the values of up to 1,000 keys from one snapshot; None for those absent or expired.

        Raises `LimitError` when the values together pass `max_batch_bytes`.
        """
        wanted = [self._key(key) for key in _listed(keys, "keys")]
        if self._gate is not None:
            self._gate.check_keys((READ,), wanted)
        self._check_batch(len(wanted))
        if not wanted:
            return {}
        found = await self._keyspace.read(wanted)
        return {key: None if entry is None else entry.value for key, entry in zip(wanted, found, strict=True)}

    async def scan(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield the live entries whose keys begin with `prefix`, in byte order.

        Read page by page, each page one snapshot: an entry that is there all along is seen exactly once, one that comes
        or goes meanwhile may be seen or not, and nothing is held open between pages. One that expires before it is its
        turn is left out.
        """
        async for page in self._pages(prefix):
            for entry in page:
                # The page is as old as its reader is slow.
                if entry.expires_at_ms is None or entry.is_live(self._clock.wall_ms()):
                    yield entry

    async def _pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        self._check_open()
        lo, hi = check_prefix(prefix), prefix_end(prefix)
        limit = min(FIRST_PAGE, self._limits.max_page)
        self._allow(READ, prefix)
        while page := await self._keyspace.scan(lo, hi, limit):
            yield page
            # Shorter than asked for, and not for its size: there was no more.
            if len(page) < limit and sum(len(entry.value) for entry in page) <= PAGE_BYTES:
                return
            self._check_open()
            self._allow(READ, prefix)
            lo, limit = after(page[-1].key), min(limit * 4, self._limits.max_page)

    async def list_keys(self, prefix: str = "") -> list[str]:
        """Return the live keys that begin with `prefix`, in byte order, read page by page."""
        found: list[str] = []
        async for page in self._key_pages(prefix):
            found += page
        return found

    async def _key_pages(self, prefix: str, right: str = READ) -> AsyncIterator[list[str]]:
        self._check_open()
        lo, hi = check_prefix(prefix), prefix_end(prefix)
        limit = min(FIRST_PAGE, self._limits.max_page)
        self._allow(right, prefix)
        while page := await self._keyspace.keys(lo, hi, limit):
            yield page
            if len(page) < limit:
                return
            self._allow(right, prefix)
            lo, limit = after(page[-1]), self._limits.max_page

    async def count(self, prefix: str = "") -> int:
        """Return how many live entries have keys that begin with `prefix`, from one snapshot."""
        self._check_open()
        self._allow(READ, check_prefix(prefix))
        return await self._keyspace.count(prefix, prefix_end(prefix))

    async def ttl(self, key: str) -> float | None:
        """Return the seconds `key` has left to live: infinity when it does not expire, None when it is absent."""
        entry = await self.entry(key)
        if entry is None:
            return None
        if entry.expires_at_ms is None:
            return float("inf")
        return max(0, entry.expires_at_ms - self._clock.wall_ms()) / 1_000

    async def namespaces(self, project: str | None = None) -> list[str]:
        """Return the namespaces that hold live keys, in order; only those of `project` when it is given.

        A key's namespace is all before its last dot; the empty string is that of keys without a dot.
        """
        prefix = "" if project is None else check_key(project) + "."
        found: set[str] = set()
        async for page in self._key_pages(prefix):
            found.update(namespace_of(key) for key in page)
        return sorted(found if project is None else (name for name in found if "." in name))

    async def projects(self) -> list[str]:
        """Return the first parts of live keys that have at least three, in order."""
        found: set[str] = set()
        async for page in self._key_pages(""):
            found.update(project_of(key) for key in page)
        return sorted(found - {""})

    async def namespace_ttls(self) -> dict[str, float]:
        """Return the default lifetime, in seconds, of each namespace that has one."""
        self._check_open()
        self._allow(READ, "")
        return {name: ms / 1_000 for name, ms in (await self._keyspace.lifetimes()).items()}

    # Writing

    async def set(self, key: str, value: str, *, ttl: Ttl = None, expect: int | None = None) -> int:
        """Set `key` to `value` and return the entry's new revision.

        `ttl`: seconds, text like '15m', 'never', or None for the namespace's default lifetime (none if it has none).
        `expect`: raise `RevisionConflictError` unless the entry is at this revision (0: absent).
        """
        # None is what most sets are given, and each call into Python counts here.
        lifetime = INHERIT if ttl is None else lifetime_ms(ttl)
        wanted = None if expect is None else _revision(expect)
        op = Op(self._key(key), check_value(value, self._limits.max_value_bytes), lifetime, wanted)
        return (await self._write((op,))).revision

    async def set_many(self, values: Mapping[str, str], *, ttl: Ttl = None) -> int:
        """Set up to 1,000 keys, all or none, and return the keystore's revision after it."""
        if not hasattr(values, "items"):
            raise InvalidInputError(f"set_many takes a mapping of keys to values, not {type(values).__name__}")
        lifetime, most = lifetime_ms(ttl), self._limits.max_value_bytes
        ops = [Op(self._key(key), check_value(value, most), lifetime) for key, value in values.items()]
        return (await self._apply(ops)).revision

    async def delete(self, key: str) -> bool:
        """Delete `key`; return whether it was there."""
        return (await self._write((Op(self._key(key), None),))).changed > 0

    async def delete_many(self, keys: Iterable[str]) -> int:
        """Delete up to 1,000 keys, all or none; return how many were there."""
        return (await self._apply([Op(self._key(key), None) for key in _listed(keys, "keys")])).changed

    async def clear(self, prefix: str = "") -> int:
        """Delete every live key that begins with `prefix`, in steps of at most 1,000; return how many.

        Each step is all or none; cancelling between steps keeps what is done. Deleting everything takes `prefix` "".
        """
        gone = 0
        async for page in self._key_pages(prefix, WRITE):
            for begin in range(0, len(page), self._limits.max_batch_ops):
                ops = [Op(key, None) for key in page[begin : begin + self._limits.max_batch_ops]]
                gone += (await self._apply(ops)).changed
        return gone

    async def compare_and_set(self, key: str, expected: str | None, value: str, *, ttl: Ttl = None) -> bool:
        """Set `key` to `value` if it holds `expected` (None: if it is absent); return whether it did."""
        check_value(value, self._limits.max_value_bytes)
        if expected is not None:
            check_value(expected, self._limits.max_value_bytes)
        lifetime = lifetime_ms(ttl)

        def decide(entry: Entry | None) -> Op | None:
            if (None if entry is None else entry.value) != expected:
                return None
            return Op(key, value, lifetime, ABSENT if entry is None else entry.revision)

        return await self._update(key, decide) is not None

    async def increment(self, key: str, by: int = 1) -> int:
        """Add `by` to the whole number stored at `key` (absent counts as 0) and return the sum.

        Exact between tasks and processes; an entry that exists keeps its expiry. Raises `NotANumberError` when the
        value is not a whole number of 64 bits, or would no longer be one.
        """
        if not isinstance(by, int) or isinstance(by, bool):
            raise InvalidInputError(f"increment takes a whole number, not {type(by).__name__}")
        total = 0

        def decide(entry: Entry | None) -> Op:
            nonlocal total
            total = by + (0 if entry is None else _whole_number(entry))
            if not _LOWEST <= total <= _HIGHEST:
                raise NotANumberError(f"the sum at key {shown(key)} would pass 64 bits; nothing was written")
            if entry is None:
                return Op(key, str(total), INHERIT, ABSENT)
            return Op(key, str(total), FOREVER, entry.revision, entry.expires_at_ms)

        await self._update(key, decide)
        return total

    async def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Begin the lifetime of `key` anew; return False when it is absent.

        `ttl` is the new lifetime; with None it is the namespace's default, else as long as the entry had when it was
        last written: what it was given, or what was left at an increment, which keeps the expiry.
        """
        lifetime = lifetime_ms(ttl)
        if self._gate is not None:
            self._gate.check_keys((READ, WRITE), (self._key(key),))
        inherits = lifetime == INHERIT and namespace_of(self._key(key)) in await self._keyspace.lifetimes()

        def decide(entry: Entry | None) -> Op | None:
            if entry is None:
                return None
            again = lifetime
            if lifetime == INHERIT and not inherits:
                ends_ms = entry.expires_at_ms
                again = FOREVER if ends_ms is None else max(1, ends_ms - entry.updated_at_ms)
            return Op(key, entry.value, again, entry.revision)

        return await self._update(key, decide) is not None

    async def persist(self, key: str) -> bool:
        """Let `key` live for ever; return False when it is absent."""

        def decide(entry: Entry | None) -> Op | None:
            return None if entry is None else Op(key, entry.value, FOREVER, entry.revision)

        return await self._update(key, decide) is not None

    async def set_namespace_ttl(self, namespace: str, ttl: float | str | None) -> None:
        """Give a namespace a default lifetime for entries set without one; None drops it. Existing entries stay."""
        self._check_open()
        self._allow(WRITE, check_prefix(namespace) and namespace + ".")
        self._check_writes()
        await self._keyspace.set_lifetime(namespace, None if ttl is None else ttl_ms(ttl), self._fence)

    # Following

    def transaction(self) -> Transaction:
        """Return a transaction: `async with ks.transaction() as tx` collects, then applies all or nothing.

        At the end of the block raises `RevisionConflictError` when anything it read has changed since.
        """
        from prontodb.transaction import Transaction

        self._check_open()
        return Transaction(self)

    def watch(self, prefix: str = "", since: str | None = None) -> Watch:
        """Return an async iterator over changes of keys that begin with `prefix`, other processes' included.

        It yields the latest state of a key that changed, so fast changes of one key may come as one. `since`: a
        position as text (see `Watch.position`); None begins now. Raises `CompactedError` when what followed `since` is
        no longer kept.
        """
        from prontodb.watching import Watch

        self._check_open()
        self._allow(READ, check_prefix(prefix))
        return Watch(self, prefix, since)

    async def wait_for(
        self, key: str, predicate: Callable[[str | None], bool] | None = None, timeout: float | None = None
    ) -> str | None:
        """Return the value of `key` as soon as `predicate(value)` holds; by default, as soon as it exists.

        `timeout` in seconds: 0 or less looks once, infinity has no end, None takes the `wait_s` setting. Raises
        `WaitTimeoutError`.
        """
        from prontodb.watching import wait_for

        if predicate is not None and not callable(predicate):
            raise InvalidInputError(f"predicate must be a function of the value, not {type(predicate).__name__}")
        timeout_s = self._limits.wait_s if timeout is None else _seconds(timeout)
        if self._gate is not None:
            self._gate.check(READ, self._key(key))
        return await wait_for(self, self._key(key), predicate, timeout_s)

    # Inside

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended.copy()
        if self._guard is not None:
            self._guard()

    def _check_writes(self) -> None:
        if not self._writes:
            raise ReadOnlyError(
                f"this session at {self._address} only reads; open one with mode='exclusive' or 'shared'"
            )

    def _allow(self, right: str, prefix: str) -> None:
        """Raise `DeniedError` unless all keys that begin with `prefix` may be read or written."""
        if self._gate is not None:
            self._gate.check(right, prefix, is_prefix=True)

    def _key(self, key: object) -> str:
        if self._ended is not None:
            self._check_open()
        if self._guard is not None:
            self._guard()
        return check_key(key, self._limits.max_key_bytes)

    def _check_batch(self, count: int) -> None:
        if count > self._limits.max_batch_ops:
            raise LimitError("max_batch_ops", self._limits.max_batch_ops, count)

    async def _apply(self, ops: list[Op]) -> Receipt:
        self._check_open()
        self._check_batch(len(ops))
        # UTF-8 takes at most four bytes a character: only what comes near the limit needs to be measured.
        if 4 * sum(len(op.key) + len(op.value or "") for op in ops) > self._limits.max_batch_bytes:
            size = sum(len(op.key.encode()) + len((op.value or "").encode()) for op in ops)
            if size > self._limits.max_batch_bytes:
                raise LimitError("max_batch_bytes", self._limits.max_batch_bytes, size)
        return await self._write(ops)

    async def _read(self, key: str) -> Entry | None:
        """Return the live entry of a key from the store, and remember it in the cache."""
        wanted, cache = (self._key(key),), self._cache
        if self._gate is not None:
            self._gate.check(READ, key)
        if cache is None:
            return (await self._keyspace.read(wanted))[0]
        moment = cache.moment
        entry = (await self._keyspace.read(wanted))[0]
        if entry is not None:
            cache.keep(entry, moment)
        return entry

    async def _write(self, ops: Sequence[Op]) -> Receipt:
        """Have `ops` applied; the cache forgets their keys before, and for good when the outcome is unknown."""
        if self._gate is not None:
            self._gate.check_ops(ops)
        if not self._writes:
            self._check_writes()
        cache = self._cache
        keys = () if cache is None else [op.key for op in ops]
        if cache is not None:
            cache.begin(keys)
        try:
            receipt = await self._keyspace.apply(ops, self._fence)
        except BaseException as error:
            if cache is not None:
                if outcome_is_unknown(error):
                    cache.lose()
                else:
                    cache.end(keys)
            if isinstance(error, FencedError):
                self.close(error)  # once out, always out
            if isinstance(error, ClosedError) and self._ended is not None:
                # Withdrawn when the session ended under it: what ended the session is what its caller has to know.
                raise self._ended.copy() from None
            raise
        if cache is not None:
            cache.end(keys)
        return receipt

    async def _update(self, key: str, decide: Callable[[Entry | None], Op | None]) -> Receipt | None:
        """Read, decide, write on condition that nothing changed; again when something did, up to the deadline."""
        self._key(key)
        if self._gate is not None:
            self._gate.check_keys((READ, WRITE), (key,))
        deadline = self._clock.monotonic_s() + self._limits.wait_s
        if self._turns is None:
            return await self._insist(key, decide, deadline)
        try:
            return await self._try(key, decide)
        except RevisionConflictError:
            async with self._turns.of((self._address, key), self._limits.wait_s) as ours:
                if not ours:
                    raise self._kept_changing(key) from None
                return await self._insist(key, decide, deadline)

    async def _insist(self, key: str, decide: Callable[[Entry | None], Op | None], deadline: float) -> Receipt | None:
        while True:
            try:
                return await self._try(key, decide)
            except RevisionConflictError:
                if self._clock.monotonic_s() >= deadline:
                    raise self._kept_changing(key) from None

    def _kept_changing(self, key: str) -> BusyError:
        return BusyError(
            f"key {shown(key)} kept changing for {self._limits.wait_s:g} s; nothing was written, try again"
        )

    async def _try(self, key: str, decide: Callable[[Entry | None], Op | None]) -> Receipt | None:
        self._check_open()
        op = decide((await self._keyspace.read((key,)))[0])
        return None if op is None else await self._write((op,))


def _listed(keys: object, what: str) -> Iterable[str]:
    # A string is an iterable of strings; taking it as one would read or delete its letters.
    if isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__"):
        raise InvalidInputError(f"{what} must be several keys, such as a list, not {type(keys).__name__}")
    return keys


def _revision(expect: object) -> int | None:
    if expect is not None and (not isinstance(expect, int) or isinstance(expect, bool) or not 0 <= expect <= _HIGHEST):
        raise InvalidInputError("expect must be a revision: a whole number, 0 for absent")
    return expect


def _seconds(timeout: object) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or timeout != timeout:
        raise InvalidInputError("timeout must be a number of seconds, or None for the wait_s setting")
    # Whole numbers of any length go in, and no clock can add them.
    return max(timeout, 0) if timeout < _LONGEST_WAIT_S else float("inf")


def _whole_number(entry: Entry) -> int:
    digits = entry.value[1:] if entry.value[:1] in ("+", "-") else entry.value
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
        raise NotANumberError(f"the value at key {shown(entry.key)} is not a whole number; nothing was written")
    return int(entry.value)

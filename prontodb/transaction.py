"""A transaction: reads remember what they saw, writes are collected, the end applies all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.errors import ClosedError, LimitError, RevisionConflictError
from prontodb.model.access import READ, WRITE
from prontodb.model.key import check_key, check_value
from prontodb.model.operation import ABSENT, CHECK, Op
from prontodb.model.ttl import lifetime_ms

if TYPE_CHECKING:
    from types import TracebackType

    from prontodb.keystore import Keystore, Ttl


class Transaction:
    """What happens between `async with ks.transaction() as tx` and the end of its block.

    Its reads see its own writes. Leaving the block applies everything in one step; leaving it by an exception or a
    cancellation applies nothing. The end raises `RevisionConflictError` when a key that was read has changed since,
    also when nothing is written: what was read was true at one instant. One transaction serves one block.
    """

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore
        self._limits = keystore._limits
        self._seen: dict[str, int] = {}  # the revision of each key read; 0 absent
        self._written: dict[str, Op] = {}
        self._keys: set[str] = set()  # all of these: each is an operation of the batch
        self._open = self._begun = False

    async def __aenter__(self) -> Transaction:
        if self._begun:
            raise ClosedError("a transaction serves one 'async with' block; begin another with keystore.transaction()")
        self._open = self._begun = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            return
        if self._written:
            await self._keystore._apply(self._ops())
        elif self._seen:
            await self._check_unchanged()

    async def _check_unchanged(self) -> None:
        self._keystore._check_open()
        if self._keystore._gate is not None:
            self._keystore._gate.check_keys((READ,), list(self._seen))
        found = await self._keystore._keyspace.read(list(self._seen))
        for (key, seen), entry in zip(self._seen.items(), found, strict=True):
            now = ABSENT if entry is None else entry.revision
            if now != seen:
                raise RevisionConflictError(key, seen, now)

    def _ops(self) -> list[Op]:
        only_read = [Op(key, None, CHECK, seen) for key, seen in self._seen.items() if key not in self._written]
        return only_read + [Op(op.key, op.value, op.ttl_ms, self._seen.get(op.key)) for op in self._written.values()]

    async def get(self, key: str) -> str | None:
        """Return the value of `key` as this transaction sees it, or None."""
        self._check(key, READ)
        if key in self._written:
            return self._written[key].value
        self._count(key)
        entry = await self._keystore.entry(key)
        # The first reading counts: a later one that differs must make the end fail.
        self._seen.setdefault(key, ABSENT if entry is None else entry.revision)
        return None if entry is None else entry.value

    async def exists(self, key: str) -> bool:
        """Return whether `key` has a live entry as this transaction sees it."""
        return await self.get(key) is not None

    def set(self, key: str, value: str, *, ttl: Ttl = None) -> None:
        """Collect a write; it is applied at the end of the block."""
        self._check(key, WRITE)
        self._put(Op(key, check_value(value, self._limits.max_value_bytes), lifetime_ms(ttl)))

    def delete(self, key: str) -> None:
        """Collect a deletion; it is applied at the end of the block."""
        self._check(key, WRITE)
        self._put(Op(key, None))

    def _put(self, op: Op) -> None:
        self._count(op.key)
        self._written[op.key] = op

    def _count(self, key: str) -> None:
        # Said here, where the offending call stands, and not at the end of the block.
        if key not in self._keys and len(self._keys) >= self._limits.max_batch_ops:
            raise LimitError("max_batch_ops", self._limits.max_batch_ops, len(self._keys) + 1)
        self._keys.add(key)

    def _check(self, key: str, right: str) -> None:
        if not self._open:
            raise ClosedError("a transaction is used inside its 'async with' block")
        check_key(key, self._limits.max_key_bytes)
        if self._keystore._gate is not None:
            self._keystore._gate.check(right, key)

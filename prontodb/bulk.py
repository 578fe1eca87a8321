"""Writing many entries into one keystore: batch by batch, under one rule for keys that it has already.

What copies and imports share. Nothing here suspends when the keyspace does not.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import aclosing
from typing import TYPE_CHECKING

from prontodb.errors import BusyError, ConflictError, InvalidInputError, RevisionConflictError, shown
from prontodb.model.access import READ, WRITE
from prontodb.model.key import after
from prontodb.model.operation import ABSENT, Op

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from prontodb.keystore import Keystore

    Progress = Callable[[int], None]
    KeyPages = Callable[[], AsyncGenerator[Sequence[str], None]]

FAIL, KEEP, REPLACE = "fail", "keep", "replace"
ON_CONFLICT = (FAIL, KEEP, REPLACE)
"""What to do about keys that the keystore has: write nothing, leave its entries, or write over them."""


def check_on_conflict(on_conflict: object) -> str:
    """Return `on_conflict` when it is one of 'fail', 'keep' and 'replace'."""
    if not isinstance(on_conflict, str) or on_conflict not in ON_CONFLICT:
        raise InvalidInputError(f"on_conflict must be 'fail', 'keep' or 'replace', not {shown(on_conflict)}")
    return on_conflict


def needs(on_conflict: str) -> tuple[str, ...]:
    """Return the rights that writing many entries takes: all but 'replace' tell which keys are there already."""
    return (WRITE,) if on_conflict == REPLACE else (READ, WRITE)


class BulkWriter:
    """Writes operations that set keys, in batches as large as allowed, and counts what became of them."""

    def __init__(self, keystore: Keystore, on_conflict: str, progress: Progress | None = None) -> None:
        self._keystore, self._limits, self._clock = keystore, keystore._limits, keystore._clock
        self._on_conflict, self._progress = check_on_conflict(on_conflict), progress
        self.written = self.kept = self.expired = self.batches = 0

    async def write(self, ops: AsyncGenerator[Op, None], keys: KeyPages) -> None:
        """Write all of `ops`: in one step if one batch holds them, else batch by batch.

        With 'fail' a key that the keystore has raises `RevisionConflictError` before anything is written; for
        that, `keys()` returns all keys, page by page, in byte order. One that comes up later, while batches
        are written, is not written over either: its batch raises `ConflictError` and those before it stay.
        """
        try:
            async with aclosing(ops):
                await self._write_all(ops, keys)
        except BaseException as error:
            if self.written and self._done() not in str(error):
                error.add_note(self._done())
            raise

    async def _write_all(self, ops: AsyncGenerator[Op, None], keys: KeyPages) -> None:
        batch: list[Op] = []
        size, checked = 0, self._on_conflict != FAIL
        async for op in ops:
            op_size = _bytes_in(op.key) + _bytes_in(op.value or "")
            full = len(batch) >= self._limits.max_batch_ops or size + op_size > self._limits.max_batch_bytes
            if batch and full:
                if not checked:
                    await self._refuse_conflicts(keys)
                    checked = True
                await self._write(batch)
                batch, size = [], 0
            batch.append(self._guarded(op))
            size += op_size
        await self._write(batch)

    def _guarded(self, op: Op) -> Op:
        # Whatever was looked up before: only the commit itself knows that a key is absent.
        expect = None if self._on_conflict == REPLACE else ABSENT
        return Op(op.key, op.value, op.ttl_ms, expect, op.expires_at_ms)

    async def _refuse_conflicts(self, keys: KeyPages) -> None:
        async with aclosing(keys()) as pages:
            async for page in pages:
                for key in await live_among(self._keystore, page):
                    entry = await self._keystore.entry(key)
                    if entry is not None:
                        raise RevisionConflictError(key, ABSENT, entry.revision)

    async def _write(self, batch: list[Op]) -> None:
        now_ms = self._clock.wall_ms()
        live = [op for op in batch if op.expires_at_ms is None or op.expires_at_ms > now_ms]
        self.expired += len(batch) - len(live)
        try:
            written = await (self._keep(live) if self._on_conflict == KEEP else self._apply(live))
        except RevisionConflictError as error:
            if not self.written:
                raise
            raise ConflictError(
                f"key {shown(error.key)} was set by somebody else meanwhile and stays; {self._done()}"
            ) from error
        self.written += written
        self.kept += len(live) - written
        self.batches += written > 0
        if self._progress is not None:
            self._progress(self.written)

    def _done(self) -> str:
        return f"{self.written:,} entries were written at {self._keystore.address} before that"

    async def _apply(self, ops: list[Op]) -> int:
        if ops:
            await self._keystore._apply(ops)
        return len(ops)

    async def _keep(self, ops: list[Op]) -> int:
        """Apply those whose keys are absent; look again, up to the deadline, when one was set in between."""
        deadline = self._clock.monotonic_s() + self._limits.wait_s
        while True:
            taken = set(await live_among(self._keystore, sorted(op.key for op in ops)))
            try:
                return await self._apply([op for op in ops if op.key not in taken])
            except RevisionConflictError as error:
                if self._clock.monotonic_s() >= deadline:
                    raise BusyError(
                        f"key {shown(error.key)} came and went for {self._limits.wait_s:g} s; try again"
                    ) from None


async def live_among(keystore: Keystore, keys: Sequence[str]) -> list[str]:
    """Return those of `keys`, sorted, that have a live entry, without reading values.

    Two sorted lists walked side by side: each step reads a page of the keystore's keys and leaps over what is
    not asked.
    """
    keystore._check_open()
    found: list[str] = []
    at = 0
    while at < len(keys):
        limit = min(len(keys) - at, keystore._limits.max_page)
        page = await keystore._keyspace.keys(keys[at], after(keys[-1]), limit)
        if not page:
            break
        beyond = bisect_right(keys, page[-1], lo=at)
        present = set(page)
        found += [key for key in keys[at:beyond] if key in present]
        at = beyond
    return found


def _bytes_in(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

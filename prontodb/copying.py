"""Copying entries from one address to another, with the moment at which they expire.

Nothing here suspends when the keyspaces do not, so that one-shot commands drive the same functions
(`direct.run`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.bulk import FAIL, BulkWriter, check_on_conflict, live_among, needs
from prontodb.errors import InvalidInputError, shown
from prontodb.model.access import READ, WRITE
from prontodb.model.key import check_prefix
from prontodb.model.operation import ABSENT, FOREVER, Op
from prontodb.model.reports import CopyReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from prontodb.access import Gate
    from prontodb.keystore import Keystore
    from prontodb.model.entry import Entry

__all__ = ["check_on_conflict", "check_source", "check_target", "chosen", "copy_key", "copy_many"]

FIRST_READ = 16
"""Named keys in the first read. Any value may be large, so later reads grow only while they are small."""

SMALL_READ = 1024 * 1024
"""Characters of values up to which a read counts as small."""


async def copy_key(source: Keystore, key: str, target: Keystore, new_key: str, *, overwrite: bool = False) -> bool:
    """Copy one entry with its moment of expiry; return False when the source has none, or it has expired.

    Written in one step; what is written is the entry as it was when it was read. Unless `overwrite`, raises
    `RevisionConflictError` when the target has `new_key`. The same address is fine, the same key there is not
    (`InvalidInputError`).
    """
    target._key(new_key)
    if source.address == target.address and key == new_key:
        raise InvalidInputError(f"key {shown(key)} cannot be copied onto itself; name another key or address")
    if target._gate is not None:
        # Before the source is read: a denial tells nothing of what is there.
        target._gate.check_keys((WRITE,) if overwrite else (READ, WRITE), (new_key,))
    entry = await source.entry(key)
    if entry is None:
        return False
    await target._apply([_op(new_key, entry, None if overwrite else ABSENT)])
    return True


async def copy_many(
    source: Keystore,
    target: Keystore,
    *,
    keys: Iterable[str] | None = None,
    prefix: str = "",
    on_conflict: str = FAIL,
    progress: Callable[[int], None] | None = None,
) -> CopyReport:
    """Copy entries, under their own keys, to another address: `keys`, or all that begin with `prefix`.

    `on_conflict` says what happens to a key that the target has: 'fail' copies nothing and raises
    `RevisionConflictError`, 'keep' leaves the target's entry, 'replace' writes over it.

    Atomic: what fits one batch (`max_batch_ops`, `max_batch_bytes`) is written in one step, all or nothing.
    More is written batch by batch, each all or nothing; `progress` is called after each with the entries
    written so far. With 'fail' every key is looked for in the target before the first of several batches. A
    key that somebody else sets after that look is still not written over: its batch raises `ConflictError`
    and the batches before it stay, as they do after a cancellation or any other error (a note on the error
    says how many entries).

    The source is read page by page, like `Keystore.scan`, never as a whole; it is not changed. Default
    lifetimes of namespaces are not copied, and do not touch entries that are: those without expiry stay
    without.
    """
    if source.address == target.address:
        raise InvalidInputError(f"source and target are both {source.address}; copy_many copies to another address")
    wanted = chosen(source._key, keys, prefix)
    writer = BulkWriter(target, on_conflict, progress)
    if target._gate is not None:
        check_target(target._gate, wanted, prefix, on_conflict)
    if source._gate is not None:
        check_source(source._gate, wanted, prefix)
    if wanted is None:
        await writer.write(_scanned(source, prefix), lambda: _keys(source, prefix))
        absent = 0
    else:
        missing: list[str] = []
        await writer.write(_read(source, wanted, missing), lambda: _present(source, wanted))
        absent = len(missing)
    return CopyReport(
        copied=writer.written, kept=writer.kept, absent=absent, expired=writer.expired, batches=writer.batches
    )


def chosen(check: Callable[[object], str], keys: Iterable[str] | None, prefix: str) -> list[str] | None:
    """Return the `keys` to copy, each once and in order, or None for all that begin with `prefix`; never both.

    `check` returns what is a key, and raises for everything else.
    """
    check_prefix(prefix)
    if keys is None:
        return None
    if prefix:
        raise InvalidInputError("name keys or a prefix to copy, not both")
    if isinstance(keys, (str, bytes)) or not hasattr(keys, "__iter__"):
        raise InvalidInputError(f"keys must be several keys, such as a list, not {type(keys).__name__}")
    return sorted({check(key) for key in keys})


def check_target(gate: Gate, keys: Sequence[str] | None, prefix: str, on_conflict: str) -> None:
    """Raise `DeniedError` unless all that is to be copied may be written, and told whether it is there."""
    for right in needs(on_conflict):
        _check(gate, right, keys, prefix)


def check_source(gate: Gate, keys: Sequence[str] | None, prefix: str) -> None:
    """Raise `DeniedError` unless all that is to be copied may be read."""
    _check(gate, READ, keys, prefix)


def _check(gate: Gate, right: str, keys: Sequence[str] | None, prefix: str) -> None:
    if keys is None:
        gate.check(right, prefix, is_prefix=True)
    elif keys:
        gate.check_keys((right,), keys)
    else:
        # Copying nothing tells whether the address is there.
        gate.check_any(right)


def _op(key: str, entry: Entry, expect: int | None = None) -> Op:
    # FOREVER, lest the target's default lifetime befall an entry that has none.
    return Op(key, entry.value, FOREVER, expect, entry.expires_at_ms)


async def _scanned(source: Keystore, prefix: str) -> AsyncGenerator[Op, None]:
    # Pages, and not scan, which leaves out what expires meanwhile: the writer counts those.
    async for page in source._pages(prefix):
        for entry in page:
            yield _op(entry.key, entry)


async def _keys(source: Keystore, prefix: str) -> AsyncGenerator[Sequence[str], None]:
    async for page in source._key_pages(prefix):
        yield page


async def _read(source: Keystore, keys: Sequence[str], missing: list[str]) -> AsyncGenerator[Op, None]:
    at, count = 0, FIRST_READ
    while at < len(keys):
        source._check_open()
        group = keys[at : at + count]
        if source._gate is not None:
            source._gate.check_keys((READ,), group)
        entries = await source._keyspace.read(group)
        for key, entry in zip(group, entries, strict=True):
            if entry is None:
                missing.append(key)
            else:
                yield _op(key, entry)
        at += len(group)
        small = sum(len(entry.value) for entry in entries if entry is not None) <= SMALL_READ
        count = min(count * 4, source._limits.max_page) if small else FIRST_READ


async def _present(source: Keystore, keys: Sequence[str]) -> AsyncGenerator[Sequence[str], None]:
    """Yield pages of those `keys` that the source has: what is not copied conflicts with nothing."""
    step = source._limits.max_page
    for begin in range(0, len(keys), step):
        yield await live_among(source, keys[begin : begin + step])

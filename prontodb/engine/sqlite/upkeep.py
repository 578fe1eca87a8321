"""Keeping a keystore small: old rows of the journal go, free pages go back to the disk, the log is cut.

Each function is one short transaction or statement over a writing connection; whoever calls does so until there is
nothing left to do, with pauses for other writers.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prontodb.engine.sqlite import opening, writing
from prontodb.engine.sqlite.quotas import PAGE_SIZE, WINDOW_MS
from prontodb.errors import AddressBusyError, BusyError, ProntoError
from prontodb.model.limits import MIB
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.operation import Fence
    from prontodb.storage.connection import Connection

T = TypeVar("T")

PAUSE_S = 0.01
"""Between two steps at one address, for those who write there."""
BUSY_TIMEOUT_MS = 50
WAL_BOUND_BYTES = 64 * MIB
"""A log past this is not being carried into its keystore: a reader was forgotten, or its writers are gone."""
JOURNAL_ROWS = 100
"""Rows of the journal, of up to 1,000 changes each, that one transaction prunes."""
VACUUM_PAGES = 1_000
"""Free pages given back by one statement: 4 MB to move at most."""
VACUUM_BYTES = VACUUM_PAGES * PAGE_SIZE
"""What a step gives back while there is more: one that gives less is the last, or a writer would keep us for ever."""
SPARE_PAGES = 64
"""Free pages that stay: the next writes would take them again."""

_OLDEST = "SELECT rev, first_rev, at, chain FROM journal ORDER BY rev LIMIT ?"
_PRUNE = "DELETE FROM journal WHERE rev <= ?"
_RAISE_FLOOR = "UPDATE meta SET floor = ?, floor_chain = ?"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows of a journal may go: older than `before_ms` or more than `keep_records` changes ago.

    None that reaches past `until_revision`, which is as far as a backup has seen; None when there is no backup.
    """

    before_ms: int
    keep_records: int
    until_revision: int | None


class Pruning:
    """A round of pruning at one address: takes what may go by a rule, of what there was as it began.

    So it ends although others write all the time, as fast as they can.
    """

    __slots__ = ("_head", "_rule")

    def __init__(self, rule: Rule) -> None:
        self._rule, self._head = rule, -1

    def step(self, connection: Connection, target: Target, fence: Fence, now_ms: int) -> int:
        """Take some of the oldest rows that may go, and raise the floor; return how many changes they told of."""

        def work(group: writing.Group) -> int:
            group.check_fence(fence)
            if self._head < 0:
                self._head = group.revision
            pruned, last = 0, None
            for rev, first_rev, at, chain in rows(connection, _OLDEST, (JOURNAL_ROWS,)):
                # A rate is judged by what the journal says of the present second.
                counts = target.limits.writes_per_second is not None and abs(now_ms - at) < WINDOW_MS
                if counts or not self._may_go(rev, at):
                    break
                pruned, last = pruned + rev - first_rev + 1, (rev, chain)
            if last is not None:
                connection.execute(_PRUNE, (last[0],)).close()
                connection.execute(_RAISE_FLOOR, last).close()
                group.changed = True
            return pruned

        found: int = writing.transact(connection, target, now_ms, work)
        return found

    def _may_go(self, revision: int, at_ms: int) -> bool:
        rule = self._rule
        seen = self._head if rule.until_revision is None else min(self._head, rule.until_revision)
        return revision <= seen and (at_ms < rule.before_ms or self._head - revision >= rule.keep_records)


def free_bytes(connection: Connection) -> int:
    """Return how many bytes of the file hold nothing and could go back to the disk."""
    pages: int = one(connection, "PRAGMA freelist_count")[0]
    return max(0, pages - SPARE_PAGES) * PAGE_SIZE


def give_back(connection: Connection) -> int:
    """Give some free pages at the end of the file back; return how many bytes. The file shrinks with the checkpoint."""
    pages = min(free_bytes(connection) // PAGE_SIZE, VACUUM_PAGES)
    if not pages:
        return 0
    before: int = one(connection, "PRAGMA freelist_count")[0]
    rows(connection, f"PRAGMA incremental_vacuum({pages:d})")
    after: int = one(connection, "PRAGMA freelist_count")[0]
    return max(0, before - after) * PAGE_SIZE


def cut_log(connection: Connection) -> bool:
    """Carry the log into the keystore and cut it to nothing; False when a reader or writer is in the way."""
    busy: int = one(connection, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
    return not busy


def held_log(layout: Layout, address: Address) -> str | None:
    """Return who keeps the log of an address from being cut, where it has grown past its bound; None else."""
    path = layout.keystore_path(address)
    try:
        size = os.lstat(f"{path}-wal").st_size
    except OSError:
        return None
    if size <= WAL_BOUND_BYTES:
        return None
    readers = ", ".join(sqlite.readers_of(path)) or "somebody who cannot be told"
    return f"its log has grown to {size:,} bytes and cannot be cut while it is read by {readers}"


def once(
    lifecycle: Lifecycle,
    limits: Limits,
    clock: Clock,
    address: Address,
    purpose: str,
    work: Callable[[Connection, Target], T],
) -> T:
    """Do one short step at an address under its lock, which no exclusive session can hold meanwhile; return its result.

    Tries the lock once: `AddressBusyError` when somebody has it. Shared sessions write beside us, and SQLite orders us
    among them, up to the deadline. Between two steps whoever waits for the lock gets it.
    """
    with lifecycle.hold(address, purpose, wait_s=0) as held:
        deadline = clock.monotonic_s() + limits.wait_s
        connection, target = opening.insist(
            lambda: opening.open_writer(lifecycle.layout, address, limits, busy_timeout_ms=BUSY_TIMEOUT_MS),
            lifecycle.layout.keystore_path(address),
            clock,
            deadline,
        )
        target.lock = held.identity
        try:
            while True:
                try:
                    return work(connection, target)
                except (BusyError, *sqlite.ERRORS) as error:
                    failure = error if isinstance(error, ProntoError) else sqlite.translated(error, target.path)
                    if not isinstance(failure, BusyError):
                        raise failure from error
                    if clock.monotonic_s() >= deadline:
                        raise sqlite.with_writer_named(failure, target.path) from error
                time.sleep(PAUSE_S)
        finally:
            connection.close()


def again(
    lifecycle: Lifecycle,
    limits: Limits,
    clock: Clock,
    address: Address,
    purpose: str,
    work: Callable[[Connection, Target], int],
    stop: Callable[[], bool],
    *,
    whole: int = 1,
) -> int:
    """Do a step `once`, again until it returns less than `whole`, with pauses; return the sum.

    A command that writes in between is waited for; a session that takes the address goes on with it by itself.
    """
    total = 0
    deadline = clock.monotonic_s() + limits.wait_s
    while not stop():
        try:
            found = once(lifecycle, limits, clock, address, purpose, work)
        except AddressBusyError as error:
            by_session = any(getattr(holder, "session", None) for holder in error.holders)
            if not total:
                raise
            if by_session or clock.monotonic_s() >= deadline:
                break
        else:
            total += found
            if found < whole:
                break
            deadline = clock.monotonic_s() + limits.wait_s
        time.sleep(PAUSE_S)
    return total

"""Fencing: what makes the store itself refuse the late write of a session that is no longer the holder (D23).

Each function is one write transaction. The epoch rises whenever an address changes hands; every write of an exclusive
session is checked against it inside its own transaction.
"""

from __future__ import annotations

import time

from prontodb.engine.sqlite import opening, writing
from prontodb.engine.sqlite.context import Context
from prontodb.errors import AddressNotFoundError, BusyError, CorruptError, FencedError
from prontodb.storage import connection as sqlite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from prontodb.engine.sqlite.context import Target
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.operation import Fence
    from prontodb.storage.connection import Connection

    T = TypeVar("T")

BUSY_TIMEOUT_MS = 50
RETRY_S = 0.001


def take_over(
    connection: Connection,
    target: Target,
    lock: tuple[int, int] | None,
    now_ms: int,
    check: Callable[[], None] | None = None,
) -> int:
    """Raise the epoch and return it: whoever held the address before writes no more.

    `lock` is device and inode of the lock file that the new holder holds; None leaves what was noted. `check` raises,
    when nobody else can write any more, if the address is not the new holder's after all: a late one, stopped while it
    came in, must not shut out who came after it.
    """

    def work(group: writing.Group) -> int:
        if check is not None:
            check()
        group.raise_epoch(lock)
        return group.context.epoch

    epoch: int = writing.transact(connection, target, now_ms, work)
    return epoch


def noted(connection: Connection) -> tuple[tuple[int, int] | None, int]:
    """Return device and inode of the last exclusive holder's lock file, None when there was none yet, and the epoch."""
    context = Context(connection)
    return context.lock, context.epoch


def check_fence(layout: Layout, address: Address, fence: Fence) -> None:
    """Raise `FencedError` if a session has lost its address already; reads only."""
    try:
        _, epoch = opening.read(layout, address, noted, busy_timeout_ms=BUSY_TIMEOUT_MS)
    except AddressNotFoundError:
        epoch = -1
    if fence.epoch != epoch:
        raise FencedError(f"session {fence.session} at {address} has ended; start the command without PRONTODB_SESSION")


def check_lock(
    connection: Connection, target: Target, lock: tuple[int, int], now_ms: int, check: Callable[[], None]
) -> int:
    """Raise the epoch if the lock file is another one than the last holder's, who may live without it; return it.

    `check` as in `take_over`.
    """

    def work(group: writing.Group) -> int:
        check()
        if group.context.lock not in (None, lock):
            group.raise_epoch(lock)
        return group.context.epoch

    epoch: int = writing.transact(connection, target, now_ms, work)
    return epoch


def evict(connection: Connection, target: Target, epoch: int, now_ms: int) -> int:
    """Raise the epoch if it is still `epoch`, and return the new one; else raise `FencedError`: it is over already."""

    def work(group: writing.Group) -> int:
        if group.context.epoch != epoch:
            raise FencedError(f"the session of epoch {epoch} has lost the address already")
        group.raise_epoch(None)
        return group.context.epoch

    raised: int = writing.transact(connection, target, now_ms, work)
    return raised


def revoke(connection: Connection, target: Target, session: str, now_ms: int) -> None:
    """Refuse every later write of a shared session."""
    writing.transact(connection, target, now_ms, lambda group: group.revoke(session))


def revoke_tokens(connection: Connection, target: Target, now_ms: int, lowest: int = 0) -> int:
    """Raise the epoch of the address's tokens, to `lowest` at least, which ends all minted so far; return it."""

    def work(group: writing.Group) -> int:
        group.raise_token_epoch(lowest)
        return group.context.token_epoch

    epoch: int = writing.transact(connection, target, now_ms, work)
    return epoch


def token_state(connection: Connection) -> tuple[str, int]:
    """Return the incarnation of a keystore, as text, and the epoch of its tokens."""
    found = sqlite.one(connection, "SELECT incarnation, token_epoch FROM meta")
    if found is None or type(found[0]) is not bytes or type(found[1]) is not int:
        raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
    return found[0].hex(), found[1]


def restore(connection: Connection, target: Target, sessions: Iterable[str], now_ms: int) -> None:
    """Forget revoked sessions whose processes have ended: nobody can write for them any more."""
    gone = list(sessions)
    writing.transact(connection, target, now_ms, lambda group: group.restore(gone))


def at(
    layout: Layout,
    address: Address,
    limits: Limits,
    clock: Clock,
    work: Callable[[Connection, Target, int], T],
    wait_s: float | None = None,
) -> T:
    """Run one of the above on a connection of its own, again while another writer is at it, up to the deadline."""
    deadline = clock.monotonic_s() + (limits.wait_s if wait_s is None else wait_s)
    connection, target = opening.insist(
        lambda: opening.open_writer(layout, address, limits, busy_timeout_ms=BUSY_TIMEOUT_MS),
        layout.keystore_path(address),
        clock,
        deadline,
    )
    try:
        while True:
            try:
                return work(connection, target, clock.wall_ms())
            except BusyError as error:
                if clock.monotonic_s() >= deadline:
                    raise sqlite.with_writer_named(error, target.path) from error
                time.sleep(RETRY_S)
    finally:
        connection.close()

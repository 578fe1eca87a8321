"""Taking turns: tasks of one process that change the same key go one after another once they have collided.

Without it, of n tasks that raise one counter at the same time, each commit lets one pass and sends all others back.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from prontodb.errors import BusyError, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prontodb.model.address import Address


class _Turn:
    """The queue for one key, and how many are in it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock, self.users = anyio.Lock(), 0


class Turns:
    """The queues of one manager's keys; each exists only while somebody is in it."""

    def __init__(self) -> None:
        self._turns: dict[tuple[Address, str], _Turn] = {}

    @asynccontextmanager
    async def of(self, address: Address, key: str, wait_s: float) -> AsyncIterator[None]:
        """Wait for the turn at a key; it ends with the block. `BusyError` after `wait_s`."""
        turn = self._turns.setdefault((address, key), _Turn())
        turn.users += 1
        try:
            with anyio.move_on_after(wait_s) as waiting:
                await turn.lock.acquire()
            if waiting.cancelled_caught:
                raise BusyError(f"key {shown(key)} kept changing for {wait_s:g} s; nothing was written, try again")
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[address, key]

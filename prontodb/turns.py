"""Taking turns: tasks of one process that want the same thing queue for it, and each is served in order.

Without it, of n tasks that raise one counter at the same time, each commit lets one pass and sends all others back; and
of n sessions that wait for one address, whichever looks at the right moment gets it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable


class _Turn:
    """The queue for one thing, and how many are in it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock, self.users = anyio.Lock(), 0


class Turns:
    """The queues of one manager; each exists only while somebody is in it."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, _Turn] = {}

    @asynccontextmanager
    async def of(self, thing: Hashable, wait_s: float) -> AsyncIterator[bool]:
        """Wait for the turn; it ends with the block. Yields False, and no turn, when it did not come in `wait_s`."""
        turn = self._turns.setdefault(thing, _Turn())
        turn.users += 1
        try:
            try:
                turn.lock.acquire_nowait()
            except anyio.WouldBlock:
                with anyio.move_on_after(wait_s) as waiting:
                    await turn.lock.acquire()
                if waiting.cancelled_caught:
                    yield False
                    return
            try:
                yield True
            finally:
                turn.lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[thing]

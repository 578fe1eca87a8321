"""Following a keystore: a stream of changes, and waiting until a key is as wanted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from prontodb.errors import InvalidInputError, WaitTimeoutError, shown
from prontodb.model.access import READ
from prontodb.model.operation import Change, Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.keystore import Keystore

WAIT_S = 3_600.0
"""How long one wait for a change lasts before it is begun again; nothing but a bound."""


class Watch:
    """An async iterator of changes. `position`, as text, is where a later watch can go on (`watch(since=...)`).

    Tasks that share one watch share its changes: each comes to one of them.
    """

    def __init__(self, keystore: Keystore, prefix: str, since: str | None) -> None:
        self._keystore, self._prefix = keystore, prefix
        self._position = None if since is None else parse_position(since)
        self._ready: deque[Change] = deque()
        self._yielded = 0  # the revision of the last change handed out
        # Without it, of two tasks that wait, the second would go on waiting while changes of its page are ready.
        self._turn = anyio.Lock(fast_acquire=True)

    @property
    def position(self) -> str | None:
        """The position after everything yielded so far; None until the watch has begun."""
        if self._position is None:
            return None
        # In the middle of a page, the last change is the place: they come in the order of their revisions.
        revision = self._yielded if self._ready else self._position.revision
        return str(Position(self._position.incarnation, revision))

    def __aiter__(self) -> Watch:
        return self

    async def start(self) -> None:
        """Fix the beginning at the present end of the history, unless a position was given."""
        async with self._turn:
            await self._start()

    async def _start(self) -> None:
        if self._position is None:
            self._position = await self._keystore._keyspace.position()

    async def __anext__(self) -> Change:
        """Wait for the next change; one that has expired by then comes without its entry. Cancelling loses nothing."""
        async with self._turn:
            return await self._next()

    async def _next(self) -> Change:
        self._keystore._check_open()
        self._keystore._allow(READ, self._prefix)
        await self._start()
        keyspace = self._keystore._keyspace
        while not self._ready:
            self._keystore._allow(READ, self._prefix)
            assert self._position is not None
            page = await keyspace.changes(self._position, self._keystore._limits.max_page)
            if page.position == self._position:
                await _change_after(self._keystore, self._position, WAIT_S)
                continue
            self._position = page.position
            self._ready.extend(change for change in page.changes if change.key.startswith(self._prefix))
        change = self._ready.popleft()
        self._yielded = change.revision
        if change.entry is None or change.entry.is_live(self._keystore._clock.wall_ms()):
            return change
        return Change(change.key, None, change.revision)


def parse_position(text: object) -> Position:
    """Read the text form of a position, `INCARNATION:REVISION`."""
    if isinstance(text, str):
        incarnation, colon, revision = text.partition(":")
        if colon and incarnation.isalnum() and revision.isascii() and revision.isdigit() and len(revision) < 20:
            return Position(incarnation, int(revision))
    raise InvalidInputError(f"{shown(text)} is not a position; take it from an earlier watch's `position`")


async def _change_after(keystore: Keystore, position: Position, timeout_s: float) -> None:
    """Wait for a change, up to `timeout_s`; the end of the session ends it with `ClosedError`."""
    keystore._check_open()
    with anyio.CancelScope() as scope:
        keystore._waits.add(scope)
        try:
            await keystore._keyspace.wait(position, timeout_s)
        finally:
            keystore._waits.discard(scope)
    keystore._check_open()


async def wait_for(
    keystore: Keystore, key: str, predicate: Callable[[str | None], bool] | None, timeout_s: float
) -> str | None:
    """Return the value of `key` once `predicate` holds for it; see `Keystore.wait_for`."""
    keyspace = keystore._keyspace
    wanted = predicate or (lambda value: value is not None)
    deadline = anyio.current_time() + timeout_s
    with anyio.CancelScope() as scope:
        while True:
            position = await keyspace.position()
            value = await keystore.get(key)
            if wanted(value):
                return value
            entry_ends_s = await keystore.ttl(key)
            # Only from here on: what is there is found by one look, however long a busy machine takes for it.
            scope.deadline = deadline
            # An expiry is no commit, so nothing would wake us: wait no longer than the entry lives.
            left_s = WAIT_S if entry_ends_s is None else entry_ends_s + 0.001
            await _change_after(keystore, position, min(WAIT_S, left_s))
    raise WaitTimeoutError(f"key {shown(key)} was not as wanted within {timeout_s:g} s")

"""The sessions of one manager: queued for in order, opened, watched over, ended in whatever way the block is left."""

from __future__ import annotations

import os
import random
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import anyio

from prontodb.cache import LOOK_EVERY_S, Cache
from prontodb.errors import BusyError, ClosedError, FencedError, ProntoError
from prontodb.keystore import Keystore
from prontodb.log import event
from prontodb.model.anchor import Anchor
from prontodb.model.holder import new_session_id
from prontodb.model.operation import Fence
from prontodb.registry.sessions import SessionRow
from prontodb.session.door import put_out
from prontodb.storage.lock import ASKED, EVICTED, TRIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prontodb.engine.sqlite.engine import SqliteEngine, SqliteKeyspace
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.settings import Settings
    from prontodb.registry.sessions import Left, SessionRegistry
    from prontodb.session.door import Attachment, Door, Stay
    from prontodb.turns import Turns

    MakeFence = Callable[[str, int | None], Fence]
    """Makes what a session writes under, of its id and epoch; `Fence` itself where nobody asks on whose behalf."""

POLL_S = (0.002, 0.01)
"""How often a held address is tried: quickly at first, since most holds are short."""
LOOK_S = 1.0
"""How often the owner looks whether somebody asks a session to end."""
BEAT_S = 10.0
"""How often all sessions of a process say in the registry that they are there; for people only."""
CLOSE_S = 5.0
"""How long closing all sessions may take."""
MAX_WAITING_ANCHORS = 10_000
"""Kept while the registry cannot be written."""


class Live:
    """One session: its lock, its handle, and what it writes through."""

    __slots__ = ("_looked_at", "ended", "fence", "keyspace", "keystore", "stay", "upkeep")

    def __init__(self, stay: Stay, keyspace: SqliteKeyspace, fence: Fence) -> None:
        self.stay, self.keyspace, self.fence = stay, keyspace, fence
        # Sweeping and compacting is the root's own work, whatever token the session was opened with.
        self.upkeep = Fence(fence.session, fence.epoch)
        self.keystore: Keystore
        self.ended = False
        self._looked_at = 0.0

    def guard(self) -> None:
        """Now and then raise, and then ever after, when somebody else has put the session out.

        What asks the store need not look each time: the store itself refuses the writes, and its answers are true.
        """
        now = perf_counter()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            self.look()

    def look(self) -> bool:
        """Raise when somebody else has put the session out; False when lock or keystore are not in their places."""
        held = self.stay.lock
        if held.fd < 0:
            raise ClosedError("this session was opened in another process; open one here (spawn, do not fork)")
        mark = held.mark(self.stay.session)
        if mark == EVICTED:
            self.keystore.close(put_out(self.stay))
            raise put_out(self.stay)
        if not mark:
            held.write(self.stay.holder)  # somebody emptied the file
        return held.still_there and self.keyspace.still_there


class LiveSessions:
    """Every session that one manager has open. All on the event loop, but for the tries at the door."""

    def __init__(
        self,
        engine: SqliteEngine,
        door: Door,
        registry: SessionRegistry,
        settings: Settings,
        clock: Clock,
        turns: Turns,
        attachment: Attachment | None,
        root: str,
    ) -> None:
        self._engine, self._door, self._settings, self._clock = engine, door, settings, clock
        self._turns, self._attachment, self._root = turns, attachment, root
        self._live: dict[str, Live] = {}
        self._pid = os.getpid()
        self._roll = _Roll(engine, registry, clock)

    def __len__(self) -> int:
        return len(self._live)

    def has(self, session: str) -> bool:
        """True for a session of this manager."""
        return session in self._live

    def exclusive(self) -> list[Live]:
        """Return the sessions that hold their address alone, and do now."""
        return [live for live in self._live.values() if live.stay.is_exclusive and not live.ended]

    # Opening

    @asynccontextmanager
    async def locked(
        self,
        address: Address,
        mode: str,
        *,
        wait_s: float,
        create: bool,
        labels: tuple[tuple[str, str], ...],
        make_fence: MakeFence = Fence,
    ) -> AsyncIterator[Keystore]:
        """Open a session that holds its address, or attach to the `prontodb run` around us that does."""
        fence = None if self._attachment is None else self._attachment.fence_for(self._root, address)
        if fence is not None:
            async with self._attached(address, make_fence(fence.session, fence.epoch), wait_s) as keystore:
                yield keystore
            return
        live = await self._open(address, mode, wait_s, create, labels, make_fence)
        try:
            yield live.keystore
        finally:
            with anyio.CancelScope(shield=True):
                await self.end(live)

    @asynccontextmanager
    async def _attached(self, address: Address, fence: Fence, wait_s: float) -> AsyncIterator[Keystore]:
        keystore = self._handle(await self._engine.keyspace(address, wait_s), address, fence)
        event("session.attached", address=address, session=fence.session)
        try:
            yield keystore
        finally:
            keystore.close()

    @asynccontextmanager
    async def reading(self, address: Address, wait_s: float) -> AsyncIterator[Keystore]:
        """Open a session that only reads: it holds nothing, and nobody waits for it."""
        fence = Fence(new_session_id(self._root, address))
        keyspace = await self._engine.keyspace(address, wait_s)
        keystore = Keystore(keyspace, address, fence, self._settings.limits, self._clock, writes=False)
        try:
            yield keystore
        finally:
            keystore.close()

    def _handle(self, keyspace: SqliteKeyspace, address: Address, fence: Fence, live: Live | None = None) -> Keystore:
        guard, cache = None, None
        if live is not None:
            guard = live.guard
            if live.stay.is_exclusive and self._settings.cache_bytes:
                cache = Cache(self._settings.cache_bytes, self._clock, live.stay.lock, live.look)
        return Keystore(
            keyspace, address, fence, self._settings.limits, self._clock, self._turns, guard=guard, cache=cache
        )

    async def _open(
        self,
        address: Address,
        mode: str,
        wait_s: float,
        create: bool,
        labels: tuple[tuple[str, str], ...],
        make_fence: MakeFence,
    ) -> Live:
        deadline = self._clock.monotonic_s() + wait_s
        await self._engine.reserve_descriptor()
        try:
            stay = await self._take(address, mode, wait_s, create, labels)
            try:
                live = await self._settled(stay, make_fence, deadline)
            except BaseException:
                stay.end()
                raise
        except BaseException:
            self._engine.free_descriptor()
            raise
        self._live[stay.session] = live
        try:
            await self._roll.enter(address, stay)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.end(live)
            raise
        event("session.opened", address=address, session=stay.session, mode=mode, epoch=stay.holder.epoch)
        return live

    async def _take(
        self, address: Address, mode: str, wait_s: float, create: bool, labels: tuple[tuple[str, str], ...]
    ) -> Stay:
        """Take the address, trying again up to the deadline; those of this process are served in order."""
        deadline = self._clock.monotonic_s() + wait_s
        pause_s, longest_s = POLL_S
        async with self._turns.of((address, mode), wait_s) as ours:
            tries = 0
            while True:
                tries += 1
                try:
                    return await self._try(address, mode, create, labels)
                except BusyError:
                    # The address, or for a moment the lock under which addresses of this user come and go.
                    if not ours or (tries >= TRIES and self._clock.monotonic_s() >= deadline):
                        raise
                await anyio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - keeps waiters out of step
                pause_s = min(pause_s * 1.2, longest_s)

    async def _try(self, address: Address, mode: str, create: bool, labels: tuple[tuple[str, str], ...]) -> Stay:
        """Try once, on a thread; what is taken while nobody waits for it any more is given back."""
        taken: list[Stay] = []
        abandoned = False

        def give_back() -> None:
            while taken:
                taken.pop().end()

        def attempt() -> None:
            taken.append(self._door.take(address, mode, create=create, labels=labels))
            if abandoned:
                give_back()

        try:
            await self._engine.beside(attempt, brief=True)
            return taken.pop()
        except BaseException:
            abandoned = True
            give_back()
            raise

    async def _settled(self, stay: Stay, make_fence: MakeFence, deadline: float) -> Live:
        """Let the store know who holds the address now, and return the session with its handle."""
        keyspace = await self._engine.keyspace(stay.address, deadline - self._clock.monotonic_s())
        if stay.is_exclusive:
            epoch = await keyspace.take_over(stay.lock_identity, stay.check_held)
        else:
            # Nobody raises it as long as shared sessions have their locks: one that does not is shut out with it.
            epoch = await keyspace.check_lock(stay.lock_identity, stay.check_held)
        fence = make_fence(stay.session, epoch)
        stay.settle(epoch)
        if stay.lock.mark(stay.session) == EVICTED:
            raise put_out(stay)
        live = Live(stay, keyspace, fence)
        live.keystore = self._handle(keyspace, stay.address, fence, live)
        return live

    # Ending

    async def end(self, live: Live, reason: ProntoError | None = None) -> None:
        """End a session: its handle first, then what it still has under way, then its lock. A second call does nothing.

        Shield this: a lock that stays behind is worse than a late cancellation.
        """
        if live.ended:
            return
        live.ended = True
        live.keystore.close(reason)
        anchor: Left | None = None
        try:
            await live.keyspace.withdraw(live.fence)
            if not isinstance(reason, FencedError):
                anchor = await self._anchor(live)
        finally:
            live.stay.end()
            self._engine.free_descriptor()
            del self._live[live.stay.session]
            self._roll.leave(live.stay.session, anchor)
            event("session.closed", address=live.stay.address, session=live.stay.session)

    async def _anchor(self, live: Live) -> Left | None:
        """Return where the history stands at the end of a session; None when that cannot be read now."""
        try:
            mark = await live.keyspace.mark()
        except ProntoError as error:
            event("session.not_anchored", address=live.stay.address, session=live.stay.session, reason=str(error))
            return None
        return Anchor(live.stay.address, mark, self._clock.wall_ms(), live.stay.session), live.keyspace.identity

    async def close(self) -> list[str]:
        """End every session, the newest first; return those that could not be ended in time. Shield this."""
        if os.getpid() != self._pid:
            return []  # the parent's, after a fork
        cancelled: BaseException | None = None
        with anyio.move_on_after(CLOSE_S, shield=True) as in_time:
            for live in reversed(list(self._live.values())):
                try:
                    await self.end(live)
                except anyio.get_cancelled_exc_class() as error:
                    # asyncio's own, which no shield holds back: the others must be ended all the same.
                    cancelled = error
            try:
                await self._roll.flush()
            except ProntoError as error:
                event("registry.deferred", reason=str(error))
        if cancelled is not None and not in_time.cancelled_caught:
            raise cancelled
        return [f"{live.stay.session} at {live.stay.address}" for live in self._live.values()]

    async def settled(self) -> None:
        """Return once what sessions have left is in the registry, as far as that can be used now."""
        await self._roll.flush()

    # Watching over them

    async def watch(self) -> None:
        """Look for those who want a session ended, and say now and then that all are there; runs until cancelled."""
        beats = 0.0
        while True:
            await anyio.sleep(LOOK_S)
            beats += LOOK_S
            try:
                for live in list(self._live.values()):
                    await self._look_at(live)
                await self._roll.flush()
                if beats >= BEAT_S:
                    beats = 0.0
                    await self._roll.beat()
            except (ProntoError, OSError) as error:
                # A beat that fails, or a disk that does, must not end the application.
                event("watch.failed", reason=str(error))

    async def _look_at(self, live: Live) -> None:
        if live.ended:  # while another one was being ended
            return
        mark = live.stay.lock.mark(live.stay.session)
        if not mark:
            live.stay.lock.write(live.stay.holder)  # somebody emptied the file
        reason: ProntoError | None = None
        if mark == EVICTED:
            reason = put_out(live.stay)
        elif mark == ASKED:
            reason = ClosedError(f"session {live.stay.session} at {live.stay.address} was asked to end; open a new one")
        if reason is not None:
            event("session.put_out" if mark == EVICTED else "session.asked", address=live.stay.address)
            with anyio.CancelScope(shield=True):
                await self.end(live, reason)


class _Roll:
    """The rows of one manager's sessions in the registry: written together, and never waited for in vain."""

    def __init__(self, engine: SqliteEngine, registry: SessionRegistry, clock: Clock) -> None:
        self._engine, self._registry, self._clock = engine, registry, clock
        self._present: dict[str, SessionRow] = {}
        self._new: set[str] = set()
        self._gone: set[str] = set()
        self._anchors: list[Left] = []
        self._writing = anyio.Lock()

    async def enter(self, address: Address, stay: Stay) -> None:
        """Register a session; when the registry cannot be used now, later."""
        self._present[stay.session] = SessionRow(address, stay.holder, self._clock.wall_ms())
        self._new.add(stay.session)
        await self.flush()

    def leave(self, session: str, anchor: Left | None = None) -> None:
        """Have the row of a session removed with the next write, and in that same commit its anchor kept."""
        if anchor is not None:
            self._anchors.append(anchor)
        self._new.discard(session)
        if self._present.pop(session, None) is not None:
            self._gone.add(session)

    async def beat(self) -> None:
        """Write the rows of all sessions anew, which also heals a lost registry."""
        now_ms = self._clock.wall_ms()
        self._present = {s: SessionRow(row.address, row.holder, now_ms) for s, row in self._present.items()}
        self._new.update(self._present)
        await self.flush()

    async def flush(self) -> None:
        """Write what changed, if the registry can be used; who comes meanwhile is written with the next."""
        async with self._writing:
            if not self._new and not self._gone and not self._anchors:
                return
            new, gone, anchors = self._new, self._gone, self._anchors
            rows = [self._present[session] for session in new]
            self._new, self._gone, self._anchors = set(), set(), []
            if not await self._engine.beside(
                lambda: self._registry.update_if_possible(rows, gone, anchors), brief=True
            ):
                self._new |= new & self._present.keys()
                self._gone |= gone
                # An index that cannot be written for long must not fill the memory: the last ones say the most.
                self._anchors = [*anchors, *self._anchors][-MAX_WAITING_ANCHORS:]

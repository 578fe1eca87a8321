"""An exclusive session without an event loop: what `prontodb run` holds for the command that it runs."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import fencing
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.errors import AddressNotFoundError, BusyError, CorruptError, FencedError, ProntoError
from prontodb.log import event
from prontodb.model.anchor import Anchor
from prontodb.model.holder import EXCLUSIVE
from prontodb.registry.sessions import SessionRow
from prontodb.session.door import put_out
from prontodb.storage import connection as sqlite
from prontodb.storage.lock import EVICTED, POLL_S, TRIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.engine.sqlite.context import Target
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.registry.sessions import Left, SessionRegistry
    from prontodb.session.door import Door, Stay
    from prontodb.storage.connection import Connection


class Holding:
    """Holds addresses of one root for this process. Synchronous."""

    def __init__(self, layout: Layout, door: Door, registry: SessionRegistry, clock: Clock, limits: Limits) -> None:
        self._layout, self._door, self._registry, self._clock, self._limits = layout, door, registry, clock, limits

    @contextmanager
    def session(self, address: Address, *, wait_s: float, program: str, create: bool = True) -> Iterator[Stay]:
        """Hold an address for the block; `AddressBusyError` at the deadline. Made when it does not exist, if `create`.

        `program` is what others read as the holder's name.

        The end raises the epoch, so that processes that the block left behind write no more.
        """
        deadline = self._clock.monotonic_s() + wait_s
        stay = self._taken(address, program, deadline, create)
        try:
            stay.settle(self._raised(stay, deadline))
            if stay.lock.mark(stay.session) == EVICTED:
                raise put_out(stay)
            self.beat(stay)
            event("session.opened", address=address, session=stay.session, mode=EXCLUSIVE, epoch=stay.holder.epoch)
            yield stay
        finally:
            self._end(stay)

    def beat(self, stay: Stay) -> None:
        """Say in the registry that the session is there."""
        self._registry.update_if_possible([SessionRow(stay.address, stay.holder, self._clock.wall_ms())])

    def _taken(self, address: Address, program: str, deadline: float, create: bool) -> Stay:
        tries = 0
        while True:
            tries += 1
            try:
                return self._door.take(address, EXCLUSIVE, create=create, program=program)
            except BusyError:
                if tries >= TRIES and self._clock.monotonic_s() >= deadline:
                    raise
            time.sleep(POLL_S * (0.5 + random.random()))  # noqa: S311 - keeps waiters out of step

    def _raised(self, stay: Stay, deadline: float) -> int:
        return fencing.at(
            self._layout,
            stay.address,
            self._limits,
            self._clock,
            lambda connection, target, now_ms: fencing.take_over(
                connection, target, stay.lock_identity, now_ms, stay.check_held
            ),
            max(0.0, deadline - self._clock.monotonic_s()),
        )

    def _end(self, stay: Stay) -> None:
        epoch, address = stay.holder.epoch, stay.address
        anchors: list[Left] = []

        def fence(connection: Connection, target: Target, now_ms: int) -> None:
            fencing.evict(connection, target, epoch or 0, now_ms)
            try:
                anchors.append((Anchor(address, mark_of(connection)[0], now_ms, stay.session), target.identity))
            except (ProntoError, *sqlite.ERRORS) as error:
                # The session is ended by now, and must not be ended a second time for want of an anchor.
                event("session.not_anchored", address=address, session=stay.session, reason=type(error).__name__)

        try:
            if epoch is not None:
                fencing.at(self._layout, stay.address, self._limits, self._clock, fence)
        except (AddressNotFoundError, CorruptError, FencedError):
            stay.end()  # nothing that anybody could write to, or somebody else's
        except ProntoError as error:
            # The record stays: whoever comes next takes us for dead, and does it then.
            event("session.not_fenced", address=stay.address, session=stay.session, reason=str(error))
            stay.lock.abandon()
        else:
            stay.end()
        self._registry.update_if_possible((), [stay.session], anchors)
        event("session.closed", address=stay.address, session=stay.session)

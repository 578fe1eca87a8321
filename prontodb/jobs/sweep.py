"""Sweeping: expired entries deleted, address by address, in small steps that let writers through."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, knowledge, opening, writing
from prontodb.errors import AddressNotFoundError, BusyError, ProntoError
from prontodb.log import event
from prontodb.model.operation import Fence
from prontodb.model.progress import Progress
from prontodb.storage import connection as sqlite
from prontodb.storage import reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prontodb.engine.sqlite.knowledge import Knowledge
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits

CHUNK = 1_000
PAUSE_S = 0.01
"""Between two chunks at one address, for those who write there."""
SESSION = "sweep"
"""The name under which its deletions stand in the journal."""
BUSY_TIMEOUT_MS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep did. `held`: addresses that somebody held, whose sessions sweep for themselves.

    `skipped` says why nothing was swept at all; None when it was.
    """

    addresses: int = 0
    swept: int = 0
    entries: int = 0
    held: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    skipped: str | None = None


class Sweeping:
    """One sweep over the addresses that nobody holds exclusively. `steps` does the work, an address each step."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        limits: Limits,
        clock: Clock,
        *,
        known: Knowledge,
        stop: Callable[[], bool],
        leave_out: frozenset[Address] = frozenset(),
    ) -> None:
        self._lifecycle, self._limits, self._clock = lifecycle, limits, clock
        self._known, self._stop, self._leave_out = known, stop, leave_out

    def steps(self) -> Generator[Progress, None, SweepReport]:
        """Sweep; yields after each address that had something to sweep. One that fails keeps nobody from the next."""
        report = SweepReport()
        closed: list[tuple[str, str]] = []
        layout = self._lifecycle.layout
        found = [pair for pair in folders.stamps(layout, closed) if pair[0] not in self._leave_out]
        for done, (address, stamp) in enumerate(found, 1):
            if stamp is None or not self._is_due(address, stamp):
                report = replace(report, addresses=report.addresses + 1)
                continue
            try:
                entries = self._one(address)
                report = replace(
                    report, addresses=report.addresses + 1, swept=report.swept + 1, entries=report.entries + entries
                )
            except AddressNotFoundError:
                continue
            except BusyError:
                report = replace(report, held=report.held + 1)
            except ProntoError as error:
                report = replace(report, failed=(*report.failed, (str(address), str(error))))
                event("sweep.failed", address=address, reason=str(error))
            yield Progress(what=str(address), done=done, total=len(found))
        if not closed:
            self._known.forget_all_but({address for address, _ in found} | self._leave_out)
        self._known.keep()
        return replace(report, failed=(*report.failed, *closed))

    def _is_due(self, address: Address, stamp: folders.Stamp) -> bool:
        """True when the next expiry is not known to lie ahead."""
        fact = self._known.of(address, stamp)
        if fact is None:
            try:
                busy_ms = round(self._limits.wait_s * 1_000)
                fact = knowledge.ask(
                    self._lifecycle.layout, address, self._known, self._clock.wall_ms(), busy_timeout_ms=busy_ms
                )
            except ProntoError:
                return True  # the attempt itself says what is wrong
        return fact.next_expiry_ms is not None and fact.next_expiry_ms <= self._clock.wall_ms()

    def _one(self, address: Address) -> int:
        return reserve.in_its_room(self._lifecycle.layout, lambda: self._swept(address))

    def _swept(self, address: Address) -> int:
        """Sweep one address under its lock, which no exclusive session can hold meanwhile."""
        swept = 0
        with self._lifecycle.hold(address, "sweep", wait_s=0) as held:
            connection, target = opening.open_writer(
                self._lifecycle.layout, address, self._limits, busy_timeout_ms=BUSY_TIMEOUT_MS
            )
            target.lock = held.identity
            deadline = self._clock.monotonic_s() + self._limits.wait_s
            try:
                while not self._stop():
                    try:
                        found = writing.sweep(connection, target, CHUNK, Fence(SESSION), self._clock.wall_ms())
                    except BusyError as error:
                        # Shared sessions write beside us; SQLite orders us among them.
                        if self._clock.monotonic_s() >= deadline:
                            raise sqlite.with_writer_named(error, target.path) from error
                        time.sleep(PAUSE_S)
                        continue
                    swept += found
                    if found < CHUNK:
                        break
                    time.sleep(PAUSE_S)
            finally:
                connection.close()
        if swept:
            event("address.swept", address=address, entries=swept)
        return swept

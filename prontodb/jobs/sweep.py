"""Sweeping: expired entries deleted, address by address, in small steps that let writers through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, knowledge, upkeep, writing
from prontodb.errors import AddressGoneError, AddressNotFoundError, BusyError, ProntoError
from prontodb.log import event
from prontodb.model.operation import Fence
from prontodb.model.progress import Progress
from prontodb.storage import reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.knowledge import Knowledge
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

CHUNK = 1_000
SESSION = "sweep"
"""The name under which its deletions stand in the journal."""


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
            except (AddressNotFoundError, AddressGoneError):
                continue  # deleted or restored at this moment
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
        """Sweep one address in chunks, each under its lock: what had expired by now, though more may meanwhile."""
        until_ms = self._clock.wall_ms()

        def chunk(connection: Connection, target: Target) -> int:
            return writing.sweep(connection, target, CHUNK, Fence(SESSION), self._clock.wall_ms(), until_ms)

        parts = (self._lifecycle, self._limits, self._clock, address, "sweep")
        swept = upkeep.again(*parts, chunk, self._stop, whole=CHUNK)
        if swept:
            event("address.swept", address=address, entries=swept)
        return swept

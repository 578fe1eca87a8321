"""Compacting: old journal rows go, free pages go back to the disk, logs are cut; files really shrink."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, upkeep
from prontodb.errors import AddressGoneError, AddressNotFoundError, BusyError, ProntoError
from prontodb.log import event
from prontodb.model.operation import Fence
from prontodb.model.progress import Progress
from prontodb.storage import reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.engine.sqlite.upkeep import Rule
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

SESSION = "compact"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What compacting did. `records`: changes taken out of journals; `freed_bytes`: by how much the files shrank.

    `held`: addresses that somebody held, whose sessions compact for themselves. `forgotten`: old contents that restores
    had put aside, whose time was over.
    """

    addresses: int = 0
    records: int = 0
    freed_bytes: int = 0
    held: int = 0
    forgotten: int = 0
    logs: tuple[tuple[str, str], ...] = ()
    """Addresses whose log has grown past its bound and could not be cut: each with who reads it."""
    failed: tuple[tuple[str, str], ...] = ()


class Compacting:
    """One pass over the addresses that nobody holds exclusively. `steps` does the work, an address each step."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        limits: Limits,
        clock: Clock,
        *,
        rule_for: Callable[[Address], Rule],
        forget_before_ms: int,
        stop: Callable[[], bool],
        leave_out: frozenset[Address] = frozenset(),
    ) -> None:
        self._lifecycle, self._limits, self._clock = lifecycle, limits, clock
        self._rule_for, self._forget_before_ms = rule_for, forget_before_ms
        self._stop, self._leave_out = stop, leave_out

    def steps(self) -> Generator[Progress, None, CompactReport]:
        """Compact; yields after each address. One that fails keeps nobody from the next."""
        report = CompactReport(forgotten=self._forget_kept())
        closed: list[tuple[str, str]] = []
        layout = self._lifecycle.layout
        found = [address for address, stamp in folders.stamps(layout, closed) if stamp is not None]
        for done, address in enumerate(found, 1):
            if address in self._leave_out:
                continue
            try:
                records, freed = reserve.in_its_room(layout, lambda address=address: self._one(address))  # type: ignore[misc]
                report = replace(
                    report,
                    addresses=report.addresses + 1,
                    records=report.records + records,
                    freed_bytes=report.freed_bytes + freed,
                    logs=(*report.logs, *self._log_of(address)),
                )
            except (AddressNotFoundError, AddressGoneError):
                continue  # deleted or restored at this moment
            except BusyError:
                report = replace(report, held=report.held + 1)
            except ProntoError as error:
                report = replace(report, failed=(*report.failed, (str(address), str(error))))
                event("compact.failed", address=address, reason=str(error))
            yield Progress(what=str(address), done=done, total=len(found), done_bytes=report.freed_bytes)
        return replace(report, failed=(*report.failed, *closed))

    def _forget_kept(self) -> int:
        forgotten = 0
        for address, name in folders.all_kept(self._lifecycle.layout):
            if folders.put_aside_at_ms(name) <= self._forget_before_ms:
                try:
                    forgotten += self._lifecycle.forget_kept(address, self._forget_before_ms)
                except ProntoError as error:
                    event("compact.failed", address=address, reason=str(error))
        return forgotten

    def _log_of(self, address: Address) -> list[tuple[str, str]]:
        held = upkeep.held_log(self._lifecycle.layout, address)
        if held is None:
            return []
        event("log.held", address=address, reason=held)
        return [(str(address), held)]

    def _one(self, address: Address) -> tuple[int, int]:
        """Compact one address in steps, each under its lock; return how many changes left the journal, and bytes."""
        layout, fence = self._lifecycle.layout, Fence(SESSION)
        pruning = upkeep.Pruning(self._rule_for(address))
        before = folders.size_bytes(layout, address) or 0

        def prune(connection: Connection, target: Target) -> int:
            return pruning.step(connection, target, fence, self._clock.wall_ms())

        def give_back(connection: Connection, _target: Target) -> int:
            return upkeep.give_back(connection)

        parts = (self._lifecycle, self._limits, self._clock, address, "compact")
        records = upkeep.again(*parts, prune, self._stop)
        upkeep.again(*parts, give_back, self._stop, whole=upkeep.VACUUM_BYTES)
        upkeep.once(*parts, lambda connection, _: upkeep.cut_log(connection))
        return records, max(0, before - (folders.size_bytes(layout, address) or 0))

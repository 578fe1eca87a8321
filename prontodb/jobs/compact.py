"""Compacting: old journal rows go, free pages go back to the disk, logs are cut; files really shrink."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, opening, upkeep
from prontodb.errors import AddressNotFoundError, BusyError, ProntoError
from prontodb.log import event
from prontodb.model.operation import Fence
from prontodb.model.progress import Progress
from prontodb.storage import connection as sqlite
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

PAUSE_S = 0.01
"""Between two steps at one address, for those who write there."""
SESSION = "compact"
BUSY_TIMEOUT_MS = 50


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
                )
            except AddressNotFoundError:
                continue
            except BusyError:
                report = replace(report, held=report.held + 1)
            except ProntoError as error:
                report = replace(report, failed=(*report.failed, (str(address), str(error))))
                event("compact.failed", address=address, reason=str(error))
            yield Progress(what=str(address), done=done, total=len(found), done_bytes=report.freed_bytes)
        return replace(report, failed=(*report.failed, *closed))

    def _forget_kept(self) -> int:
        forgotten = 0
        for address, at_ms in folders.all_kept(self._lifecycle.layout):
            if at_ms <= self._forget_before_ms:
                try:
                    forgotten += self._lifecycle.forget_kept(address, self._forget_before_ms)
                except ProntoError as error:
                    event("compact.failed", address=address, reason=str(error))
        return forgotten

    def _one(self, address: Address) -> tuple[int, int]:
        """Compact one address under its lock; return how many changes left the journal, and the bytes freed."""
        layout = self._lifecycle.layout
        before = folders.size_bytes(layout, address) or 0
        with self._lifecycle.hold(address, "compact", wait_s=0) as held:
            connection, target = opening.open_writer(layout, address, self._limits, busy_timeout_ms=BUSY_TIMEOUT_MS)
            target.lock = held.identity
            try:
                records = self._work(connection, target, self._rule_for(address))
            except sqlite.ERRORS as error:
                raise sqlite.translated(error, target.path) from error
            finally:
                connection.close()
        return records, max(0, before - (folders.size_bytes(layout, address) or 0))

    def _work(self, connection: Connection, target: Target, rule: Rule) -> int:
        records, fence = 0, Fence(SESSION)
        deadline = self._clock.monotonic_s() + self._limits.wait_s

        def patiently(step: Callable[[], int]) -> int:
            """Run a step again while others write, up to the deadline."""
            while True:
                try:
                    return step()
                except (BusyError, *sqlite.ERRORS) as error:
                    failure = error if isinstance(error, BusyError) else sqlite.translated(error, target.path)
                    if not isinstance(failure, BusyError) or self._clock.monotonic_s() >= deadline:
                        raise failure from error
                time.sleep(PAUSE_S)

        while not self._stop():
            found = patiently(lambda: upkeep.prune_journal(connection, target, rule, fence, self._clock.wall_ms()))
            if not found:
                break
            records += found
            time.sleep(PAUSE_S)
        while not self._stop() and patiently(lambda: upkeep.give_back(connection)):
            time.sleep(PAUSE_S)
        upkeep.cut_log(connection)
        return records

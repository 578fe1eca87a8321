"""The long works of one manager: driven a step at a time on a thread, with its own sessions looked after as well."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from prontodb.backup.create import BackupReport
from prontodb.engine.sqlite.upkeep import VACUUM_BYTES, Pruning, Rule
from prontodb.errors import BusyError, ClosedError, FencedError, InvalidInputError, ProntoError, UnavailableError
from prontodb.jobs import plan
from prontodb.jobs.compact import CompactReport
from prontodb.jobs.runner import Runner
from prontodb.jobs.sweep import CHUNK, SweepReport
from prontodb.log import event
from prontodb.model.reports import ReapReport
from prontodb.schedule.clockwork import FAILED, TIMEOUT, Skipped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from prontodb.backup.prune import PruneReport
    from prontodb.backup.verify import VerifyReport
    from prontodb.engine.sqlite.engine import SqliteEngine
    from prontodb.migration.plan import Options
    from prontodb.migration.report import MigrationReport
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.progress import Progress
    from prontodb.registry.jobs import JobRegistry
    from prontodb.schedule.clockwork import Ended
    from prontodb.session.book import SessionBook
    from prontodb.session.live import Live, LiveSessions
    from prontodb.work import Work

    Show = Callable[[Progress], None] | None
    """Called on the event loop with each step's progress; None for nobody who watches."""

T = TypeVar("T")

OWN_SWEEP_S = 60.0
"""How often a manager sweeps the addresses that its own exclusive sessions hold; nobody else can."""
OWN_COMPACT_S = 86_400.0
PAUSE_S = 0.01
"""Between two steps at an address in use."""


class Upkeep:
    """Sweeps, backups, verifications and the rest for one manager, on its event loop."""

    def __init__(
        self,
        layout: Layout,
        work: Work,
        engine: SqliteEngine,
        live: LiveSessions,
        book: SessionBook,
        registry: JobRegistry,
        clock: Clock,
    ) -> None:
        self._layout, self.work, self._engine, self._live, self._book = layout, work, engine, live, book
        self._registry, self._clock = registry, clock

    async def drive(self, start: Callable[[Callable[[], bool]], Generator[Progress, None, T]], show: Show = None) -> T:
        """Run a long work a step at a time on a thread; cancelled, it ends within moments and leaves nothing behind."""
        stopped = False

        def stop() -> None:
            nonlocal stopped
            stopped = True

        work = start(lambda: stopped)
        try:
            while True:
                found, ended = await self._engine.beside(lambda: _step(work), on_cancel=stop)
                if ended:
                    return found  # type: ignore[no-any-return]
                if show is not None:
                    show(found)
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.beside(work.close)

    # Sweep

    async def sweep(self, *, trust_clock: bool = False, show: Show = None) -> SweepReport:
        """Sweep all addresses, those of our own exclusive sessions through them."""
        own = self._live.exclusive()
        addresses = [live.stay.address for live in own]
        report = await self.drive(
            lambda stop: self.work.sweep(trust_clock=trust_clock, leave_out=addresses, stop=stop), show
        )
        if report.skipped is not None:
            return report
        for live in own:
            report = await self._sweep_own(live, report)
        return report

    async def _sweep_own(self, live: Live, report: SweepReport) -> SweepReport:
        entries, found, until_ms = 0, CHUNK, self._clock.wall_ms()
        try:
            while found == CHUNK:
                found = await live.keyspace.sweep(CHUNK, live.upkeep, until_ms)
                entries += found
                await anyio.sleep(PAUSE_S)
        except (ClosedError, FencedError):
            pass  # the session has ended meanwhile
        except ProntoError as error:
            event("sweep.failed", address=live.stay.address, reason=str(error))
            report = replace(report, failed=(*report.failed, (str(live.stay.address), str(error))))
        if entries:
            event("address.swept", address=live.stay.address, entries=entries)
        return replace(
            report, addresses=report.addresses + 1, swept=report.swept + bool(entries), entries=report.entries + entries
        )

    # Compact, reap

    async def compact(self, *, show: Show = None) -> CompactReport:
        """Compact all addresses, those of our own exclusive sessions through them."""
        own = self._live.exclusive()
        addresses = [live.stay.address for live in own]
        report = await self.drive(lambda stop: self.work.compact(leave_out=addresses, stop=stop), show)
        return await self._compact_own(own, report)

    async def _compact_own(self, own: list[Live], report: CompactReport) -> CompactReport:
        if not own:
            return report
        rule_for = await self._engine.beside(self.work.rule_for)
        for live in own:
            try:
                records, freed = await self._compact_one(live, rule_for(live.stay.address))
            except (ClosedError, FencedError):
                continue  # the session has ended meanwhile
            except ProntoError as error:
                event("compact.failed", address=live.stay.address, reason=str(error))
                report = replace(report, failed=(*report.failed, (str(live.stay.address), str(error))))
                continue
            report = replace(
                report,
                addresses=report.addresses + 1,
                records=report.records + records,
                freed_bytes=report.freed_bytes + freed,
            )
        return report

    async def _compact_one(self, live: Live, rule: Rule) -> tuple[int, int]:
        records = freed = 0
        pruning = Pruning(rule)
        while found := await live.keyspace.prune_journal(pruning, live.upkeep):
            records += found
            await anyio.sleep(PAUSE_S)
        found = VACUUM_BYTES
        while found >= VACUUM_BYTES:
            found = await live.keyspace.give_back()
            freed += found
            await anyio.sleep(PAUSE_S)
        await live.keyspace.cut_log()
        return records, freed

    async def reap(self) -> ReapReport:
        """Clear away what dead sessions left, at every address."""
        return ReapReport(sessions=tuple(await self._engine.beside(self._book.reap_all)))

    async def keep_own(self) -> None:
        """Sweep and compact, now and then, what our own exclusive sessions hold; runs until cancelled."""
        compacted_at = self._clock.boottime_s()
        while True:
            await anyio.sleep(OWN_SWEEP_S)
            try:
                if not await self._sweep_all_own():
                    continue  # by a clock in doubt nothing goes for its age, neither
                if self._clock.boottime_s() - compacted_at >= OWN_COMPACT_S:
                    compacted_at = self._clock.boottime_s()
                    await self._compact_own(self._live.exclusive(), CompactReport())
            except ProntoError as error:
                event("upkeep.failed", reason=str(error))

    async def _sweep_all_own(self) -> bool:
        """Sweep what our own exclusive sessions hold; False, and nothing done, while the wall clock is in doubt."""
        own = self._live.exclusive()
        doubt = await self._engine.beside(self.work.check_clock, brief=True) if own else None
        if doubt is not None:
            event("sweep.skipped", reason=doubt)
            return False
        report = SweepReport()
        for live in own:
            report = await self._sweep_own(live, report)
        return True

    # Migration

    async def migrate(
        self,
        source: object,
        options: Options,
        *,
        dry_run: bool,
        scratch: str | None,
        report_to: str | None,
        show: Show,
    ) -> MigrationReport:
        """Plan a migration, and unless `dry_run` do it; our own open keystores of its addresses are let go first."""
        migration = await self._engine.beside(lambda: self.work.migration(source, options, scratch=scratch))
        try:
            if report_to is not None:
                await self._engine.beside(lambda: migration.check_writable(report_to), brief=True)
            await self.drive(lambda _: migration.taking(), show)
            if report_to is not None:
                await self._engine.beside(lambda: migration.check_writable(report_to), brief=True)
            await self.drive(lambda _: migration.planning(), show)
            if dry_run:
                report = await self._engine.beside(migration.planned)
            else:
                for address in migration.targets:
                    await self._engine.release(address)
                report = await self.drive(migration.applying, show)
            if report_to is not None:
                await self._engine.beside(lambda: migration.write_report(report_to, report))
            return report
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.beside(migration.close)

    # Jobs

    def runner(self, show: Show = None) -> Runner:
        """Return what runs the scheduled jobs of this root; raises when the settings file is wrong."""
        return Runner(
            self._layout,
            self._registry,
            self._clock,
            random.Random(),  # noqa: S311 - spreads the load, guards nothing
            self._engine.beside,
            self._jobs(show),
        )

    def _jobs(self, show: Show) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            plan.SWEEP: lambda: self._sweep_job(show),
            plan.INCREMENTAL: lambda: self._backup_job(show, full=False),
            plan.FULL: lambda: self._backup_job(show, full=True),
            plan.VERIFY: lambda: self._verify_job(show),
            plan.PRUNE: lambda: self._prune_job(show),
            plan.REAP: self.reap,
            plan.COMPACT: lambda: self.compact(show=show),
        }

    async def run_job(self, name: str, show: Show = None) -> Ended:
        """Run one job now, recorded like a scheduled run; its failure is raised."""
        if name not in plan.DEFAULTS:
            raise InvalidInputError(f"job {name!r} does not exist; there are: {', '.join(plan.JOBS)}")
        ended = await self.runner(show).once(name)
        if ended.outcome in (FAILED, TIMEOUT):
            raise UnavailableError(f"job {name} failed: {ended.error}")
        return ended

    async def _sweep_job(self, show: Show) -> SweepReport:
        report = await self.sweep(show=show)
        if report.skipped is not None:
            raise Skipped(report.skipped)
        return _unless_failed(report, "swept")

    async def _backup_job(self, show: Show, *, full: bool) -> BackupReport:
        try:
            report = await self.drive(lambda stop: self.work.backup(full=full, stop=stop), show)
        except BusyError as error:
            if full:
                raise
            raise Skipped(str(error)) from error
        if report.kind == "full" and not report.addresses and not report.failed:
            raise Skipped("there is no address yet")
        if report.not_copied is not None:
            raise UnavailableError(f"backup {report.id or report.parent} is made, but not copied: {report.not_copied}")
        return _unless_failed(report, "backed up")

    async def _verify_job(self, show: Show) -> VerifyReport:
        report = await self.drive(lambda stop: self.work.verify(stop=stop), show)
        second, where = await self._engine.beside(self.work.second_place, brief=True), ""
        if (
            report.is_whole
            and second is not None
            and (await self._engine.beside(lambda: self.work.has_backups(second)))
        ):
            report = await self.drive(lambda stop: self.work.verify(second, stop=stop), show)
            where = f"in the second place {second}, "
        if not report.is_whole:
            backup, problem = report.problems[0]
            more = f", and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
            way_out = "take a new one: prontodb backup create --full"
            raise UnavailableError(f"{where}backup {backup} is damaged: {problem}{more}; {way_out}")
        return report

    async def _prune_job(self, show: Show) -> PruneReport:
        report = await self.drive(lambda _: self.work.prune(), show)
        if report.refused is not None:
            raise UnavailableError(f"nothing was pruned: {report.refused}")
        if report.not_pruned is not None:
            raise UnavailableError(f"the second place was not pruned: {report.not_pruned}")
        if report.second_place is not None and report.second_place.refused is not None:
            raise UnavailableError(f"the second place was not pruned: {report.second_place.refused}")
        return report


def _unless_failed(report: T, done: str) -> T:
    failed: tuple[tuple[str, str], ...] = getattr(report, "failed", ())
    if failed:
        address, reason = failed[0]
        more = f", and {len(failed) - 1} more addresses" if len(failed) > 1 else ""
        raise UnavailableError(f"{address} could not be {done}: {reason}{more}; the others were")
    return report


def _step(work: Generator[Progress, None, T]) -> tuple[Any, bool]:
    """Do one step; return its progress and False, or the report and True."""
    try:
        return next(work), False
    except StopIteration as end:
        return end.value, True

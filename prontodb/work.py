"""Every long work on one root, put together from its parts: generators that yield progress and return a report.

Synchronous: the command line runs them where it stands, the session manager a step at a time on a thread. `stop()` is
asked in the middle of long steps; closing a generator leaves nothing half done.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from prontodb.backup import prune
from prontodb.backup.chain import Chains, never
from prontodb.backup.container import Container
from prontodb.backup.create import Making, checked_scope, in_scope
from prontodb.backup.history import Until
from prontodb.backup.place import located, outside
from prontodb.backup.restore import Restoring, choose
from prontodb.backup.retention import Policy
from prontodb.backup.second import FolderPlace, copy_out
from prontodb.backup.verify import Verifying
from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite.knowledge import Knowledge
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.engine.sqlite.upkeep import Rule
from prontodb.errors import CorruptError, InvalidInputError, NotFoundError, ProntoError
from prontodb.jobs import plan, trust
from prontodb.jobs.compact import Compacting
from prontodb.jobs.sweep import Sweeping, SweepReport
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.registry import configuration
from prontodb.registry.addresses import AddressRegistry
from prontodb.storage.process import ourselves

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from prontodb.backup.container import Listing
    from prontodb.backup.create import BackupReport
    from prontodb.backup.manifest import Manifest
    from prontodb.backup.prune import PruneReport
    from prontodb.backup.verify import VerifyReport
    from prontodb.jobs.compact import CompactReport
    from prontodb.model.clock import Clock
    from prontodb.model.progress import Progress
    from prontodb.model.settings import Settings
    from prontodb.registry.jobs import Check, JobRegistry

DAY_MS = 86_400_000
NO_LIMIT = Until()
_CLOCK_NOTE = "clock"


class Work:
    """The long works of one root. `jobs` is where they keep what they learn."""

    def __init__(
        self, layout: Layout, settings: Settings, clock: Clock, lifecycle: Lifecycle, jobs: JobRegistry
    ) -> None:
        self._layout, self._settings, self._clock = layout, settings, clock
        self._lifecycle, self._jobs = lifecycle, jobs

    # Sweep, compact

    def check_clock(self, *, trust_clock: bool = False) -> str | None:
        """Return why the wall clock is not to be believed, None when it is; keeps what it says for the next time."""
        before = None
        if not trust_clock:
            try:
                before = trust.Reference.decode(self._jobs.notes().get(_CLOCK_NOTE))
            except ProntoError as error:
                event("registry.deferred", reason=str(error))
        judged = trust.judge(before, ourselves().boot or "", self._clock.wall_ms(), self._clock.boottime_s())
        try:
            self._jobs.note(_CLOCK_NOTE, judged.reference.encode())
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
        return judged.doubt

    def sweep(
        self,
        *,
        trust_clock: bool = False,
        leave_out: Iterable[Address] = (),
        stop: Callable[[], bool] = never,
    ) -> Generator[Progress, None, SweepReport]:
        """Delete expired entries at every address that nobody holds exclusively."""
        doubt = self.check_clock(trust_clock=trust_clock)
        if doubt is not None:
            event("sweep.skipped", reason=doubt)
            return SweepReport(skipped=doubt)
        sweeping = Sweeping(
            self._lifecycle,
            self._settings.limits,
            self._clock,
            known=Knowledge(self._jobs),
            stop=stop,
            leave_out=frozenset(leave_out),
        )
        return (yield from sweeping.steps())

    def rule_for(self, *, in_doubt: bool = False) -> Callable[[Address], Rule]:
        """Return what says which rows of an address's journal may go, by the settings and the newest backups."""
        seen = self._seen_by_backups()
        before_ms = 0 if in_doubt else self._clock.wall_ms() - self._settings.journal_days * DAY_MS
        keep = self._settings.journal_records
        return lambda address: Rule(before_ms, keep, seen.get(address))

    def _seen_by_backups(self) -> dict[Address, int]:
        """Return how far the newest backup chain of each address has seen; none of it when that cannot be told."""
        listing = Container.of_root(self._layout).list()
        chains = Chains.of(listing)
        seen: dict[Address, int] = {}
        newest = {one.scope: one for one in listing.backups}
        for manifest in sorted(newest.values(), key=lambda one: (one.created_at_ms, one.id)):
            try:
                tips = chains.tips(manifest.id)
            except CorruptError as error:
                event("backup.chain_broken", backup=manifest.id, reason=str(error))
                continue
            # Of several chains, that of the newest backup: the others begin anew when they must.
            seen |= {Address.parse(name): link.piece.revision for name, link in tips.items()}
        return seen

    def compact(
        self, *, leave_out: Iterable[Address] = (), stop: Callable[[], bool] = never
    ) -> Generator[Progress, None, CompactReport]:
        """Prune journals, give free pages back to the disk and cut logs, at every address that nobody holds.

        While the wall clock is in doubt nothing goes for its age.
        """
        in_doubt = self.check_clock() is not None
        forget_before_ms = 0 if in_doubt else self._clock.wall_ms() - self._settings.undo_days * DAY_MS
        compacting = Compacting(
            self._lifecycle,
            self._settings.limits,
            self._clock,
            rule_for=self.rule_for(in_doubt=in_doubt),
            forget_before_ms=forget_before_ms,
            stop=stop,
            leave_out=frozenset(leave_out),
        )
        return (yield from compacting.steps())

    # Backups

    def backup(
        self,
        *,
        full: bool = False,
        user: str | None = None,
        cursor: str | None = None,
        output: object = None,
        stop: Callable[[], bool] = never,
    ) -> Generator[Progress, None, BackupReport]:
        """Back up all addresses, those of one user, or one; into the root's own backups or the folder `output`."""
        container = Container.of_root(self._layout) if output is None else outside(self._layout, output)
        self._heal()
        making = Making(
            container,
            self._layout,
            self._settings.limits,
            self._clock,
            scope=checked_scope(user, cursor),
            full=full,
            knowledge=Knowledge(self._jobs),
            damaged=self._damaged() if output is None else frozenset(),
            stop=stop,
        )
        report = yield from making.steps()
        return report if output is not None else (yield from self._copied_out(report, stop))

    def _damaged(self) -> frozenset[str]:
        return frozenset(check.backup for check in self.checks().values() if check.problems)

    def _heal(self) -> None:
        """Finish what crashes left: an address that a killed restore left without its name is not gone."""
        for address in self._lifecycle.leftovers():
            try:
                self._lifecycle.heal(address, wait_s=0)
            except ProntoError as error:
                event("address.not_healed", address=address, reason=str(error))

    def _copied_out(self, report: BackupReport, stop: Callable[[], bool]) -> Generator[Progress, None, BackupReport]:
        """Copy what the second place has not; a backup that is made stays made, whatever becomes of its copy."""
        path = self.second_place()
        if path is None:
            return report
        place, there = FolderPlace(path), Container(path, by_kind=True)
        try:
            place.check_there()
            with there.hold("copy backups", wait_s=0):
                copied = yield from copy_out(Container.of_root(self._layout), place, path, stop=stop)
        except ProntoError as error:
            event("backup.not_copied", place=path, reason=str(error))
            return replace(report, not_copied=str(error))
        return replace(report, copied=copied.copied)

    def second_place(self) -> str | None:
        """Return the folder where every backup is copied to, by the settings file; None when there is none."""
        return plan.backups_of(configuration.section(self._layout, "backups"))[0].second_place

    def backups(self, place: object = None) -> Listing:
        """Return the backups in the root, or in a folder that somebody names."""
        return located(self._layout, place)[1]

    def find_backup(self, reference: object) -> Manifest:
        """Return one backup: by its id, the beginning of it or its path, or the newest in a folder of backups."""
        _, listing, manifest = located(self._layout, reference)
        if manifest is None and not listing.backups:
            raise CorruptError(f"no backup there can be read: {listing.unreadable[0].reason}")
        return manifest or listing.backups[-1]

    def checks(self) -> Mapping[str, Check]:
        """Return what the last verification said of each backup in the root, as far as that is known."""
        try:
            return self._jobs.checks()
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return {}

    def verify(
        self, reference: object = None, *, stop: Callable[[], bool] = never
    ) -> Generator[Progress, None, VerifyReport]:
        """Test backups: their files against their manifests, and by putting states together again."""
        container, listing, manifest = located(self._layout, reference)
        verifying = Verifying(container, listing, only=manifest, rng=random.Random(), stop=stop)  # noqa: S311
        report = yield from verifying.steps()
        if container.path == Container.of_root(self._layout).path:
            results: dict[str, list[str]] = {backup: [] for backup in report.backups}
            for backup, problem in report.problems:
                results.setdefault(backup, []).append(problem)
            self._jobs.checked(results, self._clock.wall_ms())
        return report

    def policy(self) -> Policy:
        """Return what retention keeps, by the settings file."""
        found, _ = plan.backups_of(configuration.section(self._layout, "backups"))
        return Policy.parse(found.retention)[0]

    def prune(self, *, dry_run: bool = False) -> Generator[Progress, None, PruneReport]:
        """Remove the backups that retention does not keep."""
        container = Container.of_root(self._layout)
        report = yield from prune.steps(container, self.policy(), self._clock, damaged=self._damaged(), dry_run=dry_run)
        if not dry_run and report.removed:
            self._jobs.forget_checks(report.removed)
        path = self.second_place()
        if path is None:
            return report
        try:
            FolderPlace(path).check_there()
            second = yield from prune.steps(
                Container(path, by_kind=True), self.policy(), self._clock, damaged=frozenset(), dry_run=dry_run
            )
        except ProntoError as error:
            return replace(report, not_pruned=str(error))
        return replace(report, second_place=second)

    # Restore

    def restoring(
        self,
        reference: object = None,
        *,
        user: str | None = None,
        cursor: str | None = None,
        target: Address | None = None,
        until: Until = NO_LIMIT,
        into: str | None = None,
        stop: Callable[[], bool] = never,
    ) -> Restoring:
        """Return a restore that can be looked at before it is done: one backup's state, of all addresses or of some."""
        scope = checked_scope(user, cursor)
        container, listing, manifest = located(self._layout, reference)
        if until.revision is not None and "/" not in scope:
            raise InvalidInputError("a revision is one address's: name the user and the cursor")
        if manifest is None:
            manifest = choose(listing, scope, until)
        elif until:
            raise InvalidInputError("name a backup, or a moment or revision, not both")
        lifecycle = self._lifecycle if into is None else self._elsewhere(into)
        return Restoring(
            container,
            listing,
            manifest,
            lifecycle,
            self._clock,
            scope=scope,
            source=self._layout,
            target=target,
            until=until,
            stop=stop,
        )

    def _elsewhere(self, root: str) -> Lifecycle:
        layout = Layout(root)
        registry = AddressRegistry(layout, wait_s=self._settings.wait_s, one_shot=True)
        return Lifecycle(
            layout,
            self._clock,
            registry,
            wait_s=self._settings.wait_s,
            one_shot=True,
            unsafe_file_system=self._settings.unsafe_file_system,
        )

    def undoable(self, user: str | None = None, cursor: str | None = None) -> list[Address]:
        """Return the addresses of which something is kept that a restore has put aside."""
        scope = checked_scope(user, cursor)
        return sorted({address for address, _ in folders.all_kept(self._layout) if in_scope(address, scope)})

    def undo_restore(self, address: Address) -> None:
        """Change an address with what its last restore put aside; `NotFoundError` when there is nothing."""
        if self._lifecycle.undo_restore(address) is None:
            raise NotFoundError(f"there is nothing to undo at {address}: no restore of it is kept (see undo_days)")

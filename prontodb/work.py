"""Every long work on one root, put together from its parts: generators that yield progress and return a report.

Synchronous: the command line runs them where it stands, the session manager a step at a time on a thread. `stop()` is
asked in the middle of long steps; closing a generator leaves nothing half done.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from prontodb.audits import Audits
from prontodb.backup import prune
from prontodb.backup.chain import Chains
from prontodb.backup.container import Container, new_backup_id
from prontodb.backup.create import Making, checked_scope
from prontodb.backup.history import Until
from prontodb.backup.manifest import MANIFEST_FILE, ROOT_BYTES
from prontodb.backup.place import located, outside
from prontodb.backup.restore import Restoring, choose
from prontodb.backup.retention import Policy
from prontodb.backup.second import FolderPlace, copy_out
from prontodb.backup.undo import Undoing
from prontodb.backup.verify import Verifying
from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite.knowledge import Knowledge
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.engine.sqlite.upkeep import Rule
from prontodb.errors import CorruptError, InvalidInputError, ProntoError
from prontodb.jobs import plan, trust
from prontodb.jobs.compact import Compacting
from prontodb.jobs.sweep import Sweeping, SweepReport
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.model.progress import never
from prontodb.registry import configuration
from prontodb.registry.addresses import AddressRegistry
from prontodb.storage.files import resolved
from prontodb.storage.process import ourselves

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from prontodb.backup.container import Listing
    from prontodb.backup.create import BackupReport
    from prontodb.backup.manifest import Manifest
    from prontodb.backup.prune import PruneReport
    from prontodb.backup.verify import VerifyReport
    from prontodb.engine.sqlite.resealing import ResealReport
    from prontodb.jobs.compact import CompactReport
    from prontodb.migration.plan import Options
    from prontodb.migration.run import Migration
    from prontodb.migration.saved import SavedPlan
    from prontodb.model.clock import Clock
    from prontodb.model.progress import Progress
    from prontodb.model.settings import Settings
    from prontodb.registry.jobs import Check, JobRegistry

DAY_MS = 86_400_000
AUDIT_WAIT_S = 0.5
"""How long the registry of anchors is waited for."""
SECOND = "second:"
"""Stands before the id of a backup in the second place, where what is known of it is kept."""
NO_LIMIT = Until()
_CLOCK_NOTE, _ROOT_NOTE = "clock", "root"


class Work:
    """The long works of one root. `jobs` is where they keep what they learn."""

    def __init__(
        self, layout: Layout, settings: Settings, clock: Clock, lifecycle: Lifecycle, jobs: JobRegistry
    ) -> None:
        self._layout, self._settings, self._clock = layout, settings, clock
        self._lifecycle, self._jobs = lifecycle, jobs
        self._undoing = Undoing(layout, lifecycle, jobs)
        self.audits = Audits(layout, clock, min(settings.wait_s, AUDIT_WAIT_S), self._vouching)
        # For a clock that is set before anybody has noted what it said, and for notes that are lost meanwhile.
        self._seen = self._now()

    # Sweep, compact

    def check_clock(self, *, trust_clock: bool = False, begun: tuple[int, float] | None = None) -> str | None:
        """Return why the wall clock is not to be believed, None when it is; keeps what it says for the next time.

        Where nothing was noted since the boot it is compared with what it said when this process `begun`: wall clock in
        milliseconds and time since the boot; None: when this was made, or looked last.
        """
        now, before = self._now(), None
        if not trust_clock:
            seen = self._seen if begun is None else trust.Reference(now.boot, *begun)
            noted = self._noted_clock()
            before = noted if noted is not None and noted.boot == now.boot else seen
        judged = trust.judge(before, now.boot, now.wall_ms, now.boottime_s)
        self._seen = judged.reference
        try:
            self._jobs.note(_CLOCK_NOTE, judged.reference.encode())
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
        return judged.doubt

    def _now(self) -> trust.Reference:
        return trust.Reference(ourselves().boot or "", self._clock.wall_ms(), self._clock.boottime_s())

    def _noted_clock(self) -> trust.Reference | None:
        try:
            return trust.Reference.decode(self._jobs.notes().get(_CLOCK_NOTE))
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return None

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

    # Audit

    def _vouching(self) -> list[tuple[str, Container]]:
        """Return where backups lie whose manifests tell where histories stood: here, and in the second place."""
        found = [("backup", Container.of_root(self._layout))]
        try:
            second = self.second_place()
        except ProntoError as error:
            event("audit.note", reason=str(error))
            second = None
        return found if second is None else [*found, ("second place", Container(second, by_kind=True))]

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
        second = None if output is not None else self.second_place()  # a wrong setting is told before any work
        self._heal()
        making = Making(
            container,
            self._layout,
            self._settings.limits,
            self._clock,
            root=self.root_id(),
            shared=output is not None,
            scope=checked_scope(user, cursor),
            full=full,
            knowledge=Knowledge(self._jobs),
            damaged=self._damaged() if output is None else frozenset(),
            stop=stop,
        )
        report = yield from making.steps()
        return report if second is None else (yield from self._copied_out(report, second, stop))

    def _damaged(self, mark: str = "") -> frozenset[str]:
        """Return the backups that a verification found damaged: the root's own, or with `mark` those elsewhere."""
        found = (check.backup for check in self.checks().values() if check.problems)
        own = (name for name in found if name.startswith(mark) and (mark or ":" not in name))
        return frozenset(name.removeprefix(mark) for name in own)

    def _heal(self) -> None:
        """Finish what crashes left: an address that a killed restore left without its name is not gone."""
        for address in self._lifecycle.leftovers():
            try:
                self._lifecycle.heal(address, wait_s=0)
            except ProntoError as error:
                event("address.not_healed", address=address, reason=str(error))

    def _copied_out(
        self, report: BackupReport, path: str, stop: Callable[[], bool]
    ) -> Generator[Progress, None, BackupReport]:
        """Copy what the second place has not; a backup that is made stays made, whatever becomes of its copy."""
        place, there = FolderPlace(path), Container(path, by_kind=True, layout=self._layout)
        try:
            place.check_there()
            with there.hold("copy backups", wait_s=0):
                self._remove_damaged(place, self._damaged(SECOND))
                week_ago = new_backup_id(self._clock.wall_ms() - 7 * DAY_MS)
                copied = yield from copy_out(
                    Container.of_root(self._layout), place, path, abandoned_before=week_ago, stop=stop
                )
        except ProntoError as error:
            event("backup.not_copied", place=path, reason=str(error))
            return replace(report, not_copied=str(error))
        return replace(report, copied=copied.copied, not_copied="; ".join(copied.not_copied[:3]) or None)

    def _remove_damaged(self, place: FolderPlace, damaged: frozenset[str]) -> None:
        """Make room in the second place for sound copies of what was found damaged there."""
        here = {one.id for one in Container.of_root(self._layout).list().backups}
        again = damaged & here
        for name in sorted(place.list(), key=lambda name: name[2] != MANIFEST_FILE) if again else ():
            if name[1] in again:
                place.delete(name)
        if again:
            self._jobs.forget_checks(tuple(SECOND + backup for backup in again))

    def second_place(self) -> str | None:
        """Return the folder where every backup is copied to, by the settings file; None when there is none."""
        path = plan.backups_of(configuration.section(self._layout, "backups"))[0].second_place
        return None if path is None else outside(self._layout, path).path

    def backups(self, place: object = None) -> Listing:
        """Return the backups in the root, or in a folder that somebody names."""
        return located(self._layout, place)[1]

    def has_backups(self, place: str) -> bool:
        """True when there is any backup in a folder, readable or not."""
        listing = Container(place, by_kind=True).list()
        return bool(listing.backups or listing.unreadable)

    def find_backup(self, reference: object) -> Manifest:
        """Return one backup: by its id, the beginning of it or its path, or the newest in a folder of backups."""
        _, listing, manifest = located(self._layout, reference)
        if manifest is None and not listing.backups:
            raise CorruptError(f"no backup there can be read: {listing.unreadable[0].reason}")
        return manifest or listing.backups[-1]

    def checks(self, place: object = None) -> Mapping[str, Check]:
        """Return what the last verification said of each backup in the root or the second place, as far as is known."""
        try:
            found = self._jobs.checks()
            if place is None:
                return found
            mark = self._mark_of(located(self._layout, place)[0])
            if mark is None:
                return {}
            return {name.removeprefix(mark): check for name, check in found.items() if name.startswith(mark)}
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return {}

    def verify(
        self, reference: object = None, *, stop: Callable[[], bool] = never
    ) -> Generator[Progress, None, VerifyReport]:
        """Test backups: their files against their manifests, and by putting states together again."""
        container, listing, manifest = located(self._layout, reference)
        mark = self._mark_of(container)
        suspects = frozenset() if mark is None else self._damaged(mark)
        rng = random.Random()  # noqa: S311 - a choice, no secret
        verifying = Verifying(container, listing, only=manifest, suspects=suspects, rng=rng, stop=stop)
        report = yield from verifying.steps()
        if mark is not None:
            # Who only had a look at the files does not take back what a trial has found.
            results: dict[str, list[str]] = {
                mark + backup: [] for backup in report.backups if backup in report.tried or backup not in suspects
            }
            for backup, problem in report.problems:
                results.setdefault(mark + backup, []).append(problem)
            chains = Chains.of(listing)
            for backup in report.backups:
                if results.get(mark + backup) == []:
                    below = report.damaged.intersection(one.id for one in chains.line(backup))
                    results[mark + backup] = [f"it builds on {one}, which is damaged" for one in sorted(below)]
            self._jobs.checked(results, self._clock.wall_ms())
        return report

    def root_id(self) -> str:
        """Return what tells this root's backups from those of others in a shared place: random, made when first asked.

        Lost with the index of jobs, it is read from the newest backup.
        """
        try:
            found = self._jobs.notes().get(_ROOT_NOTE, "")
            if len(found) == 2 * ROOT_BYTES and bytes.fromhex(found).hex() == found:
                return found
        except (ProntoError, ValueError) as error:
            event("registry.deferred", reason=str(error))
        backups = Container.of_root(self._layout).list().backups
        root = next((one.root for one in reversed(backups) if one.root), os.urandom(ROOT_BYTES).hex())
        try:
            self._jobs.note(_ROOT_NOTE, root)
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
        return root

    def _mark_of(self, container: Container) -> str | None:
        """Return what stands before the ids of a container's backups in the index of checks; None for one elsewhere."""
        if container.path == Container.of_root(self._layout).path:
            return ""
        second = self.second_place()
        return SECOND if second is not None and container.path == resolved(second) else None

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
            there, damaged = Container(path, by_kind=True, layout=self._layout), self._damaged(SECOND)
            root, here = self.root_id(), set(report.kept) | set(report.removed)
            # Other roots may keep theirs there, too.
            second = yield from prune.steps(
                there,
                self.policy(),
                self._clock,
                damaged=damaged,
                dry_run=dry_run,
                ours=lambda one: one.root == root or one.id in here,
            )
        except ProntoError as error:
            return replace(report, not_pruned=str(error))
        return replace(report, second_place=second)

    # Migration

    def migration(
        self, source: object, options: Options, *, scratch: str | None = None, plan: SavedPlan | None = None
    ) -> Migration:
        """Return a migration of an old database, folder or backup into this root, to be planned and applied."""
        from prontodb.migration.run import Migration

        return Migration(
            source,
            options,
            self._lifecycle,
            self._settings.limits,
            self._clock,
            lambda: folders.listed(self._layout),
            scratch=scratch,
            plan=plan,
        )

    # Encryption

    def resealing(
        self, address: Address, what: str, *, drop_older: bool = False, stop: Callable[[], bool] = never
    ) -> Generator[Progress, None, ResealReport]:
        """Encrypt, decrypt or rekey an address."""
        from prontodb.engine.sqlite.resealing import Resealing

        resealing = Resealing(self._lifecycle, self._clock, address, what, drop_older=drop_older, stop=stop)
        return (yield from resealing.steps())

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
        newest = manifest is None
        if manifest is None:
            listing = self._of_one_root(container, listing)
            manifest = choose(listing, scope, until)
        elif until:
            raise InvalidInputError("name a backup, or a moment or revision, not both")
        lifecycle = self._lifecycle if into is None else self._elsewhere(into)
        restoring = Restoring(
            container,
            listing,
            manifest,
            lifecycle,
            self._clock,
            scope=scope,
            newest=newest,
            source=self._layout,
            target=target,
            until=until,
            stop=stop,
        )
        if into is None:
            restoring.remember = self._undoing.remember
        return restoring

    def _of_one_root(self, container: Container, listing: Listing) -> Listing:
        """Return the backups of one root where those of several lie together: this one's, else there must be one."""
        roots = {one.root for one in listing.backups}
        if len(roots) < 2 or container.path == Container.of_root(self._layout).path:
            return listing
        own = self.root_id()
        if own not in roots:
            raise InvalidInputError(f"backups of {len(roots)} roots lie in {container.path}; name the one to restore")
        return replace(listing, backups=tuple(one for one in listing.backups if one.root == own))

    def _elsewhere(self, root: str) -> Lifecycle:
        # The key that opens what is here seals what is there.
        layout = Layout(root, None if self._layout.keys is None else self._layout.keys.elsewhere(root))
        registry = AddressRegistry(layout, wait_s=self._settings.wait_s, one_shot=True)
        return Lifecycle(
            layout,
            self._clock,
            registry,
            wait_s=self._settings.wait_s,
            one_shot=True,
            unsafe_file_system=self._settings.unsafe_file_system,
        )

    def undoable(self, user: str | None = None, cursor: str | None = None, *, redo: bool = False) -> list[Address]:
        """Return the addresses at which something can be undone, or done again; see `Undoing.able`."""
        return self._undoing.able(user, cursor, redo=redo)

    def undo_restore(self, address: Address, *, redo: bool = False) -> None:
        """Change an address with what its last restore put aside, or with `redo` its last undo; or `NotFoundError`."""
        self._undoing.undo(address, redo=redo)

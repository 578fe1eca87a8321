"""The session manager: everything that can be asked of one root, each in a public method."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from prontodb import copying, transfer
from prontodb.access import Caller, checked_token, scope_of
from prontodb.addresses import AddressBook
from prontodb.audit.trail import wanted_records
from prontodb.backup.history import Until
from prontodb.bulk import needs
from prontodb.doctor import examine
from prontodb.engine.sqlite import cloning
from prontodb.engine.sqlite.engine import SqliteEngine
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.engine.sqlite.resealing import DECRYPT, ENCRYPT, REKEY
from prontodb.errors import AddressNotFoundError, InvalidInputError, SessionNotFoundError
from prontodb.guarding import AccessBook
from prontodb.jobs.book import JobBook
from prontodb.keystore import Keystore
from prontodb.model.access import ADMIN, READ, WRITE
from prontodb.model.address import DEFAULT_NAME, Address, as_address
from prontodb.model.holder import EXCLUSIVE, SHARED
from prontodb.model.holder import READ as READS_ONLY
from prontodb.model.key import check_key
from prontodb.model.layout import Layout
from prontodb.model.moments import moment_of
from prontodb.model.root import checked_root
from prontodb.model.settings import Settings
from prontodb.session.book import SessionBook
from prontodb.session.door import checked_labels, checked_mode, checked_wait
from prontodb.session.live import LiveSessions
from prontodb.storage.files import resolved
from prontodb.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
    from datetime import datetime

    from prontodb.access import Gate
    from prontodb.addresses import AddressReport, AddressRow
    from prontodb.audit.report import AuditRecord, AuditReport
    from prontodb.backup.container import Listing
    from prontodb.backup.create import BackupReport
    from prontodb.backup.prune import PruneReport
    from prontodb.backup.restore import RestoreReport
    from prontodb.backup.verify import VerifyReport
    from prontodb.doctor import DoctorReport
    from prontodb.engine.sqlite.resealing import ResealReport
    from prontodb.guarding import Guard
    from prontodb.jobs.book import JobRow
    from prontodb.jobs.compact import CompactReport
    from prontodb.jobs.sweep import SweepReport
    from prontodb.migration.report import MigrationReport
    from prontodb.model.progress import Progress
    from prontodb.model.reports import CopyReport, ImportReport, ReapReport
    from prontodb.registry.jobs import Run
    from prontodb.schedule.clockwork import Ended as JobResult
    from prontodb.session.book import SessionReport
    from prontodb.upkeep import Show


class SessionManager:
    """All addresses of one root, for one event loop of one process. Made by `open_manager`."""

    def __init__(
        self,
        engine: SqliteEngine,
        book: AddressBook,
        lifecycle: Lifecycle,
        settings: Settings,
        live: LiveSessions,
        sessions: SessionBook,
        upkeep: Upkeep,
        jobs: JobBook,
        guard: Guard,
    ) -> None:
        self._engine, self._book, self._lifecycle, self._settings = engine, book, lifecycle, settings
        self._live, self._sessions, self._upkeep, self._jobs = live, sessions, upkeep, jobs
        self._guard = guard
        self._access = AccessBook(guard, engine, settings.limits)
        self._clock = engine._clock
        self._registered: set[Address] = set()

    @property
    def root(self) -> str:
        """The absolute path of the root."""
        return self._lifecycle.layout.root

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def access(self) -> AccessBook:
        """The access rules and tokens of the root: who may do what where."""
        return self._access

    # Sessions

    @asynccontextmanager
    async def session(
        self,
        user: str = DEFAULT_NAME,
        cursor: str = DEFAULT_NAME,
        *,
        mode: str = EXCLUSIVE,
        wait: float | None = None,
        create: bool = True,
        labels: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> AsyncIterator[Keystore]:
        """Open a session at an address and yield its keystore; leaving the block ends it.

        `mode`: 'exclusive' lets nobody else write there, in any task or process, and answers from memory what it read
        before; 'shared' lets other shared sessions in, and SQLite orders their writes; 'read' holds nothing, never
        waits, and cannot write. `wait`: seconds to wait for those who hold the address, None for the `wait_s` setting,
        0 tries once; then `AddressBusyError` names them. The address is made when it does not exist, unless `create`
        is False or the session only reads: then `AddressNotFoundError`. `labels` are a few short texts that
        `prontodb session list` shows. Inside `prontodb run`, a session at its address attaches to the one of the run.
        `token` is what the session may do, whatever else whoever opened the manager may; None: that, or what the token
        in PRONTODB_TOKEN allows. `DeniedError` for a caller who may write nothing there, or only read and does not.
        """
        address, mode, pairs = Address(user, cursor), checked_mode(mode), checked_labels(labels)
        wait_s = self._settings.wait_s if wait is None else checked_wait(wait)
        caller = self._guard.caller if token is None else Caller(self._guard.access, token=checked_token(token))
        gate = await self._guard.gate(address, caller)
        if gate is not None:
            gate.check_any(READ if mode == READS_ONLY else WRITE)
            create = create and gate.may_create
        if mode == READS_ONLY:
            async with self._live.reading(address, wait_s) as keystore:
                with self._guard.access.holding(keystore, caller, gate):
                    yield keystore
            return
        async with self._live.locked(
            address,
            mode,
            wait_s=wait_s,
            create=create,
            labels=pairs,
            make_fence=lambda session, epoch: caller.fence(session, epoch, gate=gate),
        ) as keystore:
            with self._guard.access.holding(keystore, caller, gate):
                if address not in self._registered:
                    # A creation that was killed before its registry row, or a lost registry, heals here.
                    self._registered.add(address)
                    await self._engine.beside(lambda: self._book.register(address), brief=True)
                yield keystore

    async def sessions(self) -> list[SessionReport]:
        """Return every live session of this root, of all processes; clears away what dead ones left.

        Where access rules are in force: those at addresses where the caller has any right.
        """
        seen, found = await self._guard.seen(), await self._engine.beside(self._sessions.list)
        return [session for session in found if seen(session.address)]

    async def end_session(
        self, session: str, *, force: bool = False, kill: bool = False, wait: float | None = None
    ) -> SessionReport:
        """End a session by its id, whoever holds it; see `prontodb session end`. `wait` in seconds.

        Where access rules are in force, another manager's takes admin at its address.
        """
        wait_s = self._settings.wait_s if wait is None else checked_wait(wait)
        if kill and not force:
            raise InvalidInputError("kill=True goes with force=True")
        seen = await self._guard.seen()
        report = await self._engine.beside(lambda: self._sessions.find(session), brief=True)
        if not seen(report.address):
            raise SessionNotFoundError(session)
        if not self._live.has(session):
            await self._guard.allow(ADMIN, report.address)
        await self._engine.patiently(
            lambda: self._sessions.end_found(report, force=force, kill=kill, wait_s=0), wait_s=wait_s
        )
        return report

    # Addresses

    async def addresses(self) -> list[AddressRow]:
        """Return every known address with its state and size, in order; heals the registry on the way.

        Where access rules are in force: those where the caller has any right.
        """
        seen, found = await self._guard.seen(), await self._engine.beside(self._book.list)
        return [row for row in found if seen(row.address)]

    async def create(self, address: Address | str, *, encrypted: bool | None = None) -> bool:
        """Make an empty keystore; False when it exists already. After a crash it is whole or not there.

        `encrypted` None: as the setting `encrypt_new` says. Raises `SecretError` when it is to be and no key was given.
        """
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        return await self._engine.patiently(lambda: self._lifecycle.create(wanted, encrypted=encrypted))

    async def encrypt(self, address: Address | str, *, progress: Show = None) -> ResealReport:
        """Encrypt an address that is plain: written anew under a secret of its own, and put in by rename.

        Backups made before, and copies elsewhere, stay plain. What restores put aside of it is removed, so that no undo
        reaches behind it. Raises `AddressBusyError` while sessions are there, `SecretError` without a key,
        `ConflictError` when it is encrypted. After a kill at any step it is as it was, or encrypted.
        """
        return await self._reseal(address, ENCRYPT, progress)

    async def decrypt(self, address: Address | str, *, progress: Show = None) -> ResealReport:
        """Make an encrypted address plain; its key record stays for the backups of its time. See `encrypt`.

        What restores put aside of it stays encrypted, and an undo brings it back like that.
        """
        return await self._reseal(address, DECRYPT, progress)

    async def rekey(self, address: Address | str, *, drop_older: bool = False, progress: Show = None) -> ResealReport:
        """Write an encrypted address anew under a new secret. See `encrypt`.

        `drop_older` forgets the secrets it had before: backups made with them cannot be read any more, and what
        restores put aside is removed. Without it an undo reaches behind the change.
        """
        return await self._reseal(address, REKEY, progress, drop_older=drop_older)

    async def _reseal(self, address: Address | str, what: str, show: Show, *, drop_older: bool = False) -> ResealReport:
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        await self._let_go(wanted)
        return await self._upkeep.drive(
            lambda stop: self._upkeep.work.resealing(wanted, what, drop_older=drop_older, stop=stop), show
        )

    async def _let_go(self, address: Address) -> None:
        """Close what is open of an address that is about to be replaced, and write down what its sessions have left."""
        await self._engine.release(address)
        await self._live.settled()

    async def keep_history(self, address: Address | str, keep: bool = True) -> None:
        """Have the journal of an address keep the values of what is set from now on, or no longer.

        Then `restore(revision=...)` and `restore(at=...)` reach every commit, and not only what a backup has seen. It
        takes room: each value once more, until the journal is pruned. `AddressBusyError` while somebody holds it.
        """
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        await self._engine.patiently(lambda: self._lifecycle.keep_history(wanted, keep))

    async def rename(self, old: Address | str, new: Address | str) -> None:
        """Give an address another name. `AddressBusyError` while a session is at it."""
        source, target = as_address(old), as_address(new)
        await self._guard.allow(ADMIN, source)
        await self._guard.allow(ADMIN, target)
        await self._let_go(source)
        await self._engine.patiently(lambda: self._lifecycle.rename(source, target))

    async def delete(self, address: Address | str) -> bool:
        """Delete an address and all it holds; False when there is none. `AddressBusyError` while a session is at it.

        The key record of an encrypted one is destroyed first: no backup of it can be read any more.
        An address that is missing (known to the registry, without a folder) is forgotten.
        """
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        await self._let_go(wanted)
        return await self._engine.drop(wanted) or await self._engine.patiently(lambda: self._book.forget(wanted))

    async def describe(self, address: Address | str) -> AddressReport:
        """Return the facts of one address: sizes, counts, revision, lifetimes."""
        wanted = as_address(address)
        await self._guard.allow(READ, wanted)
        return await self._engine.beside(lambda: self._book.describe(wanted))

    # Across addresses

    async def copy(
        self,
        source: Address | str | Keystore,
        target: Address | str | Keystore,
        *,
        keys: Iterable[str] | None = None,
        prefix: str = "",
        on_conflict: str = "fail",
    ) -> CopyReport:
        """Copy entries of one address to another, with their expiry; the target is made when it does not exist.

        Either may be given as the handle of a session of this manager that is open; nothing else can copy into an
        address that is held exclusively. What a handle may do and what the manager's own caller may is asked then.
        All of it, the given `keys`, or those that begin with `prefix`. `on_conflict`: 'fail' (nothing is copied when
        the target has one of the keys), 'keep' the target's, or 'replace' them. What fits one batch is copied in one
        step; a new target appears complete or not at all.
        """
        async with AsyncExitStack() as stack:

            async def opened(place: Address | str | Keystore, mode: str) -> Keystore:
                if isinstance(place, Keystore):
                    return place
                address = as_address(place)
                return await stack.enter_async_context(self.session(address.user, address.cursor, mode=mode))

            destination = target.address if isinstance(target, Keystore) else as_address(target)
            wanted = copying.chosen(lambda key: check_key(key, self._settings.max_key_bytes), keys, prefix)
            copying.check_on_conflict(on_conflict)
            for place in (source, target):
                if isinstance(place, Keystore):
                    self._guard.check_handle(place)
            # Before anything is opened: what is denied tells nothing of what is there.
            for of_source in await self._gates_of(source):
                copying.check_source(of_source, wanted, prefix)
            gates = await self._gates_of(target)
            for of_target in gates:
                copying.check_target(of_target, wanted, prefix, on_conflict)
            original = await opened(source, READS_ONLY)
            if not await self._engine.beside(lambda: self._lifecycle.exists(destination), brief=True):
                if not all(of_target.may_create for of_target in gates):
                    raise AddressNotFoundError(destination)
                return await self._copy_to_new(original, destination, wanted, prefix, gates[0] if gates else None)
            copy = await opened(target, SHARED)
            return await copying.copy_many(original, copy, keys=wanted, prefix=prefix, on_conflict=on_conflict)

    async def _gates_of(self, place: Address | str | Keystore) -> list[Gate]:
        """Return all that stands before a place: what the manager's caller may do there, then what its handle may."""
        own = await self._guard.gate(place.address if isinstance(place, Keystore) else as_address(place))
        gates = (own, place._gate if isinstance(place, Keystore) else None)
        return [gate for gate in gates if gate is not None]

    async def _copy_to_new(
        self, original: Keystore, destination: Address, wanted: list[str] | None, prefix: str, gate: Gate | None
    ) -> CopyReport:
        """Build the target beside its place, complete, then publish it by one rename."""
        limits, clock = self._settings.limits, self._clock
        fence = self._guard.caller.fence(cloning.SESSION, gate=gate)
        return await self._engine.patiently(
            lambda: cloning.clone(self._lifecycle, original.address, destination, wanted, prefix, limits, clock, fence)
        )

    # Export, import

    async def export(self, address: Address | str, prefix: str = "") -> AsyncIterator[str]:
        """Yield an address's entries as JSON lines; see `import_lines`."""
        wanted = as_address(address)
        await self._guard.allow(READ, wanted, prefix)
        async with self.session(wanted.user, wanted.cursor, mode=READS_ONLY) as keystore:
            async for line in transfer.export_lines(keystore, prefix):
                yield line

    async def import_lines(
        self, address: Address | str, lines: Iterable[bytes | str], *, on_conflict: str = "fail"
    ) -> ImportReport:
        """Store exported lines at an address, made when it does not exist; all are checked before any is written."""
        wanted, limits, now_ms = as_address(address), self._settings.limits, self._clock.wall_ms()
        copying.check_on_conflict(on_conflict)
        # Before the session: a wrong import must not make an address. Beside, since it may take seconds.
        checked = await self._engine.beside(lambda: transfer.check_lines(lines, limits, now_ms))
        gate = await self._guard.gate(wanted)
        if gate is not None:
            gate.check_keys(needs(on_conflict), checked.keys)
        async with self.session(wanted.user, wanted.cursor, mode=SHARED) as keystore:
            return await transfer.store(keystore, checked, on_conflict=on_conflict)

    # Jobs: each can be called by hand, or runs on schedule (`open(jobs=True)`, `prontodb jobs run`)

    async def sweep(self, *, trust_clock: bool = False, progress: Show = None) -> SweepReport:
        """Delete expired entries everywhere, in small steps; addresses held by other processes are counted, not swept.

        Skipped, and the report says why, after the wall clock was set by more than five minutes: unless `trust_clock`.
        """
        await self._guard.allow(ADMIN)
        return await self._upkeep.sweep(trust_clock=trust_clock, show=progress)

    async def backup(
        self,
        *,
        full: bool = False,
        user: str | None = None,
        cursor: str | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: Show = None,
    ) -> BackupReport:
        """Back up every address, or those of one user, or one; live keystores too, and no writer waits for it.

        Writes what changed since the last backup of the same scope, or with `full` (and where there is none) whole
        snapshots. Into the root's `backups/`, or the folder `output`, made when missing. The backup exists from one
        instant on or not at all. An address that cannot be read is named in `failed` and keeps nobody from the others.
        Raises `BusyError` while another backup is being made there, `StorageFullError`, `UnsafePathError`.
        """
        await self._guard.allow(READ, scope_of(user, cursor))
        return await self._upkeep.drive(
            lambda stop: self._upkeep.work.backup(full=full, user=user, cursor=cursor, output=output, stop=stop),
            progress,
        )

    async def backups(self, place: str | None = None) -> Listing:
        """Return the backups of this root, or of a folder given as a path: the oldest first, and what is unreadable."""
        await self._guard.allow(READ)
        return await self._engine.beside(lambda: self._upkeep.work.backups(place))

    async def verify(self, backup: str | None = None, *, progress: Show = None) -> VerifyReport:
        """Test backups: every file by its hash, and states put together again in a scratch folder, entry by entry.

        `backup` is an id or a path; None tests every file of all backups and tries some. Damage is in the report.
        """
        await self._guard.allow(READ)
        return await self._upkeep.drive(lambda stop: self._upkeep.work.verify(backup, stop=stop), progress)

    async def prune(self, *, dry_run: bool = False, progress: Show = None) -> PruneReport:
        """Remove the backups that the retention policy does not keep; `dry_run` only says which."""
        await self._guard.allow(ADMIN)
        return await self._upkeep.drive(lambda _: self._upkeep.work.prune(dry_run=dry_run), progress)

    async def verify_audit(self, address: Address | str | None = None, *, progress: Show = None) -> AuditReport:
        """Test the journal of an address, or of all, against itself, its anchors and the entries; see `ops/audit.md`.

        The first bad record of each is named in the report, and how far back the anchors reach. Never blocks a writer.
        """
        wanted = () if address is None else (as_address(address),)
        await self._guard.allow(READ, *wanted)
        return await self._upkeep.drive(lambda stop: self._upkeep.work.audits.verify(wanted, stop=stop), progress)

    async def audit(
        self,
        address: Address | str,
        *,
        key: str | None = None,
        session: str | None = None,
        since: int | str | datetime | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """Return the last records of an address's journal, the newest last: who changed what, and when.

        Of one `key`, of one `session`, `since` a revision or a moment (an aware datetime, or ISO text).
        """
        place, wanted = as_address(address), wanted_records(key=key, session=session, since=since, limit=limit)
        await self._guard.allow(READ, place)
        return (await self._engine.beside(lambda: self._upkeep.work.audits.records(place, wanted)))[0]

    async def compact(self, *, progress: Show = None) -> CompactReport:
        """Prune journals, give free pages back to the disk and cut logs: files really shrink."""
        await self._guard.allow(ADMIN)
        return await self._upkeep.compact(show=progress)

    async def reap(self) -> ReapReport:
        """Clear away what dead sessions left."""
        await self._guard.allow(ADMIN)
        return await self._upkeep.reap()

    async def restore(
        self,
        backup: str | None = None,
        *,
        user: str | None = None,
        cursor: str | None = None,
        to: Address | str | None = None,
        at: str | datetime | None = None,
        revision: int | None = None,
        into: str | os.PathLike[str] | None = None,
        progress: Show = None,
    ) -> RestoreReport:
        """Bring addresses back to what a backup has of them: all in it, those of one user, or one.

        `backup` is an id, or a path; None takes the newest, or the newest up to `at` (an aware datetime, or ISO text)
        or to `revision` of one address. Where an address keeps its history, its state at just that point is made from
        what came after the backup.
        `to` gives a single address another name, `into` is another root, made when missing. Everything is tested
        before anything is touched; each address is built beside its place and put in by rename, and what it held is
        kept for `undo_restore`. Raises `AddressBusyError` while sessions are there, `CorruptError` for a damaged
        backup, `NotFoundError`.
        """
        target = None if to is None else as_address(to)
        until = Until(None if at is None else moment_of(at), revision)
        root = None if into is None else resolved(checked_root(as_path(into), "into"))
        await self._guard.allow_restore(scope_of(user, cursor), target, None if root is None else Layout(root))
        restoring = await self._engine.beside(
            lambda: self._upkeep.work.restoring(backup, user=user, cursor=cursor, target=target, until=until, into=root)
        )
        if root is None:
            for address in restoring.targets:
                await self._let_go(address)

        def steps(stop: Callable[[], bool]) -> Generator[Progress, None, RestoreReport]:
            restoring.stop = stop
            return restoring.steps()

        return await self._upkeep.drive(steps, progress)

    async def undo_restore(self, address: Address | str, *, redo: bool = False) -> None:
        """Change an address with what its last restore put aside; once more goes one restore further back.

        `redo`: with what the last undo put aside. Kept for the setting `undo_days`; then `NotFoundError`.
        """
        wanted = as_address(address)
        await self._guard.allow(ADMIN, wanted)
        await self._let_go(wanted)
        await self._engine.beside(lambda: self._upkeep.work.undo_restore(wanted, redo=redo))

    async def migrate(
        self,
        source: str | os.PathLike[str],
        *,
        mapping: Mapping[str, Address | str] | None = None,
        delimiter: str = ".",
        on_conflict: str = "keep",
        skip: Iterable[str] = (),
        dry_run: bool = False,
        report_to: str | os.PathLike[str] | None = None,
        scratch: str | os.PathLike[str] | None = None,
        progress: Show = None,
    ) -> MigrationReport:
        """Bring over an old database, the old program's folder, or an old backup; see `prontodb help migrate`.

        `mapping`: addresses by the names of old places, as the report has them in `places`; `skip`: files of the
        source to leave out. Keys that an address has with something else are kept and reported, or with `on_conflict`
        'replace' written over, or with 'fail' nothing is written and `ConflictError` raised. `report_to` is a file for
        all reported rows (JSON lines), `scratch` the folder for private copies of the source meanwhile.
        The source is only read. Each address is put in whole by one rename; one that is held, or fails otherwise, is in
        `failed` and stays as it was. Raises `InvalidSourceError`, `BusyError` for a source in use, `NotFoundError`,
        before anything is written.
        """
        await self._guard.allow(ADMIN)
        # Here alone: whoever opens a manager need not pay for what is done once.
        from prontodb.migration.plan import Options

        options = Options(
            mapping={old: as_address(address) for old, address in (mapping or {}).items()},
            delimiter=delimiter,
            on_conflict=on_conflict,
            skip=tuple(skip),
        )
        return await self._upkeep.migrate(
            source,
            options,
            dry_run=dry_run,
            scratch=None if scratch is None else as_path(scratch),
            report_to=None if report_to is None else as_path(report_to),
            show=progress,
        )

    async def run_job(self, name: str, *, progress: Show = None) -> JobResult:
        """Run one of the jobs now, as the schedule would: recorded, within its rules. Raises when it failed."""
        await self._guard.allow(ADMIN)
        return await self._upkeep.run_job(name, progress)

    async def jobs(self) -> list[JobRow]:
        """Return every job with its schedule, its last run and its next."""
        await self._guard.allow(READ)
        return await self._engine.beside(self._jobs.list)

    async def job_runs(self, name: str | None = None, *, limit: int = 50) -> list[Run]:
        """Return the last runs of one job or of all, the newest first."""
        await self._guard.allow(READ)
        return await self._engine.beside(lambda: self._jobs.runs(name, limit))

    async def pause_jobs(self, name: str | None = None) -> None:
        """Drop the beats of a job, or of all jobs, from now on and in all processes, until `resume_jobs`."""
        await self._guard.allow(ADMIN)
        await self._engine.beside(lambda: self._jobs.pause(name))

    async def resume_jobs(self, name: str | None = None) -> None:
        """Go on with a job that was paused, or with all."""
        await self._guard.allow(ADMIN)
        await self._engine.beside(lambda: self._jobs.resume(name))

    async def doctor(self, *, deep: bool = False, repair: bool = False) -> DoctorReport:
        """Examine the whole root; with `repair`, heal what can be healed safely."""
        await self._guard.allow(ADMIN if repair else READ)
        layout, limits = self._lifecycle.layout, self._settings.limits
        return await self._engine.beside(lambda: examine(layout, limits, self._clock, deep=deep, repair=repair))


def as_path(root: object) -> str:
    path = os.fspath(root) if isinstance(root, os.PathLike) else root
    if not isinstance(path, str):
        raise InvalidInputError(f"root must be a path as text or a Path, not {type(path).__name__}")
    return path

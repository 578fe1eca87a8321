"""Restoring: every file tested first, each address built beside its place and put in by rename, the old one kept."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from prontodb.backup.chain import Chains, Link, put_together
from prontodb.backup.container import file_fault
from prontodb.backup.create import in_scope
from prontodb.backup.history import Until, changes_after
from prontodb.engine.sqlite import inspection, replay, snapshot, transcribing
from prontodb.engine.sqlite.digest import digest_of
from prontodb.errors import (
    AddressBusyError,
    BackupNotFoundError,
    CorruptError,
    InvalidInputError,
    NotFoundError,
    ProntoError,
    shown,
    told,
)
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.moments import text_of
from prontodb.model.progress import Progress, never
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from prontodb.backup.container import Container, Listing
    from prontodb.backup.manifest import Manifest
    from prontodb.engine.sqlite.increment import JournalRow
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder


BUSY_TIMEOUT_MS = 5_000
_SEALED_BEFORE = "sealed-before.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """One address that was restored: `address` in the backup, `target` now; `kept` says whether an undo is possible."""

    address: Address
    target: Address
    backup: str
    revision: int
    entries: int
    at_ms: int
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What a restore did. `failed`: addresses that stayed as they were, each with the reason."""

    backup: str
    restored: tuple[Restored, ...]
    failed: tuple[tuple[str, str], ...]
    size_bytes: int
    seconds: float


def choose(listing: Listing, scope: str, until: Until) -> Manifest:
    """Return the newest backup, up to a moment or revision, that has what the scope names; else `NotFoundError`."""
    chains = Chains.of(listing)
    for manifest in reversed(listing.backups):
        if until.at_ms is not None and manifest.ended_at_ms > until.at_ms:
            continue
        if scope == "" and manifest.scope != "":
            continue
        try:
            tips = chains.tips(manifest.id)
        except CorruptError as error:
            event("backup.chain_broken", backup=manifest.id, reason=str(error))
            continue
        held = [link.piece for address, link in tips.items() if in_scope(Address.parse(address), scope)]
        if any(until.revision is None or piece.revision <= until.revision for piece in held):
            if not until:
                _refuse_unreadable(listing, manifest)
            return manifest
    whose = f"of {scope}" if scope else "of all addresses"
    when = "" if until.at_ms is None else f" from {text_of(until.at_ms)} or before"
    when += "" if until.revision is None else f" at revision {until.revision} or before"
    raise NotFoundError(f"there is no backup {whose}{when}; 'prontodb backup list' shows all")


def _held(tips: dict[str, Link], name: str) -> bool:
    """True when a backup has a state of an address, or any of a user."""
    return any(name in (address, address.partition("/")[0]) for address in tips)


def _refuse_unreadable(listing: Listing, chosen: Manifest) -> None:
    """Raise when a backup that looks newer cannot be read: an older state must not pass for the newest in silence."""
    newer = [broken for broken in listing.unreadable if broken.id > chosen.id]
    if newer:
        raise CorruptError(
            f"backup {newer[-1].id} is newer, and cannot be used: {newer[-1].reason}; to restore the one before it, "
            f"name that: {chosen.id}"
        )


class Restoring:
    """One restore into one root. `steps` does the work: first all files are read, then address by address.

    `newest`: the newest state there is, wherever that is, of addresses that the backup itself could not read.
    """

    def __init__(
        self,
        container: Container,
        listing: Listing,
        manifest: Manifest,
        lifecycle: Lifecycle,
        clock: Clock,
        *,
        scope: str,
        source: Layout,
        newest: bool = False,
        target: Address | None = None,
        until: Until,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._container, self._listing, self._lifecycle, self._clock = container, listing, lifecycle, clock
        self._manifest, self._source, self._until, self.stop = manifest, source, until, stop
        self.remember: Callable[[dict[str, str]], None] = lambda _: None
        """Called with what was put aside so far, by address: what an undo without a name is for."""
        chains = Chains.of(listing)
        tips = chains.tips(manifest.id)
        self._lost: list[tuple[str, str]] = []
        if newest:
            tips |= self._from_older(chains, tips)
        else:
            self._lost += [(name, reason) for name, reason in manifest.failed if not _held(tips, name)]
        addresses = sorted((Address.parse(name), link) for name, link in tips.items())
        wanted = [(address, chains.links(tip)) for address, tip in addresses if in_scope(address, scope)]
        self._lost = [(name, reason) for name, reason in self._lost if scope in ("", name, name.partition("/")[0])]
        if not wanted:
            raise NotFoundError(f"backup {manifest.id} holds nothing of {shown(scope)}; see 'prontodb backup show'")
        if target is not None and len(wanted) != 1:
            raise InvalidInputError(f"{len(wanted)} addresses cannot become one: name a user and a cursor")
        self._wanted = [(address, target or address, links) for address, links in wanted]

    def _from_older(self, chains: Chains, tips: dict[str, Link]) -> dict[str, Link]:
        """Return the last good state of addresses that could not be read when the newest backup was made."""
        found: dict[str, Link] = {}
        older = [one for one in self._listing.backups if one.created_at_ms < self._manifest.created_at_ms]
        failed = dict(self._manifest.failed)
        for parent in chains.line(self._manifest.id):
            # Of a user whose whole folder could not be read, whoever could not be read before is missing, too.
            failed |= {name: why for name, why in parent.failed if name.partition("/")[0] in failed}
        for name, reason in failed.items():
            before = len(found)
            if _held(tips, name):
                continue  # as it was in what this backup builds on
            for manifest in reversed(older):
                try:
                    held = chains.tips(manifest.id)
                except CorruptError:
                    continue
                # A user's name alone: their whole folder could not be read.
                ours = {a: link for a, link in held.items() if name in (a, a.partition("/")[0]) and a not in tips}
                if ours:
                    found |= ours
                    break
            if len(found) == before:
                self._lost.append((name, f"it could not be read when the backup was made: {reason}"))
        return found

    @property
    def backup(self) -> str:
        """The id of the backup."""
        return self._manifest.id

    @property
    def made_at_ms(self) -> int:
        """When the backup was made."""
        return self._manifest.created_at_ms

    @property
    def replaced(self) -> list[Address]:
        """The addresses that are there now and will be replaced."""
        return [target for target in self.targets if self._lifecycle.exists(target)]

    @property
    def targets(self) -> list[Address]:
        """The addresses that will be replaced or made."""
        return [target for _, target, _ in self._wanted]

    def steps(self) -> Generator[Progress, None, RestoreReport]:
        """Do it; yields after each file tested and each address restored.

        Raises `CorruptError` for a damaged backup and `AddressBusyError` while sessions live, before anything is
        touched. An address that fails later stays as it was, and the others go on.
        """
        begun = perf_counter()
        self._kept: dict[str, str] = {}
        files = {(link.backup, link.piece.file): link for _, _, links in self._wanted for link in links}
        total = len(files) + len(self._wanted)
        size = sum(link.piece.size_bytes for link in files.values())
        read = done = 0
        self._check_nobody_there()
        for link in files.values():
            self._test(link)
            read, done = read + link.piece.size_bytes, done + 1
            yield Progress(what=f"testing {link.piece.file}", done=done, total=total, done_bytes=read, total_bytes=size)
        restored: list[Restored] = []
        failed = list(self._lost)
        self.remember({})  # killed from here on, it is not the restore before that an undo of all is for
        try:
            for address, target, links in self._wanted:
                try:
                    restored.append(self._one(address, target, links))
                except ProntoError as error:
                    failed.append((str(target), told(error)))
                    if len(self._wanted) == 1:
                        raise
                done += 1
                yield Progress(what=str(target), done=done, total=total, done_bytes=read, total_bytes=size)
        finally:
            self.remember(self._kept)
        return RestoreReport(
            backup=self._manifest.id,
            restored=tuple(restored),
            failed=tuple(failed),
            size_bytes=size,
            seconds=perf_counter() - begun,
        )

    def _check_nobody_there(self) -> None:
        busy: list[AddressBusyError] = []
        for target in self.targets:
            if not self._lifecycle.exists(target):
                continue
            try:
                with self._lifecycle.hold(target, f"restore {target}", wait_s=0):
                    self._lifecycle.check_no_sessions(target)
            except AddressBusyError as error:
                # A command that is just writing will have ended when its turn comes.
                if any(getattr(holder, "session", None) for holder in error.holders):
                    busy.append(error)
        if len(busy) == 1:
            raise busy[0]
        if busy:
            names = ", ".join(str(error.address) for error in busy[:10])
            more = f" and {len(busy) - 10} more" if len(busy) > 10 else ""
            first = busy[0]
            raise AddressBusyError(
                first.address, f"sessions live at {len(busy)} addresses ({names}{more}): {first}", first.holders
            )

    def _test(self, link: Link) -> None:
        with self._container.open(link.backup) as folder:
            fault = file_fault(folder, link.piece)
        if fault is not None:
            if not self._container.holds(link.backup):
                raise BackupNotFoundError(link.backup)
            raise CorruptError(f"backup {link.backup} is damaged: {fault}; nothing was touched, restore another one")

    def _one(self, address: Address, target: Address, links: tuple[Link, ...]) -> Restored:
        piece = links[-1].piece
        revision, entries, at_ms = piece.revision, piece.entries, piece.at_ms
        # Before its keystore is replaced, which may be what tells of them.
        rows = changes_after(
            self._container,
            self._listing,
            self._source,
            address,
            links[-1],
            self._until,
            made_at_ms=self._manifest.created_at_ms,
            busy_ms=BUSY_TIMEOUT_MS,
        )

        def build(folder: Folder, secret: Secret | None) -> tuple[int, Mapping[str, str]]:
            nonlocal revision, entries, at_ms
            put_together(self._container, links, folder, KEYSTORE_FILE, stop=self.stop)
            path = f"{folder.path}/{KEYSTORE_FILE}"
            sealed_with = self._container.secret_of(links[0].piece)
            if rows:
                revision, entries = _carry_on(path, rows, links[0].piece.faults, sealed_with)
                at_ms = rows[-1][2]
            if secret != sealed_with:
                _transcribe(folder, sealed_with, secret, self.stop)
            snapshot.make_new(path, secret)
            folder.sync_file(KEYSTORE_FILE)
            created_at_ms = self._clock.wall_ms() if piece.created_at_ms is None else piece.created_at_ms
            return created_at_ms, piece.labels

        kept = self._lifecycle.restore(target, build, like=links[0].piece.encryption)
        if kept is not None:
            self._kept[str(target)] = kept
        return Restored(
            address=address,
            target=target,
            backup=links[-1].backup,
            revision=revision,
            entries=entries,
            at_ms=at_ms,
            kept=kept is not None,
        )


def _transcribe(folder: Folder, before: Secret | None, after: Secret | None, stop: Callable[[], bool]) -> None:
    """Have another secret open the keystore in a folder than the one it was backed up with."""
    folder.rename(KEYSTORE_FILE, _SEALED_BEFORE)
    source = snapshot.open_copy(f"{folder.path}/{_SEALED_BEFORE}", before)
    try:
        for _ in transcribing.steps(source, folder, KEYSTORE_FILE, after, stop):
            pass
    finally:
        source.close()
    folder.remove(_SEALED_BEFORE)


def _carry_on(path: str, rows: list[JournalRow], faults: int, secret: Secret | None) -> tuple[int, int]:
    """Make later changes in a staged copy, and test the result; return its revision and how many entries it has.

    `faults`: in how many places the copy contradicts itself already.
    """
    staged = snapshot.open_staged(path, secret)
    try:
        snapshot.begin(staged)
        mark = replay.carry_on(staged, rows)
        snapshot.end(staged, path)
        wrong = inspection.faults(staged, path, deep=True)
        if len(wrong) > faults:
            raise CorruptError(f"what the history makes of it is not whole: {wrong[0]}")
        return mark.revision, digest_of(staged).entries
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        staged.close()

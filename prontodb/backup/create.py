"""Making a backup: a snapshot or a segment of each address, from live keystores, without any lock of theirs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING

from prontodb.backup.chain import Chains, Link, rows_before
from prontodb.backup.container import new_backup_id
from prontodb.backup.manifest import FULL, INCREMENTAL, LATEST_MS, SEGMENT, SNAPSHOT, Manifest, Piece, file_name
from prontodb.backup.segment import LineTooLongError, write
from prontodb.engine.sqlite import folders, metadata, opening, snapshot
from prontodb.engine.sqlite.digest import row_hash
from prontodb.engine.sqlite.increment import Reading
from prontodb.engine.sqlite.knowledge import Knowledge
from prontodb.errors import (
    AddressNotFoundError,
    CorruptError,
    InvalidAddressError,
    InvalidInputError,
    ProntoError,
    StoppedError,
    StorageFullError,
    UnavailableError,
    shown,
)
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.progress import Progress, never
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from prontodb.backup.container import Container, Staged
    from prontodb.engine.sqlite.increment import Row
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection

MAX_SEGMENT_CHANGES = 250_000
"""Past this many changes a whole copy is quicker, and takes no memory for their keys."""
MAX_LINKS = 100
"""Segments that one snapshot carries, so that putting a chain together keeps a bound."""
LEAST_CHAIN_BYTES = 4 * 1024 * 1024
"""Segments of one address together may unpack to as much as its snapshot, or to this if that is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What making a backup did. `id` None: nothing had changed since `parent`, so none was made."""

    id: str | None
    kind: str
    scope: str
    parent: str | None
    path: str | None
    addresses: int
    """Addresses whose state it has."""
    snapshots: int
    segments: int
    unchanged: int
    gone: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """Addresses that could not be read, each with the reason; their last good state stays in older backups."""
    doubtful: tuple[tuple[str, str], ...]
    """Addresses that contradict themselves, and were copied whole as they are: each with the first contradiction."""
    size_bytes: int
    seconds: float
    copied: tuple[str, ...] = ()
    """Backups that were copied to the second place, where the settings name one."""
    not_copied: str | None = None
    """Why the second place has not all of them; None when it has, or there is none."""


def checked_scope(user: object, cursor: object) -> str:
    """Return whose backup is meant: '' everybody's, a user, or an address."""
    if user is None:
        if cursor is not None:
            raise InvalidInputError("a cursor goes with a user: name both, or none for all addresses")
        return ""
    if not isinstance(user, str) or not isinstance(cursor, str | None):
        raise InvalidInputError("user and cursor must be text, or None")
    if cursor is None:
        return Address(user).user
    return str(Address(user, cursor))


def in_scope(address: Address, scope: str) -> bool:
    """True when a backup of that scope has this address."""
    return scope in ("", address.user, str(address))


class Making:
    """One run that makes one backup. `steps` does the work, an address each step.

    `root` is the root's id; in a container that is `shared` with other roots only its own backups are built on.
    """

    def __init__(
        self,
        container: Container,
        layout: Layout,
        limits: Limits,
        clock: Clock,
        *,
        root: str,
        shared: bool,
        scope: str,
        full: bool,
        knowledge: Knowledge,
        damaged: frozenset[str] = frozenset(),
        stop: Callable[[], bool] = never,
    ) -> None:
        self._container, self._layout, self._limits, self._clock = container, layout, limits, clock
        self._scope, self._full, self._knowledge, self._stop = scope, full, knowledge, stop
        self._damaged, self._root, self._shared = damaged, root, shared
        self._busy_ms = round(limits.wait_s * 1_000)
        self._chains: Chains | None = None
        self._parent: Manifest | None = None
        self._tips: dict[str, Link] = {}
        self._staged: Staged | None = None
        self._pieces: list[Piece] = []
        self._failed: list[tuple[str, str]] = []
        self._doubtful: list[tuple[str, str]] = []
        self._unchanged = 0

    def steps(self) -> Generator[Progress, None, BackupReport]:
        """Make the backup; yields after each address. Raises `BusyError` when another backup runs here."""
        begun, now_ms = perf_counter(), self._clock.wall_ms()
        if not os.path.isdir(self._layout.root):
            self._check_there([])
            return self._report(None, 0.0, 0)  # and no root is made for it
        with self._container.hold(f"backup of {self._scope or 'all addresses'}", wait_s=0):
            self._find_parent()
            closed: list[tuple[str, str]] = []
            wanted = sorted(
                (address, stamp)
                for address, stamp in folders.stamps(self._layout, closed)
                if in_scope(address, self._scope)
            )
            self._check_there(wanted)
            self._failed += [(user, reason) for user, reason in closed if self._scope.partition("/")[0] in ("", user)]
            # After the newest that is here, also when the clock was set back: what is newer must look so.
            newest = next(self._container.newest_first(), None)
            now_ms = max(now_ms, 0 if newest is None else newest.created_at_ms + 1)
            if now_ms > LATEST_MS:
                raise UnavailableError("the clock is past the year 5138, or was; mend it")
            backup = new_backup_id(now_ms)
            try:
                for done, (address, stamp) in enumerate(wanted, 1):
                    self._one(backup, address, stamp)
                    yield Progress(
                        what=str(address),
                        done=done,
                        total=len(wanted),
                        done_bytes=self._size_bytes(),
                    )
                published = self._publish(backup, now_ms, {str(address) for address, _ in wanted}, closed)
            finally:
                if self._staged is not None:
                    self._staged.discard()
            self._knowledge.keep()
        return self._report(published, perf_counter() - begun, len(wanted))

    def _size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self._pieces)

    def _find_parent(self) -> None:
        if self._full:
            return
        self._chains = Chains(self._container.find)
        for manifest in self._container.newest_first():
            if manifest.scope != self._scope or (self._shared and manifest.root != self._root):
                continue
            try:
                if self._damaged.intersection(one.id for one in self._chains.line(manifest.id)):
                    continue  # what is built on it could not be restored
                self._tips = self._chains.tips(manifest.id)
            except CorruptError as error:
                event("backup.chain_broken", backup=manifest.id, reason=str(error))
                continue
            self._parent = manifest
            return

    def _check_there(self, wanted: list[tuple[Address, folders.Stamp | None]]) -> None:
        if wanted or not self._scope or self._parent is not None:
            return
        user, slash, _ = self._scope.partition("/")
        if slash:
            raise AddressNotFoundError(Address.parse(self._scope))
        raise InvalidAddressError(f"user {shown(user)} has no address; 'prontodb address list' shows all")

    # One address

    def _one(self, backup: str, address: Address, stamp: folders.Stamp | None) -> None:
        name = str(address)
        tip = self._tips.get(name)
        if tip is not None:
            fact = self._knowledge.of(address, stamp)
            if fact is not None and fact.mark == tip.piece.mark:
                self._unchanged += 1
                return
        try:
            piece = self._piece(backup, address, stamp, tip)
        except ProntoError as error:
            if not folders.exists(self._layout, address):
                return  # deleted at this moment
            # Never said of the address: the backup's disk is full, or somebody stops the whole of it.
            if isinstance(error, snapshot.CopyFullError | StoppedError) or self._stop():
                raise
            self._failed.append((name, str(error)))
            event("backup.failed", address=address, reason=str(error))
            return
        if piece is None:
            self._unchanged += 1
        else:
            self._pieces.append(piece)

    def _piece(self, backup: str, address: Address, stamp: folders.Stamp | None, tip: Link | None) -> Piece | None:
        if tip is not None:
            try:
                piece = self._segment(backup, address, stamp, tip)
            except _WholeCopyNeeded as reason:
                event("backup.chain_anew", address=address, reason=str(reason))
            else:
                return piece
        staged = self._staging(backup)
        at_ms = self._clock.wall_ms()
        file = file_name(address, SNAPSHOT)
        try:
            state = snapshot.copy_whole(
                self._layout,
                address,
                staged.folder,
                file,
                busy_timeout_ms=self._busy_ms,
                stop=self._stop,
                look=lambda connection: self._knowledge.learn(address, connection, stamp, at_ms),
            )
            size, sha256 = _hashed(staged, file)
        except BaseException:
            staged.folder.remove(file)
            raise
        if state.contradictions:
            self._doubtful.append((str(address), state.contradictions[0]))
            event("backup.doubtful", address=address, reason=state.contradictions[0])
        return self._described(
            address, SNAPSHOT, state, at_ms, faults=len(state.contradictions),
            size_bytes=size, raw_bytes=size, sha256=sha256, parent=None, since=0,
        )  # fmt: skip

    def _segment(self, backup: str, address: Address, stamp: folders.Stamp | None, tip: Link) -> Piece | None:
        """Write what changed since the piece before; None when nothing did."""
        at_ms = self._clock.wall_ms()

        def work(connection: Connection) -> Piece | None:
            reading = Reading(connection, tip.piece.mark)
            self._knowledge.learn(address, connection, stamp, at_ms)
            if reading.now == tip.piece.mark:
                return None
            links = self._goes_on(reading, tip, connection.secret)
            return self._written(backup, address, reading, links, at_ms, connection.secret)

        return opening.read(self._layout, address, work, busy_timeout_ms=self._busy_ms)

    def _goes_on(self, reading: Reading, tip: Link, secret: Secret | None) -> tuple[Link, ...]:
        """Return the chain that a segment goes on from; raise when it is better begun anew."""
        assert self._chains is not None
        if not reading.goes_on:
            raise _WholeCopyNeeded("its journal does not go back to the backup before")
        if tip.piece.encryption != (None if secret is None else secret.name):
            raise _WholeCopyNeeded("it has another secret than the backup before")  # and its digest another key
        if reading.now.revision - tip.piece.revision > MAX_SEGMENT_CHANGES:
            raise _WholeCopyNeeded("it changed too much")
        try:
            links = self._chains.links(tip)
        except CorruptError as error:
            raise _WholeCopyNeeded(str(error)) from error
        first, *rest = links
        if len(rest) >= MAX_LINKS or sum(link.piece.raw_bytes for link in rest) > max(
            first.piece.size_bytes, LEAST_CHAIN_BYTES
        ):
            raise _WholeCopyNeeded("its chain has grown long")
        return links

    def _written(
        self,
        backup: str,
        address: Address,
        reading: Reading,
        links: tuple[Link, ...],
        at_ms: int,
        secret: Secret | None,
    ) -> Piece:
        tip = links[-1]
        come: list[int] = []
        keys: list[str] = []
        hash_key = b"" if secret is None else secret.digest_key

        def each(rows: list[Row]) -> None:
            keys.extend(row[0] for row in rows)
            come.extend(row_hash(row, hash_key) for row in rows)

        staged, file = self._staging(backup), file_name(address, SEGMENT)
        try:
            written = write(staged.folder, file, str(address), reading, each, secret)
        except StorageFullError as error:
            raise snapshot.CopyFullError(str(error)) from error
        except LineTooLongError as error:
            raise _WholeCopyNeeded("something that changed is too large for a segment") from error
        try:
            before = rows_before(self._container, links, (*keys, *reading.gone))
        except ProntoError as error:
            staged.folder.remove(file)
            raise _WholeCopyNeeded(str(error)) from error
        digest = tip.piece.content.changed(before.values(), come)
        state = snapshot.State(mark=reading.now, floor=reading.floor, digest=digest, contradictions=(), secret=secret)
        return self._described(
            address, SEGMENT, state, at_ms, faults=tip.piece.faults,
            size_bytes=written.size_bytes, raw_bytes=written.raw_bytes, sha256=written.sha256,
            parent=tip.backup, since=tip.piece.revision,
        )  # fmt: skip

    def _described(self, address: Address, kind: str, state: snapshot.State, at_ms: int, **of_its_file: Any) -> Piece:
        created_at_ms, labels = self._about(address)
        return Piece(
            address=str(address),
            kind=kind,
            file=file_name(address, kind),
            incarnation=state.mark.incarnation,
            revision=state.mark.revision,
            floor=state.floor,
            chain=state.mark.chain,
            entries=state.digest.entries,
            digest=state.digest.hex,
            at_ms=at_ms,
            created_at_ms=created_at_ms,
            labels=labels,
            encryption=None if state.secret is None else state.secret.name,
            **of_its_file,
        )

    def _about(self, address: Address) -> tuple[int | None, dict[str, str]]:
        try:
            with opening.open_folder(self._layout, address) as folder:
                found = metadata.read(folder)
        except ProntoError:
            return None, {}  # it describes only; the keystore works without
        return found.created_at_ms, dict(found.labels)

    def _staging(self, backup: str) -> Staged:
        """Return the folder of this backup, made when there is something to put into it."""
        if self._staged is None:
            self._staged = self._container.stage(backup, self._kind)
        return self._staged

    @property
    def _kind(self) -> str:
        return FULL if self._parent is None else INCREMENTAL

    # The whole

    def _publish(self, backup: str, now_ms: int, there: set[str], closed: list[tuple[str, str]]) -> Manifest | None:
        # What lies in a folder that could not be looked into is not gone.
        hidden = {user for user, _ in closed}
        gone = tuple(sorted(name for name in self._tips if name not in there and name.partition("/")[0] not in hidden))
        if not self._pieces and not gone:
            return None
        staged = self._staging(backup)
        manifest = Manifest(
            id=backup,
            root=self._root,
            kind=self._kind,
            scope=self._scope,
            parent=None if self._parent is None else self._parent.id,
            created_at_ms=now_ms,
            ended_at_ms=max(now_ms, self._clock.wall_ms()),
            prontodb=import_module("prontodb").__version__,
            sqlite=sqlite.LIBRARY_VERSION,
            pieces=tuple(self._pieces),
            gone=gone,
            failed=tuple(self._failed),
            unchanged=self._unchanged,
        )
        staged.publish(manifest)
        self._staged = None
        event("backup.made", backup=backup, kind=manifest.kind, pieces=len(manifest.pieces), bytes=manifest.size_bytes)
        return manifest

    def _report(self, made: Manifest | None, seconds: float, addresses: int) -> BackupReport:
        parent = None if self._parent is None else self._parent.id
        path = None
        if made is not None:
            with self._container.open(made.id) as folder:
                path = folder.path
        return BackupReport(
            id=None if made is None else made.id,
            kind=self._kind,
            scope=self._scope,
            parent=parent,
            path=path,
            addresses=addresses - sum("/" in name for name, _ in self._failed),
            snapshots=sum(piece.kind == SNAPSHOT for piece in self._pieces),
            segments=sum(piece.kind == SEGMENT for piece in self._pieces),
            unchanged=self._unchanged,
            gone=() if made is None else made.gone,
            failed=tuple(self._failed),
            doubtful=tuple(self._doubtful),
            size_bytes=self._size_bytes(),
            seconds=seconds,
        )


class _WholeCopyNeeded(Exception):  # noqa: N818 - no error: the other way is taken
    """Why a segment will not do."""


def _hashed(staged: Staged, file: str) -> tuple[int, str]:
    import hashlib

    digest, size = hashlib.sha256(), 0
    for chunk in staged.folder.chunks(file):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()

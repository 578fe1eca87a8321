"""The sessions of all processes: listed by their lock files, cleared away when dead, ended on request or by force."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import fencing
from prontodb.errors import (
    AddressBusyError,
    AddressNotFoundError,
    BusyError,
    CorruptError,
    FencedError,
    InvalidAddressError,
    InvalidInputError,
    ProntoError,
    SessionNotFoundError,
    UnavailableError,
    shown,
)
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.holder import SHARED, is_session_id, moment
from prontodb.model.layout import ADDRESS_LOCK_FILE, GATE_LOCK_FILE, LOCKS, REGISTRY, RETIRED_LOCKS
from prontodb.storage import holders, lock, process
from prontodb.storage.files import open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits
    from prontodb.registry.sessions import SessionRegistry, SessionRow
    from prontodb.storage.connection import Connection
    from prontodb.storage.files import Folder

POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """One live session. Moments in milliseconds; `last_seen_ms` None: it is not in the registry (yet)."""

    id: str
    address: Address
    mode: str
    pid: int | None
    program: str
    host: str
    pid_namespace: str | None
    process_started: int | None
    boot: str | None
    started_at_ms: int | None
    last_seen_ms: int | None
    epoch: int | None
    labels: dict[str, str]

    def __str__(self) -> str:
        at = "" if self.started_at_ms is None else f" since {moment(self.started_at_ms)}"
        return f"{self.mode} session {self.id} of pid {self.pid} {shown(self.program)} on {self.host}{at}"

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-able fields, the address as text."""
        fields: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"address": str(self.address)}


class SessionBook:
    """Lists and ends the sessions of one root. Synchronous; it belongs on a worker thread.

    `notes` is what the calls so far have to tell the reader; whoever shows them empties the list.
    """

    def __init__(self, lifecycle: Lifecycle, registry: SessionRegistry, clock: Clock, limits: Limits) -> None:
        self._lifecycle, self._registry, self._clock, self._limits = lifecycle, registry, clock, limits
        self._layout = lifecycle.layout
        self.notes: list[str] = []

    # Looking

    def at(self, address: Address) -> list[SessionReport]:
        """Return the live sessions at one address; the dead are cleared away on the way."""
        return _reports(address, self._living(address), self._seen())

    def find(self, session: str) -> SessionReport:
        """Return one live session, else raise `SessionNotFoundError`."""
        if not is_session_id(session):
            raise InvalidInputError(f"{shown(session)} is no session's id; 'prontodb session list' shows them")
        for address in self._locked():
            for found in self._looked(address, lambda address: holders.at(self._layout.root, self._parts(address))):
                if found.session == session and found.live:
                    return _reports(address, [found], self._seen())[0]
        raise SessionNotFoundError(session)

    def _parts(self, address: Address) -> tuple[str, ...]:
        return self._layout.lock_parts(address)

    def _looked(self, address: Address, look: Callable[[Address], list[holders.Found]]) -> list[holders.Found]:
        """Look at one address; what is wrong there is told, and keeps nobody from looking at the others."""
        try:
            return look(address)
        except ProntoError as error:
            self.notes.append(f"the sessions of {address} cannot be seen: {error}")
            return []

    def _seen(self) -> dict[str, SessionRow]:
        """Return what the registry has of each session."""
        try:
            return {row.holder.session or "": row for row in self._registry.rows()}
        except ProntoError as error:
            self.notes.append(f"the registry of sessions cannot be used now, the locks were looked at: {error}")
            if isinstance(error, CorruptError):
                self._registry.update_if_possible(())  # makes it anew
            return {}

    def _locked(self) -> Iterator[Address]:
        """Yield every address that has a lock folder."""
        try:
            with open_root(self._layout.root, REGISTRY, LOCKS) as folder:
                names = folder.names()
        except FileNotFoundError:
            return
        for name in names:
            user, at, cursor = name.partition("@")
            if user and at and cursor:
                try:
                    yield Address(user, cursor)
                except InvalidAddressError:
                    continue

    def _living(self, address: Address) -> list[holders.Found]:
        """Return the live sessions at an address, after clearing away dead ones."""
        parts = self._layout.lock_parts(address)
        found = holders.at(self._layout.root, parts)
        if any(not one.live for one in found) or self._has_retired(parts):
            self.reap(address)
            found = holders.at(self._layout.root, parts)
        return [one for one in found if one.live]

    # The dead

    def reap(self, address: Address) -> list[str]:
        """Clear away what dead sessions left at an address; return their ids. Nothing when somebody is at it."""
        parts = self._layout.lock_parts(address)
        before = {one.session for one in holders.at(self._layout.root, parts) if not one.live}
        try:
            # Whoever takes the lock of a dead exclusive session raises the epoch.
            with self._lifecycle.hold(address, "reap", wait_s=0), open_root(self._layout.root, *parts) as folder:
                holders.clear(folder)
                self._forget_retired(address, folder)
        except (BusyError, ProntoError) as error:
            event("session.not_reaped", address=address, reason=str(error))
            return []
        if before:
            self._registry.update_if_possible((), before)
        return sorted(before)

    def reap_all(self) -> list[str]:
        """Clear away what dead sessions left, at every address; return their ids."""
        reaped: list[str] = []
        for address in self._locked():
            found = self._looked(address, lambda address: holders.at(self._layout.root, self._parts(address)))
            if any(not one.live for one in found) or self._has_retired(self._parts(address)):
                reaped += self.reap(address)
        return reaped

    def _has_retired(self, parts: tuple[str, ...]) -> bool:
        try:
            with open_root(self._layout.root, *parts, RETIRED_LOCKS) as folder:
                return bool(folder.names())
        except FileNotFoundError:
            return False

    def _forget_retired(self, address: Address, folder: Folder) -> None:
        """Remove the lock files of sessions put out by force whose processes have ended since."""
        try:
            with folder.child(RETIRED_LOCKS) as retired:
                gone = [
                    name.removesuffix(".lock")
                    for name in retired.names()
                    if (seen := lock.look(retired, name)) is not None and not seen.held
                ]
                if gone:
                    self._fencing(address, lambda c, t, now_ms: fencing.restore(c, t, gone, now_ms), wait_s=0)
                    for session in gone:
                        retired.remove(f"{session}.lock")
        except FileNotFoundError:
            return

    def _fencing(
        self, address: Address, work: Callable[[Connection, Target, int], object], wait_s: float | None = None
    ) -> None:
        try:
            fencing.at(self._layout, address, self._limits, self._clock, work, wait_s)
        except (AddressNotFoundError, CorruptError):
            return  # nothing that anybody could write to

    # Ending

    def end(
        self, session: str, *, force: bool = False, kill: bool = False, wait_s: float | None = None
    ) -> SessionReport:
        """End a live session and return what it was; the error says what to do when it does not end.

        By default its owner is asked, who looks once a second and closes it in order; `AddressBusyError` when it has
        not done so in `wait_s` seconds. `force` takes its address away: what it still writes is refused by the store.
        `kill` besides kills its process, after making sure that it is that very one.
        """
        if kill and not force:
            raise InvalidInputError("--kill goes with --force")
        report = self.find(session)
        self.end_found(report, force=force, kill=kill, wait_s=self._limits.wait_s if wait_s is None else wait_s)
        return report

    def end_found(self, report: SessionReport, *, force: bool, kill: bool, wait_s: float) -> None:
        """`end` for a session that was found; 0 looks once, and can be called again."""
        deadline = self._clock.monotonic_s() + wait_s
        if force:
            self._put_out(report, deadline, kill=kill)
        else:
            self._ask(report, deadline)
        self.reap(report.address)
        self._registry.update_if_possible((), [report.id])
        event("session.ended", address=report.address, session=report.id, force=force, kill=kill)

    def _ask(self, report: SessionReport, deadline: float) -> None:
        with open_root(self._layout.root, *self._layout.lock_parts(report.address)) as folder:
            if lock.mark(folder, _file(report), lock.ASKED, report.id) and not self._ended(folder, report, deadline):
                raise AddressBusyError(
                    report.address,
                    f"{report} was asked to end and has not yet; take the address away from it: "
                    f"prontodb session end {report.id} --force",
                )

    def _ended(self, folder: Folder, report: SessionReport, deadline: float) -> bool:
        while (seen := lock.look(folder, _file(report))) is not None and seen.held:
            if seen.holder is not None and seen.holder.session != report.id:
                return True  # somebody else came after it
            if self._clock.monotonic_s() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _put_out(self, report: SessionReport, deadline: float, *, kill: bool) -> None:
        parts = self._layout.lock_parts(report.address)
        with (
            open_root(self._layout.root, *parts) as folder,
            # Two who force at once would take away the lock file of whoever came after the first.
            lock.acquire(
                self._layout.root,
                parts,
                GATE_LOCK_FILE,
                purpose=f"end session {report.id}",
                wait_s=max(0.0, deadline - self._clock.monotonic_s()),
                one_shot=True,
            ),
        ):
            if kill and self._kill(folder, report, deadline):
                return
            # First its cache, then its writes, then its lock.
            if not lock.mark(folder, _file(report), lock.EVICTED, report.id):
                return  # it has ended meanwhile
            try:
                self._fence_out(folder, report, deadline)
            except FencedError:
                pass  # it has lost the address before, to a force that was interrupted before this: it holds it still
            except BusyError as error:
                raise AddressBusyError(
                    report.address,
                    f"{report} cannot be put out now, since a transaction is open, perhaps its own: {error}; "
                    f"if it is stopped: prontodb session end {report.id} --force --kill",
                ) from error
            self._retire(folder, report)

    def _kill(self, folder: Folder, report: SessionReport, deadline: float) -> bool:
        """Kill the session's process; True when the session is gone with it."""
        if not self._is_held_by(folder, report):
            return True
        seen = lock.look(folder, _file(report))
        if seen is None or seen.holder is None:
            raise UnavailableError(f"{report} cannot be killed, since its lock file does not say whose it is")
        killed = process.kill(seen.holder.process)
        if killed:
            event("session.killed", address=report.address, session=report.id, pid=report.pid)
        if not self._ended(folder, report, deadline):
            how = "was killed and has not ended yet" if killed else "was not killed: its pid is another process by now"
            raise AddressBusyError(report.address, f"{report} {how}")
        return True

    def _is_held_by(self, folder: Folder, report: SessionReport) -> bool:
        """True while the session holds its lock; a shared one's file is its own, whatever is written in it."""
        seen = lock.look(folder, _file(report))
        if seen is None or not seen.held:
            return False
        return report.mode == SHARED if seen.holder is None else seen.holder.session == report.id

    def _fence_out(self, folder: Folder, report: SessionReport, deadline: float) -> None:
        left_s = max(0.0, deadline - self._clock.monotonic_s())

        def check() -> None:
            if not self._is_held_by(folder, report):
                raise FencedError(f"session {report.id} has ended meanwhile")

        def work(connection: Connection, target: Target, now_ms: int) -> None:
            if report.mode == SHARED:
                fencing.revoke(connection, target, report.id, now_ms)
            elif report.epoch is None:
                fencing.take_over(connection, target, None, now_ms, check)
            else:
                fencing.evict(connection, target, report.epoch, now_ms)

        self._fencing(report.address, work, left_s)

    def _retire(self, folder: Folder, report: SessionReport) -> None:
        """Move the lock file out of the way: a stopped process would hold it for ever."""
        if not self._is_held_by(folder, report):
            return
        with folder.make(RETIRED_LOCKS) as retired:
            folder.rename(_file(report), f"{report.id}.lock", retired)

    # Last, since below it `list` is no longer the built-in type.

    def list(self) -> list[SessionReport]:
        """Return every live session, ordered by address; the dead are cleared away on the way, rows of theirs too."""
        seen = self._seen()
        found = [
            report
            for address in self._locked()
            for report in _reports(address, self._looked(address, self._living), seen)
        ]
        live = {report.id for report in found}
        # One that opened since the folders were read has its lock by now.
        gone = [
            session for session, row in seen.items() if session not in live and not self._is_live(row.address, session)
        ]
        if gone:
            self._registry.update_if_possible((), gone)
        return sorted(found, key=lambda report: (report.address, report.started_at_ms or 0))

    def _is_live(self, address: Address, session: str) -> bool:
        there = self._looked(address, lambda address: holders.at(self._layout.root, self._parts(address)))
        return any(found.session == session and found.live for found in there)


def _file(report: SessionReport) -> str:
    return ADDRESS_LOCK_FILE if report.mode != SHARED else holders.file_of(report.id)


def _reports(address: Address, found: list[holders.Found], seen: dict[str, SessionRow]) -> list[SessionReport]:
    return [_report(address, one, seen.get(one.session)) for one in found]


def _report(address: Address, found: holders.Found, row: SessionRow | None) -> SessionReport:
    holder = found.holder
    owner = None if holder is None else holder.process
    return SessionReport(
        id=found.session,
        address=address,
        mode=SHARED if holder is None else str(holder.mode),
        pid=None if owner is None else owner.pid,
        program="" if owner is None else owner.program,
        host="" if owner is None else owner.host,
        pid_namespace=None if owner is None else owner.pid_namespace,
        process_started=None if owner is None else owner.started,
        boot=None if owner is None else owner.boot,
        started_at_ms=None if holder is None else holder.since_ms,
        last_seen_ms=None if row is None else row.last_seen_ms,
        epoch=None if holder is None else holder.epoch,
        labels={} if holder is None else dict(holder.labels),
    )

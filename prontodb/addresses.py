"""The addresses of a root as people see them: the folders are the truth, the registry their index (D29)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import belonging, ciphers, folders, inspection, metadata, opening, quotas, remaking
from prontodb.engine.sqlite.schema import FORMAT
from prontodb.errors import (
    BusyError,
    CorruptError,
    InvalidAddressError,
    NewerFormatError,
    ProntoError,
    UnsafePathError,
)
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.limits import Limits
from prontodb.registry.addresses import ACTIVE, DELETING, RENAMING, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.layout import Layout
    from prontodb.registry.addresses import AddressRegistry

MISSING = "missing"
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRow:
    """One line of the list.

    `state` is 'active', 'missing' (the folder went without a recorded deletion) or 'damaged' (the keystore
    is gone or empty, or cannot be reached). `size_bytes` is the keystore with its WAL; `created_at_ms` None
    where nobody knows it.
    """

    address: Address
    state: str
    created_at_ms: int | None
    size_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Return the row as JSON-able fields, the address as text."""
        return _as_dict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReport:
    """What one address holds. Moments and lifetimes in milliseconds."""

    address: Address
    path: str
    format: int
    incarnation: str
    created_at_ms: int | None
    entries: int
    """Live entries; `expired` ones wait for the sweep."""
    expired: int
    revision: int
    floor: int
    """Changes up to this revision are no longer in the journal."""
    epoch: int
    keeps_history: bool
    journal_rows: int
    journal_oldest_at_ms: int | None
    size_bytes: int
    wal_bytes: int
    lifetimes_ms: dict[str, int]
    quotas: dict[str, dict[str, object]]
    """The quotas in force, each with `allowed`, and where that can be said `used` and `near`."""
    encryption: str | None
    labels: dict[str, str]
    metadata_problem: str | None
    """Why metadata.json cannot be used; None when it can."""

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-able fields, the address as text."""
        return _as_dict(self)


def _as_dict(report: AddressRow | AddressReport) -> dict[str, object]:
    found = {field.name: getattr(report, field.name) for field in fields(report)}
    return found | {"address": str(report.address)}


class AddressBook:
    """Lists, describes and checks the addresses of one root. Synchronous; it belongs on a worker thread.

    `notes` is what the calls so far have to tell the reader, such as a registry that was made anew; whoever
    shows them empties the list.
    """

    def __init__(
        self,
        layout: Layout,
        lifecycle: Lifecycle,
        registry: AddressRegistry,
        *,
        clock: Clock | None = None,
        wait_s: float = 5.0,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._layout, self._lifecycle, self._registry = layout, lifecycle, registry
        self._clock, self._wait_s = clock or Clock(), wait_s
        self.notes: list[str] = []
        self._finished: set[Address] = set()

    # The list

    def _finish_leftovers(self) -> None:
        self._lifecycle.tell.settle()
        for address in self._lifecycle.leftovers():
            try:
                done = self._lifecycle.heal(address, wait_s=0)
            except BusyError:
                continue  # being created or deleted at this moment
            except ProntoError as error:
                self._note(f"what a crash left of {address} cannot be healed now: {error}")
                continue
            for line in done:
                event("address.healed", address=address, done=line)

    def _known(self, found: Mapping[Address, int | None]) -> dict[Address, Row]:
        rows: list[Row] = []
        try:
            rows = self._registry.rows()
            if self._mend(found, rows):
                rows = self._registry.rows()
        except CorruptError as error:
            return self._known_anew(error)
        except ProntoError as error:
            self._note(f"the address registry cannot be used now, the folders were listed: {error}")
        return {row.address: row for row in rows}

    def _known_anew(self, damage: CorruptError) -> dict[Address, Row]:
        try:
            rows = self.rebuild()
        except ProntoError as error:
            self._note(f"the address registry is damaged and cannot be made anew: {error}")
            return {}
        self._note(f"the address registry was damaged and was made anew from the folders: {damage}")
        return {row.address: row for row in rows}

    def _merged(
        self, found: dict[Address, int | None], known: dict[Address, Row], closed: set[str]
    ) -> list[AddressRow]:
        listed: list[AddressRow] = []
        for address, size in found.items():
            row = known.get(address)
            created_at_ms = None if row is None else row.created_at_ms
            if created_at_ms is None:
                created_at_ms = self._created_at_ms(address)
            listed.append(_line(address, DAMAGED if size is None else ACTIVE, created_at_ms, size or 0))
        for address, row in known.items():
            if address in found or row.state == DELETING:
                continue
            if row.state == RENAMING and _target(row) in found:
                continue
            if address.user in closed:
                listed.append(_line(address, DAMAGED, row.created_at_ms, 0))
            elif self._lifecycle.exists(address):
                size = folders.size_bytes(self._layout, address)
                listed.append(_line(address, DAMAGED if size is None else ACTIVE, row.created_at_ms, size or 0))
            else:
                listed.append(_line(address, MISSING, row.created_at_ms, 0))
        return sorted(listed, key=lambda line: line.address)

    # The index

    def register(self, address: Address) -> None:
        """Note an address with a folder if the registry does not know it; never fails for the registry."""
        try:
            if self._registry.row(address) is None:
                self._adopt([address])
        except ProntoError as error:
            event("registry.deferred", reason=str(error))

    def disagreements(self) -> list[str]:
        """Return where registry and folders differ in a way that `mend` heals, a line each; changes nothing.

        Raises what keeps the registry from being read.
        """
        found = folders.measured(self._layout, [])
        rows = {row.address: row for row in self._registry.rows()}
        lines = [f"{address} is not in the registry" for address in found if address not in rows]
        lines += [f"{row.address} is marked '{row.state}'" for row in rows.values() if row.state != ACTIVE]
        return lines

    def missing(self) -> list[Address]:
        """Return the addresses whose folder went without a recorded deletion; changes nothing."""
        rows = self._registry.rows()
        return [r.address for r in rows if r.state == ACTIVE and not self._lifecycle.exists(r.address)]

    def mend(self) -> None:
        """Make the registry agree with the folders; a 'missing' address stays. Raises when it cannot."""
        try:
            self._mend(folders.measured(self._layout, []), self._registry.rows())
        except CorruptError:
            self.rebuild()

    def _mend(self, found: Mapping[Address, int | None], rows: list[Row]) -> bool:
        """Settle what crashes left half done, add rows for folders without one; False when all was well."""
        unsettled = [row for row in rows if row.state != ACTIVE]
        for row in unsettled:
            self._settle(row.address)
        known = {row.address for row in rows}
        unknown = [address for address in found if address not in known]
        if unknown:
            self._adopt(unknown)
        return bool(unsettled or unknown)

    def _adopt(self, addresses: Iterable[Address]) -> None:
        self._registry.adopt([(address, self._created_at_ms(address)) for address in addresses], self._lifecycle.exists)

    def _settle(self, address: Address) -> None:
        """Decide a deletion or renaming that was never noted as done; leave one that is going on alone."""
        row = self._registry.row(address)
        if row is None or row.state == ACTIVE:
            return
        target = _target(row)
        try:
            held = self._lifecycle.hold_all(f"settle {address}", address, target or address, wait_s=0)
        except BusyError:
            return
        with held:
            if self._registry.row(address) != row:
                return
            here = self._lifecycle.exists(address)
            if row.state == DELETING and here and belonging.is_shredded(self._layout, address):
                # Killed after its key record went: nothing can read it any more.
                self._lifecycle.finish_deletion(address)
                self._finished.add(address)
                here = False
            if row.state == DELETING and not here:
                self._registry.remove(address)
            elif row.state == RENAMING and not here and target and self._lifecycle.exists(target):
                self._registry.renamed(address, target)
            else:
                # Killed before its folder went: nothing happened. Or it went without a trace: it is missing.
                self._registry.put(address, ACTIVE)

    def rebuild(self) -> list[Row]:
        """Make the registry anew from the folders; the one there is set aside. Return its rows.

        A registry that can still be read hands on its 'missing' addresses.
        """
        rows = [Row(address, ACTIVE, self._created_at_ms(address)) for address in folders.listed(self._layout)]
        try:
            present = {row.address for row in rows}
            rows += [row for row in self._registry.rows() if row.address not in present and row.state == ACTIVE]
        except ProntoError as error:
            event("registry.lost", reason=str(error))
        self._registry.replace(rows)
        # A deletion that was going on may have taken its row out of the old index, not out of the new one.
        for address in present:
            if not self._lifecycle.exists(address):
                self._registry.remove(address)
        event("registry.rebuilt", addresses=len(rows))
        return rows

    def _created_at_ms(self, address: Address) -> int | None:
        try:
            with opening.open_folder(self._layout, address) as folder:
                return metadata.read(folder).created_at_ms
        except ProntoError:
            return None

    def _note(self, text: str) -> None:
        self.notes.append(text)
        event("addresses.note", note=text)

    # One address

    def describe(self, address: Address) -> AddressReport:
        """Return what one address holds. Raises `AddressNotFoundError`, `CorruptError`, `BusyError`."""
        now_ms, limits = self._clock.wall_ms(), self._limits.at(address)
        facts, used = opening.read(
            self._layout,
            address,
            lambda connection: (inspection.facts(connection, now_ms), quotas.usage(connection, limits)),
            busy_timeout_ms=self._busy_ms,
        )
        problem, about = None, metadata.Metadata(0, None, {})
        with opening.open_folder(self._layout, address) as folder:
            keystore, sealed = folder.stat(KEYSTORE_FILE), ciphers.name_in(self._layout, folder, address)
            try:
                about = metadata.read(folder)
            except ProntoError as error:
                problem = str(error)
        return AddressReport(
            address=address,
            path=self._layout.keystore_path(address),
            format=FORMAT,
            incarnation=facts.incarnation,
            created_at_ms=about.created_at_ms if problem is None else None,
            entries=facts.entries,
            expired=facts.expired,
            revision=facts.revision,
            floor=facts.floor,
            epoch=facts.epoch,
            keeps_history=facts.keeps_history,
            journal_rows=facts.journal_rows,
            journal_oldest_at_ms=facts.journal_oldest_at_ms,
            size_bytes=0 if keystore is None else keystore.st_size,
            wal_bytes=inspection.wal_bytes(self._layout, address),
            lifetimes_ms=facts.lifetimes_ms,
            quotas=used,
            encryption=sealed,
            labels=dict(about.labels),
            metadata_problem=problem,
        )

    def quotas_near(self, address: Address) -> list[str]:
        """Return what an address has nearly used up of its quotas, a line each."""
        limits = self._limits.at(address)
        if limits.max_entries is None and limits.max_keystore_bytes is None:
            return []
        used = opening.read(self._layout, address, lambda c: quotas.usage(c, limits), busy_timeout_ms=self._busy_ms)
        return [
            f"{address} uses {about['used']:,} of {about['allowed']:,} ({quota})"
            for quota, about in used.items()
            if about.get("near")
        ]

    def check(self, address: Address, *, deep: bool = False) -> list[str]:
        """Return what is wrong with one keystore, a line each; empty when nothing is.

        SQLite's own check and the counts; `deep` adds every row's checksum and the chain of the journal.
        Damage is a line, never an exception. Raises `AddressNotFoundError`, `BusyError` and what else keeps
        us from looking.
        """
        try:
            found = self.faults(address, deep=deep)
        except (CorruptError, NewerFormatError, UnsafePathError) as error:
            return [str(error)]
        with opening.open_folder(self._layout, address) as folder:
            try:
                metadata.read(folder)
            except (CorruptError, NewerFormatError, UnsafePathError) as error:
                found.append(str(error))
        return found

    def faults(self, address: Address, *, deep: bool = False) -> list[str]:
        """Return what is wrong with the keystore itself, like `check`; raises what keeps it from being opened."""
        path = self._layout.keystore_path(address)
        return opening.read(
            self._layout,
            address,
            lambda connection: inspection.faults(connection, path, deep=deep),
            busy_timeout_ms=self._busy_ms,
        )

    def remake_metadata(self, address: Address) -> str:
        """Make the metadata of an address anew from what is known besides it; return what was done."""
        try:
            row = self._registry.row(address)
        except ProntoError:
            row = None
        return remaking.remake(self._lifecycle, address, None if row is None else row.created_at_ms)

    @property
    def _busy_ms(self) -> int:
        return round(self._wait_s * 1_000)

    def delete(self, address: Address) -> bool:
        """Delete an address, or forget one that is missing; False when it is neither."""
        return self._lifecycle.delete(address) or self.forget(address)

    def forget(self, address: Address) -> bool:
        """Take a missing address out of the registry, with its anchors; False when it is not there, or not missing."""
        # What went on purpose and could not be noted then is no missing address.
        self._lifecycle.tell.settle()
        if self._registry.row(address) is None and not self._registry.has_anchors(address):
            return False
        with self._lifecycle.hold_all(f"forget {address}", address):
            if self._lifecycle.exists(address):
                return False
            # Written down first, as every deletion: a kill, or a locked registry, must not leave it accused.
            self._registry.deleting(address, None, self._clock.wall_ms())
            self._lifecycle.shred_missing(address)
            self._registry.remove(address)
            self._registry.deleted(address)
            return True

    # Last, since below it `list` is no longer the built-in type.

    def list(self) -> list[AddressRow]:
        """Return every known address, in order; heal on the way what crashes left, where that can be done.

        Never fails for the registry: when it cannot be used, the folders are listed and a note says so.
        """
        self._finish_leftovers()
        closed: list[tuple[str, str]] = []
        # The folders first: what comes or goes after this look is seen by asking again for the odd one out.
        found = folders.measured(self._layout, closed)
        known = self._known(found)
        for address in self._finished:
            found.pop(address, None)
        self._finished.clear()
        for user, reason in closed:
            self._note(f"the addresses of {user} cannot be read: {reason}")
        return self._merged(found, known, {user for user, _ in closed})


def _line(address: Address, state: str, created_at_ms: int | None, size_bytes: int) -> AddressRow:
    return AddressRow(address=address, state=state, created_at_ms=created_at_ms, size_bytes=size_bytes)


def _target(row: Row) -> Address | None:
    try:
        return Address.parse(row.target) if row.target else None
    except InvalidAddressError:
        return None

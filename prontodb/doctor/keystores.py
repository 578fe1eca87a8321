"""The addresses of a root as the doctor sees them: what crashes left, the registry, and each keystore by itself."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from prontodb.doctor.findings import MEND, NEWER, REPAIR, error, warning
from prontodb.engine.sqlite import belonging, ciphers, folders, inspection, opening, remaking
from prontodb.engine.sqlite.upkeep import WAL_BOUND_BYTES
from prontodb.errors import BusyError, CorruptError, NewerFormatError, ProntoError, SecretError, UnsafePathError
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.storage.permissions import moved_away

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.addresses import AddressBook
    from prontodb.doctor.findings import Problem
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits

MAX_NAMED = 10
"""Disagreements of the registry named one by one; they are healed together."""


def left_by_crashes(lifecycle: Lifecycle) -> Iterator[Problem]:
    """Name what creations, deletions and restores left that were killed, and not those going on at this moment."""
    for address, name in folders.remains(lifecycle.layout):
        try:
            lifecycle.hold(address, f"look at {address}", wait_s=0).release()
        except BusyError:
            continue

        def heal(address: Address = address) -> str:
            return "; ".join(lifecycle.heal(address, wait_s=0)) or f"{address} was healed by somebody else"

        yield warning(f"a crash left addresses/{address.user}/{name}", REPAIR, heal)
    for address in dict.fromkeys(lifecycle.tell.due()):

        def settle(address: Address = address) -> str:
            lifecycle.tell.settle()
            if address in lifecycle.tell.due():
                raise BusyError(f"the anchors of {address} cannot follow now: the registry is in use; try again")
            return f"the anchors of {address} follow what was done to it"

        yield warning(f"the anchors of {address} have still to follow what was done to it", REPAIR, settle)


def registry(book: AddressBook) -> Iterator[Problem]:
    """Name what keeps the registry from being what the folders say."""

    def rebuild() -> str:
        return f"made the address registry anew from the folders: {len(book.rebuild())} addresses"

    try:
        differences = book.disagreements()
    except CorruptError as damage:
        yield error(str(damage), REPAIR, rebuild)
    except NewerFormatError as newer:
        yield error(str(newer), NEWER)
        return
    else:
        if differences:
            yield _differs(differences, book)
    try:
        missing = book.missing()
    except CorruptError:
        return  # said above
    for address in missing:
        yield warning(
            f"address {address} is missing: its folder went without 'prontodb address delete'",
            f"bring its folder back, or forget it: prontodb address delete {address} --yes",
        )


def _differs(differences: list[str], book: AddressBook) -> Problem:
    named = "; ".join(differences[:MAX_NAMED])
    more = len(differences) - MAX_NAMED
    what = f"the registry disagrees with the folders: {named}" + (f"; and {more} more" if more > 0 else "")

    def heal() -> str:
        book.mend()
        return f"made the registry agree with the folders, in {len(differences)} place(s)"

    return warning(what, REPAIR, heal)


def twins(addresses: list[Address]) -> Iterator[Problem]:
    """Name addresses that differ only in case; some file systems would hold just one of them."""
    seen: dict[str, Address] = {}
    for address in addresses:
        twin = seen.setdefault(address.folded, address)
        if twin != address:
            yield warning(
                f"addresses {twin} and {address} differ only in case", f"prontodb address rename {address} NEW"
            )


class Keystores:
    """Each keystore by itself: one that is damaged never keeps us from the next."""

    def __init__(self, layout: Layout, book: AddressBook, lifecycle: Lifecycle, limits: Limits) -> None:
        self._layout, self._book, self._lifecycle, self._limits = layout, book, lifecycle, limits

    def problems(self, address: Address, *, deep: bool) -> Iterator[Problem]:
        """Yield what is wrong with one keystore; nothing of one that was deleted since it was listed."""
        for problem in self._look(address, deep=deep):
            if self._is_gone(address):
                return
            yield problem

    def _is_gone(self, address: Address) -> bool:
        try:
            return not self._lifecycle.exists(address)
        except ProntoError:
            return False

    def _look(self, address: Address, *, deep: bool) -> Iterator[Problem]:
        try:
            yield from self._judged(address, deep=deep)
        except ProntoError as trouble:
            yield error(f"{address} could not be looked at: {trouble}", f"prontodb address check {address}")

    def _judged(self, address: Address, *, deep: bool) -> Iterator[Problem]:
        try:
            yield from self._mode(address)
            wrong = remaking.wrong(self._layout, address)
            if wrong is not None:
                yield error(f"{address}: {wrong}", REPAIR, lambda: self._book.remake_metadata(address))
                if remaking.blocks(self._layout, address):
                    return
            faults = self._book.faults(address, deep=deep)
            for fault in faults:
                yield error(f"{address}: {fault}", self._way_back(address))
            if not faults:
                yield from self._wal(address)
                yield from self._quotas(address)
        except SecretError as secret:
            yield self._sealed(address, secret)
        except NewerFormatError as newer:
            yield error(f"{address}: {newer}", NEWER)
        except UnsafePathError as unsafe:
            # The file itself, its key record or a folder above: the keystore may be whole.
            yield error(f"{address} was not looked at: {unsafe}", MEND)
        except CorruptError as damage:
            yield error(f"{address}: {damage}", self._without_journal(address) or self._way_back(address))

    def _sealed(self, address: Address, secret: SecretError) -> Problem:
        """Name an encrypted keystore that cannot be opened: its record is gone, or nobody brought the key."""
        if belonging.is_shredded(self._layout, address):
            return error(
                f"{address} is encrypted and its key record is gone: nothing can read it",
                "bring the record back: prontodb secret import FILE; if the address was being deleted: "
                f"prontodb address delete {address} --yes",
            )
        named = belonging.named_by(self._layout, address)
        if named is not None and not ciphers.keys_of(self._layout).is_of(named, address):
            # Of damage and of another's record the keystore knows nothing: nothing here must make anybody delete it.
            return error(
                f"{address} was not looked at: {secret}", "its keystore may be whole: mend what is named first"
            )
        return warning(f"{address} was not looked at: {secret}", "run 'prontodb doctor' again with the key")

    def _without_journal(self, address: Address) -> str | None:
        """Return how a journal of another tool is taken out of the way; None when there is none."""
        name = KEYSTORE_FILE + "-journal"
        with opening.open_folder(self._layout, address) as folder:
            if folder.stat(name) is None:
                return None
            return f"{moved_away(f'{folder.path}/{name}')}; then: prontodb doctor --deep"

    def _mode(self, address: Address) -> Iterator[Problem]:
        try:
            if not inspection.is_out_of_wal_mode(self._layout, address):
                return
        except ProntoError:
            return  # whatever it is, the check says it

        def heal() -> str:
            with self._lifecycle.hold(address, f"repair {address}"):
                inspection.set_wal_mode(self._layout, address)
            return f"put {address} back into WAL mode"

        yield error(f"{address} is not in WAL mode: another tool changed it, and so it is not used", REPAIR, heal)

    def _quotas(self, address: Address) -> Iterator[Problem]:
        for line in self._book.quotas_near(address):
            yield warning(line, "delete something, or raise the quota in registry/global_config.json")

    def _wal(self, address: Address) -> Iterator[Problem]:
        size = inspection.wal_bytes(self._layout, address)
        if size <= WAL_BOUND_BYTES:
            return

        def heal() -> str:
            if not inspection.empty_wal(self._layout, address, self._limits):
                raise BusyError(f"a reader or writer is using the WAL of {address}; try again when it has ended")
            return f"carried the WAL of {address} ({size:,} bytes) into its keystore"

        yield warning(f"the WAL of {address} has grown to {size:,} bytes", REPAIR, heal)

    def _way_back(self, address: Address) -> str:
        folder = shlex.quote(self._layout.path(*self._layout.address_parts(address)))
        command = f"prontodb --user {address.user} --cursor {address.cursor}"
        anew = f"prontodb address delete {address} --yes"
        if belonging.named_by(self._layout, address) and belonging.is_encrypted(self._layout, address):
            anew += f" && prontodb address create {address} --encrypt"
        # Nothing is deleted unless everything was saved: an export that meets damage fails.
        return (
            f"bring it back from a backup: {command} restore; or put {folder} back from a copy of it; without either, "
            f"make it anew from what it holds: {command} export > FILE && {anew} && {command} import FILE"
        )

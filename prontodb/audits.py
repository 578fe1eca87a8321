"""The audits of one root: what its journals say, held against what the registry and the backups vouch for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prontodb.audit.report import FOREIGN, MISSING, AuditReport
from prontodb.audit.rounds import BUSY_TIMEOUT_MS, Round
from prontodb.audit.trail import newest
from prontodb.audit.witnesses import Witnesses
from prontodb.engine.sqlite import folders, opening
from prontodb.engine.sqlite.snapshot import incarnation_at, mark_of
from prontodb.errors import AddressNotFoundError, ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.anchor import ACCEPTED, VERIFIED, Anchor
from prontodb.model.history import Mark
from prontodb.model.progress import never
from prontodb.registry.addresses import AddressRegistry
from prontodb.registry.anchors import AnchorRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from prontodb.audit.report import AuditRecord
    from prontodb.audit.trail import Wanted
    from prontodb.backup.container import Container
    from prontodb.backup.manifest import Piece
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.progress import Progress

REGISTRY_LOST = (
    "no anchor is in the registry: what lies after the last backup of an address has none, and a file that was swapped "
    "cannot be told; sessions that end leave new ones"
)


class Audits:
    """`containers` are the folders of backups whose manifests vouch, too: each with what its backups are called."""

    def __init__(
        self, layout: Layout, clock: Clock, wait_s: float, containers: Callable[[], Sequence[tuple[str, Container]]]
    ) -> None:
        self._layout, self._clock, self._containers = layout, clock, containers
        self._registry = AnchorRegistry(layout, wait_s=wait_s, one_shot=True)
        self._addresses = AddressRegistry(layout, wait_s=wait_s, one_shot=True)

    def verify(
        self,
        addresses: Iterable[Address] = (),
        *,
        stop: Callable[[], bool] = never,
    ) -> Generator[Progress, None, AuditReport]:
        """Test the journals of some addresses, or of all. Where nothing is found, an anchor is left: it was so far."""
        notes: list[str] = []
        # Before anything is read, since what is written meanwhile only makes a history longer.
        anchors = self._anchors(notes)
        only = list(addresses)
        witnesses = Witnesses(anchors, lambda address: incarnation_at(self._layout, address))
        for source, piece in self._backed_up(notes):
            witnesses.add(Address.parse(piece.address), piece.mark, source, piece.at_ms, _content(piece))
        wanted = only or folders.listed(self._layout)
        work = Round(self._layout, witnesses, list(wanted), only=bool(only), stop=stop)
        report = yield from work.steps()
        if any(finding.kind in (FOREIGN, MISSING) for one in report.addresses for finding in one.findings):
            report = yield from self._again(report, stop)
        now_ms = self._clock.wall_ms()
        self._registry.add_all(
            [
                Anchor(one.address, Mark(one.incarnation, one.revision, one.chain), now_ms, VERIFIED)
                for one in report.addresses
                # Of what lies there still: an anchor of what was replaced or deleted meanwhile would accuse it.
                if one.is_sound and one.is_vouched and incarnation_at(self._layout, one.address) == one.incarnation
            ]
        )
        return AuditReport(addresses=report.addresses, failed=report.failed, notes=tuple(notes), seconds=report.seconds)

    def _again(self, report: AuditReport, stop: Callable[[], bool]) -> Generator[Progress, None, AuditReport]:
        """Look again at those who seem to be swapped or missing: they may have been replaced or deleted meanwhile."""
        suspects = {one.address for one in report.addresses if any(f.kind in (FOREIGN, MISSING) for f in one.findings)}
        witnesses = Witnesses(self._anchors([]), lambda address: incarnation_at(self._layout, address))
        for source, piece in self._backed_up([]):
            witnesses.add(Address.parse(piece.address), piece.mark, source, piece.at_ms, _content(piece))
        known = witnesses.expected()
        there = sorted(a for a in suspects if a in known or folders.exists(self._layout, a))
        again = yield from Round(self._layout, witnesses, there, only=False, known_too=False, stop=stop).steps()
        kept = tuple(one for one in report.addresses if one.address not in suspects)
        return replace(report, addresses=tuple(sorted((*kept, *again.addresses), key=lambda one: one.address)))

    def _anchors(self, notes: list[str]) -> list[Anchor]:
        def where_is(address: Address) -> str | None:
            return incarnation_at(self._layout, address)

        try:
            # What was done and not noted, since somebody was killed or the registry was locked, is made up for. Where
            # that cannot be written even now, it still accuses nobody.
            self._addresses.settle(where_is)
            found = self._registry.as_due(where_is)
        except ProntoError as error:
            notes.append(f"the anchors of the registry cannot be read: {error}")
            return []
        if not found:
            notes.append(REGISTRY_LOST)
        return found

    def _backed_up(self, notes: list[str]) -> Generator[tuple[str, Piece], None, None]:
        """Yield how each keystore was in each backup: the manifests have the head of the journal, and a digest."""
        for name, container in self._containers():
            try:
                listing = container.list()
            except ProntoError as error:
                notes.append(f"the backups in {container.path} cannot be read: {error}")
                continue
            for broken in listing.unreadable:
                notes.append(f"backup {broken.id} cannot be read: {broken.reason}")
            for manifest in listing.backups:
                for piece in manifest.pieces:
                    yield f"{name} {manifest.id}", piece

    def anchors(self, address: Address | None = None) -> list[Anchor]:
        """Return every anchor there is, of one address or of all, the oldest of each address first.

        `AddressNotFoundError` for one that is not there and has none; of one that is gone its backups may know some.
        """
        notes: list[str] = []
        found = self._registry.all()
        for source, piece in self._backed_up(notes):
            found.append(Anchor(Address.parse(piece.address), piece.mark, piece.at_ms, source))
        for note in notes:
            event("audit.note", reason=note)
        chosen = [anchor for anchor in found if address in (None, anchor.address)]
        if address is not None and not chosen and not folders.exists(self._layout, address):
            raise AddressNotFoundError(address)
        return sorted(chosen, key=lambda anchor: (anchor.address, anchor.at_ms, anchor.mark.revision))

    def accept(self, address: Address) -> Anchor | None:
        """Forget the registry's anchors of an address, and take what lies there now for right; None where nothing does.

        For a keystore that was put there by hand, on purpose.
        """
        try:
            mark, _ = opening.read(self._layout, address, mark_of, busy_timeout_ms=BUSY_TIMEOUT_MS)
        except AddressNotFoundError:
            if not any(anchor.address == address for anchor in self._registry.all()):
                raise
            anchor = None
        else:
            anchor = Anchor(address, mark, self._clock.wall_ms(), ACCEPTED)
        self._registry.accept(address, anchor)
        event("audit.accepted", address=address)
        return anchor

    def records(self, address: Address, wanted: Wanted) -> tuple[list[AuditRecord], bool]:
        """Return the last records of an address that are wanted, the newest last, and whether there are more."""
        return opening.read(
            self._layout, address, lambda connection: newest(connection, wanted), busy_timeout_ms=BUSY_TIMEOUT_MS
        )


def _content(piece: Piece) -> tuple[int, str] | None:
    """Return what a backup knows of the entries; None of a keystore that contradicted itself even then."""
    return None if piece.faults else (piece.entries, piece.digest)

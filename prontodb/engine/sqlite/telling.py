"""What the registry is told of changes to addresses: before they are made, and when they are.

So that nobody is accused of what we did ourselves (`registry.dues`), a change is announced with the keystore that is
meant. Where nobody keeps an index, nothing is told.
"""

from __future__ import annotations

from prontodb.engine.sqlite import ciphers, opening
from prontodb.errors import ProntoError
from prontodb.log import event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.history import Mark
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

    class Registrar(Protocol):
        """Who keeps the index of addresses. It can be rebuilt: what is told of a change that is made never raises.

        What announces one does where nothing can be noted of it, since that would not be possible afterwards, either.
        """

        def created(self, address: Address, at_ms: int | None) -> None:
            """The address exists since `at_ms`; None: as far as is known already."""

        def deleting(self, address: Address, mark: Mark | None, at_ms: int) -> None:
            """The address is about to go."""

        def stays(self, address: Address) -> None:
            """The address was about to go, or to be renamed, and does not."""

        def deleted(self, address: Address) -> None:
            """The address is gone."""

        def renaming(self, old: Address, new: Address, mark: Mark | None, at_ms: int) -> None:
            """`old` is about to become `new`."""

        def renamed(self, old: Address, new: Address) -> None:
            """`old` is `new` now."""

        def placing(self, address: Address, mark: Mark, at_ms: int) -> None:
            """Another keystore is about to be put there."""

        def placed(self, address: Address, mark: Mark, at_ms: int) -> None:
            """Another keystore lies at the address now, on purpose: there its history stands."""

        def due(self) -> list[Address]:
            """The addresses whose change is not noted yet, though nobody is at it any more."""

        def settle(self, where_is: Callable[[Address], str | None]) -> int:
            """Make up for what was done and not noted: by a kill, or since the registry was locked."""


class Telling:
    """Tells the registrar of one root; each method does nothing without one.

    `deleting`, `renaming` and `placing` raise what keeps them from being written down, a full disk for one: the change
    is not made then. The others never raise.
    """

    def __init__(self, layout: Layout, clock: Clock, registrar: Registrar | None, wait_s: float) -> None:
        self._layout, self._clock, self._registrar = layout, clock, registrar
        self._busy_timeout_ms = round(wait_s * 1_000)

    def created(self, address: Address, at_ms: int | None) -> None:
        """Tell that an address exists since `at_ms`; None: as far as is known already."""
        if self._registrar is not None:
            self._registrar.created(address, at_ms)

    def deleting(self, address: Address) -> None:
        """Tell that an address is about to go."""
        if self._registrar is not None:
            self.settle()
            self._registrar.deleting(address, self._mark_or_none(address), self._clock.wall_ms())

    def stays(self, address: Address) -> None:
        """Tell that an address was about to go, or to be renamed, and does not."""
        if self._registrar is not None:
            self._registrar.stays(address)

    def deleted(self, address: Address) -> None:
        """Tell that an address is gone."""
        if self._registrar is not None:
            self._registrar.deleted(address)

    def renaming(self, old: Address, new: Address) -> None:
        """Tell that an address is about to get another name."""
        if self._registrar is not None:
            self.settle()
            self._registrar.renaming(old, new, self._mark_or_none(old), self._clock.wall_ms())

    def renamed(self, old: Address, new: Address) -> None:
        """Tell that an address has another name."""
        if self._registrar is not None:
            self._registrar.renamed(old, new)

    def placing(self, address: Address, folder: Folder, secret: Secret | None) -> None:
        """Tell which keystore is about to be put at an address: a kill right after must not make it look swapped."""
        from prontodb.engine.sqlite.snapshot import mark_in

        if self._registrar is None:
            return
        self.settle()
        try:
            mark = mark_in(folder, secret)
        except ProntoError as error:
            event("address.not_anchored", address=address, reason=str(error))
        else:
            self._registrar.placing(address, mark, self._clock.wall_ms())

    def placing_kept(self, address: Address, folder: Folder) -> None:
        """`placing`, for what was put aside of the address before."""
        try:
            secret = ciphers.secret_in(self._layout, folder, address)
        except ProntoError as error:
            event("address.not_anchored", address=address, reason=str(error))
        else:
            self.placing(address, folder, secret)

    def placed(self, address: Address) -> None:
        """Tell where the history of what was put at an address stands: else it would look as if swapped by hand."""
        if self._registrar is None:
            return
        try:
            mark = self._mark(address)
        except ProntoError as error:
            event("address.not_anchored", address=address, reason=str(error))
        else:
            self._registrar.placed(address, mark, self._clock.wall_ms())

    def due(self) -> list[Address]:
        """Return the addresses whose change the registry does not know of, though nobody is at it any more."""
        return [] if self._registrar is None else self._registrar.due()

    def settle(self) -> int:
        """Have the registry follow what was done to addresses and not noted; return how many changes those were."""
        from prontodb.engine.sqlite.snapshot import incarnation_at

        if self._registrar is None:
            return 0
        return self._registrar.settle(lambda address: incarnation_at(self._layout, address))

    def _mark(self, address: Address) -> Mark:
        from prontodb.engine.sqlite.snapshot import mark_of

        return opening.read(self._layout, address, mark_of, busy_timeout_ms=self._busy_timeout_ms)[0]

    def _mark_or_none(self, address: Address) -> Mark | None:
        try:
            return self._mark(address)
        except ProntoError:
            return None

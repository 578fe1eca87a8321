"""The index of known addresses: rebuilt from the folders at any time, never asked before a value is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.errors import CorruptError, InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import ADDRESS_REGISTRY_FILE, Layout
from prontodb.model.value import Value
from prontodb.registry.index import Index
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prontodb.model.history import Mark
    from prontodb.registry.anchors import AnchorRegistry
    from prontodb.registry.dues import Due, WhereIs

APPLICATION_ID = 0x50724152  # "PrAR"
_SCHEMA = (
    "CREATE TABLE addresses (user TEXT NOT NULL, cursor TEXT NOT NULL, state TEXT NOT NULL, "
    "created_at INTEGER, target TEXT, PRIMARY KEY (user, cursor)) WITHOUT ROWID"
)

_ALL = "SELECT user, cursor, state, created_at, target FROM addresses"
_ONE = "SELECT user, cursor, state, created_at, target FROM addresses WHERE user = ? AND cursor = ?"
_PUT = (
    "INSERT INTO addresses (user, cursor, state, created_at, target) VALUES (?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT (user, cursor) DO UPDATE SET state = ?3, created_at = coalesce(?4, created_at), target = ?5"
)
_ADOPT = (
    "INSERT INTO addresses (user, cursor, state, created_at) VALUES (?1, ?2, ?3, ?4) "
    "ON CONFLICT (user, cursor) DO UPDATE SET created_at = coalesce(created_at, ?4)"
)
_INSERT = "INSERT INTO addresses (user, cursor, state, created_at, target) VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM addresses WHERE user = ? AND cursor = ?"
_DELETE_RENAMED = "DELETE FROM addresses WHERE state = ? AND target = ?"

ACTIVE = "active"
DELETING = "deleting"
RENAMING = "renaming"


class Row(Value):
    """What the index says of one address; `target` is the new address of one that is being renamed."""

    __slots__ = ("address", "state", "created_at_ms", "target")

    address: Address
    state: str
    created_at_ms: int | None
    target: str | None

    def __init__(self, address: Address, state: str, created_at_ms: int | None, target: str | None = None) -> None:
        self._fill(address, state, created_at_ms, target)


def _row(user: object, cursor: object, state: object, created_at_ms: object, target: object) -> Row:
    """Return a stored row, its types checked."""
    if isinstance(user, str) and isinstance(cursor, str) and isinstance(state, str):
        try:
            address = Address(user, cursor)
        except InvalidAddressError:
            address = None
        if address and isinstance(created_at_ms, int | None) and isinstance(target, str | None):
            return Row(address, state, created_at_ms, target)
    raise CorruptError("the address registry holds a row that is none; 'prontodb address list' makes it anew")


class AddressRegistry:
    """The index of addresses of one root."""

    def __init__(self, layout: Layout, *, wait_s: float, one_shot: bool) -> None:
        self._layout, self._wait_s, self._one_shot = layout, wait_s, one_shot
        self._kept: AnchorRegistry | None = None
        self._index = Index(
            layout,
            ADDRESS_REGISTRY_FILE,
            "the address registry",
            application_id=APPLICATION_ID,
            schema=(_SCHEMA,),
            wait_s=wait_s,
            one_shot=one_shot,
        )

    def rows(self) -> list[Row]:
        """Return every row, in order; empty when there is no index yet. Raises when it is damaged."""
        return sorted(self._select(_ALL), key=lambda row: row.address)

    def row(self, address: Address) -> Row | None:
        """Return the row of one address, or None."""
        found = self._select(_ONE, (address.user, address.cursor))
        return found[0] if found else None

    def _select(self, query: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        return [_row(*columns) for columns in self._index.select(query, parameters)]

    def put(self, address: Address, state: str = ACTIVE, created_at_ms: int | None = None, target: str = "") -> None:
        """Insert or update the row of an address; its known creation time is kept when none is given."""
        row = (address.user, address.cursor, state, created_at_ms, target or None)
        self._index.write(lambda connection: connection.execute(_PUT, row).close())

    def remove(self, address: Address) -> None:
        """Remove the row of an address, and of one whose renaming to it was never noted as done."""

        def work(connection: sqlite.Connection) -> None:
            connection.execute(_DELETE, (address.user, address.cursor)).close()
            connection.execute(_DELETE_RENAMED, (RENAMING, str(address))).close()

        self._index.write(work)

    def adopt(self, found: Iterable[tuple[Address, int | None]], still_there: Callable[[Address], bool]) -> None:
        """Add rows for addresses that have none, and creation times to rows without one, in one transaction.

        Only those that are `still_there` once the index is locked: a deletion takes its folder before its
        row, so none that is going on can leave a row behind.
        """

        def work(connection: sqlite.Connection) -> None:
            for address, created_at_ms in found:
                if still_there(address):
                    connection.execute(_ADOPT, (address.user, address.cursor, ACTIVE, created_at_ms)).close()

        self._index.write(work)

    def replace(self, rows: list[Row]) -> None:
        """Make the index anew with exactly `rows`."""
        self._index.replace(
            (_INSERT, (r.address.user, r.address.cursor, r.state, r.created_at_ms, r.target)) for r in rows
        )

    def created(self, address: Address, at_ms: int | None) -> None:
        """Note a new address, or when one was created."""
        self._deferrable(lambda: self.put(address, ACTIVE, at_ms))

    def deleting(self, address: Address, mark: Mark | None = None, at_ms: int = 0) -> None:
        """Note that an address is about to go; raises where that cannot be noted: then it must not."""
        from prontodb.registry.dues import DELETED, Due

        self._announce(Due(DELETED, address, None, mark, at_ms), lambda: self.put(address, DELETING))

    def stays(self, address: Address) -> None:
        """Note that an address that was about to go, or to be renamed, does not."""
        self._deferrable(lambda: self.put(address))
        self._anchors().withdraw(address)

    def has_anchors(self, address: Address) -> bool:
        """True when there is an anchor of an address, as far as that can be told."""
        try:
            return any(anchor.address == address for anchor in self._anchors().all())
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return False

    def deleted(self, address: Address) -> None:
        """Forget an address."""
        self._anchors().forget(address, noted=self._deferrable(lambda: self.remove(address)))

    def renaming(self, old: Address, new: Address, mark: Mark | None = None, at_ms: int = 0) -> None:
        """Note that `old` is about to become `new`; raises where that cannot be noted: then it must not."""
        from prontodb.registry.dues import RENAMED, Due

        self._announce(Due(RENAMED, old, new, mark, at_ms), lambda: self.put(old, RENAMING, target=str(new)))

    def _announce(self, due: Due, update: Callable[[], None]) -> None:
        """Note a change in the row of its address, else in a file: from one of them the index follows it later.

        Raises when neither can be written: the address would be called missing for good.
        """
        begun = self._anchors().begin(due)
        if not self._deferrable(update) and not begun and self._has_index():
            self._anchors().begin(due, needed=True)

    def _has_index(self) -> bool:
        try:
            return self._index.exists()
        except ProntoError:
            return True  # something is in its place

    def renamed(self, old: Address, new: Address) -> None:
        """Note that `old` is `new` now."""

        def work(connection: sqlite.Connection) -> None:
            found = sqlite.one(connection, _ONE, (old.user, old.cursor))
            created_at_ms = None if found is None else found[3]
            connection.execute(_PUT, (new.user, new.cursor, ACTIVE, created_at_ms, None)).close()
            connection.execute(_DELETE, (old.user, old.cursor)).close()

        self._anchors().move(old, new, noted=self._deferrable(lambda: self._index.write(work)))

    def placing(self, address: Address, mark: Mark, at_ms: int) -> None:
        """Note that another keystore is about to be put there; raises where that cannot be noted: then it must not."""
        from prontodb.registry.dues import PLACED, Due

        self._anchors().begin(Due(PLACED, address, None, mark, at_ms))

    def placed(self, address: Address, mark: Mark, at_ms: int) -> None:
        """Note that a restore has put another keystore there."""
        from prontodb.model.anchor import RESTORED, Anchor

        self._anchors().add(Anchor(address, mark, at_ms, RESTORED))

    def due(self) -> list[Address]:
        """Return the addresses whose change was done, or begun by somebody who is gone, and is not noted yet."""
        return [due.address for due in self._anchors().due()]

    def settle(self, where_is: WhereIs) -> int:
        """Note what was done to addresses and could not be noted then; return how many changes those were."""
        return self._anchors().settle(where_is, lambda dues: self._follow(dues, where_is))

    def _follow(self, dues: Sequence[Due], where_is: WhereIs) -> bool:
        """Take the rows of addresses that are gone out of the index; False when that cannot be done now.

        What a renamed one is called now is found by its folder.
        """
        gone = [due.address for due in dues if where_is(due.address) is None]

        def work(connection: sqlite.Connection) -> None:
            for address in gone:
                connection.execute(_DELETE, (address.user, address.cursor)).close()

        return not gone or not self._index.exists() or self._deferrable(lambda: self._index.write(work))

    def _anchors(self) -> AnchorRegistry:
        # Here alone: a one-shot write of an address that exists pays nothing for them.
        from prontodb.registry.anchors import AnchorRegistry

        if self._kept is None:
            self._kept = AnchorRegistry(self._layout, wait_s=self._wait_s, one_shot=self._one_shot)
        return self._kept

    def _deferrable(self, update: Callable[[], None]) -> bool:
        """Update the index if that can be done, else return False: data never fails for an index; it heals later."""
        try:
            update()
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return False
        return True

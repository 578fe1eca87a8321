"""The anchors of a root's addresses: where their histories stood, kept apart from the keystores themselves.

They cannot be made again from the keystores, of which they are to tell something. Lost, no value is lost with them;
`audit verify` says how far back the others reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.errors import InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.anchor import Anchor, to_drop
from prontodb.model.history import Mark
from prontodb.registry.dues import PLACED, Dues
from prontodb.registry.session_index import WITH_ANCHORS, session_index
from prontodb.storage.connection import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prontodb.model.layout import Layout
    from prontodb.registry.dues import Due, WhereIs
    from prontodb.storage.connection import Connection

_OF_ONE = "SELECT number, incarnation, revision, chain FROM anchors WHERE user = ? AND cursor = ? ORDER BY number"
_ALL = (
    "SELECT user, cursor, number, incarnation, revision, chain, at, made_by FROM anchors ORDER BY user, cursor, number"
)
_PUT = (
    "INSERT INTO anchors (user, cursor, number, incarnation, revision, chain, at, made_by) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP = "DELETE FROM anchors WHERE user = ? AND cursor = ? AND number = ?"
_FORGET = "DELETE FROM anchors WHERE user = ? AND cursor = ?"
_FORGET_FOR = (
    "DELETE FROM anchors WHERE user = ?3 AND cursor = ?4 "
    "AND EXISTS (SELECT 1 FROM anchors WHERE user = ?1 AND cursor = ?2)"
)
_MOVE = "UPDATE anchors SET user = ?3, cursor = ?4 WHERE user = ?1 AND cursor = ?2"
_FORGET_ALL = "DELETE FROM anchors"


def put(connection: Connection, anchor: Anchor) -> None:
    """Add an anchor to its address's, unless the newest says the same; the caller holds a transaction open."""
    address, mark = anchor.address, anchor.mark
    found = rows(connection, _OF_ONE, (address.user, address.cursor))
    marks = [Mark(incarnation, revision, chain) for _, incarnation, revision, chain in found]
    if marks and marks[-1] == mark:
        return
    number = found[-1][0] + 1 if found else 1
    columns = (address.user, address.cursor, number, mark.incarnation, mark.revision, mark.chain, anchor.at_ms)
    connection.execute(_PUT, (*columns, anchor.by)).close()
    spare = to_drop([*marks, mark])
    if spare is not None:
        connection.execute(_DROP, (address.user, address.cursor, found[spare][0])).close()


def _anchor(user: object, cursor: object, *columns: object) -> Anchor | None:
    """Return a stored anchor; None for one that we did not write."""
    _, incarnation, revision, chain, at_ms, by = columns
    try:
        address = Address(user, cursor)  # type: ignore[arg-type]
        bytes.fromhex(chain), bytes.fromhex(incarnation)  # type: ignore[arg-type]
    except (InvalidAddressError, ValueError, TypeError):
        return None
    if not (isinstance(revision, int) and isinstance(at_ms, int) and isinstance(by, str)):
        return None
    return Anchor(address, Mark(incarnation, revision, chain), at_ms, by)  # type: ignore[arg-type]


def _sound(found: Iterable[Sequence[object]]) -> list[Anchor]:
    anchors = (_anchor(*columns) for columns in found)
    return [anchor for anchor in anchors if anchor is not None]


class AnchorRegistry:
    """The anchors of one root. What writes does not raise, but `accept` and `begin`."""

    def __init__(self, layout: Layout, *, wait_s: float, one_shot: bool) -> None:
        self._index = session_index(layout, wait_s=wait_s, one_shot=one_shot)
        self._dues = Dues(layout)

    def all(self) -> list[Anchor]:
        """Return every anchor, by address, the oldest of each first. Raises when the index is damaged."""
        return _sound(self._index.select(_ALL, since=WITH_ANCHORS))

    def as_due(self, where_is: WhereIs) -> list[Anchor]:
        """Return every anchor as it is once what is due is noted; changes nothing. Raises when the index is damaged."""
        found = self.all()
        for due in self._dues.all():
            if due.has_happened(where_is, found):
                found = due.applied(found)
        return found

    def begin(self, due: Due, *, needed: bool = False) -> bool:
        """Write down a change of an address that is about to be made, so that it is noted even after a kill.

        Raises where that is not possible: then the change must not be made. False where nothing was written, since no
        anchor has to follow it; `needed`: something else has.
        """
        # Where there is no index, nothing has to follow a deletion or renaming.
        if not (needed or due.what == PLACED or self._index.exists()):
            return False
        self._dues.begin(due)
        return True

    def withdraw(self, address: Address) -> None:
        """Forget what was written down of a change that is not made after all."""
        self._end(address, True)

    def due(self) -> list[Due]:
        """Return what was done, or begun by somebody who is gone, and is not noted yet."""
        return [due for due in self._dues.all() if due.is_done or due.is_abandoned()]

    def settle(self, where_is: WhereIs, follow: Callable[[Sequence[Due]], bool]) -> int:
        """Note what is due, if that can be done now; return how many changes were made up for.

        `follow` notes it elsewhere, and returns False when it cannot: all stays due then.
        """
        dues = self._dues.all()
        if not dues:
            return 0
        try:
            found = self.all()
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return 0
        made: list[Due] = []
        never: list[Due] = []
        for due in dues:
            happened = due.has_happened(where_is, found)
            if happened:
                found = due.applied(found)
                made.append(due)
            elif happened is False and (due.is_done or due.is_abandoned()):
                never.append(due)

        def work(connection: Connection) -> None:
            found = _sound(rows(connection, _ALL))
            for due in made:
                found = due.applied(found)
            connection.execute(_FORGET_ALL).close()
            for anchor in found:
                put(connection, anchor)

        if made and not (follow(made) and self._deferrable(work, make=bool(found))):
            return 0
        self._dues.remove([*made, *never])
        for due in made:
            event("registry.made_up", address=due.address, what=due.what)
        return len(made)

    def add(self, anchor: Anchor) -> None:
        """Keep one more."""
        self._end(anchor.address, self._deferrable(lambda connection: put(connection, anchor)))

    def _end(self, address: Address, noted: bool) -> None:
        self._dues.end(address, noted=noted)

    def add_all(self, anchors: Sequence[Anchor]) -> None:
        """Keep several more, in one commit."""

        def work(connection: Connection) -> None:
            for anchor in anchors:
                put(connection, anchor)

        self._deferrable(work, make=bool(anchors))

    def accept(self, address: Address, anchor: Anchor | None) -> None:
        """Forget what an address had, and keep this one alone, if any; raises when that is not possible."""

        def work(connection: Connection) -> None:
            connection.execute(_FORGET, (address.user, address.cursor)).close()
            if anchor is not None:
                put(connection, anchor)

        self._index.write(work)

    def forget(self, address: Address, *, noted: bool) -> None:
        """Drop those of an address that is gone; stays due when that was not `noted` elsewhere."""
        self._end(
            address,
            noted
            and self._deferrable(
                lambda connection: connection.execute(_FORGET, (address.user, address.cursor)).close(), make=False
            ),
        )

    def move(self, old: Address, new: Address, *, noted: bool) -> None:
        """Hand those of `old` on to `new`, the same keystore; stays due when the move was not `noted` elsewhere."""

        def work(connection: Connection) -> None:
            # Unless somebody has handed them on already, to make up for us.
            connection.execute(_FORGET_FOR, (old.user, old.cursor, new.user, new.cursor)).close()
            connection.execute(_MOVE, (old.user, old.cursor, new.user, new.cursor)).close()

        self._end(old, noted and self._deferrable(work, make=False))

    def _deferrable(self, work: Callable[[Connection], None], *, make: bool = True) -> bool:
        """Do it if that can be done now; False when not."""
        try:
            # Where there is no index, there is nothing to take away, and none is made for that.
            if make or self._index.exists():
                self._index.write(work)
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return False
        return True

"""Old places and the addresses they become: by rule, by the user's own map, or not at all; never by a guess."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prontodb.errors import InvalidAddressError, InvalidInputError, LimitError, shown
from prontodb.migration.cursors import DEFAULT
from prontodb.model.address import DEFAULT_NAME, Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_PLACES = 100_000
"""Addresses that one migration makes, and old places without one that are told apart."""
OTHERS = "(all others)"

BACKUP_NAME = re.compile(r"prontodb_(?P<database>.+)_[0-9]{8}(?:_n[0-9]+)?(?P<ending>\.tar\.gz|\.db)")
"""What the old program called its backups."""

_MAIN_FILE, _OLDEST_FILE, _ENDING = "pronto.main.prdb", "pronto.db", ".prdb"
_MAIN, _PRONTO, _ROOT = "main", "pronto", "prontodb"


@dataclass(slots=True)
class Place:
    """One old place: what it was called, and where it goes; `address` None with the reason why it cannot."""

    old: str
    address: Address | None
    reason: str = ""
    mapped: bool = False
    """True when the user said where it goes."""
    by_name: bool = False
    """True for a database that nothing but its own name leads to an address: several such may be one, of all times."""
    slot: int = -1
    """The number of its address; places that become one address share it."""
    read: int = 0
    """Rows of it."""


@dataclass(slots=True)
class Places:
    """All old places of one migration, and the addresses they become."""

    mapping: Mapping[str, Address]
    places: list[Place] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    _slots: dict[Address, int] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _others: int = -1
    _named: dict[str, int] = field(default_factory=dict)

    def add(self, old: str, user: str | None, cursor: str | None, reason: str = "", *, by_name: bool = False) -> int:
        """Return the number of a new place: of an old user and cursor, or of none, for a reason."""
        same = self._named.get(old, 0) + 1
        name = old if same == 1 else f"{old} ({same})"  # an old user and cursor, and a file, may be called the same
        place = self._placed(name, user, cursor, reason)
        place.by_name = by_name
        if place.address is not None:
            place.slot = self.slot_of(place.address)
            if len(self.addresses) > MAX_PLACES:
                raise LimitError("the most addresses in one migration", MAX_PLACES, len(self.addresses))
        elif len(self.places) >= MAX_PLACES:
            # Rubbish without end is no reason to stop: what is wrong with each row is told by the row.
            if self._others < 0:
                self._others = len(self.places)
                self.places.append(Place(OTHERS, None, "it has no address; --report FILE names its rows"))
            return self._others
        self._named[old] = same
        self.places.append(place)
        return len(self.places) - 1

    def is_rubbish(self, number: int) -> bool:
        """True for the place of those that are not told apart any more."""
        return number == self._others

    def _placed(self, old: str, user: str | None, cursor: str | None, reason: str) -> Place:
        if old in self.mapping:
            self._used.add(old)
            return Place(old, self.mapping[old], mapped=True)
        if user is None or cursor is None:
            return Place(old, None, reason)
        try:
            return Place(old, address_of(user, cursor))
        except InvalidAddressError as error:
            return Place(old, None, str(error))

    def slot_of(self, address: Address) -> int:
        """Return the number of an address."""
        slot = self._slots.get(address)
        if slot is None:
            slot = self._slots[address] = len(self.addresses)
            self.addresses.append(address)
        return slot

    def check_map(self) -> None:
        """Raise `InvalidInputError` when the user's map names places that are not there."""
        unknown = sorted(self.mapping.keys() - self._used)
        if unknown:
            known = ", ".join(place.old for place in self.places[:10])
            raise InvalidInputError(
                f"--map names {shown(unknown[0])}, which the source does not hold; it holds {known}"
            )

    def refuse_twins(self, existing: Iterable[Address]) -> set[int]:
        """Take from all addresses that differ only in case from another, or from one in the root, what leads to them.

        Returns the slots of those. No file system need keep two such folders apart, and nobody can say which was meant.
        """
        users: dict[str, set[str]] = {}
        names: dict[str, set[Address]] = {}
        for one in (*self.addresses, *existing):
            users.setdefault(one.user.casefold(), set()).add(one.user)
            names.setdefault(one.folded, set()).add(one)
        refused: set[int] = set()
        for place in self.places:
            if place.address is None:
                continue
            address = place.address
            twins = users[address.user.casefold()] - {address.user}
            others = {str(one) for one in names[address.folded]} - {str(address)}
            if twins or others:
                twin = min(others or twins)
                place.reason = f"{address} differs only in case from {twin}; say which is which with --map"
                place.address = None
                refused.add(place.slot)
        return refused

    def name_unsafe_twins(self) -> None:
        """Say of names that cannot be addresses where they differ only in case or Unicode composition."""
        forms: dict[str, list[Place]] = {}
        for place in self.places:
            if not place.mapped:
                forms.setdefault(unicodedata.normalize("NFC", place.old).casefold(), []).append(place)
        for twins in forms.values():
            for place in twins if len(twins) > 1 else ():
                other = next(one.old for one in twins if one is not place)
                if place.address is None and "differs only" not in place.reason:
                    place.reason += f"; and it differs only in case or Unicode composition from {shown(other)}"


def address_of(user: str, cursor: str) -> Address:
    """Return the address of an old user and cursor: `default` of either is ProntoDB's own default."""
    for name, what in ((user, "user"), (cursor, "cursor")):
        if name.startswith("_"):
            raise InvalidAddressError(f"{what} {shown(name)} begins with '_', which ProntoDB keeps for itself")
    return Address(DEFAULT_NAME if user == DEFAULT else user, DEFAULT_NAME if cursor == DEFAULT else cursor)


def cursor_by_name(folder: str, file: str, *, is_top: bool) -> str | None:
    """Return the cursor whose database this is, by where the old program kept it; None when that says nothing.

    `folder` is the name of the folder it lies in; `is_top` says that this is the folder that was named as the source.
    """
    backup = BACKUP_NAME.fullmatch(file)
    if backup is not None:
        return DEFAULT if backup["database"] == _MAIN else backup["database"]
    at_root = is_top or folder == _ROOT
    if file == _MAIN_FILE and (at_root or folder == _MAIN):
        return DEFAULT
    if file == _OLDEST_FILE:
        # A cursor may be called pronto, and so may a copy of the whole: of that one nobody can say which it is.
        if folder == _PRONTO:
            return None if is_top else _PRONTO
        return DEFAULT if at_root else None
    if file in (f"{folder}.db", f"pronto.{folder}{_ENDING}"):
        return folder
    return None

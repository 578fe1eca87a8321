"""Access rules: who may do what where, decided from grants alone. Pure, and light enough for the path of a read."""

from __future__ import annotations

from prontodb.errors import InvalidInputError, shown
from prontodb.model.address import check_name
from prontodb.model.key import check_prefix
from prontodb.model.operation import ADMIN, READ, RIGHTS, WRITE
from prontodb.model.pattern import Pattern
from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ADMIN", "EVERYBODY", "EVERYWHERE", "READ", "RIGHTS", "WRITE", "Grant", "Rules", "check_pattern", "check_principal",
    "check_rights", "covers",
]  # fmt: skip

EVERYBODY = "*"
"""The principal of a grant for all callers, declared or not."""
EVERYWHERE = "*/*"
"""The pattern of all addresses."""


def check_principal(principal: object) -> str:
    """Return a principal's name: the grammar is that of users."""
    return check_name(principal, "principal")


def check_pattern(pattern: object) -> str:
    """Return an address pattern, `*` alone written out.

    USER/CURSOR, each a name, `*` for any name, or `STEM*` for the names that begin with STEM. Nothing else is special.
    """
    return EVERYWHERE if pattern == "*" else str(Pattern.parse(pattern))


def covers(pattern: str, place: object) -> bool:
    """True when a pattern takes in an address, or all addresses of another pattern."""
    user, _, cursor = pattern.partition("/")
    its_user, _, its_cursor = str(place).partition("/")
    return _part_covers(user, its_user) and _part_covers(cursor, its_cursor)


def _part_covers(part: str, other: str) -> bool:
    # No name holds a '*', so that of another pattern is compared like any character.
    return other.startswith(part[:-1]) if part.endswith("*") else other == part


def check_rights(rights: object) -> tuple[str, ...]:
    """Return rights, given as several or as text with commas, in their order and each once."""
    named = rights.split(",") if isinstance(rights, str) else rights
    if not isinstance(named, (list, tuple, set, frozenset)):
        raise InvalidInputError(f"rights must be some of {', '.join(RIGHTS)}, not {type(rights).__name__}")
    wanted = [name.strip() if isinstance(name, str) else name for name in named]
    for name in wanted:
        if name not in RIGHTS:
            raise InvalidInputError(f"{shown(name)} is no right; there are {', '.join(RIGHTS)}")
    if not wanted:
        raise InvalidInputError(f"at least one right is needed: {', '.join(RIGHTS)}")
    return tuple(right for right in RIGHTS if right in wanted)


class Grant(Value):
    """One rule: `principal` has `rights` at the addresses of a pattern, for the keys that begin with `prefix`."""

    __slots__ = ("principal", "addresses", "prefix", "rights")

    principal: str
    addresses: str
    prefix: str
    rights: tuple[str, ...]

    def __init__(self, principal: str, addresses: str, prefix: str = "", rights: object = ()) -> None:
        given = check_rights(rights)
        if ADMIN in given and prefix:
            raise InvalidInputError("admin is of whole addresses: give it without a prefix, or read and write alone")
        self._fill(
            EVERYBODY if principal == EVERYBODY else check_principal(principal),
            check_pattern(addresses),
            check_prefix(prefix),
            given,
        )

    def is_for(self, principal: str | None) -> bool:
        """True when the grant is a caller's; None is one that declares no principal."""
        return self.principal in (EVERYBODY, principal)

    def as_dict(self) -> dict[str, object]:
        """Return the grant as it stands in the settings file."""
        return {
            "principal": self.principal,
            "addresses": self.addresses,
            "prefix": self.prefix,
            "rights": list(self.rights),
        }

    def __str__(self) -> str:
        where = self.addresses if not self.prefix else f"{self.addresses}, keys that begin with {shown(self.prefix)}"
        return f"{self.principal}: {','.join(self.rights)} at {where}"


class Rules(Value):
    """All grants of a root. Without any, everything is open to everybody."""

    __slots__ = ("grants",)

    grants: tuple[Grant, ...]

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self._fill(tuple(grants))

    @property
    def are_open(self) -> bool:
        """True until the first grant exists."""
        return not self.grants

    def prefixes(self, principal: str | None, place: object, right: str) -> tuple[str, ...]:
        """Return what keys may begin with for a caller to have a right to them at all of `place`."""
        if self.are_open:
            return ("",)
        found = sorted(
            {
                grant.prefix
                for grant in self.grants
                if right in grant.rights and grant.is_for(principal) and covers(grant.addresses, place)
            }
        )
        # One that begins with another adds nothing to it.
        return tuple(prefix for prefix in found if not any(prefix != one and prefix.startswith(one) for one in found))

    def allow(self, principal: str | None, right: str, place: object, text: str = "") -> bool:
        """True when a caller has a right to a key, or to all keys that begin with `text`, at all of `place`.

        One grant alone must take in all of it: what several would give together is not put together.
        """
        return text.startswith(self.prefixes(principal, place, right))

    def sees(self, principal: str | None, address: object) -> bool:
        """True when a caller has any right to anything at an address, and so may know that it exists."""
        return self.are_open or any(self.prefixes(principal, address, right) for right in RIGHTS)

    @property
    def has_administrator(self) -> bool:
        """True when somebody has admin on all addresses, without whom nobody could change the rules any more."""
        return any(ADMIN in grant.rights and grant.addresses == EVERYWHERE for grant in self.grants)

    def explained(self, principal: str | None, right: str, place: object, text: str = "") -> tuple[bool, list[str]]:
        """Return whether a caller has a right, and in words which grants said so, or why none did."""
        who = "everybody" if principal is None else f"principal {shown(principal)}"
        if self.are_open:
            return True, ["there is no grant yet: everything is open to everybody"]
        said: list[str] = []
        allowed = False
        for grant in self.grants:
            if not grant.is_for(principal) or not _meet(grant.addresses, str(place)):
                continue
            missing = []
            if right not in grant.rights:
                missing.append(f"does not give {right}")
            if not covers(grant.addresses, place):
                missing.append(f"is not for all of {place}")
            if not text.startswith(grant.prefix):
                missing.append(f"is only for keys that begin with {shown(grant.prefix)}")
            allowed = allowed or not missing
            said.append(f"{grant}: {'allows it' if not missing else ' and '.join(missing)}")
        if not said:
            said.append(f"no grant is for {who} at {place}")
        return allowed, said


def _meet(pattern: str, place: str) -> bool:
    """True when a pattern and an address, or another pattern, have addresses in common."""
    return all(
        _part_covers(one, other) or _part_covers(other, one)
        for one, other in zip(pattern.split("/"), place.split("/"), strict=True)
    )

"""The address of a keystore: who (user) and where in their work (cursor)."""

from __future__ import annotations

from prontodb.errors import InvalidAddressError, InvalidInputError, shown
from prontodb.model.value import Value

DEFAULT_NAME = "_default"
GLOBAL_NAME = "_global"
_OURS = frozenset({DEFAULT_NAME, GLOBAL_NAME})

MAX_NAME = 64
NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
# Windows opens a device for these names in any folder and with any extension.
_DEVICES = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))))


def check_name(name: object, what: str) -> str:
    """Return `name` when it can be a folder of its own on every system, else raise `InvalidAddressError`."""
    if not isinstance(name, str):
        raise InvalidAddressError(f"{what} must be text, not {type(name).__name__}")
    if not 0 < len(name) <= MAX_NAME or name[0] in ".-" or not NAME_CHARACTERS.issuperset(name):
        raise InvalidAddressError(
            f"{what} {shown(name)} is not a name: 1 to 64 of A-Z a-z 0-9 _ . - and not a dot or dash first"
        )
    if name.endswith(".") or ".." in name:
        raise InvalidAddressError(f"{what} {shown(name)} is not a name: no trailing dot, no '..'")
    if name.partition(".")[0].lower() in _DEVICES:
        raise InvalidAddressError(f"{what} {shown(name)} is not a name: Windows reserves it for a device")
    if name.startswith("_") and name not in _OURS:
        raise InvalidAddressError(
            f"{what} {shown(name)} begins with '_', which ProntoDB keeps for itself ({DEFAULT_NAME}, {GLOBAL_NAME})"
        )
    return name


class Address(Value):
    """One keystore's name, written `user/cursor`; the unit of isolation."""

    __slots__ = ("user", "cursor")

    user: str
    cursor: str

    def __init__(self, user: str = DEFAULT_NAME, cursor: str = DEFAULT_NAME) -> None:
        self._fill(check_name(user, "user"), check_name(cursor, "cursor"))

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the text form: `user/cursor`, or `user` alone for the default cursor."""
        if not isinstance(text, str):
            raise InvalidAddressError(f"an address must be text, not {type(text).__name__}")
        user, slash, cursor = text.partition("/")
        return cls(user, cursor) if slash else cls(user)

    @property
    def folded(self) -> str:
        """The text form without case; two addresses that share it would share a folder on some file systems."""
        return str(self).casefold()

    def __str__(self) -> str:
        return f"{self.user}/{self.cursor}"

    def __lt__(self, other: Address) -> bool:
        return (self.user, self.cursor) < (other.user, other.cursor)


def as_address(address: object) -> Address:
    """Return an address given as one or as its text form `user/cursor`."""
    if isinstance(address, Address):
        return address
    if isinstance(address, str):
        return Address.parse(address)
    raise InvalidInputError(f"an address is Address(user, cursor) or 'user/cursor', not {type(address).__name__}")

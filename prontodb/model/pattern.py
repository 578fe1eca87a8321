"""Patterns of addresses, `user/cursor`: each side is a name, `*`, or the beginning of a name and `*`. Pure."""

from __future__ import annotations

from prontodb.errors import InvalidInputError, shown
from prontodb.model.address import MAX_NAME, NAME_CHARACTERS, Address, check_name
from prontodb.model.value import Value

ANY = "*"


class Pattern(Value):
    """Which addresses a rule is for. Names are compared exactly as they are written, upper and lower case apart."""

    __slots__ = ("user", "cursor")

    user: str
    cursor: str

    def __init__(self, user: str, cursor: str) -> None:
        for side in (user, cursor):
            _check_side(side)
        self._fill(user, cursor)

    @classmethod
    def parse(cls, text: object) -> Pattern:
        """Return the pattern that a text means; `InvalidInputError` says what is wrong with it."""
        if not isinstance(text, str):
            raise InvalidInputError(f"a pattern is text such as 'agent*/prod', not {type(text).__name__}")
        user, slash, cursor = text.partition("/")
        if not slash:
            raise InvalidInputError(
                f"{shown(text)} is no pattern of addresses: write USER/CURSOR, where * stands for any name or for the "
                "end of one, such as 'agent1/*', 'team-*/prod' or '*/*'"
            )
        return cls(user, cursor)

    def matches(self, address: Address) -> bool:
        """True when the rule is for this address."""
        return _fits(self.user, address.user) and _fits(self.cursor, address.cursor)

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """How much the pattern says: of two that match one address the one with the greater weight says more.

        The user's side decides first. A name says more than any beginning, a longer beginning more than a shorter one.
        """
        return (*_weight(self.user), *_weight(self.cursor))

    def __str__(self) -> str:
        return f"{self.user}/{self.cursor}"


def _check_side(side: str) -> None:
    if not side.endswith(ANY):
        check_name(side, "name in a pattern")
        return
    begin = side[:-1]
    if len(begin) > MAX_NAME or begin.startswith((".", "-")) or not NAME_CHARACTERS.issuperset(begin):
        raise InvalidInputError(
            f"{shown(side)} in a pattern is neither '*' nor the beginning of a name followed by '*'"
        )


def _fits(side: str, name: str) -> bool:
    return name.startswith(side[:-1]) if side.endswith(ANY) else name == side


def _weight(side: str) -> tuple[int, int]:
    return (0, len(side)) if side.endswith(ANY) else (1, 0)

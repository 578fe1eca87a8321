"""What a caller asks of a keystore and what comes back: operations, fences, receipts, changes."""

from __future__ import annotations

from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from prontodb.model.entry import Entry

READ = "read"
WRITE = "write"
ADMIN = "admin"
RIGHTS = (READ, WRITE, ADMIN)
"""What operations need where access rules are in force (`model/access.py`). None of them implies another."""

INHERIT = -1
"""ttl_ms of an operation that takes its namespace's default lifetime, or none where there is none."""
FOREVER = 0
"""ttl_ms of an operation whose entry never expires, whatever the namespace says."""
CHECK = -2
"""ttl_ms of an operation that changes nothing: its `expect` alone is tested."""
ABSENT = 0
"""`expect` of an operation that must find no live entry."""


class Op(Value):
    """Set `key` to `value`, or delete it when `value` is None.

    `ttl_ms` is a duration from the commit, INHERIT or FOREVER; `expires_at_ms`, when not None, is the moment itself and
    wins (copies keep it). `expect`: None any, 0 absent, n exactly that revision; an expired entry counts as absent.
    """

    __slots__ = ("key", "value", "ttl_ms", "expect", "expires_at_ms")

    key: str
    value: str | None
    ttl_ms: int
    expect: int | None
    expires_at_ms: int | None

    def __init__(
        self,
        key: str,
        value: str | None,
        ttl_ms: int = INHERIT,
        expect: int | None = None,
        expires_at_ms: int | None = None,
    ) -> None:
        # Filled one by one: this runs for every write, and the loop of _fill would be most of its cost.
        put = object.__setattr__
        put(self, "key", key)
        put(self, "value", value)
        put(self, "ttl_ms", ttl_ms)
        put(self, "expect", expect)
        put(self, "expires_at_ms", expires_at_ms)


def frees_room(ops: Sequence[Op]) -> bool:
    """True when operations delete and do nothing else: then they may have the disk's last room."""
    return bool(ops) and all(op.value is None and op.ttl_ms != CHECK for op in ops)


class Fence(Value):
    """Who writes, and under which epoch: a write is refused once the keystore's epoch has moved on.

    `epoch` None is a shared session, refused only when it was revoked by name. `author` is what the journal names: the
    session, and where access rules or a token are in force on whose behalf. `token_epoch` is that of the token by which
    the session writes; it is refused once the tokens of the address were revoked.
    """

    __slots__ = ("session", "epoch", "author", "token_epoch")

    session: str
    epoch: int | None
    author: str
    token_epoch: int | None

    def __init__(
        self, session: str, epoch: int | None = None, author: str | None = None, token_epoch: int | None = None
    ) -> None:
        self._fill(session, epoch, author or session, token_epoch)


class Receipt(Value):
    """What an applied batch did: the keystore's revision after it, and how many entries it changed."""

    __slots__ = ("revision", "changed")

    revision: int
    changed: int

    def __init__(self, revision: int, changed: int) -> None:
        put = object.__setattr__
        put(self, "revision", revision)
        put(self, "changed", changed)


class Change(Value):
    """The latest state of one key that changed: its entry, or None when it was deleted or has expired."""

    __slots__ = ("key", "entry", "revision")

    key: str
    entry: Entry | None
    revision: int

    def __init__(self, key: str, entry: Entry | None, revision: int) -> None:
        self._fill(key, entry, revision)


class Position(Value):
    """A place in a keystore's history: revisions alone may fall back after a restore, so the incarnation is part of it.

    The text form is `INCARNATION:REVISION`.
    """

    __slots__ = ("incarnation", "revision")

    incarnation: str
    revision: int

    def __init__(self, incarnation: str, revision: int) -> None:
        self._fill(incarnation, revision)

    def __str__(self) -> str:
        return f"{self.incarnation}:{self.revision}"


class Changes(Value):
    """One page of changes in the order of the journal, and the position after it."""

    __slots__ = ("changes", "position")

    changes: Sequence[Change]
    position: Position

    def __init__(self, changes: Sequence[Change], position: Position) -> None:
        self._fill(changes, position)

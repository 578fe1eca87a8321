"""What a write transaction must know before it begins, remembered from the commit before when nobody came between."""

from __future__ import annotations

import os

from prontodb.engine.sqlite.schema import CHAIN_BYTES
from prontodb.engine.sqlite.transactions import HEAD
from prontodb.errors import AddressGoneError, CorruptError, shown
from prontodb.model.ttl import MAX_TTL_MS
from prontodb.storage.connection import one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from prontodb.engine.sqlite.quotas import Nearness
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

_CONTEXT = (
    f"SELECT {HEAD}, (SELECT chain FROM journal ORDER BY rev DESC LIMIT 1), floor_chain, epoch, history, "
    "(SELECT coalesce(max(id), 0) FROM kvstore), (SELECT json_group_object(namespace, ttl_ms) FROM namespace_ttl), "
    "(SELECT json_group_array(session) FROM revoked), token_epoch, lock_device, lock_inode FROM meta"
)


HIGHEST = 2**62
"""No count of ours comes near; past it, SQLite's own integers would end."""


def _decoded(text: str) -> Any:
    import json  # opening a file to read imports this module; few keystores have anything to decode

    return json.loads(text)


class Context:
    """The head of the history and the settings that writes obey, as of one commit."""

    __slots__ = ("chain", "epoch", "highest_id", "history", "lifetimes", "lock", "revision", "revoked", "token_epoch")

    def __init__(self, connection: Connection) -> None:
        self.revision: int
        self.epoch: int
        self.highest_id: int
        """At least the highest row id, and so at least the number of rows."""
        found = one(connection, _CONTEXT)
        if found is None:
            raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
        self.token_epoch: int
        """Raised when the tokens of the address are revoked."""
        self.revision, chain, floor_chain, self.epoch, history, self.highest_id, lifetimes, revoked, *rest = found
        self.token_epoch, *lock = rest
        self.lock: tuple[int, int] | None = None if lock[0] is None else (lock[0], lock[1])
        """Device and inode of the lock file under which the epoch was raised last."""
        self.chain: bytes = floor_chain if chain is None else chain
        self.history = bool(history)
        self.lifetimes: dict[str, int] = _decoded(lifetimes) if lifetimes != "{}" else {}
        self.revoked: Sequence[str] = _decoded(revoked) if revoked != "[]" else ()
        if not self._is_sound():
            raise CorruptError("the keystore's own records are damaged; 'prontodb doctor --deep' says where")

    def _is_sound(self) -> bool:
        """False when what was read is of another type or range than ours: nothing may be built on it."""
        numbers = (self.revision, self.epoch, self.highest_id, self.token_epoch)
        return (
            all(type(number) is int and number <= HIGHEST for number in numbers)
            and self.revision >= 0
            and type(self.chain) is bytes
            and len(self.chain) == CHAIN_BYTES
            and all(type(ms) is int and 0 < ms <= MAX_TTL_MS for ms in self.lifetimes.values())
        )


class Target:
    """The file that commits are meant for: what it was when it was opened, and what its last commit left."""

    __slots__ = ("_context", "_version", "identity", "limits", "lock", "near", "path", "size_bytes")

    def __init__(self, path: str, identity: tuple[int, int], limits: Limits, near: Nearness | None = None) -> None:
        self.path, self.identity, self.limits, self.near = path, identity, limits, near
        self.lock: tuple[int, int] | None = None
        """Device and inode of the address's lock file, when the writer holds that lock for this one write."""
        self.size_bytes = 0
        self._context: Context | None = None
        self._version = -1
        self.check_still_there()

    def check_still_there(self) -> None:
        """Raise when the path leads elsewhere: a renamed or removed address must not acknowledge (D11)."""
        try:
            found = os.lstat(self.path)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            raise AddressGoneError(f"{shown(self.path)} was renamed, removed or replaced; nothing was written")
        self.size_bytes = found.st_size

    def take_context(self, connection: Connection) -> Context:
        """Inside a write transaction: return the context, read anew if another connection has committed since.

        Taken out: only `keep_context` after a commit puts it back, so that a failed one is never built upon.
        """
        # data_version moves when any other connection commits, and within the transaction nobody can.
        version: int = one(connection, "PRAGMA data_version")[0]
        context, self._context = self._context, None
        if context is None or version != self._version:
            context = Context(connection)
            self._version = version
        return context

    def keep_context(self, context: Context) -> None:
        """Remember the context that a commit has left."""
        self._context = context

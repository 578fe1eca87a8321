"""The index of sessions: a description for people. Whether a session lives, its lock file tells.

Rows are written by whoever holds the session, all of one process in one write, and removed by whoever finds it dead.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prontodb.errors import InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model import strict_json
from prontodb.model.address import Address
from prontodb.model.holder import MODES, Holder, Process, is_session_id
from prontodb.model.value import Value
from prontodb.registry.anchors import put
from prontodb.registry.session_index import session_index
from prontodb.storage.files import identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prontodb.model.anchor import Anchor

    Left = tuple[Anchor, tuple[int, int] | None]
    """An anchor that a session leaves, with device and inode of the keystore that it is of."""
    from prontodb.model.layout import Layout
    from prontodb.storage import connection as sqlite

_ALL = (
    "SELECT id, user, cursor, mode, pid, started, boot, host, pid_namespace, program, labels, started_at, "
    "last_seen_at, epoch FROM sessions"
)
_PUT = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REMOVE = "DELETE FROM sessions WHERE id IN (SELECT value FROM json_each(?))"


class SessionRow(Value):
    """What the index says of one session; `last_seen_ms` is when its process last said that it is there."""

    __slots__ = ("address", "holder", "last_seen_ms")

    address: Address
    holder: Holder
    last_seen_ms: int

    def __init__(self, address: Address, holder: Holder, last_seen_ms: int) -> None:
        self._fill(address, holder, last_seen_ms)


def _row(*columns: object) -> SessionRow | None:
    """Return a stored row; None for one that we did not write: it describes nothing then."""
    session, user, cursor, mode, pid, started, boot, host, namespace, program, labels, at, seen_at, epoch = columns
    try:
        address = Address(user, cursor)  # type: ignore[arg-type]
        pairs = strict_json.loads(labels)  # type: ignore[arg-type]
    except (InvalidAddressError, ValueError, TypeError):
        return None
    numbers = all(isinstance(number, int) for number in (pid, at, seen_at))
    texts = all(isinstance(text, str) for text in (host, program))
    optional = isinstance(started, int | None) and isinstance(epoch, int | None) and isinstance(boot, str | None)
    if not (is_session_id(session) and mode in MODES and numbers and texts and optional and isinstance(pairs, dict)):
        return None
    process = Process(pid, started, boot, host, namespace, program)  # type: ignore[arg-type]
    holder = Holder(process, "session", at, session, mode, epoch, tuple(sorted(pairs.items())))  # type: ignore[arg-type]
    return SessionRow(address, holder, seen_at)  # type: ignore[arg-type]


class SessionRegistry:
    """The index of sessions of one root."""

    def __init__(self, layout: Layout, *, wait_s: float, one_shot: bool) -> None:
        self._layout = layout
        self._index = session_index(layout, wait_s=wait_s, one_shot=one_shot)

    def rows(self) -> list[SessionRow]:
        """Return every row, the oldest session first. Raises when the index is damaged."""
        found = [_row(*columns) for columns in self._index.select(_ALL)]
        return sorted((row for row in found if row is not None), key=lambda row: row.holder.since_ms)

    def update(self, present: Iterable[SessionRow], gone: Iterable[str] = (), anchors: Iterable[Left] = ()) -> None:
        """Write the rows of sessions that live, remove those of others, and keep anchors, in one transaction.

        Not those of keystores that have been replaced, renamed or deleted meanwhile: they would accuse what is there.
        """
        rows = [_columns(row) for row in present]
        ids = json.dumps(list(gone))

        def work(connection: sqlite.Connection) -> None:
            connection.execute(_REMOVE, (ids,)).close()
            connection.executemany(_PUT, rows).close()
            for anchor, file in anchors:
                if identity(self._layout.keystore_path(anchor.address)) == file:
                    put(connection, anchor)

        self._index.write(work)

    def update_if_possible(
        self, present: Iterable[SessionRow], gone: Iterable[str] = (), anchors: Iterable[Left] = ()
    ) -> bool:
        """`update`, unless the index cannot be used now: no session fails for its description."""
        try:
            self.update(present, gone, anchors)
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return False
        return True


def _columns(row: SessionRow) -> tuple[object, ...]:
    holder, process = row.holder, row.holder.process
    return (
        holder.session,
        row.address.user,
        row.address.cursor,
        holder.mode,
        process.pid,
        process.started,
        process.boot,
        process.host,
        process.pid_namespace,
        process.program,
        json.dumps(dict(holder.labels)),
        holder.since_ms,
        row.last_seen_ms,
        holder.epoch,
    )

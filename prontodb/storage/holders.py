"""The sessions at an address by their lock files: seen, and cleared away when they are dead.

A lost registry hides nobody, since what counts lies here: `address.lock` for an exclusive session, a file of its own
for each shared one.
"""

from __future__ import annotations

from prontodb.errors import UnsafePathError
from prontodb.model.holder import Holder, is_session_id
from prontodb.model.layout import ADDRESS_LOCK_FILE, SESSION_LOCK_ENDING
from prontodb.storage import lock
from prontodb.storage.files import open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.storage.files import Folder


def file_of(session: str) -> str:
    """The name of a shared session's lock file."""
    return f"{session}{SESSION_LOCK_ENDING}"


class Found:
    """A session that a lock file names: alive while the lock is held. `holder` None: its record cannot be read."""

    __slots__ = ("holder", "live", "session")

    def __init__(self, session: str, holder: Holder | None, *, live: bool) -> None:
        self.session, self.holder, self.live = session, holder, live

    def __str__(self) -> str:
        return f"session {self.session}" if self.holder is None else str(self.holder)


def shared(folder: Folder) -> Iterator[Found]:
    """Yield every shared session that has a lock file, dead or alive."""
    for name in folder.names():
        session = name.removesuffix(SESSION_LOCK_ENDING)
        if session != name and is_session_id(session):
            seen = lock.look(folder, name)
            if seen is not None:
                yield Found(session, seen.holder, live=seen.held)


def exclusive(folder: Folder) -> Found | None:
    """Return the exclusive session that `address.lock` names, dead or alive; None when it names none."""
    try:
        seen = lock.look(folder, ADDRESS_LOCK_FILE)
    except UnsafePathError:
        return None
    if seen is None or seen.holder is None or seen.holder.session is None:
        return None
    return Found(seen.holder.session, seen.holder, live=seen.held)


def clear(folder: Folder) -> tuple[list[Found], list[Found]]:
    """Remove the lock files of dead shared sessions, half made ones too; return who lives and who was dead.

    The caller holds the lock of the address, so no session comes meanwhile.
    """
    live: list[Found] = []
    dead: list[Found] = []
    for name in folder.names():
        if name.startswith(".s-") and name.endswith(lock.STAGED_ENDING):
            lock.remove_dead(folder, name)
    for found in shared(folder):
        if found.live or lock.remove_dead(folder, file_of(found.session)) is None:
            live.append(found)
        else:
            dead.append(found)
    return [found for found in live if folder.stat(file_of(found.session)) is not None], dead


def at(root: str, parts: tuple[str, ...]) -> list[Found]:
    """Return all sessions whose lock files lie in an address's lock folder; changes nothing."""
    try:
        with open_root(root, *parts) as folder:
            first = exclusive(folder)
            return [*([] if first is None else [first]), *shared(folder)]
    except FileNotFoundError:
        return []


def way_out(holders: list[Found]) -> str:
    """Return who they are and the command that ends the first of them, for a message."""
    names = "; ".join(str(found) for found in holders[:3])
    more = f"; and {len(holders) - 3} more" if len(holders) > 3 else ""
    return f"held by {names}{more}; wait, or end it: prontodb session end {holders[0].session}"

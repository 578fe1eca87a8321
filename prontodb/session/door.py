"""The way into an address: one try to take it, without waiting, in an order that a crash at any step leaves healed.

Exclusive: the address's lock, for the whole session. Shared: a lock file of the session's own, made under the address's
lock, which is given back. Either way the death of the process ends it, and whoever comes next sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders
from prontodb.errors import AddressNotFoundError, ClosedError, FencedError, InvalidInputError, shown
from prontodb.model.holder import EXCLUSIVE, MODES, READ, SHARED, Holder, is_for, is_session_id, new_session_id
from prontodb.model.operation import Fence
from prontodb.storage import holders, lock
from prontodb.storage.files import make_root, resolved
from prontodb.storage.lock import EVICTED
from prontodb.storage.process import ourselves

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock

LONGEST_WAIT_S = 10**9
"""Thirty years: what a clock can add, and longer than anybody waits."""
MAX_LABELS = 16
MAX_LABEL_CHARACTERS = 100


class Stay:
    """A session of this process, by its lock. `settle` once the store knows of it; `end` frees it."""

    __slots__ = ("_door", "address", "holder", "lock")

    def __init__(self, address: Address, holder: Holder, held: lock.HeldLock, door: lock.HeldLock | None) -> None:
        self.address, self.holder, self.lock, self._door = address, holder, held, door

    @property
    def session(self) -> str:
        """The session's id."""
        assert self.holder.session is not None
        return self.holder.session

    @property
    def is_exclusive(self) -> bool:
        """True when nobody else can be at the address."""
        return self.holder.mode == EXCLUSIVE

    @property
    def lock_identity(self) -> tuple[int, int]:
        """Device and inode of the address's lock file; of a shared session, until it is settled."""
        return (self._door or self.lock).identity

    def settle(self, epoch: int | None = None) -> None:
        """Note the epoch and keep the mark; give the address's lock back, which a shared one no longer needs."""
        door, self._door = self._door, None
        if door is not None:
            door.release()
        if epoch is not None:
            self.holder = self.holder.with_epoch(epoch)
            self.lock.write(self.holder, anew=False)

    def check_held(self) -> None:
        """Raise when the address is no longer ours: put out by force, its lock taken away, or let go."""
        held = self._door or self.lock
        if held.fd < 0:
            raise ClosedError(f"session {self.session} at {self.address} has ended")
        if not held.still_there or self.lock.mark(self.session) == EVICTED:
            raise put_out(self)

    def end(self) -> None:
        """Free every lock; a second call does nothing."""
        self.lock.release(remove=not self.is_exclusive)
        door, self._door = self._door, None
        if door is not None:
            door.release()


def put_out(stay: Stay) -> FencedError:
    """What every use of an evicted session raises."""
    return FencedError(f"session {stay.session} at {stay.address} was put out by force; stop, or open a new session")


class Door:
    """Takes addresses of one root for this process. Synchronous; it may wait for the disk, never for another holder."""

    def __init__(self, lifecycle: Lifecycle, clock: Clock) -> None:
        self._lifecycle, self._layout, self._clock = lifecycle, lifecycle.layout, clock

    def take(
        self,
        address: Address,
        mode: str,
        *,
        create: bool,
        labels: tuple[tuple[str, str], ...] = (),
        program: str | None = None,
    ) -> Stay:
        """Take an address in mode 'exclusive' or 'shared'; make it when it does not exist and `create` says so.

        `program` is what others shall read as the holder's name; None: our program's. Raises `AddressBusyError` with
        those who hold it, `AddressNotFoundError`.
        """
        if not create and not self._lifecycle.exists(address):
            raise AddressNotFoundError(address)
        self._lifecycle.prepare_root()
        session = new_session_id(resolved(self._layout.root), address)
        process = ourselves() if program is None else ourselves().called(program)
        holder = Holder(process, "session", self._clock.wall_ms(), session, mode, None, labels)
        # Who just comes in is no session yet: killed here, it must not look like a holder who died.
        coming = Holder(holder.process, f"open session {session}", holder.since_ms)
        door = self._lifecycle.hold(address, "", wait_s=0, holder=coming, tries=1)
        try:
            if mode == EXCLUSIVE:
                self._lifecycle.check_no_sessions(address)
            folders.remove_plain_remains(self._layout, address)
            if not self._lifecycle.exists(address):
                if not create:
                    raise AddressNotFoundError(address)
                self._lifecycle.create_held(address)
            if mode == EXCLUSIVE:
                door.write(holder)
                return Stay(address, holder, door, None)
            with make_root(self._layout.root, *self._layout.lock_parts(address), durable=False) as folder:
                return Stay(address, holder, lock.create_held(folder, holders.file_of(session), holder), door)
        except BaseException:
            door.release()
            raise


def checked_mode(mode: object) -> str:
    """Return a mode that exists."""
    if mode not in MODES:
        raise InvalidInputError(f"mode must be '{EXCLUSIVE}', '{SHARED}' or '{READ}', not {shown(mode)}")
    return str(mode)


def checked_wait(wait: object) -> float:
    """Return how long to wait in seconds: a number, 0 or more, infinity included."""
    if not isinstance(wait, int | float) or isinstance(wait, bool) or not wait >= 0:
        raise InvalidInputError("wait must be a number of seconds, 0 or more; None takes the wait_s setting")
    return float(min(wait, LONGEST_WAIT_S))


def checked_labels(labels: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Return labels as pairs, in order: a few short texts that people recognise a session by."""
    if labels is None:
        return ()
    if not hasattr(labels, "items"):
        raise InvalidInputError(f"labels must be a mapping of text to text, not {type(labels).__name__}")
    pairs = tuple(sorted(labels.items()))
    if len(pairs) > MAX_LABELS:
        raise InvalidInputError(f"a session takes up to {MAX_LABELS} labels, not {len(pairs)}")
    for text in (text for pair in pairs for text in pair):
        if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_LABEL_CHARACTERS:
            raise InvalidInputError(
                f"a label is printable text of at most {MAX_LABEL_CHARACTERS} characters, not {shown(text)}"
            )
    return pairs


# Attaching


class Attachment:
    """The session of a `prontodb run` around us, as the environment names it: ID:EPOCH."""

    __slots__ = ("_epoch", "_session")

    def __init__(self, session: str, epoch: int) -> None:
        self._session, self._epoch = session, epoch

    def fence_for(self, root: str, address: Address) -> Fence | None:
        """Return the fence to write under at an address; None at all others than the session's own."""
        return Fence(self._session, self._epoch) if is_for(self._session, resolved(root), address) else None


def attachment(text: str | None) -> Attachment | None:
    """Return what `PRONTODB_SESSION` names; None when it is not set. Raises `InvalidInputError`."""
    if not text:
        return None
    session, _, epoch = text.partition(":")
    # int() would take signs, spaces and digits of other scripts.
    if is_session_id(session) and epoch.isascii() and epoch.isdigit() and len(epoch) < 17:
        return Attachment(session, int(epoch))
    raise InvalidInputError(f"PRONTODB_SESSION must be ID:EPOCH, as 'prontodb run' sets it, not {shown(text)}")

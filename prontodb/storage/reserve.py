"""The reserve: a file that only takes room, so that there is some to work with on a full disk (D20)."""

from __future__ import annotations

import os

from prontodb.errors import ProntoError, QuotaExceededError, StorageFullError, shown
from prontodb.log import event
from prontodb.model.layout import REGISTRY, REGISTRY_LOCK_FILE, Layout
from prontodb.model.limits import MIB
from prontodb.storage import lock
from prontodb.storage.files import make_root, open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

RESERVE_FILE = ".reserve"
RESERVE_BYTES = 1 * MIB


def make(layout: Layout, *, wait_s: float) -> str | None:
    """Make the reserve if it is missing or cut short; return what was done, None when it is there.

    Raises `StorageFullError` where there is no room for it, `BusyError` when somebody else is making it all that time.
    """
    with make_root(layout.root, REGISTRY) as folder:
        found = folder.check_file(RESERVE_FILE)
        if found is not None and found.st_size == RESERVE_BYTES:
            return None
        with lock.acquire(
            layout.root,
            layout.registry_lock_parts(),
            REGISTRY_LOCK_FILE,
            purpose="make the reserve",
            wait_s=wait_s,
            one_shot=True,
        ):
            # Zeros are written, not skipped: a sparse file would reserve nothing.
            folder.publish(RESERVE_FILE, bytes(RESERVE_BYTES))
        return f"made the reserve of {RESERVE_BYTES:,} bytes for a full disk, {shown(f'{folder.path}/{RESERVE_FILE}')}"


def keep(layout: Layout) -> None:
    """Make the reserve if it is missing and that can be done at once; it is for bad days and stops nobody today."""
    try:
        make(layout, wait_s=0)
    except ProntoError as error:
        event("reserve.missing", reason=str(error))


def in_its_room(layout: Layout, work: Callable[[], T]) -> T:
    """Run `work` that frees room: on a full disk again, in the room of the reserve, which is made anew after it."""
    try:
        return work()
    except QuotaExceededError:
        raise
    except StorageFullError:
        if not spend(layout):
            raise
    try:
        return work()
    finally:
        keep(layout)


def spend(layout: Layout) -> bool:
    """Give the reserve's room back to the disk; False when there is none."""
    try:
        with open_root(layout.root, REGISTRY) as folder:
            if folder.check_file(RESERVE_FILE) is None:
                return False
            folder.remove(RESERVE_FILE)
            return True
    except FileNotFoundError:
        return False


def spend_if_full(layout: Layout) -> bool:
    """Spend the reserve unless as much room is left beside it, which is tried out: no disk tells of every quota."""
    try:
        with open_root(layout.root, REGISTRY) as folder:
            if folder.check_file(RESERVE_FILE) is None:
                return False
            trial = f"{RESERVE_FILE}.{os.urandom(6).hex()}.tmp"
            try:
                folder.create(trial, bytes(RESERVE_BYTES))
            except StorageFullError:
                folder.remove(RESERVE_FILE)
                return True
            finally:
                folder.remove(trial)
    except FileNotFoundError:
        return False
    return False

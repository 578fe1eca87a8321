"""A private folder for a while: locked while it is in use, so that what a killed process left can be removed."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import TYPE_CHECKING

from prontodb.errors import BusyError, InvalidInputError, ProntoError, shown
from prontodb.log import event
from prontodb.storage import lock
from prontodb.storage.files import open_root, translated

if TYPE_CHECKING:
    from prontodb.storage.files import Folder

PREFIX = "prontodb-scratch-"
_LOCK_FILE = "scratch.lock"
_ATTEMPTS = 5


class Scratch:
    """An empty folder of ours among temporary files, or in a folder that somebody names; `close` removes it."""

    __slots__ = ("_held", "folder")

    def __init__(self, folder: Folder, held: lock.HeldLock) -> None:
        self.folder, self._held = folder, held

    @classmethod
    def make(cls, place: str | None = None, prefix: str = PREFIX) -> Scratch:
        """Make one, and remove those that killed processes left in the same place.

        `prefix` is how their names begin; nothing else there is touched.
        """
        try:
            above = tempfile.gettempdir() if place is None else os.path.realpath(place)
        except OSError as error:
            raise InvalidInputError(
                "there is no folder for temporary files; name one for the scratch copies"
            ) from error
        if not os.path.isdir(above):
            raise InvalidInputError(f"{shown(above)} is no folder; name one that exists for the scratch copies")
        _remove_dead(above, prefix)
        for _ in range(_ATTEMPTS):
            try:
                path = tempfile.mkdtemp(prefix=prefix, dir=above)
            except OSError as error:
                raise translated(error, above) from error
            try:
                held = lock.acquire(path, (), _LOCK_FILE, purpose="scratch copies", wait_s=0, one_shot=True)
                return cls(open_root(path), held)
            except (ProntoError, FileNotFoundError) as error:
                # Somebody took it for a dead one's, in the instant before it was locked.
                event("scratch.lost", path=path, reason=str(error))
        raise BusyError(f"others keep tidying up {shown(above)}; try again")

    def close(self) -> None:
        """Remove the folder and all in it. What cannot be removed now is removed by whoever makes the next one."""
        try:
            _empty(self.folder)
        except ProntoError as error:
            event("scratch.left", path=self.folder.path, reason=str(error))
        finally:
            self.folder.close()
            self._held.release()


def _empty(folder: Folder) -> None:
    """Remove all in a folder, its lock last: as long as anything else is there, others see that it is in use."""
    for name in folder.names():
        if name != _LOCK_FILE:
            folder.remove_tree(name)
    folder.remove(_LOCK_FILE)
    _remove_empty(folder.path)


def _remove_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        return  # somebody is at it, too, or there is something in it


def _remove_dead(above: str, prefix: str) -> None:
    """Remove the scratch folders in a place that nobody holds any more."""
    try:
        names = [name for name in os.listdir(above) if name.startswith(prefix)]
    except OSError:
        return  # a place where one may write and not look
    for name in names:
        path = f"{above}/{name}"
        try:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if not os.path.lexists(f"{path}/{_LOCK_FILE}"):
                _remove_empty(path)  # it is just being made, or just going
                continue
            with (
                lock.acquire(path, (), _LOCK_FILE, purpose="remove scratch copies", wait_s=0, one_shot=True),
                open_root(path) as folder,
            ):
                _empty(folder)
        except (BusyError, FileNotFoundError):
            continue
        except (ProntoError, OSError) as error:
            event("scratch.left", path=path, reason=str(error))

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
    def make(cls, place: str | None = None) -> Scratch:
        """Make one, and remove those that killed processes left in the same place."""
        above = tempfile.gettempdir() if place is None else os.path.realpath(place)
        if not os.path.isdir(above):
            raise InvalidInputError(f"{shown(above)} is no folder; name one that exists for the scratch copies")
        _remove_dead(above)
        for _ in range(_ATTEMPTS):
            try:
                path = tempfile.mkdtemp(prefix=PREFIX, dir=above)
                held = lock.acquire(path, (), _LOCK_FILE, purpose="scratch copies", wait_s=0, one_shot=True)
            except OSError as error:
                raise translated(error, above) from error
            except ProntoError as error:
                event("scratch.lost", path=path, reason=str(error))
                continue  # somebody took it for a dead one's before it was locked
            return cls(open_root(path), held)
        raise BusyError(f"others keep tidying up {shown(above)}; try again")

    def close(self) -> None:
        """Remove the folder and all in it."""
        above, name = os.path.split(self.folder.path)
        self.folder.close()
        _remove(above, name)
        self._held.release()


def _remove_dead(above: str) -> None:
    """Remove the scratch folders in a place that nobody holds any more."""
    try:
        names = [name for name in os.listdir(above) if name.startswith(PREFIX)]
    except OSError:
        return  # a place where one may write and not look
    for name in names:
        path = f"{above}/{name}"
        try:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with lock.acquire(path, (), _LOCK_FILE, purpose="remove scratch copies", wait_s=0, one_shot=True):
                _remove(above, name)
        except (BusyError, FileNotFoundError):
            continue
        except (ProntoError, OSError) as error:
            event("scratch.left", path=path, reason=str(error))


def _remove(above: str, name: str) -> None:
    from prontodb.storage.files import Folder

    try:
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise translated(error, above) from error
    with Folder(fd, above) as folder:
        folder.remove_tree(name)

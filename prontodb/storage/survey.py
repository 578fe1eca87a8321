"""A look at everything below a root by lstat alone: only folders are opened, and no link is followed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import UnsafePathError, shown
from prontodb.storage.files import Folder, kind, translated
from prontodb.storage.permissions import set_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 16
"""Our own tree is five folders deep; whatever goes on further down is a stranger's."""

_OTHERS = 0o077
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """One file or folder: its names from the root down, its lstat, and why it was not looked into."""

    parts: tuple[str, ...]
    stat: os.stat_result
    trouble: str | None = None

    @property
    def is_folder(self) -> bool:
        """True for a folder."""
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def kind(self) -> str:
        """What kind of file it is, for a message."""
        return kind(self.stat)

    @property
    def open_to_others(self) -> int:
        """The rights that others have, as permission bits."""
        return stat.S_IMODE(self.stat.st_mode) & _OTHERS


def survey(root: str) -> Iterator[Found]:
    """Yield the root and all below it, folders before what is in them; what vanishes meanwhile is left out."""
    try:
        # The root itself may be reached by a link: it is the user's own choice of a place.
        found = os.stat(root)
        fd = os.open(root, _OPEN & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translated(error, root) from error
    yield Found((), found)
    with Folder(fd, root) as folder:
        yield from _below(folder, ())


def _below(folder: Folder, parts: tuple[str, ...]) -> Iterator[Found]:
    for name in folder.names():
        found = folder.stat(name)
        if found is None:
            continue
        here = (*parts, name)
        if not stat.S_ISDIR(found.st_mode):
            yield Found(here, found)
        elif len(here) >= MAX_DEPTH:
            yield Found(here, found, "it lies too deep to be looked into")
        else:
            yield from _inside(folder, name, here, found)


def _inside(folder: Folder, name: str, here: tuple[str, ...], found: os.stat_result) -> Iterator[Found]:
    try:
        fd = os.open(name, _OPEN, dir_fd=folder.fd)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Found(here, found, str(translated(error, f"{folder.path}/{name}")))
        return
    yield Found(here, found)
    with Folder(fd, f"{folder.path}/{name}") as inner:
        yield from _below(inner, here)


def close_to_others(root: str, found: Found) -> None:
    """Take away what others may do with a file or folder of ours; our own rights stay as they are.

    Raises `UnsafePathError` when something else lies there by now.
    """
    path, mode = "/".join((root, *found.parts)), stat.S_IMODE(found.stat.st_mode) & ~_OTHERS
    try:
        # The root itself may be reached by a link.
        if not set_mode(path if found.parts else os.path.realpath(path), found.stat, mode):
            raise UnsafePathError(f"{shown(path)} was replaced while it was looked at; run the doctor again")
    except OSError as error:
        raise translated(error, path) from error


def free_bytes(path: str) -> int | None:
    """Return the space that this user may still fill on the file system of `path`; None where it does not say."""
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


def descriptor_limit() -> int | None:
    """Return how many descriptors this process may have at most; None for no limit."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard

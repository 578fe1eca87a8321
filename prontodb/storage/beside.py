"""Private files in folders that need not be ours: written whole or not at all."""

from __future__ import annotations

import os

from prontodb.errors import UnavailableError, shown
from prontodb.storage.files import Folder, NewFile, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def publish_beside(path: str, chunks: Iterable[bytes]) -> None:
    """Write a private file into a folder that need not be ours: whole or not at all, in the place of a file there."""
    above, name = os.path.split(path)
    try:
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise translated(error, above) from error
    with Folder(fd, above) as folder:
        staged = f".{name[:64]}.{os.urandom(6).hex()}.tmp"
        with NewFile(folder, staged) as file:
            for chunk in chunks:
                file.write(chunk)
        try:
            folder.rename(staged, name)
        except BaseException:
            folder.remove(staged)
            raise


def new_private_file(path: str, data: bytes) -> None:
    """Write a new file into a folder that need not be ours, private from its first moment; one that is there stays."""
    above, name = os.path.split(path)
    try:
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise translated(error, above) from error
    with Folder(fd, above) as folder:
        if folder.stat(name) is not None:
            raise UnavailableError(f"{shown(path)} exists already; it stays as it is")
        folder.create(name, data)
        folder.sync()


def check_can_publish(path: str) -> None:
    """Raise unless a file could be written beside `path`, which is left alone: before long work, and not after it."""
    above, name = os.path.split(path)
    trial = f"{above}/.{name[:64]}.{os.urandom(6).hex()}.tmp"
    publish_beside(trial, ())
    os.unlink(trial)

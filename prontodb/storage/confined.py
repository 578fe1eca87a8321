"""Inside of a sandbox: how this process notices that the kernel keeps it out of something, and says so."""

from __future__ import annotations

import os
import stat

from prontodb.errors import SandboxedError, shown
from prontodb.model.layout import SANDBOX_ADDRESS_FILE

_ADDRESS_CHARACTERS = 200
_OWNER_ENTERS = 0o500
"""What our own folders give us by their mode, and only a sandbox takes away."""
_O_PATH = getattr(os, "O_PATH", 0)  # Linux

SANDBOX: list[str] = []
"""The private folder of the sandboxed run that this process is in, for messages; noted by who reads the environment."""


def is_kept_out(path: str) -> bool:
    """True when the kernel keeps this process out of a folder, or the one of a file, that is ours by owner and mode."""
    # Neither stat nor a mode tells of a sandbox; whoever may not even stat was stopped by somebody's modes.
    for folder in (path, os.path.dirname(path)):
        try:
            found = os.stat(folder)
        except PermissionError:
            return False
        except OSError:
            continue  # not there: the folder above decides
        if not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_uid != os.geteuid() or found.st_mode & _OWNER_ENTERS != _OWNER_ENTERS:
            return False
        try:
            os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except PermissionError:
            return True
        except OSError:
            return False
        return False
    return False


def sandboxed(path: str) -> SandboxedError:
    """Return the error for what a sandbox keeps us out of."""
    where = "the kernel keeps this process out, as 'prontodb run --sandbox' does"
    if SANDBOX:
        try:
            with open(f"{SANDBOX[0]}/{SANDBOX_ADDRESS_FILE}", encoding="utf-8", errors="backslashreplace") as file:
                where = f"this process is sandboxed at address {shown(file.read(_ADDRESS_CHARACTERS).strip())}"
        except OSError:
            pass  # the run has ended
    return SandboxedError(f"{shown(path)} is closed here: {where}; use it from outside of the sandbox")


def check_is_outside(root: str) -> None:
    """Raise `SandboxedError` inside of a sandbox: what it shows of a whole root would be a wrong picture of it."""
    if is_kept_out(root):
        raise sandboxed(root)


def passage(name: str, flags: int, dir_fd: int | None, refused: PermissionError) -> int:
    """Open a folder that was `refused`, only to go through it; raise that again unless it is ours by owner and mode."""
    if not _O_PATH:
        raise refused
    fd = os.open(name, flags | _O_PATH, dir_fd=dir_fd)
    found = os.fstat(fd)
    if found.st_uid == os.geteuid() and found.st_mode & _OWNER_ENTERS == _OWNER_ENTERS:
        return fd
    os.close(fd)
    raise refused


def forced(name: str, flags: int, dir_fd: int, refused: PermissionError) -> int:
    """Open a folder of ours whose mode does not let us in, by giving it one that does."""
    if not _O_PATH:
        raise refused
    fd = os.open(name, flags | _O_PATH, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
        return os.open(".", flags, dir_fd=fd)
    finally:
        os.close(fd)

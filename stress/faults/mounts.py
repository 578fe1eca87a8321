"""Small file systems that only this process and its children see: a mount namespace of our own, and tmpfs in it.

Run as a program with a folder, it tries all of it there and says on stderr what cannot be done.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 2, 4, 32, 16_384, 1 << 18
_MNT_DETACH = 2
_FLAGS = _MS_NOSUID | _MS_NODEV
RESIZE_TRIES = 20
PAGE = os.sysconf("SC_PAGE_SIZE")


class MountError(Exception):
    """What could not be mounted, and why."""


class _Ours:
    """Whether this process has a namespace of its own by now; it cannot be left again."""

    is_made = False


def own_mounts() -> None:
    """Give this process a mount namespace of its own, once; what is mounted in it goes with its last process.

    A thread that ran before stays outside and sees none of it, so there may be none. Later ones are inside.
    """
    if _Ours.is_made:
        return
    if threading.current_thread() is not threading.main_thread() or len(os.listdir("/proc/self/task")) > 1:
        raise MountError("a file system of our own must be mounted by the main thread, before there are others")
    _do("unshare", _CLONE_NEWNS)
    _Ours.is_made = True
    # Else what we mount would travel to where we came from.
    _do("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def mount_tmpfs(path: Path, size_bytes: int) -> None:
    """Mount an empty file system over a folder, which it hides; only its owner may look in."""
    options = f"size={size_bytes},mode=0700".encode()
    _do("mount", b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(_FLAGS), options)


def resize(path: Path, size_bytes: int) -> bool:
    """Give a tmpfs another size; False when more than that is in use."""
    options = f"size={max(size_bytes, PAGE)}".encode()
    for _ in range(RESIZE_TRIES):
        try:
            _do("mount", b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(_FLAGS | _MS_REMOUNT), options)
        except MountError:
            found = os.statvfs(path)
            if (found.f_blocks - found.f_bfree) * found.f_frsize > size_bytes:
                return False
            continue  # it was in use when the kernel looked, and is free again
        return True
    raise MountError(f"{path} cannot be given {size_bytes:,} bytes")


def unmount(path: Path) -> None:
    """Take a file system away, with all that is in it; who has a file open there keeps it."""
    _do("umount2", os.fsencode(path), _MNT_DETACH)


def _do(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise MountError(f"{name}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    """Try it on a folder."""
    folder = Path(sys.argv[1])
    try:
        own_mounts()
        mount_tmpfs(folder, 16 * PAGE)
        resize(folder, PAGE)
    except (MountError, AttributeError) as error:  # no such function: another kernel
        sys.exit(str(error))


if __name__ == "__main__":
    main()

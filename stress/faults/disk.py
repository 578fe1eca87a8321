"""`full-disk`: the root lies on a small file system of its own, which has no room for a while."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import anyio

from . import mounts
from .base import SimpleFault, some_time_s

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from .fault import Field

MOST_S = 2.0
AGAIN_S = 0.01
"""How often what was freed meanwhile is taken away again."""
DEADLINE_S = 20.0
"""For trying whether it can be made at all."""
MEBIBYTE = 1 << 20
LEAST_MIB = 640
"""A run of a minute takes less. One of an hour, or of 10,000 addresses, takes more: half of the memory, if there is."""


class FullDisk(SimpleFault):
    """Every write of every agent that needs room fails; what is stored can be read, and writes work again afterwards.

    The file system is a tmpfs that is as large as what is in it while the fault lasts. Neither it nor what is in it can
    be seen by processes that are no children of this one.
    """

    name = "full-disk"
    takes_root_away = True
    explains = frozenset({"StorageFullError", "CopyFullError"})  # the second: for a backup's copies

    def __init__(self) -> None:
        # No more than a limit: it takes as much memory as lies in it. Truly full, it would fail without a fault.
        half = os.sysconf("SC_PHYS_PAGES") * mounts.PAGE // 2
        self._size_bytes = max(LEAST_MIB * MEBIBYTE, half)
        self._root: Path | None = None

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        return _why_no_mount()

    def prepare(self, root: Path, place: Path) -> dict[str, str]:
        """Mount the file system over an empty root. Raises `MountError`; see there about threads."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise mounts.MountError(f"a file system cannot be mounted over {root}, which is not empty")
        mounts.own_mounts()
        mounts.mount_tmpfs(root, self._size_bytes)
        self._root = root
        return {}

    def finish(self) -> None:
        """Give the room back. The file system stays, for whoever reads what there is afterwards."""
        if self._root is not None:
            mounts.resize(self._root, self._size_bytes)

    def release(self) -> None:
        """Take the file system away with all that is in it, when nobody needs it any more."""
        if self._root is not None:
            with suppress(mounts.MountError):  # somebody took it away already
                mounts.unmount(self._root)
            self._root = None

    async def make(self, ground: Field, chance: Random) -> None:
        """Leave no room for a while."""
        if self._root is None or not ground.agents():
            return
        for_s = some_time_s(ground, chance, MOST_S)
        async with ground.announce(self.name, str(self._root), f"no room for {for_s:.2f} s", lasts=True):
            try:
                with anyio.move_on_after(for_s):
                    while True:
                        _leave_no_room(self._root)
                        await anyio.sleep(AGAIN_S)
            finally:
                self.finish()


def _leave_no_room(root: Path) -> None:
    found = os.statvfs(root)
    if found.f_bfree:
        # Refused when somebody wrote in between; the next time will do.
        mounts.resize(root, (found.f_blocks - found.f_bfree) * found.f_frsize)


@cache
def _why_no_mount() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, mounts.__file__, folder], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    said = done.stderr.strip()[-200:]
    return None if done.returncode == 0 else f"no file system of its own can be mounted here: {said}"

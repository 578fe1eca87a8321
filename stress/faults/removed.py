"""`locks` and `registry`: files that somebody deletes by hand while agents run."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from .base import SimpleFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from .fault import Field

ADDRESS_LOCK = "address.lock"


class Locks(SimpleFault):
    """Somebody deletes a lock file: an address's, whose holder is fenced, or that of one shared session."""

    name = "locks"
    explains = frozenset({"FencedError"})

    async def make(self, ground: Field, chance: Random) -> None:
        """Delete one lock file."""
        if not ground.agents():
            return
        found = sorted(_lock_files(ground.root / "registry" / "locks"))
        if not found:
            return
        address, path = chance.choice(found)
        async with ground.announce(self.name, address, f"{path.name} is deleted", lasts=False):
            # It may have gone with its session meanwhile.
            path.unlink(missing_ok=True)


def _lock_files(locks: Path) -> Iterator[tuple[str, Path]]:
    """Yield addresses and lock files that sessions hold: no others, such as those of one step of a command."""
    with suppress(FileNotFoundError):
        for folder in locks.iterdir():
            user, _, cursor = folder.name.partition("@")
            with suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(folder):
                    if name == ADDRESS_LOCK or (name.startswith("s-") and name.endswith(".lock")):
                        yield f"{user}/{cursor}", folder / name


class Registry(SimpleFault):
    """Somebody deletes the databases of the registry. The locks stay, and so does every address and session."""

    name = "registry"

    async def make(self, ground: Field, chance: Random) -> None:
        """Delete them."""
        if not ground.agents():
            return
        folder = ground.root / "registry"
        found = sorted(path for ending in ("db", "db-wal", "db-shm") for path in folder.glob(f"*.{ending}"))
        if not found:
            return
        async with ground.announce(self.name, "registry", f"{len(found)} files are deleted", lasts=False):
            for path in found:
                path.unlink(missing_ok=True)

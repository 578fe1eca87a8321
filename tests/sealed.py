"""Roots with encrypted addresses, the keys that open them, and what must never be seen of either."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prontodb.composition import open_manager
from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KeyFile
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings

if TYPE_CHECKING:
    from prontodb.encryption.sources import KeySource
    from prontodb.manager import SessionManager

KEY, VALUE = "planted.key", "a planted value"


def key_file(folder: Path, name: str = "key") -> Path:
    """Make a key file, ours and closed to others."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(os.urandom(32).hex() + "\n")
    return path


def keyring(root: Path, key: Path) -> Keyring:
    """The keyring of a root."""
    return Keyring(str(root), KeyFile(key))


def layout(root: Path, key: Path) -> Layout:
    """The layout of a root with a key."""
    return Layout(str(root), keyring(root, key))


@asynccontextmanager
async def managed(
    root: Path, source: KeySource | None, clock: ManualClock | None = None
) -> AsyncIterator[SessionManager]:
    """Open a manager with a key, or with none."""
    async with open_manager(str(root), settings=Settings(durability="relaxed"), keys=source, clock=clock) as manager:
        yield manager


async def fill(manager: SessionManager, address: str, count: int = 20, mark: str = "") -> None:
    """Store planted words at an address."""
    user, _, cursor = address.partition("/")
    async with manager.session(user, cursor) as ks:
        for begin in range(0, count, 1_000):
            some = range(begin, min(begin + 1_000, count))
            await ks.set_many({f"{KEY}.{n}": f"{VALUE}{mark}{n}" for n in some})


async def values(manager: SessionManager, address: str) -> dict[str, str]:
    """Everything that an address holds."""
    user, _, cursor = address.partition("/")
    async with manager.session(user, cursor, mode="read") as ks:
        return {entry.key: entry.value async for entry in ks.scan()}


def planted(*places: Path) -> list[str]:
    """The files below some places in which a planted word stands."""
    found = []
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                data = Path(folder, name).read_bytes()
                if KEY.encode() in data or VALUE.encode() in data:
                    found.append(os.path.join(folder, name))
    return found

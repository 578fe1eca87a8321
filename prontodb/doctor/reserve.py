"""The reserve: a file that only takes room, so that there is some to work with on a full disk (D20)."""

from __future__ import annotations

from prontodb.errors import shown
from prontodb.model.layout import REGISTRY, Layout
from prontodb.model.limits import MIB
from prontodb.storage.files import make_root, open_root

RESERVE_FILE = ".reserve"
RESERVE_BYTES = 1 * MIB


def make(layout: Layout) -> str | None:
    """Make the reserve if it is missing or cut short; return what was done, None when it is there."""
    with make_root(layout.root, REGISTRY) as folder:
        found = folder.check_file(RESERVE_FILE)
        if found is not None and found.st_size == RESERVE_BYTES:
            return None
        # Zeros are written, not skipped: a sparse file would reserve nothing.
        folder.publish(RESERVE_FILE, bytes(RESERVE_BYTES))
        return f"made the reserve of {RESERVE_BYTES:,} bytes for a full disk, {shown(f'{folder.path}/{RESERVE_FILE}')}"


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

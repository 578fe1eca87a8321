"""What a sandbox leaves open: everything beside a root, or only what is named; of the root itself nothing.

Landlock only allows, and what it allows at a folder holds for all below it. So no folder above the root is ever
allowed: what lies beside the way down to it is, by name, as it is at the start. A root that a second mount shows
elsewhere is closed there, too.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from prontodb.errors import InvalidInputError, UnavailableError, shown
from prontodb.storage.landlock import READ, WRITE, Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_ENTRIES = 100_000
"""What may lie beside the way to the root. Each entry takes a rule: 10,000 of them take a tenth of a second."""

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/gnu/store", "/proc",
    "/sys", "/etc/resolv.conf", "/etc/localtime",
)  # fmt: skip
"""What a strict sandbox can read and run programs from; of a link, what it leads to. Missing ones are left out."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
"""What of /dev a strict sandbox can use."""

_RAW = ("mem", "kmem", "port", "sg", "bsg", "ng", "nvme", "raw")
"""How devices are called, beside those of blocks, that show memory or a disk as it is."""


class Guard:
    """One root, under every name that it has, and the rules that leave it out."""

    def __init__(self, root: str, mounts: Iterable[str] | None = None) -> None:
        """`root` is resolved. `mounts`: the lines of /proc/self/mountinfo; None: those of now."""
        if root == "/":
            raise InvalidInputError("the root is / itself: nothing lies beside it that a command could use")
        self._root = root
        self._closed = frozenset({root, *_elsewhere(root, _mounts() if mounts is None else mounts)})
        self._above = frozenset(above for path in self._closed for above in _parents(path))
        self._identities = frozenset(_identity(path) for path in (root, *_parents(root))) - {None}

    def check(self, path: str, what: str) -> str:
        """Return a path resolved that may be allowed; refuse one that holds the root, lies in it, or does not exist."""
        found = os.path.realpath(path)
        if not os.path.exists(found):
            raise InvalidInputError(f"{what} {shown(path)} does not exist")
        if found in self._closed or any(found.startswith(f"{closed}/") for closed in self._closed):
            raise InvalidInputError(f"{what} {shown(path)} lies in the root {shown(self._root)}, which stays closed")
        if self._holds_root(found):
            raise InvalidInputError(
                f"{what} {shown(path)} holds the root {shown(self._root)}, which stays closed; name folders inside of "
                "it, or move the root to a place of its own"
            )
        return found

    def _holds_root(self, path: str) -> bool:
        return path in self._above or _identity(path) in self._identities

    def allow_beside(self, rules: Ruleset, *known: str) -> None:
        """Allow everything but the root: whatever lies beside the way down to it now.

        `known` is named where a folder above the root can be passed and not listed; what holds the root is left out.
        """
        for path in known:
            found = os.path.realpath(path)
            if not self._holds_root(found) and not any(_is_below(found, closed) for closed in self._closed):
                rules.allow(found, WRITE)
        entries = 0
        waiting = ["/"]
        while waiting:
            above = waiting.pop()
            for path, is_folder in _entries(above):
                if path in self._closed:
                    continue
                if is_folder and (path == "/dev" or self._holds_root(path)):
                    waiting.append(path)
                    continue
                entries += 1
                if entries > MAX_ENTRIES:
                    raise UnavailableError(
                        f"over {MAX_ENTRIES:,} files and folders lie beside the way to the root {shown(self._root)}, "
                        f"in {shown(above)} for one; each takes a rule: move the root to a place of its own, or use "
                        "--strict"
                    )
                rules.allow(path, WRITE)

    def allow_system(self, rules: Ruleset, *more: str) -> None:
        """Allow to read what programs need, and `more` folders; raises when one of them holds the root."""
        for path in (*SYSTEM, *more):
            if os.path.exists(path):
                rules.allow(self.check(path, "what programs need,"), READ)
        for name in DEVICES:
            rules.allow(os.path.realpath(f"/dev/{name}"), WRITE)


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield what lies in a folder and is no link, and whether it is a folder; of /dev neither disks nor memory."""
    try:
        found = os.scandir(folder)
    except OSError:
        return  # one may pass through and not look: nothing beside the way can be named
    with found:
        for entry in found:
            path = f"{folder.rstrip('/')}/{entry.name}"
            if entry.is_symlink() or (folder == "/dev" and _holds_disks(path)):
                continue
            yield path, entry.is_dir(follow_symlinks=False)


def _holds_disks(path: str) -> bool:
    """True for a disk, memory, or a folder with disks in it: reading those is reading the root."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(path) as inside:
                return any(stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode) for entry in inside)
    except OSError:
        return True
    return stat.S_ISBLK(mode) or os.path.basename(path).startswith(_RAW)


def _parents(path: str) -> list[str]:
    found = []
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _mounts() -> list[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError as error:
        raise UnavailableError(
            "no sandbox is possible here: /proc/self/mountinfo, which tells whether the root can be reached by another "
            f"way, cannot be read: {os.strerror(error.errno or 0)}"
        ) from error


def _elsewhere(root: str, lines: Iterable[str]) -> set[str]:
    """Return the other paths at which mounts show the root, a part of it, or a folder above it."""
    mounts = []
    for line in lines:
        fields = line.split(" ")
        mounts.append((fields[2], _unescaped(fields[3]), _unescaped(fields[4])))
    here = max((mount for mount in mounts if _is_below(root, mount[2])), key=lambda mount: len(mount[2]), default=None)
    if here is None:
        return set()
    # What the root shows: its own file system from some folder down, and whatever is mounted inside of it.
    device, top, point = here
    shown_here = [(device, _joined(top, os.path.relpath(root, point)))]
    shown_here += [(device, top) for device, top, point in mounts if _is_below(point, root) and point != root]
    found = set()
    for device, inside in shown_here:
        for other, start, place in mounts:
            if other == device and _is_below(inside, start):
                found.add(_joined(place, os.path.relpath(inside, start)))
            elif other == device and _is_below(start, inside):
                found.add(place)
    return {path for path in found if not _is_below(path, root)}


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def _joined(above: str, relative: str) -> str:
    return above if relative == "." else f"{above.rstrip('/')}/{relative}"


def _unescaped(field: str) -> str:
    """Return a path of mountinfo, which writes blanks and the like as octal numbers."""
    if "\\" not in field:
        return field
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)

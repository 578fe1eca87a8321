"""What a sandbox leaves open: everything beside a root and its key file, or only what is named; of those nothing.

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
    """One root, and the file with the key to it, under every name that they have, and the rules that leave them out."""

    def __init__(self, root: str, mounts: Iterable[str] | None = None, *, key_file: str | None = None) -> None:
        """`root` is resolved. `mounts`: the lines of /proc/self/mountinfo; None: those of now.

        `key_file` None: there is none. One in the root is closed with it.
        """
        if root == "/":
            raise InvalidInputError("the root is / itself: nothing lies beside it that a command could use")
        self._root = root
        lines = list(_mounts() if mounts is None else mounts)
        places = {root: f"the root {shown(root)}"}
        key = None if key_file is None else os.path.realpath(key_file)
        if key is not None and os.path.isfile(key) and not _is_below(key, root):
            places[key] = f"the key file {shown(key)}"
        self._closed: dict[str, str] = {}
        self._above: dict[str, str] = {}
        self._identities: dict[tuple[int, int], str] = {}
        for place, what in places.items():
            for path in (place, *_elsewhere(place, lines)):
                self._closed.setdefault(path, what)
                for above in _parents(path):
                    self._above.setdefault(above, what)
            for path in (place, *_parents(place)):
                identity = _identity(path)
                if identity is not None:
                    self._identities.setdefault(identity, what)

    def check(self, path: str, what: str) -> str:
        """Return a path resolved that may be allowed; refuse one that holds what is closed, or does not exist."""
        if not path:
            raise InvalidInputError(f"{what} names no path; '.' is the working folder")
        try:
            found = os.path.realpath(path, strict=True)
            shows_disks = _shows_disks(found)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "does not exist" if missing else f"cannot be used: {os.strerror(error.errno or 0)}"
            raise InvalidInputError(f"{what} {shown(path)} {reason}") from error
        if shows_disks:
            raise InvalidInputError(
                f"{what} {shown(path)} shows disks or memory as they are, and with them the root; name what is needed, "
                "such as /dev/shm"
            )
        for closed, name in self._closed.items():
            if _is_below(found, closed):
                raise InvalidInputError(f"{what} {shown(path)} lies in {name}, which stays closed")
        held = self._held_by(found)
        if held is not None:
            raise InvalidInputError(
                f"{what} {shown(path)} holds {held}, which stays closed; name folders inside of it, or move that to a "
                "place of its own"
            )
        return found

    def _held_by(self, path: str) -> str | None:
        """Return what of what is closed lies below a path, or is it by another name."""
        identity = _identity(path)
        return self._above.get(path) or (None if identity is None else self._identities.get(identity))

    def allow_beside(self, rules: Ruleset, *known: str) -> None:
        """Allow everything but the root and the key file: whatever lies beside the ways down to them now.

        `known` is named where a folder above them can be passed and not listed; what holds one of them is left out.
        """
        for path in known:
            found = os.path.realpath(path)
            if self._held_by(found) is None and not any(_is_below(found, closed) for closed in self._closed):
                rules.allow(found, WRITE)
        self._allow_around(rules, "/", WRITE)

    def _allow_around(self, rules: Ruleset, top: str, right: int) -> None:
        """Allow all below a folder that holds what is closed, but for that."""
        entries = 0
        waiting = [top]
        while waiting:
            above = waiting.pop()
            for path, is_folder in _entries(above):
                held = self._held_by(path)
                if path in self._closed or (held is not None and not is_folder):
                    continue
                if is_folder and (path == "/dev" or held is not None):
                    waiting.append(path)
                    continue
                entries += 1
                if entries > MAX_ENTRIES:
                    held = self._held_by(above) or "what stays closed"
                    raise UnavailableError(
                        f"over {MAX_ENTRIES:,} files and folders lie beside the way to {held}, in {shown(above)} for "
                        "one; each takes a rule: move it to a place of its own, or use --strict"
                    )
                rules.allow(path, right)

    def allow_system(self, rules: Ruleset, *more: str) -> None:
        """Allow to read what programs need, and `more` folders; raises when one of them holds the root."""
        for path in (*SYSTEM, *more):
            found = os.path.realpath(path)
            if os.path.isdir(found) and not _is_below(self._root, found) and self._held_by(found) is not None:
                self._allow_around(rules, found, READ)
            elif os.path.exists(found):
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


def _shows_disks(path: str) -> bool:
    """`_holds_disks`, for whatever somebody names; what looks like one and is a plain file or folder is none."""
    mode = os.stat(path).st_mode
    is_device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
    return path == "/dev" or (_holds_disks(path) if is_device or _is_below(path, "/dev") else False)


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

"""Every file and folder below a root, judged by its place, kind, owner and mode; nothing is opened."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import TYPE_CHECKING

from prontodb.doctor.findings import ERROR, REPAIR, error, warning
from prontodb.engine.sqlite.folders import owner
from prontodb.engine.sqlite.remaking import ASIDE
from prontodb.errors import InvalidAddressError
from prontodb.model.address import Address
from prontodb.model.layout import (
    ADDRESSES,
    KEYS,
    KEYSTORE_FILE,
    METADATA_FILE,
    OLD_PREFIX,
    REGISTRY,
    SANDBOXES,
    Layout,
)
from prontodb.registry.index import SET_ASIDE
from prontodb.storage.files import open_root
from prontodb.storage.survey import Found, close_to_others, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.doctor.findings import Problem

STALE_S = 3_600
"""A file is published within moments; one staged an hour ago was left by a crash."""

_TOPS = frozenset({ADDRESSES, REGISTRY, SANDBOXES, KEYS, "backups"})
_OF_RUN = (SANDBOXES, "ID")
_IN_ADDRESS = frozenset(
    {METADATA_FILE, KEYSTORE_FILE, *(KEYSTORE_FILE + ending for ending in ("-wal", "-shm", "-journal"))}
)
_STAGED = re.compile(r"\..+\.[0-9a-f]{12}\.tmp(?:-wal|-shm|-journal)?", re.ASCII)
_ASIDE = re.compile(re.escape(METADATA_FILE) + r"\.[0-9]+" + re.escape(ASIDE), re.ASCII)
_OTHERS_WRITE = 0o022


class Tree:
    """One walk over a root; with `repair`, whoever takes a problem heals it before asking for the next.

    `unsafe` collects the addresses that are not to be opened for what lies there; `blocked` says that the same is true
    of all of them.
    """

    def __init__(self, layout: Layout, now_ms: int, *, repair: bool) -> None:
        self._root, self._now_s, self._uid = layout.root, now_ms / 1_000, os.geteuid()
        self._repair = repair
        self.unsafe: set[Address] = set()
        self.blocked = False

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with each file and folder; a root that is not ours ends the walk."""
        skipped: tuple[str, ...] | None = None
        for found in survey(self._root):
            if skipped is not None and found.parts[: len(skipped)] == skipped:
                continue
            skipped = None
            if found.is_folder and _is_remains(found.parts):
                # Healed as a whole; what lies inside belongs to nobody any more.
                skipped = found.parts
                continue
            if len(found.parts) > len(_OF_RUN) and found.parts[0] == SANDBOXES:
                continue  # temporary files of a command: whatever it likes; they go when its run ends
            if _is_no_metadata(found):
                skipped = found.parts
                continue  # named with its keystore, which can be used once the metadata is made anew
            if _is_stranger(found):
                skipped = found.parts
                if found.is_file or found.is_folder:
                    yield self._stranger(found)
                    continue
            usable = True
            for problem in self._judge(found):
                yield problem
                if problem.finding.level == ERROR and not (self._repair and problem.heal):
                    usable = False
                    self._distrust(found.parts)
            if not usable and not found.parts:
                return

    def _judge(self, found: Found) -> Iterator[Problem]:
        place, quoted = _readable(self._path(found)), shlex.quote(self._path(found))
        if not (found.is_folder or found.is_file):
            fix = f"rm -- {quoted}"
            if len(found.parts) == 2 and found.parts[0] == KEYS and stat.S_ISLNK(found.stat.st_mode):
                # What it leads to may be all that opens an address: that takes its place.
                fix = f"cp -- {quoted} {quoted}.new && mv -- {quoted}.new {quoted}"
            yield error(f"{place} is {found.kind}; it is never followed or opened", fix)
            return
        if found.stat.st_uid != self._uid:
            what = f"{place} belongs to uid {found.stat.st_uid}, not to us (uid {self._uid})"
            yield error(what, f"chown -R {self._uid} {quoted}")
            return
        if found.is_file and found.stat.st_nlink > 1:
            what = f"{place} has {found.stat.st_nlink} names (hard links); it is never opened"
            yield error(what, f"find the others and remove them: find / -xdev -samefile {quoted}")
        if not found.stat.st_mode & stat.S_IRUSR:
            yield error(f"{place} cannot be read by its owner", f"chmod u+rwX {quoted}")
        elif found.trouble is not None:
            yield error(found.trouble, f"look into {quoted}")
        yield from self._judge_others(found, place)
        yield from self._judge_staged(found, place)
        if found.is_file and found.parts[:1] == (REGISTRY,) and SET_ASIDE in found.parts[-1]:
            what = f"{place} is a damaged registry that was set aside; the folders hold all that it knew"
            yield warning(what, f"rm -- {quoted}")
        if found.parts[:1] == (ADDRESSES,) and _ASIDE.fullmatch(found.parts[-1]):
            what = f"{place} stood in the place of the metadata, which was made anew"
            yield warning(what, f"take from it what is missed, then: rm -- {quoted}")

    def _judge_others(self, found: Found, place: str) -> Iterator[Problem]:
        if not found.open_to_others:
            return

        def heal() -> str:
            close_to_others(self._root, found)
            return f"closed {place} to others"

        if found.open_to_others & _OTHERS_WRITE:
            yield error(f"{place} can be written by others, so it is not used", REPAIR, heal)
        else:
            yield warning(f"{place} is open to others' eyes", REPAIR, heal)

    def _judge_staged(self, found: Found, place: str) -> Iterator[Problem]:
        if not found.is_file or not _STAGED.fullmatch(found.parts[-1]):
            return
        if self._now_s - found.stat.st_mtime < STALE_S:
            return

        def heal() -> str:
            with open_root(self._root, *found.parts[:-1]) as folder:
                folder.remove(found.parts[-1])
            return f"removed {place}, which a crash left"

        yield warning(f"{place} was staged and never published; a crash left it", REPAIR, heal)

    def _stranger(self, found: Found) -> Problem:
        path = self._path(found)
        what = f"{_readable(path)} is nothing of ours; it is left alone"
        return warning(what, f"if nobody needs it: rm -r -- {shlex.quote(path)}")

    def _path(self, found: Found) -> str:
        return "/".join((self._root, *found.parts))

    def _distrust(self, parts: tuple[str, ...]) -> None:
        match parts:
            case () | ("addresses",) | ("registry",):
                self.blocked = True
            case ("addresses", user, cursor, *_):
                try:
                    self.unsafe.add(Address(user, cursor))
                except InvalidAddressError:
                    return


def _readable(path: str) -> str:
    """Return a path on one line and whole, since whoever reads it has to find it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in path)


def _is_remains(parts: tuple[str, ...]) -> bool:
    if len(parts) != 3 or parts[0] != ADDRESSES or parts[2].startswith(OLD_PREFIX):
        return False
    return owner(parts[1], parts[2]) is not None


def _is_no_metadata(found: Found) -> bool:
    """True for what stands in the place of an address's metadata and is no file."""
    in_place = len(found.parts) == 4 and found.parts[0] == ADDRESSES and found.parts[-1] == METADATA_FILE
    return in_place and not found.is_file


def _is_stranger(found: Found) -> bool:
    """True for what no part of ProntoDB put there, judged by place and kind."""
    try:
        match found.parts:
            case ():
                return False
            case (top,):
                return not (found.is_folder and top in _TOPS)
            case ("addresses", user):
                Address(user)
                return not found.is_folder
            case ("addresses", user, name):
                if owner(user, name) is None:
                    Address(user, name)
                return not found.is_folder
            case ("addresses", _, _, name):
                return not (
                    found.is_file and (name in _IN_ADDRESS or _STAGED.fullmatch(name) or _ASIDE.fullmatch(name))
                )
            case ("addresses", *_):
                return True
            case ("registry", "locks") | ("registry", "locks", _):
                return not found.is_folder
    except InvalidAddressError:
        return True
    return False

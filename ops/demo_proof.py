"""The demo's proof of isolation: whose tokens lie where, counted in raw bytes, and the judgement of what was found.

Run as a program it lists every file below a root with its mode, its size and the tokens in its bytes. That is a
process of its own: one that has a keystore open and reads its file past SQLite would drop its own locks.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ELSEWHERE = "elsewhere"
"""The place of every file that belongs to no address: registry, locks, the root itself."""

Found = dict[str, dict[str, int]]
"""How often the token of each writer was found at each place."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file or folder below the root; `tokens` are how often each writer's token stands in its bytes."""

    path: str
    mode: str
    size_bytes: int
    tokens: dict[str, int]

    @property
    def place(self) -> str:
        """The address whose folder it lies in, or ELSEWHERE."""
        parts = self.path.split("/")
        return "/".join(parts[1:3]) if parts[0] == "addresses" and len(parts) > 3 else ELSEWHERE


def inspect(root: str, tokens: Mapping[str, str]) -> list[Item]:
    """Return everything below the root, in order of paths; follows no link."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            regular = stat.S_ISREG(status.st_mode)
            content = path.read_bytes() if regular else b""
            counts = {writer: content.count(token.encode()) for writer, token in tokens.items()}
            relative, mode = path.relative_to(root).as_posix(), stat.filemode(status.st_mode)
            found.append(Item(relative, mode, status.st_size if regular else 0, counts))
    return sorted(found, key=lambda item: [_by_number(name) for name in item.path.split("/")])


def _by_number(name: str) -> str:
    """Return what sorts agent2 before agent10."""
    return re.sub(r"[0-9]+", lambda digits: digits[0].zfill(4), name)


def in_bytes(items: Iterable[Item]) -> Found:
    """Add up what the files of each place hold."""
    found: Found = {}
    for item in items:
        counts = found.setdefault(item.place, dict.fromkeys(item.tokens, 0))
        for writer, count in item.tokens.items():
            counts[writer] += count
    return found


def in_values(values: Mapping[str, Iterable[str]], tokens: Mapping[str, str]) -> Found:
    """Count in how many of the values of each place each writer's token stands."""
    found: Found = {}
    for place, texts in values.items():
        counts = found.setdefault(place, dict.fromkeys(tokens, 0))
        for text in texts:
            for writer, token in tokens.items():
                counts[writer] += token in text
    return found


def faults(found: Found, allowed: Mapping[str, set[str]]) -> list[str]:
    """Return what is wrong, a line each: tokens where they must not be, and none where they must be.

    `allowed` names the writers of each place; a place it does not name may hold nobody's. A search that finds nothing
    of the owner's proves nothing about others', so that is a fault as well.
    """
    wrong = [
        f"{place} holds {count} of {writer}"
        for place, counts in found.items()
        for writer, count in counts.items()
        if count and writer not in allowed.get(place, set())
    ]
    return wrong + [
        f"{place} holds nothing of {writer}"
        for place, writers in allowed.items()
        for writer in sorted(writers)
        if not found.get(place, {}).get(writer)
    ]


def open_to_others(items: Iterable[Item]) -> list[str]:
    """Return the paths that are neither a folder of mode 0700 nor a file of mode 0600."""
    return [f"{item.mode} {item.path}" for item in items if item.mode not in ("drwx------", "-rw-------")]


def main() -> None:
    """Read tokens by writer as JSON from stdin, print the items of the root named on the command line as JSON."""
    json.dump([asdict(item) for item in inspect(sys.argv[1], json.load(sys.stdin))], sys.stdout)


if __name__ == "__main__":
    main()

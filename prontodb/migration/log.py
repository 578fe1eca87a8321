"""The log beside an old database: whether SQLite will take all of it that was committed, which it does not say itself.

A damaged log reads like a shorter one: SQLite stops at the first frame whose checksum is wrong. The format is
https://sqlite.org/fileformat2.html#walformat and #the_rollback_journal.
"""

from __future__ import annotations

import os
import struct

from prontodb.errors import InvalidSourceError, shown

_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
"""What a log begins with, and the byte order of its checksums."""
_HEAD, _FRAME_HEAD = 32, 24
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_MASK = 0xFFFFFFFF


def last_commit(path: str, name: str) -> int | None:
    """Return the number of the last frame in the log that ends a transaction, by its head alone; None without a log.

    Frames of an earlier round of the log, whose salts are others, do not count. Raises `InvalidSourceError` for a log,
    or a rollback journal, that does not begin as one.
    """
    _check_journal(f"{path}-journal", name)
    try:
        with open(f"{path}-wal", "rb") as file:
            head = file.read(_HEAD)
            if not head:
                return None
            page_bytes, salts = _of_head(head, name)
            frames = (os.fstat(file.fileno()).st_size - _HEAD) // (_FRAME_HEAD + page_bytes)
            last = 0
            for number in range(1, frames + 1):
                file.seek(_HEAD + (number - 1) * (_FRAME_HEAD + page_bytes))
                _, pages_after, *of = struct.unpack(">4I", file.read(_FRAME_HEAD)[:16])
                if tuple(of) == salts and pages_after:
                    last = number
            return last
    except FileNotFoundError:
        return None


def check_played(last: int, played: int, name: str) -> None:
    """Raise `InvalidSourceError` when SQLite takes fewer frames than were committed."""
    if played < last:
        raise InvalidSourceError(
            f"the log {shown(name + '-wal')} is damaged after frame {max(played, 0):,}, and what was committed up to "
            f"frame {last:,} cannot be read; to migrate the older state without it, make a copy that has no log"
        )


def _of_head(head: bytes, name: str) -> tuple[int, tuple[int, int]]:
    """Return page size and salts; raises unless the head is whole."""
    if len(head) == _HEAD:
        words = struct.unpack(">8I", head)
        order = _MAGICS.get(words[0])
        if order is not None and _checksum(head[:24], order) == words[6:8] and words[2] >= 512:
            return words[2], (words[4], words[5])
    raise InvalidSourceError(
        f"{shown(name + '-wal')} is damaged, or no log of SQLite, and what it held cannot be read; to migrate the "
        "older state without it, make a copy that has no log"
    )


def _checksum(data: bytes, order: str) -> tuple[int, int]:
    one = two = 0
    for first, second in struct.iter_unpack(f"{order}2I", data):
        one = (one + first + two) & _MASK
        two = (two + second + one) & _MASK
    return one, two


def _check_journal(path: str, name: str) -> None:
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_JOURNAL_MAGIC))
    except FileNotFoundError:
        return
    # Zeros are what a finished transaction leaves in a journal that is kept.
    if begin and begin != _JOURNAL_MAGIC and any(begin):
        raise InvalidSourceError(
            f"{shown(name + '-journal')} is damaged, or no journal of SQLite, and what it was to take back cannot be "
            "told; to migrate without it, make a copy that has none"
        )

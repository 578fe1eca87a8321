"""The log beside an old database: whether SQLite will take all of it that was committed, which it does not say itself.

A damaged log reads like a shorter one: SQLite stops at the first frame whose checksum is wrong. The format is
https://sqlite.org/fileformat2.html#walformat and #the_rollback_journal.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidSourceError, shown

if TYPE_CHECKING:
    from typing import BinaryIO

_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
"""What a log begins with, and the byte order of its checksums."""
_HEAD, _FRAME_HEAD = 32, 24
_MAX_ROUNDS = 1 << 20
"""The first salt is one more in each round of a log."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_HEAD = 28
_AS_MANY_AS_THERE_ARE = 0xFFFFFFFF
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Log:
    """What the heads of a log's frames say. `commits`: the numbers of the frames that end a transaction.

    `strange`: numbers of frames that are neither of this round of the log nor of one before it.
    """

    commits: tuple[int, ...]
    strange: tuple[int, ...]


def read(path: str, name: str) -> Log | None:
    """Return what a log says by its heads alone; None without a log.

    Frames of an earlier round of the log, whose salts are others, do not count. Raises `InvalidSourceError` for a log,
    or a rollback journal, that is not whole.
    """
    _check_journal(f"{path}-journal", name)
    try:
        with open(f"{path}-wal", "rb") as file:
            head = file.read(_HEAD)
            if not head:
                return None
            page_bytes, salts = _of_head(head, name)
            frames = (os.fstat(file.fileno()).st_size - _HEAD) // (_FRAME_HEAD + page_bytes)
            commits, strange = [], []
            for number in range(1, frames + 1):
                file.seek(_HEAD + (number - 1) * (_FRAME_HEAD + page_bytes))
                _, pages_after, *of = struct.unpack(">4I", file.read(_FRAME_HEAD)[:16])
                if tuple(of) == salts:
                    if pages_after:
                        commits.append(number)
                elif of != [0, 0] and not 0 < (salts[0] - of[0]) & _MASK < _MAX_ROUNDS:
                    strange.append(number)
            return Log(tuple(commits), tuple(strange))
    except FileNotFoundError:
        return None


def check_played(log: Log, played: int, name: str) -> str | None:
    """Return what is doubtful about a log of which SQLite takes so many frames; None when it takes all.

    Raises `InvalidSourceError` when transactions are lost for certain: more than one was committed behind those frames.
    A single one at the end may have been in the making when its program was killed, and was then never committed.
    """
    lost = [number for number in log.commits if number > played]
    place, kept = shown(name + "-wal"), f"it keeps what was committed up to frame {max(played, 0):,}"
    if len(lost) > 1:
        raise InvalidSourceError(
            f"the log {place} is damaged: {len(lost):,} transactions in it cannot be read; have sqlite3 open a copy "
            f"({kept}), and migrate that"
        )
    if lost:
        return f"the last transaction in {place} is not whole: it was never committed, or is damaged; {kept}"
    if any(number > played for number in log.strange):
        return f"{place} goes on with what is no frame of it: damage, or another file's; {kept}"
    return None


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
    """Raise unless a rollback journal can be played back to its end, or has been."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = file.read(_JOURNAL_HEAD)
            # Zeros are what a finished transaction leaves in a journal that is kept.
            if not any(begin[: len(_JOURNAL_MAGIC)]):
                return
            at = 0
            while len(begin) == _JOURNAL_HEAD and begin.startswith(_JOURNAL_MAGIC):
                records, nonce, _, sector, page = struct.unpack(">5I", begin[len(_JOURNAL_MAGIC) :])
                if page.bit_count() != 1 or not 512 <= page <= 65_536 or sector.bit_count() != 1:
                    break
                at += sector
                most = max(0, size - at) // (page + 8)
                if records == _AS_MANY_AS_THERE_ARE:
                    records = most
                if records > most or not _are_whole(file, at, records, nonce, page):
                    break
                at = -(-(at + records * (page + 8)) // sector) * sector
                file.seek(at)
                begin = file.read(_JOURNAL_HEAD)
                if not begin or begin[0] == 0:
                    return  # to the end of what was synced: SQLite makes sure of a zero there
    except FileNotFoundError:
        return
    raise InvalidSourceError(
        f"{shown(name + '-journal')} is damaged, or no journal of SQLite: some of what was never committed cannot be "
        "taken back; have sqlite3 open a copy, look at what it makes of it, and migrate that"
    )


def _are_whole(file: BinaryIO, at: int, records: int, nonce: int, page: int) -> bool:
    """True when every record of one part of a journal has its checksum: the nonce and every 200th byte of the page."""
    file.seek(at)
    for _ in range(records):
        record = file.read(page + 8)
        stored = int.from_bytes(record[-4:])
        if (nonce + sum(record[4:-4][page - 200 : 0 : -200])) & _MASK != stored:
            return False
    return True

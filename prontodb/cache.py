"""Recent entries of an exclusive session, answered without SQLite: nobody else can write, so they are the truth.

It never knows better than the store: what is being written is not in it, an expired entry is not found, and a holder
who may have lost the address finds nothing any more.
"""

from __future__ import annotations

from os import pread
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from prontodb.model.value import Value
from prontodb.storage.lock import UNMARKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prontodb.model.clock import Clock
    from prontodb.model.entry import Entry

ENTRY_BYTES = 400
"""What an entry costs beside the text of its key and value: measured on CPython 3.11, rounded up."""
LOOK_EVERY_S = 0.05
"""How long it may take until it is noticed that the lock file was taken away by hand."""
MAX_UNSURE = 10_000


class Held(Protocol):
    """What is asked of a lock: the descriptor of its file, -1 when it is not ours."""

    @property
    def fd(self) -> int: ...


class CacheReport(Value):
    """What a cache did so far, and what it holds now. `bytes` is an upper bound."""

    __slots__ = ("hits", "misses", "evicted", "entries", "bytes", "max_bytes")

    hits: int
    misses: int
    evicted: int
    entries: int
    bytes: int
    max_bytes: int

    def __init__(self, hits: int, misses: int, evicted: int, entries: int, bytes: int, max_bytes: int) -> None:
        self._fill(hits, misses, evicted, entries, bytes, max_bytes)


class Cache:
    """A bounded map of entries in two generations: what the old one holds and nobody asks for is dropped with it.

    `held` is the session's lock, whose mark is looked at for every answer; `look` raises when the session is over, and
    says whether its lock and its keystore are still in their places.
    """

    __slots__ = (
        "_acknowledged",
        "_bytes",
        "_clock",
        "_half",
        "_held",
        "_look",
        "_looked_at",
        "_old",
        "_old_bytes",
        "_unsure",
        "_young",
        "evicted",
        "hits",
        "misses",
        "off",
    )

    def __init__(self, max_bytes: int, clock: Clock, held: Held, look: Callable[[], bool]) -> None:
        self._half = max_bytes // 2
        self._clock, self._held, self._look = clock, held, look
        self._young: dict[str, Entry] = {}
        self._old: dict[str, Entry] = {}
        self._bytes = self._old_bytes = 0
        # Keys with writes under way, or whose last write ended without telling: how many of them.
        self._unsure: dict[str, int] = {}
        self._acknowledged = 0
        self._looked_at = 0.0
        self.hits = self.misses = self.evicted = 0
        self.off = max_bytes == 0

    def find(self, key: str) -> Entry | None:
        """Return the live entry of `key` if it is known here."""
        entry = self._young.get(key) or self._aged(key)
        if entry is None:
            self.misses += 1
            return None
        now = perf_counter()
        try:
            # Not through a method of the lock: this line is most of what a hot get costs.
            if pread(self._held.fd, 1, 0) != UNMARKED or now - self._looked_at > LOOK_EVERY_S:
                self._looked_at = now
                if not self._look():
                    self.stop()
                    return None
        except OSError:
            return None  # the child of a fork, where the lock is the parent's
        if entry.expires_at_ms is not None and entry.expires_at_ms <= self._clock.wall_ms():
            return None
        self.hits += 1
        return entry

    def _aged(self, key: str) -> Entry | None:
        entry = self._old.pop(key, None)
        if entry is not None:
            size = _size(entry)
            self._old_bytes -= size
            self._insert(entry, size)
        return entry

    @property
    def moment(self) -> int:
        """What to hand to `keep` with entries whose reading begins now."""
        return self._acknowledged

    def keep(self, entry: Entry, moment: int) -> None:
        """Remember an entry just read, unless a write may have overtaken the reading."""
        key = entry.key
        if self.off or moment != self._acknowledged or key in self._unsure or key in self._young:
            return
        size = _size(entry)
        if size > self._half // 4:
            return  # one large value must not push out all others
        self._insert(entry, size)

    def _insert(self, entry: Entry, size: int) -> None:
        if self._bytes + size > self._half:
            self.evicted += len(self._old)
            self._old, self._old_bytes = self._young, self._bytes
            self._young, self._bytes = {}, 0
        self._young[entry.key] = entry
        self._bytes += size

    def begin(self, keys: Iterable[str]) -> None:
        """Forget keys that are about to be written, until `end`."""
        if self.off:
            return
        for key in keys:
            self._unsure[key] = self._unsure.get(key, 0) + 1
            self._forget(key)

    def end(self, keys: Iterable[str]) -> None:
        """The write of these keys has ended, one way or the other."""
        self._acknowledged += 1
        if self.off:
            return
        for key in keys:
            left = self._unsure[key] - 1
            if left:
                self._unsure[key] = left
            else:
                del self._unsure[key]

    def lose(self) -> None:
        """A write ended without telling how: its keys stay unsure, so they are read from the store from now on."""
        self._acknowledged += 1
        if len(self._unsure) > MAX_UNSURE:
            self.stop()

    def _forget(self, key: str) -> None:
        entry = self._young.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry)
        entry = self._old.pop(key, None)
        if entry is not None:
            self._old_bytes -= _size(entry)

    def stop(self) -> None:
        """Forget everything and remember nothing any more."""
        self.off = True
        self._young, self._old, self._bytes, self._old_bytes = {}, {}, 0, 0
        self._unsure = {}

    def report(self) -> CacheReport:
        """Return its counters."""
        entries = len(self._young) + len(self._old)
        held = self._bytes + self._old_bytes
        return CacheReport(self.hits, self.misses, self.evicted, entries, held, 2 * self._half)


def _size(entry: Entry) -> int:
    # Four bytes a character is the most that Python takes; ASCII, by far the most, takes one.
    text = len(entry.key) + len(entry.value)
    return ENTRY_BYTES + (text if entry.value.isascii() and entry.key.isascii() else 4 * text)

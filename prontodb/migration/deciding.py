"""Fates: which of several old rows of one key is the newest, and whether anybody can say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.migration.ledger import BY_ROW, EXPIRED, MIGRATED, REPORTED, SUPERSEDED
from prontodb.migration.moments import UNKNOWN
from prontodb.migration.reasons import Reason
from prontodb.model.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from prontodb.migration.ledger import Grouped, Ledger
    from prontodb.migration.plan import Plan

KEYS_A_STEP = 5_000
NAMED = 3
"""Old names or databases that a reason names."""
LINES_A_LOOK = 50_000


class _Key:
    """The lines of one key, one after the other: only what decides between them is kept, however many there are."""

    __slots__ = ("contents", "first_live", "identities", "key", "last", "newest", "places", "slot", "undated")

    def __init__(self, slot: int, key: str) -> None:
        self.slot, self.key = slot, key
        self.identities: set[str] = set()
        self.places: set[int] = set()
        self.newest: dict[int, Grouped] = {}
        """The newest line of each old table."""
        self.first_live: dict[int, Grouped] = {}
        """Of each old table the first line that has not expired: what the old program showed."""
        self.contents: set[tuple[int, int]] = set()
        self.undated = False
        self.last: Grouped | None = None

    def add(self, line: Grouped, now_ms: int) -> None:
        """Take the next line, in the order they were read."""
        if len(self.places) < NAMED:
            self.places.add(line.place)
        if len(self.identities) < NAMED:
            self.identities.add(line.identity)
        if len(self.contents) < NAMED:
            self.contents.add((line.digest, line.expires))
        origin = line.origin
        self.undated = self.undated or line.updated == UNKNOWN
        newest = self.newest.get(origin)
        if newest is None or line.updated >= newest.updated:
            self.newest[origin] = line
        if origin not in self.first_live and not _is_expired(line, now_ms):
            self.first_live[origin] = line
        self.last = line

    def choose(self) -> Grouped | None:
        """Return what was written last; None when no time says which of several tables' rows that is."""
        assert self.last is not None  # a key has lines
        if len(self.newest) == 1:
            # Rows were only ever added: without times, the last one is what was written last.
            return self.last if self.undated else self.newest[self.last.origin]
        newest = max(self.newest.values(), key=lambda line: (line.updated, line.n))
        rivals = {(line.digest, line.expires) for line in self.newest.values() if line.updated == newest.updated}
        return newest if len(self.contents if self.undated else rivals) == 1 else None


class _Decided:
    """What was decided of some keys, until it is written."""

    def __init__(self) -> None:
        self.newest: list[tuple[int, int, str, int]] = []
        self.refused: list[tuple[int, str, int, str]] = []
        self.flags: list[tuple[int, int, str, int]] = []
        self.shown: list[tuple[int, str, int, int]] = []

    def write(self, ledger: Ledger) -> None:
        """Write it."""
        ledger.supersede(self.newest)
        ledger.refuse_keys(self.refused)
        ledger.flag(self.flags)
        ledger.note_shown(self.shown)

    def add(self, found: _Key, plan: Plan) -> None:
        """Decide one key."""
        slot, key = found.slot, found.key
        places = [plan.places.places[number] for number in sorted(found.places)]
        if len(found.identities) > 1:
            told = " and ".join(sorted(name.replace("\x1f", "|") or key for name in found.identities))
            self.refused.append((Reason.TWIN_KEY, told, slot, key))
            return
        if len(places) > 1 and not all(place.by_name for place in places):
            # Of two owners, or of one cursor's two views: that these are one key now does not make one of them older.
            told = " and ".join(f"{key} of {place.old}" for place in places)
            self.refused.append((Reason.TWIN_KEY, told, slot, key))
            return
        newest = found.choose()
        if newest is None:
            told = " and ".join(sorted({plan.origins[origin].database for origin in found.newest})[:NAMED])
            self.refused.append((Reason.UNCLEAR_WHICH, told, slot, key))
            return
        is_expired = _is_expired(newest, plan.now_ms)
        # What was written last and cannot come over is reported; what it superseded is not brought back for it.
        fate = EXPIRED if is_expired else REPORTED if newest.reason else MIGRATED
        self.newest.append((fate, slot, key, newest.n))
        if found.undated:
            self.flags.append((BY_ROW, slot, key, newest.n))
        first = found.first_live.get(newest.origin)
        if first is not None and first.n != newest.n and (is_expired or first.digest != newest.digest):
            self.shown.append((slot, key, first.n, newest.n))


def decide(ledger: Ledger, plan: Plan) -> Generator[Progress, None, None]:
    """Decide every line that is not alone with its address and key. Yields now and then."""
    total, done = plan.rows, 0
    last = (-1, "")
    while True:
        decided, keys = _Decided(), 0
        current: _Key | None = None
        for line in ledger.undecided(last):
            if current is None or (current.slot, current.key) != line[:2]:
                if current is not None:
                    decided.add(current, plan)
                    last, keys, current = (current.slot, current.key), keys + 1, None
                    if keys >= KEYS_A_STEP:
                        break
                current = _Key(line.slot, line.key)
            current.add(line, plan.now_ms)
            done += 1
            if done % LINES_A_LOOK == 0:
                yield Progress(what="deciding", done=min(done, total), total=total)
        if current is not None:
            decided.add(current, plan)
            last = (current.slot, current.key)
        elif not keys:
            return
        decided.write(ledger)


def _is_expired(line: Grouped, now_ms: int) -> bool:
    return 0 <= line.expires <= now_ms


def decide_lifetimes(ledger: Ledger) -> None:
    """Decide every default lifetime: of several for one namespace, equal ones are one, others are all reported."""
    groups: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for n, slot, namespace, ttl_ms in ledger.undecided_lifetimes():
        groups.setdefault((slot, namespace), []).append((n, ttl_ms))
    fates: list[tuple[int, int, str, int]] = []
    for found in groups.values():
        if len({ttl_ms for _, ttl_ms in found}) > 1:
            fates += [(REPORTED, Reason.TWIN_KEY, "they differ", n) for n, _ in found]
        else:
            fates += [(MIGRATED if number == 0 else SUPERSEDED, 0, "", n) for number, (n, _) in enumerate(found)]
    ledger.decide_lifetimes(fates)

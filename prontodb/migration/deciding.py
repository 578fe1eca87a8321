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

LINES_A_STEP = 20_000
NAMED = 3
"""Old names or databases that a reason names."""


class _Decided:
    """What was decided of one page of lines, until it is written."""

    def __init__(self) -> None:
        self.fates: list[tuple[int, int, str, int, str, int]] = []
        self.flags: list[tuple[int, int, str, int]] = []
        self.shown: list[tuple[int, str, int, int]] = []


def decide(ledger: Ledger, plan: Plan) -> Generator[Progress, None, None]:
    """Decide every line that is not alone with its address and key. Yields after each page."""
    databases = [origin.database for origin in plan.origins]
    total, done = plan.rows, 0
    for page in ledger.groups(LINES_A_STEP):
        decided = _Decided()
        for slot, key, lines in page:
            done += len(lines)
            _decide(slot, key, lines, databases, plan.now_ms, decided)
        ledger.decide(decided.fates)
        ledger.flag(decided.flags)
        ledger.note_shown(decided.shown)
        yield Progress(what="deciding", done=min(done, total), total=total)


def _decide(slot: int, key: str, lines: list[Grouped], databases: list[str], now_ms: int, decided: _Decided) -> None:
    def report(reason: Reason, names: set[str]) -> None:
        # None of them may pass for what was written last.
        told = " and ".join(sorted(names)[:NAMED])
        decided.fates += [(REPORTED, reason, told, slot, key, line.n) for line in lines]

    identities = {line.identity for line in lines}
    if len(identities) > 1:
        report(Reason.TWIN_KEY, {name.replace("\x1f", "|") or key for name in identities})
        return
    several = {databases[line.origin] for line in lines}
    if len(several) > 1:
        found = _newest_of_several(lines, databases)
        if found is None:
            report(Reason.UNCLEAR_WHICH, several)
            return
        newest = found
    elif any(line.updated == UNKNOWN for line in lines):
        # Rows were only ever added: the last one is what was written last.
        newest = lines[-1]
        decided.flags.append((BY_ROW, slot, key, newest.n))
    else:
        newest = max(lines, key=lambda line: (line.updated, line.n))
    is_expired = _is_expired(newest, now_ms)
    decided.fates += [(SUPERSEDED, 0, "", slot, key, line.n) for line in lines if line is not newest]
    decided.fates.append((EXPIRED if is_expired else MIGRATED, 0, "", slot, key, newest.n))
    # The old program showed the first row that had not expired, of the database that it had open.
    own = [line for line in lines if databases[line.origin] == databases[newest.origin]]
    first = next((line for line in own if not _is_expired(line, now_ms)), None)
    if first is not None and first is not newest and (is_expired or first.digest != newest.digest):
        decided.shown.append((slot, key, first.n, newest.n))


def _newest_of_several(lines: list[Grouped], databases: list[str]) -> Grouped | None:
    """Return the newest line over several databases; None when no time says which that is."""
    if any(line.updated == UNKNOWN for line in lines):
        return lines[-1] if len({(line.digest, line.expires) for line in lines}) == 1 else None
    newest = max(lines, key=lambda line: (line.updated, line.n))
    # The last row of each database that was written in the newest moment.
    rivals = {databases[line.origin]: line for line in lines if line.updated == newest.updated}
    return newest if len({(line.digest, line.expires) for line in rivals.values()}) == 1 else None


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

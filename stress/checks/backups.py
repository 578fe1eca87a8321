"""A listed backup is whole, and what it restores is its source at one instant between its call and its return."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import BACKUP, FAILED, LEDGER, OK, PAIR, RESTORE, SET, SET_MANY, TRANSACT, VERIFY, backup_made
from .moves import Moves
from .tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "backups"
WHOLE, ONE_INSTANT = 26, 27
OF_THE_DISK = ("full-disk", "failing-writes", "read-only")


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check each backup that was acknowledged or listed, and what was restored from it elsewhere."""
    tally = Tally(CHECK)
    # No id: nothing had changed since the last one, and none was made.
    made = {name: one for one in history.of(BACKUP) if (name := backup_made(one)[0]) is not None}
    _check_listed(made, aftermath, tally)
    _check_told(history, tally)
    writes, pairs, moves = _by_address(history, LEDGER), _pairs(history), Moves(history)
    for name, places in sorted(aftermath.restored.items()):
        backup = made.get(name)
        if backup is not None:
            # An address that is not in it at all has nothing there.
            for address in sorted((writes.keys() | places.keys()) - backup_made(backup)[1]):
                contents = places.get(address, {})
                _check_instant(f"backup {name} of {address}", backup, writes[address], contents, moves, tally)
        for address, contents in sorted(places.items()):
            where = f"backup {name} of {address}"
            _check_whole_writes(where, writes[address], contents, tally)
            _check_pairs(where, pairs, contents, tally)
    return tally.verdict()


def _check_listed(made: dict[str, Operation], aftermath: Aftermath, tally: Tally) -> None:
    tally.count(WHOLE, len(made.keys() | aftermath.backups.keys()))
    for name, problem in sorted(aftermath.backups.items()):
        if problem:
            tally.violate(WHOLE, f"backup {name} is listed and is not whole: {problem}", *_known(made.get(name)))
    for name, backup in sorted(made.items()):
        if name not in aftermath.backups:
            tally.violate(WHOLE, f"backup {name} of {backup.process} was acknowledged and is not listed", backup)


def _check_told(history: History, tally: Tally) -> None:
    """What agents were told by verifying and restoring meanwhile, where no disk failed them."""
    if history.faults_of(*OF_THE_DISK):
        return
    for one in history.of(VERIFY, RESTORE):
        told = one.result if one.outcome == OK and isinstance(one.result, dict) else {}
        for what, why in (*told.get("problems", ()), *told.get("failed", ())):
            tally.violate(WHOLE, f"a {one.op} of {one.process} found {what} not whole: {why}", one)


def _check_instant(
    where: str,
    backup: Operation,
    writes: Iterable[Operation],
    contents: dict[str, str],
    moves: Moves,
    tally: Tally,
) -> None:
    """What was acknowledged before the call is in it; what was called after the return is not."""
    for write in writes:
        if _is_before(write, backup) and not moves.between(write.address, write.called_ns, _end(backup)):
            tally.count(ONE_INSTANT)
            lost = [key for key, value in written(write).items() if contents.get(key) != value]
            if lost:
                text = f"{where} lacks {lost[0]}, which {write.process} had acknowledged before it began"
                tally.violate(ONE_INSTANT, text, write, backup)
        elif write.called_ns > _end(backup):
            tally.count(ONE_INSTANT)
            early = [key for key, value in written(write).items() if contents.get(key) == value]
            if early:
                text = f"{where} has {early[0]}, which {write.process} wrote only after it had ended"
                tally.violate(ONE_INSTANT, text, backup, write)


def _check_whole_writes(where: str, writes: Iterable[Operation], contents: dict[str, str], tally: Tally) -> None:
    """Of what was written at once, all is there or nothing."""
    for write in writes:
        values = written(write)
        if len(values) < 2:
            continue
        tally.count(ONE_INSTANT)
        there = sum(contents.get(key) == value for key, value in values.items())
        if 0 < there < len(values):
            text = f"{where} has {there} of the {len(values)} keys that {write.process} wrote at once"
            tally.violate(ONE_INSTANT, text, write)


def _check_pairs(where: str, pairs: dict[str, Operation], contents: dict[str, str], tally: Tally) -> None:
    """Both sides of a pair are always written together."""
    names = {key.rpartition(".")[0] for key in contents if key.partition(".")[0] == PAIR}
    for name in sorted(names):
        tally.count(ONE_INSTANT)
        left, right = contents.get(f"{name}.left"), contents.get(f"{name}.right")
        if left != right:
            shown = [write for value in (left, right) if value is not None for write in _known(pairs.get(value))]
            tally.violate(ONE_INSTANT, f"{where} has '{left}' left and '{right}' right under {name}", *shown)


def written(write: Operation) -> dict[str, str]:
    """Return what a write writes: key to value."""
    return {write.key: write.argument} if write.op == SET else dict(write.argument)


def _by_address(history: History, family: str) -> defaultdict[str, list[Operation]]:
    found: defaultdict[str, list[Operation]] = defaultdict(list)
    for write in history.of(SET, SET_MANY, TRANSACT, family=family):
        found[write.address].append(write)
    return found


def _pairs(history: History) -> dict[str, Operation]:
    """Which operation wrote each value of a pair."""
    return {
        value: write
        for write in history.of(TRANSACT, family=PAIR)
        if write.outcome != FAILED
        for value in write.argument.values()
    }


def _is_before(write: Operation, backup: Operation) -> bool:
    return write.outcome == OK and write.returned_ns is not None and write.returned_ns <= backup.called_ns


def _end(backup: Operation) -> int:
    return backup.called_ns if backup.returned_ns is None else backup.returned_ns


def _known(operation: Operation | None) -> list[Operation]:
    return [] if operation is None else [operation]

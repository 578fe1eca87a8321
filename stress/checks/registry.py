"""The registry agrees with the folders, and both with what was acknowledged: made, deleted, renamed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..history import COPY, CREATE, DROP, FAILED, MIGRATE, OK, OPEN, RENAME, RESTORE
from .moments import over_ns
from .moves import changed_by, target_of
from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "registry"
NO_GHOST_SESSIONS, SAME_LIST, HEALED, SHOWN_AS_MISSING = 22, 23, 24, 25
ACTIVE = "active"


@dataclass(slots=True)
class Fate:
    """What was done to one address as a whole."""

    made: list[Operation] = field(default_factory=list)
    removed: list[Operation] = field(default_factory=list)

    def must_be(self) -> Operation | None:
        """Return the operation since which it must be there, or None."""
        return _last_word(self.made, self.removed)

    def must_not_be(self) -> Operation | None:
        """Return the operation since which it must be gone, or None."""
        return _last_word(self.removed, self.made)


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Check what is listed, what lies there and what sessions are said to live after one repair."""
    tally = Tally(CHECK)
    _check_sessions(history, aftermath, tally)
    _check_list(aftermath, tally)
    for address, fate in sorted(fates(history).items()):
        _check_fate(address, fate, aftermath, tally)
    return tally.verdict()


def fates(history: History) -> dict[str, Fate]:
    """Return what made and what removed each address; also what only may have."""
    found: defaultdict[str, Fate] = defaultdict(Fate)
    for operation in history.of(CREATE, OPEN, COPY, RENAME, RESTORE, MIGRATE, DROP):
        if operation.outcome == FAILED:
            continue
        if operation.op in (CREATE, OPEN):
            found[operation.address].made.append(operation)
        elif operation.op == DROP:
            found[operation.address].removed.append(operation)
        elif operation.op == RENAME:
            found[operation.address].removed.append(operation)
            found[target_of(operation)].made.append(operation)
        else:
            for address in changed_by(operation):
                found[address].made.append(operation)
    found.pop("", None)
    return found


def _last_word(said: list[Operation], against: list[Operation]) -> Operation | None:
    """The last acknowledged one of `said`, when all of `against` was over before it was called."""
    last = max((each for each in said if each.outcome == OK), key=lambda each: each.called_ns, default=None)
    if last is None or any(over_ns(other) >= last.called_ns for other in against):
        return None
    return last


def _check_sessions(history: History, aftermath: Aftermath, tally: Tally) -> None:
    tally.count(NO_GHOST_SESSIONS, sum(opened.outcome == OK for opened in history.of(OPEN)))
    for session in aftermath.sessions:
        tally.violate(NO_GHOST_SESSIONS, f"session {session} is said to live, though every process has ended")


def _check_list(aftermath: Aftermath, tally: Tally) -> None:
    listed, folders = aftermath.listed, set(aftermath.folders)
    tally.count(SAME_LIST, len(folders | set(listed)))
    for address in sorted(folders - set(listed)):
        tally.violate(SAME_LIST, f"{address} has a folder with a keystore, and the registry does not list it")
    for address, state in sorted(listed.items()):
        if address not in folders:
            tally.violate(SAME_LIST, f"the registry lists {address} as {state}, and there is no folder of it")
        elif state != ACTIVE:
            tally.violate(SAME_LIST, f"{address} lies there, and the registry lists it as {state}")


def _check_fate(address: str, fate: Fate, aftermath: Aftermath, tally: Tally) -> None:
    is_there = address in aftermath.folders
    if made := fate.must_be():
        tally.count(HEALED)
        tally.count(SHOWN_AS_MISSING)
        if not is_there:
            text = (
                f"{address} is gone, though a {made.op} of {made.process} was acknowledged and nothing deleted it since"
            )
            tally.violate(HEALED, text, made)
            if address not in aftermath.listed:
                tally.violate(SHOWN_AS_MISSING, f"{address} is gone, and not even shown as missing", made)
    elif removed := fate.must_not_be():
        tally.count(HEALED)
        if is_there or address in aftermath.listed:
            where = "lies there" if is_there else "is listed"
            text = f"{address} still {where}, though a {removed.op} of {removed.process} was acknowledged"
            tally.violate(HEALED, f"{text} and nothing made it again", removed)

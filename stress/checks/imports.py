"""An old database came over whole: every row is there, none took what an agent had set, the source is as it was."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, cast

from ..history import FAILED, OK, SET
from .tally import Tally

if TYPE_CHECKING:
    from ..aftermath import Aftermath
    from ..history import History, Operation
    from ..verdict import Verdict

CHECK = "imports"
UNTOUCHED, EXACT, NEVER_OVERWRITTEN = 33, 34, 35


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge every row of the source by what its address has at the end, after one import that nobody disturbed."""
    tally = Tally(CHECK)
    source = cast("dict[str, dict[str, str]]", aftermath.facts.get("source", {}))
    claims: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in history.of(SET):
        if operation.key in source.get(operation.address, {}) and operation.outcome != FAILED:
            claims[operation.address, operation.key].append(operation)
    for address, why in cast("list[list[str]]", aftermath.facts.get("import_failed", [])):
        tally.violate(EXACT, f"the last import failed at {address}: {why}")
    tally.count(UNTOUCHED, bool(source))
    if aftermath.facts.get("source_changed"):
        tally.violate(UNTOUCHED, "the source is no longer byte for byte what it was")
    tally.count(NEVER_OVERWRITTEN, len(claims))
    for address, rows in source.items():
        tally.count(EXACT, len(rows))
        found = aftermath.contents.get(address, {})
        # Where agents set keys of the source, nobody but an import makes others of that family.
        families = {key.partition(".")[0] for key in rows}
        for key in sorted(key for key in found if key.partition(".")[0] in families and key not in rows):
            tally.violate(EXACT, f"{key} at {address} came over, and the source has no such row")
        for key, value in rows.items():
            there = found.get(key, (None, 0))[0]
            _judge(f"{key} at {address}", value, there, claims.get((address, key), []), tally)
    return tally.verdict()


def _judge(what: str, value: str, there: str | None, claims: list[Operation], tally: Tally) -> None:
    """Judge one row: the source's value, what is there, and who else set it."""
    if there is None:
        tally.violate(EXACT, f"{what} did not come over, and nobody deleted it", *claims)
    elif there in [claim.argument for claim in claims]:
        return
    elif there != value:
        tally.violate(EXACT, f"{what} has a value that neither the source nor an agent gave it", *claims)
    else:
        for claim in claims:
            if claim.outcome == OK:
                tally.violate(NEVER_OVERWRITTEN, f"{what} was set by an agent, and an import wrote over it", claim)
                return

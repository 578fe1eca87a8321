"""An old database came over whole: every row is there, none took what an agent had set, the source is as it was."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..history import FAILED, OK, SET
from ..verdict import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "imports"
UNTOUCHED, EXACT, NEVER_OVERWRITTEN = 33, 34, 35

Claims = dict[tuple[str, str], list["Operation"]]


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Judge every row of the source by what its address has at the end, after one import that nobody disturbed."""
    source: dict[str, dict[str, str]] = aftermath.facts.get("source", {})  # type: ignore[assignment]
    failed: list[list[str]] = aftermath.facts.get("import_failed", [])  # type: ignore[assignment]
    claims: Claims = defaultdict(list)
    for operation in history.of(SET):
        if operation.key in source.get(operation.address, {}) and operation.outcome != FAILED:
            claims[operation.address, operation.key].append(operation)
    violations = [_violation(EXACT, f"the last import failed at {address}: {why}") for address, why in failed]
    if aftermath.facts.get("source_changed"):
        violations.append(_violation(UNTOUCHED, "the source is no longer byte for byte what it was"))
    for address, rows in source.items():
        found = aftermath.contents.get(address, {})
        for key, value in rows.items():
            there = found.get(key, (None, 0))[0]
            violations += _judged(f"{key} at {address}", value, there, claims.get((address, key), []))
    rows_in_all = sum(map(len, source.values()))
    return Verdict(
        check=CHECK,
        checked={UNTOUCHED: bool(source), EXACT: rows_in_all, NEVER_OVERWRITTEN: len(claims)},
        violations=tuple(violations),
    )


def _judged(what: str, value: str, there: str | None, claims: list[Operation]) -> Iterator[Violation]:
    """Yield what is wrong with one row: the source's value, what is there, and who else set it."""
    if there is None:
        yield _violation(EXACT, f"{what} did not come over, and nobody deleted it", *claims)
    elif there in [claim.argument for claim in claims]:
        return
    elif there != value:
        yield _violation(EXACT, f"{what} has a value that neither the source nor an agent gave it", *claims)
    else:
        for claim in claims:
            if claim.outcome == OK:
                yield _violation(NEVER_OVERWRITTEN, f"{what} was set by an agent, and an import wrote over it", claim)
                return


def _violation(promise: int, text: str, *stretch: Operation) -> Violation:
    return Violation(check=CHECK, promise=promise, text=text, stretch=stretch)

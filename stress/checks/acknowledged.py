"""Nothing acknowledged is lost, nothing refused was done, nothing is half done: the ledger against what lies there.

Each ledger key is written once, with a value of its own, and read only in the aftermath: whatever is not there then
was lost, and whatever is there came from one known operation.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..history import FAILED, LEDGER, OK, SET, SET_MANY, TRANSACT
from ..verdict import Verdict, Violation
from .settled import left_out, unsettled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..aftermath import Aftermath
    from ..history import History, Operation

CHECK = "acknowledged"
KEPT, WHOLE, REFUSED = 1, 3, 4
"""The promises: an acknowledged write stays, an operation has all of its effect or none, what failed did nothing."""


@dataclass(slots=True)
class _Findings:
    checked: dict[int, int] = field(default_factory=lambda: {KEPT: 0, WHOLE: 0, REFUSED: 0})
    violations: list[Violation] = field(default_factory=list)

    def add(self, promise: int, text: str, *stretch: Operation) -> None:
        self.violations.append(Violation(check=CHECK, promise=promise, text=text, stretch=stretch))


def check(history: History, aftermath: Aftermath) -> Verdict:
    """Compare every write of the ledger with what was found."""
    skipped = unsettled(history)
    attempts: dict[str, list[Operation]] = defaultdict(list)
    for operation in history.of(SET, SET_MANY, TRANSACT, family=LEDGER):
        attempts[operation.address].append(operation)
    findings = _Findings()
    for address in sorted((attempts.keys() | aftermath.contents.keys()) - skipped):
        if address in aftermath.contents:
            found = {key: value for key, (value, _) in aftermath.contents[address].items() if _is_ledger(key)}
            _compare(address, attempts[address], found, findings)
        else:
            _miss(address, attempts[address], aftermath.errors, findings)
    return Verdict(
        check=CHECK,
        checked=findings.checked,
        violations=tuple(findings.violations),
        notes=left_out(skipped, set(attempts)),
    )


def _compare(address: str, attempts: list[Operation], found: dict[str, str], findings: _Findings) -> None:
    tried: dict[str, list[Operation]] = defaultdict(list)
    for operation in attempts:
        for key in _values(operation):
            tried[key].append(operation)
        if len(_values(operation)) > 1 and operation.outcome != FAILED:
            _check_whole(operation, found, findings)
    for key, operations in tried.items():
        _check_key(f"{key} at {address}", key, operations, found.get(key), findings)
    for key in found.keys() - tried.keys():
        findings.checked[KEPT] += 1
        findings.add(KEPT, f"{key} at {address} is there, and nobody ever wrote it")


def _check_key(name: str, key: str, operations: list[Operation], found: str | None, findings: _Findings) -> None:
    acknowledged = [operation for operation in operations if operation.outcome == OK]
    refused = [operation for operation in operations if operation.outcome == FAILED]
    possible = [_values(operation)[key] for operation in operations if operation.outcome != FAILED]
    findings.checked[KEPT] += 1
    findings.checked[REFUSED] += len(refused)
    if found is None:
        if acknowledged:
            findings.add(KEPT, f"acknowledged write of {name} is gone", acknowledged[-1])
    elif found not in possible:
        culprits = [operation for operation in refused if _values(operation)[key] == found]
        if culprits:
            findings.add(REFUSED, f"write of {name} said that it failed, and its value is there", culprits[0])
        else:
            findings.add(KEPT, f"{name} holds a value that nobody wrote there", *(acknowledged or operations)[-1:])


def _check_whole(operation: Operation, found: dict[str, str], findings: _Findings) -> None:
    """Judge an operation of several keys that may have been done; an acknowledged one's lost keys are judged alone."""
    findings.checked[WHOLE] += 1
    values = _values(operation)
    done = sum(found.get(key) == value for key, value in values.items())
    if operation.outcome != OK and 0 < done < len(values):
        text = (
            f"{operation.op} of {operation.key} at {operation.address} is half done: {done} of its {len(values)} keys"
        )
        findings.add(WHOLE, f"{text} are there", operation)


def _miss(address: str, attempts: list[Operation], errors: Iterable[str], findings: _Findings) -> None:
    """Judge an address that could not be read: all that was acknowledged there is lost, as one violation."""
    acknowledged = [operation for operation in attempts if operation.outcome == OK]
    if not acknowledged:
        return
    lost = sum(len(_values(operation)) for operation in acknowledged)
    findings.checked[KEPT] += lost
    why = next((error for error in errors if address in error), "it is not there")
    findings.add(KEPT, f"{lost:,} acknowledged keys at {address} cannot be read: {why}", acknowledged[-1])


def _values(operation: Operation) -> dict[str, str]:
    """Return the ledger keys that an operation writes, with their values."""
    if operation.op == SET:
        return {operation.key: operation.argument}
    return {key: value for key, value in operation.argument.items() if _is_ledger(key)}


def _is_ledger(key: str) -> bool:
    return key.partition(".")[0] == LEDGER

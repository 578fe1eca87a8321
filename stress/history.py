"""The recorded history: every call and return, with the monotonic clock and the process, and what faults were made.

A file per process, a line per event, each written before the next thing happens: what a process had begun when it was
killed stands there as a call without a return. A line is a JSON array:

    ["c", number, at_ns, op, address, session, key, argument]    a call
    ["r", number, at_ns, outcome, result, error]                 its return

Moments are nanoseconds of CLOCK_MONOTONIC, which all processes of one kernel share, and no clock fault moves.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Operations
OPEN, CLOSE = "open", "close"
"""A session: argument {"mode": ...}, result {"session": id, "epoch": n or None}. `close`: leaving its block."""
GET, SET, DELETE, CAS, RAISE = "get", "set", "delete", "cas", "raise"
"""get: the value or None. set: argument value, result revision. delete: bool. cas: argument [expected, value], result
bool. raise: argument by, result the sum."""
SET_MANY, GET_MANY, TRANSACT = "set_many", "get_many", "transact"
"""set_many, transact: argument {key: value}, and key is the first of them. get_many: argument [keys], result
{key: value or None}."""
LEND, RENEW = "lend", "renew"
"""lend: set with a lifetime, argument [value, ttl_ms]. renew: touch, argument ttl_ms, result bool."""
KEYS = "keys"
PEEK = "peek"
"""Looking at the agent's own address for a key of another agent: result the value or None."""
SWEEP, BACKUP, VERIFY, RESTORE, MIGRATE = "sweep", "backup", "verify", "restore", "migrate"
CREATE, DROP, RENAME, COPY, LIST = "create", "drop", "rename", "copy", "list"
"""create, drop: bool. rename, copy: argument {"target": address}. copy: result {"marks": {key: value or None}}, read at
the target. restore: argument {"into": folder} where that is another root. migrate: argument {"targets": [addresses]}.
backup: result its id, or {"id": id, "failed": [addresses]} when it could not have them all."""
EVICT = "evict"
"""A session ended by force, by whoever makes the faults; session is the victim's id."""

# How an operation ended
OK = "ok"
FAILED = "failed"  # it certainly did nothing, says what it raised
UNKNOWN = "unknown"  # cancelled, out of time, or a failed commit: it says so itself
OPENED = "open"  # it never returned: its process was killed first

# Families of keys; each checker looks at its own.
LEDGER, REGISTER, COUNTER, PAIR, TOKEN, LEASE = "ledger", "register", "counter", "pair", "token", "lease"
MARK = "mark"


@dataclass(slots=True, kw_only=True)
class Operation:
    """One operation of one process."""

    process: str
    """Agent and life: 'agent07-2'. The same agent's next life is another process."""
    number: int
    op: str
    address: str
    session: str
    key: str
    argument: Any
    called_ns: int
    returned_ns: int | None = None
    outcome: str = OPENED
    result: Any = None
    error: str = ""
    """Type of what it raised."""

    @property
    def agent(self) -> str:
        """The agent, whichever life."""
        return self.process.rpartition("-")[0]

    @property
    def family(self) -> str:
        """The first part of the key."""
        return self.key.partition(".")[0]

    @property
    def is_known(self) -> bool:
        """True when it is certain whether it happened."""
        return self.outcome in (OK, FAILED)


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault that was made: what, to whom, from when to when."""

    name: str
    target: str
    """The process, address or file that it was made to."""
    at_ns: int
    until_ns: int | None = None
    """None: it lasts no time, such as a kill."""
    text: str = ""


@dataclass(slots=True, kw_only=True)
class History:
    """All that happened in one scenario."""

    operations: list[Operation] = field(default_factory=list)
    """In the order of their calls."""
    faults: list[Fault] = field(default_factory=list)
    began_ns: int = 0
    ended_ns: int = 0

    def of(self, *ops: str, family: str = "") -> Iterator[Operation]:
        """Yield the operations of these kinds, and of this family of keys, in the order of their calls."""
        for operation in self.operations:
            if operation.op in ops and (not family or operation.family == family):
                yield operation

    def faults_of(self, *names: str) -> list[Fault]:
        """Return the faults of these names."""
        return [fault for fault in self.faults if fault.name in names]


def backup_made(operation: Operation) -> tuple[str | None, frozenset[str]]:
    """Return which backup this operation made, and the addresses that it said it could not have."""
    if operation.op != BACKUP or operation.outcome != OK:
        return None, frozenset()
    if isinstance(operation.result, dict):
        return operation.result["id"], frozenset(operation.result["failed"])
    return operation.result, frozenset()


def read_history(folder: Path) -> list[Operation]:
    """Read what every process of a scenario wrote into `folder`; return it in the order of the calls.

    The last line of a killed process may be half written: then that event did not happen as far as anyone knows.
    """
    found: list[Operation] = []
    for path in sorted(folder.glob("*.jsonl")):
        found += _read_process(path.stem, path.read_bytes().splitlines())
    found.sort(key=lambda operation: (operation.called_ns, operation.process, operation.number))
    return found


def _read_process(process: str, lines: Iterable[bytes]) -> list[Operation]:
    open_ones: dict[int, Operation] = {}
    found: list[Operation] = []
    for line in lines:
        try:
            kind, number, at_ns, *rest = json.loads(line)
        except ValueError:
            continue
        if kind == "c":
            op, address, session, key, argument = rest
            operation = Operation(
                process=process,
                number=number,
                op=op,
                address=address,
                session=session,
                key=key,
                argument=argument,
                called_ns=at_ns,
            )
            open_ones[number] = operation
            found.append(operation)
        else:
            operation = open_ones.pop(number)
            operation.returned_ns = at_ns
            operation.outcome, operation.result, operation.error = rest
    return found


class Recorder:
    """Writes one process's history. A line is in the kernel's hands before its call is made: SIGKILL loses none."""

    def __init__(self, path: Path | str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number = 0

    def call(self, at_ns: int, op: str, address: str, session: str, key: str, argument: object) -> int:
        """Write down a call; return its number."""
        self._number += 1
        self._write(["c", self._number, at_ns, op, address, session, key, argument])
        return self._number

    def returned(self, number: int, at_ns: int, outcome: str, result: object, error: str) -> None:
        """Write down a call's return."""
        self._write(["r", number, at_ns, outcome, result, error])

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, event: list[object]) -> None:
        os.write(self._file, json.dumps(event, separators=(",", ":")).encode() + b"\n")

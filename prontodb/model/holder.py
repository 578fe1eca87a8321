"""Who holds a lock: the record in the lock file, read by people and by whoever clears up after the dead.

It proves nothing: alive is whose lock cannot be taken.
"""

from __future__ import annotations

import json

from prontodb.errors import shown
from prontodb.model import strict_json
from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXCLUSIVE = "exclusive"
SHARED = "shared"
READ = "read"
MODES = (EXCLUSIVE, SHARED, READ)

MAX_RECORD_BYTES = 32_768
_MAX_TEXT = 1_024


class Process(Value):
    """One process, for all time: `started` (clock ticks since `boot`) tells it from a later one with its pid.

    None where the system does not say.
    """

    __slots__ = ("pid", "started", "boot", "host", "pid_namespace", "program")

    pid: int
    started: int | None
    boot: str | None
    host: str
    pid_namespace: str | None
    program: str
    """Name of the program, without its arguments: those may hold secrets."""

    def __init__(
        self,
        pid: int,
        started: int | None = None,
        boot: str | None = None,
        host: str = "",
        pid_namespace: str | None = None,
        program: str = "",
    ) -> None:
        self._fill(pid, started, boot, host, pid_namespace, program)

    def called(self, program: str) -> Process:
        """Return the same process under another name."""
        return Process(self.pid, self.started, self.boot, self.host, self.pid_namespace, program[:_MAX_TEXT])

    def __str__(self) -> str:
        program = f" {shown(self.program)}" if self.program else ""
        return (
            f"pid {self.pid}{program} on {shown(self.host).strip(chr(39))}" if self.host else f"pid {self.pid}{program}"
        )


class Holder(Value):
    """A process that holds a lock, for what, since when; and its session, when it is one.

    `epoch` is that of an exclusive session once it has one. `labels` are pairs given by the caller.
    """

    __slots__ = ("process", "purpose", "since_ms", "session", "mode", "epoch", "labels")

    process: Process
    purpose: str
    since_ms: int
    session: str | None
    mode: str | None
    epoch: int | None
    labels: tuple[tuple[str, str], ...]

    def __init__(
        self,
        process: Process,
        purpose: str,
        since_ms: int,
        session: str | None = None,
        mode: str | None = None,
        epoch: int | None = None,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._fill(process, purpose, since_ms, session, mode, epoch, labels)

    def with_epoch(self, epoch: int) -> Holder:
        """Return the same holder at an epoch."""
        return Holder(self.process, self.purpose, self.since_ms, self.session, self.mode, epoch, self.labels)

    def __str__(self) -> str:
        since = moment(self.since_ms)
        if self.session is not None:
            return f"{self.mode} session {self.session} of {self.process} since {since}"
        return f"{self.process} ({shown(self.purpose)[1:-1]}) since {since}"

    def encode(self) -> bytes:
        """Return the record as one line of JSON."""
        process = self.process
        fields: dict[str, object] = {
            "pid": process.pid,
            "started": process.started,
            "boot": process.boot,
            "host": process.host,
            "pid_namespace": process.pid_namespace,
            "program": process.program,
            "purpose": self.purpose,
            "since": self.since_ms,
        }
        if self.session is not None:
            fields |= {"session": self.session, "mode": self.mode, "epoch": self.epoch, "labels": dict(self.labels)}
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def moment(at_ms: int) -> str:
    """Return a moment as people and programs read it, to the second."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1_000))


def decode(data: bytes) -> Holder | None:
    """Return the holder in a record; None for anything that is not one of ours."""
    if len(data) > MAX_RECORD_BYTES:
        return None
    try:
        fields = strict_json.loads(data)
    except ValueError:
        return None
    return _holder(fields) if isinstance(fields, dict) else None


def _holder(fields: dict[str, Any]) -> Holder | None:
    numbers = [fields.get("pid"), fields.get("since")]
    optional_numbers = [fields.get("started"), fields.get("epoch")]
    texts = [fields.get("host"), fields.get("program"), fields.get("purpose")]
    optional_texts = [fields.get("boot"), fields.get("pid_namespace")]
    session, mode, labels = fields.get("session"), fields.get("mode"), fields.get("labels", {})
    if not (
        all(_is_count(number) for number in numbers)
        and all(number is None or _is_count(number) for number in optional_numbers)
        and all(_is_text(text) for text in texts)
        and all(text is None or _is_text(text) for text in optional_texts)
        and isinstance(labels, dict)
        and all(_is_text(text) for text in labels.values())
    ):
        return None
    if (session is not None and not is_session_id(session)) or (mode not in MODES if session else mode is not None):
        return None
    process = Process(
        fields["pid"],
        fields.get("started"),
        fields.get("boot"),
        fields["host"],
        fields.get("pid_namespace"),
        fields["program"],
    )
    pairs = tuple(sorted(labels.items()))
    return Holder(process, fields["purpose"], fields["since"], session, mode, fields.get("epoch"), pairs)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


# Session ids


ID_PREFIX = "s-"
_RANDOM_BYTES = 6
_DIGEST_BYTES = 4
ID_CHARACTERS = len(ID_PREFIX) + 2 * (_RANDOM_BYTES + _DIGEST_BYTES)


def new_session_id(root: str, address: object) -> str:
    """Return the id of a new session: random, and ending in a digest of its root and address.

    By the digest, a process that is told an id by its environment knows whether an address is the one it is for.
    """
    import os

    return f"{ID_PREFIX}{os.urandom(_RANDOM_BYTES).hex()}{_digest(root, address)}"


def is_for(session: str, root: str, address: object) -> bool:
    """True when a session with this id is at this address of this root."""
    return session.endswith(_digest(root, address))


def _digest(root: str, address: object) -> str:
    from _blake2 import blake2b

    return blake2b(f"{root}\0{address}".encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES).hexdigest()


def is_session_id(text: object) -> bool:
    """True for text in the form of a session's id."""
    return (
        isinstance(text, str)
        and len(text) == ID_CHARACTERS
        and text.startswith(ID_PREFIX)
        and all(c in "0123456789abcdef" for c in text[len(ID_PREFIX) :])
    )

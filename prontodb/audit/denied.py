"""The log of calls that were denied or that a keystore refused: apart from the journals, and best effort.

One JSON line each, never a value, and no key of an encrypted address. What is not logged because the disk is full or
the folder cannot be written is lost: no call fails, or succeeds, for its line in here. `registry/denied.log`, and
`denied.log.1` for what came before.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from prontodb import log
from prontodb.engine.sqlite import ciphers
from prontodb.errors import DeniedError, ProntoError, SecretError, shown
from prontodb.model import strict_json
from prontodb.model.address import Address
from prontodb.model.layout import KEYS, REGISTRY
from prontodb.storage.files import FILE_MODE, open_root

if TYPE_CHECKING:
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout

DENIED_FILE = "denied.log"
OLDER = ".1"
MAX_BYTES = 1024 * 1024
"""Past this the file becomes the older one, whose content goes: two of them are all there ever is."""
MAX_TEXT = 200
"""Characters of one field."""

EVENTS = ("access.denied", "call.denied")
"""What is listened for while a manager is open."""

_FIELDS = ("principal", "session", "address", "operation", "key", "error")
_OPEN = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class DeniedLog:
    """The log of one root. Nothing here raises but reading it."""

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self._layout, self._clock = layout, clock

    def record(self, **fields: object) -> None:
        """Write one line: who (`principal`, `session`), where (`address`), what (`operation`, `key`), why (`error`)."""
        line = {"at_ms": self._clock.wall_ms(), "pid": os.getpid()}
        if fields.get("key") is not None and not self._may_tell_key(fields):
            fields["key"] = None
        texts = {name: str(fields[name])[:MAX_TEXT] for name in _FIELDS if fields.get(name) is not None}
        try:
            self._append((json.dumps(line | texts) + "\n").encode())
        except (OSError, ValueError, ProntoError) as error:
            log.event("denied.not_logged", reason=type(error).__name__)

    def _may_tell_key(self, fields: dict[str, object]) -> bool:
        """True when the key in a line is not that of an encrypted address; False when that cannot be told."""
        if fields.get("error") == SecretError.__name__:
            return False
        if not os.path.lexists(self._layout.path(KEYS)):
            return True  # nothing below this root is encrypted
        try:
            address = Address.parse(str(fields.get("address")))
            with open_root(self._layout.root, *self._layout.address_parts(address)) as folder:
                return ciphers.name_in(self._layout, folder, address) is None
        except (OSError, ProntoError):
            return False

    def _append(self, line: bytes) -> None:
        try:
            root = open_root(self._layout.root)
        except FileNotFoundError:
            return  # nothing was denied that exists
        with root, root.make(REGISTRY) as folder:
            found = folder.check_file(DENIED_FILE)
            if found is not None and found.st_size > MAX_BYTES:
                # Two that come here at once may lose what the other has begun: at most a few lines.
                os.rename(DENIED_FILE, DENIED_FILE + OLDER, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            fd = os.open(DENIED_FILE, _OPEN, FILE_MODE, dir_fd=folder.fd)
            try:
                os.write(fd, line)  # one call: lines of several processes do not mix
            finally:
                os.close(fd)

    def lines(self, limit: int) -> list[dict[str, object]]:
        """Return the last lines, the newest last; what cannot be read as one is left out."""
        found: list[dict[str, object]] = []
        try:
            with open_root(self._layout.root, REGISTRY) as folder:
                for name in (DENIED_FILE + OLDER, DENIED_FILE):
                    if folder.check_file(name) is not None:
                        found += _parsed(b"".join(folder.chunks(name)))
        except FileNotFoundError:
            return []
        return found[-limit:]

    def hear(self, **fields: object) -> None:
        """Take an event that somebody reported, if it is of this root."""
        if fields.get("root") == self._layout.root:
            # A denial by access rules tells of the right that was missing, and is of one kind.
            self.record(**{"operation": fields.get("right"), "error": DeniedError.__name__, **fields})

    def listen(self) -> None:
        """Log what is reported from now on, until `stop`."""
        for name in EVENTS:
            log.listen(name, self.hear)

    def stop(self) -> None:
        """Listen no longer."""
        for name in EVENTS:
            log.stop_listening(name, self.hear)


def _parsed(data: bytes) -> list[dict[str, object]]:
    found = []
    for line in data.splitlines():
        try:
            fields = strict_json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            found.append(fields)
    return found


def fields_of(error: ProntoError, operation: str, key: str | None = None) -> dict[str, object]:
    """Return what there is to say of a call that an error ended."""
    return {"operation": operation, "key": None if key is None else shown(key), "error": type(error).__name__}

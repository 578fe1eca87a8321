"""What is piped in: read exactly and no further than the limit, and kept when its path cannot be used."""

from __future__ import annotations

import os
import stat
import sys
import time

from prontodb.direct import run
from prontodb.errors import InvalidInputError, InvalidValueError, LimitError, ProntoError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from prontodb.cli.parsing import Args
    from prontodb.direct import OneShot

RESCUE_PREFIX = "pipe.cache."
RESCUE_TTL = "15m"
_CHUNK = 65_536


def stdin() -> BinaryIO:
    """Return stdin as bytes; `InvalidInputError` when it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise InvalidInputError("stdin is closed; nothing can be read from it")
    return sys.stdin.buffer


def read_small(path: str, most: int) -> bytes:
    """Return a file, or with '-' what is piped in, cut at `most` bytes; `InvalidInputError` for what cannot be read."""
    try:
        if path == "-":
            return stdin().read(most)
        # What is no regular file might never begin or end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read(most)
        reason = "it is no regular file; pipe it in and name it '-'"
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    except ValueError as error:
        reason = str(error)
    raise InvalidInputError(f"{shown(path)} cannot be read: {reason}")


def read_value(args: Args, max_bytes: int) -> str:
    """Return what is piped in, exactly; never more than one byte beyond the limit is read."""
    if not args.flag("--stdin") and not is_piped():
        raise args.usage_error("set needs a value: as an argument, piped in, or typed with --stdin")
    data = _read(stdin(), max_bytes + 1)
    if len(data) > max_bytes:
        raise LimitError("max_value_bytes", max_bytes, len(data))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"what was piped in is not UTF-8 text (byte {error.start + 1}); nothing was stored"
        ) from None


def is_piped() -> bool:
    """True for a pipe, file or socket. A terminal, or a service's /dev/null, is no value anybody gave."""
    try:
        return not stat.S_ISCHR(os.fstat(stdin().fileno()).st_mode)
    except OSError:
        return True  # something in memory that stands in for stdin


def _read(stream: BinaryIO, most: int) -> bytes:
    # Below its buffer, which would read on beyond what was asked for.
    source = getattr(stream, "raw", stream)
    parts: list[bytes] = []
    left = most
    try:
        while left:
            part = source.read(min(left, _CHUNK))
            if part is None:
                _wait(source)
                continue
            if not part:
                break
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise InvalidInputError(f"cannot read stdin: {os.strerror(error.errno or 0)}") from error
    return b"".join(parts)


def _wait(source: BinaryIO) -> None:
    """Wait for more on a stdin that somebody has set to non-blocking."""
    import select

    select.select([source], [], [])


def rescue(args: Args, shot: OneShot, value: str, reason: str) -> None:
    """Keep a piped value whose path cannot be used, and raise with the command that brings it back."""
    key = f"{RESCUE_PREFIX}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.{os.urandom(4).hex()}"
    try:
        with shot as keystore:
            run(keystore.set(key, value, ttl=RESCUE_TTL))
    except ProntoError as error:
        raise InvalidInputError(f"{reason}; what was piped in could not be kept either: {error}") from error
    chosen = "".join(
        f"{option} {_quoted(given)} "
        for option in ("--root", "--user", "--cursor")
        if (given := args.text(option)) is not None
    )
    raise InvalidInputError(f"{reason}; what was piped in is kept for 15 minutes: prontodb {chosen}copy {key} NEW_PATH")


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)

"""The doors to stdout and stderr: data is UTF-8 whatever the locale, talk is one line without controls.

Whatever is wrong with stdout ends as one `OutputError`; whatever is wrong with stderr is ignored.
"""

from __future__ import annotations

import errno
import os
import sys

DONE, ERROR, MISS = 0, 1, 2
INTERRUPTED, TERMINATED = 130, 143

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
# JSON escapes what is below 0x20 itself; the rest of what could steer a terminal or end a line is for us.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


class OutputError(Exception):
    """stdout cannot be written; the message says why, and is empty for a pipe that was closed."""


class _Talk:
    """What the options of this command say about talk."""

    quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence notes, not errors, for this command."""
    _Talk.quiet = quiet


def write(data: bytes) -> None:
    """Write bytes to stdout."""
    if sys.stdout is None:
        raise OutputError("stdout is closed")
    try:
        sys.stdout.buffer.write(data)
    except (OSError, ValueError) as error:
        raise _failed(error) from error


def line(text: str) -> None:
    """Write text and a line end to stdout."""
    # What is no text, such as half of a surrogate pair in a hostile file, is written as its escape.
    write(text.encode("utf-8", "backslashreplace") + b"\n")


def json_line(fields: object) -> None:
    """Write one JSON value on one line."""
    import json

    line(json.dumps(fields, ensure_ascii=False).translate(_JSON_ESCAPES))


def flush() -> None:
    """Hand what was written to the operating system."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise _failed(error) from error


def on_terminal() -> bool:
    """True when stdout is a terminal."""
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def escaped(value: str) -> str:
    r"""Return a value on one line: control characters and the backslash as `\n`, `\x1b`, `\\`."""
    return value.translate(_ESCAPES)


def note(text: str) -> None:
    """Tell something on stderr, unless `--quiet`."""
    if not _Talk.quiet:
        _say("prontodb: ", text)


def error(text: str) -> None:
    """Report an error on stderr, in one line."""
    red, plain = ("\x1b[31m", "\x1b[0m") if _colours() else ("", "")
    _say(f"{red}prontodb:{plain} ", text)


def ask(question: str) -> str:
    """Ask on the terminal and return the answer; the empty string when there is nobody to ask."""
    try:
        if sys.stdin is None or sys.stderr is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return ""
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline(80).strip()
    except (OSError, ValueError):
        return ""


def _say(prefix: str, text: str) -> None:
    one_line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    try:
        # The stream's own encoding, which writes what it cannot show with backslashes.
        sys.stderr.write(f"{prefix}{one_line}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return


def _colours() -> bool:
    try:
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return wanted and sys.stderr.isatty()
    except (ValueError, AttributeError):
        return False


def _failed(error: OSError | ValueError) -> OutputError:
    """Point stdout at nothing, so that the interpreter's own last flush is silent; say what happened."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
    if isinstance(error, BrokenPipeError):
        return OutputError("")
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is closed"
    return OutputError(f"cannot write to stdout: {reason}")


def keep_standard_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr is closed, so that no file of ours gets their number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)

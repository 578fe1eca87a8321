"""Where a command begins and ends: one line per error, one exit code per outcome, no traceback unasked."""

from __future__ import annotations

import os
import sys

from prontodb.cli import output
from prontodb.cli.commands import COMMANDS
from prontodb.cli.parsing import Args, Line, Syntax, UsageError, match
from prontodb.errors import REFUSALS, InvalidInputError, ProntoError, SandboxedError, shown, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

_READING = frozenset(("get", "keys", "scan", "ls", "projects", "namespaces", "nss", "ttl", "export", "help", "inspect"))
"""Commands that a SIGTERM may end where they stand: they write nothing, and need not pay for a handler."""


class _Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt it is no error, and nothing but the edge catches it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` leaves out the program's name; None: our own."""
    debug = False
    try:
        os.umask(0o077)  # a second line only: everything is created with an explicit mode
        output.keep_standard_streams()
        output.set_quiet(False)
        words = _decoded(sys.argv[1:] if argv is None else argv)
        line = Line(words)
        debug = "--debug" in line.options
        code = _run(line)
        output.flush()
        return code
    except _Terminated:
        return output.TERMINATED
    except KeyboardInterrupt:
        return output.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge: whatever comes ends as one line and an exit code
        if debug:
            import traceback

            traceback.print_exc()
        _explain(error)
        return output.ERROR
    finally:
        _report_files()


def _decoded(argv: Sequence[str]) -> list[str]:
    """Return the arguments as text; bytes that the locale could not read are read as UTF-8, or refused."""
    words = []
    for number, text in enumerate(argv, 1):
        try:
            text.encode()
            words.append(text)
        except UnicodeEncodeError:
            try:
                words.append(os.fsencode(text).decode())
            except UnicodeError:
                raise InvalidInputError(f"argument {number} is not valid UTF-8: {shown(text)}") from None
    return words


def _run(line: Line) -> int:
    name = line.command()
    output.set_quiet("--quiet" in line.options)
    if "--version" in line.options and not name:
        name = "version"
    if "--help" in line.options:
        from prontodb.cli.help import show

        return show(name)
    if not name:
        raise UsageError("a command is missing")
    module_name, handler_name, _, _ = COMMANDS[name]
    # The only module of commands that is imported: a `get` pays for nothing that only others use.
    module = __import__(f"prontodb.cli.{module_name}", fromlist=("SYNTAX",))
    syntax: dict[str, Syntax] = module.SYNTAX
    handler: Callable[[Args], int] = getattr(module, handler_name)
    args = match(name, syntax[name], line)
    _enable_log(args)
    if name not in _READING:
        _end_on_sigterm()
    try:
        return handler(args)
    except ProntoError as error:
        _log_denied(args, error)
        raise


def _log_denied(args: Args, error: ProntoError) -> None:
    """Keep a call that was denied or refused in the audit's log of those, as far as that can be done."""
    # What a sandbox refuses is closed to us, and so is the log.
    if not isinstance(error, REFUSALS) or isinstance(error, SandboxedError):
        return
    from prontodb.cli.auditing import log_denied

    log_denied(args, error)


def _enable_log(args: Args) -> None:
    form = args.text("--log")
    if form is None:
        return
    if form not in ("text", "json"):
        raise args.usage_error(f"--log is text or json, not {shown(form)}")
    if sys.stderr is not None:
        from prontodb import log

        log.enable(sys.stderr, as_json=form == "json")


def _end_on_sigterm() -> None:
    import signal

    def end(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        return
    try:
        signal.signal(signal.SIGTERM, end)
    except ValueError:
        return  # called from a thread, where the application decides about signals


def _explain(error: Exception) -> None:
    if isinstance(error, output.OutputError):
        if str(error):
            output.error(str(error))
    elif isinstance(error, ProntoError):
        output.error(told(error))
    elif isinstance(error, MemoryError):
        output.error("out of memory; nothing more was done")
    elif isinstance(error, OSError) and error.errno:
        place = f": {shown(os.fsdecode(error.filename))}" if isinstance(error.filename, (str, bytes)) else ""
        output.error(f"{os.strerror(error.errno)}{place}")
    else:
        # Its text may hold a value, which no error line may show.
        output.error(f"internal error ({type(error).__name__}); run it again with --debug and report what it prints")


def _report_files() -> None:
    """Say which files others could read, and which logs are lost; asked only of commands that touched files at all."""
    files = sys.modules.get("prontodb.storage.files")
    if files is None:
        return
    for path in files.CLOSED_TO_OTHERS:
        output.note(f"others could read {shown(path)}; it is closed to them now")
    files.CLOSED_TO_OTHERS.clear()
    opening = sys.modules.get("prontodb.engine.sqlite.opening")
    if opening is not None:
        for path in dict.fromkeys(opening.LOST_LOGS):
            output.note(f"{shown(path)} was taken away; what it held is lost, the last checkpoint is what is left")
        opening.LOST_LOGS.clear()
    quotas = sys.modules.get("prontodb.engine.sqlite.quotas")
    if quotas is not None:
        for line in quotas.NEAR.values():
            output.note(f"{line}; delete something or raise the quota before it refuses")
        quotas.NEAR.clear()

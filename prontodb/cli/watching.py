"""watch: the one command that waits, and so the one that needs the event loop."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prontodb.cli import output
from prontodb.cli.environment import Place, address
from prontodb.cli.output import DONE, ERROR, INTERRUPTED, TERMINATED
from prontodb.cli.parsing import Args, Syntax
from prontodb.errors import AddressNotFoundError, shown
from prontodb.model.access import READ
from prontodb.model.holder import READ as READS_ONLY
from prontodb.model.key import check_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from prontodb.model.address import Address
    from prontodb.model.operation import Change

SYNTAX = {
    "watch": Syntax(
        ("[PREFIX]",),
        ("--prefix", "--since", "--count", "--timeout"),
        about=(
            "Prints changes of keys that begin with PREFIX, or of all, as they happen, other "
            "processes' too: key=value as scan prints it, deletions and expiries on stderr; --json "
            "prints every change with its revision. Fast changes of one key may come as one. It ends "
            "after --count changes, after --timeout seconds (exit 1 when --count was not reached), or "
            "by Ctrl-C, and says on stderr with which --since a later watch goes on."
        ),
        examples=(
            ("prontodb watch app.jobs.", "follow a prefix"),
            ("prontodb watch app.jobs.state --count 1 --timeout 60", "wait up to a minute for one change"),
            ("prontodb watch --json", "for programs"),
        ),
    ),
}


def do_watch(args: Args) -> int:
    """Print changes as they happen."""
    place, where = Place(args), address(args)
    word, option = args.maybe("PREFIX"), args.text("--prefix")
    if word is not None and option is not None:
        raise args.usage_error("give the prefix once: as a word, or with --prefix")
    prefix = check_prefix(word or option or "")
    since = args.text("--since")
    if since is not None:
        from prontodb.watching import parse_position

        parse_position(since)
    watching = _Watching(args, _count(args), args.seconds("--timeout"))
    # Looked at before the manager opens: watching what does not exist must not make a root for it.
    place.allow(READ, where, prefix)
    shot = place.one_shot(where)
    with shot:
        if not shot.exists():
            raise AddressNotFoundError(where)

    with watching.hearing():
        import anyio

        anyio.run(watching.run, place, where, prefix, since, backend="asyncio")
    return watching.outcome()


def _count(args: Args) -> int | None:
    text = args.text("--count")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:19]) > 0 and len(text) < 19):
        raise args.usage_error(f"--count is a whole number above 0, not {shown(text)}")
    return int(text)


class _Watching:
    """One watch: what ends it, and how it ended."""

    def __init__(self, args: Args, count: int | None, timeout_s: float | None) -> None:
        self._json = args.flag("--json")
        self._left, self._timeout_s = count, timeout_s
        self._signal: int | None = None
        self._end: Callable[[], object] | None = None

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as the wish to end, for the whole block.

        Nothing is raised where they strike: inside of the event loop or an import that would end anywhere.
        """
        # A signal that is ignored, as in the background of a shell, stays so.
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heard = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        if threading.current_thread() is not threading.main_thread():
            heard = []  # called from a thread, where the application decides about signals
        try:
            for number in heard:
                signal.signal(number, self._hear)
            yield
        finally:
            for number in heard:
                signal.signal(number, before[number])

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process where it stands
        if self._end is not None:
            self._end()

    async def run(self, place: Place, where: Address, prefix: str, since: str | None) -> None:
        """Follow until something ends it."""
        import anyio

        from prontodb.storage.lane import running_loop

        wake = running_loop().call_soon_threadsafe
        with anyio.CancelScope() as scope:
            self._end = lambda: wake(scope.cancel)
            try:
                if self._signal is None:  # else it came before there was a scope to cancel
                    await self._follow(place, where, prefix, since)
            finally:
                self._end = None

    async def _follow(self, place: Place, where: Address, prefix: str, since: str | None) -> None:
        import anyio

        from prontodb.composition import open_manager

        async with (
            open_manager(
                place.layout.root, settings=place.settings, principal=place.principal, token=place.token
            ) as manager,
            manager.session(where.user, where.cursor, mode=READS_ONLY) as keystore,
        ):
            changes = keystore.watch(prefix, since)
            await changes.start()
            output.note(f"watching {where} from --since {changes.position}")
            try:
                with anyio.move_on_after(self._timeout_s):
                    async for change in changes:
                        self._print(change)
                        if self._left == 0:
                            return
            finally:
                if changes.position is not None:
                    output.note(f"go on with --since {changes.position}")

    def _print(self, change: Change) -> None:
        entry = change.entry
        if self._json:
            value = None if entry is None else entry.value
            output.json_line({"key": change.key, "value": value, "revision": change.revision, "deleted": entry is None})
        elif entry is None:
            output.note(f"deleted {shown(change.key)}")
        else:
            output.line(f"{change.key}={output.escaped(entry.value)}")
        output.flush()
        if self._left is not None:
            self._left -= 1

    def outcome(self) -> int:
        """Return the exit code."""
        if self._signal is not None:
            return INTERRUPTED if self._signal == signal.SIGINT else TERMINATED
        if self._left:
            output.error(f"the time was over, and {self._left} more of the changes asked for had not come")
            return ERROR
        return DONE

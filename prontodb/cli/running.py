"""run: a command with an address to itself, whose session ends when the command does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from prontodb.cli import output
from prontodb.cli.environment import Place, address
from prontodb.cli.parsing import Args, Syntax
from prontodb.engine.sqlite import fencing
from prontodb.engine.sqlite.fencing import check_fence
from prontodb.errors import ProntoError, shown
from prontodb.log import event
from prontodb.model.access import WRITE
from prontodb.model.clock import Clock
from prontodb.model.operation import Fence
from prontodb.storage.files import resolved
from prontodb.storage.lock import ASKED, EVICTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import FrameType

    from prontodb.engine.sqlite.context import Target
    from prontodb.model.address import Address
    from prontodb.session.door import Stay
    from prontodb.session.hold import Holding
    from prontodb.session.sandbox import Sandbox, Wish
    from prontodb.storage.connection import Connection
    from prontodb.work import Work

LOOK_S = 1.0
"""How often is looked whether somebody asks the session to end."""
BEAT_S = 10.0
UPKEEP_S = 60.0
"""How often what has expired at the address is swept: nobody else can, while the run holds it."""
COMPACT_S = 86_400.0
MOST_CHUNKS = 20
"""Steps of sweeping or compacting at a time, so that signals never wait for long."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a command that could not be started, as shells have them."""

_PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
)
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)

SYNTAX = {
    "run": Syntax(
        ("COMMAND...",),
        ("--wait", "--sandbox", "--strict", "--allow-read", "--allow-write"),
        about=(
            "Runs a command in an exclusive session of the address (--user, --cursor), made when it "
            "does not exist. While it runs nobody else can write there; ProntoDB inside of it, in as many "
            "processes as it likes, uses this session. Signals are passed on, and the exit code is the "
            "command's (128 + N when signal N ended it, 127 when it was not found). When it has "
            "ended, what it left behind can write no more. "
            "--sandbox: the kernel (Landlock, Linux 6.2 or later) keeps the command, and all that it starts, out "
            "of every other address of this root, the registry, the backups and the keys; refused where it cannot. "
            "Folders above the root cannot be listed then, and sudo does not work inside. --strict also closes the "
            "rest of the file system, but for reading system folders and for the working folder; --allow-read and "
            "--allow-write open more paths, as often as they are given."
        ),
        examples=(
            ("prontodb --user agent1 --cursor prod run -- python agent.py", "one agent, one address"),
            ("prontodb --user agent1 run --wait 60 -- sh -c 'prontodb incr runs'", "wait up to a minute for it"),
            ("prontodb --user agent1 run --sandbox -- ./agent", "no other address can be read, whatever it tries"),
            ("prontodb run --strict --allow-read ~/models -- python agent.py", "nor the rest of the file system"),
        ),
    ),
}


def do_run(args: Args) -> int:
    """Run a command in a session of its own."""
    place, where = Place(args), address(args)
    wait_s = args.seconds("--wait", or_zero=True)
    command, wish = args.words("COMMAND"), _wish(args, place)
    gate = None if place.caller is None else place.caller.gate(where)
    if gate is not None:
        gate.check_any(WRITE)
    fence = place.fence(where)
    if fence is not None:
        check_fence(place.layout, where, fence)
        with _sandboxed(place, where, wish) as sandbox:
            # In the session of the run around us.
            return _run(command, None, os.environ | _identity(place), sandbox=sandbox)
    holding = place.holding()
    # Its name, and not its arguments: those may hold secrets.
    program = f"prontodb run {os.path.basename(command[0])}"
    longest_s = place.limits.wait_s if wait_s is None else wait_s
    may_create = gate is None or gate.may_create
    with holding.session(where, wait_s=longest_s, program=program, create=may_create) as stay:
        environment = (
            os.environ
            | _identity(place)
            | {
                "PRONTODB_HOME": resolved(place.layout.root),
                "PRONTODB_USER": where.user,
                "PRONTODB_CURSOR": where.cursor,
                "PRONTODB_SESSION": f"{stay.session}:{stay.holder.epoch}",
            }
        )
        # What a run of another address around us made is not for this one.
        environment.pop("PRONTODB_SANDBOX", None)
        with _sandboxed(place, where, wish) as sandbox:
            return _run(command, stay, environment, holding, _Upkeep(place, stay), sandbox)


def _wish(args: Args, place: Place) -> Wish | None:
    """Return the sandbox that is asked for; None for none."""
    read, write, strict = args.texts("--allow-read"), args.texts("--allow-write"), args.flag("--strict")
    if not strict and not args.flag("--sandbox"):
        if read or write:
            raise args.usage_error("--allow-read and --allow-write are for a sandbox: --sandbox or --strict")
        return None
    from prontodb.session.sandbox import Wish

    key_file = os.environ.get("PRONTODB_KEY_FILE") or None
    return Wish(strict=strict, read=read, write=write, key_file=key_file, token=place.token)


def _sandboxed(place: Place, where: Address, wish: Wish | None) -> AbstractContextManager[Sandbox | None]:
    if wish is None:
        return nullcontext()
    from prontodb.session.sandbox import Sandbox

    sandbox = Sandbox(place.layout, where, wish)
    for weakness in sandbox.weaknesses():
        output.note(weakness)
    return sandbox


def _identity(place: Place) -> dict[str, str]:
    """Return what the command asks as: the name and the token that were given by option are its own too."""
    found = {"PRONTODB_PRINCIPAL": place.principal, "PRONTODB_TOKEN": place.token}
    return {name: text for name, text in found.items() if text is not None}


def _run(
    command: list[str],
    stay: Stay | None,
    environment: dict[str, str],
    holding: Holding | None = None,
    upkeep: _Upkeep | None = None,
    sandbox: Sandbox | None = None,
) -> int:
    output.flush()
    with _Signals() as signals:
        try:
            child = _started(command, environment, sandbox)
        except FileNotFoundError:
            output.error(f"{shown(command[0])} was not found")
            return NOT_FOUND
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            hint = "; the sandbox may be in the way: see --allow-read" if sandbox is not None else ""
            output.error(f"{shown(command[0])} cannot be run: {reason}{hint}")
            return NOT_EXECUTABLE
        watcher = _Watcher(child, stay, holding, upkeep)
        while child.poll() is None:
            for number in signals.next(LOOK_S):
                watcher.pass_on(number)
            watcher.look()
            if sandbox is not None:
                sandbox.keep_up()
        return 128 - child.returncode if child.returncode < 0 else child.returncode


def _started(command: list[str], environment: dict[str, str], sandbox: Sandbox | None) -> subprocess.Popen[bytes]:
    """Start the command, in its sandbox from its first instruction on."""
    if sandbox is None:
        return subprocess.Popen(command, env=environment)  # noqa: S603 - it is what the user asks for
    try:
        return subprocess.Popen(  # noqa: S603 - as above
            command,
            env=environment | sandbox.environment(),
            preexec_fn=sandbox.enter,  # noqa: PLW1509 - this process has one thread, and `enter` does system calls only
        )
    except subprocess.SubprocessError:
        raise sandbox.failure() from None


class _Upkeep:
    """Sweeps and compacts the address of a run, under the run's own fence."""

    def __init__(self, place: Place, stay: Stay) -> None:
        self._place, self._stay = place, stay
        self._swept_at = self._compacted_at = time.monotonic()
        self._begun = Clock().wall_ms(), Clock().boottime_s()

    def now_and_then(self) -> None:
        """Do what is due; what cannot be done now is left for the next time."""
        now = time.monotonic()
        if now - self._swept_at < UPKEEP_S:
            return
        self._swept_at = now
        try:
            work = self._place.work()  # imported only by runs that last
            if work.check_clock(begun=self._begun) is not None:
                return
            self._sweep()
            if now - self._compacted_at >= COMPACT_S:
                self._compacted_at = now
                self._compact(work)
        except ProntoError as error:
            event("upkeep.failed", address=self._stay.address, reason=str(error))

    def _again(self, step: Callable[[Connection, Target, int], int]) -> None:
        for _ in range(MOST_CHUNKS):
            if not fencing.at(self._place.layout, self._stay.address, self._place.limits, Clock(), step):
                return

    @property
    def _fence(self) -> Fence:
        return Fence(self._stay.session, self._stay.holder.epoch)

    def _sweep(self) -> None:
        from prontodb.engine.sqlite import writing
        from prontodb.jobs.sweep import CHUNK

        fence = self._fence
        self._again(lambda connection, target, now_ms: writing.sweep(connection, target, CHUNK, fence, now_ms))

    def _compact(self, work: Work) -> None:
        from prontodb.engine.sqlite import upkeep

        fence, pruning = self._fence, upkeep.Pruning(work.rule_for()(self._stay.address))
        self._again(lambda connection, target, now_ms: pruning.step(connection, target, fence, now_ms))
        self._again(lambda connection, _target, _now_ms: upkeep.give_back(connection))


class _Signals:
    """The signals that reach us, in order, without anything being interrupted by them."""

    def __init__(self) -> None:
        self._reading, self._writing = -1, -1
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Signals:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)  # a flood of signals must not stop us
        for number in (signal.SIGCHLD, *_PASSED_ON):
            # What was ignored for us is ignored for the command, too.
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, _note)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._reading)
        os.close(self._writing)

    def next(self, timeout_s: float) -> list[int]:
        """Wait for signals, up to `timeout_s`; return them but for that of the child's end."""
        if not select.select([self._reading], [], [], timeout_s)[0]:
            return []
        return [number for number in os.read(self._reading, 1_024) if number != signal.SIGCHLD]


def _note(_number: int, _frame: FrameType | None) -> None:
    """Take a signal: its number comes through the pipe."""


class _Watcher:
    """What happens to a command while it runs."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        stay: Stay | None,
        holding: Holding | None,
        upkeep: _Upkeep | None,
    ) -> None:
        self._child, self._stay, self._holding, self._upkeep = child, stay, holding, upkeep
        self._looked_at = self._beaten_at = time.monotonic()
        self._told = False

    def pass_on(self, number: int) -> None:
        """Send a signal on to the command, unless the terminal has sent it there already."""
        if number in _FROM_KEYBOARD and _in_foreground():
            return
        self._send(number)

    def _send(self, number: int) -> None:
        try:
            self._child.send_signal(number)
        except PermissionError:
            output.note(f"the command belongs to another user now, who must end it: pid {self._child.pid}")

    def look(self) -> None:
        """Now and then: ask the command to end when somebody asks for the session, and say that we are there."""
        now = time.monotonic()
        if self._stay is None or self._holding is None or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        mark = self._stay.lock.mark(self._stay.session)
        if mark == ASKED and not self._told:
            self._told = True
            output.note(f"session {self._stay.session} is asked to end; the command gets SIGTERM")
            self._send(signal.SIGTERM)
        elif mark == EVICTED and not self._told:
            self._told = True
            output.note(f"session {self._stay.session} was put out by force; what the command writes is refused now")
        if now - self._beaten_at >= BEAT_S:
            self._beaten_at = now
            self._holding.beat(self._stay)
        if self._upkeep is not None and mark != EVICTED:
            self._upkeep.now_and_then()


def _in_foreground() -> bool:
    """True when Ctrl-C of our terminal reaches the command as it reaches us."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)

"""`failing-writes` and `read-only`: strace makes system calls of a running agent fail for a while, and lets go."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import anyio

from .base import SimpleFault, one_of, some_time_s
from .signals import process_of, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from anyio.abc import Process

    from .fault import Field, LiveAgent

LEAST_S, MOST_S = 0.2, 1.5
DEADLINE_S = 5.0
"""For strace to take hold of a process, and to let go of it."""
ATTACHED = b" attached"
_CHILD = "import sys; print(flush=True); sys.stdin.read()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """Which calls of a process fail, and how. What a call of another process does is not touched.

    Never `write`: by that agents record their history. A call that is under way while strace lets go fails with
    ENOSYS, since by then the kernel was told to leave it out.
    """

    calls: str
    error: str
    text: str
    when: str = ""

    @property
    def options(self) -> list[str]:
        """What strace is told."""
        when = f":when={self.when}" if self.when else ""
        return ["-e", f"trace={self.calls}", "-e", f"inject={self.calls}:error={self.error}{when}"]


# SQLite syncs by either, as it was built.
SYNCING = "fdatasync,fsync"
FAILING = (
    Injection(calls=SYNCING, error="EIO", text="every sync fails with EIO"),
    Injection(calls="pwrite64", error="EIO", text="every write to a place in a file fails with EIO"),
    Injection(calls=SYNCING, error="EIO", text="the first sync of each thread fails with EIO", when="1"),
)
# What changes a file system but for write(2), and for openat(2): strace cannot tell opening for reading from creating.
CHANGING = (
    "pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,"
    "rmdir,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,utimensat"
)
READ_ONLY = Injection(calls=CHANGING, error="EROFS", text="what would change the file system fails with EROFS")


class FailingWrites(SimpleFault):
    """The disk fails one agent: whether what it was committing is stored is unknown, or certainly not; never 'done'."""

    name = "failing-writes"
    explains = frozenset({"OutcomeUnknownError", "UnavailableError"})

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        return why_no_strace()

    async def make(self, ground: Field, chance: Random) -> None:
        """Have writes or syncs of one agent fail for a while."""
        await _fail(self.name, ground, chance, FAILING)


class ReadOnly(SimpleFault):
    """The file system turns read-only under one agent, as it does when the kernel finds it damaged."""

    name = "read-only"
    explains = frozenset({"OutcomeUnknownError", "UnavailableError", "ReadOnlyError"})

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        return why_no_strace()

    async def make(self, ground: Field, chance: Random) -> None:
        """Have what changes files fail in one agent for a while."""
        await _fail(self.name, ground, chance, (READ_ONLY,))


async def _fail(name: str, ground: Field, chance: Random, injections: tuple[Injection, ...]) -> None:
    agent = one_of(ground, chance)
    if agent is None:
        return
    injection = chance.choice(injections)
    for_s = some_time_s(ground, chance, MOST_S, LEAST_S)
    async with (
        ground.hold(agent),
        ground.announce(name, agent.process, f"{injection.text}, for {for_s:.2f} s", lasts=True),
        _injected(agent, injection),
    ):
        await anyio.sleep(for_s)


@asynccontextmanager
async def _injected(agent: LiveAgent, injection: Injection) -> AsyncIterator[None]:
    """Keep strace at an agent while the block runs; it has let go afterwards, however the block ends."""
    # Shielded: one that was cancelled as it began has hold of the agent already, and nobody would wait for its end.
    with anyio.CancelScope(shield=True):
        strace = await anyio.open_process(
            _command(agent.pid, injection), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    # Signals go by its descriptor: `Process.send_signal` would look for its end, and take it from who waits for it.
    with process_of(strace.pid) as process:
        try:
            with anyio.move_on_after(DEADLINE_S):
                await _attached(strace)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await _let_go(strace, process)


def _command(pid: int, injection: Injection) -> list[str]:
    return ["strace", "-f", "-o", "/dev/null", *injection.options, "-p", str(pid)]


async def _attached(process: Process) -> None:
    """Wait until strace says that it has hold of the process, or that there is none any more."""
    assert process.stderr is not None
    said = b""
    async for part in process.stderr:
        said += part
        if ATTACHED in said:
            return


async def _let_go(strace: Process, process: int | None) -> None:
    """End strace as it wants to be ended, so that it detaches in order; the kernel does it when that takes too long."""
    send(process, signal.SIGTERM)
    with anyio.move_on_after(DEADLINE_S):
        await strace.wait()
    if strace.returncode is None:
        send(process, signal.SIGKILL)
        await strace.wait()
    await strace.aclose()


@cache
def why_no_strace() -> str | None:
    """Return why strace cannot take hold of a process of ours here; None when it can. Tries it on a child."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        strace = subprocess.Popen(
            _command(child.pid, FAILING[0]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert strace.stderr is not None
            said = strace.stderr.readline()  # its first line, or nothing when it has ended
        finally:
            strace.terminate()
            strace.communicate(timeout=DEADLINE_S)
            child.kill()
    return None if ATTACHED in said else f"strace cannot trace here: {said.decode(errors='replace').strip()[-200:]}"

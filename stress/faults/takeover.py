"""`takeover`: a living agent's session is ended by force, as a user would, by the command line."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import anyio

from ..history import EVICT, FAILED, OK, UNKNOWN
from .base import SimpleFault, one_of, some_time_s
from .signals import stopped

if TYPE_CHECKING:
    from random import Random

    from .fault import Field

DEADLINE_S = 20.0
"""For the command as a whole, however long other faults may last: a busy machine starts programs slowly."""
WAIT_S = 2
"""How long the command tries, when a transaction is in its way."""
AFTER_S = 0.3
"""How long a stopped victim stays so at most when it has lost its address: time for somebody else to come in."""

_ERROR = re.compile(rb"^prontodb\.errors\.(\w+)", re.MULTILINE)
_DID_NOTHING = "SessionNotFoundError"


class Takeover(SimpleFault):
    """One session loses its address and is fenced; half of the times its agent is stopped meanwhile, and goes on."""

    name = "takeover"
    explains = frozenset({"FencedError", "AddressBusyError", "BusyError", "WaitTimeoutError"})

    async def make(self, ground: Field, chance: Random) -> None:
        """Put one agent's session out."""
        agent = one_of(ground, chance, lambda one: bool(one.session))
        if agent is None:
            return
        is_stopped = chance.random() < 0.5
        after_s = some_time_s(ground, chance, AFTER_S, 0.0) if is_stopped else 0.0
        session, address = agent.session, agent.address
        how = "is stopped, put out by force, and goes on" if is_stopped else "is put out by force"
        async with (
            ground.hold(agent),
            ground.announce(self.name, agent.process, f"session {session} at {address} {how}", lasts=True),
        ):
            with stopped(agent.pid) if is_stopped else nullcontext():
                await _put_out(ground, session, address, is_stopped=is_stopped)
                await anyio.sleep(after_s)


async def _put_out(ground: Field, session: str, address: str, *, is_stopped: bool) -> None:
    recorder = ground.recorder
    number = recorder.call(time.monotonic_ns(), EVICT, address, session, "", {"stopped": is_stopped})
    # Until it has said otherwise, it may have done all of it, or a part.
    outcome, error = UNKNOWN, "Cancelled"
    try:
        outcome, error = await _ended(ground, session)
    finally:
        recorder.returned(number, time.monotonic_ns(), outcome, None, error)


async def _ended(ground: Field, session: str) -> tuple[str, str]:
    """Run the command; return its outcome and the type of its error."""
    command = [sys.executable, "-m", "prontodb", "session", "end", session, "--force", "--wait", str(WAIT_S)]
    command += ["--root", str(ground.root), "--debug"]  # whose traceback names the error's type
    with anyio.move_on_after(DEADLINE_S):
        done = await anyio.run_process(command, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return OK, ""
        named = _ERROR.findall(done.stderr)
        error = named[-1].decode() if named else f"exit {done.returncode}"
        # Any other error may come after its first steps, which stay: a mark in the lock file, the raised epoch.
        return (FAILED if error == _DID_NOTHING else UNKNOWN), error
    return UNKNOWN, "TimeoutError"

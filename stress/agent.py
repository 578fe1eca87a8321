"""An agent process: takes its orders on stdin, works by the public API, says on stdout how far it is, ends by itself.

It ends with its parent, however that died: its stdin ends, and on Linux the kernel kills it, stopped or not.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import anyio

from .scenarios import SCENARIOS
from .work import Orders, Work, abandon
from .worlds import entered

HUNG = 86
"""The exit code of an agent that did not come to its end."""
ORPHANED = 75
GRACE_S = 60.0
"""How long after its time an agent may take to leave."""
REPORT_EVERY_S = 0.5
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies: one that is stopped could not notice by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)


class Listener:
    """A thread that hears the parent: orders, its death, and the end of our time, whatever the event loop does."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lines = b""

    def start(self) -> None:
        threading.Thread(target=self._listen, daemon=True, name="listener").start()

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([0], [], [], 1.0)
            if time.monotonic_ns() > self._work.until_ns + int(GRACE_S * 1e9):
                print(f"{self._work.orders.process} did not end; where it stands:", file=sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(HUNG)
            if ready and not self._hear():
                os._exit(ORPHANED)

    def _hear(self) -> bool:
        data = os.read(0, 1 << 16)
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "abandon":
            abandon()
        elif order["do"] == "cancel":
            self._work.cancels_until_ns = time.monotonic_ns() + int(order["for_s"] * 1e9)


def heard() -> dict[str, Any]:
    """Return the parent's next line, and read not a byte more: what follows may be for the listener."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or sys.exit(ORPHANED)
    told: dict[str, Any] = json.loads(line)
    return told


def say(work: Work) -> None:
    """Tell the parent how far we are. In one write: lines of a killed process are whole."""
    tally = work.tally
    line = {
        "done": tally.done,
        "failed": tally.failed,
        "bytes": tally.written_bytes,
        "alarms": tally.alarms,
        "session": tally.session,
        "address": tally.address,
    }
    os.write(1, json.dumps(line).encode() + b"\n")


async def live(work: Work) -> None:
    """Work until the time is over."""
    async with anyio.create_task_group() as group:

        async def report() -> None:
            while True:
                await anyio.sleep(REPORT_EVERY_S)
                say(work)

        group.start_soon(report)
        await SCENARIOS[work.orders.scenario].agent(work)
        group.cancel_scope.cancel()


async def main(orders: Orders) -> None:
    """Enter the agent's world, say that we are ready, wait for the start, work."""
    chance = Random(f"{orders.seed}/{orders.scenario}/{orders.process}")
    async with entered(SCENARIOS[orders.scenario].world, Path(orders.root)) as world:
        work = Work(orders, world, chance)
        os.write(1, b'{"ready": true}\n')
        # Nothing else runs yet: a plain wait for the one line that says until when.
        work.until_ns = heard()["until_ns"]
        Listener(work).start()
        await live(work)
        say(work)
        work.close()


def run() -> None:
    """Read the orders and obey."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    first = heard()
    die_with_parent(first.pop("parent"))
    anyio.run(main, Orders(**first))


if __name__ == "__main__":
    run()

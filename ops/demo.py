"""Several agents at once on a real root in a temporary folder, and the proof that none holds another's data.

Exit code 0 when every check held, 1 when one did not; the folder goes either way, on Ctrl-C too, unless --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

import anyio

from ops.demo_backup import show_backups
from ops.demo_evidence import OPS, Demo, ended, environment, show_files, show_keystores, show_sessions, show_shell
from ops.demo_migration import show_migration
from ops.demo_screen import DIM, GREEN, RED, Screen, quiet_end
from prontodb.errors import ProntoError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from anyio.abc import Process

STEPS = {
    "met": "each watches the board and has seen all others there",
    "stored": "values set by 8 tasks at once, and read back",
    "counted": "one counter of its own, one that all processes share",
    "moved": "competing transactions between two keys",
    "expired": "entries with one second to live have ended",
    "heard": "news from the board",
}
LONGEST_S = 60.0
LONGEST_EACH_S = 3.0
SAID_LINES = 12
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_agents(demo: Demo) -> None:
    """Start every agent as a process of its own and take what they say until all have ended."""
    passed: Counter[str] = Counter()
    began_s = time.monotonic()

    def step(name: str) -> None:
        passed[name] += 1
        if passed[name] < demo.count:
            demo.screen.passing(f"  {name} {passed[name]} of {demo.count}")
        else:
            took = f"{time.monotonic() - began_s:5.1f} s"
            demo.screen.line(f"  {demo.screen.paint(took, DIM)}  {demo.count} of {demo.count}  {name:8} {STEPS[name]}")

    failed: list[str] = []
    async with anyio.create_task_group() as tasks:

        async def run(number: int) -> None:
            code, said = await run_agent(demo, number, step)
            if code:
                failed.extend([f"agent{number} ended with exit code {code}", *said])
                # The others would wait for this one on the board.
                tasks.cancel_scope.cancel()

        for number in range(1, demo.count + 1):
            tasks.start_soon(run, number)
    demo.facts = {name: demo.facts[name] for name in sorted(demo.facts, key=lambda name: int(name[5:]))}
    demo.check("every agent came to its end", failed)


async def run_agent(demo: Demo, number: int, step: Callable[[str], None]) -> tuple[int, Iterable[str]]:
    """Run one agent; return its exit code and the last lines it said that were not meant for us."""
    said: deque[str] = deque(maxlen=SAID_LINES)
    async with await anyio.open_process(
        [sys.executable, str(OPS / "demo_agent.py"), demo.root, str(number), str(demo.count)],
        stdin=subprocess.PIPE,  # its end tells the agent of ours, whatever ended us
        stderr=subprocess.STDOUT,
        env=environment(demo.root),
        # Ctrl-C is for us: we end the agents, and they have no traceback to show.
        start_new_session=True,
    ) as process:
        try:
            async for line in lines_of(process):
                if not line.startswith(b"{"):
                    said.append(line.decode(errors="replace"))
                    continue
                heard = json.loads(line)
                if facts := heard.get("facts"):
                    demo.facts[facts["name"]] = facts
                step(heard["step"])
        finally:
            await ended(process)
        return await process.wait(), said


async def lines_of(process: Process) -> AsyncGenerator[bytes]:
    """Yield what a process says, line by line."""
    assert process.stdout is not None
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


async def run(demo: Demo) -> None:
    """Go through the whole demo and say how it went; a signal ends it."""
    began_s = time.monotonic()
    longest_s = LONGEST_S + LONGEST_EACH_S * demo.count
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_signal, demo, tasks.cancel_scope)
        with anyio.move_on_after(longest_s) as deadline:
            await show(demo)
        if deadline.cancelled_caught:
            demo.check("it ends in time", [f"it took more than {longest_s:g} s"])
        sum_up(demo, time.monotonic() - began_s)
        tasks.cancel_scope.cancel()


async def stop_on_signal(demo: Demo, scope: anyio.CancelScope) -> None:
    """Wait for a signal that asks us to end, then cancel everything."""
    with anyio.open_signal_receiver(*STOPPING) as signals:
        async for number in signals:
            demo.stopped_by = number
            scope.cancel()
            return


async def show(demo: Demo) -> None:
    """Run the agents and show what is to be seen."""
    count = demo.count
    demo.screen.line(f"{count} agents, {count} processes, one root; to each its address and its own keystore")
    demo.screen.line()
    await run_agents(demo)
    if not demo.broken:
        await show_keystores(demo)
        await show_files(demo)
        await show_shell(demo)
        await show_sessions(demo)
        await show_backups(demo)
        await show_migration(demo)


def sum_up(demo: Demo, took_s: float) -> None:
    """Say whether everything held, and what did not."""
    screen = demo.screen
    screen.line()
    if not demo.broken:
        screen.line(f"{screen.paint('demo: ok', GREEN)}, all {demo.held} checks held ({took_s:.1f} s)")
        return
    screen.line(screen.paint(f"demo: {len(demo.broken)} FAILED ({took_s:.1f} s)", RED))
    for text in demo.broken:
        screen.line(f"  {text}")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops/demo", description=__doc__)
    parser.add_argument("--agents", type=int, default=6, metavar="N", help="2 to 32 agents; default 6")
    parser.add_argument("--keep", action="store_true", help="leave the root and say where it is")
    args = parser.parse_args(argv)
    if not 2 <= args.agents <= 32:
        parser.error(f"--agents takes 2 to 32, not {args.agents}")
    return args


def main(argv: list[str]) -> int:
    args = parse(argv)
    screen, code = Screen(sys.stdout), 1
    root = os.path.realpath(tempfile.mkdtemp(prefix="prontodb-demo-"))
    demo = Demo(root, args.agents, screen)
    try:
        try:
            anyio.run(run, demo)
            code = 128 + demo.stopped_by if demo.stopped_by else int(bool(demo.broken))
        except* ProntoError as group:
            print(*(f"demo: {error}" for error in group.exceptions), sep="\n", file=sys.stderr)
        except* BrokenPipeError:
            quiet_end()
    finally:
        # A second Ctrl-C must not keep the folder.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        if not args.keep:
            shutil.rmtree(root)
    if args.keep:
        print(f"kept: PRONTODB_HOME={root} prontodb address list", file=sys.stderr)
    if demo.stopped_by:
        print(f"demo: stopped by {signal.Signals(demo.stopped_by).name}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

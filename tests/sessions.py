"""Sessions of other processes, and what their locks leave on disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.managing import PATIENCE_S, Child

HOLDER = """
import asyncio, sys, prontodb
from prontodb.errors import ProntoError
async def main():
    settings = prontodb.Settings(durability="relaxed", wait_s=float(sys.argv[3]))
    async with prontodb.open(sys.argv[1], settings=settings) as manager:
        async with manager.session("agent", "test", mode=sys.argv[2], labels={"task": "hold"}) as ks:
            print(ks.session_id, flush=True)
            for line in sys.stdin:
                try:
                    print(await eval(line), flush=True)
                except ProntoError as error:
                    print(type(error).__name__, flush=True)
asyncio.run(main())
"""
"""A process with a session at agent/test that evaluates the lines it is told, `ks` being its keystore."""


def holder(root: Path, mode: str = "exclusive", wait_s: float = PATIENCE_S) -> Child:
    return Child(HOLDER, root, mode, wait_s)


def lock_folder(root: Path) -> Path:
    return root / "registry/locks/agent@test"


def session_files(root: Path) -> list[str]:
    return sorted(path.name for path in lock_folder(root).iterdir() if path.name.startswith("s-"))


def stop(child: Child) -> None:
    child.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.process.pid, os.WSTOPPED | os.WNOWAIT)

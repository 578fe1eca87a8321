"""Managers, handles and processes for tests of the async side, and what the process holds while they are open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from prontodb.composition import open_manager
from prontodb.model.settings import Settings

if TYPE_CHECKING:
    from prontodb.keystore import Keystore
    from prontodb.manager import SessionManager
    from prontodb.model.clock import Clock

CHECKOUT = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0
"""How long a test waits for what must come; passing takes none of it."""


@asynccontextmanager
async def managed(root: Path, *, clock: Clock | None = None, **settings: Any) -> AsyncIterator[SessionManager]:
    """Open a manager; relaxed durability unless told, since no test here cuts the power."""
    chosen = Settings(**{"durability": "relaxed", **settings})
    async with open_manager(str(root), settings=chosen, clock=clock) as manager:
        yield manager


@asynccontextmanager
async def keystore_at(
    root: Path, *, clock: Clock | None = None, mode: str = "exclusive", **settings: Any
) -> AsyncIterator[Keystore]:
    """Open a manager and a session at agent/test."""
    async with (
        managed(root, clock=clock, **settings) as manager,
        manager.session("agent", "test", mode=mode) as keystore,
    ):
        yield keystore


def taken_away(root: Path, address: str) -> None:
    """Move an address's folder out of the root by hand, as nobody who heeds locks would."""
    (root / "addresses" / address).rename(root.parent / f"{address.replace('/', '-')}.away")


def threads() -> set[int | None]:
    """The threads of this process."""
    return {thread.ident for thread in threading.enumerate()}


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as `condition` holds; fail after PATIENCE_S."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - other threads and processes set no event of ours
            await anyio.sleep(0.001)


def waited_for(condition: Callable[[], bool]) -> bool:
    """`until` without an event loop; False after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True


def environment() -> dict[str, str]:
    """Our environment, in which a child finds the checkout and writes nothing beside its root."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


def program(text: str, *arguments: object) -> list[str]:
    """The command that runs a Python program with `arguments` as its sys.argv[1:]."""
    return [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]


def ran(text: str, *arguments: object) -> str:
    """Run a program to its end within PATIENCE_S; return its stdout. Fails when it fails or says anything else."""
    done = subprocess.run(
        program(text, *arguments), capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


class Child:
    """A program beside us that we talk to line by line; leaving the block ends it."""

    def __init__(self, text: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            program(text, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Close its input and wait for its end."""
        self.process.communicate(timeout=PATIENCE_S)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


LOCK_HOLDER = """
import sys, tests.parts
from prontodb.storage import connection as sqlite
c = sqlite.connect(sys.argv[1], busy_timeout_ms=10_000)
for line in sys.stdin:
    c.execute(line.strip()).close()
    print("done", flush=True)
c.close()
"""
"""Runs each line it is given as a statement on the keystore at its first argument."""


def lock_holder(root: Path, address: str) -> Child:
    """A process that holds SQLite's write lock of an address until it is told ROLLBACK."""
    child = Child(LOCK_HOLDER, root / "addresses" / address / "keystore.db")
    child.tell("BEGIN IMMEDIATE")
    assert child.line() == "done"
    return child

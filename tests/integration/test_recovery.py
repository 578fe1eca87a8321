"""While another process recovers the log of a killed writer a keystore is locked: who comes waits to its deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb.engine.sqlite import fencing, opening
from prontodb.errors import BusyError
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.limits import Limits
from tests.managing import PATIENCE_S, Child, managed
from tests.parts import Parts, fill, value
from tests.sessions import holder

ONE = Address("agent", "test")
TRIES = 5
"""How often an opening finds the lock held before it is let go."""

RECOVERER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 122)
print("held", flush=True)
sys.stdin.readline()
os.close(fd)
print("let go", flush=True)
sys.stdin.readline()
"""
"""Holds the lock that SQLite takes while it recovers a log (sqlite.org/walformat.html#wal_locks), until told a line."""


@pytest.fixture
def recoverer(root: Path) -> Iterator[Child]:
    """Somebody who recovers the log that a killed writer left."""
    with holder(root, "shared") as writer:
        assert writer.line()
        writer.tell("ks.set('k', 'v')")
        assert writer.line() == "1"
        writer.process.kill()
        writer.process.wait()
    with Child(RECOVERER, root / "addresses/agent/test/keystore.db-shm") as child:
        assert child.line() == "held"
        yield child


@contextmanager
def let_go_after_some_tries(recoverer: Child, monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[str]]:
    """Have the lock freed when the file has been opened in vain TRIES times."""
    opened: Callable[..., Any] = getattr(opening, name)
    tries: list[str] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        tries.append(name)
        if len(tries) == TRIES:
            recoverer.tell("let go")
            assert recoverer.line() == "let go"
        return opened(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(opening, name, counted)
        yield tries
    assert len(tries) >= TRIES


@pytest.mark.parametrize("mode", ["exclusive", "shared", "read"])
async def test_a_session_opens_when_the_log_is_recovered(
    root: Path, recoverer: Child, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    async with managed(root, wait_s=0) as manager:
        with let_go_after_some_tries(recoverer, monkeypatch, "open_writer"):
            async with manager.session("agent", "test", mode=mode, wait=PATIENCE_S) as keystore:
                assert await keystore.get("k") == "v"


@pytest.mark.parametrize("mode", ["exclusive", "shared", "read"])
async def test_a_session_that_may_not_wait_so_long_says_who_recovers(root: Path, recoverer: Child, mode: str) -> None:
    async with managed(root) as manager:
        with pytest.raises(BusyError, match=f"pid {recoverer.process.pid} .*which is recovering its log"):
            async with manager.session("agent", "test", mode=mode, wait=0):
                pass
    recoverer.tell("let go")


async def test_others_of_the_same_lane_are_served_while_a_log_is_recovered(
    root: Path, recoverer: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(root, lanes=1) as manager, manager.session("agent", "other", mode="shared") as other:
        opened: Callable[..., Any] = opening.open_writer
        tries: list[int] = []

        def counted(*arguments: Any, **options: Any) -> Any:
            tries.append(options["busy_timeout_ms"])
            return opened(*arguments, **options)

        monkeypatch.setattr(opening, "open_writer", counted)

        async with anyio.create_task_group() as tasks:

            async def comes_in() -> None:
                async with manager.session("agent", "test", mode="shared", wait=PATIENCE_S):
                    pass

            tasks.start_soon(comes_in)
            while len(tries) < TRIES:
                await other.set("k", "v")
            recoverer.tell("let go")
        assert max(tries) <= 5, "milliseconds that a lane waits"


def test_a_one_shot_write_waits_in_place(root: Path, recoverer: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    with let_go_after_some_tries(recoverer, monkeypatch, "open_writer"):
        fill(root, "agent/test", {"k": "w"})
    assert value(root, "agent/test", "k") == "w"


def test_a_step_on_a_connection_of_its_own_waits_in_place(
    root: Path, recoverer: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(root, clock=Clock())
    with let_go_after_some_tries(recoverer, monkeypatch, "open_writer"):
        fencing.at(parts.layout, ONE, Limits(wait_s=PATIENCE_S), parts.clock, lambda *_: None)

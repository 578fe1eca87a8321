"""Sessions at bad moments and on tampered files: put out while they open, lock files emptied, taken away, replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb.engine.sqlite.engine import SqliteKeyspace
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.errors import AddressBusyError, FencedError
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.session import live as live_module
from prontodb.storage import holders
from prontodb.storage.lock import HeldLock
from tests.managing import PATIENCE_S, Child, managed
from tests.sessions import holder, lock_folder, stop


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    async with managed(root, wait_s=PATIENCE_S) as opened:
        yield opened


# While it opens


OPENING = """
import asyncio, os, signal, sys, prontodb
from prontodb.engine.sqlite.engine import SqliteKeyspace
from prontodb.engine.sqlite.lifecycle import Lifecycle
real = getattr(SqliteKeyspace, sys.argv[3])
async def stopped(self, *given):
    os.kill(os.getpid(), signal.SIGSTOP)
    return await real(self, *given)
setattr(SqliteKeyspace, sys.argv[3], stopped)
async def main():
    async with prontodb.open(sys.argv[1]) as manager:
        try:
            async with manager.session("agent", "test", mode=sys.argv[2]) as ks:
                print("in", await ks.set("a", "late"), flush=True)
        except prontodb.errors.ProntoError as error:
            print(type(error).__name__, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(("mode", "step"), [("exclusive", "take_over"), ("shared", "check_lock")])
async def test_one_put_out_while_it_opens_never_gets_in(
    root: Path, manager: SessionManager, mode: str, step: str
) -> None:
    """Stopped between its lock and the store: whoever came after it must not be shut out by it."""
    await manager.create("agent/test")
    with Child(OPENING, root, mode, step) as other:
        os.waitid(os.P_PID, other.process.pid, os.WSTOPPED | os.WNOWAIT)
        (found,) = await manager.sessions()
        if mode == "shared":
            # It holds the address's lock for this moment, which belongs to no session: only a kill helps.
            await manager.end_session(found.id, force=True, kill=True)
            assert await manager.sessions() == []
            return
        await manager.end_session(found.id, force=True)
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "rightful")
            assert await ks.get("a") == "rightful"
            other.process.send_signal(signal.SIGCONT)
            assert other.line() == "FencedError"
            await ks.set("b", "still mine")
            assert await ks.get("a") == "rightful"


async def test_one_asked_while_it_opens_hears_of_it(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    asked = anyio.Event()
    real = SqliteKeyspace.take_over

    async def slow(self: SqliteKeyspace, *given: Any) -> int:
        await asked.wait()
        return await real(self, *given)

    monkeypatch.setattr(SqliteKeyspace, "take_over", slow)
    async with managed(root) as other, anyio.create_task_group() as tasks:

        async def stay() -> None:
            async with other.session("agent", "test") as ks:
                with anyio.fail_after(PATIENCE_S):
                    while not ks.closed:  # noqa: ASYNC110
                        await anyio.sleep(0.01)

        tasks.start_soon(stay)
        with anyio.fail_after(PATIENCE_S):
            while not (found := await manager.sessions()):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        with pytest.raises(AddressBusyError):
            await manager.end_session(found[0].id, wait=0)
        asked.set()


async def test_who_waits_for_the_others_to_leave_is_no_session_yet(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it looks who is there, it must not be taken for a holder who died: the others would be shut out."""
    seen: list[bytes] = []
    real = Lifecycle.check_no_sessions

    def looked(self: Lifecycle, address: Address) -> None:
        seen.append((lock_folder(root) / "address.lock").read_bytes())
        real(self, address)

    monkeypatch.setattr(Lifecycle, "check_no_sessions", looked)
    async with manager.session("agent", "test", mode="shared") as ks:
        with pytest.raises(AddressBusyError):
            async with manager.session("agent", "test", wait=0):
                pass
        assert len(seen) == 3
        for data in seen:
            assert b"open session s-" in data
            assert b'"session"' not in data
        await ks.set("a", "1")
    async with manager.session("agent", "test", wait=0) as ks:
        assert ks.session_id.encode() in (lock_folder(root) / "address.lock").read_bytes()


async def test_a_shared_one_whose_lock_goes_while_it_opens_shuts_nobody_out(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SqliteKeyspace.check_lock

    async def late(self: SqliteKeyspace, *given: Any) -> int:
        (root / "registry").rename(root.parent / "registry.away")
        async with managed(root) as other, other.session("agent", "test", wait=0) as ks:
            assert await ks.set("a", "mine") == 1
            with pytest.raises(FencedError):
                await real(self, *given)
            await ks.set("a", "still mine")
        raise FencedError("seen")

    monkeypatch.setattr(SqliteKeyspace, "check_lock", late)
    await manager.create("agent/test")
    with pytest.raises(FencedError, match="seen"):
        async with manager.session("agent", "test", mode="shared"):
            pass


# What people do to the files


async def test_labels_of_any_script_hide_nobody(manager: SessionManager) -> None:
    labels = {chr(0x430 + number) * 100: chr(0x1F600 + number) * 100 for number in range(16)}
    for mode in ("exclusive", "shared"):
        async with manager.session("agent", "test", mode=mode, labels=labels) as ks:
            (found,) = await manager.sessions()
            assert (found.id, found.labels) == (ks.session_id, labels)
            await manager.end_session(found.id, force=True)
            with pytest.raises(FencedError):
                await ks.set("a", "late")


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
async def test_an_emptied_lock_file_is_written_anew_by_who_lives(
    root: Path, manager: SessionManager, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    async with manager.session("agent", "test", mode=mode) as ks:
        name = "address.lock" if mode == "exclusive" else f"{ks.session_id}.lock"
        os.truncate(lock_folder(root) / name, 0)
        with anyio.fail_after(PATIENCE_S):
            while [found.pid for found in await manager.sessions()] != [os.getpid()]:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_a_stopped_shared_session_is_put_out_although_its_lock_file_was_emptied(
    root: Path, manager: SessionManager
) -> None:
    with holder(root, "shared") as other:
        session = other.line()
        stop(other)
        os.truncate(lock_folder(root) / f"{session}.lock", 0)
        await manager.end_session(session, force=True)
        assert await manager.sessions() == []
        other.process.send_signal(signal.SIGCONT)
        other.tell('ks.set("a", "late")')
        assert other.line() == "FencedError"


@pytest.mark.parametrize("what", ["registry", "lock"])
async def test_a_shared_session_whose_lock_was_taken_away_writes_no_more_beside_an_exclusive_one(
    root: Path, manager: SessionManager, what: str
) -> None:
    async with manager.session("agent", "test", mode="shared") as old:
        await old.set("a", "1")
        if what == "registry":
            (root / "registry").rename(root.parent / "registry.away")
        else:
            (lock_folder(root) / f"{old.session_id}.lock").unlink()
        async with managed(root) as other, other.session("agent", "test", wait=0) as ks:
            await ks.set("a", "2")
            assert await ks.get("a") == "2"
            with pytest.raises(FencedError):
                await old.set("a", "late")
            assert await ks.get("a") == "2"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_what_is_odd_at_one_address_keeps_nobody_from_seeing_the_others(
    root: Path, manager: SessionManager, kind: str
) -> None:
    async with manager.session("agent", "test") as ks:
        odd = root / "registry/locks/odd@place"
        odd.mkdir(mode=0o700)
        name = odd / f"{ks.session_id}.lock"
        if kind == "link":
            name.symlink_to("/etc/passwd")
        elif kind == "folder":
            name.mkdir(mode=0o700)
        else:
            os.mkfifo(name, 0o600)
        assert [found.id for found in await manager.sessions()] == [ks.session_id]
        assert (await manager.end_session(ks.session_id, force=True)).id == ks.session_id


async def test_many_dead_sessions_are_cleared_away_in_one_look(root: Path, manager: SessionManager) -> None:
    """Each dead one is looked for where it was, and not everywhere."""
    looks = 0
    real = holders.at

    def counted(*given: Any) -> list[holders.Found]:
        nonlocal looks
        looks += 1
        return real(*given)

    async with AsyncExitStack() as stack:
        for number in range(30):
            await stack.enter_async_context(manager.session("agent", f"c{number}"))
        for live in list(manager._live._live.values()):
            live.stay.lock.abandon()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(holders, "at", counted)
            async with managed(root) as other:
                assert await other.sessions() == []
        assert looks <= 30 * 5


async def test_ending_is_given_up_at_once_and_keeps_no_thread(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        session = other.line()
        stop(other)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(partial(manager.end_session, session, wait=600))
            await anyio.sleep(0.05)
            with anyio.fail_after(PATIENCE_S):
                async with manager.session("agent", "free") as ks:
                    assert await ks.list_keys() == []
                tasks.cancel_scope.cancel()


async def test_a_session_that_ends_while_another_is_being_ended_harms_nobody(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with manager.session("agent", "one"), manager.session("agent", "two"):
        first, second = manager._live._live.values()
        await manager._live.end(second)
        await manager._live._look_at(second)
        await manager._live._look_at(first)


async def test_a_disk_error_while_it_watches_ends_no_application(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    looked = anyio.Event()

    def fails(*_: object) -> bytes:
        looked.set()
        raise OSError(5, "Input/output error")

    async with managed(Path(manager.root)) as other, other.session("agent", "test") as ks:
        with monkeypatch.context() as patched:
            patched.setattr(HeldLock, "mark", fails)
            with anyio.fail_after(PATIENCE_S):
                await looked.wait()
            await anyio.sleep(0.05)
        assert await ks.set("a", "1")

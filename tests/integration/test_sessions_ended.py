"""Sessions that others end: asked, put out by force, killed, dead; and the registry, which only describes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from prontodb.errors import (
    AddressBusyError,
    ClosedError,
    FencedError,
    InvalidInputError,
    ProntoError,
    SessionNotFoundError,
    UnavailableError,
    outcome_is_unknown,
)
from prontodb.manager import SessionManager
from prontodb.model.holder import Holder
from prontodb.model.layout import ADDRESS_LOCK_FILE
from prontodb.session import live as live_module
from prontodb.session.book import SessionBook
from prontodb.storage import holders, lock, process
from prontodb.storage.files import open_root
from tests.managing import PATIENCE_S, Child, environment, lock_holder, managed, until
from tests.roots import as_root
from tests.sessions import HOLDER, holder, lock_folder, stop


@pytest.fixture
async def manager(root: Path) -> AsyncIterator[SessionManager]:
    async with managed(root, wait_s=PATIENCE_S) as opened:
        yield opened


# Ending by others


async def test_a_session_that_is_asked_ends_in_order_and_says_so(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    async with managed(root) as other, other.session("agent", "test") as ks:
        await ks.set("a", "1")
        ended = await manager.end_session(ks.session_id)
        assert (ended.id, ended.mode) == (ks.session_id, "exclusive")
        assert ks.closed
        for call in (ks.get("a"), ks.set("a", "2"), ks.list_keys()):
            with pytest.raises(ClosedError, match="asked to end"):
                await call
        async with manager.session("agent", "test", wait=0) as new:
            assert await new.get("a") == "1"
        with pytest.raises(SessionNotFoundError):
            await manager.end_session(ks.session_id)


async def test_one_that_does_not_heed_is_named_with_the_way_to_force_it(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        session = other.line()
        stop(other)
        with pytest.raises(AddressBusyError, match=f"session end {session} --force"):
            await manager.end_session(session, wait=0.05)


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
async def test_a_stopped_session_put_out_by_force_writes_no_more(
    root: Path, manager: SessionManager, mode: str
) -> None:
    """Fault 11: stopped, put out, replaced, continued: its write is refused and the new holder's value stays."""
    with holder(root, mode) as other:
        session = other.line()
        other.tell('ks.set("a", "before")')
        other.line()
        if mode == "exclusive":
            other.tell('ks.get("a")')
            assert other.line() == "before"
        stop(other)
        await manager.end_session(session, force=True)
        assert [found.id for found in await manager.sessions()] == []
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "new")
            other.process.send_signal(signal.SIGCONT)
            other.tell('ks.set("a", "late")')
            assert other.line() == "FencedError"
            other.tell('ks.get("a")')
            assert other.line() == "FencedError", "nor does it read from memory"
            assert await ks.get("a") == "new"
        other.end()
    # The lock of the one that was put out is free now: what was kept for it is cleared away.
    assert await manager.sessions() == []
    assert list((lock_folder(root) / "retired").iterdir()) == []
    async with managed(root) as again, again.session("agent", "test") as ks:
        assert await ks.get("a") == "new"


async def test_put_out_while_it_works_it_hears_of_it_at_its_next_operation(root: Path, manager: SessionManager) -> None:
    async with managed(root) as other, other.session("agent", "test") as ks:
        await ks.set("a", "1")
        assert [await ks.get("a"), await ks.get("a")] == ["1", "1"]
        await manager.end_session(ks.session_id, force=True)
        for call in (ks.get("a"), ks.exists("a"), ks.set("a", "2"), ks.list_keys(), ks.increment("n")):
            with pytest.raises(FencedError, match="put out by force"):
                await call
        async with manager.session("agent", "test", wait=0) as new:
            assert await new.get("a") == "1"


BEGIN = """
import tests.parts
from prontodb.storage import connection as sqlite
kept = sqlite.connect(sys.argv[1] + "/addresses/agent/test/keystore.db")
kept.execute("BEGIN IMMEDIATE").close()
"""


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
@pytest.mark.parametrize(
    ("mark", "reason", "said"),
    [(lock.EVICTED, FencedError, "put out by force"), (lock.ASKED, ClosedError, "asked to end")],
)
async def test_a_write_that_waits_when_its_session_is_ended_hears_what_ended_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, mode: str, mark: bytes, reason: type[ProntoError], said: str
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    async with managed(root, wait_s=PATIENCE_S) as other, other.session("agent", "test", mode=mode) as ks:
        waiting: Any = ks._keyspace  # of the real engine: the write is there, and has not begun
        errors: list[ProntoError] = []

        async def writes() -> None:
            with pytest.raises(reason, match=said) as caught:
                await ks.set("k", "v")
            errors.append(caught.value)

        with lock_holder(root, "agent/test") as writer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writes)
                await until(lambda: waiting._current.busy)
                file = ADDRESS_LOCK_FILE if mode == "exclusive" else holders.file_of(ks.session_id)
                with open_root(str(root), "registry", "locks", "agent@test") as folder:
                    assert lock.mark(folder, file, mark, ks.session_id)
            writer.tell("ROLLBACK")
            assert writer.line() == "done"
        assert not any(outcome_is_unknown(error) for error in errors)
        with pytest.raises(reason, match=said):
            await ks.get("k")
    async with managed(root) as after, after.session("agent", "test", mode="read") as ks:
        assert await ks.get("k") is None


async def test_one_stopped_inside_a_transaction_is_named_and_can_be_killed(root: Path, manager: SessionManager) -> None:
    """Nothing of ours holds SQLite's lock for longer than a moment; this stands for one stopped in that moment."""
    with holder(root) as other:
        session = other.line()
        other.tell(f"asyncio.sleep(0, exec({BEGIN!r}, globals()))")
        assert other.line() == "None"
        stop(other)
        with pytest.raises(AddressBusyError, match="--force --kill") as caught:
            await manager.end_session(session, force=True, wait=0.1)
        assert re.search(rf"is locked by pid {other.process.pid}\b", str(caught.value))
        await manager.end_session(session, force=True, kill=True)
        assert other.process.wait() == -signal.SIGKILL
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "1")


async def test_force_that_was_interrupted_is_finished_by_the_next(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the epoch was raised and before the lock file was moved: the stopped holder has its lock still."""
    with holder(root) as other:
        session = other.line()
        stop(other)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(SessionBook, "_retire", _killed)
            await manager.end_session(session, force=True)
        assert [found.id for found in await manager.sessions()] == [session]
        await manager.end_session(session, force=True)
        assert await manager.sessions() == []
        async with manager.session("agent", "test", wait=0) as ks:
            await ks.set("a", "1")


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


async def test_a_session_whose_process_cannot_be_told_apart_is_not_killed(
    root: Path, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pid that was used again, another boot, another pid namespace."""
    with holder(root) as other:
        session = other.line()
        monkeypatch.setattr(process, "start_time", lambda _: 1)
        with pytest.raises(AddressBusyError, match="another process by now"):
            await manager.end_session(session, force=True, kill=True, wait=0.05)
        assert other.process.poll() is None


async def test_kill_alone_is_refused(manager: SessionManager) -> None:
    async with manager.session("agent", "test") as ks:
        with pytest.raises(InvalidInputError, match="force=True"):
            await manager.end_session(ks.session_id, kill=True)


@pytest.mark.parametrize("session", ["", "s-1", "../../x", "s-0011223344556677889g"])
async def test_what_is_no_session_is_refused(manager: SessionManager, session: str) -> None:
    with pytest.raises(InvalidInputError, match="no session's id"):
        await manager.end_session(session)


# The registry describes, and proves nothing


async def test_a_session_is_described(root: Path, manager: SessionManager) -> None:
    with holder(root, "shared") as other:
        session = other.line()
        (found,) = await manager.sessions()
        assert (found.id, str(found.address), found.mode) == (session, "agent/test", "shared")
        assert found.pid == other.process.pid
        assert found.process_started == process.start_time(other.process.pid)
        assert found.labels == {"task": "hold"}
        assert found.boot == process.ourselves().boot
        assert found.host == os.uname().nodename
        assert found.pid_namespace == process.ourselves().pid_namespace
        assert found.started_at_ms is not None
        assert found.last_seen_ms is not None
        assert json.loads(json.dumps(found.as_dict()))["address"] == "agent/test"


def registry_file(root: Path) -> Path:
    return root / "registry/active_sessions.db"


@pytest.mark.parametrize("harm", ["removed", "garbage", "all"])
async def test_a_lost_or_damaged_registry_hides_nobody_and_heals(
    root: Path, manager: SessionManager, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOOK_S", 0.01)
    monkeypatch.setattr(live_module, "BEAT_S", 0.01)
    async with managed(root) as other, other.session("agent", "test") as ks:
        for ending in ("", "-wal", "-shm"):
            path = registry_file(root).with_name(registry_file(root).name + ending)
            if harm == "garbage" and not ending:
                path.write_bytes(b"garbage" * 1_000)
            else:
                path.unlink(missing_ok=True)
        found = await manager.sessions()
        assert [session.id for session in found] == [ks.session_id]
        with pytest.raises(AddressBusyError):
            async with manager.session("agent", "test", wait=0):
                pass
        await ks.set("a", "1")
        with anyio.fail_after(PATIENCE_S):
            while (await manager.sessions())[0].last_seen_ms is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_a_row_of_a_session_that_is_gone_is_taken_away(root: Path, manager: SessionManager) -> None:
    with holder(root) as other:
        other.line()
        other.process.kill()
        other.process.wait()
    assert len(manager._sessions._registry.rows()) == 1
    assert await manager.sessions() == []
    assert manager._sessions._registry.rows() == []


async def test_a_locked_registry_holds_up_no_session_and_is_caught_up_with(root: Path, manager: SessionManager) -> None:
    from tests.managing import LOCK_HOLDER

    async with manager.session("agent", "first"):
        pass
    with Child(LOCK_HOLDER, registry_file(root)) as blocker:
        blocker.tell("BEGIN IMMEDIATE")
        assert blocker.line() == "done"
        async with manager.session("agent", "test") as ks:
            await ks.set("a", "1")
            assert [found.id for found in await manager.sessions()] == [ks.session_id]
            blocker.tell("ROLLBACK")
            assert blocker.line() == "done"
            await manager._live._roll.flush()
            assert [row.holder.session for row in manager._sessions._registry.rows()] == [ks.session_id]


async def test_a_session_looks_alive_by_its_lock_and_not_by_its_pid(root: Path, manager: SessionManager) -> None:
    """Promise 21: the record names a pid that lives, of another boot; the lock is free, so it is dead."""
    from prontodb.model.address import Address
    from prontodb.model.holder import Process, new_session_id
    from prontodb.session.door import Door

    await manager.create("agent/test")
    session = new_session_id(str(root), Address("agent", "test"))
    record = Holder(Process(os.getpid(), 1, "another boot", "vm"), "session", 1, session, "exclusive", 3)
    door = manager._live._door
    assert isinstance(door, Door)
    door._lifecycle.hold(Address("agent", "test"), "", holder=record).abandon()
    assert await manager.sessions() == []
    async with manager.session("agent", "test", wait=0) as ks:
        assert ks.epoch is not None


# Containers


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
async def test_a_session_in_a_container_excludes_us_and_its_pid_means_nothing_here(
    root: Path, manager: SessionManager
) -> None:
    """Fault 38: another pid namespace of the same kernel, where pids begin at 1 again."""
    await manager.create("agent/test")
    command = ["unshare", "-pf", "--mount-proc", sys.executable, "-c", HOLDER, str(root), "exclusive", "5"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        session = other.stdout.readline().strip()
        if not session:
            other.wait()
            pytest.skip("this machine gives no pid namespace")
        (found,) = await manager.sessions()
        assert (found.id, found.pid) == (session, 1)
        assert found.pid_namespace != process.ourselves().pid_namespace
        with pytest.raises(AddressBusyError, match=session):
            async with manager.session("agent", "test", wait=0):
                pass
        with pytest.raises(UnavailableError, match="pid namespace"):
            await manager.end_session(session, force=True, kill=True)
        await manager.end_session(session, force=True)
        other.stdin.write('ks.set("a", "late")\n')
        other.stdin.flush()
        assert other.stdout.readline() == "FencedError\n"
        other.stdin.close()
        other.wait(PATIENCE_S)
    assert await manager.sessions() == []

"""Logs of other keystores, lost logs, addresses moved under a handle, disks too full to read, and the wrong loop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from prontodb.engine.sqlite import opening
from prontodb.errors import AddressGoneError, ClosedError, CorruptError
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from tests.managing import PATIENCE_S, environment, keystore_at, managed, program, ran

KILLED = """
import asyncio, os, signal, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session(sys.argv[2]) as ks:
        for n in range(int(sys.argv[3])):
            await ks.set(f"k{n}", f"of {sys.argv[2]} " + "x" * 500)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def killed(root: Path, user: str, sets: int) -> Path:
    """Have a process write at USER/_default and die; return the keystore's path. Its log stays behind."""
    subprocess.run(program(KILLED, root, user, sets), env=environment(), timeout=PATIENCE_S, check=False)
    path = root / "addresses" / user / "_default" / "keystore.db"
    assert Path(f"{path}-wal").stat().st_size > 0
    return path


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (1, 300), (300, 1), (300, 300)])
async def test_the_log_of_another_keystore_is_never_played_in(root: Path, ours: int, theirs: int) -> None:
    async with managed(root) as manager, manager.session("a") as ks:
        for number in range(ours):
            await ks.set(f"mine{number}", "of a")
    other = killed(root, "b", theirs)
    mine = root / "addresses/a/_default/keystore.db"
    before = mine.read_bytes()
    shutil.copy(f"{other}-wal", f"{mine}-wal")
    os.chmod(f"{mine}-wal", 0o600)
    async with managed(root) as manager:
        with pytest.raises(CorruptError):
            async with manager.session("a") as ks:
                await ks.get("k0")
        report = await manager.doctor()
        assert [finding.level for finding in report.findings if "a/_default" in finding.what] == ["error"]
        async with manager.session("b") as ks:
            assert await ks.count() == theirs
    with pytest.raises(CorruptError):
        opening.open_reader(Layout(str(root)), Address("a"))
    assert mine.read_bytes() == before
    for ending in ("-wal", "-shm"):
        Path(f"{mine}{ending}").unlink(missing_ok=True)
    async with managed(root) as manager, manager.session("a") as ks:
        assert await ks.count() == ours


async def test_its_own_log_is_played_in_after_a_kill(root: Path) -> None:
    killed(root, "a", 300)
    async with managed(root) as manager, manager.session("a") as ks:
        assert await ks.count() == 300


async def test_a_log_that_was_taken_away_is_told_once(root: Path) -> None:
    path = killed(root, "a", 1)
    Path(f"{path}-wal").unlink()
    done = subprocess.run(
        [*program("import sys; from prontodb.cli.main import main; sys.exit(main(sys.argv[1:]))"),
         "--root", str(root), "--user", "a", "get", "k0"],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "keystore.db-wal' was taken away; what it held is lost" in done.stderr


async def test_a_handle_reads_nothing_of_the_address_that_its_file_became(root: Path) -> None:
    async with keystore_at(root) as ks:
        await ks.set("k", "of test")
        assert await ks.get("k") == "of test"
        (root / "addresses/agent/test").rename(root / "addresses/agent/moved")
        await anyio.sleep(0.06)  # a look costs a system call, so it is not taken for every read
        for _ in range(3):
            with pytest.raises(AddressGoneError):
                await ks.get("k")
        with pytest.raises(AddressGoneError):
            await ks.get_many([f"k{n}" for n in range(100)])


FULL = """
import asyncio, json, resource, signal, sys, prontodb
from prontodb.errors import ProntoError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    report = {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    async with prontodb.open(sys.argv[1]) as manager, manager.session("a", mode="shared") as ks:
        report["get"] = await ks.get("k")
        report["keys"] = await ks.list_keys()
        report["scan"] = [entry.value async for entry in ks.scan()]
        report["describe"] = (await manager.describe("a/_default")).entries
        try:
            await ks.set("k", "2")
        except ProntoError as error:
            report["set"] = type(error).__name__
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await ks.set("k", "2")
        report["after"] = await ks.get("k")
    print(json.dumps(report))
asyncio.run(main())
"""


async def test_on_a_disk_too_full_for_an_index_what_is_stored_can_be_read(root: Path) -> None:
    async with managed(root) as manager, manager.session("a") as ks:
        await ks.set("k", "1")
    assert json.loads(ran(FULL, root)) == {
        "get": "1", "keys": ["k"], "scan": ["1"], "describe": 1, "set": "StorageFullError", "after": "2",
    }  # fmt: skip


@pytest.mark.parametrize("call", ["get", "set", "list_keys", "addresses", "create", "increment"])
async def test_another_event_loop_is_told_that_this_is_not_its_manager(root: Path, call: str) -> None:
    async with managed(root) as manager, manager.session("agent", "test") as ks:
        await ks.set("k", "1")

        async def elsewhere() -> None:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "get": lambda: ks.get("k"),
                "set": lambda: ks.set("k", "2"),
                "list_keys": ks.list_keys,
                "addresses": manager.addresses,
                "create": lambda: manager.create("b"),
                "increment": lambda: ks.increment("n"),
            }
            await calls[call]()

        with pytest.raises(ClosedError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert await ks.get("k") == "1"
        assert await ks.set("k", "3") == 2

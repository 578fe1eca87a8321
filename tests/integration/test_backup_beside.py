"""Backups beside others: writers, other backups, cancellation and full disks; the source is never touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from prontodb.backup.create import BackupReport
from prontodb.errors import BusyError
from prontodb.model.address import Address
from tests.backups import Root, finished, image, state_at
from tests.checking import keystore_faults
from tests.managing import managed, ran, until
from tests.unit.stores import done

QUIET = ("locks", "backups", "jobs.db", "jobs.db-wal", "jobs.db-shm")
"""What a backup may write."""


@pytest.fixture
def shop(root: Path) -> Iterator[Root]:
    """A root with four addresses of two users."""
    opened = Root(root)
    for address in ("a/x", "a/y", "b/x", "b/z"):
        done(opened.at(address).set_many({f"k{n}": f"{address} {n}" for n in range(5)}))
    yield opened
    opened.close()


# Beside others


def test_an_idle_address_is_byte_for_byte_as_it_was(shop: Root) -> None:
    shop.full()
    shop.stores.close()
    before = image(shop.path, but=QUIET)
    assert shop.full().snapshots == 4
    assert shop.backup().unchanged == 4
    assert image(shop.path, but=QUIET) == before


def test_of_two_backups_at_once_one_is_told_that_the_other_runs(shop: Root) -> None:
    first = shop.work.backup(full=True)
    next(first)
    before = shop.states()
    with pytest.raises(BusyError, match="backup of all addresses"):
        shop.full()
    with pytest.raises(BusyError):
        finished(shop.work.prune())
    finished(first)
    assert len(shop.ids()) == 1
    assert shop.full().id in shop.ids()
    assert shop.states() == before


def test_a_backup_that_is_left_half_way_leaves_nothing(shop: Root) -> None:
    shop.full()
    before = image(shop.path / "backups")
    for steps in range(4):
        work = shop.work.backup(full=True)
        for _ in range(steps):
            next(work)
        work.close()
        assert image(shop.path / "backups") == before, steps
    assert shop.full().snapshots == 4


@pytest.mark.slow
async def test_it_waits_for_no_writer_and_no_writer_for_it(root: Path, tmp_path: Path) -> None:
    """An exclusive session, shared ones and many tasks write: what is restored is one instant of each address."""
    ended = False
    async with managed(root) as manager:

        async def write(user: str, mode: str, task: int) -> None:
            async with manager.session(user, "c", mode=mode) as keystore:
                begun.append(task)
                n = 0
                while not ended:
                    n += 1
                    async with keystore.transaction() as tx:
                        # In one commit: never one without the other.
                        tx.set(f"t{task}.left", str(n))
                        tx.set(f"t{task}.right", str(n))
                    if n % 5 == 0:
                        await keystore.delete(f"t{task}.left")

        begun: list[int] = []
        made: list[BackupReport] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, "own", "exclusive", 0)
            for task in range(1, 4):
                tasks.start_soon(write, "shared", "shared", task)
            await until(lambda: len(begun) == 4)
            for full in (True, False, False, False, True, False):
                made.append(await manager.backup(full=full))
            ended = True
        assert [report.failed for report in made] == [()] * 6
        assert (await manager.verify()).problems == ()
        for report in made:
            assert report.id is not None
            into = tmp_path / report.id
            await manager.restore(report.id, into=into)
            for name in ("own/c", "shared/c"):
                assert keystore_faults(str(into), Address.parse(name)) == []
                found = {row[0]: row[1] for row in state_at(into, name)["entries"]}
                for key, value in found.items():
                    other = found.get(key.replace("right", "left"))
                    assert other in (value, None)
                    assert other is not None or int(value) % 5 == 0


async def test_a_cancelled_backup_leaves_nothing_and_the_next_one_works(root: Path) -> None:
    async with managed(root) as manager:
        for name in ("x", "y", "z"):
            async with manager.session("a", name) as keystore:
                await keystore.set_many({f"k{n}": "v" * 1_000 for n in range(500)})
        for steps in range(2):
            with anyio.CancelScope() as scope:
                seen = 0

                def count(_: object, scope: anyio.CancelScope = scope, steps: int = steps) -> None:
                    nonlocal seen
                    seen += 1
                    if seen > steps:
                        scope.cancel()

                await manager.backup(progress=count)
            assert scope.cancelled_caught
            assert sorted(path.name for path in (root / "backups").rglob("*")) == [".backups.lock", "full"]
        assert (await manager.backup()).snapshots == 3
        assert (await manager.verify()).is_whole


# Full disks

FULL = """
import asyncio, json, resource, signal, sys, prontodb
from prontodb.errors import ProntoError, StorageFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    async with prontodb.open(sys.argv[1]) as manager:
        said = {}
        for size in map(int, sys.argv[3:]):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            try:
                await manager.backup(full=sys.argv[2] == "full")
                said[size] = "made"
            except ProntoError as error:
                full = isinstance(error, StorageFullError)
                said[size] = "StorageFullError" if full else type(error).__name__
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            said[f"{size} listed"] = len((await manager.backups()).backups)
        async with manager.session("a", "x") as ks:
            said["get"] = await ks.get("k1")
        said["after"] = (await manager.backup(full=True)).snapshots
        said["whole"] = (await manager.verify()).is_whole
    print(json.dumps(said))
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_on_a_full_disk_no_backup_is_listed_and_the_source_is_as_it_was(shop: Root, kind: str) -> None:
    shop.full()
    for begin in range(2):
        done(shop.at("a/x").set_many({f"big{begin}.{n}": os.urandom(500).hex() for n in range(150)}))
    shop.stores.close()
    before = shop.states()
    sizes = (0, 100, 5_000, 40_000)
    said = json.loads(ran(FULL, shop.path, kind, *sizes))
    assert {said[str(size)] for size in sizes} == {"StorageFullError"}
    assert {said[f"{size} listed"] for size in sizes} == {1}
    assert (said["get"], said["after"], said["whole"]) == ("a/x 1", 4, True)
    assert shop.states() == before
    assert list((shop.path / "backups").rglob(".tmp-*")) == []


@pytest.mark.slow
def test_a_disk_with_a_little_room_is_full_for_a_large_address(shop: Root) -> None:
    done(shop.at("a/x").set_many({f"big.{n}": os.urandom(500).hex() for n in range(150)}))
    shop.stores.close()
    said = json.loads(ran(FULL, shop.path, "full", 100_000))
    assert (said["100000"], said["100000 listed"]) == ("StorageFullError", 0)

"""migrate from an async program: beside open sessions, cancelled, with progress; and memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import prontodb
from prontodb.errors import InvalidSourceError
from prontodb.model.progress import Progress
from tests.managing import environment, managed
from tests.migrating import values
from tests.old_sources import SHARED, database, fingerprint, shared

ROWS = [("alice.work.ns.a", "1"), ("alice.work.ns.a", "2"), ("bob.home.ns.x", "3"), ("bad", "4")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return shared(tmp_path / "old.db", ROWS)


async def test_a_manager_migrates_and_its_handles_see_it(root: Path, tmp_path: Path, source: Path) -> None:
    seen: list[Progress] = []
    async with managed(root) as manager:
        async with manager.session("bob", "home") as keystore:
            await keystore.set("own", "x")
        report = await manager.migrate(source, progress=seen.append, report_to=tmp_path / "report.jsonl")
        assert (report.read, report.migrated, report.superseded, report.reported) == (4, 2, 1, 1)
        async with manager.session("bob", "home") as keystore:
            assert await keystore.get_many(["own", "ns.x"]) == {"own": "x", "ns.x": "3"}
        async with manager.session("alice", "work", mode="read") as keystore:
            assert await keystore.get("ns.a") == "2"
        assert [str(row.address) for row in await manager.addresses()] == ["alice/work", "bob/home"]
    assert [one.what for one in seen][-1] == ""
    assert (tmp_path / "report.jsonl").exists()


async def test_an_address_with_a_session_is_told_and_the_others_come_over(root: Path, source: Path) -> None:
    async with managed(root, wait_s=0.05) as manager:
        async with manager.session("bob", "home") as keystore:
            report = await manager.migrate(source)
            assert [address for address, _ in report.failed] == ["bob/home"]
            assert "session" in report.failed[0][1]
            await keystore.set("still", "mine")
        again = await manager.migrate(source, mapping={"alice.work": "alice/work"}, on_conflict="keep")
        assert (again.there, again.written) == (1, ("bob/home",))
    assert values(root, "bob/home") == {"still": "mine", "ns.x": "3"}


async def test_a_dry_run_of_a_manager_makes_nothing(root: Path, tmp_path: Path, source: Path) -> None:
    async with managed(root) as manager:
        report = await manager.migrate(source, dry_run=True)
        assert report.dry_run
        assert await manager.addresses() == []
        (tmp_path / "empty.db").touch()
        with pytest.raises(InvalidSourceError):
            await manager.migrate(tmp_path / "empty.db")


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
async def test_cancelled_it_leaves_whole_addresses_and_no_copies(
    root: Path, tmp_path: Path, source: Path, steps: int
) -> None:
    before, place = fingerprint(source), tmp_path / "scratch"
    place.mkdir()
    async with managed(root) as manager:
        with anyio.CancelScope() as scope:
            seen = 0

            def cancel(_: Progress) -> None:
                nonlocal seen
                seen += 1
                if seen == steps:
                    scope.cancel()

            await manager.migrate(source, progress=cancel, scratch=place)
        assert scope.cancelled_caught
        assert list(place.iterdir()) == []
        assert fingerprint(source) == before
        for address, expected in (("alice/work", {"ns.a": "2"}), ("bob/home", {"ns.x": "3"})):
            assert values(root, address) in ({}, expected)
        report = await manager.migrate(source)
        assert report.migrated == 2
    assert (values(root, "alice/work"), values(root, "bob/home")) == ({"ns.a": "2"}, {"ns.x": "3"})


def test_without_an_event_loop_it_is_the_same(root: Path, source: Path) -> None:
    with prontodb.blocking.open(root) as manager:
        assert manager.migrate(str(source)).migrated == 2
    assert values(root, "alice/work") == {"ns.a": "2"}


MEASURED = """
import sys
from prontodb.cli.main import main
from prontodb.migration import ledger
from prontodb.storage import connection
# Caches that small sources fill, too: what grows besides them is what is looked for.
ledger.CACHE_KIB = connection.CACHE_KIB = 512
assert main(["--root", sys.argv[1], "migrate", sys.argv[2], "--quiet"]) == 0
# Not ru_maxrss: a child begins with what its parent has of that.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


def peak_kib(root: Path, source: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(root), str(source)], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.strip().splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    peaks = []
    for rows in (60_000, 200_000):
        path = tmp_path / f"{rows}.db"
        with database(path, SHARED) as connection:
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO kvstore "
                # Half of it is one counter, which the old program never replaced.
                "SELECT i, CASE WHEN i % 2 THEN 'agent0.prod.ns.counter' "
                "ELSE 'agent' || (i % 5) || '.prod.ns.key' || i END, 'value ' || i, 0, i FROM n",
                (rows,),
            ).close()
        peaks.append(peak_kib(tmp_path / f"root{rows}", path))
    # 140,000 more rows, in memory, would take 100 bytes each at the very least: 13 MiB.
    assert peaks[1] - peaks[0] < 8 * 1024, peaks
    assert values(tmp_path / "root200000", "agent0/prod")["ns.counter"] == "value 199999"

"""Lock files and the registry deleted by hand: those that sessions hold, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from stress.faults.fault import LiveAgent
from stress.faults.removed import Locks, Registry
from tests.managing import managed
from tests.unit.stress.fields import ground_at

NOBODY = LiveAgent(process="agent01-1", pid=0)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_lock_files_of_sessions_are_deleted_one_at_a_time_and_no_others(tmp_path: Path) -> None:
    with ground_at(tmp_path, NOBODY) as ground:
        async with (
            managed(ground.root) as manager,
            manager.session("agent", "one"),
            manager.session("agent", "two", mode="shared") as shared,
        ):
            locks, chance = ground.root / "registry/locks", Random(1)
            before = files_of(locks)
            held = {"agent@one/address.lock", "agent@two/address.lock"}
            held |= {name for name in before if name.startswith("agent@two/s-")}
            assert len(held) == 3
            gone: set[str] = set()
            for count in range(1, 4):
                await Locks().make(ground, chance)
                gone = before - files_of(locks)
                assert len(gone) == count
            assert gone == held
            await Locks().make(ground, chance)
            assert before - files_of(locks) == held
            assert not shared.closed
        assert [(target, lasts) for _, target, _, lasts in ground.announced].count(("agent/two", False)) == 2
        assert len(ground.announced) == 3


async def test_the_databases_of_the_registry_are_deleted_and_the_locks_stay(tmp_path: Path) -> None:
    with ground_at(tmp_path, NOBODY) as ground:
        async with managed(ground.root) as manager, manager.session("agent", "one") as keystore:
            registry = ground.root / "registry"
            before = files_of(registry)
            await Registry().make(ground, Random(1))
            gone = before - files_of(registry)
            assert {os.path.splitext(name)[1] for name in gone} <= {".db", ".db-wal", ".db-shm"}
            assert {"active_sessions.db", "address_registry.db"} <= gone
            assert "locks/agent@one/address.lock" in files_of(registry)
            await keystore.set("a", "1")
        assert [target for _, target, _, _ in ground.announced] == ["registry"]

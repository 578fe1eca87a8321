"""Many processes at once: counters end where they must, a new root has one layout, readers are never disturbed."""

import os
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from prontodb.direct import OneShot, run
from prontodb.engine.sqlite import folders
from prontodb.model.layout import Layout
from prontodb.registry.addresses import AddressRegistry
from tests.checking import root_faults
from tests.crash import tracing, worker

pytestmark = pytest.mark.crash

SEED = 20_240_610
CLIMBERS, RAISES, KILLS = 8, 12, 4

CLIMB = """
import os, sys
from prontodb.direct import OneShot, run
from prontodb.errors import BusyError
from tests.crash.worker import HOME
done = 0
while done < int(sys.argv[2]):
    try:
        with OneShot(sys.argv[1], HOME) as ks:
            run(ks.increment("count"))
    except BusyError:
        continue
    done += 1
    os.write(1, b"+")
"""

READ = """
import sys
from prontodb.direct import OneShot, run
from tests.crash.worker import HOME
seen, rounds = 0, 0
while seen < int(sys.argv[2]):
    with OneShot(sys.argv[1], HOME) as ks:
        found = int(run(ks.get("count")) or 0)
        assert found >= seen, (found, seen)
        assert run(ks.count()) in (0, 1)
    seen, rounds = found, rounds + 1
print(rounds)
"""

START = """
import sys
from prontodb.direct import OneShot, run
from prontodb.model.address import Address
user, cursor, key = sys.argv[2:]
with OneShot(sys.argv[1], Address(user, cursor)) as ks:
    run(ks.set(key, key))
    assert run(ks.get(key)) == key
"""


MANAGED = """
import sys
import anyio
import prontodb
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "home") as ks:
        async def write(name):
            number = int(await ks.get(name) or 0)
            while True:
                number += 1
                async with ks.transaction() as tx:
                    tx.set(name, str(number))
                    tx.set(name + "-twin", str(number))
                sys.stdout.write(f"{name} {number}\\n")
                sys.stdout.flush()
        async with anyio.create_task_group() as tasks:
            for i in range(5):
                tasks.start_soon(write, f"w{i}")
anyio.run(main)
"""


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=tracing.environment(),
    )


def finished(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for a process that must end well; return what it said."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    return out


def test_a_counter_raised_by_many_processes_ends_at_what_was_acknowledged(root: Path) -> None:
    print(f"seed {SEED}")
    climbers = [start(CLIMB, str(root), str(RAISES)) for _ in range(CLIMBERS - 1)]
    reader = start(READ, str(root), str(RAISES * (CLIMBERS - 1)))
    killed = killed_climbers(root)
    acknowledged = sum(finished(process).count(b"+") for process in climbers) + killed
    assert int(finished(reader)) > 0
    with OneShot(str(root), worker.HOME) as keystore:
        found = int(run(keystore.get("count")))
    # Each killed process may have died between its commit and its acknowledgement, at most once.
    assert acknowledged <= found <= acknowledged + KILLS
    assert root_faults(str(root)) == []


def killed_climbers(root: Path) -> int:
    """Start a climber and kill it after a few raises, again and again; return how many it acknowledged."""
    chance, acknowledged = random.Random(SEED), 0
    for _ in range(KILLS):
        process = start(CLIMB, str(root), "1000")
        assert process.stdout is not None
        for _ in range(chance.randint(1, 4)):
            assert process.stdout.read(1) == b"+", process.communicate()
            acknowledged += 1
        # An instant in the middle of an operation: while it works, its end of the pipe is silent.
        select.select([process.stdout], [], [], chance.random() * 0.02)
        process.kill()
        acknowledged += process.communicate()[0].count(b"+")
    return acknowledged


def test_a_hundred_processes_starting_at_once_on_a_new_root_make_one_layout(tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    wanted = [(f"agent{i % 5}", f"c{i % 10}", f"key{i}") for i in range(100)]
    processes = [start(START, str(root), *names) for names in wanted]
    failures = [err.decode() for err in (process.communicate(timeout=300)[1] for process in processes) if err]
    assert failures == []
    assert [process.returncode for process in processes] == [0] * 100
    addresses = folders.listed(Layout(str(root)))
    assert Counter((address.user, address.cursor) for address in addresses) == Counter({n[:2] for n in wanted})
    for address in addresses:
        with OneShot(str(root), address) as keystore:
            assert set(run(keystore.list_keys())) == {
                key for user, cursor, key in wanted if (user, cursor) == (address.user, address.cursor)
            }
    rows = AddressRegistry(Layout(str(root)), wait_s=5, one_shot=True).rows()
    assert {row.address for row in rows} == set(addresses)
    assert {row.state for row in rows} == {"active"}
    assert sorted(os.listdir(root / "registry")) == [".reserve", "address_registry.db", "locks"]
    assert root_faults(str(root)) == []


def test_a_manager_killed_at_any_instant_has_lost_nothing_it_acknowledged(root: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(4):
        process = start(MANAGED, str(root))
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randint(1, 40))]
        select.select([process.stdout], [], [], chance.random() * 0.003)
        process.kill()
        # The last line may have been cut off by the kill.
        lines += process.communicate()[0].splitlines(keepends=True)
        acknowledged = dict(line.decode().split() for line in lines if line.endswith(b"\n"))
        assert acknowledged
        with OneShot(str(root), worker.HOME) as keystore:
            found = {name: run(keystore.get(name)) for name in acknowledged}
            twins = {name: run(keystore.get(f"{name}-twin")) for name in acknowledged}
        assert found == twins
        assert [name for name in acknowledged if int(found[name]) < int(acknowledged[name])] == []
    assert root_faults(str(root)) == []

"""Whole roots after a kill -9 at any step, a lost registry, a full disk: the next command or the doctor heals them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prontodb.doctor import examine
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests import encrypted
from tests.checking import root_faults
from tests.parts import Parts, fill, value
from tests.roots import CHECKOUT, as_root, python

KILL = """
import os, signal, sys
from prontodb.engine.sqlite import lifecycle
from prontodb.model.address import Address
from tests.parts import Parts
root, step, work = sys.argv[1:4]

def kill(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)

lifecycle.FAILPOINT.append(kill)
changes = Parts(root).lifecycle
if work == "create":
    changes.create(Address("agent1", "new"))
elif work == "rename":
    changes.rename(Address("agent1", "prod"), Address("agent3", "moved"))
else:
    changes.delete(Address("agent1", "prod"))
"""

STEPS = [
    ("create", "create.staged", {"agent1/prod", "agent2/test"}),
    ("create", "create.published", {"agent1/new", "agent1/prod", "agent2/test"}),
    ("create", "create.registered", {"agent1/new", "agent1/prod", "agent2/test"}),
    ("rename", "rename.marked", {"agent1/prod", "agent2/test"}),
    ("rename", "rename.moved", {"agent2/test", "agent3/moved"}),
    ("rename", "rename.registered", {"agent2/test", "agent3/moved"}),
    ("delete", "delete.marked", {"agent1/prod", "agent2/test"}),
    ("delete", "delete.moved", {"agent2/test"}),
    ("delete", "delete.forgotten", {"agent2/test"}),
    ("delete", "delete.emptied", {"agent2/test"}),
]


@pytest.fixture
def filled(root: Path) -> Path:
    fill(root, "agent1/prod", {"k": "one"})
    fill(root, "agent2/test", {"k": "two"})
    return root


def visit(root: Path, *, repair: bool = False) -> list[str]:
    report = examine(Layout(str(root)), Limits(wait_s=5), Clock(), deep=True, repair=repair)
    return [f"{finding.level}: {finding.what}; {finding.fix}" for finding in report.findings]


def kill_at(root: Path, work: str, step: str) -> None:
    assert python(KILL, root, step, work).returncode == -signal.SIGKILL


@pytest.mark.crash
@pytest.mark.parametrize(("work", "step", "expected"), STEPS)
def test_after_a_kill_at_any_step_the_list_heals_and_nothing_is_left(
    filled: Path, work: str, step: str, expected: set[str]
) -> None:
    kill_at(filled, work, step)
    # No lock outlives its holder, so the first look heals.
    assert Parts(filled).listed() == dict.fromkeys(sorted(expected), "active")
    # A key record of an encrypted address is settled by the doctor alone.
    records = [line for line in visit(filled) if encrypted.is_on() and "too: a rename was killed" in line]
    assert visit(filled) == records
    assert root_faults(str(filled)) == []
    kept = {name: value(filled, name, "k") for name in expected - {"agent1/new"}}
    assert kept == {name: "two" if name == "agent2/test" else "one" for name in kept}


@pytest.mark.crash
@pytest.mark.parametrize(("work", "step", "expected"), STEPS)
def test_after_a_kill_at_any_step_the_doctor_names_what_it_then_heals(
    filled: Path, work: str, step: str, expected: set[str]
) -> None:
    kill_at(filled, work, step)
    named = visit(filled)
    assert all("prontodb doctor --repair" in line for line in named), named
    assert visit(filled, repair=True) == []
    assert visit(filled) == []
    assert root_faults(str(filled)) == []
    assert set(Parts(filled).listed()) == expected


def test_deleting_the_whole_registry_loses_no_value_and_one_repair_brings_the_same_list_back(
    filled: Path,
) -> None:
    before = Parts(filled).book.list()
    shutil.rmtree(filled / "registry")
    assert (value(filled, "agent1/prod", "k"), value(filled, "agent2/test", "k")) == ("one", "two")
    assert len(visit(filled)) == 1
    assert visit(filled, repair=True) == []
    assert visit(filled) == []
    assert Parts(filled).book.list() == before


def test_values_are_written_while_the_registry_is_garbage(filled: Path) -> None:
    (filled / "registry" / "address_registry.db").write_bytes(b"garbage" * 1_000)
    fill(filled, "agent1/prod", {"k": "changed"})
    fill(filled, "agent4/made", {"k": "four"})
    assert set(Parts(filled).listed()) == {"agent1/prod", "agent2/test", "agent4/made"}
    assert value(filled, "agent1/prod", "k") == "changed"


@pytest.mark.plain("an encrypted one whose metadata is gone lacks a key, for all that anybody can tell")
def test_one_damaged_address_stops_no_other(filled: Path) -> None:
    for name in ("keystore.db", "metadata.json"):
        (filled / "addresses" / "agent1" / "prod" / name).write_bytes(b"\xff" * 9_999)
    fill(filled, "agent2/test", {"k": "still written"})
    fill(filled, "agent3/made", {"k": "still made"})
    assert set(Parts(filled).listed().values()) == {"active"}
    assert all(line.startswith("error: agent1/prod: ") for line in visit(filled, repair=True))
    assert Parts(filled).lifecycle.delete(Address("agent1", "prod"))
    assert visit(filled) == []


FULL_DISK = """
import json, os, shutil, sys
from prontodb.doctor import examine
from prontodb.errors import StorageFullError
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.parts import Parts, fill, value

root = sys.argv[1] + "/root"
fill(root, "agent1/prod", {"k": "v"})
look = lambda repair: examine(Layout(root), Limits(), Clock(), repair=repair)
look(True)
assert os.path.getsize(root + "/registry/.reserve") == 2**20
os.remove(root + "/registry/address_registry.db")
filler = os.open(sys.argv[1] + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(filler, bytes(4096)):
        continue
except OSError:
    os.close(filler)
refused = False
try:
    fill(root, "agent2/test", {"k": "v"})
except StorageFullError:
    refused = True
full = look(False)
repaired = look(True)
reserve = os.path.exists(root + "/registry/.reserve")
listed, read = Parts(root).listed(), value(root, "agent1/prod", "k")
os.remove(sys.argv[1] + "/filler")
again = look(True)
print(json.dumps({
    "refused": refused, "full": full.as_dict(), "repaired": repaired.as_dict(), "reserve": reserve,
    "listed": listed, "read": read, "again": again.as_dict(),
}))
"""


def on_a_small_disk(place: Path, program: str, *arguments: str) -> Any:
    """Run a program over a disk of 3 MiB at `place`, its first argument; return what it prints, as JSON."""
    mount = f'mount -t tmpfs -o size=3m,mode=700 none "{place}" && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, sys.executable, "-c", program, str(place), *arguments],
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("no mount namespaces here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@as_root
def test_on_a_full_disk_the_doctor_repairs_in_the_room_of_its_reserve(tmp_path: Path) -> None:
    answer = on_a_small_disk(tmp_path, FULL_DISK)
    assert answer["refused"]
    assert answer["full"]["level"] == "error"  # the disk is full, and the registry is gone
    assert any("registry" in line for line in answer["repaired"]["repaired"])
    assert not any("registry disagrees" in finding["what"] for finding in answer["repaired"]["findings"])
    assert answer["listed"] == {"agent1/prod": "active"}
    assert answer["read"] == "v"
    assert answer["again"]["findings"] == [
        # Two MiB are few, and that is all there is to say.
        finding
        for finding in answer["again"]["findings"]
        if finding["level"] == "warning" and "are left on the root's disk" in finding["what"]
    ]
    assert any("reserve" in line for line in answer["again"]["repaired"])


FULL_CLEANUP = """
import asyncio, json, os, sys, prontodb
from prontodb.errors import StorageFullError
from tests.parts import fill

root, way = sys.argv[1] + "/root", sys.argv[2]
reserve = root + "/registry/.reserve"
async def main():
    report = {}
    async with prontodb.open(root) as manager, manager.session("agent1", "prod") as ks:
        await ks.set_many({f"k{n}": "x" * 1_000 for n in range(300)})
        report["reserve"] = [os.path.exists(reserve)]
        if way == "shell":
            await manager.create("agent2/test")
    async with prontodb.open(root) as manager, manager.session("agent1", "prod") as ks:
        if way == "session":
            await ks.set("a", "1")
        filler = os.open(sys.argv[1] + "/filler", os.O_WRONLY | os.O_CREAT)
        for size in (4096, 1):
            try:
                while os.write(filler, bytes(size)):
                    continue
            except OSError:
                pass
        os.close(filler)
        if way == "session":
            try:
                for n in range(300):
                    await ks.set(f"more{n}", "y" * 1_000)
            except StorageFullError:
                report["refused"] = True
            report["deleted"] = await ks.delete_many([f"k{n}" for n in range(300)])
    if way == "shell":
        from prontodb.cli.main import main as command
        place = ["--root", root, "--user", "agent1", "--cursor", "prod"]
        report["refused"] = command([*place, "set", "b", "y" * 100_000]) == 1
        report["deleted"] = 300 * (command([*place, "del", "k1"]) == 0)
    os.remove(sys.argv[1] + "/filler")
    async with prontodb.open(root) as manager, manager.session("agent1", "prod") as ks:
        report["k1"] = await ks.get("k1")
        await manager.create("agent3/later")
        report["reserve"].append(os.path.exists(reserve))
    print(json.dumps(report))
asyncio.run(main())
"""


@as_root
@pytest.mark.parametrize("way", ["session", "shell"])
def test_on_a_full_disk_deleting_works_in_the_room_of_the_reserve(tmp_path: Path, way: str) -> None:
    answer = on_a_small_disk(tmp_path, FULL_CLEANUP, way)
    assert answer == {"reserve": [True, True], "refused": True, "deleted": 300, "k1": None}

"""The reserve: spent by a repair that finds no room beside it, and made again when there is some."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.model.layout import Layout
from prontodb.storage import reserve
from tests.roots import CHECKOUT, as_root
from tests.unit.doctor.visiting import found, only, visit


@contextmanager
def room(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow past a size, as a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def inode(root: Path) -> int | None:
    path = root / "registry" / ".reserve"
    return path.stat().st_ino if path.exists() else None


def test_a_repair_with_room_leaves_the_reserve_alone(filled: Path) -> None:
    visit(filled, repair=True)
    before = inode(filled)
    assert visit(filled, repair=True).repaired == ()
    assert inode(filled) == before
    assert found(filled) == []


def test_a_repair_without_room_spends_the_reserve_and_the_next_makes_it_again(filled: Path) -> None:
    visit(filled, repair=True)
    with room(500_000):
        assert found(filled) == []
        assert inode(filled) is not None
        assert "reserve" in only(visit(filled, repair=True).findings).what
    assert inode(filled) is None
    assert visit(filled, repair=True).findings == ()
    assert inode(filled) is not None


def test_a_look_at_room_leaves_nothing_behind(filled: Path) -> None:
    layout = Layout(str(filled))
    assert not reserve.spend_if_full(layout)
    visit(filled, repair=True)
    before = sorted(os.listdir(filled / "registry"))
    assert not reserve.spend_if_full(layout)
    assert sorted(os.listdir(filled / "registry")) == before
    with room(500_000):
        assert reserve.spend_if_full(layout)
    assert sorted(os.listdir(filled / "registry")) == [name for name in before if name != ".reserve"]
    assert not reserve.spend(layout)


FULL_DISK = """
import json, os, sys
from prontodb.doctor import examine
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.parts import fill

root = sys.argv[1] + "/root"
fill(root, "agent1/prod", {"k": "v"})
examine(Layout(root), Limits(), Clock(), repair=True)
filler = os.open(sys.argv[1] + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(filler, bytes(4096)):
        continue
except OSError:
    os.close(filler)
os.mkdir(root + "/addresses/agent1/.trash-gone@a1", 0o700)
report = examine(Layout(root), Limits(), Clock(), repair=True).as_dict()
os.remove(sys.argv[1] + "/filler")
again = examine(Layout(root), Limits(), Clock(), repair=True).as_dict()
print(json.dumps([report, again]))
"""


@as_root
def test_on_a_full_disk_every_step_of_a_repair_works_in_the_room_of_the_reserve(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=3m,mode=700 none "{tmp_path}" && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("no mount namespaces here")
    assert done.returncode == 0, done.stderr
    full, again = json.loads(done.stdout)
    assert "left on the root's disk" in full["findings"][0]["what"]
    # What was mended took some of the room.
    assert ["reserve" in finding["what"] for finding in full["findings"][1:]] == [True]
    assert ["removed agent1/.trash-gone@a1" in line for line in full["repaired"]] == [True]
    assert ["made the reserve" in line for line in again["repaired"]] == [True]

"""A file system of its own that has no room while the fault lasts; in a process of its own, for its mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stress.faults.disk import FullDisk
from tests.unit.stress.fields import CHECKOUT, PATIENCE_S

FILLED = """
import anyio, errno, json, os, sys
from pathlib import Path
from random import Random
from stress.faults.disk import FullDisk
from stress.faults.fault import LiveAgent
from tests.unit.stress.fields import ground_at
place, report = Path(sys.argv[1]), {}
LONG = 2  # a seed whose first number is near the end of its range

def tried(fd):
    try:
        return os.pwrite(fd, b"x" * 8192, os.fstat(fd).st_size)
    except OSError as error:
        return errno.errorcode[error.errno]

async def main():
    fault = FullDisk()
    with ground_at(place, LiveAgent(process="agent01-1", pid=0), limit_s=0.15) as ground:
        await fault.make(ground, Random(1))
        report["unprepared"] = list(ground.announced)
        fault.prepare(ground.root, place)
        here = os.open(ground.root / "here", os.O_RDWR | os.O_CREAT)
        report["before"], report["mode"] = tried(here), oct(os.stat(ground.root).st_mode)
        await fault.make(ground, Random(1))
        report["after"] = tried(here)
        ground.limit_s = 100
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fault.make, ground, Random(LONG))
            while tried(here) == 8192:
                await anyio.sleep(0.005)
            report["during"], report["read"] = tried(here), len(os.pread(here, 10, 0))
            os.ftruncate(here, 8192)
            await anyio.sleep(0.05)
            report["freed"] = tried(here)
            tasks.cancel_scope.cancel()
        report["cancelled"] = tried(here)
        os.close(here)
        fault.finish()
        report["kept"] = os.listdir(ground.root)
        fault.release()
        report["released"] = os.listdir(ground.root)
anyio.run(main)
print(json.dumps(report))
"""


def test_there_is_no_room_while_it_lasts_and_room_again_after_it(tmp_path: Path) -> None:
    if (why := FullDisk().why_not()) is not None:
        pytest.skip(why)
    done = run(FILLED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "unprepared": [],
        "before": 8192,
        "mode": "0o40700",
        "during": "ENOSPC",
        "read": 10,
        "freed": "ENOSPC",
        "after": 8192,
        "cancelled": 8192,
        "kept": ["here"],
        "released": [],
    }
    assert list((tmp_path / "root").iterdir()) == [], "nobody else has seen it"


def run(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "before there are others"),
        ("(root / 'file').touch()", "not empty"),
    ],
)
def test_where_it_cannot_be_mounted_it_says_why(first: str, said: str, tmp_path: Path) -> None:
    text = "import sys, threading; from pathlib import Path; from stress.faults.disk import FullDisk"
    done = run(f"{text}\nroot = Path(sys.argv[1])\n{first}\nFullDisk().prepare(root, root)", tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stress.faults.mounts.MountError")
    assert said in last


def test_there_is_room_for_an_hour() -> None:
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    assert FullDisk()._size_bytes >= half

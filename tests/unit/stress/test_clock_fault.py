"""The wall clock of a child jumps and comes back; its other clocks, its waits and its files know nothing of it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from random import Random

import anyio
import pytest

from stress.faults import clock
from stress.faults.clock import Clock
from stress.faults.fault import LiveAgent
from tests.unit.stress.fields import PATIENCE_S, agent_of, child, ground_at, until

pytestmark = pytest.mark.skipif(Clock().why_not() is not None, reason=str(Clock().why_not()))

LONG = 2
"""A seed whose fault lasts long."""

# Waits in many ways, then says by how many hours each clock, and the time of a new file, is ahead of where it began.
CLOCKS = """
import asyncio, os, sys, threading, time
def now():
    with open(sys.argv[1], "w") as file:
        mtime = os.fstat(file.fileno()).st_mtime
    return time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), mtime
began = now()
print("ready", flush=True)
for _ in iter(sys.stdin.readline, ""):
    time.sleep(0.01)
    threading.Event().wait(0.01)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=0.01)
    asyncio.run(asyncio.wait_for(asyncio.sleep(0.01), 5))
    print(*(round((at - then) / 3600) for at, then in zip(now(), began)), flush=True)
"""


def asked(started: subprocess.Popen[str]) -> list[int]:
    """What a child says of its clocks: the wall clock, then three that are to be real."""
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.write("\n")
    started.stdin.flush()
    return [int(word) for word in started.stdout.readline().split()]


@pytest.mark.parametrize("jump", [*clock.JUMPS, clock.TO_1970])
async def test_the_wall_clock_jumps_and_no_other(jump: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offset_s = clock.JUMPS.get(jump, clock.DAY_S - time.time())
    monkeypatch.setattr(clock, "JUMPS", {jump: offset_s} if jump in clock.JUMPS else {})
    monkeypatch.setattr(clock, "TO_1970", jump)
    fault = Clock()
    with ground_at(tmp_path, limit_s=100.0) as ground:
        environment = fault.prepare(ground.root, tmp_path / "place")
        with child(CLOCKS, str(tmp_path / "file"), **environment) as started:
            ground.everybody.append(agent_of(started))
            assert asked(started) == [0, 0, 0, 0]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fault.make, ground, Random(LONG))
                await until(lambda: len(ground.announced))
                assert asked(started) == [round(offset_s / 3_600), 0, 0, 0]
                tasks.cancel_scope.cancel()
            assert asked(started) == [0, 0, 0, 0]
        fault.finish()


async def test_a_jump_ends_by_itself(tmp_path: Path) -> None:
    fault = Clock()
    with ground_at(tmp_path, limit_s=0.01) as ground:
        environment = fault.prepare(ground.root, tmp_path / "place")
        ground.everybody.append(LiveAgent(process="agent01-1", pid=0))
        await fault.make(ground, Random(LONG))
        assert Path(environment["FAKETIME_TIMESTAMP_FILE"]).read_text() == "+0\n"
        assert ground.ended == ["clock"]


def test_nothing_stays_of_a_child_that_was_killed(tmp_path: Path) -> None:
    fault, shared = Clock(), Path("/dev/shm")
    environment = fault.prepare(tmp_path, tmp_path / "place")
    with child(CLOCKS, str(tmp_path / "file"), **environment) as started:
        assert asked(started) == [0, 0, 0, 0]
        assert list(shared.glob(f"*faketime*_{started.pid}"))
    assert started.wait(PATIENCE_S) == -signal.SIGKILL
    fault.finish()
    assert not list(shared.glob(f"*faketime*_{started.pid}"))


def test_where_the_library_is_not_installed_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(clock.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    clock._why_no_faketime.cache_clear()
    try:
        assert "not installed" in str(Clock().why_not())
    finally:
        clock._why_no_faketime.cache_clear()

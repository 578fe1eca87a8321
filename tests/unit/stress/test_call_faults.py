"""System calls of a running child fail while the fault lasts, and succeed before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from stress.faults import calls
from stress.faults.calls import FAILING, FailingWrites, Injection, ReadOnly
from tests.unit.stress.fields import PATIENCE_S, FakeField, agent_of, child, ground_at, until

pytestmark = pytest.mark.skipif(calls.why_no_strace() is not None, reason=str(calls.why_no_strace()))

# Two threads write until they are told to end and a write succeeds; each says what came of it, when that changes. Each
# has written once before anybody is told that it is ready.
WRITE = """
import os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
ended, begun = threading.Event(), threading.Barrier(3)
def work(place):
    os.pwrite(fd, b"x", place)
    os.fdatasync(fd)
    said = outcome = "ok"
    begun.wait()
    while not (ended.is_set() and outcome == "ok"):
        try:
            os.pwrite(fd, b"x", place)
            os.fdatasync(fd)
            outcome = "ok"
        except OSError as error:
            outcome = os.strerror(error.errno)
        if outcome != said:
            os.write(1, f"{place} {outcome}\\n".encode())
            said = outcome
        time.sleep(0.001)
threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
for thread in threads: thread.start()
begun.wait()
print("ready", flush=True)
sys.stdin.read()
ended.set()
for thread in threads: thread.join()
"""
LETTING_GO = "Function not implemented"
"""What a call fails with that is under way while strace lets go."""


def outcomes_of(started: subprocess.Popen[str]) -> dict[str, list[str]]:
    """What each thread has said, but for what failed while strace let go."""
    said = started.communicate(timeout=PATIENCE_S)[0]
    assert started.returncode == 0
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        place, _, outcome = line.partition(" ")
        if outcome != LETTING_GO:
            found.setdefault(place, []).append(outcome)
    return found


def ground_with(started: subprocess.Popen[str], ground: FakeField) -> FakeField:
    ground.everybody.append(agent_of(started))
    return ground


@pytest.mark.parametrize(
    ("fault", "injection", "error"),
    [(FailingWrites, injection, "Input/output error") for injection in FAILING]
    + [(ReadOnly, calls.READ_ONLY, "Read-only file system")],
    ids=lambda value: value.text if isinstance(value, Injection) else "",
)
async def test_calls_fail_in_every_thread_while_it_lasts_and_not_after(
    fault: type[FailingWrites | ReadOnly],
    injection: Injection,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "FAILING", (injection,))
    with ground_at(tmp_path) as ground, child(WRITE, str(tmp_path / "file")) as started:
        await fault().make(ground_with(started, ground), Random(1))
        assert traced_by(started.pid) == 0
        found = outcomes_of(started)
        assert found.keys() == {"0", "1"}
        for outcomes in found.values():
            assert outcomes[-1] == "ok"
            assert error in outcomes
        assert ground.announced[0][2].startswith(injection.text)


def traced_by(pid: int) -> int:
    """The pid of whoever traces a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("TracerPid:")[2].split()[0])


async def test_strace_lets_go_when_the_run_is_cancelled_in_the_middle(tmp_path: Path) -> None:
    with ground_at(tmp_path, limit_s=100.0) as ground, child(WRITE, str(tmp_path / "file")) as started:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(FailingWrites().make, ground_with(started, ground), Random(1))
            strace = await until(lambda: traced_by(started.pid))
            tasks.cancel_scope.cancel()
        assert traced_by(started.pid) == 0
        assert not Path(f"/proc/{strace}").exists()
        assert all(outcomes[-1] == "ok" for outcomes in outcomes_of(started).values())


async def test_strace_lets_go_when_the_run_is_cancelled_as_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    open_process = anyio.open_process

    async def cancelled(*arguments: Any, **pipes: Any) -> Any:
        tasks.cancel_scope.cancel()
        process = await open_process(*arguments, **pipes)
        opened.append(process.pid)
        return process

    monkeypatch.setattr(anyio, "open_process", cancelled)
    with ground_at(tmp_path, limit_s=100.0) as ground, child(WRITE, str(tmp_path / "file")) as started:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(FailingWrites().make, ground_with(started, ground), Random(1))
        assert traced_by(started.pid) == 0
        assert [Path(f"/proc/{pid}").exists() for pid in opened] == [False], "it was waited for"
        outcomes_of(started)


async def test_an_agent_that_dies_under_strace_is_no_error(tmp_path: Path) -> None:
    with ground_at(tmp_path, limit_s=0.3) as ground, child(WRITE, str(tmp_path / "file")) as started:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(FailingWrites().make, ground_with(started, ground), Random(1))
            await until(lambda: traced_by(started.pid))
            started.kill()
        assert ground.ended == ["failing-writes"]

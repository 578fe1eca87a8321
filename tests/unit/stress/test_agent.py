"""An agent process hears its parent at any time, and ends: with it, on order, or because it hung."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio
import pytest

from stress import agent
from stress.aftermath import Aftermath, Ending
from stress.checks import endings
from stress.fleet import Agent, Fleet, Past
from stress.history import Recorder
from stress.work import Orders
from tests.unit.stress.fields import CHECKOUT, PATIENCE_S
from tests.unit.stress.made import Made, judge, only

LISTENS = """
import sys, time
from random import Random
from stress import agent
from stress.work import Orders, Work
history, left_s, agent.GRACE_S = sys.argv[1], float(sys.argv[2]), 0.0
work = Work(Orders(scenario="ttl", process="agent000-1", number=0, agents=1, addresses=1, seed=1, root="",
                   history=history, operations=1, size_bytes=1, breaks=[]), None, Random(1))
work.until_ns = time.monotonic_ns() + int(left_s * 1e9)
agent.Listener(work).start()

def an_operation_that_never_returns():
    while not work.cancels_until_ns:
        time.sleep(0.01)
    print(work.cancels_until_ns > time.monotonic_ns() + 50e9, flush=True)
    time.sleep(1_000)

an_operation_that_never_returns()
"""
LONG_S, NONE_S = "900", "-1"


def listening(folder: Path, left_s: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return python("-c", LISTENS, str(folder / "agent000-1.jsonl"), left_s)


@contextmanager
def python(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python; it is killed when the block is left."""
    with subprocess.Popen(
        [sys.executable, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)},
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def told(started: subprocess.Popen[str], text: str) -> None:
    assert started.stdin is not None
    started.stdin.write(text)
    started.stdin.flush()


@pytest.mark.slow
def test_an_agent_that_hangs_is_ended_by_its_watchdog_and_reported(tmp_path: Path) -> None:
    with listening(tmp_path, NONE_S) as hung:
        assert hung.stderr is not None
        words = hung.stderr.read()  # its stdin stays open: nobody else ends it
        assert hung.wait(PATIENCE_S) == agent.HUNG == endings.HUNG
    assert words.startswith("agent000-1 did not end; where it stands:\n")
    assert "in an_operation_that_never_returns" in words
    ending = Ending(process="agent000-1", code=hung.returncode, was_meant=False, last_words=words)
    violation = only(judge(endings.check, Made(), Aftermath(endings=[ending])))
    assert violation.text == "agent000-1 never ended: an operation of it did not return"


def test_an_agent_ends_when_its_parent_is_heard_no_more(tmp_path: Path) -> None:
    with listening(tmp_path, LONG_S) as orphan:
        assert orphan.communicate("", PATIENCE_S) == ("", "")
        assert orphan.returncode == agent.ORPHANED


def test_orders_are_obeyed_however_they_are_cut(tmp_path: Path) -> None:
    cancel, abandon = '{"do": "cancel", "for_s": 60}\n', '{"do": "abandon"}\n'
    with listening(tmp_path, LONG_S) as obedient:
        assert obedient.stdout is not None
        told(obedient, cancel[:9])
        told(obedient, cancel[9:] + abandon[:5])
        assert obedient.stdout.readline() == "True\n"
        told(obedient, abandon[5:])
        assert obedient.wait(PATIENCE_S) == 0


def test_what_follows_a_line_is_left_for_whoever_reads_next() -> None:
    program = "from stress.agent import heard; import os; print(heard(), heard(), os.read(0, 999).decode().strip())"
    with python("-c", program) as reader:
        out, err = reader.communicate('{"parent": 1}\n{"until_ns": 2}\n{"do": "abandon"}\n', PATIENCE_S)
    assert (out, err) == ("{'parent': 1} {'until_ns': 2} {\"do\": \"abandon\"}\n", "")


@pytest.mark.parametrize("orders", ["", '{"half": ', json.dumps({"parent": 0}) + "\n"], ids=["none", "half", "foreign"])
def test_an_agent_without_its_parent_does_not_begin(orders: str) -> None:
    with python("-m", "stress.agent") as lost:
        assert lost.communicate(orders, PATIENCE_S) == ("", "")
        assert lost.returncode == agent.ORPHANED


def nobody(number: int, process: str, past: Past) -> Orders:
    raise AssertionError("none is started here")


async def test_faults_leave_an_agent_alone_until_it_has_begun(tmp_path: Path) -> None:
    """Any other line before the start would be taken for it."""
    recorder = Recorder(tmp_path / "faults-1.jsonl")
    fleet = Fleet(nobody, 1, root=tmp_path, folder=tmp_path, recorder=recorder, environment={})
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as child:
        one = Agent(process="agent000-1", pid=child.pid, number=0, child=child)
        fleet._living[0] = one
        one.hears({"ready": True})
        assert fleet.agents() == []
        one.has_begun = True
        assert fleet.agents() == [one]
        one.will_die = True
        assert fleet.agents() == []
        child.kill()
    recorder.close()


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
async def test_an_agent_that_was_half_made_when_all_is_broken_off_is_waited_for(steps: int, tmp_path: Path) -> None:
    def orders(number: int, process: str, past: Past) -> Orders:
        return Orders(
            scenario="ttl",
            process=process,
            number=number,
            agents=1,
            addresses=1,
            seed=1,
            root=str(tmp_path),
            history=str(tmp_path / f"{process}.jsonl"),
            operations=1,
            size_bytes=1,
            breaks=[],
        )

    recorder = Recorder(tmp_path / "faults-1.jsonl")
    fleet = Fleet(orders, 1, root=tmp_path, folder=tmp_path, recorder=recorder, environment={})
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.work, 600.0)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert [(one.process, one.code) for one in fleet.endings] == [("agent000-1", -9)]
    assert fleet.alive == 0
    recorder.close()

"""Agents killed, stopped, told to cancel and to walk out: really, and nothing of it stays."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import anyio
import pytest

from stress.faults import FAULTS
from stress.faults.fault import LiveAgent
from stress.faults.kill import Kill
from stress.faults.orders import Abandon, Cancel
from stress.faults.stop import Stop
from tests.unit.stress.fields import PATIENCE_S, agent_of, child, ground_at, state_of, until

# Counts up as long as it is asked.
COUNT = """
print("ready", flush=True)
for line in iter(input, ""):
    print(line, flush=True)
"""


async def test_an_agent_that_is_killed_was_known_to_die_before_it_was_announced(tmp_path: Path) -> None:
    with child(COUNT) as started, ground_at(tmp_path, agent_of(started)) as ground:
        await Kill().make(ground, Random(1))
        assert started.wait(PATIENCE_S) == -signal.SIGKILL
        assert [(name, target, lasts) for name, target, _, lasts in ground.announced] == [("kill", "agent01-1", False)]
        assert ground.doomed_when_announced == [True]
        await Kill().make(ground, Random(1))
        assert len(ground.announced) == 1, "nobody is left to be killed"


async def test_an_agent_that_was_gone_before_it_could_be_killed_is_no_error(tmp_path: Path) -> None:
    with child(COUNT) as started:
        gone = agent_of(started)
    with ground_at(tmp_path, gone) as ground:
        await Kill().make(ground, Random(1))
        assert gone.will_die


async def test_a_stopped_agent_stands_still_is_held_and_goes_on_afterwards(tmp_path: Path) -> None:
    with child(COUNT) as started, ground_at(tmp_path, agent_of(started)) as ground:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Stop().make, ground, Random(1))
            await until(lambda: state_of(started.pid) == "T")
            assert ground.agents() == []
        assert state_of(started.pid) != "T"
        assert (ground.was_held, ground.ended, len(ground.agents())) == (["agent01-1"], ["stop"], 1)
        print(*started.communicate("on\n\n", PATIENCE_S))
        assert started.returncode == 0


async def test_a_stop_that_is_cancelled_lets_the_agent_go_on(tmp_path: Path) -> None:
    with child(COUNT) as started, ground_at(tmp_path, agent_of(started), limit_s=PATIENCE_S * 100) as ground:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Stop().make, ground, Random(1))
            await until(lambda: state_of(started.pid) == "T")
            tasks.cancel_scope.cancel()
        assert started.communicate("on\n\n", PATIENCE_S)[0] == "on\n"


async def test_an_agent_that_ends_while_it_is_stopped_is_no_error(tmp_path: Path) -> None:
    with child(COUNT) as started, ground_at(tmp_path, agent_of(started)) as ground:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Stop().make, ground, Random(1))
            await until(lambda: state_of(started.pid) == "T")
            started.kill()
            started.wait(PATIENCE_S)
        assert ground.ended == ["stop"]


async def test_an_agent_is_told_to_cancel_and_held_for_as_long(tmp_path: Path) -> None:
    agent = LiveAgent(process="agent01-1", pid=0)
    with ground_at(tmp_path, agent) as ground:
        await Cancel().make(ground, Random(1))
        ((process, order),) = ground.told
        assert (process, order["do"], ground.was_held) == ("agent01-1", "cancel", ["agent01-1"])
        assert isinstance(order["for_s"], float)
        assert 0 < order["for_s"] <= ground.limit_s


async def test_an_agent_that_is_told_to_walk_out_is_known_to_die(tmp_path: Path) -> None:
    agent = LiveAgent(process="agent01-1", pid=0)
    with ground_at(tmp_path, agent) as ground:
        await Abandon().make(ground, Random(1))
        assert ground.told == [("agent01-1", {"do": "abandon"})]
        assert ground.doomed_when_announced == [True]
        assert agent.will_die


async def test_the_seed_alone_decides_whom_a_fault_meets(tmp_path: Path) -> None:
    def met(order: int) -> list[str]:
        agents = [LiveAgent(process=f"agent{number:02}-1", pid=0) for number in range(8)][::order]
        with ground_at(tmp_path, *agents, limit_s=0.0) as ground:
            chance = Random(5)
            for _ in range(8):
                anyio.from_thread.run(Abandon().make, ground, chance)
            return [process for process, _ in ground.told]

    forwards, backwards = await anyio.to_thread.run_sync(met, 1), await anyio.to_thread.run_sync(met, -1)
    assert forwards == backwards
    assert len(set(forwards)) == 8


@pytest.mark.parametrize("name", FAULTS)
async def test_without_an_agent_to_make_it_to_nothing_happens(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]()
    assert fault.name == name
    with ground_at(tmp_path) as ground:
        await fault.make(ground, Random(1))
        fault.finish()
        assert ground.announced == []

"""A living session put out by force: fenced, also when its process was stopped meanwhile; recorded either way."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from stress.faults.takeover import Takeover
from stress.history import EVICT, FAILED, OK, read_history
from tests.unit.stress.fields import PATIENCE_S, agent_of, child, ground_at, state_of

VICTIM = """
import asyncio, prontodb, sys
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent", "test") as ks:
        await ks.set("a", "1")
        print("ready", flush=True)
        print([report.id for report in await manager.sessions()][0], flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await ks.set("a", "2")
        except prontodb.errors.ProntoError as error:
            print(type(error).__name__, flush=True)
asyncio.run(main())
"""
IDLE = "print('ready', flush=True); input()"
STOPPED, RUNNING = 2, 1
"""Seeds of the two ways to do it."""


@pytest.mark.parametrize(("seed", "is_stopped"), [(STOPPED, True), (RUNNING, False)])
async def test_a_session_put_out_by_force_writes_no_more(seed: int, is_stopped: bool, tmp_path: Path) -> None:
    with ground_at(tmp_path) as ground, child(VICTIM, str(ground.root)) as started:
        assert started.stdout is not None
        agent = agent_of(started, session=started.stdout.readline().strip(), address="agent/test")
        ground.everybody.append(agent)
        await Takeover().make(ground, Random(seed))
        assert state_of(started.pid) != "T"
        assert started.communicate("\n", PATIENCE_S)[0] == "FencedError\n"
        (evicted,) = read_history(tmp_path)
        assert (evicted.op, evicted.outcome, evicted.session) == (EVICT, OK, agent.session)
        assert (evicted.address, evicted.argument) == ("agent/test", {"stopped": is_stopped})
        assert ("stopped" in ground.announced[0][2]) is is_stopped


async def test_a_session_that_has_ended_before_cannot_be_put_out(tmp_path: Path) -> None:
    with child(IDLE) as started, ground_at(tmp_path) as ground:
        ground.everybody.append(agent_of(started, session="s-1b1f346e8e00a9e154c7", address="agent/test"))
        await Takeover().make(ground, Random(RUNNING))
    (evicted,) = read_history(tmp_path)
    assert (evicted.outcome, evicted.error) == (FAILED, "SessionNotFoundError")


async def test_an_agent_without_a_session_is_left_alone(tmp_path: Path) -> None:
    with child(IDLE) as started, ground_at(tmp_path, agent_of(started)) as ground:
        await Takeover().make(ground, Random(1))
        assert ground.announced == []

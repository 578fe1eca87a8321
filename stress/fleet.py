"""The fleet: spawns agent processes, starts the killed ones anew, hears them, and ends them all whatever happens."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from .aftermath import Ending
from .agent import GRACE_S
from .faults.fault import LiveAgent
from .history import Fault, Recorder
from .moves import agent_name
from .work import Orders

if TYPE_CHECKING:
    from anyio.abc import Process, TaskGroup, TaskStatus

START_S, START_EACH_S = 60.0, 1.0
"""How long all agents together may take to come up: so long, and so much longer for each."""
END_S = GRACE_S + 30.0
"""How long after its time an agent may live; its own watchdog is earlier."""
MAX_LINE = 1 << 16
LAST_WORDS = 4_000
MAX_FAULT_S = 3.0
PACKAGE = __name__.partition(".")[0]


@dataclass(slots=True, kw_only=True)
class Agent(LiveAgent):
    """A running agent process and what it said last."""

    number: int
    child: Process
    said: dict[str, Any] = field(default_factory=dict)
    ready: anyio.Event = field(default_factory=anyio.Event)
    has_begun: bool = False
    """Set when it was told until when to work: any other order before that would be taken for this one."""
    ended: anyio.Event = field(default_factory=anyio.Event)

    def hears(self, line: dict[str, Any]) -> None:
        """Take in a line of the agent."""
        if "ready" in line:
            self.ready.set()
        else:
            self.said = line
            self.session, self.address = line["session"], line["address"]


@dataclass(slots=True, kw_only=True)
class Past:
    """What was done so far: of one agent in the lives before this one, or of all."""

    done: int = 0
    failed: int = 0
    size_bytes: int = 0
    alarms: int = 0

    def add(self, said: dict[str, Any]) -> None:
        """Add what an agent said of one life."""
        self.done += said.get("done", 0)
        self.failed += said.get("failed", 0)
        self.size_bytes += said.get("bytes", 0)
        self.alarms += said.get("alarms", 0)


class Fleet:
    """All agents of one scenario. Faults see it as their `Field`."""

    limit_s = MAX_FAULT_S

    def __init__(
        self,
        orders: Callable[[int, str, Past], Orders],
        agents: int,
        *,
        root: Path,
        folder: Path,
        recorder: Recorder,
        environment: Mapping[str, str],
    ) -> None:
        self._orders, self._count = orders, agents
        self.root, self._folder, self.recorder = root, folder, recorder
        self._living: dict[int, Agent] = {}
        self._past = [Past() for _ in range(agents)]
        self._lives = [0] * agents
        self._environment = environment
        self.endings: list[Ending] = []
        self.faults: list[Fault] = []
        self.until_ns = 0
        """When the agents' time is over; 0 until they have started."""
        self.over = anyio.Event()
        """Set when all have ended."""

    # What faults may ask and do

    def agents(self) -> list[LiveAgent]:
        """Return the agents that run, that no fault has hold of, and that were not told to die."""
        return [one for one in self._living.values() if one.has_begun and not one.is_held and not one.will_die]

    @asynccontextmanager
    async def hold(self, agent: LiveAgent) -> AsyncIterator[None]:
        """Keep other faults away from an agent while the block runs."""
        agent.is_held = True
        try:
            yield
        finally:
            agent.is_held = False

    def announce(self, name: str, target: str, text: str, *, lasts: bool) -> AbstractAsyncContextManager[None]:
        """Write a fault down, before it is made; with `lasts` until the block is left, which is its end."""
        fault = Fault(name=name, target=target, at_ns=time.monotonic_ns(), text=text)
        self.faults.append(fault)

        @asynccontextmanager
        async def block() -> AsyncIterator[None]:
            try:
                yield
            finally:
                if lasts:
                    fault.until_ns = time.monotonic_ns()

        return block()

    async def tell(self, agent: LiveAgent, order: dict[str, object]) -> None:
        """Send an order to an agent; one that has just died does not hear it."""
        for one in list(self._living.values()):
            if one is agent:
                await self._send(one, order)

    # What the run asks

    @property
    def alive(self) -> int:
        """How many agents run."""
        return len(self._living)

    def totals(self) -> Past:
        """Return what all agents did so far, as far as they have said."""
        found = Past()
        for past in self._past:
            found.add({"done": past.done, "failed": past.failed, "bytes": past.size_bytes, "alarms": past.alarms})
        for agent in self._living.values():
            found.add(agent.said)
        return found

    async def work(self, seconds: float, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Have all agents come up, start them together, start killed ones anew, until all have ended by themselves.

        `task_status` is told when they start. Whatever happens, none of them is left when this returns.
        """
        async with anyio.create_task_group() as group:
            try:
                with anyio.fail_after(START_S + START_EACH_S * self._count):
                    first = [await self._come_up(number, group) for number in range(self._count)]
                    for agent in first:
                        await agent.ready.wait()
                self.until_ns = time.monotonic_ns() + int(seconds * 1e9)
                async with anyio.create_task_group() as lives:
                    for agent in first:
                        lives.start_soon(self._lives_of, agent, group)
                    task_status.started()
                self.over.set()
            finally:
                for agent in self._living.values():
                    agent.child.kill()

    async def _lives_of(self, agent: Agent, group: TaskGroup) -> None:
        """Accompany one agent through all of its lives."""
        while True:
            await self._send(agent, {"until_ns": self.until_ns})
            agent.has_begun = True
            with anyio.move_on_after(END_S + (self.until_ns - time.monotonic_ns()) / 1e9):
                await agent.ended.wait()
            if not agent.ended.is_set():
                agent.child.kill()
                await agent.ended.wait()
            if time.monotonic_ns() > self.until_ns or not agent.will_die:
                return
            agent = await self._come_up(agent.number, group)
            with anyio.move_on_after(START_S):  # whoever is not ready then will be waited for as one that hangs
                await agent.ready.wait()

    async def _come_up(self, number: int, group: TaskGroup) -> Agent:
        """Start an agent's first life, or its next."""
        self._lives[number] += 1
        process = f"{agent_name(number)}-{self._lives[number]}"
        # Nobody would wait for an agent that was half made when this was cancelled.
        with anyio.CancelScope(shield=True), (self._folder / f"{process}.err").open("wb") as stderr:
            child = await anyio.open_process(
                [sys.executable, "-m", f"{PACKAGE}.agent"], stderr=stderr, env={**surroundings(), **self._environment}
            )
        agent = Agent(process=process, pid=child.pid, number=number, child=child)
        self._living[number] = agent
        group.start_soon(self._hear, agent)
        await self._send(agent, {**asdict(self._orders(number, process, self._past[number])), "parent": os.getpid()})
        return agent

    async def _send(self, agent: Agent, message: dict[str, Any]) -> None:
        assert agent.child.stdin is not None
        try:
            await agent.child.stdin.send(json.dumps(message).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # it has died; whoever waits for it writes that down

    async def _hear(self, agent: Agent) -> None:
        """Hear an agent until it ends, and write down how that was. Not to be cancelled: a killed agent ends, too."""
        assert agent.child.stdout is not None
        stream = BufferedByteReceiveStream(agent.child.stdout)
        with anyio.CancelScope(shield=True):
            try:
                while True:
                    agent.hears(json.loads(await stream.receive_until(b"\n", MAX_LINE)))
            except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
                code = await agent.child.wait()
            await agent.child.aclose()
        self._took_leave(agent, code)

    def _took_leave(self, agent: Agent, code: int) -> None:
        del self._living[agent.number]
        self._past[agent.number].add(agent.said)
        words = self._folder / f"{agent.process}.err"
        last = words.read_text(errors="replace")[-LAST_WORDS:]
        if not last:
            words.unlink()
        # One that crashed before it was killed has crashed.
        was_meant = code == 0 or (agent.will_die and code == -signal.SIGKILL)
        self.endings.append(Ending(process=agent.process, code=code, was_meant=was_meant, last_words=last))
        agent.ready.set()
        agent.ended.set()


def surroundings() -> dict[str, str]:
    """Return the environment for processes of ours: in it this package and prontodb mean the same as here."""
    places = (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRONTODB_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, places))}

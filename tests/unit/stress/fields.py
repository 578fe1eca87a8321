"""A ground for faults: children of the test as agents, announcements and orders written down."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from stress.faults.fault import LiveAgent
from stress.history import Recorder

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0


@dataclass
class FakeField:
    """Where faults are made in a test."""

    root: Path
    recorder: Recorder
    limit_s: float = 0.2
    everybody: list[LiveAgent] = field(default_factory=list)
    announced: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """Name, target, text, whether it lasts."""
    ended: list[str] = field(default_factory=list)
    """Names of faults that were over, in that order."""
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    was_held: list[str] = field(default_factory=list)
    doomed_when_announced: list[bool] = field(default_factory=list)
    """For each announcement, whether some agent was known to be going to die."""

    def agents(self) -> list[LiveAgent]:
        return [agent for agent in self.everybody if not agent.is_held and not agent.will_die]

    @asynccontextmanager
    async def hold(self, agent: LiveAgent) -> AsyncIterator[None]:
        agent.is_held = True
        self.was_held.append(agent.process)
        try:
            yield
        finally:
            agent.is_held = False

    @asynccontextmanager
    async def announce(self, name: str, target: str, text: str, *, lasts: bool) -> AsyncIterator[None]:
        self.announced.append((name, target, text, lasts))
        self.doomed_when_announced.append(any(agent.will_die for agent in self.everybody))
        try:
            yield
        finally:
            self.ended.append(name)

    async def tell(self, agent: LiveAgent, order: dict[str, object]) -> None:
        self.told.append((agent.process, order))


@contextmanager
def ground_at(place: Path, *agents: LiveAgent, **facts: Any) -> Iterator[FakeField]:
    """A ground with an empty root in `place`; its recorder writes `faults-1.jsonl` there."""
    root = place / "root"
    root.mkdir(mode=0o700, exist_ok=True)
    recorder = Recorder(place / "faults-1.jsonl")
    try:
        yield FakeField(root, recorder, everybody=list(agents), **facts)
    finally:
        recorder.close()


@contextmanager
def child(text: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a small program that says 'ready' when it is; killed when the block is left."""
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT), **environment},
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def agent_of(started: subprocess.Popen[str], process: str = "agent01-1", **facts: Any) -> LiveAgent:
    """What faults see of a child."""
    return LiveAgent(process=process, pid=started.pid, **facts)


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: R, S, T (stopped), t (traced)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until(look: Callable[[], int]) -> int:
    """Wait until `look` finds something, and return it; the kernel sets no event when it stops or traces a process."""
    until_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < until_s, "it did not come"
        await anyio.sleep(0.002)
    return found

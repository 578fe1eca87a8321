"""`kill`: SIGKILL, at whatever an agent is doing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .base import SimpleFault, one_of
from .signals import process_of, send

if TYPE_CHECKING:
    from random import Random

    from .fault import Field


class Kill(SimpleFault):
    """One agent is killed. Its lock is free at once, so nobody else sees an error because of it."""

    name = "kill"

    async def make(self, ground: Field, chance: Random) -> None:
        """Kill one agent."""
        agent = one_of(ground, chance)
        if agent is None:
            return
        agent.will_die = True
        with process_of(agent.pid) as process:
            async with ground.announce(self.name, agent.process, f"SIGKILL to pid {agent.pid}", lasts=False):
                send(process, signal.SIGKILL)

"""`stop`: SIGSTOP, and SIGCONT after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .base import SimpleFault, one_of, some_time_s
from .signals import stopped

if TYPE_CHECKING:
    from random import Random

    from .fault import Field

MOST_S = 2.0


class Stop(SimpleFault):
    """One agent stands still with all that it holds. Nobody may call it dead; others may find its address busy."""

    name = "stop"
    explains = frozenset({"AddressBusyError", "BusyError", "WaitTimeoutError"})

    async def make(self, ground: Field, chance: Random) -> None:
        """Stop one agent for a while."""
        agent = one_of(ground, chance)
        if agent is None:
            return
        for_s = some_time_s(ground, chance, MOST_S)
        async with (
            ground.hold(agent),
            ground.announce(self.name, agent.process, f"stopped for {for_s:.2f} s", lasts=True),
        ):
            with stopped(agent.pid):
                await anyio.sleep(for_s)

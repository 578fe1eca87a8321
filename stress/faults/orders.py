"""`cancel` and `abandon`: what only an agent can do to itself, on order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .base import SimpleFault, one_of, some_time_s

if TYPE_CHECKING:
    from random import Random

    from .fault import Field

MOST_S = 2.0


class Cancel(SimpleFault):
    """One agent cancels its own operations at instants of its own choice. What was cancelled has an unknown outcome."""

    name = "cancel"

    async def make(self, ground: Field, chance: Random) -> None:
        """Have one agent cancel for a while."""
        agent = one_of(ground, chance)
        if agent is None:
            return
        for_s = some_time_s(ground, chance, MOST_S)
        async with (
            ground.hold(agent),
            ground.announce(self.name, agent.process, f"cancels its operations for {for_s:.2f} s", lasts=True),
        ):
            await ground.tell(agent, {"do": "cancel", "for_s": for_s})
            await anyio.sleep(for_s)


class Abandon(SimpleFault):
    """One agent ends its process in the middle of everything, its session not left."""

    name = "abandon"

    async def make(self, ground: Field, chance: Random) -> None:
        """Have one agent walk out."""
        agent = one_of(ground, chance)
        if agent is None:
            return
        agent.will_die = True
        async with ground.announce(self.name, agent.process, "ends without leaving its session", lasts=False):
            await ground.tell(agent, {"do": "abandon"})

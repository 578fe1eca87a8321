"""What most faults have in common: nothing to make ready, nothing to take back, one agent chosen by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from .fault import Field, LiveAgent

LEAST_S = 0.1
"""How long a fault that lasts does so at least."""


class SimpleFault:
    """A fault that any machine can make, at once; `name`, `explains` and `make` are the subclass's."""

    name = ""
    explains: frozenset[str] = frozenset()
    takes_root_away = False

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        return None

    def prepare(self, root: Path, place: Path) -> dict[str, str]:
        """Make ready before any agent starts; return what agents need in their environment."""
        return {}

    def finish(self) -> None:
        """Take back all that is still in force; `make` leaves nothing behind here, cancelled or not."""

    def release(self) -> None:
        """Nothing to take away."""


def one_of(ground: Field, chance: Random, fits: Callable[[LiveAgent], bool] | None = None) -> LiveAgent | None:
    """Return one agent that `fits`, each as likely as the next, or None."""
    # In one order, whatever the order in which they were started anew: the seed alone decides.
    agents = sorted((agent for agent in ground.agents() if fits is None or fits(agent)), key=lambda one: one.process)
    return chance.choice(agents) if agents else None


def some_time_s(ground: Field, chance: Random, most_s: float = float("inf"), least_s: float = LEAST_S) -> float:
    """Return how long a fault is to last: by chance, and never longer than the ground allows."""
    longest_s = min(most_s, ground.limit_s)
    return chance.uniform(min(least_s, longest_s), longest_s)

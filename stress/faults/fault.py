"""What a fault is, and what it may touch: the living agents, the root, the machine."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..history import Recorder


@dataclass(slots=True, kw_only=True)
class LiveAgent:
    """One agent process as faults see it."""

    process: str
    """Agent and life: 'agent07-2'."""
    pid: int
    session: str = ""
    """The id of the session it last said it is in; '' for none."""
    address: str = ""
    is_held: bool = False
    """True while some fault has hold of it: no other fault may touch it then."""
    will_die: bool = False
    """Set before it is killed: its end is meant."""


class Field(Protocol):
    """Where faults are made."""

    root: Path
    """The root of the running scenario."""
    recorder: Recorder
    """The history of the fault maker itself, for what it does by the product (`EVICT`)."""
    limit_s: float
    """How long one fault may last at most."""

    def agents(self) -> list[LiveAgent]:
        """Return the agents that run, that no fault has hold of, and that were not told to die."""
        ...

    def hold(self, agent: LiveAgent) -> AbstractAsyncContextManager[None]:
        """Keep other faults away from an agent while the block runs."""
        ...

    def announce(self, name: str, target: str, text: str, *, lasts: bool) -> AbstractAsyncContextManager[None]:
        """Write a fault down, before it is made; with `lasts` until the block is left, which is its end."""
        ...

    async def tell(self, agent: LiveAgent, order: dict[str, object]) -> None:
        """Send an order to an agent, which makes the fault itself (cancellation, an abandoned session)."""
        ...


class Fault(Protocol):
    """One kind of fault."""

    name: str
    explains: frozenset[str]
    """Names of the typed errors that agents may see because of it."""
    takes_root_away: bool
    """True when `release` takes the root with all that is in it."""

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        ...

    def prepare(self, root: Path, place: Path) -> dict[str, str]:
        """Make ready before any agent starts; `place` is a folder for its files. Return what agents need in their
        environment."""
        ...

    def finish(self) -> None:
        """Take back all that is still in force; called also when the run is broken off."""
        ...

    def release(self) -> None:
        """Take away what was made ready, when everybody has looked at what is left."""
        ...

    async def make(self, ground: Field, chance: Random) -> None:
        """Make it once; called again and again, with pauses. Nobody fit for it there: do nothing."""
        ...

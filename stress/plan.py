"""What a run was asked to do: frozen, validated, and able to say the command that repeats it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

DEFAULT_AGENTS = 32
DEFAULT_SECONDS = 30.0
DEFAULT_OPERATIONS = 50_000
DEFAULT_MEBIBYTES = 64
MAX_AGENTS = 1_000
DOOR = ("python", "-m", "stress") if __name__.startswith("stress.") else ("prontodb", "stress")
"""How it is called: in a checkout, or installed."""
MOST = 1_000_000_000
"""Seconds, operations, mebibytes: more than anybody has, and what 64 bits of nanoseconds and bytes can count."""


class PlanError(Exception):
    """A plan that cannot be run; the message says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Every load in it has an end: in time, in operations and in bytes."""

    scenarios: tuple[str, ...]
    """Run one after the other, each in a root of its own below `root`."""
    agents: int = DEFAULT_AGENTS
    addresses: int | None = None
    """None: what the scenario finds right for so many agents."""
    seconds: float = DEFAULT_SECONDS
    """How long the agents of each scenario work; setting up and looking afterwards come on top."""
    faults: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    """Known faults put into the harness itself, by name: each must be found."""
    seed: int = 0
    operations: int = DEFAULT_OPERATIONS
    """At most so many operations of each agent, over all its lives."""
    mebibytes: int = DEFAULT_MEBIBYTES
    """At most so many MiB of values written by each agent."""
    root: str = ""
    report: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.agents <= MAX_AGENTS:
            raise PlanError(f"--agents must be 1 to {MAX_AGENTS:,}, not {self.agents:,}")
        if self.addresses is not None and self.addresses < 1:
            raise PlanError(f"--addresses must be at least 1, not {self.addresses}")
        for name, value in (("--seconds", self.seconds), ("--operations", self.operations), ("--mib", self.mebibytes)):
            if not 0 < value < float("inf"):
                raise PlanError(f"{name} must be more than 0, and have an end: not {value:g}")
            if value > MOST:
                raise PlanError(f"{name} must be at most {MOST:,}, not {value:g}")

    def part(self, *, agents: int, addresses: int | None) -> Plan:
        """Return the same plan for some of the agents."""
        return replace(self, agents=agents, addresses=addresses)

    def command(self, scenario: str | None = None) -> str:
        """Return the command that runs this plan again, or only one scenario of it: the same operations and faults.

        Not the same instants: how processes interleave is the machine's.
        """
        words = [*DOOR, "run", *((scenario,) if scenario else self.scenarios)]
        words += ["--agents", str(self.agents), "--seconds", f"{self.seconds:g}", "--seed", str(self.seed)]
        if self.addresses is not None:
            words += ["--addresses", str(self.addresses)]
        if self.faults:
            words += ["--faults", ",".join(self.faults)]
        if self.breaks:
            words += ["--break", ",".join(self.breaks)]
        if self.operations != DEFAULT_OPERATIONS:
            words += ["--operations", str(self.operations)]
        if self.mebibytes != DEFAULT_MEBIBYTES:
            words += ["--mib", str(self.mebibytes)]
        return shlex.join(words)

"""What do encryption, access rules, tokens and a rate cost per operation?"""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import prontodb
from benchmarks.contenders import Measured, opened
from benchmarks.contenders.pronto import Pronto
from benchmarks.measure import Goal, Race
from benchmarks.rounds import sets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload, drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from benchmarks.measure import Plan, Round

GRANTS = [
    {"principal": "operator", "addresses": "*", "prefix": "", "rights": ["admin"]},
    *({"principal": "agent1", "addresses": "agent1/*", "prefix": f"p{n}.", "rights": ["read"]} for n in range(8)),
    {"principal": "agent1", "addresses": "agent1/*", "prefix": "", "rights": ["read", "write"]},
]


class Plain(Pronto):
    """An address without any of it; open a second time for reading, past every cache."""

    name = "plain"
    config: ClassVar[Mapping[str, object]] = {}
    principal: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.uncached: prontodb.Keystore

    async def open(self, folder: Path) -> None:
        root, key = folder / "root", folder / "key"
        for path in (root, root / "registry"):
            path.mkdir(mode=0o700)
        key.touch(mode=0o600)
        key.write_text(os.urandom(32).hex())
        config = root / "registry" / "global_config.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"format": 1, **self.config}))
        manager = await self._stack.enter_async_context(
            prontodb.open(root, keys=prontodb.KeyFile(key), principal=self.principal)
        )
        self.keystore = await self._stack.enter_async_context(manager.session("agent1", "prod"))
        self.get, self.set = self.keystore.get, self.keystore.set
        self.uncached = await self._stack.enter_async_context(manager.session("agent1", "prod", mode="read"))


class Encrypted(Plain):
    """Whole-file encryption, and a keyed chain."""

    name = "encrypted"
    config: ClassVar = {"settings": {"encrypt_new": True}}


class Ruled(Plain):
    """Ten access rules, nine of them for the caller."""

    name = "with 10 access rules"
    config: ClassVar = {"access": {"grants": GRANTS}}
    principal = "agent1"


class Rated(Plain):
    """A rate of writes that is never reached, counted over all processes."""

    name = "with a rate of writes"
    config: ClassVar = {"quotas": [{"addresses": "*/*", "writes_per_second": 10**6}]}


KINDS = (Plain, Encrypted, Ruled, Rated)


@asynccontextmanager
async def arena(folder: Path, plan: Plan) -> AsyncIterator[Mapping[str, Measured]]:
    """Open and fill the contenders."""
    async with opened(KINDS, folder, Workload(plan.keys), plan) as stores:
        yield stores


def _gets(*, hot: bool) -> Round:
    async def run(measured: Measured, ops: int) -> int:
        keystore, key = measured.store.keystore if hot else measured.store.uncached, measured.workload.key
        one = measured.workload.keys[0]
        return await drive(1, ops, lambda _: keystore.get(one if hot else key()), pause_every=16)

    return run


def _races(name: str, ops: int, run: Round, kinds: tuple[type[Plain], ...]) -> Iterator[Race]:
    for kind in kinds:
        runners = {Plain.name: run, kind.name: run}
        goals = (Goal(subject=kind.name, other=Plain.name, by="time"),)
        yield Race(name=f"{name}, {kind.name}", ops=ops, runners=runners, goals=goals)


SCENARIO = Scenario(
    name="protection",
    question="What do encryption, access rules and a rate of writes cost per operation, against none of them?",
    contenders=KINDS,
    arena=arena,
    races=lambda _plan: (
        *_races("set, 1 task", 500, sets(1), (Encrypted, Ruled, Rated)),
        *_races("set, 100 tasks", 4_000, sets(100), (Encrypted, Ruled, Rated)),
        *_races("get, not cached", 5_000, _gets(hot=False), (Encrypted, Ruled)),
        *_races("get, hot", 20_000, _gets(hot=True), (Encrypted, Ruled)),
    ),
)

"""Do many who raise one counter at once lose updates, and how fast are those who lose none?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sqlcipher3 import dbapi2 as sqlite

from benchmarks.contenders import Contender, Promise, slug
from benchmarks.contenders.peers import Lmdb
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.sqlite import UPSERT, AiosqliteCommitEach, AiosqliteNaive, Raw, now_ms
from benchmarks.fleet import fleet, wait_for_start
from benchmarks.measure import Findings, Row, Series, Target, in_turn, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from prontodb.errors import ProntoError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from benchmarks.measure import Plan

KEY = "agent.state.counter"
MOST_TASKS = 100
FLEET_ROUNDS = 5
"""At most, where processes raise it: each round starts a fleet for every contender."""


class Raised(NamedTuple):
    """What became of the raises that were asked for in so many seconds."""

    acknowledged: int
    failed: int
    seconds: float


class Ended(NamedTuple):
    """What came of one round; `lost` are raises that were acknowledged and that the counter does not show."""

    acknowledged: int
    failed: int
    lost: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Acknowledged raises a second; at least one, so that it can be compared."""
        return max(1, self.acknowledged) / self.seconds


def ended(before: int, raised: Sequence[Raised], after: int) -> Ended:
    """Return what came of a round from what its processes say, and from what the counter said before and says after."""
    acknowledged = sum(each.acknowledged for each in raised)
    failed = sum(each.failed for each in raised)
    return Ended(acknowledged, failed, before + acknowledged - after, max(each.seconds for each in raised))


class Increment(Pronto):
    """`keystore.increment`, in a session as it is by default."""

    name = "prontodb, increment"
    refused: ClassVar = ProntoError

    async def raise_one(self) -> None:
        """Add one to the counter."""
        await self.keystore.increment(KEY)


class IncrementShared(Increment):
    """The same beside others."""

    mode = ProntoShared.mode


class CompareAndSet(Pronto):
    """Read, add, `compare_and_set`, and again when somebody was quicker."""

    name = "prontodb, compare_and_set"
    refused: ClassVar = ProntoError

    async def raise_one(self) -> None:
        """Add one to the counter."""
        while True:
            found = await self.keystore.get(KEY)
            if await self.keystore.compare_and_set(KEY, found, str(int(found or 0) + 1)):
                return


class CompareAndSetShared(CompareAndSet):
    """The same beside others."""

    mode = ProntoShared.mode


class GetThenSet(AiosqliteNaive):
    """A get, then a set, as most programs do: whoever came between is overwritten."""

    name = "aiosqlite, get then set"
    promise = Promise(survives=AiosqliteNaive.promise.survives, notes=("loses updates",))
    refused: ClassVar = sqlite.OperationalError

    async def raise_one(self) -> None:
        """Add one to the counter, if nobody else does."""
        await self.set(KEY, str(int(await self.get(KEY) or 0) + 1))


class Immediate(AiosqliteCommitEach):
    """BEGIN IMMEDIATE, read, write, COMMIT, one task at a time, since they share the connection: the correct form."""

    name = "aiosqlite, BEGIN IMMEDIATE"
    refused: ClassVar = sqlite.OperationalError

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def raise_one(self) -> None:
        """Add one to the counter."""
        async with self._turn:
            await self.db.execute_fetchall("BEGIN IMMEDIATE")
            await self.set(KEY, str(int(await self.get(KEY) or 0) + 1))
            await self.db.execute_fetchall("COMMIT")


class OldDesign(Raw):
    """A deferred transaction that reads and then writes, in a database that all share."""

    name = "sqlcipher3, deferred transaction"
    refused: ClassVar = sqlite.OperationalError

    def raise_one(self) -> None:
        """Add one to the counter, if nobody else does meanwhile."""
        try:
            self._connection.execute("BEGIN DEFERRED")
            found = self.get(KEY)
            self._connection.execute(UPSERT, (KEY, str(int(found or 0) + 1), now_ms())).close()
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


class LmdbTransaction(Lmdb):
    """A write transaction, which only one process at a time can have."""

    name = "lmdb, write transaction"
    refused: ClassVar = ()

    def raise_one(self) -> None:
        """Add one to the counter."""
        with self._environment.begin(write=True) as transaction:
            found = transaction.get(KEY.encode())
            transaction.put(KEY.encode(), str(int(found or 0) + 1).encode())


BY_TASKS = (Increment, CompareAndSet, Immediate, LmdbTransaction, GetThenSet)
BY_PROCESSES = (IncrementShared, CompareAndSetShared, Immediate, LmdbTransaction, GetThenSet, OldDesign)
KINDS: Mapping[str, type[Contender]] = {kind.__name__: kind for kind in BY_PROCESSES}

ASIDE = {GetThenSet.name, OldDesign.name}
"""What loses or fails, so that its rows are worth a line."""


def wanted(kinds: Sequence[type[Contender]], plan: Plan) -> list[type[Contender]]:
    """Return the kinds that the plan wants, by the name of the contender that each is made of; ours always."""
    return [kind for kind in kinds if kind.is_ours or plan.invites(slug(kind.__bases__[0].name))]  # type: ignore[attr-defined]


@asynccontextmanager
async def opened(kind: type[Contender], folder: Path) -> AsyncIterator[Any]:
    """Open one contender, in a folder where others may have it open too."""
    store = kind()
    await store.open(folder)
    try:
        yield store
    finally:
        await store.close()


async def total(store: Any) -> int:
    """Return what the counter says."""
    found = store.get(KEY)
    return int((await found if store.is_async else found) or 0)


async def climb(store: Any, tasks: int, seconds: float) -> Raised:
    """Have so many tasks raise the counter until the time is over and the last of them is done."""
    acknowledged = failed = 0
    begun = time.monotonic()
    end = begun + seconds

    async def work() -> None:
        nonlocal acknowledged, failed
        while time.monotonic() < end:
            try:
                if store.is_async:
                    await store.raise_one()
                else:
                    store.raise_one()
                    await asyncio.sleep(0)
                acknowledged += 1
            except store.refused:
                failed += 1

    await asyncio.gather(*(work() for _ in range(tasks)))
    return Raised(acknowledged, failed, time.monotonic() - begun)


async def by_tasks(store: Any, tasks: int, seconds: float) -> Ended:
    """Raise by tasks of this process, and count what is lost."""
    before = await total(store)
    raised = await climb(store, tasks, seconds)
    return ended(before, [raised], await total(store))


async def by_processes(kind: type[Contender], folder: Path, processes: int, seconds: float) -> Ended:
    """Raise by processes, and count what is lost."""
    async with opened(kind, folder) as store:
        before = await total(store)
    found = fleet("benchmarks.scenarios.contention", processes, kind.__name__, str(folder), str(seconds))
    async with opened(kind, folder) as store:
        return ended(before, [Raised(*each) for each in found], await total(store))


async def _work(kind: type[Contender], folder: Path, seconds: float) -> Raised:
    async with opened(kind, folder) as store:
        wait_for_start()
        return await climb(store, 1, seconds)


def rows_of(what: str, taken: Mapping[str, Sequence[Ended]], *, is_contended: bool) -> list[Row]:
    """Return the table's lines: what is lost and what fails first, then how much faster or slower the first one is."""
    rows = []
    for name, rounds in taken.items():
        is_ours = name.startswith("prontodb")
        if not is_contended or not (is_ours or name in ASIDE):
            continue
        target = Target(relation="<=", limit=0) if is_ours else None
        lost, failed = (tuple(each.lost for each in rounds), tuple(each.failed for each in rounds))
        rows.append(Row(what=f"{what}, {name}: lost updates", unit="", figures=lost, target=target))
        rows.append(Row(what=f"{what}, {name}: failed", unit="", figures=failed, target=target))
    ours = taken[Increment.name]
    for name, rounds in taken.items():
        if name != Increment.name:
            pairs = zip(ours, rounds, strict=True)
            figures = tuple(own.per_second / other.per_second for own, other in pairs)
            rows.append(Row(what=f"{what}, increment: speed against {name}", unit="x", figures=figures))
    return rows


def _series(what: str, kinds: Sequence[type[Contender]], taken: Mapping[str, Sequence[Ended]], at: int) -> list[Series]:
    return [
        Series(
            race=f"{what}: acknowledged",
            contender=kind.name,
            promise=kind.promise,
            figures=tuple(each.per_second for each in taken[kind.name]),
            unit="/s",
            family="tasks that raise one counter" if kinds is BY_TASKS else "",
            axis="tasks" if kinds is BY_TASKS else "",
            at=at if kinds is BY_TASKS else None,
        )
        for kind in kinds
        if kind.name in taken
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Run the contenders in turn: one task, many tasks, many processes; the first round is dropped."""
    findings = Findings()
    for kind in wanted(BY_PROCESSES, plan):
        if (why := kind.why_missing()) is not None:
            findings.missing.append(f"{kind.name}: {why}")

    async def turns(what: str, kinds: Sequence[type[Contender]], seconds: float, at: int) -> None:
        present = {kind.name: kind for kind in wanted(kinds, plan) if kind.why_missing() is None}
        taken: dict[str, list[Ended]] = {name: [] for name in present}
        for number in range((min(plan.rounds, FLEET_ROUNDS) if kinds is BY_PROCESSES else plan.rounds) + 1):
            control = sync_time_ms(folder)
            for kind in (present[name] for name in in_turn(present, number)):
                place = folder / f"{slug(what)}-{slug(kind.name)}"
                place.mkdir(mode=0o700, exist_ok=True)
                if kinds is BY_PROCESSES:
                    found = await by_processes(kind, place, at, seconds)
                else:
                    async with opened(kind, place) as store:
                        found = await by_tasks(store, at, seconds)
                if number:
                    taken[kind.name].append(found)
            if number:
                findings.sync_ms.append(control)
        findings.rows += rows_of(what, taken, is_contended=at > 1)
        findings.series += _series(what, kinds, taken, at)

    for tasks in (tasks for tasks in plan.tasks if tasks <= MOST_TASKS):
        await turns(f"{tasks} task{'s raise' if tasks > 1 else ' raises'} one counter", BY_TASKS, plan.round_s, tasks)
    await turns(f"{plan.processes} processes raise one counter", BY_PROCESSES, plan.processes_s, plan.processes)
    return findings


SCENARIO = Scenario(
    name="contention",
    question="Do many who raise one counter at once lose updates, and how fast are those who lose none?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_work(KINDS[sys.argv[1]], Path(sys.argv[2]), float(sys.argv[3])))))

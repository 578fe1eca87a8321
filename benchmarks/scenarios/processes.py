"""Do many processes get their share: at keystores of their own, at one address, and in one shared database?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlcipher3 import dbapi2 as sqlite

import prontodb
from benchmarks.contenders import DURABLE
from benchmarks.contenders.sqlite import SELECT, UPSERT, connect, now_ms
from benchmarks.fleet import fleet, wait_for_start
from benchmarks.measure import Findings, Row, Series, Target, in_turn, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.measure import Plan

KEYS_EACH = 1_000
BUSY_TIMEOUT_S = 5.0
CURVE_ROUNDS = 3
"""At most, for fleets of other sizes than the one whose rows have targets."""
OWN, ONE, DEFERRED = "own keystores", "one address", "one shared database"
IMMEDIATE = f"{DEFERRED}, BEGIN IMMEDIATE"
NAMES = {
    OWN: f"prontodb, {OWN}",
    ONE: f"prontodb, {ONE}, shared sessions",
    IMMEDIATE: f"sqlcipher3, {IMMEDIATE}",
    DEFERRED: f"sqlcipher3, {DEFERRED}, BEGIN DEFERRED",
}
BEGINS = {IMMEDIATE: "BEGIN IMMEDIATE", DEFERRED: "BEGIN DEFERRED"}
"""How the transactions of those begin that share a database: a deferred one is the old design."""


class Share(NamedTuple):
    """What one process got of a round."""

    passed: int
    failed: int
    longest_s: float
    """The longest time in which nothing of it passed. One that starves has few samples or none: only this shows it."""


Taken = dict[str, list[list[Share]]]
"""Of each kind: per round, the share of each worker."""


class Tally:
    """Counts what passes and fails between two moments, and the longest time in which nothing passed."""

    def __init__(self, begun_s: float, end_s: float) -> None:
        self.passed, self.failed, self.longest_s = 0, 0, 0.0
        self._last_s, self._end_s = begun_s, end_s

    def passes(self, at_s: float) -> None:
        """Count one that passed; one that ended too late was waited for, and is no part of the throughput."""
        self.passed += at_s <= self._end_s
        self._waited(at_s)

    def fails(self) -> None:
        """Count one that failed; the wait for one that passes goes on."""
        self.failed += 1

    def ends(self, at_s: float) -> Share:
        """Return the share; who waits at the end has waited, too."""
        self._waited(at_s)
        return Share(self.passed, self.failed, self.longest_s)

    def _waited(self, at_s: float) -> None:
        self.longest_s = max(self.longest_s, at_s - self._last_s)
        self._last_s = at_s


async def _work_pronto(folder: Path, kind: str, number: int, seconds: float) -> Share:
    """Read, then write, one after the other, at an address of this process or below its prefix at that of all."""
    workload = Workload(KEYS_EACH, seed=number)
    place, mode, prefix = ("all", "shared", f"agent{number}.") if kind == ONE else (f"agent{number}", "exclusive", "")
    async with (
        prontodb.open(folder / "root", settings=prontodb.Settings()) as manager,
        manager.session(place, "prod", mode=mode) as keystore,
    ):
        for batch in workload.batches():
            await keystore.set_many({prefix + key: value for key, value in batch})
        wait_for_start()
        end = (now := time.monotonic()) + seconds
        tally = Tally(now, end)
        while now < end:
            key, value = workload.pair()
            try:
                await keystore.get(prefix + key)
                await keystore.set(prefix + key, value)
            except prontodb.errors.ProntoError:
                tally.fails()
                now = time.monotonic()
            else:
                tally.passes(now := time.monotonic())
    return tally.ends(now)


def _work_shared(folder: Path, begin: str, number: int, seconds: float) -> Share:
    """Read, then write, below a prefix in one database, in a transaction that begins as `begin` says."""
    workload = Workload(KEYS_EACH, seed=number)
    connection = connect(folder / "shared.db", timeout=BUSY_TIMEOUT_S)
    prefix = f"agent{number}."
    connection.execute("BEGIN IMMEDIATE")
    for batch in workload.batches():
        connection.executemany(UPSERT, [(prefix + key, value, now_ms()) for key, value in batch])
    connection.execute("COMMIT")
    wait_for_start()
    end = (now := time.monotonic()) + seconds
    tally = Tally(now, end)
    while now < end:
        key, value = workload.pair()
        try:
            connection.execute(begin)
            connection.execute(SELECT, (prefix + key, now_ms())).fetchone()
            connection.execute(UPSERT, (prefix + key, value, now_ms())).close()
            connection.execute("COMMIT")
        except sqlite.OperationalError:
            tally.fails()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            now = time.monotonic()
        else:
            tally.passes(now := time.monotonic())
    connection.close()
    return tally.ends(now)


def _work(kind: str, folder: Path, seconds: float, number: int) -> Share:
    if kind in BEGINS:
        return _work_shared(folder, BEGINS[kind], number, seconds)
    return asyncio.run(_work_pronto(folder, kind, number, seconds))


def run_fleet(kind: str, folder: Path, processes: int, seconds: float) -> list[Share]:
    """Run so many workers at once; return the share of each."""
    found = fleet("benchmarks.scenarios.processes", processes, kind, str(folder), str(seconds))
    return [Share(*each) for each in found]


def fairness(shares: Iterable[Share]) -> float:
    """Return what the slowest got of what the fastest got."""
    passed = [share.passed for share in shares]
    return min(passed) / max(1, *passed)


def failures(shares: Iterable[Share]) -> float:
    """Return how many transactions failed in all."""
    return sum(share.failed for share in shares)


def longest_ms(shares: Iterable[Share]) -> float:
    """Return the longest time in which any of them got nothing done."""
    return max(share.longest_s for share in shares) * 1_000


def per_second(shares: Sequence[Share], seconds: float) -> float:
    """Return what passed in all, a second."""
    return sum(share.passed for share in shares) / seconds


def rows_of(taken: Taken, processes: int) -> list[Row]:
    """Return the table's lines: fairness, failures and longest wait of each kind, and throughput against equal work."""
    what = f"{processes} processes"

    def row(kind: str, name: str, unit: str, figure: Callable[[list[Share]], float], target: Target | None) -> Row:
        figures = tuple(figure(shares) for shares in taken[kind])
        return Row(what=f"{what}, {kind}: {name}", unit=unit, figures=figures, target=target)

    def passed(kind: str) -> list[int]:
        return [max(1, sum(share.passed for share in shares)) for shares in taken[kind]]

    def against(kind: str) -> Row:
        # Not against deferred transactions: most of those fail, and one that fails has not done the work.
        pairs = zip(passed(kind), passed(IMMEDIATE), strict=True)
        figures = tuple(own / shared for own, shared in pairs)
        return Row(what=f"{what}: throughput, {kind} against {IMMEDIATE}", unit="x", figures=figures)

    none, half = Target(relation="<=", limit=0), Target(relation=">=", limit=0.5)
    return [
        row(OWN, "slowest against fastest", "x", fairness, half),
        row(OWN, "failed transactions", "", failures, none),
        row(ONE, "slowest against fastest", "x", fairness, None),
        row(ONE, "failed transactions", "", failures, none),
        row(IMMEDIATE, "slowest against fastest", "x", fairness, None),
        row(IMMEDIATE, "failed transactions", "", failures, None),
        row(DEFERRED, "slowest against fastest", "x", fairness, None),
        row(DEFERRED, "failed transactions", "", failures, None),
        *(row(kind, "longest that a process got nothing done", "ms", longest_ms, None) for kind in taken),
        against(OWN),
        against(ONE),
    ]


def series_of(taken: Taken, processes: int, seconds: float) -> list[Series]:
    """Return the points of the curves over the number of processes."""
    figures: Mapping[str, tuple[str, Callable[[list[Share]], float]]] = {
        "read then write": ("/s", lambda shares: per_second(shares, seconds)),
        "read then write, the slowest process": ("/s", lambda shares: min(each.passed for each in shares) / seconds),
        "failed transactions": ("", failures),
        "longest that a process got nothing done": ("ms", longest_ms),
    }
    return [
        Series(
            race=f"{processes} process{'es' * (processes > 1)}: {what}",
            contender=NAMES[kind],
            promise=DURABLE,
            figures=tuple(figure(shares) for shares in rounds),
            unit=unit,
            family=f"processes: {what}",
            axis="processes",
            at=processes,
        )
        for what, (unit, figure) in figures.items()
        for kind, rounds in taken.items()
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Run the kinds in turn, one number of processes after the other; a first round of the largest is dropped."""
    findings = Findings()
    connect(folder / "shared.db").close()
    for kind in NAMES:  # the files are made, and as large as they become
        run_fleet(kind, folder, max(*plan.fleets, plan.processes), plan.processes_s)
    for processes in sorted({*plan.fleets, plan.processes}):
        is_usual = processes == plan.processes
        taken: Taken = {kind: [] for kind in NAMES}
        for number in range(plan.rounds if is_usual else min(plan.rounds, CURVE_ROUNDS)):
            findings.sync_ms.append(sync_time_ms(folder))
            for kind in in_turn(taken, number):
                taken[kind].append(run_fleet(kind, folder, processes, plan.processes_s))
        findings.series += series_of(taken, processes, plan.processes_s)
        if is_usual:
            findings.rows = rows_of(taken, processes)
    return findings


SCENARIO = Scenario(
    name="processes",
    question="Do many processes get their share: at own keystores, at one address, in one shared database?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(_work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))

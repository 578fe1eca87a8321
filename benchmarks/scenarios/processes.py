"""Do many processes get their share, at keystores of their own and in one shared database?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sqlcipher3 import dbapi2 as sqlite

import prontodb
from benchmarks.contenders import DURABLE
from benchmarks.contenders.sqlite import SELECT, UPSERT, connect, now_ms
from benchmarks.measure import Findings, Row, Series, Target, sync_time_ms
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from benchmarks.measure import Plan

KEYS_EACH = 1_000
BUSY_TIMEOUT_S = 5.0
DEADLINE_S = 60
READY = "ready\n"
CHECKOUT = Path(__file__).parents[2]
OWN, SHARED = "own keystores", "one shared database"

Taken = dict[str, list[list[tuple[int, int]]]]
"""Of each kind: per round, what each worker passed and failed."""


async def _work_own(folder: Path, number: int, seconds: float) -> tuple[int, int]:
    """Read, then write, one after the other, at an address of this process; return how many passed and failed."""
    workload, passed, failed = Workload(KEYS_EACH, seed=number), 0, 0
    async with (
        prontodb.open(folder / "root", settings=prontodb.Settings()) as manager,
        manager.session(f"agent{number}", "prod") as keystore,
    ):
        for batch in workload.batches():
            await keystore.set_many(dict(batch))
        _wait_for_start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            key, value = workload.pair()
            try:
                await keystore.get(key)
                await keystore.set(key, value)
                passed += 1
            except prontodb.errors.ProntoError:
                failed += 1
    return passed, failed


def _work_shared(folder: Path, number: int, seconds: float) -> tuple[int, int]:
    """The old design: a prefix in one database, a deferred transaction that reads and then writes."""
    workload, passed, failed = Workload(KEYS_EACH, seed=number), 0, 0
    connection = connect(folder / "shared.db", timeout=BUSY_TIMEOUT_S)
    prefix = f"agent{number}."
    connection.execute("BEGIN IMMEDIATE")
    for batch in workload.batches():
        connection.executemany(UPSERT, [(prefix + key, value, now_ms()) for key, value in batch])
    connection.execute("COMMIT")
    _wait_for_start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        key, value = workload.pair()
        try:
            connection.execute("BEGIN DEFERRED")
            connection.execute(SELECT, (prefix + key, now_ms())).fetchone()
            connection.execute(UPSERT, (prefix + key, value, now_ms())).close()
            connection.execute("COMMIT")
            passed += 1
        except sqlite.OperationalError:
            failed += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    connection.close()
    return passed, failed


def _wait_for_start() -> None:
    """Say that this process is ready, then wait until all are."""
    print(READY, end="", flush=True)
    sys.stdin.readline()


def _work(kind: str, folder: Path, number: int, seconds: float) -> tuple[int, int]:
    if kind == OWN:
        return asyncio.run(_work_own(folder, number, seconds))
    return _work_shared(folder, number, seconds)


def fleet(kind: str, folder: Path, processes: int, seconds: float) -> list[tuple[int, int]]:
    """Run so many workers at once; return what each passed and failed."""
    command = [sys.executable, "-m", "benchmarks.scenarios.processes", kind, str(folder)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(number), str(seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=CHECKOUT,
                )
            )
            for number in range(processes)
        ]
        # On the way out each is waited for; one that hangs would make us hang too.
        for worker in workers:
            stack.callback(worker.kill)
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != READY:
                raise RuntimeError(f"a worker on {kind} did not start")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        found = [json.loads(worker.communicate(timeout=DEADLINE_S)[0]) for worker in workers]
    return [(passed, failed) for passed, failed in found]


def rows_of(taken: Taken, processes: int) -> list[Row]:
    """Return the table's lines: fairness and failures of both kinds, and the throughput of one against the other."""

    def fairness(kind: str) -> tuple[float, ...]:
        shares = [[passed for passed, _ in workers] for workers in taken[kind]]
        return tuple(min(each) / max(1, *each) for each in shares)

    def failures(kind: str) -> tuple[float, ...]:
        return tuple(sum(failed for _, failed in workers) for workers in taken[kind])

    def passed(kind: str) -> list[int]:
        return [max(1, sum(passed for passed, _ in workers)) for workers in taken[kind]]

    what = f"{processes} processes"
    return [
        Row(
            what=f"{what}, {OWN}: slowest against fastest",
            unit="x",
            figures=fairness(OWN),
            target=Target(relation=">=", limit=0.5),
        ),
        Row(
            what=f"{what}, {OWN}: failed transactions",
            unit="",
            figures=failures(OWN),
            target=Target(relation="<=", limit=0),
        ),
        Row(what=f"{what}, {SHARED}: slowest against fastest", unit="x", figures=fairness(SHARED)),
        Row(what=f"{what}, {SHARED}: failed transactions", unit="", figures=failures(SHARED)),
        Row(
            what=f"{what}: throughput, {OWN} against {SHARED}",
            unit="x",
            figures=tuple(own / shared for own, shared in zip(passed(OWN), passed(SHARED), strict=True)),
        ),
    ]


def _series(taken: Taken, processes: int, seconds: float) -> list[Series]:
    name = f"{processes} processes, read then write"
    us = {
        kind: tuple(seconds * 1e6 / max(1, sum(passed for passed, _ in workers)) for workers in rounds)
        for kind, rounds in taken.items()
    }
    return [
        Series(race=name, contender=f"prontodb, {OWN}", promise=DURABLE, figures=us[OWN]),
        Series(race=name, contender=f"sqlcipher3, {SHARED}", promise=DURABLE, figures=us[SHARED]),
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Run both kinds in turn."""
    findings = Findings()
    connect(folder / "shared.db").close()
    taken: Taken = {OWN: [], SHARED: []}
    for number in range(plan.rounds + 1):
        control = sync_time_ms(folder)
        for kind, rounds in taken.items():
            workers = fleet(kind, folder, plan.processes, plan.processes_s)
            if number:
                rounds.append(workers)
        if number:
            findings.sync_ms.append(control)
    findings.rows = rows_of(taken, plan.processes)
    findings.series = _series(taken, plan.processes, plan.processes_s)
    return findings


SCENARIO = Scenario(
    name="processes",
    question="Do many processes get their share, at keystores of their own and in one shared database?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(_work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))

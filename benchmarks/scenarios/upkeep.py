"""How long does a writer wait at worst while its address is swept and backed up, beside the same writer alone?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import prontodb
from benchmarks.children import child
from benchmarks.measure import Findings, Row, sync_time_ms
from benchmarks.scenarios.backups import ONE, fill, value
from benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.measure import Plan

TTL_S = 1.0
LEAST_S = 1.0
DEADLINE_S = 600


async def _write(root: Path) -> dict[str, float]:
    """Set one key after the other, each durable, in a shared session, until told to stop; return the milliseconds."""
    taken = []
    async with prontodb.open(root) as manager, manager.session(ONE.user, ONE.cursor, mode="shared") as keystore:
        await keystore.set("app.warm", "up")
        print("ready", flush=True)
        while not (root / "stop").exists():
            begun = time.perf_counter()
            await keystore.set("app.written", value())
            taken.append((time.perf_counter() - begun) * 1_000)
    taken.sort()
    return {"count": len(taken), "p99_ms": taken[int(len(taken) * 0.99)], "max_ms": taken[-1]}


@contextmanager
def _writer(root: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Have a writer in a process of its own that has begun; what is yielded stops it and returns what it measured."""
    program = [sys.executable, "-m", "benchmarks.scenarios.upkeep", str(root)]
    where = Path(__file__).parents[2]
    with child(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=where) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def result() -> dict[str, float]:
            stop = root / "stop"
            stop.touch(mode=0o600)
            out, _ = process.communicate(timeout=DEADLINE_S)
            stop.unlink()
            if process.returncode != 0:
                raise RuntimeError("the writer failed; its own words are above")
            found: dict[str, float] = json.loads(out)
            return found

        yield result


async def probe(folder: Path, plan: Plan) -> Findings:
    """Measure once: what counts is the longest wait among thousands."""
    entries, expired = plan.keys * 10, plan.keys
    root = folder / "root"
    findings = Findings(sync_ms=[sync_time_ms(folder)])
    async with prontodb.open(root) as manager:
        async with manager.session(ONE.user, ONE.cursor) as keystore:
            await fill(keystore, entries - expired)
            await fill(keystore, expired, ttl=TTL_S, prefix="app.short")
        await asyncio.sleep(TTL_S)

        with _writer(root) as result:
            await asyncio.sleep(max(LEAST_S, plan.rounds * plan.round_s))
            alone = result()

        with _writer(root) as result:
            begun = time.perf_counter()
            swept = await manager.sweep()
            sweep_s = time.perf_counter() - begun
            during_sweep = result()

        with _writer(root) as result:
            begun = time.perf_counter()
            await manager.backup(full=True)
            backup_s = time.perf_counter() - begun
            during_backup = result()
    if swept.entries != expired:
        raise RuntimeError(f"{swept.entries:,} entries were swept, not {expired:,}")
    for name, found in (
        ("alone", alone),
        (f"while {expired:,} of {entries:,} entries are swept", during_sweep),
        (f"while {entries - expired:,} entries are backed up whole", during_backup),
    ):
        findings.rows += [
            Row(what=f"a writer's longest wait, {name}", unit="ms", figures=(found["max_ms"],), once=True),
            Row(what=f"a writer's wait, 99th percentile, {name}", unit="ms", figures=(found["p99_ms"],), once=True),
        ]
    findings.rows += [
        Row(what=f"sweeping {expired:,} of {entries:,} entries: time", unit="s", figures=(sweep_s,), once=True),
        Row(what=f"backing up {entries - expired:,} entries whole: time", unit="s", figures=(backup_s,), once=True),
    ]
    return findings


SCENARIO = Scenario(
    name="upkeep",
    question="How long does a writer wait at worst while its address is swept and backed up?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_write(Path(sys.argv[1])))))

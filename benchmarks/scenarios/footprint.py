"""What does an open keystore cost: memory, descriptors, threads?"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import prontodb
from benchmarks import children
from benchmarks.measure import Findings, Row, Target
from benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from benchmarks.measure import Plan

DEADLINE_S = 120
STATUS = Path("/proc/self/status")
IS_LINUX = STATUS.exists()
READS = 10
"""Of each keystore, and of what no cache knows, so that it has its connection for reads."""
WARM_UP = 16
"""Keystores open before memory is counted: by then every thread runs and everything is imported."""


def settings_for(addresses: int) -> prontodb.Settings:
    """Return settings with a pool for so many keystores, and time to open them all."""
    # All open and write at once: more than a slow machine can do within the usual deadline, and no matter here.
    return prontodb.Settings(max_open_keystores=max(256, addresses + WARM_UP), wait_s=120)


async def _create(root: Path, addresses: int) -> None:
    async with prontodb.open(root, settings=settings_for(addresses)) as manager:
        for number in range(addresses + WARM_UP):
            await manager.create(f"agent{number}/prod")


def _now() -> dict[str, int]:
    """Return this process's resident memory in KiB, its descriptors and its threads, as Linux tells them."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {
        "rss_kib": int(fields["VmRSS"].split()[0]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": int(fields["Threads"]),
    }


async def _measure(root: Path, addresses: int) -> dict[str, dict[str, int]]:
    """Open so many keystores at once, each used for a set and a get, beside those that were open before; then read."""
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(prontodb.open(root, settings=settings_for(addresses)))

        keystores: list[prontodb.Keystore] = []

        async def use(number: int) -> None:
            keystore = await stack.enter_async_context(manager.session(f"agent{number}", "prod"))
            await keystore.set("app.config.theme", f"dark {number}")
            await keystore.get("app.config.theme")
            keystores.append(keystore)

        await asyncio.gather(*(use(addresses + number) for number in range(WARM_UP)))
        before = _now()
        await asyncio.gather(*(use(number) for number in range(addresses)))
        after = _now()
        for keystore in keystores[WARM_UP:] * READS:
            await keystore.get("app.config.absent")
        return {"before": before, "after": after, "read": _now()}


def measured(root: Path, addresses: int) -> dict[str, dict[str, int]]:
    """Return what `_measure` finds in a fresh process, whose memory nobody has used yet."""
    done = children.run(
        [sys.executable, "-m", "benchmarks.scenarios.footprint", str(root), str(addresses)],
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
        cwd=Path(__file__).parents[2],
    )
    done.check_returncode()
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def rows_of(addresses: int, found: dict[str, dict[str, int]], lanes: int) -> list[Row]:
    """Return the table's lines for one measurement."""

    def row(what: str, unit: str, figure: float, limit: float | None) -> Row:
        return Row(
            what=f"{what}, {addresses:,} addresses",
            unit=unit,
            figures=(figure,),
            once=True,
            target=None if limit is None else Target(relation="<=", limit=limit),
        )

    def each(fact: str, when: str) -> float:
        return (found[when][fact] - found["before"][fact]) / addresses

    return [
        row("memory per open keystore", "KiB", each("rss_kib", "after"), 200),
        row("descriptors per open keystore", "", each("descriptors", "after"), 6),
        row("threads in all", "", found["after"]["threads"], lanes + 4),
        row("memory per open keystore that is read often", "KiB", each("rss_kib", "read"), None),
        row("descriptors per open keystore that is read often", "", each("descriptors", "read"), 6),
    ]


async def probe(folder: Path, plan: Plan) -> Findings:
    """Measure each number of addresses once: the figures do not vary as times do."""
    if not IS_LINUX:
        return Findings(missing=["memory, descriptors, threads: need /proc (Linux)"])
    findings = Findings()
    for addresses in plan.footprints:
        root = folder / f"root-{addresses}"
        await _create(root, addresses)
        found = measured(root, addresses)
        findings.rows += rows_of(addresses, found, settings_for(addresses).lane_count)
    return findings


SCENARIO = Scenario(
    name="footprint",
    question="What does an open keystore cost in memory, descriptors and threads?",
    probe=probe,
)

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(Path(sys.argv[1]), int(sys.argv[2])))))

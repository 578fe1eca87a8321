"""How many syncs does a set cost? Counted by strace, each contender in a process of its own; nobody's word is taken."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

from benchmarks import children
from benchmarks.contenders import Durability, Measured, invited, missing, slug
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.measure import Findings, Row, Series, Target
from benchmarks.rounds import sets
from benchmarks.scenarios.scenario import Scenario
from benchmarks.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.contenders import Contender
    from benchmarks.measure import Plan

DEADLINE_S = 300
KEYS = 1_000
SETS = {1: 100, 100: 1_000}
"""Sets that are counted, by the number of tasks that make them."""
BACKED = 0.9
"""Syncs per set of one task from which on every set counts as synced."""

SYNCS = ("fsync", "fdatasync", "msync", "sync_file_range", "sync", "syncfs")
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2")
RING = "io_uring_enter"
MARKS = ("access", "faccessat", "faccessat2")
# The question mark: no error on machines that do not have the call.
TRACED = ",".join(f"?{call}" for call in (*SYNCS, *WRITES, *MARKS, "open", "openat", RING))
MARK = re.compile(r'"/benchmarks-syncs/(\w+)"')
REST = "rest"
"""What is outside of any section that is counted: opening, filling, closing."""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)")
_UNFINISHED = "<unfinished ...>"
_OPENED = re.compile(r"open(?:at)?\(.* = (\d+)$")
_WRITTEN = re.compile(rf"(?:{'|'.join(WRITES)})\((\d+),")


def why_not() -> str | None:
    """Return why syncs cannot be counted here; None when they can. Tries it on a child."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    trial = ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, sys.executable, "-c", ""]
    done = children.run(trial, timeout=DEADLINE_S, stdout=PIPE, stderr=PIPE)
    if done.returncode != 0:
        return f"strace may not trace here: {done.stderr.decode(errors='replace').strip()}"
    return None


def mark(section: str) -> None:
    """Say to whoever traces us what comes next, by asking for a file that nobody has."""
    os.access(f"/benchmarks-syncs/{section}", os.F_OK)


def counted(lines: Iterable[str]) -> tuple[Counter[str], bool]:
    """Return the syncs in each section of strace's log, and whether there was an io_uring, whose syncs it cannot show.

    A write through a descriptor that was opened with O_SYNC or O_DSYNC is a sync, too. Descriptors are told apart by
    their number alone: who opens files like that and has children, whose numbers are others, is counted wrongly.
    """
    found: Counter[str] = Counter()
    section, has_ring = REST, False
    begun: dict[str, str] = {}
    synced: set[str] = set()
    for line in lines:
        match = _LINE.match(line.rstrip())
        if match is None:
            continue
        thread, text = match[1], begun.pop(match[1], "") + match[2]
        if text.endswith(_UNFINISHED):
            begun[thread] = text.removesuffix(_UNFINISHED)
            continue
        call = text.partition("(")[0]
        if call in MARKS and (marked := MARK.search(text)):
            section = marked[1]
        elif opened := _OPENED.match(text):
            (synced.add if "SYNC" in text else synced.discard)(opened[1])
        elif (call in SYNCS and "MS_ASYNC" not in text) or ((written := _WRITTEN.match(text)) and written[1] in synced):
            found[section] += 1
        has_ring = has_ring or call == RING
    return found, has_ring


def traced(command: Sequence[str], folder: Path) -> tuple[Counter[str], bool]:
    """Run a program of ours to its end and return what `counted` finds in its log, children included."""
    log = folder / "strace"
    children.run(
        [
            "strace",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "signal=none",
            "-e",
            f"trace={TRACED}",
            "-o",
            str(log),
            *command,
        ],
        timeout=DEADLINE_S,
        cwd=Path(__file__).parents[2],
    ).check_returncode()
    with log.open(encoding="utf-8", errors="replace") as lines:
        return counted(lines)


def syncs_of(kind: type[Contender], folder: Path) -> tuple[dict[int, float], bool]:
    """Return a contender's syncs per set by the number of tasks, and whether it uses an io_uring."""
    folder.mkdir(mode=0o700)
    found, has_ring = traced([sys.executable, "-m", "benchmarks.scenarios.syncs", slug(kind.name), str(folder)], folder)
    return {tasks: found[str(tasks)] / count for tasks, count in SETS.items()}, has_ring


def is_backed(kind: type[Contender], per_set: float) -> bool:
    """True when syncs per set of one task go with the promise: each is synced for power loss, and not for less."""
    return (per_set >= BACKED) == (kind.promise.survives is Durability.POWER_LOSS)


async def _make_sets(kind: type[Contender], folder: Path) -> None:
    """Open, fill, set as often as is counted, close; with a mark around what counts."""
    measured = Measured(kind(), Workload(KEYS))
    place = folder / "store"
    place.mkdir(mode=0o700)
    await measured.store.open(place)
    for batch in measured.workload.batches():
        await measured.store.fill(batch)
    for tasks, count in SETS.items():
        run = sets(tasks)
        await run(measured, tasks)
        mark(str(tasks))
        done = await run(measured, count)
        mark(REST)
        assert done == count
    await measured.store.close()


async def probe(folder: Path, plan: Plan) -> Findings:
    """Count once: syncs do not vary as times do."""
    if why := why_not():
        return Findings(missing=[f"syncs: {why}"])
    kinds = [kind for kind in invited(list(CONTENDERS.values()), plan) if hasattr(kind, "set") or kind.is_async]
    findings = Findings(missing=missing(kinds, plan))
    unbacked = 0
    for kind in kinds:
        if kind.why_missing() is not None:
            continue
        per_set, has_ring = syncs_of(kind, folder / slug(kind.name))
        unbacked += not is_backed(kind, per_set[1])
        if has_ring:
            findings.missing.append(f"{kind.name}: syncs through its io_uring are not counted")
        for tasks, figure in per_set.items():
            race = f"syncs per set, {tasks} task{'s' * (tasks > 1)}"
            if kind.is_ours:
                findings.rows.append(Row(what=f"{race}: {kind.name}", unit="syncs", figures=(figure,), once=True))
            findings.series.append(
                Series(
                    race=race,
                    contender=kind.name,
                    promise=kind.promise,
                    figures=(figure,),
                    unit="syncs",
                    family="syncs per set",
                    axis="tasks",
                    at=tasks,
                )
            )
    findings.rows.append(
        Row(
            what="contenders whose syncs do not go with what they promise",
            unit="",
            figures=(unbacked,),
            once=True,
            target=Target(relation="<=", limit=0),
        )
    )
    findings.series.sort(key=lambda series: series.at or 0)
    return findings


SCENARIO = Scenario(
    name="syncs",
    question="How many syncs does one set cost, of a single task and where a hundred can share them?",
    probe=probe,
)

if __name__ == "__main__":
    asyncio.run(_make_sets(CONTENDERS[sys.argv[1]], Path(sys.argv[2])))

"""Made-up reports: what a run of known figures leaves."""

import json
from typing import Any

from benchmarks.contenders import DURABLE, RELAXED, Durability, Promise
from benchmarks.measure import Findings, Row, Series, Target
from benchmarks.report.results import FORMAT, scenario_json

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"
BLOCKING = Promise(survives=Durability.POWER_LOSS, blocks=True)
NOTHING = Promise(survives=Durability.NOTHING, notes=("in memory",))

MISSED = Row(
    what="sets: speed against raw",
    unit="x",
    figures=(0.3, 0.31, 0.32),
    target=Target(relation=">=", limit=0.55),
    why_missed="two pages of the log where raw writes one",
)
UNEXPLAINED = Row(what="memory", unit="KiB", figures=(345.4,), once=True, target=Target(relation="<=", limit=200))
NOISY = Row(what="sets: speed against lmdb", unit="x", figures=(0.8, 1.1, 3), target=Target(relation=">=", limit=1))
MET = Row(what="failed transactions", unit="", figures=(0.0, 0.0, 0.0), target=Target(relation="<=", limit=0))
RECORD = Row(what="longest wait", unit="ms", figures=(12.5, 13.5, 14.5))
ROWS = [MISSED, UNEXPLAINED, NOISY, MET, RECORD]


def one(contender: str, promise: Promise | None, *figures: float, race: str = "sets", **more: Any) -> Series:
    return Series(race=race, contender=contender, promise=promise, figures=figures, **more)


RACE = [
    one("prontodb", DURABLE, 20, 21, 22),
    one("raw", BLOCKING, 10, 11, 12),
    one("lmdb", BLOCKING, 18, 25, 30),
    one("rocksdict", RELAXED, 1, 1.5, 2),
    one("prontodb, relaxed", RELAXED, 1.9, 2.5, 3),
    one("dict", NOTHING, 0.1, 0.2, 0.3),
]
CURVE = [
    one(name, DURABLE, *(us * tasks**-0.5 * part for part in (0.9, 1, 1.1)), race=f"sets, {tasks} tasks",
        family="sets", axis="tasks", at=tasks)
    for tasks in (1, 100, 1_000)
    for name, us in (("lmdb", 400), ("prontodb", 300))
]  # fmt: skip
RATES = [
    one(f"{name} {HOSTILE}", DURABLE, *figures, race="rows", unit="rows/s")
    for name, figures in (("slow", (100, 110, 120)), ("quick", (200, 210, 220)))
]


def scenario(name: str, *, failed: str | None = None, **found: Any) -> dict[str, Any]:
    return scenario_json(name, f"How fast are {name}?", Findings(**found), 1.25, failed)


def report(*scenarios: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A report as it comes back from its file."""
    made = {
        "format": FORMAT,
        "at": "2025-01-02T03:04:05+00:00",
        "command": "python -m benchmarks sets",
        "quick": False,
        "rounds": 3,
        "machine": {
            "processor": "Made Up 9000",
            "cores": 4,
            "system": "Linux 6.1",
            "file_system": "ext4",
            "load": [0.25, 0.5, 0.75],
            "python": "3.11.7",
            "implementation": "cpython",
            "prontodb": "0.1.0",
            "sqlite": "3.53.4",
            "packages": {"anyio": "4.16.0"},
        },
        "scenarios": list(scenarios),
    }
    read: dict[str, Any] = json.loads(json.dumps(made | more))
    return read


def whole() -> dict[str, Any]:
    """A report with some of everything."""
    return report(
        scenario("sets", rows=ROWS, series=RACE + CURVE, missing=["redis: not installed"], sync_ms=[0.25, 0.5, 2]),
        scenario("rows", series=RATES, rows=[RECORD]),
        scenario("broken", failed=f"OSError: {HOSTILE}"),
    )

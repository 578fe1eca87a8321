"""From the figures of the scenarios to those of the run: promises, the two designs side by side, the verdict."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from ..plan import Plan
    from .figures import Data

FORMAT = 1
OWN, SHARED = "isolation", "shared-database"
COMMON = ("get", "set", "raise")
"""The operations that both designs were asked for."""
MORE, LESS = "more", "less"
_SPREAD = (("p50", "p50_us", 2), ("p99", "p99_us", 100), ("p99.9", "p999_us", 1_000), ("longest", "max_us", 1))
"""Each with how many values it takes to be told."""


def run_data(
    plan: Plan,
    scenarios: Sequence[Data],
    *,
    promises: Mapping[int, str],
    began_at: datetime,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Data:
    """Return all that report.json holds. Where the root and the report lie is nobody's business, and left out."""
    asked = asdict(plan)
    del asked["root"], asked["report"]
    kept = promises_data(scenarios, promises)
    return {
        "format": FORMAT,
        "command": plan.command(),
        "seed": plan.seed,
        "began_at": began_at.astimezone(UTC).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "versions": dict(versions),
        "plan": {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()},
        "scenarios": list(scenarios),
        "promises": kept,
        "comparison": comparison(scenarios),
        "verdict": "violated" if any(promise["violations"] for promise in kept) else "ok",
    }


def promises_data(scenarios: Sequence[Data], promises: Mapping[int, str]) -> list[Data]:
    """Return each promise: how often it was put to the test, how often it did not hold, by which checks."""
    rows: dict[int, Data] = {
        number: {"number": number, "text": text, "checked": 0, "violations": 0, "by": []}
        for number, text in promises.items()
    }
    for scenario in scenarios:
        for check in scenario["checks"]:
            for found in check["promises"]:
                number = found["number"]
                empty = {"number": number, "text": "", "checked": 0, "violations": 0, "by": []}
                row = rows.setdefault(number, empty)
                row["checked"] += found["checked"]
                row["violations"] += found["violations"]
                if check["check"] not in row["by"]:
                    row["by"].append(check["check"])
    return [rows[number] for number in sorted(rows)]


def comparison(scenarios: Sequence[Data]) -> Data | None:
    """Return our design beside one shared database, row by row; None unless the run had both."""
    by_name = {scenario["name"]: scenario for scenario in scenarios}
    if OWN not in by_name or SHARED not in by_name:
        return None
    own, shared = by_name[OWN], by_name[SHARED]
    rows = [
        _row("acknowledged get, set and raise", "ops/s", MORE, own, shared, _throughput),
        _row("failed transactions", "operations", LESS, own, shared, _failed),
        _row("share of transactions that failed", "%", LESS, own, shared, _failed_percent),
        _row("slowest agent against fastest", "ratio", MORE, own, shared, lambda data: _fairness(data, "ratio")),
        _row("fairness between agents (Jain)", "index", MORE, own, shared, lambda data: _fairness(data, "jain")),
        _row("longest time an agent got nothing done", "s", LESS, own, shared, _pause_s),
    ]
    for op in ("get", "set"):
        for name, figure, least in _SPREAD:
            rows.append(_row(f"{op}, {name}", "us", LESS, own, shared, partial(_spread, op, figure, least)))
    return {"own": OWN, "shared": SHARED, "rows": rows}


def _row(what: str, unit: str, better: str, own: Data, shared: Data, figure: Any) -> Data:
    return {"what": what, "unit": unit, "better": better, "own": figure(own), "shared": figure(shared)}


def _latency(data: Data, op: str) -> Data:
    found: Data = next((row for row in data["latency"] if row["op"] == op), {})
    return found


def _spread(op: str, figure: str, least: int, data: Data) -> float | None:
    row = _latency(data, op)
    return row[figure] if row.get("count", 0) >= least else None


def _done(data: Data) -> int:
    return sum(_latency(data, op).get("count", 0) for op in COMMON)


def _failed(data: Data) -> int:
    rows = [_latency(data, op) for op in COMMON]
    return sum(row.get("failed", 0) + row.get("unknown", 0) for row in rows)


def _throughput(data: Data) -> float | None:
    return round(_done(data) / data["seconds"], 1) if data["seconds"] else None


def _failed_percent(data: Data) -> float | None:
    asked = _done(data) + _failed(data)
    return round(100 * _failed(data) / asked, 3) if asked else None


def _fairness(data: Data, figure: str) -> float | None:
    found = data["fairness"]
    return found[figure] if found else None


def _pause_s(data: Data) -> float | None:
    found = data["longest_pause"]
    return found["seconds"] if found else None

"""What was found, as it stands in the JSON, and back: everything that is shown is made from this alone."""

from __future__ import annotations

import json
import math
from statistics import median
from types import UnionType
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Row, Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.measure import Findings

Data = dict[str, Any]

FORMAT = 2
REPORT = {"at": str, "command": str, "quick": bool, "rounds": int, "machine": dict, "scenarios": list}
MACHINE: dict[str, type | UnionType] = {
    **dict.fromkeys(("processor", "system", "file_system", "implementation", "python", "sqlite"), str),
    **{"cores": int, "load": list, "packages": dict},
}
SCENARIO: dict[str, type | UnionType] = {"name": str, "failed": str | None, "missing": list, "rows": list}
ROW: dict[str, type | UnionType] = {"what": str, "unit": str, "figures": list, "why_missed": str}
"""What tables are made from, in a report, of its machine, in each of its scenarios, and in each row of these."""
RESULTS, PAGE = "benchmarks.json", "index.html"


class ReportError(Exception):
    """A report cannot be used; the message is one line."""


def load(path: Path) -> Data:
    """Return a report, by its file or its folder; raises ReportError when there is none of this format."""
    place = path / RESULTS if path.is_dir() else path
    try:
        found: Data = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{place} cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ReportError(f"{place} is no benchmark report of format {FORMAT}")
    try:
        _check(found)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ReportError(f"{place} is no whole benchmark report: {type(error).__name__}: {error}") from error
    return found


def _check(results: Data) -> None:
    """Raise LookupError, TypeError or ValueError unless everything is there that tables are made from."""
    _check_types(results, REPORT)
    _check_types(results["machine"], MACHINE)
    load = results["machine"]["load"]
    if not load or not all(map(_is_figure, load)):
        raise TypeError(f"load is {load!r}")
    for scenario in results["scenarios"]:
        _check_types(scenario, SCENARIO)
        for row in scenario["rows"]:
            _check_types(row, ROW)
            # What would end a line or a cell of a table.
            if (
                not row["figures"]
                or not all(map(_is_figure, row["figures"]))
                or set(row["what"] + row["unit"]) & {*"|\n"}
            ):
                raise ValueError(f"a row is {row!r}")
    for row in rows_in(results):
        _ = row.verdict


def _is_figure(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _check_types(data: Data, types: Mapping[str, type | UnionType]) -> None:
    for key, kind in types.items():
        if not isinstance(data[key], kind):
            raise TypeError(f"{key} is {data[key]!r}")


def scenario_json(name: str, question: str, findings: Findings, seconds: float, failed: str | None) -> Data:
    """Return one scenario as it stands in the JSON: every figure of every round, and what follows from them."""
    return {
        "name": name,
        "question": question,
        "seconds": round(seconds, 1),
        "failed": failed,
        "missing": findings.missing,
        "sync_ms": [round(each, 4) for each in findings.sync_ms],
        "rows": [_row_json(row) for row in findings.rows],
        "series": [
            {
                "race": series.race,
                "contender": series.contender,
                "survives": "" if series.promise is None else series.promise.survives,
                "promise": str(series.promise or ""),
                "unit": series.unit,
                "figures": [round(each, 3) for each in series.figures],
                "median": round(median(series.figures), 3),
                "family": series.family,
                "axis": series.axis,
                "at": series.at,
            }
            for series in findings.series
        ],
    }


def _row_json(row: Row) -> Data:
    return {
        "what": row.what,
        "unit": row.unit,
        "target": None if row.target is None else [row.target.relation, row.target.limit],
        "figures": [round(each, 5) for each in row.figures],
        "once": row.once,
        "reached": round(row.reached, 5),
        "spread": [round(each, 5) for each in row.spread],
        "verdict": row.verdict,
        "why_missed": row.why_missed,
    }


def rows_of(scenario: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a scenario, judged anew from their figures."""
    return [
        Row(
            what=row["what"],
            unit=row["unit"],
            figures=tuple(row["figures"]),
            once=row.get("once", False),
            target=None if row["target"] is None else Target(relation=row["target"][0], limit=row["target"][1]),
            why_missed=row["why_missed"],
        )
        for row in scenario["rows"]
    ]


def rows_in(results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of all scenarios."""
    return [row for scenario in results["scenarios"] for row in rows_of(scenario)]

"""What was found, as JSON, as text for a terminal, and as a Markdown table of ops/figures.md."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Row, Series, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.measure import Findings

FORMAT = 2
BUSY = 0.5
"""Load per core, before the run, from which the machine counts as busy with other work."""
UNSTEADY = 3.0
"""A disk whose slowest control took so many times the fastest one is named in the report."""


def scenario_json(name: str, question: str, findings: Findings, seconds: float, failed: str | None) -> dict[str, Any]:
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


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "what": row.what,
        "unit": row.unit,
        "target": None if row.target is None else [row.target.relation, row.target.limit],
        "figures": [round(each, 5) for each in row.figures],
        "reached": round(row.reached, 5),
        "spread": [round(each, 5) for each in row.spread],
        "verdict": row.verdict,
        "why_missed": row.why_missed,
    }


def rows_in(results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a JSON, judged anew from their figures."""
    return [
        Row(
            what=row["what"],
            unit=row["unit"],
            figures=tuple(row["figures"]),
            target=None if row["target"] is None else Target(relation=row["target"][0], limit=row["target"][1]),
            why_missed=row["why_missed"],
        )
        for scenario in results["scenarios"]
        for row in scenario["rows"]
    ]


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit, to three significant digits."""
    places = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.01 else 4
    text = f"{value:,.{places}f}"
    return text + (unit if unit == "x" else f" {unit}" if unit else "")


def _told(row: Row) -> tuple[str, str, str, str, str]:
    low, high = row.spread
    target = "" if row.target is None else f"{row.target.relation} {row.target.limit:g}{_space(row.unit)}"
    spread = f"{figure(low, '')}..{figure(high, '')}" if len(row.figures) > 1 else "once"
    return row.what, target, figure(row.reached, row.unit), spread, row.verdict


def _space(unit: str) -> str:
    return unit if unit in ("", "x") else f" {unit}"


def rows_text(rows: Sequence[Row]) -> str:
    """Return rows in columns, ratios first."""
    head = ("", "target", "reached", "spread", "verdict")
    return _columns([head, *map(_told, rows)]) if rows else ""


def series_text(series: Iterable[Series]) -> str:
    """Return the absolute figures in columns."""
    lines = [("", "contender", "", "spread", "promise")]
    seen = ""
    for each in series:
        lines.append(
            (
                each.race if each.race != seen else "",
                each.contender,
                figure(median(each.figures), each.unit),
                f"{figure(min(each.figures), '')}..{figure(max(each.figures), '')}",
                str(each.promise or ""),
            )
        )
        seen = each.race
    return _columns(lines) if len(lines) > 1 else ""


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def control_text(sync_ms: Sequence[float]) -> str:
    """Return one line on the disk during a scenario; empty when it was not looked at."""
    if not sync_ms:
        return ""
    low, high = min(sync_ms), max(sync_ms)
    note = "; the disk was unsteady, doubt absolute figures" if high > UNSTEADY * low else ""
    return f"control: a 4 KiB write and sync took {median(sync_ms):.2f} ms ({low:.2f}..{high:.2f}){note}"


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return one line on the machine."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['file_system']}; "
        f"{machine['implementation']} {machine['python']}, SQLite {machine['sqlite']}, {packages}"
    )


def busy_text(machine: Mapping[str, Any]) -> str:
    """Return a warning when others were at work on the machine as the run began; else an empty text."""
    load, cores = machine["load"][0], machine["cores"]
    if load <= cores * BUSY:
        return ""
    return (
        f"The machine was busy with other work (load {load:g} on {cores} cores before the run): "
        "repeat it on a quiet one before quoting figures."
    )


def markdown(results: Mapping[str, Any]) -> str:
    """Return a table of ops/figures.md: every figure stands in the JSON, none is typed."""
    lines = ["| | target | reached | spread | |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_told(row))} |" for row in rows_in(results)]
    missing = [f"Missing: {line}." for scenario in results["scenarios"] for line in scenario["missing"]]
    lines += [
        "",
        f"`{results['command']}`, {results['rounds']} rounds, on {results['at'][:10]}, "
        f"{machine_text(results['machine'])}.",
        *missing,
    ]
    if busy := busy_text(results["machine"]):
        lines.append(busy)
    if results["quick"]:
        lines.append("A quick run: it shows that everything works, and no figure of it should be quoted.")
    return "\n".join(lines) + "\n"

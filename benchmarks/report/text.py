"""A run as text for a terminal: each scenario's figures, and the summary of all in the end."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.machine import IN_MEMORY
from benchmarks.measure import MET, MISSED, NOISY, spread_of
from benchmarks.report.ranking import TOO_FEW, contests
from benchmarks.report.results import rows_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.measure import Row, Series

BUSY = 0.5
"""Load per core, before the run, from which the machine counts as busy with other work."""
UNSTEADY = 3.0
"""A disk whose slowest control took so many times the fastest one is named in the report."""
UNEXPLAINED = "not explained yet"
_TIMES = ((1e6, "s"), (1e3, "ms"))


def scaled(unit: str, value: float) -> tuple[float, str]:
    """Return by what to divide figures of about this size, and their unit then: long times are not told in us."""
    if unit == "us":
        return next(((size, name) for size, name in _TIMES if abs(value) >= size), (1, "µs"))
    return 1, unit


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit, to three significant digits."""
    size, unit = scaled(unit, value)
    return _digits(value / size) + _space(unit)


def _digits(value: float) -> str:
    places = 0 if value == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.01 else 4
    return f"{value:,.{places}f}"


def span(spread: tuple[float, float], unit: str, middle: float) -> str:
    """Return from where to where figures lie, in the unit that `figure(middle, unit)` is told in."""
    size, _ = scaled(unit, middle)
    return "..".join(_digits(end / size) for end in spread)


def target_text(row: Row) -> str:
    """Return what a figure should be; empty without a target."""
    return "" if row.target is None else f"{row.target.relation} {row.target.limit:g}{_space(row.unit)}"


def spread_text(row: Row) -> str:
    """Return a row's spread, or that there was nothing to vary."""
    if len(row.figures) > 1:
        return span(row.spread, row.unit, row.reached)
    return "once" if row.once else "1 round"


def told(row: Row) -> tuple[str, str, str, str, str]:
    """Return the cells of a row: what, target, reached, spread, verdict."""
    return row.what, target_text(row), figure(row.reached, row.unit), spread_text(row), row.verdict


def reason(row: Row) -> str:
    """Return why a target is missed; empty for any other row."""
    return (row.why_missed or UNEXPLAINED) if row.verdict == MISSED else ""


def _space(unit: str) -> str:
    return unit if unit in ("", "x") else f" {unit}"


def rows_text(rows: Sequence[Row]) -> str:
    """Return rows in columns, ratios first."""
    head = ("", "target", "reached", "spread", "verdict")
    return _columns([head, *map(told, rows)]) if rows else ""


def series_text(series: Iterable[Series]) -> str:
    """Return the absolute figures in columns."""
    lines = [("", "contender", "", "spread", "promise")]
    seen = ""
    for each in series:
        middle = median(each.figures)
        lines.append(
            (
                each.race if each.race != seen else "",
                each.contender,
                figure(middle, each.unit),
                span(spread_of(each.figures), each.unit, middle),
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


def verdict_text(results: Mapping[str, Any]) -> str:
    """Return what became of the targets, in one sentence."""
    found = Counter(row.verdict for row in rows_in(results) if row.target is not None)
    if not found:
        return "No target was measured"
    words = {MET: "met", MISSED: "missed", NOISY: "too noisy to tell"}
    parts = [f"{found[verdict]} {said}" for verdict, said in words.items() if found[verdict]]
    count = found.total()
    return f"{count} target{'s' * (count > 1)}: {', '.join(parts)}"


def summary_text(results: Mapping[str, Any]) -> str:
    """Return the end of a run: the targets, the missed ones with their reasons, and who was ahead in each race."""
    rows = rows_in(results)
    parts = [verdict_text(results)]
    for verdict, title in ((MISSED, "missed"), (NOISY, "too noisy")):
        lines = [line for row in rows if row.verdict == verdict for line in _verdict_lines(row)]
        if lines:
            parts.append("\n".join((f"{title}:", *lines)))
    ranked = [line for scenario in results["scenarios"] for line in _ranking_lines(scenario)]
    if ranked:
        parts.append("\n".join(("each race, by what an acknowledged write survives:", *ranked)))
    parts += [f"warning: {warning}" for warning in warnings(results)]
    return "\n\n".join(parts)


def _verdict_lines(row: Row) -> list[str]:
    why = reason(row)
    line = f"  {row.what}: {figure(row.reached, row.unit)} ({spread_text(row)}), target {target_text(row)}"
    return [line, f"    {why}"] if why else [line]


def _ranking_lines(scenario: Mapping[str, Any]) -> list[str]:
    lines = []
    for contest in contests(scenario):
        said = [(each, each.said) for each in contest.classes if each.said not in ("", TOO_FEW)]
        if said:
            lines.append(f"  {contest.name}")
            lines += [f"    {each.title}: {words}" for each, words in said]
    return lines


def is_unsteady(sync_ms: Sequence[float]) -> bool:
    """True when the disk was quick at one time and slow at another."""
    return bool(sync_ms) and max(sync_ms) > UNSTEADY * min(sync_ms)


def control_text(sync_ms: Sequence[float]) -> str:
    """Return one line on the disk during a scenario; empty when it was not looked at."""
    if not sync_ms:
        return ""
    low, high = min(sync_ms), max(sync_ms)
    note = "; the disk was unsteady, doubt absolute figures" if is_unsteady(sync_ms) else ""
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


def memory_text(machine: Mapping[str, Any]) -> str:
    """Return a warning when there was no disk; else an empty text."""
    if machine["file_system"] not in IN_MEMORY:
        return ""
    return "This file system is memory; syncs cost nothing here. Use --report on a disk."


def quick_text(results: Mapping[str, Any]) -> str:
    """Return a warning after a quick run; else an empty text."""
    said = "A quick run: it shows that everything works, and no figure of it should be quoted."
    return said if results["quick"] else ""


def warnings(results: Mapping[str, Any]) -> list[str]:
    """Return what must be known before a figure of a run is believed."""
    machine, scenarios = results["machine"], results["scenarios"]
    unsteady = [scenario["name"] for scenario in scenarios if is_unsteady(scenario["sync_ms"])]
    failed = [scenario["name"] for scenario in scenarios if scenario["failed"]]
    found = [
        quick_text(results),
        busy_text(machine),
        memory_text(machine),
        f"The disk was unsteady during {', '.join(unsteady)}: doubt absolute figures there." if unsteady else "",
        f"Could not run: {', '.join(failed)}." if failed else "",
    ]
    return [warning for warning in found if warning]

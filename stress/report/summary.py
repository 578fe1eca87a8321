"""The end of a run as text: what was done, what was found, and how to do it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .digest import (
    LATENCY_HEADS,
    broken_promises,
    checked,
    fairness_text,
    faults_by_name,
    leaks,
    load_text,
    matrix_text,
    outcome_text,
    pause_text,
    spread_texts,
    violations_of,
)
from .units import clean, count, figure, some

if TYPE_CHECKING:
    from collections.abc import Sequence

Data = dict[str, Any]

_GREEN, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[1;31m", "\x1b[1m", "\x1b[0m"
_INDENT = "  "
_MAX_LEAKS, _MAX_NOTES = 10, 10


def summary(data: Data, *, colour: bool = False) -> str:
    """Return the summary of a run, several lines with an end of line each. `colour`: for a terminal that wants it."""
    paint = _Paint(colour)
    lines: list[str] = []
    for scenario in data["scenarios"]:
        lines += [*_scenario(scenario, paint), ""]
    if data["comparison"]:
        lines += [*_comparison(data["comparison"], paint), ""]
    for scenario in data["scenarios"]:
        lines += _violations(scenario, data, paint)
    return "\n".join([*lines, _last_line(data, paint)]) + "\n"


class _Paint:
    """Colours text, or leaves it as it is."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def good(self, text: str) -> str:
        return self._in(_GREEN, text)

    def bad(self, text: str) -> str:
        return self._in(_RED, text)

    def strong(self, text: str) -> str:
        return self._in(_BOLD, text)

    def _in(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._on else text


def _scenario(scenario: Data, paint: _Paint) -> list[str]:
    broken = violations_of(scenario)
    verdict = paint.bad(some(broken, "violation")) if broken else paint.good("ok")
    facts = [clean(scenario["question"]), load_text(scenario), outcome_text(scenario)]
    if scenario["errors"]:
        facts.append("errors: " + _counts(scenario["errors"]))
    made = {name: len(faults) for name, faults in faults_by_name(scenario).items()}
    facts.append("faults: " + (_counts(made) or "none"))
    facts += [clean(f"fault skipped: {skipped['name']}: {skipped['reason']}") for skipped in scenario["skipped_faults"]]
    body = [*facts, *_latencies(scenario)]
    if fairness := fairness_text(scenario):
        body += ["", clean(f"fairness: {fairness}"), clean(f"longest time without result: {pause_text(scenario)}")]
    if scenario["matrix"]:
        body += _matrix(scenario, paint)
    body += _checks(scenario, paint)
    notes = [clean(f"note: {note}") for note in scenario["notes"]]
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES:] = [f"... and {some(len(notes) - _MAX_NOTES, 'more note')} in the report"]
    return [
        f"{paint.strong(clean(scenario['name']))}: {verdict}",
        *(f"{_INDENT}{line}".rstrip() for line in [*body, *notes]),
    ]


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{clean(name)} {count(number)}" for name, number in numbers.items())


def _latencies(scenario: Data) -> list[str]:
    rows: list[tuple[str, ...]] = [("operation", "ok", "not ok", *LATENCY_HEADS)]
    for row in scenario["latency"]:
        rows.append((clean(row["op"]), count(row["count"]), count(row["failed"] + row["unknown"]), *spread_texts(row)))
    for row in scenario["waits"]:
        rows.append((clean(row["op"]), count(row["count"] - row["refused"]), count(row["refused"]), *spread_texts(row)))
    return ["", *_table(rows)] if len(rows) > 1 else []


def _matrix(scenario: Data, paint: _Paint) -> list[str]:
    found = leaks(scenario)
    if not found:
        return [f"isolation: {matrix_text(scenario)}"]
    lines = [paint.bad(f"isolation: {matrix_text(scenario)}")]
    lines += [
        f"{_INDENT}{clean(reader)} could read {some(number, 'token')} of {clean(owner)}"
        for reader, owner, number in found[:_MAX_LEAKS]
    ]
    if len(found) > _MAX_LEAKS:
        lines.append(f"{_INDENT}... and {some(len(found) - _MAX_LEAKS, 'more pair')} in the report")
    return lines


def _checks(scenario: Data, paint: _Paint) -> list[str]:
    if not scenario["checks"]:
        return ["", "nothing was checked"]
    rows: list[tuple[str, ...]] = [("check", "questions", "violations", "undecided", "promises")]
    for check in scenario["checks"]:
        promises = ", ".join(str(promise["number"]) for promise in check["promises"])
        figures = (count(check[name]) for name in ("checked", "violations", "undecided"))
        rows.append((clean(check["check"]), *figures, promises))
    head, *lines = _table(rows, left=(0, 4))
    painted = [
        paint.bad(line) if check["violations"] else line for line, check in zip(lines, scenario["checks"], strict=True)
    ]
    notes = [clean(f"{check['check']}: {note}") for check in scenario["checks"] for note in check["notes"]]
    return ["", head, *painted, *notes]


def _comparison(found: Data, paint: _Paint) -> list[str]:
    rows = [("", found["own"], found["shared"])]
    rows += [
        (row["what"], figure(row["own"], row["unit"]), figure(row["shared"], row["unit"])) for row in found["rows"]
    ]
    cleaned = [tuple(clean(cell) for cell in row) for row in rows]
    return [paint.strong("one keystore for each agent, beside one shared database"), *_indented(_table(cleaned))]


def markdown(data: Data) -> str:
    """Return the two designs side by side as a Markdown table, with the command and the machine under it."""
    found, machine = data["comparison"], data["machine"]
    rows = [f"| | {found['own']} | {found['shared']} |", "|---|---|---|"]
    rows += [
        f"| {row['what']} | {figure(row['own'], row['unit'])} | {figure(row['shared'], row['unit'])} |"
        for row in found["rows"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}, {machine['file_system']}"
    return "\n".join([*rows, "", f"`{data['command']}`, on {data['began_at'][:10]}, {where}; {versions}."])


def _violations(scenario: Data, data: Data, paint: _Paint) -> list[str]:
    lines: list[str] = []
    for violation in scenario["violations"]:
        said = f"{scenario['name']}, check {violation['check']}, promise {violation['promise']}: {violation['text']}"
        lines += [
            paint.bad("violation") + " " + clean(said),
            *_indented([clean(line) for line in violation["stretch"]]),
        ]
    left_out = violations_of(scenario) - len(scenario["violations"])
    if left_out > 0:
        lines.append(f"... and {some(left_out, 'more violation')} in {clean(scenario['name'])}")
    if lines:
        lines += [f"again, with the seed {data['seed']}:", f"{_INDENT}{clean(scenario['command'])}", ""]
    return lines


def _last_line(data: Data, paint: _Paint) -> str:
    broken = violations_of(data)
    checks, questions, undecided = checked(data)
    faults = sum(len(scenario["faults"]) for scenario in data["scenarios"])
    where = f"{some(len(data['scenarios']), 'scenario')} with {some(faults, 'fault')}"
    if broken:
        promises = ", ".join(map(str, broken_promises(data)))
        return paint.bad(f"stress: {some(broken, 'violation')} in {where}, of promise {promises}; seed {data['seed']}")
    given_up = f", {count(undecided)} undecided" if undecided else ""
    if not checks:
        return f"stress: ok, but nothing was checked in {where}; seed {data['seed']}"
    held = f"stress: ok, {some(checks, 'check')} held ({some(questions, 'question')}{given_up}) in {where}"
    return paint.good(f"{held}; seed {data['seed']}")


def _table(rows: Sequence[tuple[str, ...]], left: tuple[int, ...] = (0,)) -> list[str]:
    """Return the rows with their columns under each other: figures to the right, the columns of `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _indented(lines: list[str]) -> list[str]:
    return [f"{_INDENT}{line}".rstrip() for line in lines]

"""The parts of the page that tell of one scenario, and of the two designs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import charts
from .digest import (
    LATENCY_HEADS,
    fairness_text,
    faults_by_name,
    leaks,
    matrix_text,
    outcome_text,
    pause_text,
    rate,
    spread_texts,
    violations_of,
)
from .markup import SERIES, escaped, figure, scroll_box, table
from .units import NONE, count, moment, seconds, some
from .units import figure as in_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

Data = dict[str, Any]

_MAX_LISTED, _MAX_LEAKS = 400, 40
_CALM, _BAD = "good", "bad"


def scenario_section(scenario: Data, number: int) -> str:
    """Return all that is told of one scenario."""
    broken = violations_of(scenario)
    mark = _mark(some(broken, "violation"), _BAD) if broken else _mark("held", _CALM)
    if not scenario["checks"]:
        mark = _mark("not checked", "warn")
    body = [
        f'<p class="question">{escaped(scenario["question"])}</p>',
        _facts(scenario),
        _throughput(scenario),
        _latencies(scenario),
        _waits(scenario),
        _fairness(scenario),
        _matrix(scenario),
        _checks(scenario),
        _faults(scenario),
        _notes(scenario),
    ]
    return (
        f'<section class="scenario" id="scenario-{number}"><h2>{escaped(scenario["name"])} {mark}</h2>'
        f"{''.join(body)}</section>"
    )


def _mark(text: str, kind: str) -> str:
    return f'<span class="mark {kind}">{escaped(text)}</span>'


def _facts(scenario: Data) -> str:
    pace = rate(scenario)
    facts = [
        ("operations", count(scenario["operations"]), outcome_text(scenario)),
        ("pace", NONE if pace is None else in_unit(pace, "ops/s"), "acknowledged"),
        ("agents", count(scenario["agents"]), some(scenario["addresses"], "address", "addresses")),
        ("time", seconds(scenario["seconds"]), ""),
        ("faults", count(len(scenario["faults"])), _skipped_text(scenario)),
    ]
    items = [
        f"<div><dt>{name}</dt><dd>{escaped(said)}{f'<small>{escaped(more)}</small>' if more else ''}</dd></div>"
        for name, said, more in facts
    ]
    errors = ", ".join(f"{name} {count(number)}" for name, number in scenario["errors"].items())
    told = f'<p class="note">Errors that agents were given: {escaped(errors)}</p>' if errors else ""
    return f'<dl class="facts">{"".join(items)}</dl>{told}'


def _skipped_text(scenario: Data) -> str:
    kinds = len(scenario["skipped_faults"])
    return f"{some(kinds, 'kind')} skipped" if kinds else ""


def _throughput(scenario: Data) -> str:
    if not scenario["operations"]:
        return '<h3>Over time</h3><p class="muted">No operation was recorded.</p>'
    keys = [("", "acknowledged in a second"), ("failed", "failed or of unknown outcome, on a scale of its own")]
    if scenario["faults"]:
        keys += [("fault", "a fault at an instant"), ("lasting", "faults that last")]
    caption = "<b>Operations of a second over the run</b>, and below when which fault was made. Each mark says more."
    return "<h3>Over time</h3>" + figure(lambda width: charts.throughput(scenario, width), caption, _legend(keys))


def _legend(keys: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><span class="box {kind}"></span>{escaped(words)}</li>' for kind, words in keys)
    return f'<ul class="legend">{items}</ul>'


def _latencies(scenario: Data) -> str:
    rows = scenario["latency"]
    if not rows:
        return ""
    left_out = len([row for row in rows if row["count"]]) - SERIES
    more = f" The {SERIES} most frequent operations; the table has all." if left_out > 0 else ""
    caption = (
        f"<b>How long an acknowledged operation took</b>, by percentile: at 99 %, one in a hundred took longer.{more}"
    )
    cells = [
        (
            escaped(row["op"]),
            count(row["count"]),
            count(row["failed"]),
            count(row["unknown"]),
            *map(escaped, spread_texts(row)),
        )
        for row in rows
    ]
    heads = ("operation", "acknowledged", "failed", "unknown", *LATENCY_HEADS)
    return "<h3>Latency</h3>" + _curves(rows, caption) + table(heads, cells, label="Latency of each operation")


def _curves(rows: list[Data], caption: str) -> str:
    shown = [row for row in rows if row["count"]][:SERIES]
    if not shown:
        return ""
    items = "".join(f"<li>{charts.swatch(n)}{escaped(row['op'])}</li>" for n, row in enumerate(shown, 1))
    return figure(lambda width: charts.curves(shown, width), caption, f'<ul class="legend">{items}</ul>')


def _waits(scenario: Data) -> str:
    rows = scenario["waits"]
    if not rows:
        return ""
    caption = (
        "<b>How long it took to open a session</b>: waiting for locks, those included that were refused in the end."
    )
    cells = [
        (escaped(row["op"]), count(row["count"]), count(row["refused"]), *map(escaped, spread_texts(row)))
        for row in rows
    ]
    heads = ("mode", "asked", "refused", *LATENCY_HEADS)
    return "<h3>Waiting for locks</h3>" + _curves(rows, caption) + table(heads, cells, label="Waiting for locks")


def _fairness(scenario: Data) -> str:
    if not scenario["by_agent"]:
        return ""
    words = fairness_text(scenario) or "not all have the same to do here"
    pause = pause_text(scenario)
    caption = (
        f"<b>What each agent got done</b>, the most first: {escaped(words)}. "
        f"Longest time that one got nothing done: {escaped(pause)}."
    )
    slowest = [("slow", "the slowest agent")] if scenario["fairness"] else []
    keys = [("ok2", "acknowledged"), *slowest, ("failed", "failed or of unknown outcome")]
    drawn = figure(lambda width: charts.fairness_bars(scenario, width), caption, _legend(keys))
    return f"<h3>Fairness</h3>{drawn}"


def _matrix(scenario: Data) -> str:
    if not scenario["matrix"]:
        return ""
    found = leaks(scenario)
    drawn = scroll_box(charts.token_matrix(scenario), "Who could read whose token")
    keys = [("own", "its own"), ("leak", "another's: must be empty")]
    words = f"<p>{_mark('leaked', _BAD) if found else _mark('all empty', _CALM)} {escaped(matrix_text(scenario))}.</p>"
    pairs = [f"{reader} could read {some(number, 'token')} of {owner}" for reader, owner, number in found[:_MAX_LEAKS]]
    items = "".join(f"<li>{escaped(pair)}</li>" for pair in pairs)
    more = f"<li>and {some(len(found) - _MAX_LEAKS, 'more pair')}</li>" if len(found) > _MAX_LEAKS else ""
    told = f"<ul>{items}{more}</ul>" if found else ""
    caption = '<p class="note">Each row: the tokens that an agent could read. Each column: whose they are.</p>'
    return f"<h3>Who could read whose token</h3>{words}{told}{caption}{drawn}{_legend(keys)}"


def _checks(scenario: Data) -> str:
    if not scenario["checks"]:
        return '<h3>Checks</h3><p class="muted">No check looked at this scenario.</p>'
    rows = [
        (
            escaped(check["check"]),
            _mark("violated", _BAD) if check["violations"] else _mark("held", _CALM),
            count(check["checked"]),
            count(check["violations"]),
            count(check["undecided"]),
            escaped(", ".join(str(promise["number"]) for promise in check["promises"])),
        )
        for check in scenario["checks"]
    ]
    heads = ("check", "", "questions", "violations", "undecided", "promises")
    notes = [f"{check['check']}: {note}" for check in scenario["checks"] for note in check["notes"]]
    return "<h3>Checks</h3>" + table(heads, rows, label="Checks", texts=(0, 1, 5)) + _note_list(notes)


def _faults(scenario: Data) -> str:
    kinds = faults_by_name(scenario)
    rows = [(escaped(name), _mark("made", "none"), count(len(faults)), _when(faults)) for name, faults in kinds.items()]
    rows += [
        (escaped(skipped["name"]), _mark("skipped", "warn"), "0", escaped(skipped["reason"]))
        for skipped in scenario["skipped_faults"]
    ]
    if not rows:
        return '<h3>Faults</h3><p class="muted">No fault was made.</p>'
    shown = table(("fault", "", "times", "when, or why not"), rows, label="Faults", texts=(0, 1, 3))
    return f"<h3>Faults</h3>{shown}{_fault_list(scenario['faults'])}"


def _when(faults: list[Data]) -> str:
    first, last = (choose(fault["at_s"] for fault in faults) for choose in (min, max))
    lasted = [fault["until_s"] - fault["at_s"] for fault in faults if fault["until_s"] is not None]
    told = f"at {moment(first)}" if len(faults) == 1 else f"from {moment(first)} to {moment(last)}"
    if lasted:
        told += f"; {'lasted' if len(lasted) == 1 else 'the longest lasted'} {seconds(max(lasted))}"
    return escaped(told)


def _fault_list(faults: list[Data]) -> str:
    if not faults:
        return ""
    rows = [
        (
            escaped(moment(fault["at_s"])),
            escaped(fault["name"]),
            "" if fault["until_s"] is None else escaped(seconds(fault["until_s"] - fault["at_s"])),
            escaped(fault["target"]),
            escaped(fault["text"]),
        )
        for fault in faults[:_MAX_LISTED]
    ]
    left_out = len(faults) - _MAX_LISTED
    more = f"<p>And {count(left_out)} more, in report.json.</p>" if left_out > 0 else ""
    shown = table(("at", "fault", "lasted", "made to", ""), rows, label="Every fault", texts=(0, 1, 3, 4))
    return f"<details><summary>Each of them, one by one</summary>{shown}{more}</details>"


def _notes(scenario: Data) -> str:
    return f"<h3>Notes</h3>{_note_list(scenario['notes'])}" if scenario["notes"] else ""


def _note_list(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    return f'<ul class="note">{items}</ul>' if items else ""


def comparison_section(found: Data) -> str:
    """Return our design beside one shared database."""
    rows = []
    for row in found["rows"]:
        own, shared = row["own"], row["shared"]
        cells = []
        for value, other, kind in ((own, shared, "own-bar"), (shared, own, "shared-bar")):
            words = escaped(in_unit(value, row["unit"]))
            bold = f'<span class="better">{words}</span>' if _is_better(value, other, row["better"]) else words
            cells.append(bold + charts.pair_bar(value, other, kind))
        rows.append((escaped(row["what"]), *cells))
    heads = (
        "",
        f"one keystore for each agent<br>{escaped(found['own'])}",
        f"one database for all<br>{escaped(found['shared'])}",
    )
    shown = table(heads, rows, label="Two designs side by side", texts=(0, 1, 2))
    words = "The same load on both, on this machine. Bars compare the figures of their row; the better one is bold."
    return (
        f'<section id="beside"><h2>Beside one shared database</h2><p>{words}</p>'
        f'<div class="beside">{shown}</div></section>'
    )


def _is_better(value: float | None, other: float | None, better: str) -> bool:
    if value is None or other is None:
        return False
    return value > other if better == "more" else value < other

"""The report as one page of HTML that opens from disk: no network, no scripts, nothing but what the JSON says."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from benchmarks.measure import MET, MISSED, NOISY
from benchmarks.report import charts
from benchmarks.report.ranking import better, class_title, contests, growths
from benchmarks.report.results import rows_in, rows_of
from benchmarks.report.text import (
    control_text,
    figure,
    machine_text,
    reason,
    span,
    spread_text,
    target_text,
    verdict_text,
    warnings,
)
from stress.report.markup import command, document, escaped, fact_list
from stress.report.markup import figure as drawing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measure import Row
    from benchmarks.report.ranking import Class, Contest, Growth, Line, Standing

Data = dict[str, Any]

_VERDICTS = ((MISSED, "bad", "Missed"), (NOISY, "warn", "Too noisy to tell"), (MET, "good", "Met"))
_KINDS = {verdict: kind for verdict, kind, _ in _VERDICTS}
_AMOUNTS = {"us": "time per operation"}


def page(results: Data) -> str:
    """Return the page of a run, from what benchmarks.json holds and nothing else."""
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return document(
        f"{verdict_text(results)} - ProntoDB benchmarks",
        _header(results),
        "<main>",
        _targets(rows_in(results)),
        *(_scenario(scenario, n) for n, scenario in enumerate(results["scenarios"], 1)),
        "</main>",
        _footer(results),
        style=style,
    )


def _header(results: Data) -> str:
    machine = results["machine"]
    day, _, hour = str(results["at"]).partition("T")
    where = f"{machine['cores']} cores, {machine['system']}, {machine['file_system']}"
    python = f"{machine['implementation']} {machine['python']}, SQLite {machine['sqlite']}"
    facts = [
        ("measured on", f"{escaped(day)}<small>{escaped(hour)}</small>"),
        ("machine", f"{escaped(machine['processor'])}<small>{escaped(where)}</small>"),
        ("prontodb", f"{escaped(machine['prontodb'])}<small>{escaped(python)}</small>"),
        ("rounds", escaped(results["rounds"])),
    ]
    items = "".join(f"<li>{escaped(warning)}</li>" for warning in warnings(results))
    doubts = f'<ul class="warnings" aria-label="Warnings">{items}</ul>' if items else ""
    return (
        f'<header><p class="eyebrow">ProntoDB benchmarks</p><h1>{escaped(verdict_text(results))}</h1>{doubts}'
        f"{fact_list(facts)}{command(results['command'])}{_navigation(results)}{_reading()}</header>"
    )


def _navigation(results: Data) -> str:
    links = [("targets", "Targets")]
    links += [(f"scenario-{n}", scenario["name"]) for n, scenario in enumerate(results["scenarios"], 1)]
    items = "".join(f'<li><a href="#{place}">{escaped(name)}</a></li>' for place, name in links)
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>'


def _reading() -> str:
    return (
        '<p class="note">Ratios come from contenders that ran in the same turn: they carry to other machines, absolute '
        "figures do not. A figure is the median of the rounds; its spread holds the true median, and a target inside "
        "it is neither met nor missed. Contenders are ranked only beside those whose acknowledged writes survive the "
        "same, and the fastest is named only when no other spread reaches into its own.</p>"
    )


def _targets(rows: Sequence[Row]) -> str:
    bodies = []
    for verdict, kind, title in _VERDICTS:
        found = [row for row in rows if row.target is not None and row.verdict == verdict]
        if found:
            mark = f'<span class="mark {kind}">{escaped(title)} {len(found)}</span>'
            lines = "".join(_target_row(row) for row in found)
            bodies.append(f'<tbody><tr><th colspan="3" scope="rowgroup" class="group">{mark}</th></tr>{lines}</tbody>')
    if not bodies:
        return '<section id="targets"><h2>Targets</h2><p class="muted">No target was measured.</p></section>'
    heads = '<th scope="col" class="what"></th><th scope="col" class="figure">target</th>'
    heads += '<th scope="col" class="figure">reached</th>'
    heads += '<th scope="col" class="chart"><div><span>10x short of it</span><span>10x beyond it</span></div></th>'
    return (
        '<section id="targets"><h2>Targets</h2><table class="targets">'
        f"<thead><tr>{heads}</tr></thead>{''.join(bodies)}</table></section>"
    )


def _target_row(row: Row) -> str:
    why = reason(row)
    told = f"<small>{escaped(why)}</small>" if why else ""
    return (
        f'<tr><th scope="row">{escaped(row.what)}{told}</th><td class="figure">{escaped(target_text(row))}</td>'
        f'{_figure_cell(row)}<td class="chart">{charts.beside_target(row)}</td></tr>'
    )


def _figure_cell(row: Row) -> str:
    return f'<td class="figure">{escaped(figure(row.reached, row.unit))}<small>{escaped(spread_text(row))}</small></td>'


def _scenario(scenario: Data, number: int) -> str:
    control = control_text(scenario["sync_ms"])
    missing = "".join(f"<li>{escaped(line)}</li>" for line in scenario["missing"])
    parts = [
        f'<p class="question">{escaped(scenario["question"])}</p>',
        f'<p class="failed">Could not run: {escaped(scenario["failed"])}</p>' if scenario["failed"] else "",
        _rows(rows_of(scenario)),
        *(_growth(growth) for growth in growths(scenario)),
        *(_contest(contest) for contest in contests(scenario)),
        f'<h3>Missing</h3><ul class="note">{missing}</ul>' if missing else "",
        f'<p class="note">{escaped(control)}</p>' if control else "",
    ]
    return (
        f'<section class="scenario" id="scenario-{number}"><h2>{escaped(scenario["name"])}</h2>'
        f"{''.join(parts)}</section>"
    )


def _rows(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escaped(row.what)}</th>{_figure_cell(row)}'
        f'<td class="figure target">{escaped(target_text(row))}</td>'
        f'<td class="verdict">{_mark(row.verdict)}</td></tr>'
        for row in rows
    )
    heads = '<th scope="col" class="what"></th><th scope="col" class="figure">reached</th>'
    heads += '<th scope="col" class="figure target">target</th><th scope="col" class="verdict"></th>'
    return f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'


def _mark(verdict: str) -> str:
    return f'<span class="mark {_KINDS[verdict]}">{escaped(verdict)}</span>' if verdict else ""


def _growth(growth: Growth) -> str:
    panels = "".join(_panel(growth, survives, lines) for survives, lines in growth.classes)
    return f"<h3>{escaped(growth.family)}, over {escaped(growth.axis)}</h3>{panels}"


def _panel(growth: Growth, survives: str, lines: Sequence[Line]) -> str:
    caption = f"<b>{escaped(class_title(survives))}</b>: {_scale_text(growth.unit)}, both scales logarithmic"
    items = "".join(
        f"<li>{n} {charts.swatch(n, is_ours=line[0].is_ours)}{escaped(line[0].contender)}</li>"
        for n, line in enumerate(lines, 1)
    )
    return drawing(lambda width: charts.curves(growth, lines, width), caption, f'<ul class="legend">{items}</ul>')


def _scale_text(unit: str) -> str:
    return f"{escaped(_AMOUNTS.get(unit, unit or 'a number'))}, {better(unit)}"


def _contest(contest: Contest) -> str:
    scale, ticks = charts.scale_of(contest)
    bodies = ""
    for each in contest.classes:
        lines = "".join(_standing(one, charts.bar(one, scale, ticks)) for one in each.ranked)
        bodies += f"<tbody>{_class_row(each)}{lines}</tbody>"
    log = ", logarithmic scale" if scale.log else ""
    foot = f'<tfoot><tr><td></td><td class="bars">{charts.axis(scale, ticks, contest.unit)}</td><td></td></tr></tfoot>'
    return (
        f'<h3>{escaped(contest.name)}</h3><p class="note">{_scale_text(contest.unit)}{log}</p>'
        f'<table class="race"><colgroup><col class="name"><col><col class="last"></colgroup>{bodies}{foot}</table>'
    )


def _class_row(each: Class) -> str:
    said = f' <span class="said">{escaped(each.said)}</span>' if each.said else ""
    return f'<tr><th colspan="3" scope="rowgroup" class="group">{escaped(each.title)}{said}</th></tr>'


def _standing(one: Standing, drawn: str) -> str:
    notes = f"<small>{escaped(one.notes)}</small>" if one.notes else ""
    spread = span(one.spread, one.unit, one.median) if len(one.figures) > 1 else "once"
    return (
        f'<tr{_ours(one)}><th scope="row">{escaped(one.contender)}{notes}</th><td class="bars">{drawn}</td>'
        f'<td class="figure">{escaped(figure(one.median, one.unit))}<small>{escaped(spread)}</small></td></tr>'
    )


def _ours(one: Standing) -> str:
    return ' class="ours"' if one.is_ours else ""


def _footer(results: Mapping[str, Any]) -> str:
    load = ", ".join(map(str, results["machine"]["load"]))
    return (
        f"<footer><p><b>Measured on</b> {escaped(machine_text(results['machine']))}; "
        f"load before the run {escaped(load)}.</p>"
        "<p>All figures of this page stand in benchmarks.json beside it.</p></footer>"
    )

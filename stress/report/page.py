"""The report as one page of HTML that opens from disk: no network, no scripts, nothing but what the data says."""

from __future__ import annotations

from typing import Any

from .digest import broken_promises, checked, violations_of
from .markup import command, document, escaped, fact_list, literal, scroll_box, table
from .sections import comparison_section, scenario_section
from .units import count, size, some

Data = dict[str, Any]


def page(data: Data) -> str:
    """Return the page of a run, from what report.json holds and nothing else."""
    return document(
        f"{_verdict(data)} - ProntoDB stress",
        _header(data),
        "<main>",
        _violations(data),
        _promises(data),
        comparison_section(data["comparison"]) if data["comparison"] else "",
        *(scenario_section(scenario, n) for n, scenario in enumerate(data["scenarios"], 1)),
        "</main>",
        _footer(data),
    )


def _verdict(data: Data) -> str:
    broken = violations_of(data)
    if broken:
        return some(broken, "violation")
    return "Every tested promise held" if checked(data)[0] else "Nothing was checked"


def _header(data: Data) -> str:
    kind = "violated" if violations_of(data) else "ok" if checked(data)[0] else "unchecked"
    return (
        f'<header class="{kind}"><p class="eyebrow">ProntoDB stress report</p><h1>{escaped(_verdict(data))}</h1>'
        f'<p class="lead">{_lead(data)}</p>{_facts(data)}'
        f"{command(data['command'])}{_navigation(data)}</header>"
    )


def _lead(data: Data) -> str:
    scenarios = data["scenarios"]
    checks, questions, undecided = checked(data)
    faults = sum(len(scenario["faults"]) for scenario in scenarios)
    told = f"{some(len(scenarios), 'scenario')}, {some(faults, 'fault')} made on purpose. "
    if checks:
        asked = f"{some(checks, 'check')} put {some(questions, 'question')}"
        told += f"Afterwards {asked} to what was recorded and to what was left on disk."
    else:
        told += "No check was made afterwards, so that nothing is known."
    if undecided:
        told += f" {some(undecided, 'question')} could not be decided in reasonable time."
    broken = broken_promises(data)
    if broken:
        told += f" Did not hold: promise {', '.join(map(str, broken))}."
    return escaped(told)


def _facts(data: Data) -> str:
    scenarios = data["scenarios"]
    agents = max((scenario["agents"] for scenario in scenarios), default=0)
    began, _, zone = str(data["began_at"]).replace("T", " ").partition("+")
    day, _, hour = began.partition(" ")
    facts = [
        ("began", f"{escaped(day)}<small>{escaped(hour)} {'UTC' if zone == '00:00' else escaped(zone)}</small>"),
        ("operations", count(sum(scenario["operations"] for scenario in scenarios))),
        ("agents", count(agents)),
        ("seed", escaped(data["seed"])),
        ("versions", f"{escaped(data['versions'].get('prontodb', ''))}<small>{_other_versions(data)}</small>"),
    ]
    return fact_list(facts)


def _other_versions(data: Data) -> str:
    versions = data["versions"]
    return escaped(f"{versions.get('python', '')}, SQLite {versions.get('sqlite', '')}")


def _navigation(data: Data) -> str:
    links = [("promises", "Promises")]
    if violations_of(data):
        links.insert(0, ("violations", "Violations"))
    if data["comparison"]:
        links.append(("beside", "Beside one shared database"))
    links += [(f"scenario-{n}", scenario["name"]) for n, scenario in enumerate(data["scenarios"], 1)]
    items = "".join(f'<li><a href="#{place}">{escaped(name)}</a></li>' for place, name in links)
    return f'<nav aria-label="Sections"><ul>{items}</ul></nav>'


def _violations(data: Data) -> str:
    articles = [_violation(scenario, found) for scenario in data["scenarios"] for found in scenario["violations"]]
    left_out = violations_of(data) - len(articles)
    if not violations_of(data):
        return ""
    more = f"<p>And {some(left_out, 'more violation')} of the same checks.</p>" if left_out > 0 else ""
    return f'<section id="violations"><h2>Violations</h2>{"".join(articles)}{more}</section>'


def _violation(scenario: Data, found: Data) -> str:
    head = f"Promise {found['promise']}: {found['text']}"
    lines = "\n".join(literal(line) for line in found["stretch"])
    shown = scroll_box(f"<pre>{lines}</pre>", "The shortest stretch of history that shows it") if lines else ""
    return (
        f'<article class="violation"><h3>{escaped(head)}</h3>'
        f"<p>Found by the check {escaped(found['check'])} in {escaped(scenario['name'])}"
        f"{'; the shortest stretch of history that shows it:' if lines else '.'}</p>{shown}"
        f'<p class="muted">The same operations and faults again:</p>'
        f"{command(scenario['command'])}</article>"
    )


def _promises(data: Data) -> str:
    tested = [promise for promise in data["promises"] if promise["checked"] or promise["violations"]]
    others = [promise for promise in data["promises"] if promise not in tested]
    rows = [
        (
            count(promise["number"]),
            escaped(promise["text"]),
            _mark(promise["violations"]),
            count(promise["checked"]),
            count(promise["violations"]),
            escaped(", ".join(promise["by"])),
        )
        for promise in tested
    ]
    heads = ("No.", "promise", "", "tested", "violations", "by the checks")
    shown = "<p>No promise was put to the test.</p>"
    if rows:
        shown = table(heads, rows, label="Promises", texts=(0, 1, 2, 5))
    if others:
        items = "".join(f"<li>{promise['number']}. {escaped(promise['text'])}</li>" for promise in others)
        said = f"{some(len(others), 'promise')} not put to the test by this run"
        shown += f'<details><summary>{said}</summary><ul class="note">{items}</ul></details>'
    return f'<section id="promises"><h2>Promises</h2><div class="prose">{shown}</div></section>'


def _mark(violations: int) -> str:
    return '<span class="mark bad">violated</span>' if violations else '<span class="mark good">held</span>'


def _footer(data: Data) -> str:
    machine, versions = data["machine"], data["versions"]
    tools = [name for name in ("strace", "libfaketime") if machine.get(name)]
    facts = [
        str(machine.get("processor", "")),
        some(machine.get("cores") or 0, "core"),
        f"{size(machine.get('memory_bytes'))} of memory",
        str(machine.get("kernel", "")),
        f"file system {machine.get('file_system', 'unknown')}",
        f"load {', '.join(map(str, machine.get('load', [])))}",
        f"tools: {', '.join(tools) or 'none'}",
    ]
    # Python says its name itself, as it has several.
    others = [version if version[:1].isalpha() else f"{name} {version}" for name, version in versions.items()]
    return (
        f"<footer><p><b>Made on</b> {escaped(', '.join(facts))}.</p><p><b>With</b> {escaped(', '.join(others))}.</p>"
        "<p>All figures of this page stand in report.json beside it.</p></footer>"
    )

"""Figures as Markdown: a report's table, and those of ops/figures.md and README.md, written between marks.

Every figure stands in a report; none is typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.measure import LEAST_ROUNDS
from benchmarks.report.results import ReportError, rows_in, rows_of
from benchmarks.report.text import busy_text, machine_text, quick_text, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchmarks.measure import Row

END = "<!-- end -->"
AGAINST = " --against "
"""In the command of a report: not everybody was invited."""
_MISSING = "Missing: "
_PLACE = re.compile(rf"<!-- benchmarks ([\w-]+) -->\n(.*?){END}", re.DOTALL)
"""Where the tables of one scenario stand in ops/figures.md."""
_CHOSEN = re.compile(rf"(<!-- benchmarks -->\n)(.*?){END}", re.DOTALL)
"""Where the chosen rows stand in README.md: the text of a row says which."""
_ROUNDS = re.compile(r"(?<=`), \d+(?: to \d+)? rounds")


def markdown(results: Mapping[str, Any]) -> str:
    """Return one table of all rows of a report, and what they were measured with."""
    missing = [line for scenario in results["scenarios"] for line in scenario["missing"]]
    rows = rows_in(results)
    return "\n".join([*_table("", rows), "", *_origin(results, rows, missing)]) + "\n"


def _table(title: str, rows: Iterable[Row]) -> list[str]:
    head = [f"| {title}{' ' * bool(title)}| target | reached | spread | |", "|---|---|---|---|---|"]
    return head + [f"| {' | '.join(told(row))} |" for row in rows]


def _origin(results: Mapping[str, Any], rows: Iterable[Row], missing: Sequence[str]) -> list[str]:
    line = f"`{results['command']}`, {_rounds_text(rows)}on {results['at'][:10]}, {machine_text(results['machine'])}."
    said = [line, *(f"{_MISSING}{each}." for each in missing), busy_text(results["machine"]), quick_text(results)]
    return [each for each in said if each]


def _rounds_text(rows: Iterable[Row]) -> str:
    """Return how many rounds these rows have, which may be fewer than were asked for; empty when none is of rounds."""
    counts = [len(row.figures) for row in rows if not row.once]
    if not counts:
        return ""
    return _between(counts)


def _between(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least} round{'s' * (least > 1)}, " if least == most else f"{least} to {most} rounds, "


def figures_with(paper: str, reports: Sequence[Mapping[str, Any]], *, replace: bool = False) -> str:
    """Return ops/figures.md with all rows of the reports; scenarios that none of them ran stay as they are.

    A scenario's figures are those of the latest report that has it. Raises ReportError when one has no place in the
    paper, when a report is of a quick run or of few rounds, and, unless it may `replace` whatever is there, when rows
    of the paper would be lost or when some of the contenders were not invited.
    """
    found: dict[str, str] = {}
    for results in sorted(reports, key=lambda results: str(results["at"])):
        if results["quick"]:
            raise ReportError("a report is of a quick run: no figure of it should be quoted")
        if results["rounds"] < LEAST_ROUNDS:
            raise ReportError(f"a report has {results['rounds']} rounds: run at least {LEAST_ROUNDS} to quote figures")
        if AGAINST in results["command"] and not replace:
            raise ReportError("a report was made with --against: some rows may lack; --replace takes it all the same")
        for scenario in results["scenarios"]:
            if scenario["failed"] is None:
                found[scenario["name"]] = _block(results, scenario)
    places = {name for name, _ in _PLACE.findall(paper)}
    if homeless := sorted(found.keys() - places):
        marks = f"<!-- benchmarks {homeless[0]} --> and {END}"
        raise ReportError(f"{homeless[0]} has no place among the figures: put {marks} in lines of their own there")
    if not replace:
        _check_kept(paper, found)
    return _PLACE.sub(lambda place: _marked(place[1], found.get(place[1], place[2])), paper)


def _check_kept(paper: str, found: Mapping[str, str]) -> None:
    """Raise ReportError when a row of the paper stands in none of the blocks that were found for its scenario."""
    for name, inner in _PLACE.findall(paper):
        kept = [_what(line) for line in _rows(found.get(name, inner).splitlines())]
        for line in _rows(inner.splitlines()):
            if _what(line) not in kept:
                lost = f"a row of {name} is not in the report: {_what(line)}"
                raise ReportError(f"{lost}; run it with all contenders, or use --replace to drop such rows")


def _marked(name: str, inner: str) -> str:
    return f"<!-- benchmarks {name} -->\n{inner}{END}"


def _block(results: Mapping[str, Any], scenario: Mapping[str, Any]) -> str:
    rows = rows_of(scenario)
    origin = _origin(results, rows, scenario["missing"])
    table = [*_table(f"`{scenario['name']}`", rows), ""] if rows else []
    return "\n".join(["", *table, *origin, "", ""])


@dataclass(frozen=True, slots=True)
class _Printed:
    """One row as it stands in ops/figures.md, and what stands below its table."""

    line: str
    origin: tuple[str, ...]


def _printed(paper: str) -> Iterator[tuple[str, _Printed]]:
    """Yield each row of ops/figures.md by its text."""
    for _, inner in _PLACE.findall(paper):
        lines = [line for line in inner.splitlines() if line]
        origin = tuple(line for line in lines if not line.startswith("|"))
        yield from ((_what(line), _Printed(line, origin)) for line in _rows(lines))


def _rows(lines: Iterable[str]) -> list[str]:
    """Return a table's rows, without its head."""
    return [line for line in lines if line.startswith("|")][2:]


def _what(line: str) -> str:
    return line.split("|")[1].strip()


def readme_with(readme: str, paper: str) -> str:
    """Return README.md with the rows that it shows as they stand in ops/figures.md.

    Raises ReportError when there is no such row, or when two have the same text.
    """
    place = _CHOSEN.search(readme)
    if place is None:
        raise ReportError(f"the README has no place for figures: no <!-- benchmarks --> and {END}")
    found: dict[str, _Printed] = {}
    for what, printed in _printed(paper):
        if what in found:
            raise ReportError(f"two rows have the same text: {what}")
        found[what] = printed
    wanted = [_what(line) for line in _rows(place[2].splitlines())]
    if unknown := [what for what in wanted if what not in found]:
        raise ReportError(f"a row of the README is in no report: {unknown[0]}")
    chosen = [found[what] for what in wanted]
    origins = _once_each(line for one in chosen for line in one.origin if not line.startswith(_MISSING))
    inner = "\n".join([*_table("", ()), *(one.line for one in chosen), "", *_paragraphs(origins), ""])
    return readme[: place.start(2)] + inner + readme[place.end(2) :]


def _once_each(lines: Iterable[str]) -> list[str]:
    """Return the lines that say what rows were measured with, one for each run, with the fewest and the most rounds.

    That of rows measured once says no rounds.
    """
    counts: dict[str, list[int]] = {}
    for line in lines:
        said = _ROUNDS.search(line)
        rounds = counts.setdefault(_ROUNDS.sub("", line), [])
        if said is not None:
            rounds += [int(count) for count in re.findall(r"\d+", said[0])]
    return [bare.replace("`, ", f"`, {_between(rounds)}", 1) if rounds else bare for bare, rounds in counts.items()]


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from (line, "")

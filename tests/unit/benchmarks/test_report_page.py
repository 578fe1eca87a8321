"""The page shows what the report holds and nothing else, obeys none of it, and needs nothing from anywhere."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import DURABLE
from benchmarks.report.charts import log_ticks
from benchmarks.report.page import page
from benchmarks.report.ranking import standings_of
from benchmarks.report.results import rows_in
from benchmarks.report.text import figure, span, spread_text, target_text
from stress.report.units import clean
from tests.pages import CHROMIUM, Reader, in_browser
from tests.unit.benchmarks.made_reports import HOSTILE, NOISY, RACE, RECORD, one, report, scenario, whole

CROWD = [
    one(f"a store of a name that is long, number {n}", DURABLE, us, us * 1.1, us * 1.2, race=f"sets, {tasks}",
        family="sets of many stores", axis="tasks", at=tasks)
    for tasks in (1, 10, 100, 10_000)
    for n, us in enumerate((1, 1.01, 1.02, 5, 50, 51, 52, 500, 5_000, 5_001, 90_000, 90_001, 90_002, 90_003), 1)
]  # fmt: skip
PAGES = {
    "whole": whole(),
    "empty": report(),
    "crowd": report(scenario("sets", series=CROWD)),
    "long": report(scenario("sets", rows=[NOISY, RECORD] * 20, series=RACE)),
}


def cells(text: str, kind: str) -> list[str]:
    """The figures in the cells of the tables."""
    return [Reader(cell).text.replace("\xa0", " ") for cell in re.findall(rf'<td class="{kind}">(.*?)</td>', text)]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_whole_and_fetches_and_runs_nothing(name: str) -> None:
    text = page(PAGES[name])
    read = Reader(text)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & set(read.names)
    names = {name for _, name, _ in read.attributes}
    assert not {"src", "srcset", "style", "action", "data", "background"} & names
    assert not [name for name in names if name.startswith("on")]
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    places = [value for _, name, value in read.attributes if name == "id"]
    assert {value for _, name, value in read.attributes if name == "href"} == {f"#{place}" for place in places}


def test_hostile_text_everywhere_is_shown_and_not_obeyed() -> None:
    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            # These are read and not only shown.
            return value if key in ("format", "target") else value + HOSTILE
        if isinstance(value, list):
            return [spoilt(each, key) for each in value]
        return {name: spoilt(each, name) for name, each in value.items()} if isinstance(value, dict) else value

    for made in (whole(), spoilt(whole())):
        text = page(made)
        assert "<script" not in text
        assert all(letter.isprintable() or letter == "\n" for letter in text.replace("\xa0", " "))
        assert clean(HOSTILE) in Reader(text).text


def test_every_figure_of_the_page_stands_in_the_report() -> None:
    made = whole()
    known = {target_text(row) for row in rows_in(made)}
    known |= {f"{figure(row.reached, row.unit)} {spread_text(row)}" for row in rows_in(made)}
    standings = [standing for each in made["scenarios"] for standing in standings_of(each)]
    known |= {f"{figure(each.median, each.unit)} {span(each.spread, each.unit, each.median)}" for each in standings}
    shown = cells(page(made), "figure")
    assert len(shown) > 25
    assert [said for said in shown if said not in known] == []
    changed = whole()
    for row in changed["scenarios"][0]["rows"]:
        row["figures"] = [each + 7_000 for each in row["figures"]]
    assert sum(said.startswith("7,") for said in cells(page(changed), "figure")) == 9  # 4 targets twice, and 1 without


def test_a_missed_target_has_its_reason_or_says_that_there_is_none() -> None:
    targets = page(whole()).partition('id="targets"')[2].partition("</section>")[0]
    said = [Reader(row).text for row in re.findall(r'<th scope="row">(.*?)</th>', targets)]
    assert said == [
        "sets: speed against raw two pages of the log where raw writes one",
        "memory not explained yet",
        "sets: speed against lmdb",
        "failed transactions",
    ]
    heads = [Reader(head).text for head in re.findall(r'class="group">(.*?)</th>', targets)]
    assert heads == ["Missed 2", "Too noisy to tell 1", "Met 1"]


def test_the_verdict_and_what_casts_doubt_on_it_come_first() -> None:
    header = Reader(page(whole()).partition("<header")[2].partition("<nav")[0]).text
    for said in (
        "4 targets: 1 met, 2 missed, 1 too noisy to tell",
        "The disk was unsteady during sets",
        "Could not run: broken",
        "Made Up 9000",
        "2025-01-02",
        "python -m benchmarks sets",
    ):
        assert said in header
    busy = report(scenario("sets"), quick=True) | {"machine": whole()["machine"] | {"load": [9, 9, 9]}}
    header = Reader(page(busy)).text
    assert "busy with other work" in header
    assert "no figure of it should be quoted" in header
    assert "No target was measured" in header


def test_each_class_is_ranked_in_a_group_of_its_own() -> None:
    table = page(report(scenario("sets", series=RACE))).partition('<table class="race">')[2].partition("</table>")[0]
    groups = [Reader(f"{body}</tbody>").text for body in re.findall(r"<tbody>.*?(?=</tbody>)", table)]
    assert [group.partition(" fastest")[0].partition(" too noisy")[0] for group in groups][:2] == [
        "survives power loss",
        "survives process crash",
    ]
    assert [("fastest: raw" in group, "too noisy to name one of rocksdict" in group) for group in groups] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert 'class="ours"' in table


def test_each_chart_says_which_way_is_better() -> None:
    text = Reader(page(whole())).text
    assert "time per operation, lower is better, logarithmic scale" in text
    assert "rows/s, higher is better" in text


def test_a_family_is_a_curve_whose_lines_are_numbered_and_named() -> None:
    text = page(whole())
    wide, narrow = re.findall(r'<div class="(?:wide|narrow)">(.*?)</div>', text)
    assert ["1 prontodb" in drawn for drawn in (wide, narrow)] == [True, False]
    assert wide.count("<polyline") == narrow.count("<polyline") == 2
    legend = Reader(text.partition('<ul class="legend">')[2].partition("</ul>")[0]).text
    assert legend == "1 prontodb 2 lmdb"


def test_marks_of_a_logarithmic_scale_hold_all_that_is_drawn() -> None:
    for least, most in ((3, 480), (1, 10), (0.02, 9_000), (5, 5), (9.9, 10.1)):
        ticks = log_ticks(least, most)
        assert ticks[0] <= least
        assert most <= ticks[-1]
        assert 2 <= len(ticks) <= 8


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_never_scrolls_sideways_and_fetches_nothing(tmp_path: Path) -> None:
    answers = in_browser(tmp_path, {name: page(made) for name, made in PAGES.items()})
    for name, answer in answers.items():
        assert answer["scroll"] <= answer["inner"], name
        assert (answer["fetched"], answer["cut"], answer["small"]) == ([], [], []), name
        assert (answer["texts"] > 10) == name.startswith(("whole", "crowd"))

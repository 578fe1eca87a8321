"""The tables of our papers are written from reports, and from nothing else."""

from dataclasses import replace

import pytest

from benchmarks.listing import SCENARIOS
from benchmarks.measure import Row
from benchmarks.report.markdown import figures_with, markdown, readme_with
from benchmarks.report.results import ReportError
from tests.house.source import ROOT
from tests.unit.benchmarks.made_reports import MET, MISSED, RECORD, UNEXPLAINED, report, scenario

PAPER = """# Figures

## Sets
Words.

<!-- benchmarks sets -->
old
<!-- end -->

## Gets

<!-- benchmarks gets -->

| `gets` | target | reached | spread | |
|---|---|---|---|---|
| get |  | 9.00x | 8.00..10.0 |  |

`an older command`
<!-- end -->

Last words.
"""
README = """# Readme

<!-- benchmarks -->
| | target | reached | spread | |
|---|---|---|---|---|
| failed transactions | | old | | |
| get | | old | | |

old
<!-- end -->

Last words.
"""
ROW = "| failed transactions | <= 0 | 0 | 0..0 | met |"
RUN = "`python -m benchmarks sets`, 3 rounds, on 2025-01-02, Made Up 9000, 4 cores, "


def sets(**more: object) -> dict[str, object]:
    return report(scenario("sets", rows=[MISSED, MET], missing=["redis: not installed"]), **more)


def test_the_table_is_written_from_the_json() -> None:
    lines = markdown(sets()).splitlines()
    assert lines[:4] == [
        "| | target | reached | spread | |",
        "|---|---|---|---|---|",
        "| sets: speed against raw | >= 0.55x | 0.31x | 0.30..0.32 | missed |",
        ROW,
    ]
    assert lines[5].startswith(RUN)
    assert lines[6] == "Missing: redis: not installed."


def test_a_reports_rows_replace_those_of_its_scenarios_alone() -> None:
    written = figures_with(PAPER, [sets()])
    assert written.startswith("# Figures\n\n## Sets\nWords.\n\n<!-- benchmarks sets -->\n\n| `sets` | target |")
    assert f"\n{ROW}\n\n{RUN}" in written
    assert "Missing: redis: not installed.\n" in written
    assert written.partition("## Gets")[2] == PAPER.partition("## Gets")[2]
    assert "old\n" not in written.partition("## Gets")[0]
    assert figures_with(written, [sets()]) == written
    assert figures_with(PAPER, []) == PAPER


def test_the_latest_report_of_a_scenario_counts() -> None:
    later = report(scenario("sets", rows=[RECORD]), at="2025-01-03T00:00:00+00:00")
    for given in ([sets(), later], [later, sets()]):
        assert "| longest wait |" in figures_with(PAPER, given)
        assert ROW not in figures_with(PAPER, given)


def test_a_scenario_that_could_not_run_keeps_its_figures() -> None:
    assert figures_with(PAPER, [report(scenario("gets", failed="OSError"))]) == PAPER


def test_what_cannot_be_written_is_refused_in_one_line() -> None:
    with pytest.raises(ReportError, match="sweep has no place among the figures"):
        figures_with(PAPER, [report(scenario("sweep", rows=[RECORD]))])
    with pytest.raises(ReportError, match="no figure of it should be quoted"):
        figures_with(PAPER, [sets(quick=True)])
    with pytest.raises(ReportError, match="a row of the README is in no report: failed transactions"):
        readme_with(README, PAPER)
    with pytest.raises(ReportError, match="two rows have the same text: get"):
        readme_with(README, PAPER.replace("old\n", "||\n|-|\n| get | 1 |\n"))
    with pytest.raises(ReportError, match="the README has no place"):
        readme_with("# Readme\n", PAPER)


def test_a_run_of_too_few_rounds_is_refused() -> None:
    with pytest.raises(ReportError, match="a report has 2 rounds: run at least 3"):
        figures_with(PAPER, [sets(rounds=2)])


def test_a_row_of_the_paper_is_lost_only_where_that_is_asked_for() -> None:
    paper = figures_with(PAPER, [sets()])
    fewer = report(scenario("sets", rows=[MISSED, RECORD]))
    with pytest.raises(ReportError, match=r"a row of sets is not in the report: failed transactions; .* --replace"):
        figures_with(paper, [fewer])
    written = figures_with(paper, [fewer], replace=True)
    assert ROW not in written
    assert "| longest wait |" in written
    assert figures_with(paper, [report(scenario("sets", failed="OSError"))]) == paper


def test_a_run_to_which_not_all_were_invited_is_taken_only_where_that_is_asked_for() -> None:
    some = sets(command="python -m benchmarks sets --against lmdb")
    with pytest.raises(ReportError, match="made with --against"):
        figures_with(PAPER, [some])
    assert ROW in figures_with(PAPER, [some], replace=True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([MISSED, MET], "`, 3 rounds, on "),
        ([MISSED, replace(MET, figures=(0.0,) * 7)], "`, 3 to 7 rounds, on "),
        ([replace(MET, figures=(0.0,)), UNEXPLAINED], "`, 1 round, on "),
        ([UNEXPLAINED], "sets`, on "),
        ([UNEXPLAINED, MISSED], "`, 3 rounds, on "),
    ],
)
def test_below_a_table_stands_how_many_rounds_its_own_rows_have(rows: list[Row], said: str) -> None:
    made = report(scenario("sets", rows=rows), rounds=7)
    assert said in figures_with(PAPER, [made])
    assert said in markdown(made)


def test_the_readme_shows_its_rows_word_for_word_and_what_they_were_measured_with() -> None:
    written = readme_with(README, figures_with(PAPER, [sets()]))
    before, _, after = written.partition("|---|---|---|---|---|\n")
    assert before == README.partition("|---")[0]
    assert after.startswith(f"{ROW}\n| get |  | 9.00x | 8.00..10.0 |  |\n\n{RUN}")
    assert after.endswith("\n\n`an older command`\n\n<!-- end -->\n\nLast words.\n")
    assert "redis" not in written
    assert readme_with(written, figures_with(PAPER, [sets()])) == written


def test_the_readme_names_a_run_once_for_rows_of_rounds_and_rows_measured_once() -> None:
    both = report(scenario("sets", rows=[MET]), scenario("gets", rows=[replace(UNEXPLAINED, what="get", once=True)]))
    written = readme_with(README, figures_with(PAPER, [both], replace=True))
    assert written.count("`, 3 rounds, on ") == written.count(" on 2025-01-02, ") == 1


def test_the_readme_names_a_run_once_for_rows_of_more_and_of_fewer_rounds() -> None:
    fewer = replace(UNEXPLAINED, what="get", figures=(1.0, 2.0, 3.0, 4.0, 5.0), once=False)
    both = report(scenario("sets", rows=[MET]), scenario("gets", rows=[fewer]))
    written = readme_with(README, figures_with(PAPER, [both], replace=True))
    assert written.count("`, 3 to 5 rounds, on ") == written.count(" on 2025-01-02, ") == 1
    assert readme_with(written, figures_with(PAPER, [both], replace=True)) == written


def test_our_papers_are_as_the_command_writes_them() -> None:
    paper = (ROOT / "ops" / "figures.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_with(readme, paper) == readme


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_has_its_place_among_the_figures(name: str) -> None:
    paper = (ROOT / "ops" / "figures.md").read_text(encoding="utf-8")
    assert f"<!-- benchmarks {name} -->\n" in paper

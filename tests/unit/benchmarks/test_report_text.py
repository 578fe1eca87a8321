"""What a report says is what was measured."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from benchmarks.contenders import DURABLE
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.machine import PACKAGES, describe
from benchmarks.measure import Findings, Row, Series, Target
from benchmarks.report.results import ReportError, load, rows_in, scenario_json
from benchmarks.report.text import (
    control_text,
    figure,
    rows_text,
    series_text,
    span,
    summary_text,
    verdict_text,
    warnings,
)
from tests.unit.benchmarks.made_reports import report, scenario, whole

ROWS = [
    Row(what="sets: speed against raw", unit="x", figures=(0.6, 0.7, 0.8), target=Target(relation=">=", limit=0.55)),
    Row(what="memory", unit="KiB", figures=(146.4,), once=True, target=Target(relation="<=", limit=200)),
    Row(what="failed transactions", unit="", figures=(0.0, 0.0)),
]
SERIES = [Series(race="sets", contender="ours", promise=DURABLE, figures=(20.0, 10.0, 30.0), axis="tasks", at=1)]


def results(folder: Path) -> dict[str, Any]:
    found = Findings(rows=ROWS, series=SERIES, missing=["lmdb: not installed"], sync_ms=[0.25, 0.5])
    return {
        "format": 2,
        "at": "2025-01-02T03:04:05+00:00",
        "command": "python -m benchmarks sets",
        "quick": False,
        "rounds": 3,
        "machine": describe(folder),
        "scenarios": [scenario_json("sets", "How fast?", found, 1.234, None)],
    }


def test_rows_come_back_from_json_as_they_were(tmp_path: Path) -> None:
    assert rows_in(json.loads(json.dumps(results(tmp_path)))) == ROWS


def test_the_json_holds_every_figure_and_the_verdict(tmp_path: Path) -> None:
    scenario = results(tmp_path)["scenarios"][0]
    assert scenario["rows"][0] == {
        "what": "sets: speed against raw",
        "unit": "x",
        "target": [">=", 0.55],
        "figures": [0.6, 0.7, 0.8],
        "once": False,
        "reached": 0.7,
        "spread": [0.6, 0.8],
        "verdict": "met",
        "why_missed": "",
    }
    assert scenario["series"][0] == {
        "race": "sets",
        "contender": "ours",
        "survives": "power loss",
        "promise": "survives power loss",
        "unit": "us",
        "figures": [20.0, 10.0, 30.0],
        "median": 20.0,
        "family": "",
        "axis": "tasks",
        "at": 1,
    }
    assert scenario["sync_ms"] == [0.25, 0.5]


def test_the_machine_is_described_without_naming_host_or_folders(tmp_path: Path) -> None:
    facts = describe(tmp_path)
    assert facts["cores"]
    assert facts["sqlite"]
    assert str(tmp_path) not in json.dumps(facts)


def test_the_versions_of_all_that_take_part_are_recorded(tmp_path: Path) -> None:
    packages = describe(tmp_path)["packages"]
    assert isinstance(packages, dict)
    assert packages["aiosqlite"] == version("aiosqlite")
    assert ("redis-server" in packages) == (which("redis-server") is not None)
    peers = {(kind.package or kind.needs[0]).partition("[")[0] for kind in CONTENDERS.values() if kind.needs}
    assert peers <= set(PACKAGES)


def test_a_report_is_found_by_its_file_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text(json.dumps(whole()))
    assert load(tmp_path) == load(tmp_path / "benchmarks.json") == whole()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2}', "[" * 200_000, None])
def test_what_is_no_report_is_refused_in_one_line(content: str | None, tmp_path: Path) -> None:
    place = tmp_path / "benchmarks.json"
    if content is not None:
        place.write_text(content)
    with pytest.raises(ReportError) as raised:
        load(place)
    assert str(place) in str(raised.value)
    assert "\n" not in str(raised.value)


def without(report: dict[str, Any], *path: Any) -> dict[str, Any]:
    inner: Any = report
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return report


@pytest.mark.parametrize(
    "path",
    [
        ("scenarios",),
        ("rounds",),
        ("machine", "load"),
        ("scenarios", 0, "failed"),
        ("scenarios", 0, "rows", 0, "what"),
        ("scenarios", 0, "rows", 0, "figures", slice(None)),
    ],
)
def test_a_report_of_which_a_part_is_gone_is_refused_in_one_line(path: tuple[Any, ...], tmp_path: Path) -> None:
    place = tmp_path / "benchmarks.json"
    place.write_text(json.dumps(without(whole(), *path)))
    with pytest.raises(ReportError, match="no whole benchmark report") as raised:
        load(place)
    assert "\n" not in str(raised.value)


ROW = ("scenarios", 0, "rows", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("machine", "load"), []),
        (("machine", "load"), ["x"]),
        ((*ROW, "what"), 5),
        ((*ROW, "what"), "two | cells"),
        ((*ROW, "what"), "two\nlines"),
        ((*ROW, "unit"), None),
        ((*ROW, "figures"), [float("nan")]),
        ((*ROW, "figures"), [float("inf"), 1]),
        ((*ROW, "figures"), ["1"]),
        ((*ROW, "figures"), [10**400]),
    ],
)
def test_a_report_that_no_table_can_be_made_from_is_refused_in_one_line(
    path: tuple[Any, ...], value: object, tmp_path: Path
) -> None:
    report: Any = whole()
    inner = report
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / "benchmarks.json").write_text(json.dumps(report))
    with pytest.raises(ReportError, match="no whole benchmark report") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_whatever_casts_doubt_on_a_run_is_named() -> None:
    assert warnings(report(scenario("sets", sync_ms=[0.2, 0.3]))) == []
    for changed, said in (
        ({"load": [3.0, 0.1, 0.1], "cores": 2}, "busy with other work (load 3 on 2 cores"),
        ({"file_system": "tmpfs"}, "This file system is memory"),
    ):
        (warning,) = warnings(report(machine=whole()["machine"] | changed))
        assert said in warning
    assert [warning.partition(":")[0] for warning in warnings(whole() | {"quick": True})] == [
        "A quick run",
        "The disk was unsteady during sets",
        "Could not run",
    ]


def test_the_summary_has_the_targets_the_reasons_and_who_was_ahead() -> None:
    said = summary_text(whole())
    assert said.startswith("4 targets: 1 met, 2 missed, 1 too noisy to tell\n")
    assert "sets: speed against raw: 0.31x (0.30..0.32), target >= 0.55x\n    two pages of the log where" in said
    assert "memory: 345 KiB (once), target <= 200 KiB\n    not explained yet\n" in said
    assert re.search(r"too noisy:\n  sets: speed against lmdb: 1.10x \(0.80..3.00\), target >= 1x\n\n", said)
    assert "  sets\n    survives power loss: fastest: raw\n    survives process crash: too noisy to name one of" in said
    assert "warning: Could not run: broken." in said
    assert summary_text(report()) == verdict_text(report()) == "No target was measured"


def test_figures_have_three_digits() -> None:
    assert [figure(value, "x") for value in (0.0, 0.00163, 0.256, 5.02, 27.46, 1234.5)] == [
        "0x", "0.0016x", "0.26x", "5.02x", "27.5x", "1,234x",
    ]  # fmt: skip


def test_long_times_are_told_in_larger_units_and_their_spread_in_the_same() -> None:
    assert [figure(us, "us") for us in (0.5, 999, 1_234, 2.5e6)] == ["0.50 µs", "999 µs", "1.23 ms", "2.50 s"]
    assert span((900, 2_500), "us", 1_234) == "0.90..2.50"


def test_text_for_a_terminal_stands_in_columns() -> None:
    lines = rows_text(ROWS).splitlines()
    column = lines[0].index("target")
    assert [line[column : column + 2] for line in lines[1:]] == [">=", "<=", "  "]
    assert "20.0" in series_text(SERIES)
    assert rows_text([]) == series_text([]) == ""


def test_an_unsteady_disk_is_named() -> None:
    assert "unsteady" in control_text([0.2, 0.3, 4.0])
    assert "unsteady" not in control_text([0.2, 0.3, 0.4])
    assert control_text([]) == ""

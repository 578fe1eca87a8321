"""What a report says is what was measured."""

import json
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

from benchmarks.contenders import DURABLE
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.machine import PACKAGES, describe
from benchmarks.measure import Findings, Row, Series, Target
from benchmarks.report import control_text, figure, markdown, rows_in, rows_text, scenario_json, series_text

ROWS = [
    Row(what="sets: speed against raw", unit="x", figures=(0.6, 0.7, 0.8), target=Target(relation=">=", limit=0.55)),
    Row(what="memory", unit="KiB", figures=(146.4,), target=Target(relation="<=", limit=200)),
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


def test_the_table_is_written_from_the_json(tmp_path: Path) -> None:
    lines = markdown(results(tmp_path)).splitlines()
    assert lines[2:5] == [
        "| sets: speed against raw | >= 0.55x | 0.70x | 0.60..0.80 | met |",
        "| memory | <= 200 KiB | 146 KiB | once | met |",
        "| failed transactions |  | 0 | 0..0 |  |",
    ]
    assert lines[6].startswith("`python -m benchmarks sets`, 3 rounds, on 2025-01-02, ")
    assert lines[7] == "Missing: lmdb: not installed."


def test_a_busy_machine_is_named(tmp_path: Path) -> None:
    found = results(tmp_path)
    found["machine"] |= {"load": [0.2, 0.1, 0.1], "cores": 2}
    assert "busy" not in markdown(found)
    found["machine"] |= {"load": [3.0, 0.1, 0.1]}
    assert "busy with other work (load 3 on 2 cores" in markdown(found)


def test_figures_have_three_digits() -> None:
    assert [figure(value, "x") for value in (0.0, 0.00163, 0.256, 5.02, 27.46, 1234.5)] == [
        "0x", "0.0016x", "0.26x", "5.02x", "27.5x", "1,234x",
    ]  # fmt: skip


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

"""`python -m benchmarks` runs whole, leaves a report and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contenders.listing import CONTENDERS
from benchmarks.listing import SCENARIOS

CHECKOUT = Path(__file__).resolve().parents[3]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"TMPDIR": str(folder)},
        text=True,
        capture_output=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_quick_run_goes_through_every_scenario_and_cleans_up(tmp_path: Path) -> None:
    done = run("--quick", "--rounds", "1", "--report", str(tmp_path / "report"), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["benchmarks.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    results = json.loads((tmp_path / "report" / "benchmarks.json").read_text())
    assert [scenario["name"] for scenario in results["scenarios"]] == list(SCENARIOS)
    assert [scenario["failed"] for scenario in results["scenarios"]] == [None] * len(SCENARIOS)
    assert all(scenario["rows"] or scenario["missing"] for scenario in results["scenarios"])

    table = run("table", str(tmp_path / "report" / "benchmarks.json"), folder=tmp_path)
    assert table.returncode == 0
    rows = sum(len(scenario["rows"]) for scenario in results["scenarios"])
    assert sum(line.startswith("| ") for line in table.stdout.splitlines()) == rows + 1
    assert "no figure of it should be quoted" in table.stdout


def test_scenarios_and_contenders_can_be_listed(tmp_path: Path) -> None:
    scenarios, _, contenders = run("--list", folder=tmp_path).stdout.partition("\n\n")
    assert [line.split()[0] for line in scenarios.splitlines()] == list(SCENARIOS)
    assert [line.split()[0] for line in contenders.splitlines()] == list(CONTENDERS)


def test_only_those_that_are_named_take_part_beside_us(tmp_path: Path) -> None:
    done = run(
        "gets", "--quick", "--rounds", "1", "--against", "raw-sqlite", "--report", str(tmp_path), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (scenario,) = json.loads((tmp_path / "benchmarks.json").read_text())["scenarios"]
    assert {one["contender"] for one in scenario["series"]} == {"prontodb", "prontodb, shared session", "raw SQLite"}
    assert scenario["missing"] == []


@pytest.mark.parametrize("arguments", [["no-such"], ["--against", "raw-sqlite,no-such"], ["--rounds", "0"], ["table"]])
def test_what_cannot_be_run_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "usage: python -m benchmarks" in done.stderr

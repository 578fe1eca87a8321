"""The harness's command line: one line for whatever cannot be played, and nothing left behind by it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stress import command
from stress.breaks import BREAKS
from stress.checks import CHECKS
from stress.command import main
from stress.faults import FAULTS
from stress.run import Stage
from stress.scenarios import SCENARIOS
from tests.unit.stress import report_runs

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own to stand in, and below it one for temporary roots."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield tmp_path
    os.umask(before)


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def refused(capsys: Capture, *argv: str) -> str:
    """Run it; it must say one line on stderr, nothing on stdout, and exit 1."""
    code: object
    try:
        code = main(argv)
    except SystemExit as left:  # as argparse does
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("stress: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("stress: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("argv", "known"),
    [
        (("run", "nowhere"), "there is no scenario 'nowhere'; there are: " + ", ".join(SCENARIOS)),
        (("run", "ttl", "nowhere"), "there is no scenario 'nowhere'; there are: " + ", ".join(SCENARIOS)),
        (("run", "ttl", "--faults", "kill,flood"), "there is no fault 'flood'; there are: " + ", ".join(FAULTS)),
        (("run", "ttl", "--break", "glass"), "there is no break 'glass'; there are: " + ", ".join(BREAKS)),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(
    argv: tuple[str, ...], known: str, place: Path, capsys: Capture
) -> None:
    assert refused(capsys, *argv) == known
    assert files(place) == {"temporary"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--agents", "0"), "--agents must be 1 to 1,000, not 0"),
        (("--addresses", "3"), "in isolation every agent has an address of its own: leave out --addresses 3"),
        (("--seconds", "nan"), "--seconds must be more than 0, and have an end: not nan"),
        (("--seconds", "soon"), "argument --seconds: invalid float value: 'soon'"),
        (("--agent", "3"), "unrecognized arguments: --agent 3"),
        (("--break", "double-holder"), "--break double-holder cannot show in isolation; it can in contention, soak"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused_before_anything_is_made(
    argv: tuple[str, ...], sentence: str, place: Path, capsys: Capture
) -> None:
    assert refused(capsys, "run", "isolation", *argv).startswith(sentence)
    assert files(place) == {"temporary"}


def test_what_cannot_be_read_says_where_help_is(capsys: Capture) -> None:
    assert refused(capsys, "run").endswith("; 'python -m stress run --help' has more")
    assert refused(capsys, "jump").endswith("; 'python -m stress --help' has more")


def test_a_break_that_can_show_in_one_of_the_scenarios_is_taken(capsys: Capture, place: Path) -> None:
    (place / "full").mkdir()
    (place / "full" / "x").touch()
    # Refused for the root alone, which is looked at before.
    assert "--root" in refused(capsys, "run", "ttl", "contention", "--break", "double-holder", "--root", "full")


@pytest.mark.parametrize("option", ["--root", "--report"])
def test_a_folder_that_is_not_empty_is_not_touched(option: str, place: Path, capsys: Capture) -> None:
    for name in ("mine/scratch", "mine/history/isolation", "mine/isolation"):
        (place / name).mkdir(parents=True)
        (place / name / "thesis").touch()
    before = files(place)
    sentence = refused(capsys, "run", "isolation", option, "mine")
    assert sentence == f"{option} mine is not empty; give a folder that is, or leave the option out"
    assert refused(capsys, "run", "nowhere", option, "mine") == sentence
    assert files(place) == before


def test_a_report_is_not_written_over(place: Path, capsys: Capture) -> None:
    (place / "old").mkdir()
    (place / "old" / "report.json").write_text("{}")
    assert refused(capsys, "run", "isolation", "--report", "old").startswith("--report old is not empty")
    assert (place / "old" / "report.json").read_text() == "{}"


@pytest.mark.parametrize("option", ["--root", "--report"])
def test_a_file_where_a_folder_should_be_is_one_line(option: str, place: Path, capsys: Capture) -> None:
    (place / "file").touch()
    assert refused(capsys, "run", "isolation", option, "file") == f"{option} file cannot be used: Not a directory"
    below = refused(capsys, "run", "isolation", option, "file/below")
    assert below == f"{option} {place}/file/below cannot be made: Not a directory"


def test_what_an_unexpected_error_leaves_is_kept_and_named(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(stage: Stage, show: object) -> None:
        (stage.root / "evidence").touch()
        raise LookupError("a bug of the harness")

    monkeypatch.setattr(command, "play", fails)
    assert main(["run", "isolation", "--quiet"]) == 1
    (root,) = (place / "temporary").iterdir()
    assert (root / "isolation" / "evidence").exists()
    assert capsys.readouterr().err.splitlines() == [
        f"stress: the data of this run stays in {root}",
        "stress: internal error (LookupError: a bug of the harness); --debug says where",
    ]
    with pytest.raises(ExceptionGroup):
        main(["--debug", "run", "isolation", "--quiet", "--report", "other"])


def test_root_and_report_lie_beside_each_other(capsys: Capture) -> None:
    assert "beside each other" in refused(capsys, "run", "isolation", "--root", "x", "--report", "x/isolation")
    assert "beside each other" in refused(capsys, "run", "isolation", "--root", "x/y", "--report", "x")


def test_list_has_every_scenario_fault_and_break(capsys: Capture, place: Path) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == [*SCENARIOS, *FAULTS, *BREAKS]
    assert all(len(line.split()) > 2 for line in out.splitlines() if line.startswith("  "))
    assert files(place) == {"temporary"}


def test_list_as_json_says_what_this_machine_can_do(capsys: Capture) -> None:
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scenarios"] == {name: one.question for name, one in SCENARIOS.items()}
    assert told["breaks"] == {name: {"check": check, "does": does} for name, (check, does) in BREAKS.items()}
    assert list(told["faults"]) == list(FAULTS)
    assert told["faults"]["kill"] == {"here": True, "why_not": None}
    assert all(one["here"] is (one["why_not"] is None) for one in told["faults"].values())


def test_every_break_has_a_checker_and_scenarios_that_have_both() -> None:
    assert {check for check, _ in BREAKS.values()} <= CHECKS.keys()
    for name, (check, _) in BREAKS.items():
        showing = [scenario for scenario in SCENARIOS.values() if name in scenario.breaks]
        assert showing
        assert all(check in scenario.checks for scenario in showing)
    assert all(set(scenario.checks) <= CHECKS.keys() for scenario in SCENARIOS.values())


def report_of(folder: Path, data: Any) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def test_a_page_is_made_anew_from_its_report(place: Path, capsys: Capture) -> None:
    folder = report_of(place / "r", report_runs.good_run())
    assert main(["report", "r"]) == 0
    assert capsys.readouterr().out == "r/report.html\n"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


WHOLE = json.dumps(report_runs.good_run())


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("", "cannot be read"),
        (WHOLE[: len(WHOLE) // 2], "cannot be read"),
        ("[" * 200_000, "cannot be read"),
        ("[]", "is no report of this harness"),
        ('"format"', "is no report of this harness"),
        ('{"name": "left-pad", "version": "1.0.0"}', "is no report of this harness"),
        ('{"format": 99}', "is no report of this harness, or of another version of it"),
        ('{"format": 1}', "is not what the harness wrote: KeyError"),
        (json.dumps(report_runs.good_run() | {"scenarios": [{}]}), "is not what the harness wrote: KeyError"),
        (json.dumps(report_runs.good_run() | {"scenarios": 7}), "is not what the harness wrote: TypeError"),
        (json.dumps(report_runs.good_run() | {"machine": "fast"}), "is not what the harness wrote"),
    ],
    ids=["empty", "torn", "deep", "list", "text", "foreign", "newer", "hollow", "blank", "number", "machine"],
)
def test_a_report_that_is_none_is_one_line(data: str, sentence: str, place: Path, capsys: Capture) -> None:
    folder = report_of(place / "r", data)
    assert refused(capsys, "report", "r").startswith(f"r/report.json {sentence}")
    assert files(folder) == {"report.json"}


def test_a_report_of_bytes_that_are_no_text_is_one_line(place: Path, capsys: Capture) -> None:
    (report_of(place / "r", "") / "report.json").write_bytes(b"\xff\xfe\x00")
    assert refused(capsys, "report", "r").startswith("r/report.json cannot be read: ")


def test_a_report_that_is_not_there_is_one_line(capsys: Capture) -> None:
    assert refused(capsys, "report", "nowhere").startswith("nowhere/report.json cannot be read: ")


def test_a_page_that_cannot_be_written_is_one_line(place: Path, capsys: Capture) -> None:
    (report_of(place / "r", report_runs.good_run()) / "report.html").mkdir()
    assert refused(capsys, "report", "r") == "r/report.html cannot be written: Is a directory"

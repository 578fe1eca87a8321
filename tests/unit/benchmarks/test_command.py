"""`python -m benchmarks` runs whole, leaves a report and nothing else."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.__main__ import interruptible, main
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.listing import SCENARIOS
from benchmarks.measure import Findings
from benchmarks.report.page import page
from benchmarks.report.text import summary_text

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
def test_a_quick_run_reports_what_it_found_and_cleans_up(tmp_path: Path) -> None:
    # Races and probes, quick ones; `benchmarks/test_scenarios.py` runs them all.
    names = ["gets", "sessions", "one-shot", "footprint"]
    done = run(*names, "--quick", "--rounds", "1", "--report", str(tmp_path / "report"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines())
    places = re.findall(r"^([\w-]+) \((\d+) of \d+(?:, roughly .* left in all)?\)$", done.stderr, re.MULTILINE)
    assert places == [(name, str(number)) for number, name in enumerate(names, 1)]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["benchmarks.json", "index.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    results = json.loads((tmp_path / "report" / "benchmarks.json").read_text())
    assert [scenario["name"] for scenario in results["scenarios"]] == names
    assert [scenario["failed"] for scenario in results["scenarios"]] == [None] * len(names)
    assert all(scenario["rows"] or scenario["missing"] for scenario in results["scenarios"])
    assert page(results) == (tmp_path / "report" / "index.html").read_text()
    assert done.stdout.partition("== summary\n")[2].startswith(summary_text(results))
    texts = [row["what"] for scenario in results["scenarios"] for row in scenario["rows"]]
    assert len(texts) == len(set(texts)), "the README finds a row by its text"
    assert [text for text in texts if re.search(r"\d\.\d", text)] == [], "measured, so that it changes with every run"

    table = run("table", str(tmp_path / "report"), folder=tmp_path)
    assert table.returncode == 0
    rows = sum(len(scenario["rows"]) for scenario in results["scenarios"])
    assert sum(line.startswith("| ") for line in table.stdout.splitlines()) == rows + 1
    assert "no figure of it should be quoted" in table.stdout

    refused = run("figures", str(tmp_path / "report"), folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "a report is of a quick run: no figure of it should be quoted\n"


@pytest.mark.slow
def test_pytest_benchmark_saves_and_compares_class_by_class(tmp_path: Path) -> None:
    storage = tmp_path / "stored"

    def rounds(*options: str) -> subprocess.CompletedProcess[str]:
        program = [
            sys.executable,
            "-m",
            "pytest",
            "benchmarks",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'run'}",
        ]
        chosen = ["-k", "open and close and read", "--benchmark-enable", f"--benchmark-storage={storage}", *options]
        return subprocess.run([*program, *chosen], cwd=CHECKOUT, text=True, capture_output=True, timeout=300)

    first = rounds("--benchmark-compare")
    assert first.returncode == 0, first.stdout
    assert "No benchmark files" in first.stderr
    assert rounds("--benchmark-autosave").returncode == 0
    (saved,) = storage.rglob("*.json")
    benches = {bench["params"]["name"]: bench for bench in json.loads(saved.read_text())["benchmarks"]}
    file, session = benches["the keystore's file alone"], benches["prontodb, read session"]
    assert (file["extra_info"]["promise"], session["extra_info"]["promise"]) == ("survives power loss", "")
    race = "open and close, read session"
    assert (file["group"], session["group"]) == (f"{race}: survives power loss", race)
    compared = rounds("--benchmark-compare")
    assert compared.returncode == 0
    assert compared.stdout.count("(NOW)") == compared.stdout.count("(0001_") == len(benches)


def descendants(session: int) -> list[str]:
    """Those that run in a session, by their command lines."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if (place / "stat").read_text().rpartition(")")[2].split()[3] == str(session):
                found.append((place / "cmdline").read_text())
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_ends_the_whole_run_and_leaves_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ["processes", "sessions", "--rounds", "2", "--report", str(report)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        while not list(report.glob("*/processes/root")):  # a worker has made it
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: nothing was written"
    assert "Traceback" not in err
    assert "== sessions" not in out
    assert not report.exists(), "it was made for this run"
    assert descendants(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_end_is_heard_by_work_that_waits_for_no_task(number: int) -> None:
    ended = []

    async def blocks() -> Findings:
        try:
            os.kill(os.getpid(), number)
            return Findings()
        finally:
            ended.append(await asyncio.sleep(0, "cleaned up"))

    async def waits() -> Findings:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")
        return Findings()

    for work in (blocks, waits):
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(interruptible(work()))
    assert ended == ["cleaned up"] * 2


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such"], "no scenario no-such; there are: durable-sets"),
        (["--against", "raw-sqlite,no-such"], "no contender 'no-such'; there are: all and prontodb"),
        (["--against", "all,lmdb"], "no contender 'all'; there are: all, by itself, and prontodb"),
        (["--against", ""], "no contender ''"),
        (["--rounds", "0"], "takes a number from 1 to 1,000, not '0'"),
        (["--rounds", "0000001000999"], "takes a number from 1 to 1,000"),
        (["--rounds", "x"], "takes a number from 1 to 1,000, not 'x'"),
        (["--report", ""], "takes a folder"),
        (["table"], "required: REPORT"),
        (["figures"], "required: REPORT"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("python -m benchmarks")
    assert said in err


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "/proc/nowhere", "taken", "n" * 300])
def test_a_report_that_could_not_be_written_is_refused_before_anything_is_measured(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "taken" / "index.html").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(["protection", "--quick", "--report", str(tmp_path / place)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"no report can be written at {tmp_path / place}: ")
    assert sorted(tmp_path.rglob("*")) == before

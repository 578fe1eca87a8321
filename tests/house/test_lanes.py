"""The gate's lanes: run side by side, each says what failed, and whoever stops them leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.house.source import ROOT

RUN = """
import sys
from pathlib import Path
from ops.lanes import run_lanes
lanes = {name: [run.split() for run in runs.split("+")] for name, runs in (one.split(":") for one in sys.argv[1:])}
sys.exit(0 if run_lanes(lanes, Path.cwd(), heartbeat_s=0.2) else 1)
"""
pytestmark = pytest.mark.slow

GOOD = "def test_good() -> None:\n    pass\n"
BAD = "def test_bad() -> None:\n    left, right = 'this', 'that'\n    assert left == right\n"
MARKED = "import pytest\n@pytest.mark.skip(reason='no such thing here')\ndef test_left_out() -> None:\n    pass\n"
STANDING = """
import os, subprocess, time
def test_standing() -> None:
    alone = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    beside = subprocess.Popen(["sleep", "1000"])
    with open(f"pids-{os.getpid()}", "w") as file:
        file.write(f"{alone.pid} {beside.pid} {os.getpid()}")
    time.sleep(1000)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of tests with settings of its own, and where its lanes keep theirs."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "kept").mkdir()
    return tmp_path


def begun(place: Path, *lanes: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place / "kept")}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *lanes],
        cwd=place,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(place: Path, *lanes: str) -> tuple[int, list[str]]:
    with begun(place, *lanes) as process:
        output, _ = process.communicate()
    return process.returncode, output.splitlines()


def test_lanes_that_pass_end_with_a_line_for_each_run_and_leave_nothing(place: Path) -> None:
    (place / "test_one.py").write_text(GOOD)
    (place / "test_two.py").write_text(MARKED)
    code, lines = said(place, "a:test_one.py", "b:test_two.py+test_one.py")
    assert code == 0, lines
    assert [line.partition(" in ")[0] for line in lines[-3:]] == ["[a] ok", "[b 1/2] ok", "[b 2/2] ok"]
    assert "1 passed" in lines[-1]
    assert "1 skipped" in lines[-2]
    assert list((place / "kept").iterdir()) == []
    assert not (place / ".pytest_cache").exists()


def test_a_failing_test_is_told_in_full_and_hides_nothing_that_follows(place: Path) -> None:
    (place / "test_one.py").write_text(GOOD)
    (place / "test_two.py").write_text(BAD)
    code, lines = said(place, "a:test_one.py", "b:test_two.py+test_one.py")
    assert code == 1, lines
    assert "[b 1/2] test_two.py::test_bad FAILED" in lines
    assert any("AssertionError: assert 'this' == 'that'" in line for line in lines), lines
    (kept,) = (place / "kept").iterdir()
    assert lines[-1].endswith(str(kept))
    assert [line.partition(" in ")[0] for line in lines[-4:-1]] == ["[a] ok", "[b 1/2] FAILED (exit 1)", "[b 2/2] ok"]


@pytest.mark.parametrize(
    ("wrong", "why"), [("test_none.py", "it found no tests"), ("test_no_such_file.py", "not found")]
)
def test_a_run_that_tests_nothing_fails(place: Path, wrong: str, why: str) -> None:
    (place / "test_one.py").write_text(GOOD)
    (place / "test_none.py").write_text("")
    code, lines = said(place, "a:test_one.py", f"b:{wrong}")
    assert code == 1, lines
    assert lines[-2].startswith("[b] FAILED (exit ")
    assert why in lines[-2]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_lanes_say_what_they_were_at_and_take_every_process_with_them(place: Path, signum: int) -> None:
    (place / "test_one.py").write_text(BAD + STANDING)
    (place / "test_two.py").write_text(STANDING)
    with begun(place, "a:test_one.py", "b:test_two.py") as process:
        assert process.stdout is not None
        until_all_stand(process.stdout)
        started = [int(pid) for file in place.glob("pids-*") for pid in file.read_text().split()]
        assert len(started) == 6
        process.send_signal(signum)
        process.send_signal(signum)  # as `timeout` does: to its child, and to the group that it is of
        lines = process.stdout.read().splitlines()
    assert process.returncode == 128 + signum, lines
    stopped = lines.index(f"stopped by {signal.Signals(signum).name}, in the middle of")
    assert "test_one.py::test_standing" in lines[stopped + 1]
    assert "test_two.py::test_standing" in lines[stopped + 2]
    assert any("AssertionError: assert 'this' == 'that'" in line for line in lines), "what failed before is told"
    assert [pid for pid in started if is_running(pid)] == []
    assert list((place / "kept").iterdir()) == []


def until_all_stand(output: IO[str]) -> None:
    """Read until a heartbeat has named the test that each lane stands in."""
    standing: set[str] = set()
    while len(standing) < 2:
        line = output.readline()
        assert line, "it ended by itself"
        standing |= {line[:3]} if "%" in line and "::test_standing (" in line and "(0 s)" not in line else set()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""The harness itself, by its own command: it finds what is broken on purpose, nothing else, and leaves nothing behind.

Loads are bounded by operations where a test needs so many of them, and by seconds where it needs time for faults.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stress.breaks import BREAKS, EARLY_EXPIRY, LEAKY, LOST_ACK, OF_SESSIONS
from stress.faults import FAULTS
from stress.scenarios import SCENARIOS
from tests.unit.cli.harness import CHECKOUT, environment, one_line, spawn, tree
from tests.unit.stress.fields import state_of

PATIENCE_S = 120.0
"""Far beyond what anything here takes; a hang becomes a failure."""
MARK = "STRESS_TEST_RUN"
"""An environment variable that all processes of one test inherit. PRONTODB_... are kept from agents."""
PAUSE_S = 0.02

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@dataclass
class Place:
    """Where a harness is run, and what it leaves there."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.temporary = self.folder / "temporary"
        self.report = self.folder / "report"
        self.temporary.mkdir(parents=True)

    def words(self, *argv: str) -> dict[str, Any]:
        """What to start: a command of the harness, here."""
        more = {"TMPDIR": str(self.temporary), MARK: self.mark}
        return {
            "args": [sys.executable, "-m", "stress", *argv],
            "cwd": self.folder,
            "env": environment(self.folder / "nobodys", **more),
            "stdin": subprocess.DEVNULL,
            "text": True,
        }

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run the harness to its end, its report in `report`."""
        words = self.words("run", *argv, "--quiet", "--report", str(self.report))
        return subprocess.run(**words, capture_output=True, timeout=PATIENCE_S, check=False)

    @contextmanager
    def started(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """Start it; all its processes are killed when the block is left."""
        words = self.words("run", *argv, "--quiet", "--report", str(self.report))
        with subprocess.Popen(**words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                for pid in self.processes():
                    os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """The processes of this test that there are."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue  # it ended in this instant
        return found

    def told(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.report / "report.json").read_text())
        return data

    def histories(self) -> list[Path]:
        """What agents have written down so far."""
        return [path for path in self.report.glob("history/*/agent*.jsonl") if path.stat().st_size]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so does all that it starts, these tests perhaps."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def until(holds: Callable[[], object]) -> None:
    """Wait for what no event tells of."""
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(PAUSE_S)


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.parametrize("seed", [1, 2])
def test_a_short_run_with_faults_finds_nothing_and_leaves_nothing(seed: int, place: Place) -> None:
    scenarios, faults = ["isolation", "contention", "ttl"], ["kill", "stop", "cancel", "takeover"]
    options = ["--agents", "4", "--seconds", "3", "--faults", ",".join(faults), "--seed", str(seed)]
    done = place.run(*scenarios, *options)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert place.processes() == []
    told = place.told()
    assert (told["verdict"], told["seed"]) == ("ok", seed)
    assert [scenario["name"] for scenario in told["scenarios"]] == scenarios
    asked = Counter[str]()
    for scenario in told["scenarios"]:
        checks = {check["check"]: check["promises"] for check in scenario["checks"]}
        assert checks.keys() == set(SCENARIOS[scenario["name"]].checks)
        asked.update({name: sum(each["checked"] for each in promises) for name, promises in checks.items()})
        assert (scenario["violations"], scenario["skipped_faults"]) == ([], [])
    assert [name for name, times in asked.items() if not times] == []
    assert {fault["name"] for scenario in told["scenarios"] for fault in scenario["faults"]} == set(faults)
    assert (place.report / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in place.report.iterdir()) == ["agents", "history", "report.html", "report.json"]
    assert list(place.temporary.iterdir()) == []
    assert not (place.folder / "nobodys").exists()


SHOWS_IN = {LEAKY: "isolation", EARLY_EXPIRY: "ttl"}
"""Where a break strikes most often; contention for all others."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_a_known_break_is_found_by_its_own_check_and_by_no_other(name: str, place: Place) -> None:
    # So many operations, however long they take: a slow machine has found as much when they are done.
    operations = "700" if name in OF_SESSIONS else "300"  # sessions are few beside operations
    options = ["--agents", "3", "--operations", operations, "--seconds", "60", "--seed", "5", "--break", name]
    done = place.run(SHOWS_IN.get(name, "contention"), *options)
    assert done.returncode == 1, done.stdout
    (scenario,) = place.told()["scenarios"]
    found = {
        check["check"] for check in scenario["checks"] if any(promise["violations"] for promise in check["promises"])
    }
    assert found == {BREAKS[name][0]}, done.stdout
    assert {violation["check"] for violation in scenario["violations"]} == found
    assert "seed 5" in done.stdout
    assert f"--seed 5 --break {name}" in done.stdout
    (root,) = place.temporary.iterdir()
    assert done.stderr == f"stress: the data of this run stays in {root}\n"
    assert place.processes() == []


@pytest.mark.slow
def test_what_a_full_disk_takes_with_it_is_copied_when_something_was_found(place: Place) -> None:
    if (why := FAULTS["full-disk"]().why_not()) is not None:
        pytest.skip(why)
    options = ["--agents", "2", "--operations", "200", "--seconds", "60", "--faults", "full-disk"]
    done = place.run("contention", *options, "--break", LOST_ACK)
    assert done.returncode == 1, done.stdout
    kept = place.report / "data"
    assert done.stderr == f"stress: the data of this run stays in {kept}\n"
    assert (kept / "contention" / "addresses" / "hall" / "000" / "keystore.db").stat().st_size > 0
    assert list(place.temporary.iterdir()) == []


@pytest.mark.slow
def test_a_printed_command_plays_the_same_load_again(place: Place) -> None:
    done = place.run("ttl", "--agents", "1", "--operations", "60", "--seed", "9")
    assert done.returncode == 0, done.stderr
    again = Place(place.folder / "again")
    words = shlex.split(place.told()["command"])
    assert words[:3] == ["python", "-m", "stress"]
    assert again.run(*words[4:]).returncode == 0
    loads = [[_asked(line) for line in _lines(each)] for each in (place, again)]
    assert loads[0] == loads[1]
    assert len(loads[0]) > 60


def _lines(place: Place) -> list[list[Any]]:
    (history,) = place.histories()
    return [event for line in history.read_text().splitlines() if (event := json.loads(line))[0] == "c"]


def _asked(call: list[Any]) -> list[Any]:
    kind, number, _, op, address, _, key, argument = call
    return [kind, number, op, address, key, argument]


@pytest.mark.slow
@pytest.mark.crash
def test_agents_whose_parent_is_killed_end_also_when_they_are_stopped(place: Place) -> None:
    with place.started("isolation", "--agents", "2", "--seconds", "600") as harness, ExitStack() as descriptors:
        until(lambda: len(place.histories()) == 2)
        agents = [pid for pid in place.processes() if pid != harness.pid]
        assert len(agents) == 2
        ends = select.poll()
        for pid in agents:
            descriptor = os.pidfd_open(pid)
            descriptors.callback(os.close, descriptor)
            ends.register(descriptor, select.POLLIN)
        os.kill(agents[0], signal.SIGSTOP)
        until(lambda: state_of(agents[0]) == "T")
        harness.kill()
        until(lambda: len(ends.poll(0)) == 2)
        assert place.processes() == []


MOMENTS: dict[str, Callable[[Place], object]] = {
    "as agents come up": lambda place: list(place.report.glob("history/*")),
    "as they work": lambda place: len(place.histories()) == 2,
}


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_broken_off_leaves_no_agent_and_no_data(
    number: int, code: int, moment: str, place: Place
) -> None:
    with place.started("isolation", "--agents", "2", "--seconds", "600", "--faults", "stop") as harness:
        until(lambda: MOMENTS[moment](place))
        harness.send_signal(number)
        out, err = harness.communicate(timeout=PATIENCE_S)
        assert (harness.returncode, out, err) == (code, "", "stress: stopped; no agent is left\n")
        assert place.processes() == []
        assert list(place.temporary.iterdir()) == []
        assert {path.name for path in place.report.iterdir()} == {"agents", "history"}


@pytest.mark.slow
def test_what_is_set_for_the_users_own_root_does_not_hold_here(place: Place) -> None:
    words = place.words("run", "isolation", "--agents", "1", "--operations", "20", "--report", "report", "--quiet")
    words["env"] |= {"PRONTODB_TOKEN": "none", "PRONTODB_PRINCIPAL": "nobody", "PRONTODB_ENCRYPT": "1"}
    done = subprocess.run(**words, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_products_door_lists_what_there_is(root: Path) -> None:
    listed = spawn(root, "stress", "list")
    assert (listed.code, listed.err) == (0, "")
    names = [line.split()[0] for line in listed.lines if line.startswith("  ")]
    assert names == [*SCENARIOS, *FAULTS, *BREAKS]
    (told,) = spawn(root, "stress", "list", "--json").json
    assert list(told["scenarios"]) == list(SCENARIOS)
    assert tree(root) == {}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("run", "nowhere"), "there is no scenario 'nowhere'; there are: isolation, "),
        (("run", "ttl", "--agents", "0"), "--agents must be 1 to 1,000, not 0"),
        (("run", "ttl", "--agents", "some"), "argument --agents: invalid int value: 'some'; 'prontodb stress run"),
        (("run", "ttl", "--faults", "flood"), "there is no fault 'flood'"),
        (("report", "nowhere"), "nowhere/report.json cannot be read"),
    ],
)
def test_bad_input_at_the_products_door_is_one_line(argv: tuple[str, ...], sentence: str, root: Path) -> None:
    refused = spawn(root, "stress", *argv, cwd=root)
    assert (refused.code, refused.text) == (1, "")
    assert refused.err.startswith(f"stress: {sentence}")
    assert one_line(refused.err.replace("stress: ", "prontodb: ", 1))
    assert tree(root) == {}


def test_the_harness_of_a_checkout_is_the_one_beside_it() -> None:
    program = "from prontodb.cli import stressing; print(stressing._harness().__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout == "stress.command\n"

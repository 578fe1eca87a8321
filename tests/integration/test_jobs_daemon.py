"""`prontodb jobs run` as a service: tells when it is ready and alive, ends in order, one of many runs the jobs."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.jobs.plan import JOBS
from prontodb.model.layout import Layout
from prontodb.registry.jobs import JobRegistry
from tests.managing import PATIENCE_S, waited_for
from tests.unit.cli.harness import TIMEOUT_S, Cli, command, environment, one_line

pytestmark = pytest.mark.slow


def settled(root: Path, text: str | None = None) -> None:
    """Write the settings file: the sweep every second, and nothing else."""
    jobs = {name: {"enabled": False} for name in JOBS} | {"sweep": {"every": 1, "jitter": 0}}
    path = root / "registry/global_config.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text or json.dumps({"format": 1, "jobs": jobs}))
    path.chmod(0o600)


@contextmanager
def daemon(root: Path, *options: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a process of its own; killed when the block ends, if it has not ended."""
    process = subprocess.Popen(
        command("jobs", "run", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(root, **more)
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes], number: int | None = None) -> tuple[int, str, str]:
    """Send a signal and wait for the end; return exit code, stdout and stderr."""
    if number is not None:
        process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out.decode(), err.decode()


def runners(root: Path) -> list[str]:
    runs = JobRegistry(Layout(str(root)), wait_s=1, one_shot=True).runs("sweep", 100)
    return [run.runner for run in runs if run.outcome == "done"]


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[tuple[socket.socket, Mapping[str, str]]]:
    """A socket as systemd's, and the variable that names it."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(PATIENCE_S)
        yield listening, {"NOTIFY_SOCKET": path}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_says_when_it_is_ready_that_it_lives_and_that_it_stops(
    number: int, code: int, root: Path, notices: tuple[socket.socket, Mapping[str, str]]
) -> None:
    settled(root)
    listening, variables = notices
    with daemon(root, WATCHDOG_USEC="100000", **variables) as process:
        ready = listening.recv(4_096).decode().split("\n")
        assert ready[0] == "READY=1"
        assert f"MAINPID={process.pid}" in ready
        assert [listening.recv(4_096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert waited_for(lambda: bool(runners(root)))
        found, out, err = ended(process, number)
        assert (found, out) == (code, "")
        assert "Traceback" not in err
        told = [listening.recv(4_096)]
        while told[-1] == b"WATCHDOG=1":
            told.append(listening.recv(4_096))
        assert told[-1] == b"STOPPING=1"
    assert {run.outcome for run in JobRegistry(Layout(str(root)), wait_s=1, one_shot=True).runs()} <= {
        "done",
        "cancelled",
    }


def test_a_watchdog_of_another_process_and_no_watchdog_are_not_told(
    root: Path, notices: tuple[socket.socket, Mapping[str, str]]
) -> None:
    settled(root)
    listening, variables = notices
    with daemon(root, WATCHDOG_USEC="1000", WATCHDOG_PID="1", **variables) as process:
        assert listening.recv(4_096).startswith(b"READY=1")
        assert waited_for(lambda: bool(runners(root)))
        ended(process, signal.SIGTERM)
        assert listening.recv(4_096) == b"STOPPING=1"


def test_an_abstract_socket_is_told_too_and_one_that_is_away_is_a_note(root: Path) -> None:
    settled(root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0prontodb-test-{root}")
        listening.settimeout(PATIENCE_S)
        with daemon(root, NOTIFY_SOCKET=f"@prontodb-test-{root}") as process:
            assert listening.recv(4_096).startswith(b"READY=1")
            assert ended(process, signal.SIGTERM)[0] == 143
    with daemon(root, NOTIFY_SOCKET=str(root / "nowhere")) as process:
        count = len(runners(root))
        assert waited_for(lambda: len(runners(root)) > count)
        code, _, err = ended(process, signal.SIGTERM)
        assert code == 143
        assert "systemd could not be told" in err


def test_a_second_daemon_waits_and_takes_over(root: Path) -> None:
    settled(root)
    with daemon(root) as first:
        assert waited_for(lambda: bool(runners(root)))
        with daemon(root) as second:
            count = len(runners(root))
            assert waited_for(lambda: len(runners(root)) >= count + 2)
            assert all(f"pid {first.pid} " in runner for runner in runners(root))
            assert f"pid {first.pid} " in Cli(root).ok("jobs", "list").err
            assert ended(first, signal.SIGTERM)[0] == 143
            assert waited_for(lambda: f"pid {second.pid} " in runners(root)[0])
            assert ended(second, signal.SIGTERM)[0] == 143
    assert "nobody runs them now" in Cli(root).ok("jobs", "list").err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "global_config.json"),
        ('{"format": 99}', "99"),
        ('{"format": 1, "settings": {"wait_s": "x"}}', "wait_s"),
        ('{"format": 1, "jobs": {"sweep": {"every": "x"}}}', "jobs.sweep.every is 'x'"),
    ],
)
def test_a_wrong_settings_file_is_one_line(text: str, said: str, root: Path) -> None:
    settled(root, text)
    with daemon(root) as process:
        code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert said in one_line(err)


def test_its_events_go_to_stderr_for_people_or_for_a_collector(root: Path) -> None:
    settled(root)
    for options, is_json in (((), False), (("--log", "json"), True)):
        with daemon(root, *options) as process:
            count = len(runners(root))
            assert waited_for(lambda count=count: len(runners(root)) > count)  # type: ignore[misc]
            _, out, err = ended(process, signal.SIGTERM)
        assert out == ""
        assert "jobs.taken" in err
        if is_json:
            assert all(json.loads(line)["event"] for line in err.splitlines())
    with daemon(root, "--quiet") as process:
        count = len(runners(root))
        assert waited_for(lambda: len(runners(root)) > count)
        assert ended(process, signal.SIGTERM) == (143, "", "")


def test_a_daemon_without_a_root_makes_it_and_two_signals_are_one(tmp_path: Path) -> None:
    root = tmp_path / "new"
    with daemon(root) as process:
        assert waited_for((root / "registry/jobs.db").exists)
        process.send_signal(signal.SIGTERM)
        assert ended(process, signal.SIGTERM)[0] in (143, -signal.SIGTERM)

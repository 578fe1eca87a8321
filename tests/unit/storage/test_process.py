"""Processes: named by pid and start, never taken for a later one, and killed only when it is surely the one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.errors import UnavailableError
from prontodb.model.holder import Process
from prontodb.storage import process
from prontodb.storage.process import kill, ourselves, start_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="start times come from /proc")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def record_of(pid: int, **changed: object) -> Process:
    here = ourselves()
    fields: dict[str, object] = {
        "pid": pid,
        "started": start_time(pid),
        "boot": here.boot,
        "host": here.host,
        "pid_namespace": here.pid_namespace,
    }
    return Process(**(fields | changed))  # type: ignore[arg-type]


def test_we_are_told_apart_from_every_other_process(other: subprocess.Popen[bytes]) -> None:
    here = ourselves()
    assert here.pid == os.getpid()
    assert here.started == start_time(here.pid)
    assert here.boot
    assert here.pid_namespace
    assert here.host == os.uname().nodename
    started = start_time(other.pid)
    assert started is not None
    assert here.started is not None
    assert started >= here.started


def test_a_child_is_not_its_parent() -> None:
    parent = ourselves()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"%d" % ourselves().pid)
        os._exit(0)
    os.waitpid(pid, 0)
    assert int(os.read(reading, 20)) == pid != parent.pid


def test_a_strange_name_of_a_program_does_not_hide_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(str(n) for n in range(3, 53))
    (tmp_path / "7" / "stat").write_text(f"7 (a) b) 1 (c) {fields}\n")
    monkeypatch.setattr(process, "PROC", str(tmp_path))
    assert start_time(7) == 22
    (tmp_path / "7" / "stat").write_text("7 (a")
    assert start_time(7) is None
    assert start_time(8) is None


def test_the_very_process_is_killed(other: subprocess.Popen[bytes]) -> None:
    assert kill(record_of(other.pid))
    assert other.wait() == -9
    assert not kill(record_of(other.pid, started=1)), "it is gone"


def test_a_reused_pid_is_not_hit(other: subprocess.Popen[bytes]) -> None:
    started = start_time(other.pid)
    assert started is not None
    assert not kill(record_of(other.pid, started=started - 1))
    assert other.poll() is None


def test_a_zombie_is_gone_once_it_is_waited_for(other: subprocess.Popen[bytes]) -> None:
    record = record_of(other.pid)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    kill(record)  # hits nobody, says nothing
    other.wait()
    assert not kill(record)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"host": "elsewhere"}, "another machine"),
        ({"boot": "earlier"}, "before a restart"),
        ({"pid_namespace": "pid:[1]"}, "pid namespace"),
        ({"started": None}, "when it started"),
    ],
)
def test_what_cannot_be_told_apart_is_not_killed(
    other: subprocess.Popen[bytes], changed: dict[str, object], why: str
) -> None:
    with pytest.raises(UnavailableError, match=why):
        kill(record_of(other.pid, **changed))
    assert other.poll() is None

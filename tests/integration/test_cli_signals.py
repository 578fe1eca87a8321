"""Signals and held locks: the right exit code, no traceback, nothing half done, no waiting for ever."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from struct import unpack
from termios import FIONREAD
from typing import IO

import pytest

from tests.unit.cli.harness import TIMEOUT_S, Cli, command, environment, one_line, spawn

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, and so does all that it starts, these tests perhaps."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(root: Path, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*argv),
        env=environment(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_until_read(pipe: IO[bytes]) -> None:
    """Wait until the other end has taken all that was written."""
    deadline = time.monotonic() + TIMEOUT_S
    while unpack("i", fcntl.ioctl(pipe, FIONREAD, b"\0\0\0\0"))[0]:
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_a_value_is_piped_in_stores_nothing(root: Path, number: int, code: int) -> None:
    Cli(root).ok("set", "k", "old")
    process = start(root, "set", "k", "--stdin")
    assert process.stdin is not None
    process.stdin.write(b"half of the new")
    process.stdin.flush()
    wait_until_read(process.stdin)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert Cli(root).ok("get", "k").text == "old"


SIGNALLED = """
import os, runpy, sys

module, number = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]

class Signalling:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Signalling())
runpy.run_module("prontodb", run_name="__main__")
"""
"""Runs the command line in a process that sends itself a signal while it imports a module."""


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize(
    "module", ["prontodb.cli.watching", "anyio", "asyncio", "prontodb.manager", "prontodb.engine.sqlite.writing"]
)
def test_a_signal_while_a_watch_begins_ends_it_without_a_traceback(
    root: Path, module: str, number: int, code: int
) -> None:
    Cli(root).ok("set", "k", "v")
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, module, str(number), "watch"],
        env=environment(root),
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    # Before it is known which command it is, SIGTERM ends the process where it stands.
    codes = (code, -number) if module == "prontodb.cli.watching" else (code,)
    assert done.returncode in codes, done
    assert (done.stdout, done.stderr) == (b"", b"")


def test_an_interruption_of_the_first_imports_shows_no_traceback(root: Path) -> None:
    for module in ("prontodb.cli.main", "prontodb.cli.parsing", "prontodb.cli.data"):
        done = subprocess.run(
            [sys.executable, "-c", SIGNALLED, module, str(int(signal.SIGINT)), "get", "k"],
            env=environment(root),
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_a_watch_cleanly(root: Path, number: int, code: int) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "old")
    process = start(root, "watch")
    assert process.stderr is not None
    assert process.stdout is not None
    assert process.stderr.readline().startswith(b"prontodb: watching _default/_default from --since ")
    cli.ok("set", "k", "new\nline")
    assert process.stdout.readline() == b"k=new\\nline\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (code, b"")
    assert one_line(err.decode()).startswith("go on with --since ")


def test_a_watch_goes_on_where_an_earlier_one_ended(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "before", "v")
    first = spawn(root, "watch", "--timeout", "0.01")
    since = first.err.split()[-1]
    cli.ok("set", "app.a", "1")
    cli.ok("set", "other", "2")
    cli.ok("del", "before")
    cli.ok("set", "app.b", "3")
    assert spawn(root, "watch", "app.", "--since", since, "--count", "2").out == b"app.a=1\napp.b=3\n"
    changes = cli.ok("watch", "--since", since, "--count", "4", "--json").json
    assert [(change["key"], change["deleted"]) for change in changes] == [
        ("app.a", False), ("other", False), ("before", True), ("app.b", False),
    ]  # fmt: skip
    outcome = spawn(root, "watch", "app.", "--since", since, "--count", "3", "--timeout", "0.01")
    assert (outcome.code, outcome.out) == (1, b"app.a=1\napp.b=3\n")


def test_a_watch_whose_reader_goes_away_ends(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v")
    process = start(root, "watch", "-q", "--since", cli.ok("watch", "--timeout", "0.01").err.split()[-1])
    assert process.stdout is not None
    cli.ok("set", "k", "1")
    assert process.stdout.readline() == b"k=1\n"
    process.stdout.close()
    cli.ok("set", "k", "2")
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT_S) == 1
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


def test_a_held_address_is_busy_for_writers_and_readable_all_along(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v")
    (root / "registry" / "global_config.json").write_text('{"format": 1, "settings": {"wait_s": 0.05}}')
    (root / "registry" / "global_config.json").chmod(0o600)
    with open(root / "registry" / "locks" / "_default@_default" / "address.lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "address _default/_default is busy" in cli.fails("set", "k", "new")
        assert cli.ok("get", "k").text == "v"
        # Another address waits for nobody.
        cli.ok("set", "k", "v", "--user", "other")
    cli.ok("set", "k", "new")


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_waiting_for_a_lock_ends_the_wait(root: Path, number: int, code: int) -> None:
    Cli(root).ok("set", "k", "old")
    (root / "registry" / "global_config.json").write_text('{"format": 1, "settings": {"wait_s": 3600}}')
    (root / "registry" / "global_config.json").chmod(0o600)
    with open(root / "registry" / "locks" / "_default@_default" / "address.lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start(root, "set", "k", "--stdin")
        assert process.stdin is not None
        process.stdin.write(b"new")
        process.stdin.close()
        process.stdin = None
        deadline = time.monotonic() + TIMEOUT_S
        # It waits once it has the lock file open.
        while not any(target.endswith("address.lock") for target in open_files(process.pid)):
            assert time.monotonic() < deadline
            os.sched_yield()
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert Cli(root).ok("get", "k").text == "old"


def open_files(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def test_a_watch_in_the_background_goes_on_when_the_terminal_is_interrupted(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "old")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = start(root, "watch", "--count", "1")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    cli.ok("set", "k", "new")
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (0, b"k=new\n")

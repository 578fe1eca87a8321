"""stdin, stdout and stderr that are closed, full, of another encoding, a terminal or a device."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.harness import TIMEOUT_S, Cli, Outcome, command, environment, one_line, spawn


@pytest.fixture
def filled(root: Path) -> Path:
    cli = Cli(root)
    cli.ok("set", "k", "né\n")
    cli.ok("set", "big", "x" * 300_000)
    return root


def shell(root: Path, redirection: str, *argv: str) -> Outcome:
    """Run a command as a shell with this redirection would."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command(*argv)],
        env=environment(root),
        capture_output=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize("key", ["k", "big"])
def test_a_full_stdout_is_exit_1_and_one_line(filled: Path, key: str) -> None:
    outcome = shell(filled, ">/dev/full", "get", key)
    assert outcome.code == 1
    assert one_line(outcome.err) == "cannot write to stdout: No space left on device"


def test_a_closed_stdout_is_exit_1_and_one_line(filled: Path) -> None:
    outcome = shell(filled, ">&-", "get", "k")
    assert (outcome.code, one_line(outcome.err)) == (1, "stdout is closed")
    assert shell(filled, ">&-", "set", "other", "v").code == 0


def test_a_reader_that_goes_away_is_exit_1_without_a_word(filled: Path) -> None:
    for argv in (("get", "big"), ("scan",), ("help",), ("export",)):
        process = subprocess.Popen(
            command(*argv), env=environment(filled), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, err) == (1, b""), argv


def test_a_closed_stderr_changes_no_exit_code(filled: Path) -> None:
    for argv, code in ((("get", "k"), 0), (("get", "nope"), 2), (("get", "a..b"), 1), (("nonsense",), 1)):
        assert shell(filled, "2>&-", *argv).code == code
        assert shell(filled, "2>/dev/full", *argv).code == code


def test_with_every_stream_closed_nothing_is_written_into_the_wrong_file(filled: Path) -> None:
    assert shell(filled, "<&- >&- 2>&-", "set", "k", "new").code == 0
    assert shell(filled, "<&- >&- 2>&-", "get", "k").code == 1
    assert shell(filled, "<&- >&- 2>&-", "set", "a..b", "v").code == 1
    cli = Cli(filled)
    assert cli.ok("get", "k").text == "new"
    cli.ok("address", "check", "_default", "--deep")


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "utf-16"},
    ],
    ids=str,
)
def test_data_is_utf_8_in_every_locale(filled: Path, variables: dict[str, str]) -> None:
    env = environment(filled, **variables)
    assert spawn(filled, "get", "k", env=env).out == "né\n".encode()
    assert spawn(filled, "set", "né", "tü", env=env).code == 0
    assert spawn(filled, "keys", env=env).out == "big\nk\nné\n".encode()
    assert Cli(filled).ok("get", "né").text == "tü"


def test_talk_is_escaped_where_the_locale_cannot_show_it(filled: Path) -> None:
    outcome = spawn(filled, "get", "né", env=environment(filled, PYTHONIOENCODING="ascii"))
    assert (outcome.code, outcome.err) == (2, "prontodb: no key 'n\\xe9' at _default/_default\n")


def test_set_with_a_closed_stdin_does_not_hang(filled: Path) -> None:
    for argv in (("set", "k"), ("set", "k", "--stdin"), ("import",)):
        outcome = shell(filled, "<&-", *argv)
        assert (outcome.code, "stdin is closed" in outcome.err) == (1, True)
    assert shell(filled, "<&-", "set", "k", "v").code == 0


def test_a_device_is_no_value_unless_asked_for(filled: Path) -> None:
    outcome = shell(filled, "</dev/null", "set", "k")
    assert (outcome.code, "set needs a value" in outcome.err) == (1, True)
    assert Cli(filled).ok("get", "k").text == "né\n"
    assert shell(filled, "</dev/null", "set", "k", "--stdin").code == 0
    assert Cli(filled).ok("get", "k").text == ""


def test_a_folder_as_stdin_is_refused(filled: Path) -> None:
    outcome = shell(filled, "</", "set", "k")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert Cli(filled).ok("get", "k").text == "né\n"


def test_an_endless_stdin_is_read_to_the_limit_only(filled: Path) -> None:
    settings = filled / "registry" / "global_config.json"
    settings.write_text('{"format": 1, "settings": {"max_value_bytes": 1000}}')
    settings.chmod(0o600)
    outcome = shell(filled, "</dev/zero", "set", "k", "--stdin")
    assert outcome.code == 1
    assert "max_value_bytes is 1,000" in one_line(outcome.err)


def test_a_pipe_keeps_every_byte(filled: Path) -> None:
    line = f"{sys.executable} -m prontodb get k | {sys.executable} -m prontodb set copy"
    subprocess.run(["sh", "-c", line], env=environment(filled), check=True, timeout=TIMEOUT_S)
    assert Cli(filled).ok("get", "copy").out == "né\n".encode()


def on_terminal(root: Path, *argv: str, answer: bytes = b"", **variables: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*argv), env=environment(root, **variables), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + TIMEOUT_S
    try:
        if answer:
            os.write(ours, answer)
        while time.monotonic() < deadline:
            try:
                part = os.read(ours, 65_536)
            except OSError:
                break  # Linux says EIO when the last one has closed the other end
            if not part:
                break
            shown += part
        return process.wait(TIMEOUT_S), shown.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def test_on_a_terminal_a_value_gets_a_line_end(root: Path) -> None:
    Cli(root).ok("set", "k", "v")
    assert on_terminal(root, "get", "k") == (0, "v\n")


def test_colour_is_for_terminals_that_want_it(root: Path) -> None:
    assert on_terminal(root, "nonsense", TERM="xterm")[1].startswith("\x1b[31mprontodb:\x1b[0m ")
    assert on_terminal(root, "nonsense", TERM="xterm", NO_COLOR="1")[1].startswith("prontodb: ")
    assert on_terminal(root, "nonsense", TERM="dumb")[1].startswith("prontodb: ")


def test_a_terminal_is_asked_before_something_is_destroyed(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v")
    for answer in (b"n\n", b"\n", b"\x04", b"maybe\n"):
        code, shown = on_terminal(root, "address", "delete", "_default", answer=answer)
        assert code == 1
        assert "delete address _default/_default and all it holds? [y/N]" in shown
        assert cli.ok("get", "k").text == "v"
    assert on_terminal(root, "address", "delete", "_default", answer=b"y\n")[0] == 0
    assert cli.ok("address", "list").lines == []


def test_set_on_a_terminal_does_not_wait_for_a_value(root: Path) -> None:
    code, shown = on_terminal(root, "set", "k")
    assert code == 1
    assert "set needs a value" in shown

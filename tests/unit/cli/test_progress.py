"""Progress on stderr: lines with time between them, a bar on a terminal that leaves nothing behind."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.cli import output
from prontodb.cli.progress import NAME_CHARACTERS, Shown, duration_text, size_text
from prontodb.model.progress import Progress
from tests.unit.cli.harness import CHECKOUT, TIMEOUT_S, Pipe

MIB = 1024 * 1024


class Time:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def at(done: int, total: int = 1_000, *, what: str = "agent1/prod", size: int = 0, of: int | None = None) -> Progress:
    return Progress(what=what, done=done, total=total, done_bytes=size, total_bytes=of)


# Sizes and durations


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_536, "1.5 KiB"),
        (MIB - 1, "1.0 MiB"),
        (round(35.2 * MIB), "35.2 MiB"),
        (1_000 * MIB, "1,000.0 MiB"),
        (5 * 1024**4, "5.0 TiB"),
        (2**80, "1,048,576.0 EiB"),
    ],
)
def test_a_size_is_told_in_binary_units(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.04, "0 s"),
        (0.44, "0.4 s"),
        (2, "2 s"),
        (9.94, "9.9 s"),
        (9.96, "9 s"),
        (40.9, "40 s"),
        (60, "1 m"),
        (61, "1 m 1 s"),
        (3_599.9, "59 m 59 s"),
        (3_780, "1 h 3 m"),
        (3_601, "1 h"),
        (86_400 + 7_200, "1 d 2 h"),
        (86_400 * 1_234, "1,234 d"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_a_larger_size_never_reads_as_a_smaller_one(one: int, other: int) -> None:
    def read(text: str) -> float:
        number, unit = text.replace(",", "").split(" ")
        return float(number) * 1_024.0 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)

    small, large = sorted((one, other))
    assert read(size_text(small)) <= read(size_text(large))


# Elsewhere than on a terminal: lines


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    """What is said on a stderr that is no terminal; `output` is as talkative as a command is at its beginning."""
    output.set_quiet(False)
    return capsys


def said(err: pytest.CaptureFixture[str]) -> list[str]:
    """The lines since the last time this was asked."""
    return err.readouterr().err.splitlines()


def test_a_short_run_says_nothing(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        for done in range(100):
            shown.update(at(done))
            time.now += 0.0199
    assert said(err) == []


def test_a_long_run_says_a_line_after_two_seconds_and_then_every_five(
    err: pytest.CaptureFixture[str], time: Time
) -> None:
    moments = []
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        for tenth in range(200):
            time.now = 1_000 + tenth / 10
            shown.update(at(tenth))
            moments += [tenth / 10 for _ in said(err)]
    assert moments == [2.0, 7.0, 12.0, 17.0]


def test_a_line_tells_counts_bytes_time_left_and_what_is_worked_on(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        shown.update(at(0))
        time.now += 5.4
        shown.update(at(120, size=round(35.2 * MIB)))
    assert said(err) == ["prontodb: backup: 120 of 1,000 addresses, 35.2 MiB, about 40 s left (agent1/prod)"]


def test_what_nobody_knows_is_left_out(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("verify", "backups", quiet=False, clock=time) as shown:
        time.now += 60
        shown.update(at(1, 2, what=""))
        time.now += 60
        shown.update(at(0, 0, what=""))
    assert said(err) == ["prontodb: verify: 1 of 2 backups", "prontodb: verify: 0 of 0 backups"]


def test_the_time_left_goes_by_bytes_where_their_total_is_known(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        shown.update(at(0, 10, of=100 * MIB))
        time.now += 10
        shown.update(at(9, 10, size=20 * MIB, of=100 * MIB))
    assert "20.0 MiB, about 40 s left" in said(err)[0]


def test_a_new_round_is_not_measured_by_the_last(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        for done in (0, 900, 0, 100):
            shown.update(at(done))
            time.now += 10
    assert [line.partition("addresses")[2] for line in said(err)] == [
        ", about 2 s left (agent1/prod)",
        " (agent1/prod)",
        ", about 1 m 30 s left (agent1/prod)",
    ]


def test_when_the_total_of_bytes_becomes_known_the_measuring_begins_again(
    err: pytest.CaptureFixture[str], time: Time
) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        for look in (at(0), at(1, size=50), at(2, size=51, of=100), at(3, size=52, of=100)):
            shown.update(look)
            time.now += 10
    assert [" left" in line for line in said(err)] == [True, False, True]


def test_what_is_named_cannot_forge_a_line(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        time.now += 2
        shown.update(at(1, what="a\nprontodb: \x1b[2J\u202e\udc80" + "x" * 500))
    (line,) = said(err)
    assert line.isprintable()
    assert line.startswith("prontodb: backup: 1 of 1,000 addresses (a\\nprontodb: \\x1b[2J")
    assert line.endswith("xxx...)")
    assert len(line) < 60 + 2 * NAME_CHARACTERS


def test_quiet_shows_nothing(err: pytest.CaptureFixture[str], time: Time) -> None:
    with Shown("backup", "addresses", quiet=True, clock=time) as shown:
        for done in range(100):
            shown.update(at(done))
            time.now += 10
    assert said(err) == []


@pytest.mark.parametrize("closed", [True, False])
def test_a_command_goes_on_without_stderr(monkeypatch: pytest.MonkeyPatch, time: Time, closed: bool) -> None:
    stream = Pipe()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        time.now += 2
        shown.update(at(1))


def test_an_error_passes_through_as_it_is(err: pytest.CaptureFixture[str], time: Time) -> None:
    shown = Shown("backup", "addresses", quiet=False, clock=time)
    with pytest.raises(KeyboardInterrupt), shown:
        raise KeyboardInterrupt
    time.now += 60
    shown.update(at(1))
    assert said(err) == [], "nothing after the end"


# On a terminal: a bar


class Terminal:
    """Both ends of one: what is written to `stream` is drawn on `screen`, and whether a line was left is known."""

    def __init__(self, columns: int = 100, encoding: str = "utf-8") -> None:
        self.ours, theirs = os.openpty()
        self.resize(columns, theirs)
        self.stream = io.TextIOWrapper(
            io.FileIO(theirs, "w"), encoding=encoding, errors="backslashreplace", write_through=True
        )
        self.drawn: list[str] = []
        """Every line as it was when the next one began to be drawn over it; '~' is the right half of a wide letter."""

    def resize(self, columns: int, fd: int | None = None) -> None:
        termios.tcsetwinsize(self.stream.fileno() if fd is None else fd, (24, columns))

    def read(self) -> str:
        """All that was written until now, drawn; the last line as it stands."""
        os.set_blocking(self.ours, False)
        raw = b""
        try:
            while part := os.read(self.ours, 65_536):
                raw += part
        except BlockingIOError:
            pass
        line: list[str] = []
        column = 0
        for character in raw.decode():
            assert character.isprintable() or character == "\r", "one line, and no control sequences"
            if character == "\r":
                self.drawn.append("".join(line).rstrip())
                column = 0
            else:
                cells = character + "~" * (unicodedata.east_asian_width(character) in "FW")
                line[column : column + len(cells)] = cells
                column += len(cells)
        return "".join(line).rstrip() + ("" if column == 0 else "|")

    def close(self) -> None:
        self.stream.close()
        os.close(self.ours)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100, encoding: str = "utf-8") -> Iterator[Terminal]:
    """A terminal as stderr of this process."""
    made = Terminal(columns, encoding)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", made.stream)
    try:
        yield made
    finally:
        monkeypatch.undo()
        made.close()


def drawn(made: Terminal, time: Time, *looks: Progress, step_s: float = 10) -> list[str]:
    """What a terminal showed from look to look, without what it showed before and after."""
    with Shown("backup", "addresses", quiet=False, clock=time) as shown:
        for look in looks:
            shown.update(look)
            time.now += step_s
    assert made.read() == "", "the line is gone, and the next begins where it was"
    return [line for line in made.drawn if line]


def test_a_terminal_gets_a_bar_with_all_there_is_to_tell(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made:
        lines = drawn(made, time, at(0), at(200, size=MIB), at(1_000, size=5 * MIB, what=""))
    assert lines == [
        f"  0%|{'':20}| backup: 0 of 1,000 addresses (agent1/prod)",
        f" 20%|{'█' * 4:20}| backup: 200 of 1,000 addresses, 1.0 MiB, about 40 s left (agent1/prod)",
        f"100%|{'█' * 20}| backup: 1,000 of 1,000 addresses, 5.0 MiB",
    ]


def test_the_bar_goes_by_bytes_where_their_total_is_known(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made:
        assert drawn(made, time, at(9, 10, size=MIB, of=4 * MIB))[0].startswith(" 25%|█████  ")


@pytest.mark.parametrize("columns", [1, 2, 10, 30, 45, 60, 70, 80, 81, 200, 0])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, time: Time, columns: int) -> None:
    with terminal(monkeypatch, columns) as made:
        lines = drawn(
            made, time, at(0), at(500, size=MIB, what="agent1/" + "x" * 300), at(600, what="{bar}%\r\n世界" * 9)
        )
    assert max((len(line) for line in lines), default=0) <= max(1, (columns or 80) - 1)
    if columns >= 45:
        assert all("of 1,000 addresses" in line for line in lines)


def test_the_name_is_what_gives_way(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch, 70) as made:
        assert drawn(made, time, at(5, what="a-long-name/of-an-address")) == [
            f"  0%|{'':10}| backup: 5 of 1,000 addresses (a-long-name/of-an-...)"
        ]


def test_what_is_named_cannot_forge_what_a_terminal_shows(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch, 200) as made:
        (line,) = drawn(made, time, at(5, what="{n}\r\x1b[2J\u202e\\n"))
    assert line.endswith(r"({n}\r\x1b[2J\u202e\\n)")


def test_a_terminal_that_changes_its_width_is_followed(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch, 50) as made:
        with Shown("backup", "addresses", quiet=False, clock=time) as shown:
            shown.update(at(5, what="x" * 99))
            made.resize(90)
            time.now += 1
            shown.update(at(6, what="x" * 99))
        made.read()
    assert [len(line) for line in made.drawn if line] == [49, 89]


def test_a_terminal_without_utf_8_gets_a_bar_all_the_same(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch, 80, "ascii") as made:
        (line,) = drawn(made, time, at(500, what="agent1/ä世" + "x" * 99))
    assert line.startswith(f" 50%|{'#' * 10:20}| backup: 500 of 1,000 addresses (agent1/\\xe4\\u")
    assert len(line) == 79


def test_many_looks_are_few_drawings(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made:
        assert len(drawn(made, time, *(at(n) for n in range(1_000)), step_s=0.001)) == 10


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_bar_is_gone_whatever_ends_the_block(
    monkeypatch: pytest.MonkeyPatch, time: Time, kind: type[BaseException]
) -> None:
    with terminal(monkeypatch) as made:
        with pytest.raises(kind), Shown("backup", "addresses", quiet=False, clock=time) as shown:
            shown.update(at(500))
            assert made.read().endswith("(agent1/prod)|")
            raise kind
        made.drawn.clear()
        assert made.read() == ""


def test_quiet_leaves_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made:
        with Shown("backup", "addresses", quiet=True, clock=time) as shown:
            shown.update(at(1))
        assert made.read() == ""
        assert made.drawn == []


def test_a_terminal_that_goes_away_ends_no_command(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made, Shown("backup", "addresses", quiet=False, clock=time) as shown:
        shown.update(at(1))
        os.close(made.ours)
        made.ours = os.open(os.devnull, os.O_RDONLY)
        for done in range(5):
            time.now += 1
            shown.update(at(done))


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    with terminal(monkeypatch) as made:
        monkeypatch.setenv("TERM", "dumb")
        output.set_quiet(False)
        with Shown("backup", "addresses", quiet=False, clock=time) as shown:
            shown.update(at(1))
            time.now += 2
            shown.update(at(2))
        os.set_blocking(made.ours, False)
        shown_lines = os.read(made.ours, 65_536).decode().splitlines()
    assert shown_lines == ["prontodb: backup: 2 of 1,000 addresses, about 33 m 16 s left (agent1/prod)"]


# In a process of its own

PROGRAM = """
import signal, sys, threading
from prontodb.cli.progress import Shown
from prontodb.model.progress import Progress
try:
    with Shown("backup", "addresses", quiet=False) as shown:
        shown.update(Progress(what="a/b", done=120, total=1_000))
        while sys.argv[1:] == ["wait"]:
            signal.pause()
except KeyboardInterrupt:
    sys.exit(130)  # wherever it came, from the moment on at which there is something to be seen
print([name for name in ("tqdm", "multiprocessing") if name in sys.modules], threading.active_count())
"""


def ran(
    *words: str, wait_for: bytes = b"", variables: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str, str]:
    """Run the program with a terminal as stderr; return its exit code, stdout, and all that was on the terminal.

    With `wait_for` it is interrupted as soon as the terminal shows that.
    """
    made = Terminal()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(CHECKOUT), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=made.stream,
    )
    made.stream.close()
    raw = b""
    try:
        while wait_for and wait_for not in raw:
            assert select.select([made.ours], [], [], TIMEOUT_S)[0], raw
            raw += os.read(made.ours, 65_536)
        if wait_for:
            process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out.decode(), (raw + rest_of(made.ours)).decode()
    finally:
        process.kill()
        process.wait()
        made.close()


def rest_of(terminal_fd: int) -> bytes:
    rest = b""
    try:
        while part := os.read(terminal_fd, 65_536):
            rest += part
    except OSError:
        pass  # Linux says EIO when the last one has closed the other end
    return rest


def test_ctrl_c_takes_the_bar_away() -> None:
    code, _, shown = ran("wait", wait_for=b"120 of 1,000")
    assert code == 130
    last, cleared, end = shown.rsplit("\r", 2)
    assert last.endswith("(a/b)")
    assert (cleared.strip(" "), end) == ("", "")


def test_the_bar_starts_no_thread_and_no_other_machinery() -> None:
    assert ran()[:2] == (0, "['tqdm'] 1\n")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TQDM_COLOUR": "green", "TQDM_DISABLE": "1"}])
def test_colours_and_the_drawers_own_variables_change_nothing(variables: dict[str, str]) -> None:
    code, _, shown = ran(variables=variables)
    assert code == 0
    assert "\r 12%|██" in shown
    assert "\x1b" not in shown


def test_variables_that_the_drawer_cannot_read_cost_the_bar_alone() -> None:
    assert ran(variables={"TQDM_MININTERVAL": "soon"}) == (0, "[] 1\n", "")


def test_off_a_terminal_the_drawer_is_not_even_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[] 1\n", b"")

"""What a run says on the terminal: a line in place that fits, plain lines elsewhere, and a summary that is complete."""

import io
import os
import pty
import re
import sys

import pytest

from stress.report.summary import summary
from stress.report.terminal import SAID_EVERY_S, LiveLine, Progress, progress_text, wants_colour
from tests.unit.stress.report_runs import bad_run, empty_run, good_run

COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Screen(io.StringIO):
    """A stream that says it is a terminal, or not."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(elapsed_s: float = 12, **fields: object) -> Progress:
    made: dict[str, object] = {
        "scenario": "isolation",
        "elapsed_s": elapsed_s,
        "of_s": 60,
        "agents": 32,
        "operations": 123_456,
        "ops_per_s": 5_123.4,
        "faults": {"kill": 12, "stop": 4},
        **fields,
    }
    return Progress(**made)  # type: ignore[arg-type]


def test_the_progress_is_one_line_with_what_matters() -> None:
    text = progress_text(progress(alarms=2))
    assert text == (
        "isolation 12 of 60 s | 2 ALARMS | 32 agents | 123,456 operations | 5,123/s | faults: kill 12, stop 4"
    )


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 60, 80, 100])
def test_the_progress_fits_any_width_and_gives_up_the_least_needed_first(columns: int) -> None:
    text = progress_text(progress(alarms=1), columns)
    assert len(text) <= columns
    assert "isolation 12 of 60 s"[:columns] in text
    if columns >= 40:
        assert "1 ALARM" in text
    if columns < 80:
        assert "faults" not in text


def test_on_a_terminal_one_line_is_drawn_anew_and_never_more_than_ten_times_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen, clock = Screen(tty=True), Clock()
    with LiveLine(screen, clock=clock) as line:
        for step in range(100):
            clock.now = 100 + step / 100
            line.show(progress(step))
    drawn = screen.getvalue()
    assert drawn.count("\r") == 10
    assert (drawn.count("\n"), drawn[-1]) == (1, "\n")
    # Drawn over and only then erased to the end: no instant with an empty line.
    assert "\r\x1b[K" not in drawn


def test_the_line_is_as_wide_as_a_real_terminal_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    controller, terminal = pty.openpty()
    with open(terminal, "w", encoding="utf-8") as stream, open(controller, "rb", buffering=0) as read:
        if sys.platform == "linux":
            import fcntl
            import struct
            import termios

            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 44, 0, 0))
        with LiveLine(stream) as line:
            line.show(progress())
        drawn = os.read(read.fileno(), 4_096).decode()
    assert drawn.rstrip("\r\n").strip("\r").removesuffix("\x1b[K") == "isolation 12 of 60 s | 5,123/s"


def test_without_a_terminal_a_plain_line_is_said_now_and_then_and_when_a_scenario_begins() -> None:
    screen, clock = Screen(tty=False), Clock()
    with LiveLine(screen, clock=clock) as line:
        for second in range(int(2 * SAID_EVERY_S) + 1):
            clock.now = 100.0 + second
            line.show(progress(second))
        line.show(progress(0, scenario="churn"))
    lines = screen.getvalue().splitlines()
    assert [text.partition(" |")[0] for text in lines] == [
        "isolation 0 of 60 s",
        "isolation 10 of 60 s",
        "isolation 20 of 60 s",
        "churn 0 of 60 s",
    ]
    assert screen.getvalue().isascii()
    assert "\x1b" not in screen.getvalue()


def test_something_said_in_between_gets_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(tty=True)
    with LiveLine(screen, clock=Clock()) as line:
        line.show(progress())
        line.say("agent07 \x1b[31mfell\n")
    assert screen.getvalue().endswith("\r\x1b[Kagent07 \\x1b[31mfell\\n\n")


def test_a_stream_that_is_gone_is_no_trouble() -> None:
    screen = Screen(tty=False)
    line = LiveLine(screen, clock=Clock())
    screen.close()
    line.show(progress())
    line.say("more")
    line.end()
    assert LiveLine(screen) is not None


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Screen(tty=True))
    assert not wants_colour(Screen(tty=False))
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Screen(tty=True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Screen(tty=True))


@pytest.mark.parametrize("made", [good_run, bad_run, empty_run])
def test_the_summary_is_plain_text_and_colour_adds_nothing_else(made: object) -> None:
    data = made()  # type: ignore[operator]
    text = summary(data)
    assert all(line.isprintable() for line in text.split("\n"))
    assert COLOUR.sub("", summary(data, colour=True)) == text
    assert summary(data, colour=True) != text
    assert text.endswith("\n")


def test_the_summary_of_a_good_run_tells_all_and_ends_with_ok() -> None:
    text = summary(good_run())
    for wanted in (
        "isolation: ok",
        "operations by 32 agents on 32 addresses in 60 s",
        "fault skipped: clock: libfaketime is not installed",
        "faults: kill ",
        "open exclusive",
        "fairness: slowest agent",
        "isolation: none of 32 agents could read a token of another",
        "one keystore for each agent, beside one shared database",
        "registers: 2 keys had too many open writes",
        "agent07-1 ended with -11, unasked: Segmentation fault",
    ):
        assert wanted in text
    last = text.splitlines()[-1]
    assert last.startswith("stress: ok, 6 checks held (75,522 questions, 4 undecided) in 2 scenarios with 80 faults")


def test_the_summary_of_violations_shows_them_with_the_command_and_the_seed() -> None:
    lines = summary(bad_run()).splitlines()
    assert "isolation: 2 violations" in lines
    first = next(n for n, line in enumerate(lines) if line.startswith("violation "))
    assert lines[first].endswith("check fences, promise 13: A fenced session's write was acknowledged.")
    assert "agent01-1" in lines[first + 1]
    assert "agent01 could read 1 token of agent09" in "\n".join(lines)
    again = lines.index("again, with the seed 7:")
    assert (
        lines[again + 1].strip()
        == "python -m stress run isolation --agents 32 --seconds 60 --seed 7 --faults kill,stop"
    )
    assert lines[-1] == "stress: 2 violations in 2 scenarios with 304 faults, of promise 13; seed 7"


def test_a_run_that_checked_nothing_does_not_boast() -> None:
    lines = summary(empty_run()).splitlines()
    assert "  nothing was checked" in lines
    assert lines[-1] == "stress: ok, but nothing was checked in 1 scenario with 0 faults; seed 0"

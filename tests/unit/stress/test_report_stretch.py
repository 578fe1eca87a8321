"""A stretch of history can be read: one aligned line for each operation, and nothing in it is obeyed."""

from stress.history import EVICT, FAILED, GET, OPEN, SET
from stress.report.stretch import MAX_LINES, stretch_lines
from tests.unit.stress.report_runs import HOSTILE, operation


def test_each_operation_is_one_line_with_its_columns_under_each_other() -> None:
    lines = stretch_lines(
        (
            operation(SET, 10, 2.5, key="register.3", argument="agent01-1:5", result=12),
            operation(GET, 14.25, 0.4, key="register.3", process="agent12-1"),
            operation(SET, 110, 1, key="register.3", argument="b", outcome=FAILED, error="AddressBusyError"),
            operation(SET, 120, None, key="register.3", argument="c"),
        )
    )
    assert lines == [
        '  0.000  .. 2.500 ms    agent01-1  set  register.3  "agent01-1:5" -> 12  ok',
        "  4.250  .. 4.650 ms    agent12-1  get  register.3  -> null              ok",
        '100.000  .. 101.000 ms  agent01-1  set  register.3  "b"                  failed AddressBusyError',
        '110.000  .. ?           agent01-1  set  register.3  "c"                  never returned',
    ]


def test_sessions_and_addresses_are_told_where_they_matter() -> None:
    (opened, evicted) = stretch_lines(
        (
            operation(OPEN, 0, 1, argument={"mode": "exclusive"}, result={"session": "s-1", "epoch": 4}),
            operation(EVICT, 2, 1, process="faults-1", session="s-1"),
        )
    )
    assert 's-1  agent01/main  open   {"mode": "exclusive"} -> {"session": "s-1", "epoch": 4}  ok' in opened
    assert "faults-1   s-1  agent01/main  evict" in evicted
    (own, other) = stretch_lines((operation(key="a"), operation(key="a", address="agent02/main")))
    assert ("agent01/main" in own, "agent02/main" in other) == (True, True)
    assert "agent01/main" not in stretch_lines((operation(key="a"),))[0]


def test_no_value_breaks_the_line_or_reaches_the_terminal_as_it_is() -> None:
    (line,) = stretch_lines((operation(SET, key=f"a{HOSTILE}", argument=HOSTILE, result={"a\n": "\x9b"}),))
    assert line.isprintable()
    (line,) = stretch_lines((operation(SET, key="a", argument="x" * 10_000),))
    assert len(line) < 200


def test_a_stretch_that_nobody_would_read_is_cut_in_the_middle() -> None:
    lines = stretch_lines([operation(SET, n, key=f"a.{n}") for n in range(1_000)])
    assert len(lines) == MAX_LINES + 1
    assert lines[MAX_LINES // 2] == "... 880 more operations ..."
    assert (" a.0 " in lines[0] + " ", " a.999 " in lines[-1] + " ") == (True, True)


def test_no_operations_are_no_lines() -> None:
    assert stretch_lines(()) == []

"""Starvation does not hide: fairness and the longest wait show a process that got nothing."""

from pathlib import Path

from benchmarks.contenders.sqlite import connect
from benchmarks.scenarios.processes import (
    DEFERRED,
    IMMEDIATE,
    ONE,
    OWN,
    Share,
    Tally,
    failures,
    fairness,
    longest_ms,
    rows_of,
    run_fleet,
    series_of,
)


def test_a_process_that_starves_has_no_sample_and_still_counts() -> None:
    fast, starved = Tally(0.0, 2.0), Tally(0.0, 2.0)
    latencies = [0.01] * 100
    for number in range(1, 101):
        fast.passes(number * 0.01)
    for _ in range(500):
        starved.fails()
    shares = [fast.ends(1.0), starved.ends(1.0)]
    # What a percentile over completed operations would say: all is well.
    assert sorted(latencies)[98] == 0.01
    assert [share.passed for share in shares] == [100, 0]
    assert fairness(shares) == 0
    assert longest_ms(shares) == 1_000


def test_the_longest_wait_reaches_from_one_that_passed_to_the_next_or_to_an_end() -> None:
    for passed_at, longest in (((2.0, 3.0, 8.0), 5.0), ((6.0, 8.0), 6.0), ((1.0, 2.0), 7.0), ((), 9.0)):
        tally = Tally(0.0, 9.0)
        for at in passed_at:
            tally.passes(at)
        assert tally.ends(9.0) == Share(len(passed_at), 0, longest)


def test_what_passes_after_the_end_was_waited_for_and_is_no_throughput() -> None:
    tally = Tally(0.0, 5.0)
    for at in (1.0, 9.0):
        tally.passes(at)
    assert tally.ends(9.0) == Share(1, 0, 8.0)


def test_all_idle_alike_is_not_divided_by_nothing() -> None:
    assert fairness([Share(0, 1, 1.0), Share(0, 2, 1.0)]) == 0


def test_rows_and_curves_say_what_each_kind_got() -> None:
    taken = {
        OWN: [[Share(90, 0, 0.1), Share(100, 0, 0.2)]],
        ONE: [[Share(40, 0, 0.3), Share(55, 0, 0.1)]],
        IMMEDIATE: [[Share(8, 0, 0.4), Share(12, 2, 0.1)]],
        DEFERRED: [[Share(1, 7, 1.0), Share(18, 0, 0.1)]],
    }
    rows = {row.what: row for row in rows_of(taken, 2)}
    assert rows[f"2 processes, {OWN}: slowest against fastest"].figures == (0.9,)
    assert rows[f"2 processes, {DEFERRED}: failed transactions"].figures == (7,)
    assert rows[f"2 processes, {DEFERRED}: longest that a process got nothing done"].figures == (1_000,)
    assert rows[f"2 processes: throughput, {OWN} against {IMMEDIATE}"].figures == (9.5,)
    assert rows[f"2 processes: throughput, {ONE} against {IMMEDIATE}"].figures == (4.75,)
    assert [what for what in rows if "throughput" in what and not what.endswith(IMMEDIATE)] == []
    assert rows[f"2 processes, {IMMEDIATE}: slowest against fastest"].figures == (8 / 12,)
    assert rows[f"2 processes, {IMMEDIATE}: failed transactions"].figures == (2,)
    assert rows[f"2 processes, {IMMEDIATE}: longest that a process got nothing done"].figures == (400,)
    assert {what for what, row in rows.items() if row.verdict} == {
        f"2 processes, {OWN}: slowest against fastest",
        f"2 processes, {OWN}: failed transactions",
        f"2 processes, {ONE}: failed transactions",
    }
    speeds = [series for series in series_of(taken, 2, 0.5) if series.unit == "/s"]
    assert [series.figures for series in speeds] == [(380,), (190,), (40,), (38,), (180,), (80,), (16,), (2,)]
    assert {(series.axis, series.at) for series in speeds} == {("processes", 2)}


def test_immediate_transactions_wait_for_each_other_and_do_not_fail(tmp_path: Path) -> None:
    connect(tmp_path / "shared.db").close()
    shares = run_fleet(IMMEDIATE, tmp_path, 2, 0.2)
    assert failures(shares) == 0
    assert sum(share.passed for share in shares) > 0

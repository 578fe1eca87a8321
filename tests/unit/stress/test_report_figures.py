"""The figures of a scenario are those of its history, and are plain data."""

import json

from stress.aftermath import Aftermath, Ending
from stress.history import CLOSE, FAILED, GET, KEYS, OPEN, PEEK, RAISE, SET, UNKNOWN, Fault
from stress.plan import Plan
from stress.report.between import fairness
from stress.report.figures import MAX_VIOLATIONS, scenario_data
from stress.report.run import comparison
from stress.verdict import Verdict, Violation
from tests.unit.stress.report_runs import BEGAN_NS, bad_run, empty_run, good_run, history, operation, run, scene


def test_every_run_is_plain_data_that_json_gives_back_unchanged() -> None:
    for data in (good_run(), bad_run(), empty_run()):
        assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_operations_are_counted_by_their_outcome() -> None:
    made = history(
        operation(SET),
        operation(SET, 1, outcome=FAILED, error="StorageFullError"),
        operation(SET, 2, outcome=UNKNOWN, error="OutcomeUnknownError"),
        operation(SET, 3, None),
    )
    data = scenario_data(scene(made=made))
    assert [data[name] for name in ("operations", "ok", "failed", "unknown", "open")] == [4, 1, 1, 1, 1]
    assert data["errors"] == {"StorageFullError": 1, "OutcomeUnknownError": 1}
    (row,) = data["latency"]
    assert (row["count"], row["failed"], row["unknown"]) == (1, 1, 1)


def test_throughput_adds_up_and_covers_the_whole_run() -> None:
    data = good_run()["scenarios"][0]
    buckets = data["throughput"]
    assert (len(buckets), data["bucket_s"]) == (120, 0.5)
    assert [bucket["at_s"] for bucket in buckets] == [n / 2 for n in range(120)]
    for outcome in ("ok", "failed", "unknown"):
        assert sum(bucket[outcome] for bucket in buckets) == data[outcome]


def test_a_return_outside_of_the_run_counts_in_the_nearest_bucket() -> None:
    made = history(operation(SET, -500, 1), operation(SET, 999, 400), seconds=1)
    buckets = scenario_data(scene(made=made))["throughput"]
    assert [bucket["ok"] for bucket in buckets] == [1, 0, 0, 1]


def test_latencies_are_those_of_acknowledged_operations() -> None:
    made = history(
        *(operation(GET, n, n / 1_000) for n in range(1, 101)), operation(GET, 200, 5_000, outcome=FAILED, error="E")
    )
    (row,) = scenario_data(scene(made=made))["latency"]
    figures = [row[name] for name in ("op", "count", "p50_us", "p90_us", "p99_us", "p999_us", "max_us", "mean_us")]
    assert figures == [GET, 100, 50, 90, 99, 100, 100, 50.5]
    assert row["curve"][-1] == [100.0, 100]


def test_waiting_is_told_by_mode_with_those_that_were_refused() -> None:
    exclusive, shared = {"mode": "exclusive"}, {"mode": "shared"}
    made = history(
        operation(OPEN, 0, 2, argument=exclusive),
        operation(OPEN, 5, 5_000, argument=exclusive, outcome=FAILED, error="AddressBusyError"),
        operation(OPEN, 6, 1, argument=exclusive, outcome=FAILED, error="StorageFullError"),
        operation(OPEN, 7, 3, argument=shared),
    )
    data = scenario_data(scene(made=made))
    told = [(row["op"], row["count"], row["refused"], row["max_us"]) for row in data["waits"]]
    assert told == [("open exclusive", 2, 1, 5_000_000), ("open shared", 1, 0, 3_000)]
    assert data["latency"] == []


def test_fairness_compares_work_and_not_the_opening_of_sessions() -> None:
    made = history(
        *(operation(SET, n) for n in range(4)),
        operation(OPEN, 9, process="agent02-1"),
        operation(CLOSE, 11, process="agent02-1"),
        operation(SET, 12, process="agent02-1"),
        operation(SET, 13, None, process="agent02-1"),
        operation(SET, 14, process="agent02-2"),
        operation("evict", 15, process="faults-1"),
    )
    data = scenario_data(scene(made=made))
    assert data["by_agent"] == [
        {"agent": "agent01", "ok": 4, "failed": 0, "lives": 1},
        {"agent": "agent02", "ok": 2, "failed": 0, "lives": 2},
    ]
    assert data["fairness"] == {
        "slowest": {"agent": "agent02", "ok": 2},
        "fastest": {"agent": "agent01", "ok": 4},
        "ratio": 0.5,
        "jain": 0.9,
    }


def test_fairness_of_those_that_got_nothing_done_is_no_figure() -> None:
    assert fairness({}) is None
    nothing = fairness({"agent01": 0, "agent02": 0})
    assert nothing is not None
    assert (nothing["ratio"], nothing["jain"]) == (None, None)


def test_the_longest_pause_lies_between_acknowledged_operations_or_at_an_end() -> None:
    made = history(
        operation(SET, 0, 1_000),
        operation(SET, 2_000, 3_000, outcome=FAILED, error="AddressBusyError"),
        operation(SET, 6_000, 1_000),
        operation(SET, 0, 1_000, process="agent02-1"),
        operation(SET, 2_000, None, process="agent02-1"),
    )
    longest = scenario_data(scene(made=made, plan=Plan(scenarios=("isolation",))))["longest_pause"]
    assert longest == {"agent": "agent02", "seconds": 59.0}
    made.operations = [one for one in made.operations if one.agent == "agent01"]
    assert scenario_data(scene(made=made))["longest_pause"] == {"agent": "agent01", "seconds": 6.0}


def test_the_matrix_tells_who_could_read_whose_token() -> None:
    made = history(
        *(operation(OPEN, n, address=f"a{n}", process=f"agent0{n}-1") for n in (1, 2, 3)),
        operation(GET, 10, key="token.agent01.1", result="token:agent01:x"),
        operation(GET, 11, key="token.agent01.1", result="token:agent01:x"),
        operation(PEEK, 12, key="token.agent02.1", result=None),
        operation(PEEK, 13, key="token.agent03.1", result="token:agent03:y", process="agent02-1"),
        operation(KEYS, 14, result=["token.agent03.1", "counter.1"], process="agent03-1"),
    )
    tokens = {"a1": {"agent01": 1}, "a3": {"agent03": 4, "agent01": 2}, "nobody": {"agent01": 9}}
    data = scenario_data(scene(made=made, aftermath=Aftermath(tokens=tokens)))
    assert data["matrix"] == {
        "agents": ["agent01", "agent02", "agent03"],
        "rows": [[1, 0, 0], [0, 0, 1], [2, 0, 4]],
    }


def test_without_tokens_there_is_no_matrix() -> None:
    assert scenario_data(scene(made=history(operation(RAISE, key="counter.1"))))["matrix"] is None


def test_checks_tell_each_promise_and_many_violations_are_counted_whole() -> None:
    seen = Violation(check="counters", promise=10, text="lost", stretch=(operation(RAISE, key="counter.1"),))
    verdict = Verdict(check="counters", checked={10: 500, 1: 2}, violations=(seen,) * 25, undecided=3, notes=("n",))
    data = scenario_data(scene(verdicts=(verdict,), made=history()))
    (check,) = data["checks"]
    assert check == {
        "check": "counters",
        "promises": [{"number": 1, "checked": 2, "violations": 0}, {"number": 10, "checked": 500, "violations": 25}],
        "checked": 502,
        "violations": 25,
        "undecided": 3,
        "notes": ["n"],
    }
    assert len(data["violations"]) == MAX_VIOLATIONS
    assert len(data["violations"][0]["stretch"]) == 1


def test_faults_are_told_in_seconds_of_the_run() -> None:
    faults = (
        Fault(name="kill", target="agent01-1", at_ns=BEGAN_NS + 1_500_000_000, text="SIGKILL"),
        Fault(name="stop", target="agent02-1", at_ns=BEGAN_NS + 2_000_000_000, until_ns=BEGAN_NS + 4_250_000_000),
    )
    data = scenario_data(scene(made=history(faults=faults), skipped_faults={"clock": "no libfaketime"}))
    assert data["faults"] == [
        {"name": "kill", "target": "agent01-1", "at_s": 1.5, "until_s": None, "text": "SIGKILL"},
        {"name": "stop", "target": "agent02-1", "at_s": 2.0, "until_s": 4.25, "text": ""},
    ]
    assert data["skipped_faults"] == [{"name": "clock", "reason": "no libfaketime"}]


def test_what_the_aftermath_found_odd_is_noted_and_bounded() -> None:
    endings = [Ending(process="agent07-1", code=-11, was_meant=False, last_words="oh"), *([_meant()] * 3)]
    aftermath = Aftermath(notes=["one"] * 60, errors=["a/b: gone"], endings=endings)
    notes = scenario_data(scene(made=history(), aftermath=aftermath, notes=("first",)))["notes"]
    assert (notes[0], notes[1], len(notes), notes[-1]) == ("first", "one", 41, "and 23 more notes")
    aftermath.notes = []
    notes = scenario_data(scene(made=history(), aftermath=aftermath))["notes"]
    assert notes == ["could not be read: a/b: gone", "agent07-1 ended with -11, unasked: oh"]


def _meant() -> Ending:
    return Ending(process="agent08-1", code=-9, was_meant=True)


def test_the_run_sums_up_promises_over_all_scenarios() -> None:
    data = bad_run()
    rows = {row["number"]: row for row in data["promises"]}
    assert rows[13] | {"text": ""} == {"number": 13, "text": "", "checked": 88, "violations": 2, "by": ["fences"]}
    assert (rows[1]["checked"], rows[1]["violations"]) == (2 * 4_812, 0)
    assert (rows[26]["checked"], rows[26]["by"]) == (0, [])
    assert data["verdict"] == "violated"
    assert good_run()["verdict"] == "ok"


def test_a_violated_promise_that_no_list_knows_is_not_lost() -> None:
    odd = Verdict(check="new", violations=(Violation(check="new", promise=99, text="odd"),))
    data = run(scene(made=history(), verdicts=(odd,)))
    row = {"number": 99, "text": "", "checked": 0, "violations": 1, "by": ["new"]}
    assert row in data["promises"]
    assert data["verdict"] == "violated"


def test_the_run_says_how_to_repeat_it_and_nothing_of_folders() -> None:
    data = good_run()
    assert data["command"].startswith("python -m stress run isolation shared-database --agents 32")
    assert (data["seed"], data["began_at"]) == (7, "2026-03-01T04:05:06+00:00")
    assert not {"root", "report"} & data["plan"].keys()


def test_both_designs_are_compared_when_both_ran() -> None:
    data = good_run()
    assert data["comparison"] is not None
    rows = {row["what"]: row for row in data["comparison"]["rows"]}
    own, shared = data["scenarios"]
    done = sum(row["count"] for row in own["latency"] if row["op"] in ("get", "set", "raise"))
    assert rows["acknowledged get, set and raise"]["own"] == round(done / 60, 1)
    assert rows["set, p99"]["shared"] == next(row for row in shared["latency"] if row["op"] == "set")["p99_us"]
    # Of fewer than a thousand values nobody can tell what one in a thousand takes.
    assert rows["set, p99.9"]["shared"] is None
    assert rows["failed transactions"]["own"] > 0
    assert comparison([own]) is None
    assert bad_run()["comparison"] is None


def test_two_designs_that_got_nothing_done_are_compared_without_figures() -> None:
    names = ("isolation", "shared-database")
    found = comparison([scenario_data(scene(name, history(seconds=0))) for name in names])
    assert found is not None
    figures = {row["what"]: (row["own"], row["shared"]) for row in found["rows"]}
    assert figures.pop("failed transactions") == (0, 0)
    assert set(figures.values()) == {(None, None)}

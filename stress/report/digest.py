"""What both the summary and the page ask of a run's data."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .units import NONE, count, duration, figure, index, moment, percent, seconds, some

Data = dict[str, Any]
LATENCY_HEADS = ("mean", "p50", "p90", "p99", "p99.9", "longest")
_LATENCY_FIGURES = (("mean_us", 1), ("p50_us", 2), ("p90_us", 10), ("p99_us", 100), ("p999_us", 1_000), ("max_us", 1))
"""Each with how many values it takes: of fewer, a percentile is but another name for the longest."""


def violations_of(data: Data) -> int:
    """Return how many violations the checks of a scenario, or of all of a run's, counted."""
    if "scenarios" in data:
        return sum(violations_of(scenario) for scenario in data["scenarios"])
    return sum(check["violations"] for check in data["checks"])


def broken_promises(data: Data) -> list[int]:
    """Return the numbers of the promises that did not hold in a run."""
    return [promise["number"] for promise in data["promises"] if promise["violations"]]


def faults_by_name(scenario: Data) -> dict[str, list[Data]]:
    """Return the faults that were made, by their names, the most frequent first."""
    counts = Counter(fault["name"] for fault in scenario["faults"])
    return {
        name: [fault for fault in scenario["faults"] if fault["name"] == name]
        for name in sorted(counts, key=lambda name: (-counts[name], name))
    }


def leaks(scenario: Data) -> list[tuple[str, str, int]]:
    """Return (reader, owner, number) wherever an agent could read tokens of another."""
    matrix = scenario["matrix"]
    if not matrix:
        return []
    names = matrix["agents"]
    return [
        (names[r], names[c], number)
        for r, row in enumerate(matrix["rows"])
        for c, number in enumerate(row)
        if number and r != c
    ]


def spread_texts(row: Data) -> list[str]:
    """Return a row's latencies in words, under `LATENCY_HEADS`."""
    return [duration(row[name]) if row["count"] >= least else NONE for name, least in _LATENCY_FIGURES]


def rate(scenario: Data) -> float | None:
    """Return the acknowledged operations of a second."""
    return scenario["ok"] / scenario["seconds"] if scenario["seconds"] else None


def outcome_text(scenario: Data) -> str:
    """Return how the operations ended, in words; what did not happen is not mentioned."""
    parts = [
        f"{count(scenario[name])} {words}"
        for name, words in (
            ("ok", "acknowledged"),
            ("failed", "failed"),
            ("unknown", "of unknown outcome"),
            ("open", "never returned"),
        )
        if scenario[name] or name == "ok"
    ]
    return ", ".join(parts)


def load_text(scenario: Data) -> str:
    """Return who did how much on what in which time."""
    words = (
        f"{some(scenario['operations'], 'operation')} by {some(scenario['agents'], 'agent')} on "
        f"{some(scenario['addresses'], 'address', 'addresses')} in {seconds(scenario['seconds'])}"
    )
    pace = rate(scenario)
    return words if pace is None else f"{words}, {figure(pace, 'ops/s')} acknowledged"


def fairness_text(scenario: Data) -> str:
    """Return the slowest agent against the fastest, in words; '' where there was nobody."""
    found = scenario["fairness"]
    if not found:
        return ""
    slowest, fastest = found["slowest"], found["fastest"]
    if found["ratio"] is None:
        return "nobody got anything done"
    if slowest["agent"] == fastest["agent"]:
        return f"{slowest['agent']} alone: {count(slowest['ok'])}"
    return (
        f"slowest {slowest['agent']} with {count(slowest['ok'])}, {percent(found['ratio'])} of the fastest, "
        f"{fastest['agent']} with {count(fastest['ok'])}; Jain's index {index(found['jain'])}"
    )


def pause_text(scenario: Data) -> str:
    """Return the longest time that an agent got nothing done, in words; '' where there was nobody."""
    found = scenario["longest_pause"]
    return f"{seconds(found['seconds'])} ({found['agent']})" if found else ""


def matrix_text(scenario: Data) -> str:
    """Return in one sentence who could read whose token."""
    found = leaks(scenario)
    if found:
        return f"{some(len(found), 'pair')} of agents where one could read the other's tokens"
    return f"none of {some(len(scenario['matrix']['agents']), 'agent')} could read a token of another"


def fault_text(fault: Data) -> str:
    """Return one fault in words: when, what, to whom."""
    until = "" if fault["until_s"] is None else f", for {seconds(fault['until_s'] - fault['at_s'])}"
    said = fault["text"] or fault["target"]
    return f"{fault['name']} at {moment(fault['at_s'])}{until}: {said}"


def checked(data: Data) -> tuple[int, int, int]:
    """Return how many checks of a run asked anything, how many questions they asked, and how many were given up."""
    checks = [check for scenario in data["scenarios"] for check in scenario["checks"]]
    return (
        sum(check["checked"] > 0 for check in checks),
        sum(check["checked"] for check in checks),
        sum(check["undecided"] for check in checks),
    )

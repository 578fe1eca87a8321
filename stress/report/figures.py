"""From what was recorded to plain data: all that report.json says of one scenario.

One pass over the operations, since there may be millions; everything it keeps of them is counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

from prontodb import errors

from ..history import CLOSE, FAILED, OK, OPEN, OPENED, UNKNOWN
from .between import WORKER, fairness, matrix
from .histogram import Histogram
from .stretch import stretch_lines
from .units import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..aftermath import Aftermath
    from ..history import Fault, History, Operation
    from ..plan import Plan
    from ..verdict import Verdict

Data = dict[str, Any]
"""Made of what JSON knows, and nothing else."""

BUCKET_S, BUCKETS = 0.25, 120
MAX_FAULTS = 5_000
MAX_VIOLATIONS = 10
"""Of one check; their number is told whole."""
MAX_NOTES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scenario that was played, and what was found out about it."""

    name: str
    question: str
    """What the scenario asks, in one sentence."""
    plan: Plan
    history: History
    aftermath: Aftermath
    verdicts: Sequence[Verdict] = ()
    skipped_faults: Mapping[str, str] = field(default_factory=dict)
    """Faults that this machine cannot make: name to reason."""
    notes: Sequence[str] = ()
    is_even: bool = True
    """True when all agents do the same, so that it means something which of them got least."""


def scenario_data(scene: Scene) -> Data:
    """Return the figures of one scenario."""
    history = scene.history
    tally = _Tally(history)
    for operation in history.operations:
        tally.add(operation)
    agents = tally.workers()
    return {
        "name": scene.name,
        "question": scene.question,
        "command": scene.plan.command(scene.name),
        "seconds": round(tally.seconds, 3),
        "agents": max(scene.plan.agents, len(agents)),
        "addresses": len(tally.addresses | scene.aftermath.contents.keys()),
        "operations": len(history.operations),
        "ok": tally.outcomes[OK],
        "failed": tally.outcomes[FAILED],
        "unknown": tally.outcomes[UNKNOWN],
        "open": tally.outcomes[OPENED],
        "bucket_s": round(tally.bucket_s, 6),
        "throughput": tally.throughput(),
        "faults": [_fault_data(fault, history.began_ns) for fault in history.faults[:MAX_FAULTS]],
        "skipped_faults": [{"name": name, "reason": reason} for name, reason in scene.skipped_faults.items()],
        "latency": tally.latency(),
        "waits": tally.waits_data(),
        "by_agent": tally.by_agent(),
        "fairness": fairness({agent: tally.acknowledged[agent] for agent in agents}) if scene.is_even else None,
        "longest_pause": tally.longest_pause(),
        "matrix": matrix(history, scene.aftermath, agents),
        "checks": [check_data(verdict) for verdict in scene.verdicts],
        "violations": [row for verdict in scene.verdicts for row in _violations_data(verdict)],
        "errors": dict(tally.errors.most_common()),
        "notes": list(_notes(scene)),
    }


class _Tally:
    """What one pass over the operations adds up."""

    def __init__(self, history: History) -> None:
        self._began_ns, self._ended_ns = history.began_ns, max(history.began_ns, history.ended_ns)
        self.seconds = (self._ended_ns - self._began_ns) / 1e9
        self.bucket_s = max(BUCKET_S, self.seconds / BUCKETS)
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.addresses: set[str] = set()
        self.acknowledged: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._lives: defaultdict[str, set[str]] = defaultdict(set)
        self._acknowledged_ns: defaultdict[str, list[int]] = defaultdict(list)
        self._seen_ns: dict[str, tuple[int, int]] = {}
        self._latencies: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._unhappy: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._refused: Counter[str] = Counter()
        self._buckets = [Counter[str]() for _ in range(max(1, ceil(self.seconds / self.bucket_s - 1e-9)))]

    def add(self, operation: Operation) -> None:
        """Count one operation."""
        op, agent, outcome = operation.op, operation.agent, operation.outcome
        self.outcomes[outcome] += 1
        if operation.address:
            self.addresses.add(operation.address)
        if operation.error:
            self.errors[operation.error] += 1
        self._lives[agent].add(operation.process)
        began_ns = self._seen_ns.get(agent, (operation.called_ns, 0))[0]
        last_ns = self._ended_ns if operation.returned_ns is None else operation.returned_ns
        self._seen_ns[agent] = (began_ns, last_ns)
        if operation.returned_ns is None:
            if op != OPEN:
                self._unhappy[op][OPENED] += 1
            return
        self._buckets[self._bucket(operation.returned_ns)][outcome] += 1
        took_us = (operation.returned_ns - operation.called_ns + 500) // 1_000
        if op == OPEN:
            self._add_wait(operation, took_us)
        else:
            self._add_work(operation, agent, took_us)

    def _add_wait(self, operation: Operation, took_us: int) -> None:
        mode = operation.argument.get("mode") if isinstance(operation.argument, dict) else None
        name = f"{OPEN} {mode}" if mode else OPEN
        if operation.outcome == OK:
            self._waits[name].record(took_us)
        elif _is_refusal(operation.error):
            # How long it waited in vain is waiting too: without it, the worst waits would be missing.
            self._waits[name].record(took_us)
            self._refused[name] += 1

    def _add_work(self, operation: Operation, agent: str, took_us: int) -> None:
        op = operation.op
        if operation.outcome != OK:
            self._unhappy[op][operation.outcome] += 1
            self._failures[agent] += op != CLOSE
            return
        self._latencies[op].record(took_us)
        if op != CLOSE:
            assert operation.returned_ns is not None
            self.acknowledged[agent] += 1
            self._acknowledged_ns[agent].append(operation.returned_ns)

    def _bucket(self, at_ns: int) -> int:
        number = int((at_ns - self._began_ns) / 1e9 / self.bucket_s)
        return min(max(0, number), len(self._buckets) - 1)

    def workers(self) -> list[str]:
        """Return the names of the agents that did anything."""
        return sorted(agent for agent in self._lives if agent.startswith(WORKER))

    def throughput(self) -> list[Data]:
        """Return how many operations ended in each stretch of `bucket_s`."""
        return [
            {"at_s": round(n * self.bucket_s, 3), "ok": b[OK], "failed": b[FAILED], "unknown": b[UNKNOWN]}
            for n, b in enumerate(self._buckets)
        ]

    def latency(self) -> list[Data]:
        """Return the figures of each operation, the most frequent first. Sessions' opens are waits."""
        ops = sorted(self._latencies.keys() | self._unhappy.keys(), key=lambda op: (-self._latencies[op].count, op))
        return [
            {"op": op, **_spread(self._latencies[op]), **{what: self._unhappy[op][what] for what in (FAILED, UNKNOWN)}}
            for op in ops
        ]

    def waits_data(self) -> list[Data]:
        """Return how long sessions waited to be opened, by mode, those included that were refused in the end."""
        return [
            {"op": name, **_spread(histogram), "refused": self._refused[name]}
            for name, histogram in sorted(self._waits.items())
        ]

    def by_agent(self) -> list[Data]:
        """Return what each agent got done; opening and leaving sessions is not work."""
        return [
            {
                "agent": agent,
                "ok": self.acknowledged[agent],
                "failed": self._failures[agent],
                "lives": len(self._lives[agent]),
            }
            for agent in self.workers()
        ]

    def longest_pause(self) -> Data | None:
        """Return the longest time that an agent went without an acknowledged operation, and which agent."""
        pauses = [(self._pause_ns(agent), agent) for agent in self.workers()]
        if not pauses:
            return None
        pause_ns, agent = max(pauses)
        return {"agent": agent, "seconds": round(pause_ns / 1e9, 3)}

    def _pause_ns(self, agent: str) -> int:
        # From its first call on: how long its process took to start is nobody's waiting.
        first_ns, last_ns = self._seen_ns[agent]
        instants = [first_ns, *sorted(self._acknowledged_ns[agent]), last_ns]
        return max(after - before for before, after in pairwise(instants))


def _is_refusal(error: str) -> bool:
    """Return True for the names of errors that say: somebody else has it."""
    kind = getattr(errors, error, None)
    return isinstance(kind, type) and issubclass(kind, errors.BusyError)


def _spread(histogram: Histogram) -> Data:
    """Return the figures of a histogram; None where there is none."""
    if not histogram.count:
        return dict.fromkeys(("mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us")) | {"count": 0, "curve": []}
    p50, p90, p99, p999 = histogram.percentiles(50, 90, 99, 99.9)
    return {
        "count": histogram.count,
        "mean_us": round(histogram.sum_us / histogram.count, 1),
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "p999_us": p999,
        "max_us": histogram.max_us,
        "curve": [[percentile, us] for percentile, us in histogram.curve()],
    }


def check_data(verdict: Verdict) -> Data:
    """Return what one checker found, without its violations' texts."""
    broken = Counter(violation.promise for violation in verdict.violations)
    return {
        "check": verdict.check,
        "promises": [
            {"number": number, "checked": verdict.checked.get(number, 0), "violations": broken[number]}
            for number in sorted(verdict.checked.keys() | broken.keys())
        ],
        "checked": sum(verdict.checked.values()),
        "violations": len(verdict.violations),
        "undecided": verdict.undecided,
        "notes": list(verdict.notes[:MAX_NOTES]),
    }


def _violations_data(verdict: Verdict) -> list[Data]:
    return [
        {
            "check": violation.check,
            "promise": violation.promise,
            "text": violation.text,
            "stretch": stretch_lines(violation.stretch),
        }
        for violation in verdict.violations[:MAX_VIOLATIONS]
    ]


def _fault_data(fault: Fault, began_ns: int) -> Data:
    return {
        "name": fault.name,
        "target": fault.target,
        "at_s": round((fault.at_ns - began_ns) / 1e9, 3),
        "until_s": None if fault.until_ns is None else round((fault.until_ns - began_ns) / 1e9, 3),
        "text": fault.text,
    }


def _notes(scene: Scene) -> Iterable[str]:
    aftermath = scene.aftermath
    unasked = [ending for ending in aftermath.endings if not ending.was_meant]
    notes = [
        *scene.notes,
        *aftermath.notes,
        *(f"could not be read: {error}" for error in aftermath.errors),
        *(f"{end.process} ended with {end.code}, unasked: {end.last_words}".rstrip(" :") for end in unasked),
    ]
    if len(scene.history.faults) > MAX_FAULTS:
        notes.insert(0, f"only the first {MAX_FAULTS:,} of {some(len(scene.history.faults), 'fault')} are listed")
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES:] = [f"and {some(len(notes) - MAX_NOTES, 'more note')}"]
    return notes

"""Made-up runs for the tests of the report: as long and as colourful as real ones, and the same each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

from stress.aftermath import Aftermath, Ending
from stress.history import (
    CAS,
    CLOSE,
    EVICT,
    FAILED,
    GET,
    KEYS,
    LEND,
    OK,
    OPEN,
    OPENED,
    PEEK,
    RAISE,
    SET,
    TRANSACT,
    UNKNOWN,
    Fault,
    History,
    Operation,
)
from stress.plan import Plan
from stress.report.figures import Scene, scenario_data
from stress.report.run import run_data
from stress.verdict import Verdict, Violation

BEGAN_NS = 5_000_000_000_000
BEGAN_AT = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
PROMISES = {
    1: "An acknowledged change survives kill -9 of any process at any instant.",
    4: "An operation with an unknown outcome says so, and leaves no transaction open.",
    7: "No call on one address touches the files of another.",
    10: "For each key the history of concurrent processes is linearizable; counters are exact.",
    12: "No operation blocks for ever: each ends in success, a typed error, or 'busy'.",
    13: "The lock of a killed holder is free at once; after a takeover its late write is refused.",
    17: "A key past its expiry is never returned.",
    23: "Deleting the whole registry loses no value.",
    26: "A backup that is listed is complete and verified.",
}
MACHINE = {
    "processor": "Example Processor 9000 @ 2.40GHz",
    "cores": 8,
    "memory_bytes": 16_777_216_000,
    "kernel": "Linux 6.8.0",
    "file_system": "ext4",
    "load": [1.5, 0.9, 0.4],
    "strace": True,
    "libfaketime": False,
}
VERSIONS = {"prontodb": "0.1.0", "python": "CPython 3.12.4", "sqlite": "3.53.4"}
HOSTILE = "<script>alert('x')</script>\"&\x00\x1b[31m\u202e\ud800]]>"
_MEDIANS_US = {GET: 180, SET: 2_400, RAISE: 2_900, CAS: 2_600, TRANSACT: 3_800, PEEK: 150, KEYS: 400, LEND: 2_500}


def operation(op: str = SET, at_ms: float = 0, took_ms: float | None = 1, **fields: Any) -> Operation:
    """Return one operation of agent01's first life, acknowledged unless said otherwise."""
    called_ns = BEGAN_NS + round(at_ms * 1e6)
    returned_ns = None if took_ms is None else called_ns + round(took_ms * 1e6)
    made = Operation(
        process="agent01-1",
        number=1,
        op=op,
        address="agent01/main",
        session="s-1",
        key="",
        argument=None,
        called_ns=called_ns,
        returned_ns=returned_ns,
        outcome=OPENED if returned_ns is None else OK,
    )
    return replace(made, **fields)


def history(*operations: Operation, seconds: float = 60.0, faults: tuple[Fault, ...] = ()) -> History:
    """Return a history of these operations."""
    ordered = sorted(operations, key=lambda one: (one.called_ns, one.process, one.number))
    ended_ns = BEGAN_NS + round(seconds * 1e9)
    return History(operations=ordered, faults=list(faults), began_ns=BEGAN_NS, ended_ns=ended_ns)


def busy_history(
    *, agents: int = 32, seconds: float = 60.0, each: int = 120, slowness: float = 1.0, faults: int = 40, seed: int = 1
) -> History:
    """Return what many agents would have recorded, `each` operations apiece, and faults of seven kinds."""
    chance = Random(seed)
    operations: list[Operation] = []
    for number in range(1, agents + 1):
        operations += _life_of(f"agent{number:02}", chance, seconds, each, slowness * (0.8 + number / agents / 2))
    made = tuple(_fault(chance, seconds, agents) for _ in range(faults))
    return history(*operations, seconds=seconds, faults=made)


def _life_of(agent: str, chance: Random, seconds: float, each: int, slowness: float) -> list[Operation]:
    found, at_ms, life = [], chance.uniform(0, 40), 1
    for number in range(1, each + 1):
        op = chance.choice([*_MEDIANS_US, GET, GET, SET, OPEN, CLOSE])
        median_us = _MEDIANS_US.get(op, 4_000) * slowness
        took_ms: float | None = (
            median_us / 1_000 * chance.lognormvariate(0, 0.5) * (40 if chance.random() < 0.01 else 1)
        )
        outcome, error = OK, ""
        luck = chance.random()
        if luck < 0.004:
            took_ms, outcome = None, OPENED
        elif luck < 0.012:
            outcome, error = UNKNOWN, "OutcomeUnknownError"
        elif luck < 0.03:
            outcome, error = FAILED, "AddressBusyError"
        token = f"token:{agent}:{number}"
        one = operation(
            op,
            at_ms,
            took_ms,
            process=f"{agent}-{life}",
            number=number,
            address=f"{agent}/main",
            key=f"token.{agent}.{number}" if op in (GET, SET) else "counter.1" if op == RAISE else "",
            argument={"mode": chance.choice(["exclusive", "shared"])} if op == OPEN else None,
            outcome=outcome,
            result=token if op == GET and outcome == OK else None,
            error=error,
        )
        found.append(one)
        life += took_ms is None
        at_ms += (took_ms or 300) + chance.uniform(0.2, 1.8) * seconds * 1_000 / each
        if at_ms > seconds * 1_000 - 400:
            break
    return found


def _fault(chance: Random, seconds: float, agents: int) -> Fault:
    name = chance.choice(["kill", "kill", "kill", "stop", "stop", "cancel", "evict", "full-disk", "clock", "lock-file"])
    at_ns = BEGAN_NS + round(chance.uniform(0, seconds - 3) * 1e9)
    until_ns = at_ns + round(chance.uniform(0.1, 3) * 1e9) if name in ("stop", "full-disk", "clock") else None
    target = f"agent{chance.randint(1, agents):02}-1"
    return Fault(name=name, target=target, at_ns=at_ns, until_ns=until_ns, text=f"{name} made to {target}")


def verdicts(*more: Verdict) -> tuple[Verdict, ...]:
    """Return what checkers say when all is well, and `more`."""
    return (
        Verdict(check="acknowledged", checked={1: 4_812, 23: 1}),
        Verdict(check="registers", checked={10: 1_204}, undecided=2, notes=("2 keys had too many open writes",)),
        Verdict(check="isolation", checked={7: 31_744}),
        *more,
    )


def broken_verdict() -> Verdict:
    """Return a checker's word on two violations, with texts that want to be obeyed."""
    stretch = (
        operation(SET, 10, 2.5, key="register.3", argument="agent01-1:5", result=12),
        operation(GET, 14, 0.4, key="register.3", result=HOSTILE, process="agent02-1"),
        operation(EVICT, 15, None, process="faults-1", session="s-1-and-a-long-name", argument=None),
    )
    seen = Violation(check="fences", promise=13, text="A fenced session's write was acknowledged.", stretch=stretch)
    return Verdict(
        check="fences",
        checked={13: 88},
        violations=(seen, replace(seen, text=f"read {HOSTILE} instead")),
    )


def scene(name: str = "isolation", made: History | None = None, **fields: Any) -> Scene:
    """Return a scenario that was played."""
    plan = fields.pop("plan", None) or Plan(scenarios=(name,), faults=("kill", "stop"), seconds=60, seed=7)
    question = "Does anybody ever read another agent's token, whatever is done to them all?"
    return Scene(
        name=name,
        question=fields.pop("question", question),
        plan=plan,
        history=made if made is not None else busy_history(),
        aftermath=fields.pop("aftermath", None) or Aftermath(),
        verdicts=fields.pop("verdicts", verdicts()),
        **fields,
    )


def run(*scenes: Scene, plan: Plan | None = None) -> dict[str, Any]:
    """Return the data of a run of these scenarios."""
    plan = plan or Plan(
        scenarios=tuple(one.name for one in scenes), faults=("kill", "stop"), seconds=60, seed=7, root="r", report="p"
    )
    data = [scenario_data(one) for one in scenes]
    return run_data(plan, data, promises=PROMISES, began_at=BEGAN_AT, machine=MACHINE, versions=VERSIONS)


@cache
def good_run() -> dict[str, Any]:
    """Return a run (not to be changed) in which every promise held, of both designs."""
    skipped = {"clock": "libfaketime is not installed", "write-errors": "strace may not attach here (ptrace_scope 2)"}
    ended = [Ending(process="agent07-1", code=-11, was_meant=False, last_words="Segmentation fault")]
    return run(
        scene(skipped_faults=skipped, aftermath=Aftermath(notes=["3 keystores were opened twice"], endings=ended)),
        scene("shared-database", busy_history(slowness=14, each=60, seed=2), question="And in one shared database?"),
    )


@cache
def bad_run() -> dict[str, Any]:
    """Return a run (not to be changed) with violations, a leak, 300 faults, and hostile names everywhere."""
    leaky = busy_history(faults=300, seed=3)
    leaky.operations.append(operation(PEEK, 59_000, 1, key="token.agent09.1", result="token:agent09:1"))
    leaky.faults.append(Fault(name=HOSTILE, target=HOSTILE, at_ns=BEGAN_NS, text=HOSTILE))
    scenes = [
        scene(made=leaky, verdicts=verdicts(broken_verdict()), skipped_faults={HOSTILE: HOSTILE}, notes=(HOSTILE,)),
        scene(
            "contention",
            busy_history(agents=5, faults=3),
            question=HOSTILE,
            plan=Plan(scenarios=("contention",), agents=5, seed=7),
        ),
    ]
    return run(*scenes)


@cache
def empty_run() -> dict[str, Any]:
    """Return a run (not to be changed) of one agent that did nothing at all."""
    plan = Plan(scenarios=("isolation",), agents=1, seconds=1)
    return run(scene(made=history(seconds=0), verdicts=(), plan=plan), plan=plan)

"""A register that is right, and the history that concurrent processes record of it: every check must pass it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from stress.history import CAS, DELETE, FAILED, GET, OK, OPENED, SET, UNKNOWN, Operation
from tests.unit.stress.histories import Story


def answer(state: str | None, op: str, argument: Any) -> tuple[Any, str | None]:
    """Return what a register answers, and its state afterwards."""
    if op == GET:
        return state, state
    if op == SET:
        return 1, argument
    if op == DELETE:
        return state is not None, None
    expected, value = argument
    return state == expected, value if state == expected else state


@dataclass(frozen=True, slots=True)
class _Plan:
    point: int
    at: tuple[int, int]
    op: str
    outcome: str
    value: str
    by: str


def simulate(chance: Random, key: str, count: int, processes: int, *, unknown: float) -> tuple[list[Operation], Any]:
    """Return the operations of processes that each ask again and again, and the state at the end.

    Each operation happens at one instant between its call and its return. Those of unknown outcome, `unknown` of all,
    happen by then, or later, or never.
    """
    plans = _plans(chance, count, processes, unknown)
    story = Story()
    states: list[str | None] = [None]
    for plan in sorted(plans, key=lambda plan: plan.point):
        expected = states[-chance.choice([1, 1, 1, 2, min(3, len(states))]) :][0]
        argument = {SET: plan.value, CAS: [expected, plan.value]}.get(plan.op)
        result, state = answer(states[-1], plan.op, argument)
        happened = plan.outcome == OK or (plan.outcome != FAILED and chance.random() < 0.5)
        if happened and state != states[-1]:
            states.append(state)
        result = result if plan.outcome == OK else None
        story.told(plan.op, key, argument, result, outcome=plan.outcome, at=plan.at, by=plan.by)
    return story.history().operations, states[-1]


def _plans(chance: Random, count: int, processes: int, unknown: float) -> list[_Plan]:
    plans: list[_Plan] = []
    ready_at = [chance.randrange(100) for _ in range(processes)]
    lives = [1] * processes
    for number in range(count):
        who = min(range(processes), key=ready_at.__getitem__)
        called = ready_at[who] + chance.randrange(1, 20)
        point = called + chance.randrange(1, 100)
        returned = ready_at[who] = point + chance.randrange(1, 100)
        outcome = OK if chance.random() >= unknown else chance.choice([UNKNOWN, OPENED, FAILED])
        if outcome == UNKNOWN and chance.random() < 0.2:
            point += chance.randrange(1000)
        op = chance.choices([GET, SET, DELETE, CAS], [5, 3, 1, 3])[0]
        plans.append(_Plan(point, (called, returned), op, outcome, f"{who}:{number}", f"agent{who:02}-{lives[who]}"))
        lives[who] += outcome == OPENED
    return plans

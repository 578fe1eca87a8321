"""What can be asked for, how a number that makes no sense is refused, and the command that repeats a run."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stress import command
from stress.plan import MAX_AGENTS, Plan, PlanError

BARE = Plan(scenarios=("isolation",))
FULL = Plan(
    scenarios=("contention", "ttl"),
    agents=4,
    addresses=2,
    seconds=2.5,
    faults=("kill", "full-disk"),
    breaks=("lost-ack",),
    seed=77,
    operations=900,
    mebibytes=3,
)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("agents", 0, "--agents must be 1 to 1,000, not 0"),
        ("agents", -3, "--agents must be 1 to 1,000, not -3"),
        ("agents", MAX_AGENTS + 1, "--agents must be 1 to 1,000, not 1,001"),
        ("addresses", 0, "--addresses must be at least 1, not 0"),
        ("seconds", 0, "--seconds must be more than 0, and have an end: not 0"),
        ("seconds", -0.5, "--seconds must be more than 0, and have an end: not -0.5"),
        ("seconds", float("nan"), "--seconds must be more than 0, and have an end: not nan"),
        ("seconds", float("inf"), "--seconds must be more than 0, and have an end: not inf"),
        ("operations", 0, "--operations must be more than 0, and have an end: not 0"),
        ("mebibytes", -1, "--mib must be more than 0, and have an end: not -1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_what_would(name: str, value: float, sentence: str) -> None:
    numbers: dict[str, Any] = {name: value}
    with pytest.raises(PlanError) as refused:
        replace(BARE, **numbers)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("numbers", [{"agents": 1}, {"agents": MAX_AGENTS}, {"addresses": 1}, {"seconds": 0.01}])
def test_the_least_and_the_most_are_allowed(numbers: dict[str, Any]) -> None:
    replace(BARE, **numbers)


def test_the_command_names_what_decides_and_leaves_out_what_is_the_default() -> None:
    assert BARE.command() == "python -m stress run isolation --agents 32 --seconds 30 --seed 0"


def test_the_command_names_all_that_differs() -> None:
    assert FULL.command() == (
        "python -m stress run contention ttl --agents 4 --seconds 2.5 --seed 77 --addresses 2 "
        "--faults kill,full-disk --break lost-ack --operations 900 --mib 3"
    )


def test_the_command_for_one_scenario_names_that_alone() -> None:
    assert FULL.command("ttl") == FULL.command().replace("contention ttl", "ttl")


@pytest.mark.parametrize("plan", [BARE, FULL, replace(FULL, seconds=30, faults=())])
def test_the_command_makes_the_same_plan_again(plan: Plan) -> None:
    args = command._parser("stress").parse_args(shlex.split(plan.command())[3:])
    assert command._plan(args, Path("reports")) == replace(plan, report="reports")


def test_a_part_of_a_plan_is_the_same_plan_for_fewer() -> None:
    part = FULL.part(agents=2, addresses=None)
    assert part == replace(FULL, agents=2, addresses=None)


def test_what_no_clock_can_count_is_refused() -> None:
    with pytest.raises(PlanError, match="--seconds must be at most 1,000,000,000, not 1e\\+300"):
        replace(BARE, seconds=1e300)

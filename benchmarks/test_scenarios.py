"""The same scenarios under pytest-benchmark: `pytest benchmarks --benchmark-enable`; see `ops/benchmarks.md`.

Those of a race whose acknowledged writes survive the same are a group, and rank among themselves alone; each contender
does the same fixed number of operations per round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from benchmarks.listing import SCENARIOS
from benchmarks.measure import Plan
from benchmarks.report.ranking import class_title

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.measure import Race

ROUNDS = 5
ENTRIES = [
    pytest.param(scenario, race, name, id=f"{race.name}: {name}")
    for scenario in SCENARIOS.values()
    if scenario.races is not None
    for race in scenario.races(Plan.standard())
    for name in race.runners
]
PROBES = [name for name, scenario in SCENARIOS.items() if scenario.probe is not None]


@pytest.fixture(scope="module")
def plan(request: pytest.FixtureRequest) -> Plan:
    """The real amount of work when times are wanted, the least when the tests only have to pass."""
    return Plan.quick() if request.config.getoption("benchmark_disable") else Plan.standard()


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """An event loop for all contenders, on a thread of its own."""
    with start_blocking_portal("asyncio") as portal:
        yield portal


class Arenas:
    """The stores of the scenario that is running; those of the one before are closed when the next begins."""

    def __init__(self, portal: BlockingPortal, plan: Plan, factory: pytest.TempPathFactory) -> None:
        self._portal, self._plan, self._factory = portal, plan, factory
        self._stack, self._name = ExitStack(), ""
        self._stores: Any = {}

    def stores(self, name: str) -> Any:
        """Return the opened and filled stores of a scenario."""
        if name != self._name:
            self.close()
            folder: Path = self._factory.mktemp(name)
            arena = SCENARIOS[name].arena
            assert arena is not None
            opening = self._portal.wrap_async_context_manager(arena(folder, self._plan))
            self._stores, self._name = self._stack.enter_context(opening), name
        return self._stores

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()
        self._name = ""


@pytest.fixture(scope="module")
def arenas(portal: BlockingPortal, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arenas]:
    arenas = Arenas(portal, plan, tmp_path_factory)
    yield arenas
    arenas.close()


@pytest.mark.parametrize(("scenario", "race", "name"), ENTRIES)
def test_race(scenario: Any, race: Race, name: str, arenas: Arenas, portal: BlockingPortal, benchmark: Any) -> None:
    stores = arenas.stores(scenario.name)
    if name not in stores:
        pytest.skip(f"{name} is not installed")
    promise = stores[name].promise
    benchmark.group = race.name if promise is None else f"{race.name}: {class_title(promise.survives)}"
    benchmark.extra_info["promise"] = str(promise or "")
    done = benchmark.pedantic(
        portal.call, args=(race.runners[name], stores[name], race.ops), rounds=ROUNDS, warmup_rounds=1
    )
    benchmark.extra_info["operations"] = done
    assert done > 0


@pytest.mark.parametrize("name", PROBES)
def test_probe(name: str, plan: Plan, portal: BlockingPortal, benchmark: Any, tmp_path: Path) -> None:
    probe = SCENARIOS[name].probe
    assert probe is not None
    benchmark.group = SCENARIOS[name].question
    findings = benchmark.pedantic(portal.call, args=(probe, tmp_path, plan), rounds=1)
    benchmark.extra_info.update({row.what: row.reached for row in findings.rows})
    assert findings.rows or findings.missing

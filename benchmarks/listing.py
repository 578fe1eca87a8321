"""Which scenarios there are, in the order they run."""

from __future__ import annotations

from benchmarks.scenarios import (
    addresses,
    backups,
    busy_loop,
    contention,
    durable_sets,
    footprint,
    gets,
    growing_log,
    loop_blocks,
    many_addresses,
    migration,
    one_shot,
    prefix_lists,
    processes,
    protection,
    relaxed_sets,
    sessions,
    syncs,
    upkeep,
    values,
)
from benchmarks.scenarios.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        durable_sets.SCENARIO,
        relaxed_sets.SCENARIO,
        syncs.SCENARIO,
        many_addresses.SCENARIO,
        gets.SCENARIO,
        values.SCENARIO,
        prefix_lists.SCENARIO,
        sessions.SCENARIO,
        one_shot.SCENARIO,
        footprint.SCENARIO,
        addresses.SCENARIO,
        backups.SCENARIO,
        upkeep.SCENARIO,
        growing_log.SCENARIO,
        migration.SCENARIO,
        loop_blocks.SCENARIO,
        busy_loop.SCENARIO,
        processes.SCENARIO,
        contention.SCENARIO,
        protection.SCENARIO,
    )
}

"""The scenarios, one file each; `SCENARIOS` has them all by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import backup, churn, contention, crowd, isolation, migrate, shared_database, soak, ttl

if TYPE_CHECKING:
    from .scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    each.SCENARIO.name: each.SCENARIO
    for each in (isolation, contention, churn, ttl, backup, migrate, crowd, soak, shared_database)
}
"""In the order in which people should read them."""

"""Migrations as tests do them: planned, done, and what is at the addresses afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prontodb.direct import OneShot, run
from prontodb.migration.plan import Options
from prontodb.model.address import Address
from prontodb.model.clock import Clock, ManualClock
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings
from prontodb.registry.jobs import JobRegistry
from prontodb.work import Work
from tests.backups import finished
from tests.old_sources import T0
from tests.parts import Parts

if TYPE_CHECKING:
    from prontodb.migration.report import MigrationReport, PlaceReport
    from prontodb.model.entry import Entry

NOW_MS = (T0 + 1_000_000) * 1_000
"""When tests migrate: after all moments in their sources but those to come."""


def work_at(root: Path, clock: Clock | None = None, **settings: Any) -> Work:
    """Return the long works of a root, at NOW_MS."""
    clock = clock or ManualClock(NOW_MS)
    parts, layout = Parts(root, clock, wait_s=settings.get("wait_s", 5.0)), Layout(str(root))
    return Work(layout, Settings(**settings), clock, parts.lifecycle, JobRegistry(layout, wait_s=0.5, one_shot=True))


def planned(root: Path, source: Path, *, work: Work | None = None, **options: Any) -> MigrationReport:
    """Plan a migration and return what would be done."""
    with (work or work_at(root)).migration(str(source), chosen(options)) as migration:
        finished(migration.planning())
        return migration.planned()


def migrated(
    root: Path, source: Path, *, work: Work | None = None, scratch: Path | None = None, **options: Any
) -> MigrationReport:
    """Migrate and return the report, which adds up."""
    place = None if scratch is None else str(scratch)
    with (work or work_at(root)).migration(str(source), chosen(options), scratch=place) as migration:
        finished(migration.planning())
        report = finished(migration.applying())
    assert report.read == report.migrated + report.expired + report.superseded + report.reported
    return report


def chosen(options: Mapping[str, Any]) -> Options:
    """Return options, with the addresses of a mapping as text."""
    mapping = {old: Address.parse(address) for old, address in options.get("mapping", {}).items()}
    return Options(**{**options, "mapping": mapping})


def counts(report: MigrationReport | PlaceReport) -> tuple[int, int, int, int]:
    """Return migrated, expired, superseded, reported."""
    return report.migrated, report.expired, report.superseded, report.reported


def entries(root: Path, address: str) -> dict[str, Entry]:
    """Return the live entries of an address; none where there is no address."""
    with OneShot(str(root), Address.parse(address)) as keystore:

        async def scanned() -> dict[str, Entry]:
            return {entry.key: entry async for entry in keystore.scan()}

        found: dict[str, Entry] = run(scanned())
        return found


def values(root: Path, address: str) -> dict[str, str]:
    """Return the live values of an address."""
    return {key: entry.value for key, entry in entries(root, address).items()}


def reasons(report: MigrationReport) -> dict[str, int]:
    """Return how many rows were reported for which reason."""
    return {one.reason: one.rows for one in report.reasons}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a report file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

"""What a root's settings file says of its jobs and backups: schedules, retention, a second place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidSettingsError, shown
from prontodb.schedule.schedules import Schedule, parse
from prontodb.schedule.timetable import Cron, Every

if TYPE_CHECKING:
    from collections.abc import Mapping

SWEEP, INCREMENTAL, FULL, VERIFY = "sweep", "backup-incremental", "backup-full", "verify"
PRUNE, REAP, COMPACT = "prune", "reap", "compact"

DEFAULTS: Mapping[str, Schedule] = {
    SWEEP: Schedule(Every(60), jitter_s=5, deadline_s=600),
    INCREMENTAL: Schedule(Every(3_600), jitter_s=60, deadline_s=3_600),
    FULL: Schedule(Cron("20 3 * * *"), jitter_s=300, deadline_s=6 * 3_600),
    VERIFY: Schedule(Cron("40 4 * * 0"), jitter_s=600, deadline_s=12 * 3_600),
    PRUNE: Schedule(Cron("50 5 * * *"), jitter_s=300, deadline_s=3_600),
    REAP: Schedule(Every(300), jitter_s=10, deadline_s=300),
    COMPACT: Schedule(Cron("10 6 * * *"), jitter_s=300, deadline_s=3_600),
}
"""The built-in jobs and when they run unless the settings file says otherwise: out of each other's way, at night."""

JOBS = tuple(DEFAULTS)
_BACKUP_FIELDS = ("retention", "second_place")


@dataclass(frozen=True, slots=True)
class Backups:
    """The section "backups": what retention keeps, as JSON, and the folder where each backup is copied to, if any."""

    retention: object
    second_place: str | None


def schedules_of(section: object) -> tuple[dict[str, Schedule], list[str]]:
    """Return the schedule of every job under the section "jobs", and warnings of what is unknown there."""
    return parse(section, DEFAULTS)


def backups_of(section: object) -> tuple[Backups, list[str]]:
    """Return the section "backups", and warnings of what is unknown there."""
    if not isinstance(section, dict):
        raise InvalidSettingsError("setting backups must be a JSON object")
    place = section.get("second_place")
    if place is not None and not (isinstance(place, str) and place.startswith("/") and "\0" not in place):
        raise InvalidSettingsError("setting backups.second_place must be the absolute path of a folder, or null")
    if place is not None and len(place.strip("/")) == 0:
        raise InvalidSettingsError("setting backups.second_place must be a folder of its own, not /")
    warnings = [
        f"setting {shown(f'backups.{name}')} is ignored: there are {' and '.join(_BACKUP_FIELDS)}"
        for name in section
        if name not in _BACKUP_FIELDS
    ]
    return Backups(section.get("retention", {}), place), warnings

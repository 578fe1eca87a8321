"""What the settings file says of jobs and backups: defaults where it says nothing, and nothing is guessed."""

from __future__ import annotations

import pytest

from prontodb.errors import InvalidSettingsError
from prontodb.jobs.plan import DEFAULTS, JOBS, Backups, backups_of, schedules_of
from prontodb.schedule.timetable import Every


def test_nothing_said_is_all_jobs_as_they_are_meant_to_be() -> None:
    found, warnings = schedules_of({})
    assert (found, warnings) == (dict(DEFAULTS), [])
    assert tuple(found) == JOBS == (
        "sweep", "backup-incremental", "backup-full", "verify", "prune", "reap", "compact",
    )  # fmt: skip
    assert all(schedule.enabled and schedule.deadline_s for schedule in found.values())


def test_what_is_said_of_one_job_changes_nothing_else() -> None:
    found, warnings = schedules_of({"sweep": {"every": "5m"}, "verify": {"enabled": False}})
    assert warnings == []
    assert found["sweep"].timetable == Every(300)
    assert found["sweep"].deadline_s == DEFAULTS["sweep"].deadline_s
    assert not found["verify"].enabled
    assert {name: found[name] for name in JOBS[1:3]} == {name: DEFAULTS[name] for name in JOBS[1:3]}


def test_a_job_that_does_not_exist_is_a_warning_with_the_one_that_may_be_meant() -> None:
    found, warnings = schedules_of({"backup-ful": {"every": "1h"}})
    assert found == dict(DEFAULTS)
    (warning,) = warnings
    assert "backup-full" in warning


@pytest.mark.parametrize("section", [None, [], "sweep", 1, True])
def test_sections_of_another_type_are_refused(section: object) -> None:
    with pytest.raises(InvalidSettingsError, match="jobs"):
        schedules_of(section)
    with pytest.raises(InvalidSettingsError, match="backups"):
        backups_of(section)


def test_a_section_of_backups_says_what_retention_keeps_and_where_a_second_place_is() -> None:
    assert backups_of({}) == (Backups({}, None), [])
    assert backups_of({"second_place": None})[0].second_place is None
    found, warnings = backups_of({"retention": {"keep_last": 1}, "second_place": "/mnt/disk", "retentoin": {}})
    assert found == Backups({"keep_last": 1}, "/mnt/disk")
    (warning,) = warnings
    assert "backups.retentoin" in warning


@pytest.mark.parametrize("place", ["", "relative/path", "/with\0nul", 7, ["/mnt"], {}, True])
def test_a_second_place_that_is_no_absolute_path_is_refused(place: object) -> None:
    with pytest.raises(InvalidSettingsError, match=r"backups\.second_place"):
        backups_of({"second_place": place})

"""Schedules: what the settings file may say about jobs, and what is said of it when it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidSettingsError
from prontodb.schedule.schedules import MAX_WARNINGS, Schedule, as_json, parse
from prontodb.schedule.timetable import Cron, Every

DEFAULTS = {
    "sweep": Schedule(Every(300), jitter_s=5, deadline_s=600),
    "backup-full": Schedule(Cron("0 3 * * *", "Europe/Berlin")),
    "verify": Schedule(Every(604_800), enabled=False),
}


def schedule(name: str, **fields: Any) -> Schedule:
    schedules, warnings = parse({name: fields}, DEFAULTS)
    assert warnings == []
    assert {other: schedules[other] for other in DEFAULTS if other != name} == {
        other: DEFAULTS[other] for other in DEFAULTS if other != name
    }
    return schedules[name]


def refusal(fields: object) -> str:
    with pytest.raises(InvalidSettingsError) as caught:
        parse(fields, DEFAULTS)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


def test_what_is_not_said_keeps_its_default() -> None:
    assert parse({}, DEFAULTS) == (DEFAULTS, [])
    assert parse({"sweep": {}}, DEFAULTS) == (DEFAULTS, [])
    assert schedule("sweep", every="1m") == Schedule(Every(60), 5, 600)
    assert schedule("sweep", jitter="1m") == Schedule(Every(300), 60, 600)
    assert schedule("verify", enabled=True) == Schedule(Every(604_800))


def test_everything_can_be_said() -> None:
    assert schedule("sweep", every=90, jitter=0, deadline="2h", enabled=False) == Schedule(Every(90), 0, 7_200, False)
    assert schedule("sweep", every=1.5, jitter="0s", deadline=None) == Schedule(Every(1.5), 0, None)
    assert schedule("sweep", cron="0 4 * * SUN") == Schedule(Cron("0 4 * * SUN"), 5, 600)
    assert schedule("sweep", cron="0 4 * * *", zone="Asia/Tokyo").timetable == Cron("0 4 * * *", "Asia/Tokyo")
    assert schedule("backup-full", every="6h") == Schedule(Every(21_600))


def test_expression_and_zone_of_the_calendar_are_changed_one_by_one() -> None:
    assert schedule("backup-full", cron="30 2 * * *").timetable == Cron("30 2 * * *", "Europe/Berlin")
    assert schedule("backup-full", zone="UTC").timetable == Cron("0 3 * * *", "UTC")
    assert refusal({"sweep": {"zone": "UTC"}}) == (
        "jobs.sweep.zone is the zone of jobs.sweep.cron, which is missing; add it"
    )


@pytest.mark.parametrize("other", ["cron", "zone"])
def test_an_interval_and_the_calendar_exclude_each_other(other: str) -> None:
    assert refusal({"sweep": {"every": "1m", other: "UTC"}}) == (
        f"jobs.sweep.every and jobs.sweep.{other} exclude each other; leave one out"
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("every", "often", "'often'"),
        ("every", "", "''"),
        ("every", 0, "0"),
        ("every", "500ms", "'500ms'"),
        ("every", "11000d", "'11000d'"),
        ("every", -5, "-5"),
        ("every", None, "null"),
        ("every", True, "true"),
        ("every", [60], "a list"),
        ("every", float("nan"), "nan"),
        ("every", float("inf"), "inf"),
        pytest.param("every", 10**5_000, "a number beyond 64 bits", id="huge"),
        ("jitter", "25h", "'25h'"),
        ("jitter", False, "false"),
        ("jitter", None, "null"),
        ("deadline", 0, "0"),
        ("deadline", "0.5s", "'0.5s'"),
        ("deadline", {"minutes": 5}, "a dict"),
        ("enabled", 1, "1"),
        ("enabled", "yes", "'yes'"),
        ("enabled", None, "null"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(field: str, value: Any, told: str) -> None:
    assert refusal({"sweep": {field: value}}).startswith(f"jobs.sweep.{field} is {told}; allowed: ")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "61 * * * *"}, "jobs.verify.cron: '61 * * * *' has a wrong minute"),
        ({"cron": 7}, "jobs.verify.cron: '7' is no cron expression"),
        ({"cron": None, "zone": "UTC"}, "jobs.verify.cron: 'None' is no cron expression"),
        ({"cron": "0 0 31 2 *"}, "jobs.verify.cron: '0 0 31 2 *' has a wrong day-of-month, or one that never comes"),
        ({"cron": "0 3 * * *", "zone": "Berlin"}, "jobs.verify.zone: zone 'Berlin' is not known to this machine"),
        ({"cron": "0 3 * * *", "zone": None}, "jobs.verify.zone: zone 'None' is not known to this machine"),
    ],
)
def test_a_wrong_calendar_is_refused_by_the_field_that_is_wrong(fields: dict[str, Any], told: str) -> None:
    message = refusal({"verify": fields})
    assert message.startswith(told)
    assert "; allowed: " in message


@pytest.mark.parametrize("section", [None, [], "1m", 5, True])
def test_the_section_and_each_job_in_it_are_objects(section: Any) -> None:
    assert refusal(section).startswith("jobs is ")
    assert refusal({"sweep": section}).startswith("jobs.sweep is ")


def test_a_wrong_value_of_a_job_that_is_switched_off_is_refused_all_the_same() -> None:
    assert refusal({"sweep": {"enabled": False, "every": "never"}}).startswith("jobs.sweep.every is 'never'")


def test_unknown_jobs_and_fields_are_warned_of_with_the_nearest_name() -> None:
    schedules, warnings = parse(
        {"swep": {"every": "1m"}, "sweep": {"evry": "1m", "deadline": "1m"}, "x\ny": 7}, DEFAULTS
    )
    assert schedules["sweep"] == Schedule(Every(300), 5, 60)
    assert set(schedules) == set(DEFAULTS)
    assert warnings == [
        "'swep' is no job; did you mean sweep? it is ignored",
        "'x\\ny' is no job; there are: sweep, backup-full, verify; it is ignored",
        "'evry' is no field of jobs.sweep; did you mean every? it is ignored",
    ]


def test_warnings_are_bounded() -> None:
    _, warnings = parse({f"job{number}": {} for number in range(1_000)}, DEFAULTS)
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "980 more jobs and fields are unknown and ignored"


def test_a_schedule_is_told_as_the_fields_that_say_it() -> None:
    assert as_json(DEFAULTS["sweep"]) == {"every": "5m", "jitter": "5s", "deadline": "10m", "enabled": True}
    assert as_json(DEFAULTS["backup-full"]) == {
        "cron": "0 3 * * *",
        "zone": "Europe/Berlin",
        "jitter": "0s",
        "deadline": None,
        "enabled": True,
    }


TIMETABLES = st.one_of(
    st.integers(1_000, 315_360_000_000).map(lambda ms: Every(ms / 1_000)),
    st.builds(Cron, st.sampled_from(["0 3 * * *", "*/5 * * * MON-FRI"]), st.sampled_from(["UTC", "Europe/Berlin"])),
)
SCHEDULES = st.builds(
    Schedule,
    TIMETABLES,
    st.integers(0, 86_400_000).map(lambda ms: ms / 1_000),
    st.none() | st.integers(1_000, 315_360_000_000).map(lambda ms: ms / 1_000),
    st.booleans(),
)


@given(SCHEDULES, st.sampled_from(sorted(DEFAULTS)))
def test_a_schedule_that_was_told_is_read_back_as_it_was(schedule: Schedule, name: str) -> None:
    fields = json.loads(json.dumps({name: as_json(schedule)}))
    assert parse(fields, DEFAULTS) == (DEFAULTS | {name: schedule}, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=10), inside, max_size=3),
)
SAID = st.dictionaries(st.sampled_from(["every", "cron", "zone", "jitter", "deadline", "enabled", "x"]), JSON)


@given(JSON | st.dictionaries(st.sampled_from([*DEFAULTS, "x"]), SAID | JSON))
def test_anything_is_read_or_refused(fields: object) -> None:
    try:
        schedules, warnings = parse(fields, DEFAULTS)
    except InvalidSettingsError as error:
        schedules, warnings = DEFAULTS, [str(error)]
    assert set(schedules) == set(DEFAULTS)
    assert all(warning.isprintable() for warning in warnings)

"""Timetables: beats at an interval and by the calendar, also on the days when clocks are changed."""

from __future__ import annotations

import math
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidSettingsError
from prontodb.schedule.timetable import MAX_MISSED, Cron, Every, Timetable, duration

BERLIN = ZoneInfo("Europe/Berlin")
DAY_MS = 86_400_000
NOON = 1_750_000_000_000


def ms(text: str) -> int:
    """A moment written in local time of Berlin, or with its own offset."""
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=BERLIN)).timestamp() * 1_000)


def beats(timetable: Timetable, start: str, end: str) -> list[str]:
    """The beats from `start` on and before `end`, in UTC."""
    found, moment = [], ms(start) - 1
    while (moment := timetable.next_after(moment)) < ms(end):
        found.append(datetime.fromtimestamp(moment / 1_000, UTC).strftime("%dT%H:%M"))
    return found


# Every


def test_an_interval_is_counted_from_its_beat() -> None:
    every = Every(60)
    assert every.next_after(NOON, NOON) == NOON + 60_000
    assert every.next_after(NOON + 59_999, NOON) == NOON + 60_000
    assert every.next_after(NOON + 60_000, NOON) == NOON + 120_000
    assert every.latest(NOON + 59_999, NOON) == NOON
    assert every.latest(NOON + 60_000, NOON) == NOON + 60_000
    assert every.latest(NOON - 1, NOON) == NOON - 60_000


def test_an_interval_without_a_beat_begins_now() -> None:
    assert Every(60).latest(NOON) == NOON
    assert Every(60).next_after(NOON) == NOON + 60_000


def test_beats_between_two_are_counted_up_to_a_bound() -> None:
    assert [Every(60).between(NOON, NOON + later) for later in (-1, 0, 60_000, 60_001, 120_000, 180_001)] == [
        0,
        0,
        0,
        1,
        1,
        3,
    ]
    assert Every(1).between(0, 10**18) == MAX_MISSED
    assert Cron("* * * * *").between(NOON, NOON + 365 * DAY_MS) == MAX_MISSED
    assert Cron("0 3 * * *").between(ms("2025-01-01T03:00Z"), ms("2025-01-05T03:00Z")) == 3


@given(
    st.integers(1_000, 10**9),
    st.integers(-(10**14), 10**14),
    st.integers(-(10**14), 10**14),
)
def test_beats_of_an_interval_are_in_phase_and_enclose_every_moment(interval: int, beat: int, moment: int) -> None:
    every = Every(interval / 1_000)
    latest, following = every.latest(moment, beat), every.next_after(moment, beat)
    assert latest <= moment < following
    assert following - latest == every.interval_ms == interval
    assert (latest - beat) % interval == 0


@pytest.mark.parametrize(
    "seconds",
    [0, 0.999, -1, 315_360_001, math.nan, math.inf, pytest.param(10**5_000, id="huge"), "1m", None, True, [1]],
)
def test_an_interval_out_of_range_is_refused_in_one_line(seconds: Any) -> None:
    with pytest.raises(InvalidSettingsError, match=r"no interval; allowed: from 1 s to 10 years") as caught:
        Every(seconds)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_the_shortest_and_the_longest_interval_are_allowed() -> None:
    assert Every(1).interval_ms == 1_000
    assert Every(10 * 365 * 86_400).interval_ms == 315_360_000_000


def test_timetables_are_readable_and_compare_by_what_they_say() -> None:
    assert [str(Every(seconds)) for seconds in (1, 1.5, 60, 90, 3_600, 86_400, 604_800)] == [
        "every 1 s",
        "every 1500 ms",
        "every 1 m",
        "every 90 s",
        "every 1 h",
        "every 1 d",
        "every 1 w",
    ]
    assert str(Cron(" 0  3 * *\t* ")) == "cron '0 3 * * *' (UTC)"
    assert str(Cron("0 3 * * MON", "Europe/Berlin")) == "cron '0 3 * * MON' (Europe/Berlin)"
    assert Cron("0 3 * * *") == Cron("0  3 * * *", "UTC") != Cron("0 3 * * *", "Europe/Berlin")
    assert len({Every(60), Every(60.0), Every(61)}) == 2
    assert duration(7_200_000) == "2 h"


# Cron


def test_cron_goes_by_the_calendar_of_utc() -> None:
    nightly = Cron("0 3 * * *")
    at = ms("2025-06-01T03:00Z")
    assert nightly.next_after(at - 1) == at
    assert nightly.next_after(at) == at + DAY_MS
    assert nightly.latest(at) == nightly.latest(at + 999) == at
    assert nightly.latest(at - 1) == at - DAY_MS


def test_cron_goes_by_the_calendar_of_its_zone() -> None:
    nightly = Cron("0 3 * * *", "Europe/Berlin")
    assert beats(nightly, "2025-01-10T00:00", "2025-01-12T00:00") == ["10T02:00", "11T02:00"]
    assert beats(nightly, "2025-07-10T00:00", "2025-07-12T00:00") == ["10T01:00", "11T01:00"]
    assert beats(Cron("0 0 29 2 *", "Europe/Berlin"), "2023-01-01T00:00", "2027-01-01T00:00") == ["28T23:00"]


def test_a_job_of_the_lost_hour_runs_once_at_the_end_of_the_gap() -> None:
    for expression, local in (("30 2 * * *", "02:30"), ("5 2 * * *", "02:05"), ("59 2 * * *", "02:59")):
        found = beats(Cron(expression, "Europe/Berlin"), "2025-03-29T00:00", "2025-04-01T00:00")
        hour, minute = (int(part) for part in local.split(":"))
        assert found == [f"29T{hour - 1:02}:{minute:02}", "30T01:00", f"31T{hour - 2:02}:{minute:02}"], expression


def test_a_job_of_the_doubled_hour_runs_once_at_the_first() -> None:
    for expression in ("30 2 * * *", "0 2 * * *"):
        minute = expression.split()[0].zfill(2)
        found = beats(Cron(expression, "Europe/Berlin"), "2025-10-25T00:00", "2025-10-28T00:00")
        assert found == [f"25T00:{minute}", f"26T00:{minute}", f"27T01:{minute}"]


def test_an_hourly_job_runs_every_hour_that_passes() -> None:
    hourly = Cron("0 * * * *", "Europe/Berlin")
    assert len(beats(hourly, "2025-03-30T00:00", "2025-03-31T00:00")) == 23
    assert len(beats(hourly, "2025-10-26T00:00", "2025-10-27T00:00")) == 25
    assert len(beats(hourly, "2025-06-01T00:00", "2025-06-02T00:00")) == 24


def test_who_asks_within_the_second_of_two_equal_hours_is_never_sent_back() -> None:
    nightly = Cron("30 2 * * *", "Europe/Berlin")
    ran, tomorrow = ms("2025-10-26T00:30Z"), ms("2025-10-27T01:30Z")
    for moment in ("2025-10-26T01:00Z", "2025-10-26T01:15Z", "2025-10-26T01:30Z", "2025-10-26T01:59Z"):
        assert nightly.next_after(ms(moment)) == tomorrow
        assert nightly.latest(ms(moment)) == ran


ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Asia/Kolkata"]
)
EXPRESSIONS = st.sampled_from(
    [
        "30 2 * * *",
        "0 * * * *",
        "*/15 * * * *",
        "0 0 * * *",
        "15 1-3 * * *",
        "0 4 * * SUN",
        "0 0 1 * *",
        "5,35 0,2 * * 1-5",
    ]
)
# From 2015 on, and often within a few hours of a change of clocks in one of the zones.
MOMENTS = st.one_of(
    st.integers(ms("2015-01-01T00:00Z"), ms("2035-01-01T00:00Z")),
    st.builds(
        lambda changed, away: ms(changed) + away,
        st.sampled_from(["2025-03-30T01:00Z", "2025-10-26T01:00Z", "2018-11-04T03:00Z", "2018-02-18T02:00Z"]),
        st.integers(-10_000_000, 10_000_000),
    ),
)


@given(EXPRESSIONS, ZONES, MOMENTS)
def test_the_beats_before_and_after_a_moment_are_neighbours(expression: str, zone: str, moment: int) -> None:
    cron = Cron(expression, zone)
    latest, following = cron.latest(moment), cron.next_after(moment)
    assert latest <= moment < following
    assert cron.next_after(latest) == following
    assert cron.latest(following) == following
    assert cron.latest(following - 1) == latest
    assert cron.between(latest, following) == 0


@given(ZONES, MOMENTS)
def test_a_daily_job_runs_once_on_every_local_day(zone: str, moment: int) -> None:
    cron = Cron("30 2 * * *", zone)
    days = []
    for _ in range(10):
        moment = cron.next_after(moment)
        days.append(datetime.fromtimestamp(moment / 1_000, ZoneInfo(zone)).date())
    assert days == [days[0] + timedelta(days=number) for number in range(10)]


@pytest.mark.parametrize("moment", [-(10**17), -(10**15), 10**15, 10**18])
def test_a_clock_beyond_all_calendars_neither_raises_nor_beats(moment: int) -> None:
    cron = Cron("0 3 * * *", "Europe/Berlin")
    assert cron.next_after(moment) > moment + 1_000 * DAY_MS
    assert cron.latest(moment) < moment
    assert cron.between(moment, moment + DAY_MS) == 0


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("", "is no cron expression"),
        ("* * * *", "is no cron expression"),
        ("0 0 3 * * *", "is no cron expression"),
        ("* * * * " + "1" * 5_000, "is no cron expression"),
        ("@daily", "is no cron expression"),
        (7, "is no cron expression"),
        (None, "is no cron expression"),
        ("60 * * * *", "wrong minute"),
        ("* 24 * * *", "wrong hour"),
        ("0 0 32 * *", "wrong day-of-month"),
        ("0 0 * 13 *", "wrong month"),
        ("0 0 * * FOO", "wrong day-of-week"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("*/0 * * * *", "wrong minute"),
        ("\x1b[2J * * * *", "wrong minute"),
    ],
)
def test_a_wrong_expression_is_refused_in_one_line_that_says_what_is_right(expression: Any, wrong: str) -> None:
    with pytest.raises(InvalidSettingsError, match=wrong) as caught:
        Cron(expression)
    message = str(caught.value)
    assert "allowed: five fields, minute hour day month weekday" in message
    assert message.isprintable()
    assert len(message) < 300


@given(st.text("0123456789*/,-#L?WMONJAN ²\n", max_size=40))
def test_any_expression_is_built_or_refused(expression: str) -> None:
    try:
        cron = Cron(expression)
    except InvalidSettingsError:
        return
    assert cron.next_after(NOON) > NOON


@pytest.mark.parametrize(
    "zone", ["Berlin", "Europe", "", "../UTC", "/etc/passwd", "a\0b", "Europe/Berlin\n", "é", "x" * 9_999, 7, None]
)
def test_a_wrong_zone_is_refused_and_says_how_zones_come_to_a_machine(zone: Any) -> None:
    with pytest.raises(InvalidSettingsError, match=r"such as 'Europe/Berlin' .* package tzdata") as caught:
        Cron("0 3 * * *", zone)
    assert str(caught.value).isprintable()


def test_a_machine_without_zones_still_has_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: str) -> ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")

    monkeypatch.setattr("prontodb.schedule.timetable.ZoneInfo", missing)
    assert Cron("0 3 * * *").zone == "UTC"
    with pytest.raises(InvalidSettingsError, match="tzdata"):
        Cron("0 3 * * *", "Europe/Berlin")

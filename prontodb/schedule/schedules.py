"""The section `jobs` of the settings file: when each job runs. What a job does not say keeps its default."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidSettingsError, InvalidTtlError, shown
from prontodb.model.ttl import ttl_ms
from prontodb.schedule.timetable import MAX_INTERVAL_S, MIN_INTERVAL_S, Cron, Every, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from prontodb.schedule.timetable import Timetable

FIELDS = ("every", "cron", "zone", "jitter", "deadline", "enabled")
MAX_JITTER_S = 86_400
MAX_WARNINGS = 20
"""Unknown jobs and fields that are named one by one; the rest are counted."""

_EVERY = "a duration from 1 s to 10 years such as '15m', or seconds"
_JITTER = "a duration up to 24 hours such as '5s', or seconds; 0 for none"
_DEADLINE = "a duration from 1 s to 10 years such as '10m', or seconds; null for none"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When one job runs: `jitter_s` after its beat at most, and no longer than `deadline_s`; None is no limit."""

    timetable: Timetable
    jitter_s: float = 0.0
    deadline_s: float | None = None
    enabled: bool = True


def parse(fields: object, defaults: Mapping[str, Schedule]) -> tuple[dict[str, Schedule], list[str]]:
    """Return the schedule of each job in `defaults`, and a warning for each job or field that does not exist.

    No value is guessed: one of a wrong type or out of range raises `InvalidSettingsError`, which names it.
    """
    if not isinstance(fields, dict):
        raise _wrong("jobs", fields, 'an object such as {"sweep": {"every": "1m"}}')
    unknown: list[tuple[str, object, Iterable[str]]] = [
        ("job", name, defaults) for name in fields if name not in defaults
    ]
    schedules = dict(defaults)
    for name, default in defaults.items():
        if name not in fields:
            continue
        said = fields[name]
        if not isinstance(said, dict):
            raise _wrong(f"jobs.{name}", said, 'an object such as {"every": "1m"}')
        unknown += [(f"field of jobs.{name}", word, FIELDS) for word in said if word not in FIELDS]
        schedules[name] = _schedule(f"jobs.{name}", said, default)
    warnings = [_unknown(*one) for one in unknown[:MAX_WARNINGS]]
    if len(unknown) > MAX_WARNINGS:
        warnings.append(f"{len(unknown) - MAX_WARNINGS:,} more jobs and fields are unknown and ignored")
    return schedules, warnings


def as_json(schedule: Schedule) -> dict[str, object]:
    """Return a schedule as the fields that say it: what `parse` reads."""
    timetable = schedule.timetable
    if isinstance(timetable, Cron):
        fields: dict[str, object] = {"cron": timetable.expression, "zone": timetable.zone}
    elif isinstance(timetable, Every):
        fields = {"every": _text(timetable.seconds)}
    else:
        raise InvalidSettingsError(f"a {type(timetable).__name__} has no words in the settings; use Every or Cron")
    return fields | {
        "jitter": _text(schedule.jitter_s),
        "deadline": None if schedule.deadline_s is None else _text(schedule.deadline_s),
        "enabled": schedule.enabled,
    }


def _schedule(path: str, said: Mapping[str, Any], default: Schedule) -> Schedule:
    enabled = said.get("enabled", default.enabled)
    if not isinstance(enabled, bool):
        raise _wrong(f"{path}.enabled", enabled, "true or false")
    jitter_s, deadline_s = default.jitter_s, default.deadline_s
    if "jitter" in said:
        jitter_s = _seconds(f"{path}.jitter", said["jitter"], 0, MAX_JITTER_S, _JITTER)
    if "deadline" in said:
        given = said["deadline"]
        deadline_s = (
            None if given is None else _seconds(f"{path}.deadline", given, MIN_INTERVAL_S, MAX_INTERVAL_S, _DEADLINE)
        )
    return Schedule(_timetable(path, said, default.timetable), jitter_s, deadline_s, enabled)


def _timetable(path: str, said: Mapping[str, Any], default: Timetable) -> Timetable:
    if "every" in said:
        for other in ("cron", "zone"):
            if other in said:
                raise InvalidSettingsError(f"{path}.every and {path}.{other} exclude each other; leave one out")
        return Every(_seconds(f"{path}.every", said["every"], MIN_INTERVAL_S, MAX_INTERVAL_S, _EVERY))
    if "cron" not in said and "zone" not in said:
        return default
    usual = default if isinstance(default, Cron) else None
    if "cron" not in said and usual is None:
        raise InvalidSettingsError(f"{path}.zone is the zone of {path}.cron, which is missing; add it")
    expression = said["cron"] if usual is None else said.get("cron", usual.expression)
    zone = said.get("zone", "UTC" if usual is None else usual.zone)
    wrong = "cron"
    try:
        Cron(expression)
        wrong = "zone"
        return Cron(expression, zone)
    except InvalidSettingsError as error:
        raise InvalidSettingsError(f"{path}.{wrong}: {error}") from error


def _seconds(path: str, given: object, lowest: float, highest: float, allowed: str) -> float:
    if given in (0, "0", "0s") and not isinstance(given, bool):
        seconds = 0.0  # no lifetime, so `ttl_ms` refuses it
    else:
        try:
            seconds = ttl_ms(given) / 1_000
        except InvalidTtlError as error:
            raise _wrong(path, given, allowed) from error
    if not lowest <= seconds <= highest:
        raise _wrong(path, given, allowed)
    return seconds


def _text(seconds: float) -> str:
    return duration(round(seconds * 1_000)).replace(" ", "") if seconds else "0s"


def _wrong(path: str, given: object, allowed: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"{path} is {_told(given)}; allowed: {allowed}")


def _told(given: object) -> str:
    if isinstance(given, str):
        return shown(given)
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, float) or (isinstance(given, int) and abs(given) < 2**63):
        return str(given)
    # A number of any length, or a list of anything: its kind says enough.
    return "a number beyond 64 bits" if isinstance(given, int) else f"a {type(given).__name__}"


def _unknown(what: str, name: object, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(name)[:64], names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)};"
    return f"{shown(name)} is no {what}; {hint} it is ignored"

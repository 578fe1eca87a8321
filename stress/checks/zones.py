"""Where a register's history contradicts itself at sight: a few steps each that cannot all be right.

After Gibbons and Korach [1997, "Testing shared memories"]: all who wrote or saw one value belong together. When one of
them had returned before another was called, the register held that value all the time between; that is the value's
zone. No two zones overlap, and nothing that needs another state lies inside one. This finds the common contradictions
in n log n, also where a search would drown in the orders of concurrent writes; what it finds is only suspected, and
proven by the search on those few steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from .steps import State, Step


@dataclass(frozen=True, slots=True)
class _Group:
    """Steps that belong together: the writer of a value and all who saw it, or a step alone."""

    source: Step
    first: Step
    """The first that returned: by then the register had come to their value."""
    last: Step
    """The last that was called: until then it had not left it."""

    @property
    def begins(self) -> int:
        return self.first.returned

    @property
    def ends(self) -> int:
        return self.last.called

    @property
    def is_zone(self) -> bool:
        """Return whether they hold the register for a while; otherwise all have an instant in common."""
        return self.begins < self.ends

    def holds(self, other: _Group) -> bool:
        """Return whether every instant of the other lies inside this zone."""
        return self.begins < other.ends and other.begins < self.ends


def suspects(steps: Iterable[Step]) -> Iterator[set[Step]]:
    """Yield sets of a few certain steps that look as if no order could explain them."""
    writers: dict[State, list[Step]] = defaultdict(list)
    seers: dict[State, list[Step]] = defaultdict(list)
    absent: list[_Group] = []
    elsewhere: dict[State, list[_Group]] = defaultdict(list)
    for step in steps:
        if isinstance(step.gives, str):
            writers[step.gives].append(step)
        if not step.is_certain:
            continue
        if step.need == "is" and step.value is not None:
            seers[step.value].append(step)
        if step.gives is None or (step.need == "is" and step.value is None):
            absent.append(_Group(step, step, step))
        elif step.need == "not":
            elsewhere[step.value].append(_Group(step, step, step))
    yield from _too_early(writers, seers)
    groups = {
        value: _group(sources[0], [*sources, *seers[value]])
        for value, sources in writers.items()
        if len(sources) == 1 and sources[0].is_certain
    }
    yield from _contradictions(groups, absent, elsewhere)


def _group(source: Step, steps: list[Step]) -> _Group:
    return _Group(source, min(steps, key=lambda step: step.returned), max(steps, key=lambda step: step.called))


def _too_early(writers: dict[State, list[Step]], seers: dict[State, list[Step]]) -> Iterator[set[Step]]:
    """Yield each step that saw what nobody wrote, or what was written only afterwards."""
    for value, steps in seers.items():
        for step in steps:
            if not writers[value]:
                yield {step}
            elif len(writers[value]) == 1 and step.returned < writers[value][0].called:
                yield {step, writers[value][0]}


def _contradictions(
    groups: dict[State, _Group], absent: list[_Group], elsewhere: dict[State, list[_Group]]
) -> Iterator[set[Step]]:
    """Yield zones that overlap, and zones with what lies inside and needs another state."""
    zones = sorted((group for group in groups.values() if group.is_zone), key=lambda group: group.begins)
    for zone, following in pairwise(zones):
        if zone.holds(following):
            yield _steps(zone, following)
    starts = [zone.begins for zone in zones]
    for group in [*absent, *(group for group in groups.values() if not group.is_zone)]:
        place = bisect_left(starts, group.ends) - 1  # zones being apart, no other can hold it
        if place >= 0 and zones[place].holds(group):
            yield _steps(zones[place], group)
    for value, alone in elsewhere.items():
        for group in alone:
            if value in groups and groups[value].is_zone and groups[value].holds(group):
                yield _steps(groups[value], group)


def _steps(*groups: _Group) -> set[Step]:
    return {step for group in groups for step in (group.source, group.first, group.last)}

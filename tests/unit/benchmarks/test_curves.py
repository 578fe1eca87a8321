"""The arithmetic of scenarios that measure in their own way: addresses, a busy loop, a loop that is held."""

from benchmarks.contenders import DURABLE, Measured
from benchmarks.contenders.pronto import Pronto
from benchmarks.contenders.sqlite import AiosqliteCommitEach
from benchmarks.scenarios import addresses, busy_loop
from benchmarks.scenarios.loop_blocks import NOBODY, Held, findings_of, percentile
from benchmarks.workload import Workload


def found_at(size: int) -> addresses.Found:
    here = {name: [size * 1.0] for name in (addresses.CREATE, addresses.OPEN, addresses.LIST, addresses.SWEEP)}
    changed = {addresses.CHANGED[count]: [count * 2.0, count * 3.0] for count in addresses.CHANGED if count <= size}
    return here | changed | {addresses.WHOLE: [size * 5.0]}


def test_the_largest_roots_are_held_against_the_whole_and_against_fewer_addresses() -> None:
    rows = {row.what: row for row in addresses.rows_of({size: found_at(size) for size in (1, 10, 100, 1_000)})}
    assert rows["backup after 10 of 1,000 addresses changed: time against a full one"].figures == (0.004, 0.006)
    assert rows["backup after 10 of 1,000 addresses changed: time against 10 of 10"].figures == (0.8, 1.2)
    assert rows["backup after 100 of 1,000 addresses changed: time against 100 of 100"].figures == (0.8, 1.2)
    create = rows["create one of 1,000 addresses: time against 100"]
    assert create.target is not None
    assert not create.target.holds(create.reached)
    assert rows["list of 1,000 addresses: time against 100"].figures == (10,)


def test_points_of_a_curve_say_where_they_stand() -> None:
    series = addresses.series_of(100, found_at(100))
    assert {(each.axis, each.at, each.unit) for each in series} == {("addresses", 100, "ms")}
    assert {each.family for each in series} == set(found_at(100))


async def test_the_application_computes_while_another_task_calls() -> None:
    asked = 0

    async def call() -> None:
        nonlocal asked
        asked += 1

    cell = await busy_loop.beside(call, 1, 7, 3_600)
    assert (asked, len(cell.ms)) == (7, 7)
    assert cell.ticks >= 7


async def test_at_the_deadline_the_application_stops_and_the_call_that_waits_still_counts() -> None:
    async def call() -> None:
        pass

    cell = await busy_loop.beside(call, 1, 1_000, 0)
    assert (len(cell.ms), cell.ticks) == (1, 0)


def test_who_starves_is_said_to() -> None:
    def cells(*ms: float) -> list[busy_loop.Cell]:
        cell = busy_loop.Cell()
        cell.ms, cell.ticks, cell.seconds = list(ms), 100, 2.0
        return [cell]

    stores = {kind.name: Measured(kind(), Workload(1)) for kind in (Pronto, AiosqliteCommitEach)}
    taken = {Pronto.name: cells(0.1, 0.3), AiosqliteCommitEach.name: cells(5.0, 1_500), busy_loop.ALONE: cells(0.0)}
    rows = busy_loop.rows_of(busy_loop.SET, 5, taken)
    assert [row.figures for row in rows] == [(0.3,), (0.2 / 752.5,), (1,)]
    said = {each.contender: str(each.promise or "") for each in busy_loop.series_of(busy_loop.SET, 5, taken, stores)}
    assert "starved: > 1 s" in said[AiosqliteCommitEach.name]
    assert "starved" not in said[Pronto.name] + said[busy_loop.ALONE]


def test_a_percentile_is_one_of_the_figures() -> None:
    ordered = [float(number) for number in range(1, 1_001)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.999, 1.0)] == [1, 500, 999, 1_000]
    assert percentile([7.0], 0.999) == 7


def test_a_loop_that_was_held_shows_in_the_longest_only() -> None:
    calm, held = Held([0.1] * 999, 0.0), Held([0.1] * 998 + [90.0], 500.0)
    found = findings_of("sets", {"ours": [held], NOBODY: [calm]}, "ours", {"ours": DURABLE})
    assert [(row.what, row.figures) for row in found.rows] == [
        ("sets: a timer is late, median", (0.1,)),
        ("sets: a timer is late, 1 time in 1,000", (90.0,)),
        ("sets: a timer is late, at most", (90.0,)),
    ]
    assert [each.contender for each in found.series if each.unit == "/s"] == ["ours"]

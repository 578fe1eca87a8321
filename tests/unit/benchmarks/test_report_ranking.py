"""Who is ahead is said within a class alone, and only when the figures can tell."""

import pytest

from benchmarks.contenders import DURABLE, RELAXED
from benchmarks.contenders.listing import CONTENDERS
from benchmarks.measure import Series
from benchmarks.report.ranking import OURS, TOO_FEW, Class, better, contests, growths, is_log
from tests.unit.benchmarks.made_reports import CURVE, RACE, one, scenario


def classes(*series: Series) -> list[Class]:
    (contest,) = contests(scenario("sets", series=list(series)))
    return list(contest.classes)


def test_what_survives_different_things_is_never_in_one_ranking() -> None:
    found = {each.survives: [one.contender for one in each.ranked] for each in classes(*RACE)}
    assert found == {
        "power loss": ["raw", "prontodb", "lmdb"],
        "process crash": ["rocksdict", "prontodb, relaxed"],
        "nothing": ["dict"],
    }


def test_the_fastest_is_named_when_no_other_spread_reaches_into_its_own() -> None:
    durable, relaxed, nothing = classes(*RACE)
    assert durable.said == "fastest: raw"
    assert relaxed.said == "too noisy to name one of rocksdict / prontodb, relaxed"
    assert nothing.said == ""


def test_spreads_that_touch_are_too_noisy() -> None:
    (touching,) = classes(one("a", DURABLE, 1, 2, 3), one("b", DURABLE, 3, 4, 5))
    assert touching.said == "too noisy to name one of a / b"


def test_not_only_the_next_one_can_be_level_with_the_first() -> None:
    (found,) = classes(one("a", DURABLE, 1, 2, 3), one("b", DURABLE, 4, 5, 6), one("c", DURABLE, 2.5, 7, 8))
    assert found.said == "too noisy to name one of a / c"


def test_nobody_is_named_after_too_few_rounds() -> None:
    (found,) = classes(one("a", DURABLE, 1, 2), one("b", DURABLE, 10, 20))
    assert found.said == TOO_FEW


def test_of_rates_the_highest_is_the_best() -> None:
    rates = [one(name, DURABLE, *figures, unit="rows/s") for name, figures in (("a", (1, 2, 3)), ("b", (7, 8, 9)))]
    (found,) = classes(*rates)
    assert [one.contender for one in found.ranked] == ["b", "a"]
    assert found.said == "fastest: b"
    assert (better("rows/s"), better("us"), better("KiB")) == ("higher is better", *["lower is better"] * 2)


def test_the_class_tells_what_the_notes_need_not_repeat() -> None:
    notes = {one.contender: one.notes for each in classes(*RACE) for one in each.ranked}
    assert (notes["prontodb"], notes["raw"], notes["dict"]) == ("", "blocks the event loop", "in memory")


def test_figures_over_thirty_times_apart_ask_for_a_logarithmic_scale() -> None:
    assert is_log([1, 31])
    assert not is_log([1, 30])
    assert not is_log([0, 31])


def test_races_of_a_family_are_a_curve_for_each_class_ours_first() -> None:
    relaxed = [one("dict", RELAXED, 1, 1, 1, family="sets", axis="tasks", at=1)]
    (growth,) = growths(scenario("sets", series=[*CURVE, *relaxed]))
    assert [(survives, [line[0].contender for line in lines]) for survives, lines in growth.classes] == [
        ("power loss", ["prontodb", "lmdb"]),
        ("process crash", ["dict"]),
    ]
    assert [one.at for one in growth.classes[0][1][0]] == [1, 100, 1_000]


def test_two_amounts_are_no_curve() -> None:
    assert growths(scenario("sets", series=[each for each in CURVE if each.at != 100])) == []
    assert growths(scenario("sets", series=RACE)) == []


@pytest.mark.parametrize("name", CONTENDERS)
def test_ours_are_known_by_their_names(name: str) -> None:
    assert CONTENDERS[name].is_ours == CONTENDERS[name].name.startswith(OURS)

"""The page shows all of the data, obeys none of it, and needs nothing from anywhere."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from stress.history import FAILED, GET, OPEN, SET, Fault
from stress.report.between import fairness
from stress.report.figures import scenario_data
from stress.report.page import page
from stress.report.summary import summary
from stress.report.units import clean
from tests.pages import Reader
from tests.unit.stress.report_runs import (
    BEGAN_NS,
    HOSTILE,
    bad_run,
    busy_history,
    empty_run,
    good_run,
    history,
    operation,
    run,
    scene,
)

RUNS = [good_run, bad_run, empty_run]


@cache
def shown(made: Callable[[], dict[str, Any]]) -> str:
    """The page of a made-up run."""
    return page(made())


@pytest.mark.parametrize("made", RUNS)
def test_the_page_is_whole_and_fetches_and_runs_nothing(made: Callable[[], dict[str, Any]]) -> None:
    text = shown(made)
    read = Reader(text)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form", "use", "image"} & set(read.names)
    names = {name for _, name, _ in read.attributes}
    assert not {"src", "srcset", "style", "action", "data", "xlink:href", "background"} & names
    assert not [name for name in names if name.startswith("on")]
    assert all(value.startswith("#") for _, name, value in read.attributes if name == "href")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)


@pytest.mark.parametrize("made", RUNS)
def test_every_link_leads_somewhere_and_every_drawing_says_what_it_shows(made: Callable[[], dict[str, Any]]) -> None:
    read = Reader(shown(made))
    places = [value for _, name, value in read.attributes if name == "id"]
    assert len(places) == len(set(places))
    assert {value[1:] for _, name, value in read.attributes if name == "href"} <= set(places)
    drawings = read.names.count("svg")
    named = [name for tag, name, _ in read.attributes if tag == "svg" and name in ("aria-label", "aria-hidden")]
    assert len(named) == drawings


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    text = shown(bad_run)
    assert "<script" not in text
    assert "\x00" not in text
    assert all(letter.isprintable() or letter == "\n" for letter in text.replace("\xa0", " "))
    text.encode()  # halves of surrogate pairs are gone
    assert clean(HOSTILE) in Reader(text).text


def test_hostile_text_everywhere_leaves_the_page_whole() -> None:
    def spoilt(value: Any) -> Any:
        if isinstance(value, str):
            return value + HOSTILE
        if isinstance(value, list):
            return [spoilt(part) for part in value]
        return {name: spoilt(part) for name, part in value.items()} if isinstance(value, dict) else value

    for made in (good_run, bad_run):
        clean_names = [name for name in Reader(shown(made)).names if name not in ("b", "span")]
        read = Reader(page(spoilt(made())))
        assert not {"script"} & set(read.names)
        assert [name for name in read.names if name not in ("b", "span")] == clean_names


def test_violations_come_first_with_their_stretch_and_the_command_that_repeats_it() -> None:
    data = bad_run()
    text = page(data)
    assert text.index('id="violations"') < text.index('id="promises"') < text.index('id="scenario-1"')
    assert Reader(text).names.count("pre") == 2
    told = Reader(text).text
    for line in data["scenarios"][0]["violations"][0]["stretch"]:
        assert " ".join(line.split()) in told
    assert "python -m stress run isolation --agents 32 --seconds 60 --seed 7 --faults kill,stop" in told
    assert 'id="violations"' not in shown(good_run)


def test_the_page_tells_every_figure_a_reader_asks_for() -> None:
    data = good_run()
    told = Reader(page(data)).text.replace("\xa0", " ")
    for wanted in (
        "Every tested promise held",
        "75,522 questions",
        "Beside one shared database",
        "5 promises not put to the test by this run",
        "libfaketime is not installed",
        "none of 32 agents could read a token of another",
        "Example Processor 9000",
        "15.6 GiB",
        "2026-03-01",
        "agent07-1 ended with -11",
    ):
        assert wanted in told
    for scenario in data["scenarios"]:
        assert f"{scenario['operations']:,}" in told
        assert scenario["fairness"]["slowest"]["agent"] in told


def test_faults_are_marked_by_kind_and_many_at_an_instant_are_one_mark() -> None:
    text = shown(bad_run)
    kinds = ["kill 80", "stop 67", "evict 37", "lock-file 32", "cancel 31", "full-disk 28", "clock 25"]
    assert [kind for kind in kinds if f">{kind}</text>" not in text] == []
    made = busy_history(agents=1, each=5, faults=0)
    (fault, *_) = busy_history(agents=1, each=1, faults=1, seed=11).faults
    made.faults = [fault] * 500
    assert page(run(scene(made=made))).count('class="fault') < 10


def test_a_leak_is_loud_and_everything_else_calm() -> None:
    assert shown(bad_run).count('class="leak"') == 1
    assert "agent01 could read 1 token of agent09" in Reader(shown(bad_run)).text
    assert shown(good_run).count('class="leak"') == 0


def test_hundreds_of_agents_with_a_leak_everywhere_stay_one_page() -> None:
    data = scenario_data(scene(made=history()))
    names = [f"agent{number:03}" for number in range(1, 301)]
    data["matrix"] = {"agents": names, "rows": [[1] * 300 for _ in names]}
    data["by_agent"] = [{"agent": name, "ok": n, "failed": 1, "lives": 1} for n, name in enumerate(names)]
    data["fairness"] = fairness({name: n for n, name in enumerate(names)})
    data["longest_pause"] = {"agent": names[0], "seconds": 2.0}
    whole = run(scene(made=history()))
    whole["scenarios"] = [data]
    text = page(whole)
    Reader(text)
    assert len(text) < 1_000_000


def test_the_page_is_built_from_what_json_gives_back() -> None:
    data = bad_run()
    assert page(json.loads(json.dumps(data))) == page(data)


ODD = {
    "one operation in no time": history(operation(SET), seconds=0),
    "nothing but failures": history(operation(SET, outcome=FAILED, error="AddressBusyError"), seconds=1),
    "nothing that returned": history(operation(SET, took_ms=None), operation(OPEN, took_ms=None), seconds=1),
    "only waiting in vain": history(operation(OPEN, 0, 900, outcome=FAILED, error="AddressBusyError"), seconds=1),
    "only faults": history(
        seconds=1,
        faults=(
            Fault(name="stop", target="x", at_ns=BEGAN_NS - 10**9, until_ns=BEGAN_NS + 10**10),
            Fault(name="kill", target="x", at_ns=BEGAN_NS + 10**10),
        ),
    ),
    "very short and very long": history(operation(GET, 0, 0), operation(GET, 1, 7_200_000), seconds=7_300),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_have_a_page_and_a_summary_too(name: str) -> None:
    data = run(scene(made=ODD[name]), scene("shared-database", ODD[name]))
    json.dumps(data, allow_nan=False)
    told = Reader(page(data)).text
    assert re.findall(r"\b(?:nan|inf|None)\b", told + summary(data)) == []
    # No place or size that a drawing cannot have.
    assert re.findall(r'="(?:nan|inf|-inf)|(?:width|height)="-[^"]*', page(data)) == []

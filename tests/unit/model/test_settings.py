"""Settings: checked when built, described in words, read from JSON without converting anything."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidSettingsError
from prontodb.model.limits import MIB, Limits
from prontodb.model.settings import MAX_WARNINGS, Settings

NAMES = tuple(name for name in Settings.__slots__ if name != "quotas")  # rules, in a section of their own
OF_RULES = {"writes_per_second", "soft", "quotas"}

GOOD: list[dict[str, Any]] = [
    {"durability": "relaxed"},
    {"max_key_bytes": 16},
    {"max_value_bytes": 512 * MIB, "max_batch_bytes": 1024 * MIB},
    {"max_value_bytes": 1, "max_batch_bytes": 1_025},
    {"max_batch_ops": 1},
    {"max_page": 100_000},
    {"wait_s": 0},
    {"wait_s": 0.25},
    {"wait_s": 3_600},
    {"max_entries": None},
    {"max_keystore_bytes": None},
    {"max_keystore_bytes": 65_536},
    {"max_open_keystores": 10_000},
    {"lanes": 64},
    {"lanes": None},
    {"inline_reads": False},
    {"unsafe_file_system": True},
]

BAD: list[tuple[str, object]] = [
    ("durability", "fast"),
    ("durability", "FULL"),
    ("durability", None),
    ("durability", True),
    ("durability", ["full"]),
    ("durability", "\ud800"),
    ("max_key_bytes", 15),
    ("max_key_bytes", 1_025),
    ("max_value_bytes", 0),
    ("max_value_bytes", 512 * MIB + 1),
    ("max_value_bytes", 1e6),
    ("max_value_bytes", "1000"),
    ("max_value_bytes", None),
    ("max_batch_ops", 0),
    ("max_batch_ops", True),
    ("max_batch_bytes", 1024 * MIB + 1),
    ("max_batch_bytes", 10**5_000),
    ("max_page", -1),
    ("max_page", [1]),
    ("wait_s", -0.1),
    ("wait_s", 3_601),
    ("wait_s", float("nan")),
    ("wait_s", float("inf")),
    ("wait_s", False),
    ("wait_s", "5"),
    ("wait_s", None),
    ("max_entries", 0),
    ("max_entries", False),
    ("max_keystore_bytes", 65_535),
    ("max_keystore_bytes", {}),
    ("max_open_keystores", 0),
    ("max_open_keystores", None),
    ("lanes", 0),
    ("lanes", 65),
    ("lanes", True),
    ("inline_reads", 1),
    ("inline_reads", "true"),
    ("inline_reads", None),
    ("unsafe_file_system", 0),
]


def test_the_defaults_are_the_limits_defaults_and_valid() -> None:
    assert Settings().limits == Limits()


def test_every_limit_is_a_setting_and_reaches_the_limits() -> None:
    assert set(Limits.__slots__) <= {*NAMES, *OF_RULES}
    limits = Settings(
        max_key_bytes=100,
        max_value_bytes=2_000,
        max_batch_ops=3,
        max_batch_bytes=4_000,
        max_page=5,
        wait_s=6,
        max_entries=None,
        max_keystore_bytes=None,
    ).limits
    assert limits == Limits(
        max_key_bytes=100,
        max_value_bytes=2_000,
        max_batch_ops=3,
        max_batch_bytes=4_000,
        max_page=5,
        wait_s=6,
        max_entries=None,
        max_keystore_bytes=None,
    )


@pytest.mark.parametrize("changes", GOOD, ids=str)
def test_a_value_at_the_edge_of_its_range_is_taken_as_it_is(changes: dict[str, Any]) -> None:
    built, (read, warnings) = Settings(**changes), Settings.from_json(changes)
    assert built == read == Settings().replace(**changes)
    assert warnings == []
    for name, value in changes.items():
        assert getattr(built, name) is value


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}-{number}" for number, (name, _) in enumerate(BAD)])
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(name: str, value: object) -> None:
    builds: list[Callable[..., object]] = [
        Settings,
        Settings().replace,
        lambda **one: Settings.from_json(one),
    ]
    for build in builds:
        with pytest.raises(InvalidSettingsError, match=rf"setting {name} is .+; allowed: .+") as caught:
            build(**{name: value})
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_a_batch_must_have_room_for_the_largest_entry() -> None:
    with pytest.raises(InvalidSettingsError, match="max_batch_bytes is 33554432; allowed: at least 67109888"):
        Settings(max_value_bytes=64 * MIB)


def test_lanes_follow_the_durability_unless_given() -> None:
    assert Settings().lane_count == 8
    assert Settings(durability="relaxed").lane_count == 2
    assert Settings(durability="relaxed", lanes=5).lane_count == 5


def test_settings_cannot_be_changed_but_travel_to_other_processes() -> None:
    settings = Settings(lanes=3)
    with pytest.raises(AttributeError):
        settings.lanes = 4  # type: ignore[misc,unused-ignore]
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_replacing_what_is_no_setting_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match=r"'wait' does not exist; did you mean wait_s\?"):
        Settings().replace(wait=3)


def test_every_setting_is_described_once_with_its_value_its_default_and_its_range() -> None:
    rows = Settings(wait_s=7.5).describe()
    assert [name for name, *_ in rows] == list(NAMES)
    assert ("wait_s", 7.5, 5.0) in [row[:3] for row in rows]
    for _, _, _, meaning in rows:
        assert meaning.endswith(")"), "the range stands at the end"


def test_only_what_differs_from_the_defaults_is_kept() -> None:
    assert Settings().changed() == {}
    assert Settings(lanes=4, max_entries=None, wait_s=5.0).changed() == {"lanes": 4}
    assert Settings(lanes=None, max_entries=10).changed() == {"max_entries": 10}


def test_unknown_fields_are_warned_of_with_the_nearest_name() -> None:
    settings, warnings = Settings.from_json({"max_pages": 5, "lanes": 2, "\n": 1})
    assert settings == Settings(lanes=2)
    assert warnings[0] == "setting 'max_pages' does not exist; did you mean max_page? it is ignored"
    assert warnings[1].startswith("setting '\\n' does not exist;")


def test_warnings_about_unknown_fields_have_an_end() -> None:
    _, warnings = Settings.from_json({f"x{number}": 0 for number in range(MAX_WARNINGS + 3)})
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "3 more settings are unknown and ignored"


@pytest.mark.parametrize("fields", [None, [], "lanes", 5, True])
def test_settings_that_are_no_object_are_refused(fields: object) -> None:
    with pytest.raises(InvalidSettingsError, match="must be a JSON object"):
        Settings.from_json(fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), JSON, max_size=4))
def test_whatever_the_object_holds_it_gives_settings_as_written_or_our_error(fields: dict[str, Any]) -> None:
    try:
        settings, _ = Settings.from_json(fields)
    except InvalidSettingsError:
        return
    for name in fields.keys() & set(NAMES):
        assert getattr(settings, name) is fields[name]

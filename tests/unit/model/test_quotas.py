"""Rules of quotas: which one counts, and what is refused with the field named."""

import pickle
from typing import Any

import pytest

from prontodb.errors import InvalidSettingsError, QuotaExceededError
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from prontodb.model.quotas import Quota, parse, unhurried
from prontodb.model.settings import Settings

RULES = (
    Quota("agent1/prod", max_entries=1_000, max_keystore_bytes=None),
    Quota("*/*", max_entries=10, writes_per_second=5, soft=0.5),
    Quota("agent*/*", max_entries=100),
)


@pytest.mark.parametrize(
    ("address", "entries", "size", "rate"),
    [
        ("other/x", 10, 70_000, 5),
        ("agent7/x", 100, 70_000, 5),
        ("agent1/test", 100, 70_000, 5),
        ("agent1/prod", 1_000, None, 5),
    ],
)
def test_for_each_limit_the_most_exact_rule_counts_and_then_the_root(
    address: str, entries: int, size: int | None, rate: int
) -> None:
    limits = Settings(quotas=RULES, max_entries=7, max_keystore_bytes=70_000).limits.at(Address.parse(address))
    assert (limits.max_entries, limits.max_keystore_bytes, limits.writes_per_second) == (entries, size, rate)
    assert limits.soft == 0.5
    assert limits.at(Address.parse(address)) is limits


def test_without_a_rule_that_matches_the_settings_of_the_root_count() -> None:
    limits = Settings(quotas=[Quota("a/*", max_entries=1)], max_entries=7).limits
    assert limits.at(Address("b")).max_entries == 7
    assert (limits.at(Address("b")).writes_per_second, limits.at(Address("b")).soft) == (None, 0.8)
    plain = Limits()
    assert plain.at(Address("a")) is plain


def test_what_is_built_in_one_act_has_no_rate() -> None:
    assert unhurried(Limits(writes_per_second=3, max_entries=4)) == Limits(max_entries=4)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({}, "quotas is a dict"),
        ([3], r"quotas\[0\] is 3"),
        ([{"max_entries": 5}], r"quotas\[0\]: field addresses is missing"),
        ([{"addresses": "a", "max_entries": 5}], r"quotas\[0\]: field addresses"),
        ([{"addresses": 3, "max_entries": 5}], r"quotas\[0\]: field addresses"),
        ([{"addresses": "a/*"}], r"quotas\[0\]: no limit is given"),
        ([{"addresses": "a/*", "max_entry": 5}], r"quotas\[0\]: field 'max_entry' does not exist"),
        ([{"addresses": "a/*", "self": 5}], r"quotas\[0\]: field 'self' does not exist"),
        ([{"addresses": "a/*", "max_entries": 0}], "field max_entries is 0"),
        ([{"addresses": "a/*", "max_entries": True}], "field max_entries is true"),
        ([{"addresses": "a/*", "max_keystore_bytes": "1"}], "field max_keystore_bytes is '1'"),
        ([{"addresses": "a/*", "writes_per_second": 0.5}], "field writes_per_second is 0.5"),
        ([{"addresses": "a/*", "soft": 1.5}], "field soft is 1.5"),
        ([{"addresses": "a/*", "soft": None}], "field soft is null"),
        ([{"addresses": "a/*", "soft": 1}, {"addresses": "a/*", "max_entries": 1}], "two rules for a/"),
        ([{"addresses": "a/*", "soft": 1}] * 1_001, "more than 1,000 rules"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_number_and_field(section: Any, named: str) -> None:
    with pytest.raises(InvalidSettingsError, match=named) as caught:
        parse(section)
    assert str(caught.value).isprintable()


def test_rules_survive_the_way_through_the_file_and_to_another_process() -> None:
    assert parse([rule.as_json() for rule in RULES]) == RULES
    assert pickle.loads(pickle.dumps(RULES)) == RULES
    assert Settings(quotas=RULES).replace(lanes=3).quotas == RULES
    assert Settings(quotas=RULES).changed() == {}


def test_settings_refuse_what_is_no_rule() -> None:
    with pytest.raises(InvalidSettingsError, match="not dict"):
        Settings(quotas=[{"addresses": "a/*"}])  # type: ignore[list-item]


def test_the_error_says_which_quota_how_much_and_when_to_come_again() -> None:
    error = QuotaExceededError("writes_per_second", 5, 0.25)
    assert (error.quota, error.allowed, error.retry_after_s) == ("writes_per_second", 5, 0.25)
    assert str(error).endswith("try again in 0.25 s")
    assert pickle.loads(pickle.dumps(error)).retry_after_s == 0.25

"""Retention: what the policy keeps, what is never removed, and what holds for any backups whatever."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.backup.retention import MAX_KEPT, Kept, Policy, Verdict, to_remove
from prontodb.errors import InvalidSettingsError
from prontodb.model.settings import MAX_WARNINGS
from prontodb.model.ttl import MAX_TTL_MS

NOTHING: dict[str, Any] = {"keep_last": 0, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOON_MS = round(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1_000)  # a Friday in week 47


def only(**rules: Any) -> Policy:
    """A policy of these rules and no other."""
    return Policy(**{**NOTHING, **rules})


def kept(
    name: str,
    at_ms: int = NOON_MS,
    *,
    scope: str = "",
    parent: str | None = None,
    good: bool = True,
    holds: Iterable[str] = (),
    failed: Iterable[str] = (),
) -> Kept:
    return Kept(
        id=name,
        scope=scope,
        created_at_ms=at_ms,
        parent=parent,
        good=good,
        holds=frozenset(holds),
        failed=frozenset(failed),
    )


def daily(count: int, **facts: Any) -> list[Kept]:
    """Backups d0 (now), d1 (a day ago) and so on."""
    return [kept(f"d{n}", NOON_MS - n * DAY_MS, **facts) for n in range(count)]


def judged(backups: Iterable[Kept], policy: Policy) -> Verdict:
    return to_remove(list(backups), 0, NOON_MS, policy)


# The policy


def test_an_empty_object_is_the_default_policy() -> None:
    assert Policy.parse({}) == (Policy(), [])
    assert Policy() == Policy(keep_last=3, hourly=24, daily=7, weekly=5, monthly=12, within_s=0)


def test_what_the_file_does_not_say_keeps_its_default() -> None:
    assert Policy.parse({"daily": 30, "within": "48h"}) == (Policy(daily=30, within_s=172_800), [])


@pytest.mark.parametrize(("within", "seconds"), [("48h", 172_800), (90, 90), (1.5, 1.5), ("250ms", 0.25), (0, 0)])
def test_within_is_a_duration_as_text_or_seconds(within: object, seconds: float) -> None:
    assert Policy.parse({"within": within})[0].within_s == seconds


def test_an_unknown_field_is_told_with_the_nearest_name() -> None:
    policy, (near, far) = Policy.parse({"dayly": 1, "x\n": 2, "weekly": 1})
    assert policy == Policy(weekly=1)
    assert near == "setting 'backups.retention.dayly' does not exist; did you mean daily? it is ignored"
    assert far.isprintable()
    assert "keep_last, hourly, daily, weekly, monthly, within" in far


def test_very_many_unknown_fields_are_counted() -> None:
    _, warnings = Policy.parse({f"x{n}": 0 for n in range(1_000)})
    assert len(warnings) == MAX_WARNINGS + 1
    assert "980 more" in warnings[-1]


@pytest.mark.parametrize("fields", [None, [], "daily", 7, True])
def test_the_policy_must_be_an_object(fields: object) -> None:
    with pytest.raises(InvalidSettingsError, match=r"setting backups\.retention is .*; allowed: a JSON object"):
        Policy.parse(fields)


@pytest.mark.parametrize("name", ["keep_last", "hourly", "daily", "weekly", "monthly"])
@pytest.mark.parametrize("value", [-1, MAX_KEPT + 1, 1.0, "3", None, True, [1], {}, math.nan, 10**4_000])
def test_a_wrong_count_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        Policy.parse({name: value})
    message = str(caught.value)
    assert message.startswith(f"setting backups.retention.{name} is ")
    assert message.endswith("; allowed: a whole number from 0 to 100,000")
    assert message.isprintable()


@pytest.mark.parametrize(
    "value", [-1, "", "2 days", "-1h", None, False, [1], math.nan, math.inf, 1e300, 10**4_000, "99999999d"]
)
def test_a_wrong_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidSettingsError, match=r"^setting backups\.retention\.within is .*; allowed: .*'48h'"):
        Policy.parse({"within": value})


@pytest.mark.parametrize("value", [-1, "48h", math.nan, MAX_TTL_MS // 1_000 + 1, True])
def test_a_policy_made_by_hand_is_held_to_the_same(value: Any) -> None:
    with pytest.raises(InvalidSettingsError, match=r"backups\.retention\.within"):
        Policy(within_s=value)


def test_a_policy_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match=r"backups\.retention keeps nothing; .* at least one of keep_last"):
        Policy.parse(NOTHING)
    assert Policy.parse(NOTHING | {"within": 1})[0].within_s == 1


# Slots


def test_without_backups_there_is_nothing_to_say() -> None:
    assert judged([], Policy()) == Verdict((), {}, None)


def test_the_last_ones_stay() -> None:
    verdict = judged(daily(5), only(keep_last=2))
    assert verdict.remove == ("d4", "d3", "d2")
    assert verdict.keep == {"d0": ("last 1", "newest good of all addresses"), "d1": ("last 2",)}


def test_a_slot_keeps_its_newest_and_empty_slots_do_not_count() -> None:
    moments = {"a": 0, "b": 2 * HOUR_MS, "c": 5 * DAY_MS, "d": 5 * DAY_MS + HOUR_MS, "e": 9 * DAY_MS}
    verdict = judged([kept(name, NOON_MS - ago_ms) for name, ago_ms in moments.items()], only(daily=2))
    assert list(verdict.keep) == ["a", "c"]
    assert verdict.keep["c"] == ("daily 2026-11-15",)


def test_each_rule_has_its_own_slots() -> None:
    verdict = judged(daily(400), only(hourly=1, daily=3, weekly=3, monthly=3))
    assert {name: reasons[0] for name, reasons in verdict.keep.items()} == {
        "d0": "hourly 2026-11-20 12:00",
        "d1": "daily 2026-11-19",
        "d2": "daily 2026-11-18",
        "d5": "weekly 2026-W46",
        "d12": "weekly 2026-W45",
        "d20": "monthly 2026-10",
        "d51": "monthly 2026-09",
    }
    assert verdict.keep["d0"][1:4] == ("daily 2026-11-20", "weekly 2026-W47", "monthly 2026-11")


def test_weeks_are_those_of_the_iso_calendar_across_new_year() -> None:
    ends = [datetime(2026, 12, 31, tzinfo=UTC), datetime(2027, 1, 3, tzinfo=UTC), datetime(2027, 1, 4, tzinfo=UTC)]
    backups = [kept(f"{at:%m%d}", round(at.timestamp() * 1_000)) for at in ends]
    verdict = to_remove(backups, 0, backups[-1].created_at_ms, only(weekly=9))
    assert verdict.remove == ("1231",)
    assert [reasons[0] for reasons in verdict.keep.values()] == ["weekly 2027-W01", "weekly 2026-W53"]


def test_days_begin_in_utc() -> None:
    midnight_ms = NOON_MS - 12 * HOUR_MS
    backups = [kept("after", midnight_ms), kept("before", midnight_ms - 1), kept("early", midnight_ms - HOUR_MS)]
    assert judged(backups, only(daily=9)).remove == ("early",)


def test_everything_within_a_time_stays_also_what_is_damaged() -> None:
    backups = [*daily(5), kept("broken", NOON_MS - DAY_MS, good=False)]
    verdict = judged(backups, only(within_s=2 * 86_400))
    assert verdict.remove == ("d4", "d3", "d2")
    assert verdict.keep["broken"] == ("within",)


def test_each_scope_is_chosen_on_its_own() -> None:
    backups = [
        kept("a1", NOON_MS - 2),
        kept("a2", NOON_MS),
        kept("b1", NOON_MS - 3, scope="agent1"),
        kept("c1", NOON_MS - 5, scope="agent1/prod"),
        kept("c2", NOON_MS - 4, scope="agent1/prod"),
    ]
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ("c1", "a1")
    assert verdict.keep["b1"] == ("last 1", "newest good of agent1")
    assert verdict.keep["c2"] == ("last 1", "newest good of agent1/prod")


def test_backups_of_the_same_moment_are_ordered_by_id() -> None:
    for backups in (names := [kept("b"), kept("a"), kept("c")]), names[::-1]:
        assert judged(backups, only(keep_last=1)).remove == ("a", "b")


# What is damaged


def test_a_damaged_one_fills_no_slot() -> None:
    backups = daily(4)
    backups[0] = replace(backups[0], good=False)
    verdict = judged(backups, only(keep_last=2))
    assert verdict.remove == ("d3",)
    assert verdict.keep["d1"][0] == "last 1"
    assert verdict.keep["d0"] == ("not sound, newer than d2",)


def test_one_that_builds_on_a_damaged_or_missing_one_fills_no_slot_either() -> None:
    backups = [
        kept("good", NOON_MS - 5),
        kept("bad", NOON_MS - 4, good=False),
        kept("on-bad", NOON_MS - 3, parent="bad"),
        kept("on-that", NOON_MS - 2, parent="on-bad"),
        kept("on-nothing", NOON_MS - 1, parent="gone"),
    ]
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ()
    assert verdict.keep["good"] == ("last 1", "newest good of all addresses")
    assert verdict.keep["on-nothing"][0] == "newest good of all addresses"


def test_a_damaged_one_goes_with_the_good_ones_of_its_age() -> None:
    backups = daily(4)
    backups[2] = replace(backups[2], good=False)
    assert judged(backups, only(keep_last=2)).remove == ("d3", "d2")
    assert judged(backups, only(keep_last=3)).remove == ()


def test_in_a_scope_without_a_good_one_all_stay() -> None:
    verdict = judged([*daily(3, good=False), kept("other", NOON_MS - 9, scope="agent1")], only(keep_last=1))
    assert verdict.remove == ()
    assert verdict.keep["d2"] == ("no sound one of all addresses",)


# What is needed


def test_a_kept_one_keeps_all_it_builds_on() -> None:
    backups = [kept("full", NOON_MS - 9 * DAY_MS, holds="a")]
    for n in range(8, -1, -1):
        backups.append(kept(f"i{n}", NOON_MS - n * DAY_MS, parent=backups[-1].id))
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ()
    assert verdict.keep["full"] == ("needed by i8",)
    assert verdict.keep["i0"] == ("last 1", "newest good of all addresses")


def test_one_that_many_need_names_one_of_them() -> None:
    backups = [kept("full", NOON_MS - 9), *(kept(f"i{n}", NOON_MS - n, parent="full") for n in range(5))]
    assert judged(backups, only(keep_last=5)).keep["full"] == ("needed by i4 and 4 more",)


def test_children_go_before_their_parents_even_when_clocks_were_wrong() -> None:
    for moments in (30, 20, 10), (10, 20, 30), (20, 10, 30), (10, 10, 10):
        root, mid, leaf = (NOON_MS - ago_ms for ago_ms in moments)
        chain = [kept("root", root), kept("leaf", leaf, parent="mid"), kept("mid", mid, parent="root")]
        assert judged([*chain, kept("new")], only(keep_last=1)).remove == ("leaf", "mid", "root")


# Addresses that cannot be backed up


def test_the_last_good_state_of_an_address_that_fails_since_stays() -> None:
    backups = daily(10, holds=("a", "b"))
    backups[:8] = [replace(backup, holds=frozenset("a"), failed=frozenset("b")) for backup in backups[:8]]
    verdict = judged(backups, only(keep_last=1))
    assert list(verdict.keep) == ["d0", "d8"]
    assert verdict.keep["d0"] == ("last 1", "newest good of all addresses", "last failure of b")
    assert verdict.keep["d8"] == ("newest good of b",)


def test_an_address_that_succeeded_after_its_failure_keeps_nothing() -> None:
    backups = daily(10, holds="a")
    backups[5] = replace(backups[5], holds=frozenset(), failed=frozenset("a"))
    assert list(judged(backups, only(keep_last=1)).keep) == ["d0"]


def test_the_last_good_state_is_looked_for_in_all_scopes() -> None:
    backups = [
        kept("all", NOON_MS - 1, failed=("agent1/prod",)),
        kept("one", NOON_MS - 2, scope="agent1/prod", holds=("agent1/prod",)),
        kept("old", NOON_MS - 3, holds=("agent1/prod",)),
    ]
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ("old",)
    assert verdict.keep["one"] == ("last 1", "newest good of agent1/prod")


def test_one_that_failed_at_first_and_then_held_it_protects_nothing() -> None:
    backups = [kept("new"), kept("both", NOON_MS - 1, holds="a", failed="a")]
    assert list(judged(backups, only(keep_last=1)).keep) == ["new"]


def test_a_holder_that_builds_on_damage_does_not_stand_in_for_an_older_one() -> None:
    backups = [
        kept("new", failed="a"),
        kept("on-bad", NOON_MS - 1, parent="bad", holds="a"),
        kept("bad", NOON_MS - 2, good=False),
        kept("whole", NOON_MS - 3, holds="a"),
        kept("older", NOON_MS - 4, holds="a"),
    ]
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ("older",)
    assert verdict.keep["whole"] == ("newest good of a",)


def test_a_holder_stays_although_what_it_builds_on_is_gone_when_there_is_no_other() -> None:
    backups = [kept("new", failed="a"), kept("rest", NOON_MS - 1, parent="gone", holds="a")]
    assert judged(backups, only(keep_last=1)).keep["rest"] == ("newest good of a",)


def test_a_damaged_holder_is_no_last_good_state() -> None:
    backups = daily(4, holds="a")
    backups[0] = replace(backups[0], holds=frozenset(), failed=frozenset("a"))
    backups[1] = replace(backups[1], good=False)
    verdict = judged(backups, only(keep_last=1))
    assert verdict.remove == ("d3",)
    assert verdict.keep["d2"] == ("newest good of a",)
    assert verdict.keep["d1"] == ("not sound, newer than d2",)


def test_the_failure_stays_with_the_state_that_it_protects() -> None:
    """Without the second, the next pass would find no reason for the first."""
    backups = daily(10)
    backups[9] = replace(backups[9], holds=frozenset("a"))
    backups[5] = replace(backups[5], failed=frozenset("a"))
    assert list(judged(backups, only(keep_last=1)).keep) == ["d0", "d5", "d9"]


def test_very_many_failures_are_one_reason() -> None:
    names = [f"agent{n:04}/_default" for n in range(1_000)]
    verdict = judged([kept("new", failed=names), kept("old", NOON_MS - 1, holds=names)], only(keep_last=1))
    assert verdict.keep["old"] == ("newest good of agent0000/_default and 999 more",)


# When nothing may go


def refusal(backups: list[Kept], unreadable: int = 0, now_ms: int = NOON_MS) -> str:
    verdict = to_remove(backups, unreadable, now_ms, only(keep_last=1))
    assert verdict.remove == ()
    assert verdict.refused is not None
    assert verdict.keep == {backup.id: (verdict.refused,) for backup in backups}
    return verdict.refused


def test_nothing_goes_while_a_manifest_cannot_be_read() -> None:
    assert refusal(daily(9), unreadable=1) == "a manifest cannot be read"
    assert refusal(daily(9), unreadable=1_200) == "1,200 manifests cannot be read"


def test_nothing_goes_while_the_clock_is_before_the_newest_backup() -> None:
    assert refusal(daily(9), now_ms=NOON_MS - 1) == "the clock is 0.001 s before the newest backup, d0"
    damaged = kept("future", NOON_MS + 1_500, good=False)
    assert refusal([*daily(9), damaged]) == "the clock is 1.500 s before the newest backup, future"
    assert to_remove(daily(2), 0, NOON_MS, only(keep_last=1)).refused is None


def test_nothing_goes_when_two_have_one_id_or_a_chain_never_ends() -> None:
    assert refusal([kept("a"), kept("b"), kept("a", NOON_MS - 1)]) == "two backups have the id a"
    circle = [kept("a", parent="b"), kept("b", parent="c"), kept("c", parent="b"), kept("d")]
    assert refusal(circle) == "the chain of c never ends"
    assert refusal([kept("a", parent="a")]) == "the chain of a never ends"


# Whatever there is

IDS = [f"b{n:02}" for n in range(12)]
ADDRESSES = st.sampled_from([frozenset(text.split()) for text in ("", "a", "b", "a b", "c", "a b c")])
# Failures keep much: without many backups that have none, the rest of the rules would have little to decide.
FAILURES = st.sampled_from([frozenset(text.split()) for text in ("", "", "", "", "", "", "", "", "a", "b c")])
AGES = st.sampled_from([n * unit_ms for unit_ms in (HOUR_MS // 4, DAY_MS, 9 * DAY_MS) for n in range(12)])
COUNTS = st.integers(0, 4)
POLICIES = st.builds(
    only,
    keep_last=st.integers(1, 4),
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    within_s=st.sampled_from([0, 3_600, 86_400 * 40]),
)


@st.composite
def any_backups(draw: st.DrawFn) -> list[Kept]:
    """Chains of any shape and order in time, with damage; never a circle."""
    backups = []
    for n, name in enumerate(IDS[: draw(st.integers(0, len(IDS)))]):
        parent = draw(st.sampled_from([None, *IDS[max(0, n - 3) : n], "gone"]))
        backups.append(
            kept(
                name,
                NOON_MS - draw(AGES),
                scope=draw(st.sampled_from(["", "", "agent1", "agent1/prod"])),
                parent=parent,
                good=draw(st.sampled_from([True, True, True, True, True, False])),
                holds=draw(ADDRESSES),
                failed=draw(FAILURES),
            )
        )
    return backups


def age(backup: Kept) -> tuple[int, str]:
    return (backup.created_at_ms, backup.id)


def restorable(backup: Kept | None, by_id: Mapping[str, Kept]) -> bool:
    if backup is None or not backup.good:
        return False
    return backup.parent is None or restorable(by_id.get(backup.parent), by_id)


@given(any_backups(), POLICIES)
def test_each_backup_is_either_kept_for_a_reason_or_removed(backups: list[Kept], policy: Policy) -> None:
    verdict = judged(backups, policy)
    assert sorted([*verdict.remove, *verdict.keep]) == sorted(backup.id for backup in backups)
    assert all(reasons and all(reason.strip() for reason in reasons) for reasons in verdict.keep.values())
    assert verdict.refused is None


@given(any_backups(), POLICIES)
def test_what_a_kept_one_needs_is_kept(backups: list[Kept], policy: Policy) -> None:
    verdict = judged(backups, policy)
    for backup in backups:
        if backup.id in verdict.keep:
            assert backup.parent not in verdict.remove


@given(any_backups(), POLICIES)
def test_children_go_first(backups: list[Kept], policy: Policy) -> None:
    remove = judged(backups, policy).remove
    for backup in backups:
        if backup.id in remove and backup.parent in remove:
            assert remove.index(backup.id) < remove.index(backup.parent)


@given(any_backups(), POLICIES)
def test_the_newest_good_one_of_each_scope_is_kept(backups: list[Kept], policy: Policy) -> None:
    verdict = judged(backups, policy)
    for scope in {backup.scope for backup in backups}:
        good = [backup for backup in backups if backup.scope == scope and backup.good]
        if good:
            assert max(good, key=age).id in verdict.keep


@given(any_backups(), POLICIES)
def test_the_newest_one_that_can_be_restored_is_kept_in_each_scope(backups: list[Kept], policy: Policy) -> None:
    by_id = {backup.id: backup for backup in backups}
    verdict = judged(backups, policy)
    for scope in {backup.scope for backup in backups}:
        sound = [backup for backup in backups if backup.scope == scope and restorable(backup, by_id)]
        if sound:
            assert max(sound, key=age).id in verdict.keep
        else:
            assert {backup.id for backup in backups if backup.scope == scope} <= set(verdict.keep)


@given(any_backups(), POLICIES)
def test_the_last_good_state_of_a_failing_address_is_kept(backups: list[Kept], policy: Policy) -> None:
    by_id = {backup.id: backup for backup in backups}
    verdict = judged(backups, policy)
    for address in "abc":
        good = [backup for backup in backups if backup.good and address in backup.holds]
        for holders in good, [backup for backup in good if restorable(backup, by_id)]:
            newest = max(holders, key=age, default=None)
            if newest and any(address in backup.failed and age(backup) > age(newest) for backup in backups):
                assert newest.id in verdict.keep


@given(any_backups(), POLICIES)
def test_no_damaged_one_goes_before_an_older_good_one_of_its_scope(backups: list[Kept], policy: Policy) -> None:
    verdict = judged(backups, policy)
    for damaged in backups:
        if not damaged.good and damaged.id in verdict.remove:
            for other in backups:
                if other.good and other.scope == damaged.scope and age(other) < age(damaged):
                    assert other.id in verdict.remove


@given(any_backups(), POLICIES)
def test_what_is_left_loses_nothing_more(backups: list[Kept], policy: Policy) -> None:
    verdict = judged(backups, policy)
    left = [backup for backup in backups if backup.id in verdict.keep]
    again = judged(left, policy)
    assert again.remove == ()
    assert set(again.keep) == set(verdict.keep)


@given(any_backups(), POLICIES, st.data())
def test_a_removal_that_was_stopped_is_finished_by_the_next(
    backups: list[Kept], policy: Policy, data: st.DataObject
) -> None:
    verdict = judged(backups, policy)
    removed = verdict.remove[: data.draw(st.integers(0, len(verdict.remove)))]
    left = [backup for backup in backups if backup.id not in removed]
    assert not {backup.parent for backup in left} & set(removed)
    assert set(verdict.keep) <= set(judged(left, policy).keep)


@given(any_backups(), POLICIES, POLICIES)
def test_a_larger_policy_keeps_no_less(backups: list[Kept], one: Policy, other: Policy) -> None:
    names = (*NOTHING, "within_s")
    larger = Policy(**{name: max(getattr(one, name), getattr(other, name)) for name in names})
    assert set(judged(backups, one).keep) <= set(judged(backups, larger).keep)


@given(any_backups(), POLICIES)
def test_the_order_in_which_they_are_told_does_not_matter(backups: list[Kept], policy: Policy) -> None:
    assert judged(backups, policy) == judged(sorted(backups, key=age), policy)


@given(any_backups(), POLICIES, st.integers(1, 3), st.integers(1, 10**13))
def test_nothing_goes_when_something_contradicts(
    backups: list[Kept], policy: Policy, unreadable: int, early_ms: int
) -> None:
    assert to_remove(backups, unreadable, NOON_MS, policy).remove == ()
    if backups:
        newest_ms = max(backup.created_at_ms for backup in backups)
        verdict = to_remove(backups, 0, newest_ms - early_ms, policy)
        assert verdict.remove == ()
        assert verdict.refused is not None


@given(st.lists(st.tuples(st.sampled_from([None, *IDS]), st.booleans()), max_size=len(IDS)), POLICIES)
def test_chains_of_any_shape_come_to_an_end(shapes: list[tuple[str | None, bool]], policy: Policy) -> None:
    names = zip(IDS, shapes, strict=False)
    backups = [kept(name, NOON_MS - n, parent=parent, good=good) for n, (name, (parent, good)) in enumerate(names)]
    verdict = judged(backups, policy)
    assert sorted([*verdict.remove, *verdict.keep]) == sorted(backup.id for backup in backups)
    if verdict.refused is None:
        assert not any(backup.parent in verdict.remove for backup in backups if backup.id in verdict.keep)


def test_ten_thousand_in_one_chain_with_failures_everywhere_are_no_trouble() -> None:
    """Deep, wide and old: whatever is quadratic or recursive in it shows."""
    seeded = random.Random(7)
    names = [f"agent{n}" for n in range(50)]
    backups: list[Kept] = []
    for n in range(10_000):
        backups.append(
            kept(
                f"b{n:05}",
                NOON_MS - (10_000 - n) * HOUR_MS,
                parent=backups[-1].id if backups and n % 5_000 else None,
                good=seeded.random() > 0.05,
                holds=seeded.sample(names, 10),
                failed=seeded.sample(names, 10),
            )
        )
    seeded.shuffle(backups)
    verdict = judged(backups, Policy())
    assert len(verdict.remove) + len(verdict.keep) == 10_000
    long_way = [replace(backup, parent=f"b{int(backup.id[1:]) + 1:05}") for backup in backups]
    long_way = [backup if backup.id != "b09999" else replace(backup, parent="b09999") for backup in long_way]
    assert judged(long_way, Policy()).refused is not None

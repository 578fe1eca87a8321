"""The handle over a real keystore: what each method returns, what it leaves, and how lifetimes end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb.errors import LimitError, NotANumberError, RevisionConflictError
from prontodb.keystore import Keystore
from prontodb.model.clock import ManualClock
from prontodb.model.entry import Entry
from tests.managing import keystore_at

START_MS = ManualClock().wall_ms()


@pytest.fixture
def clock() -> ManualClock:
    """Time that only moves when told."""
    return ManualClock()


@pytest.fixture
async def ks(root: Path, clock: ManualClock) -> AsyncIterator[Keystore]:
    """A keystore on that clock."""
    async with keystore_at(root, clock=clock) as keystore:
        yield keystore


async def entries(ks: Keystore, prefix: str = "") -> list[Entry]:
    return [entry async for entry in ks.scan(prefix)]


def keys_of(found: Sequence[Entry]) -> list[str]:
    return [entry.key for entry in found]


# Reading and writing


@pytest.mark.parametrize(
    "value",
    ["", "x", "a\x00b\r\n\t\x1b", "äöü€𝄞\U0010ffff", " leading and trailing ", "--dash", "x" * 300_000],
)
async def test_a_value_comes_back_exactly_as_it_was_set(ks: Keystore, value: str) -> None:
    await ks.set("app.key", value)
    assert await ks.get("app.key") == value
    assert await ks.get_many(["app.key"]) == {"app.key": value}
    assert [entry.value for entry in await entries(ks)] == [value]


async def test_an_absent_key_is_none_and_not_an_error(ks: Keystore) -> None:
    assert await ks.get("no") is None
    assert await ks.entry("no") is None
    assert await ks.ttl("no") is None
    assert not await ks.exists("no")
    assert not await ks.delete("no")
    assert not await ks.touch("no", 5)
    assert not await ks.persist("no")
    assert await ks.get_many(["no", "never"]) == {"no": None, "never": None}


async def test_set_returns_the_revision_that_the_entry_then_has(ks: Keystore) -> None:
    first = await ks.set("a", "1")
    second = await ks.set("a", "2")
    found = await ks.entry("a")
    assert found is not None
    assert (first, second, found.revision) == (1, 2, 2)


async def test_an_entry_knows_when_it_was_created_and_when_it_changed(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("a", "1")
    clock.advance(10)
    await ks.set("a", "2", ttl=5)
    found = await ks.entry("a")
    assert found == Entry("a", "2", START_MS, START_MS + 10_000, START_MS + 15_000, 2)
    assert found.expires_at is not None
    assert (found.expires_at - found.updated_at).total_seconds() == 5


async def test_delete_says_whether_the_key_was_there(ks: Keystore) -> None:
    await ks.set("a", "1")
    assert await ks.delete("a")
    assert not await ks.delete("a")
    assert await ks.get("a") is None


async def test_many_keys_are_set_read_and_deleted_in_one_step_each(ks: Keystore) -> None:
    values = {f"k{n}": str(n) for n in range(1_000)}
    revision = await ks.set_many(values)
    assert revision == 1_000
    assert await ks.get_many(values) == values
    assert await ks.delete_many([*list(values)[:-1], "other"]) == 999
    assert await ks.delete_many(values) == 1
    assert await ks.count() == 0


async def test_nothing_at_all_is_a_valid_number_of_keys(ks: Keystore) -> None:
    assert await ks.get_many([]) == {}
    assert await ks.delete_many(()) == 0
    assert await ks.set_many({}) == 0
    assert await ks.clear() == 0


async def test_keys_may_come_from_any_iterable(ks: Keystore) -> None:
    await ks.set_many({"a": "1", "b": "2"})
    assert await ks.get_many(key for key in "ab") == {"a": "1", "b": "2"}
    assert await ks.delete_many({"a": None, "c": None}) == 1


async def test_a_key_named_twice_is_deleted_once(ks: Keystore) -> None:
    await ks.set("a", "1")
    assert await ks.delete_many(["a", "a"]) == 1


async def test_expecting_a_revision_writes_only_at_that_revision(ks: Keystore) -> None:
    revision = await ks.set("a", "1", expect=0)
    with pytest.raises(RevisionConflictError) as caught:
        await ks.set("a", "2", expect=0)
    assert (caught.value.key, caught.value.expected, caught.value.found) == ("a", 0, revision)
    await ks.set("a", "2", expect=revision)
    with pytest.raises(RevisionConflictError):
        await ks.set("a", "3", expect=revision)
    assert await ks.get("a") == "2"


# Order and pages


async def test_a_scan_passes_over_many_pages_in_byte_order(ks: Keystore) -> None:
    # By code point: ASCII, then ä, then the private use area (one UTF-16 unit), then 𝄞 (two).
    odd = ["k", "k!", "k.", "kz", "k~", "kä", "k\ue000", "k𝄞"]
    many = [f"k{n:04}" for n in range(2_500)]
    for begin in range(0, len(many), 1_000):
        await ks.set_many(dict.fromkeys(many[begin : begin + 1_000], "v"))
    await ks.set_many(dict.fromkeys([*odd, "j", "l"], "v"))
    expected = sorted(odd + many, key=str.encode)
    assert keys_of(await entries(ks, "k")) == expected
    assert await ks.list_keys("k") == expected
    assert await ks.count("k") == len(expected)
    assert await ks.count() == len(expected) + 2


async def test_a_short_list_asks_the_store_once(ks: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    await ks.set_many({f"k{n}": "v" for n in range(10)})
    asked: list[str] = []
    for name in ("scan", "keys"):
        call = getattr(ks._keyspace, name)

        def counted(*arguments: Any, name: str = name, call: Any = call) -> Any:
            asked.append(name)
            return call(*arguments)

        monkeypatch.setattr(ks._keyspace, name, counted)
    assert len(await entries(ks, "k")) == len(await ks.list_keys("k")) == 10
    assert asked == ["scan", "keys"]


@pytest.mark.parametrize("expired", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("live", [0, 1, 63, 64, 65, 200])
async def test_expired_entries_that_nobody_swept_hide_no_other(
    ks: Keystore, clock: ManualClock, expired: int, live: int
) -> None:
    await ks.set_many({f"k{n:03}a": "v" for n in range(expired)}, ttl=1)
    if live:
        await ks.set_many({f"k{n:03}b": "v" for n in range(live)})
    clock.advance(2)
    wanted = [f"k{n:03}b" for n in range(live)]
    assert keys_of(await entries(ks, "k")) == await ks.list_keys("k") == wanted


async def test_large_values_end_a_page_early_and_none_is_lost(ks: Keystore) -> None:
    expected = {f"big{n:02}": str(n) * 500_000 for n in range(40)}
    for key, value in expected.items():
        await ks.set(key, value)
    assert {entry.key: entry.value for entry in await entries(ks)} == expected
    assert await ks.list_keys() == sorted(expected)


async def test_the_last_character_of_unicode_ends_no_prefix_too_early(ks: Keystore) -> None:
    last = "\U0010ffff"
    await ks.set_many({last: "1", last * 2: "2", "a" + last: "3", "b": "4", "a\ud7ff": "5", "a\ue000": "6"})
    assert await ks.list_keys(last) == [last, last * 2]
    assert await ks.list_keys("a" + last) == ["a" + last]
    assert await ks.list_keys("a\ud7ff") == ["a\ud7ff"]


@pytest.mark.parametrize("prefix", ["%", "_", "*", "?", "a%", "[a-z]"])
async def test_a_prefix_is_literal_text(ks: Keystore, prefix: str) -> None:
    await ks.set_many({"abc": "1", prefix: "2", prefix + "x": "3"})
    assert await ks.list_keys(prefix) == [prefix, prefix + "x"]


async def test_a_scan_sees_what_stays_exactly_once_while_others_come_and_go(ks: Keystore) -> None:
    await ks.set_many({f"k{n:03}": "v" for n in range(600)})
    seen = []
    async for entry in ks.scan("k"):
        seen.append(entry.key)
        if len(seen) % 50 == 0:
            await ks.delete(f"k{len(seen) - 50:03}")
            await ks.set(f"j{len(seen)}", "not in this range")
    assert seen == [f"k{n:03}" for n in range(600)]


async def test_clear_deletes_a_prefix_in_steps_and_counts_it(ks: Keystore, clock: ManualClock) -> None:
    for begin in range(0, 2_200, 1_000):
        await ks.set_many({f"old.{n}": "v" for n in range(begin, min(begin + 1_000, 2_200))})
    await ks.set("old.expired", "v", ttl=1)
    await ks.set("older", "stays")
    clock.advance(1)
    assert await ks.clear("old.") == 2_200
    assert await ks.list_keys() == ["older"]
    assert await ks.clear() == 1


async def test_clear_keeps_to_a_smaller_batch_limit(root: Path) -> None:
    async with keystore_at(root, max_batch_ops=7) as ks:
        for n in range(20):
            await ks.set(f"k{n}", "v")
        assert await ks.clear("k") == 20


async def test_namespaces_and_projects_are_found_from_the_keys(ks: Keystore) -> None:
    keys = ["top", "app.a", "app.b", "web.ui.theme", "web.ui.font__dark", "web.api.v1.url", "cli.x.y"]
    await ks.set_many(dict.fromkeys(keys, "v"))
    assert await ks.projects() == ["cli", "web"]
    assert await ks.namespaces() == ["", "app", "cli.x", "web.api.v1", "web.ui"]
    assert await ks.namespaces("web") == ["web.api.v1", "web.ui"]
    assert await ks.namespaces("app") == []


# Lifetimes


async def test_an_expired_entry_is_returned_by_nothing(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("ns.a", "1", ttl=10)
    await ks.set("ns.b", "2")
    watch = ks.watch(since=f"{(await ks._keyspace.position()).incarnation}:0")
    clock.advance(9.999)
    assert await ks.get("ns.a") == "1"
    assert await ks.ttl("ns.a") == 0.001
    clock.advance(0.001)
    assert await ks.get("ns.a") is None
    assert await ks.entry("ns.a") is None
    assert not await ks.exists("ns.a")
    assert await ks.ttl("ns.a") is None
    assert await ks.get_many(["ns.a", "ns.b"]) == {"ns.a": None, "ns.b": "2"}
    assert keys_of(await entries(ks)) == ["ns.b"]
    assert await ks.list_keys("ns.") == ["ns.b"]
    assert await ks.count("ns.") == 1
    changes = [await anext(watch), await anext(watch)]
    assert [(change.key, change.entry is None) for change in changes] == [("ns.a", True), ("ns.b", False)]
    assert not await ks.delete("ns.a")
    assert not await ks.touch("ns.a", 60)
    assert not await ks.persist("ns.a")


async def test_an_entry_that_expires_before_a_scan_hands_it_out_is_left_out(ks: Keystore, clock: ManualClock) -> None:
    for key, ttl in (("a", 1), ("b", 1), ("c", 2), ("d", "never")):
        await ks.set(key, "v", ttl=ttl)
    seen = []
    async for entry in ks.scan():
        seen.append(entry.key)
        clock.advance(1)
    assert seen == ["a", "c", "d"]


async def test_what_replaces_an_expired_entry_is_created_anew(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("a", "1", ttl=1)
    clock.advance(2)
    await ks.set("a", "2", expect=0)
    found = await ks.entry("a")
    assert found is not None
    assert found.created_at_ms == found.updated_at_ms == START_MS + 2_000
    assert found.expires_at_ms is None


async def test_ttl_is_infinite_for_an_entry_that_does_not_expire(ks: Keystore) -> None:
    await ks.set("a", "1")
    assert await ks.ttl("a") == float("inf")


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(90, 90), (0.25, 0.25), ("15m", 900), ("24h", 86_400), (" 90 ", 90), ("1.5s", 1.5), ("1w", 604_800)],
)
async def test_a_lifetime_is_seconds_or_text(ks: Keystore, ttl: float | str, seconds: float) -> None:
    await ks.set("a", "1", ttl=ttl)
    assert await ks.ttl("a") == seconds


async def test_a_set_without_a_lifetime_takes_the_old_one_away(ks: Keystore) -> None:
    await ks.set("a", "1", ttl=5)
    await ks.set("a", "2")
    assert await ks.ttl("a") == float("inf")


async def test_touch_begins_a_lifetime_anew(ks: Keystore, clock: ManualClock) -> None:
    revision = await ks.set("a", "1", ttl=100)
    clock.advance(60)
    assert await ks.touch("a")
    assert await ks.ttl("a") == 100
    assert await ks.touch("a", "1m")
    assert await ks.ttl("a") == 60
    found = await ks.entry("a")
    assert found is not None
    assert found.revision == revision + 2
    assert await ks.touch("a", "never")
    assert await ks.ttl("a") == float("inf")
    assert await ks.touch("a")
    assert await ks.ttl("a") == float("inf")


async def test_persist_lets_an_entry_live_for_ever(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("a", "1", ttl=1)
    assert await ks.persist("a")
    clock.advance(2)
    assert await ks.get("a") == "1"


async def test_a_namespace_gives_its_entries_a_lifetime(ks: Keystore) -> None:
    await ks.set("cache.before", "1")
    await ks.set_namespace_ttl("cache", "1h")
    await ks.set_many({"cache.a": "1", "cache.sub.b": "2", "cached": "3"})
    await ks.set("cache.own", "4", ttl=5)
    await ks.set("cache.never", "5", ttl="never")
    assert await ks.namespace_ttls() == {"cache": 3_600}
    left = {key: await ks.ttl(key) for key in await ks.list_keys()}
    forever = float("inf")
    assert left == {
        "cache.a": 3_600,
        "cache.before": forever,
        "cache.never": forever,
        "cache.own": 5,
        "cache.sub.b": forever,
        "cached": forever,
    }
    assert await ks.touch("cache.never")
    assert await ks.ttl("cache.never") == 3_600
    await ks.set_namespace_ttl("cache", None)
    await ks.set_namespace_ttl("cache", None)
    assert await ks.namespace_ttls() == {}
    await ks.set("cache.a", "1")
    assert await ks.ttl("cache.a") == forever


async def test_keys_without_a_dot_have_a_namespace_too(ks: Keystore) -> None:
    await ks.set_namespace_ttl("", 7)
    await ks.set_many({"top": "1", "a.b": "2"})
    assert await ks.ttl("top") == 7
    assert await ks.ttl("a.b") == float("inf")


async def test_a_clock_that_was_set_back_brings_no_error(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("a", "1", ttl=5)
    clock.set_wall_ms(START_MS - 86_400_000)
    assert await ks.get("a") == "1"
    await ks.set("a", "2")
    found = await ks.entry("a")
    assert found is not None
    assert found.updated_at_ms < found.created_at_ms


# Counting and comparing


async def test_increment_starts_at_zero_and_returns_the_sum(ks: Keystore) -> None:
    assert await ks.increment("n") == 1
    assert await ks.increment("n", 41) == 42
    assert await ks.increment("n", -50) == -8
    assert await ks.increment("n", 0) == -8
    assert await ks.get("n") == "-8"


async def test_increment_keeps_the_expiry_and_a_new_counter_takes_the_default(ks: Keystore, clock: ManualClock) -> None:
    await ks.set_namespace_ttl("hits", 100)
    await ks.increment("hits.a")
    clock.advance(60)
    await ks.increment("hits.a")
    assert await ks.ttl("hits.a") == 40
    clock.advance(40)
    assert await ks.increment("hits.a") == 1
    assert await ks.ttl("hits.a") == 100


@pytest.mark.parametrize("value", ["", "x", "1.5", " 1", "1 ", "+", "-", "1e3", "0x10", "٣", "9" * 20, "1\n"])
async def test_increment_refuses_what_is_no_number_and_leaves_it(ks: Keystore, value: str) -> None:
    await ks.set("n", value)
    with pytest.raises(NotANumberError):
        await ks.increment("n")
    assert await ks.get("n") == value


@pytest.mark.parametrize(
    ("value", "by"),
    [(2**63 - 1, 1), (-(2**63), -1), (0, 2**63), (1, 1 << 20_000)],
    ids=["highest", "lowest", "one more", "beyond print"],
)
async def test_increment_never_passes_64_bits(ks: Keystore, value: int, by: int) -> None:
    await ks.set("n", str(value))
    with pytest.raises(NotANumberError):
        await ks.increment("n", by)
    assert await ks.get("n") == str(value)


async def test_a_thousand_tasks_increment_exactly(ks: Keystore) -> None:
    sums: list[int] = []

    async def raise_once() -> None:
        sums.append(await ks.increment("n"))

    async with anyio.create_task_group() as tasks:
        for _ in range(1_000):
            tasks.start_soon(raise_once)
    assert sorted(sums) == list(range(1, 1_001))
    assert await ks.get("n") == "1000"


async def test_compare_and_set_writes_only_what_was_expected(ks: Keystore) -> None:
    assert await ks.compare_and_set("a", None, "1")
    assert not await ks.compare_and_set("a", None, "2")
    assert not await ks.compare_and_set("a", "2", "3")
    assert await ks.compare_and_set("a", "1", "", ttl=5)
    assert await ks.ttl("a") == 5
    assert await ks.compare_and_set("a", "", "4")
    assert await ks.get("a") == "4"


async def test_of_many_who_compare_at_once_one_wins(ks: Keystore) -> None:
    winners: list[int] = []

    async def try_to_win(number: int) -> None:
        if await ks.compare_and_set("leader", None, str(number)):
            winners.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(try_to_win, number)
    assert len(winners) == 1
    assert await ks.get("leader") == str(winners[0])


# Limits


async def test_a_batch_may_hold_its_limit_and_no_more(root: Path) -> None:
    async with keystore_at(root, max_batch_ops=3) as ks:
        await ks.set_many({"a": "1", "b": "2", "c": "3"})
        for call in (
            ks.get_many(list("abcd")),
            ks.delete_many(list("abcd")),
            ks.set_many(dict.fromkeys("abcd", "x")),
        ):
            with pytest.raises(LimitError) as caught:
                await call
            assert (caught.value.limit, caught.value.allowed, caught.value.given) == ("max_batch_ops", 3, 4)
        assert await ks.get_many(["a", "b", "c"]) == {"a": "1", "b": "2", "c": "3"}


async def test_sizes_are_counted_in_bytes_of_utf_8(root: Path) -> None:
    async with keystore_at(root, max_value_bytes=10, max_key_bytes=16, max_batch_bytes=30) as ks:
        await ks.set("ä" * 8, "€" * 3)
        for call, limit in (
            (ks.set("k", "€" * 4), "max_value_bytes"),
            (ks.set("ä" * 9, ""), "max_key_bytes"),
            (ks.get("k" * 17), "max_key_bytes"),
            (ks.compare_and_set("k", "x" * 11, ""), "max_value_bytes"),
            (ks.set_many({"a": "€€€", "b": "€€€", "c": "€€€", "d": "€"}), "max_batch_bytes"),
        ):
            with pytest.raises(LimitError) as caught:
                await call
            assert caught.value.limit == limit
            assert caught.value.given > caught.value.allowed
            assert limit in str(caught.value)
        assert await ks.count() == 1

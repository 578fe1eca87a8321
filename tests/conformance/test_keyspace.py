"""What `Keyspace` promises (`prontodb/engine/protocol.py`), for every engine."""

import random

import anyio
import pytest

from prontodb.engine.protocol import Keyspace
from prontodb.errors import CompactedError, FencedError, RevisionConflictError
from prontodb.model.operation import ABSENT, CHECK, FOREVER, Change, Fence, Op, Position
from tests.conformance.conftest import HOME, Subject
from tests.conformance.engines import WallClock

ME = Fence("me")


async def put(keyspace: Keyspace, **values: str) -> int:
    return (await keyspace.apply([Op(key, value) for key, value in values.items()], ME)).revision


async def values(keyspace: Keyspace) -> dict[str, str]:
    found: dict[str, str] = {}
    lo = ""
    while page := await keyspace.scan(lo, None, 3):
        found.update((entry.key, entry.value) for entry in page)
        lo = page[-1].key + "\x00"
    return found


async def test_an_empty_keyspace_holds_nothing(keyspace: Keyspace) -> None:
    assert await keyspace.read(["a", "b"]) == [None, None]
    assert await keyspace.scan("", None, 10) == []
    assert await keyspace.keys("", None, 10) == []
    assert await keyspace.count("", None) == 0
    assert (await keyspace.position()).revision == 0
    assert await keyspace.lifetimes() == {}
    assert await keyspace.sweep(10, ME) == 0


async def test_what_was_applied_is_read_with_its_moments_and_revision(keyspace: Keyspace, clock: WallClock) -> None:
    receipt = await keyspace.apply([Op("a", "1"), Op("b", "2", ttl_ms=500)], ME)
    assert (receipt.revision, receipt.changed) == (2, 2)
    a, b = await keyspace.read(["a", "b"])
    assert a is not None
    assert b is not None
    now = clock.wall_ms()
    assert (a.key, a.value, a.created_at_ms, a.updated_at_ms, a.expires_at_ms, a.revision) == (
        "a",
        "1",
        now,
        now,
        None,
        1,
    )
    assert (b.expires_at_ms, b.revision) == (now + 500, 2)


async def test_reads_keep_the_order_asked_for_and_repeat_what_is_asked_twice(keyspace: Keyspace) -> None:
    await put(keyspace, a="1", b="2")
    found = await keyspace.read(["b", "none", "a", "b"])
    assert [entry and entry.value for entry in found] == ["2", None, "1", "2"]
    assert await keyspace.read([]) == []


async def test_values_and_keys_are_exact(keyspace: Keyspace) -> None:
    exact = {
        "k'": "",
        'k"': "\x00\n\r\x1a",
        "%": "ä\U0010ffff",
        "k" * 1024: "x" * 70_000,
        "\U0001f600": "e\u0301",
        " ": " ",
    }
    await keyspace.apply([Op(key, value) for key, value in exact.items()], ME)
    assert await values(keyspace) == exact
    assert [entry and entry.value for entry in await keyspace.read(list(exact))] == list(exact.values())


async def test_ranges_are_half_open_in_byte_order_and_limited(keyspace: Keyspace) -> None:
    keys = ["B", "a", "a.b", "a.c", "b", "ü", "\ue000", "\U0001f600"]
    await keyspace.apply([Op(key, "1") for key in reversed(keys)], ME)
    assert await keyspace.keys("", None, 100) == keys
    assert await keyspace.keys("a.", "a/", 100) == ["a.b", "a.c"]
    assert [e.key for e in await keyspace.scan("a", "b", 2)] == ["a", "a.b"]
    assert [e.key for e in await keyspace.scan("a", "b", 2, reverse=True)] == ["a.c", "a.b"]
    assert [e.key for e in await keyspace.scan("", None, 100, reverse=True)] == keys[::-1]
    assert await keyspace.count("a", "b") == 3
    assert await keyspace.count("b", "a") == 0


async def test_long_scans_and_short_ones_agree(keyspace: Keyspace) -> None:
    keys = [f"k{number:04}" for number in range(300)]
    await keyspace.apply([Op(key, key) for key in keys], ME)
    assert [entry.key for entry in await keyspace.scan("", None, 250)] == keys[:250]
    assert list(await values(keyspace)) == keys


async def test_an_expired_entry_is_absent_from_everything(keyspace: Keyspace, clock: WallClock) -> None:
    await keyspace.apply([Op("gone", "1", ttl_ms=1_000), Op("here", "1", ttl_ms=1_001)], ME)
    clock.advance(1)
    assert await keyspace.read(["gone"]) == [None]
    assert await keyspace.keys("", None, 10) == ["here"]
    assert list(await values(keyspace)) == ["here"]
    assert await keyspace.count("", None) == 1
    assert (await keyspace.apply([Op("gone", None)], ME)).changed == 0
    await keyspace.apply([Op("gone", "2", expect=ABSENT)], ME)
    (entry,) = await keyspace.read(["gone"])
    assert entry is not None
    assert entry.created_at_ms == clock.wall_ms()


async def test_an_expectation_that_fails_takes_the_whole_batch(keyspace: Keyspace) -> None:
    await put(keyspace, a="1")
    for wrong in (ABSENT, 2):
        with pytest.raises(RevisionConflictError) as caught:
            await keyspace.apply([Op("b", "1"), Op("a", "2", expect=wrong)], ME)
        assert (caught.value.key, caught.value.expected, caught.value.found) == ("a", wrong, 1)
    with pytest.raises(RevisionConflictError):
        await keyspace.apply([Op("b", "1"), Op("c", None, CHECK, 9)], ME)
    assert await values(keyspace) == {"a": "1"}
    assert (await keyspace.position()).revision == 1
    await keyspace.apply([Op("a", "2", expect=1), Op("b", "1", expect=ABSENT)], ME)
    assert await values(keyspace) == {"a": "2", "b": "1"}


async def test_operations_of_a_batch_are_applied_in_order_and_see_each_other(keyspace: Keyspace) -> None:
    receipt = await keyspace.apply(
        [Op("a", "1"), Op("a", None, expect=1), Op("a", "3", expect=ABSENT), Op("b", None)], ME
    )
    assert (receipt.revision, receipt.changed) == (3, 3)
    assert await values(keyspace) == {"a": "3"}


async def test_a_check_alone_changes_nothing(keyspace: Keyspace) -> None:
    await put(keyspace, a="1")
    receipt = await keyspace.apply([Op("a", None, CHECK, 1), Op("b", None, CHECK, ABSENT)], ME)
    assert (receipt.revision, receipt.changed) == (1, 0)


async def test_namespaces_lend_their_lifetimes_to_what_is_set_without_one(keyspace: Keyspace, clock: WallClock) -> None:
    await keyspace.set_lifetime("cache", 1_000, ME)
    await keyspace.set_lifetime("cache", 2_000, ME)
    await keyspace.set_lifetime("other", 5, ME)
    await keyspace.set_lifetime("other", None, ME)
    assert await keyspace.lifetimes() == {"cache": 2_000}
    await keyspace.apply([Op("cache.a", "1"), Op("cache.b", "1", FOREVER), Op("other.a", "1")], ME)
    found = await keyspace.read(["cache.a", "cache.b", "other.a"])
    assert [entry and entry.expires_at_ms for entry in found] == [clock.wall_ms() + 2_000, None, None]


async def test_a_sweep_deletes_what_has_expired_in_steps_and_nothing_else(keyspace: Keyspace, clock: WallClock) -> None:
    await keyspace.apply(
        [Op(f"k{i}", "1", ttl_ms=10) for i in range(5)] + [Op("late", "1", ttl_ms=99), Op("ever", "1")], ME
    )
    clock.advance(0.05)
    await keyspace.apply([Op("k0", "renewed", FOREVER)], ME)
    before = (await keyspace.position()).revision
    assert [await keyspace.sweep(3, ME) for _ in range(3)] == [3, 1, 0]
    assert list(await values(keyspace)) == ["ever", "k0", "late"]
    assert (await keyspace.position()).revision == before + 4


async def test_changes_are_the_latest_states_in_order_deletions_included(keyspace: Keyspace, clock: WallClock) -> None:
    start = await keyspace.position()
    await put(keyspace, a="1", b="1", c="1")
    await keyspace.set_lifetime("n", 5, ME)
    await keyspace.apply([Op("a", "2"), Op("b", None), Op("d", "1", ttl_ms=10)], ME)
    clock.advance(0.01)
    page = await keyspace.changes(start, 100)
    assert [shortly(change) for change in page.changes] == [
        ("c", "1", 3),
        ("a", "2", 5),
        ("b", None, 6),
        ("d", None, 7),
    ]
    assert page.position == await keyspace.position()
    assert await keyspace.sweep(10, ME) == 1
    later = await keyspace.changes(page.position, 100)
    assert [shortly(change) for change in later.changes] == [("d", None, 8)]
    assert (await keyspace.changes(later.position, 100)).changes == []


def shortly(change: Change) -> tuple[str, str | None, int]:
    return change.key, None if change.entry is None else change.entry.value, change.revision


async def test_changes_come_in_pages_that_join(keyspace: Keyspace) -> None:
    place = await keyspace.position()
    for number in range(10):
        await put(keyspace, **{f"k{number}{i}": "1" for i in range(3)})
    seen: list[str] = []
    while (page := await keyspace.changes(place, 4)).changes:
        seen += [change.key for change in page.changes]
        place = page.position
    assert seen == [f"k{number}{i}" for number in range(10) for i in range(3)]


async def test_a_place_of_another_history_is_refused(keyspace: Keyspace) -> None:
    here = await keyspace.position()
    for place in (Position("ff" * 16, 0), Position(here.incarnation, 1)):
        with pytest.raises(CompactedError):
            await keyspace.changes(place, 10)


async def test_a_fence_of_another_epoch_is_refused(keyspace: Keyspace) -> None:
    await keyspace.apply([Op("a", "1")], Fence("first"))
    for call in (
        keyspace.apply([Op("a", "2")], Fence("late", 7)),
        keyspace.sweep(5, Fence("late", 7)),
        keyspace.set_lifetime("n", 1, Fence("late", 7)),
    ):
        with pytest.raises(FencedError):
            await call
    assert await values(keyspace) == {"a": "1"}
    assert (await keyspace.position()).revision == 1


async def test_two_openings_see_each_other_at_once(subject: Subject, keyspace: Keyspace) -> None:
    other = await subject.another().keyspace(HOME)
    for number in range(1, 6):
        assert await put(keyspace, a=str(number)) == 2 * number - 1
        assert (await other.read(["a"]))[0].value == str(number)  # type: ignore[union-attr]
        assert await put(other, b=str(number)) == 2 * number
        assert (await keyspace.read(["b"]))[0].value == str(number)  # type: ignore[union-attr]
    with pytest.raises(RevisionConflictError):
        await keyspace.apply([Op("b", "x", expect=2)], ME)


async def test_concurrent_raises_of_a_counter_are_all_counted(subject: Subject, keyspace: Keyspace) -> None:
    other = await subject.another().keyspace(HOME)

    async def climb(through: Keyspace) -> None:
        for _ in range(10):
            while True:
                (entry,) = await through.read(["n"])
                count = int(entry.value) if entry else 0
                try:
                    await through.apply([Op("n", str(count + 1), expect=entry.revision if entry else ABSENT)], ME)
                    break
                except RevisionConflictError:
                    await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for through in (keyspace, keyspace, other, other):
            tasks.start_soon(climb, through)
    assert await values(keyspace) == {"n": "40"}


async def test_concurrent_batches_are_never_seen_in_part(subject: Subject, keyspace: Keyspace) -> None:
    other = await subject.another().keyspace(HOME)
    names = [f"k{i}" for i in range(6)]
    await keyspace.apply([Op(name, "0") for name in names], ME)

    async def write(mark: str) -> None:
        for _ in range(8):
            await keyspace.apply([Op(name, mark) for name in names], ME)

    async def watch() -> None:
        for _ in range(30):
            seen = {entry and entry.value for entry in await other.read(names)}
            assert len(seen) == 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for mark in "abc":
            tasks.start_soon(write, mark)
        tasks.start_soon(watch)


async def test_random_batches_agree_with_a_dictionary(subject: Subject, keyspace: Keyspace, clock: WallClock) -> None:
    chance, other = random.Random(11), await subject.another().keyspace(HOME)
    model: dict[str, tuple[str, int | None]] = {}
    for _ in range(40):
        ops = [
            Op(chance.choice("abcdef"), chance.choice(("1", "2", None)), chance.choice((0, 0, 50, 100)))
            for _ in range(3)
        ]
        await chance.choice((keyspace, other)).apply(ops, ME)
        for op in ops:
            if op.value is None:
                model.pop(op.key, None)
            else:
                model[op.key] = op.value, clock.wall_ms() + op.ttl_ms if op.ttl_ms else None
        clock.advance(chance.choice((0, 0.03)))
        model = {key: kept for key, kept in model.items() if kept[1] is None or kept[1] > clock.wall_ms()}
        if chance.random() < 0.2:
            await keyspace.sweep(2, ME)
        assert await values(keyspace) == {key: model[key][0] for key in sorted(model)}


async def test_waiting_ends_with_a_commit_of_our_own_or_of_another(subject: Subject, keyspace: Keyspace) -> None:
    subject.skip_unless_it_waits()
    other = await subject.another().keyspace(HOME)
    for writer in (keyspace, other):
        place = await keyspace.position()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(put_one, writer)
                assert await keyspace.wait(place, 30)
        assert await keyspace.wait(place, 0)


async def put_one(keyspace: Keyspace) -> None:
    await put(keyspace, waited="1")


async def test_waiting_for_nothing_ends_at_its_time(subject: Subject, keyspace: Keyspace) -> None:
    subject.skip_unless_it_waits()
    place = await keyspace.position()
    assert not await keyspace.wait(place, 0)
    assert not await keyspace.wait(place, 0.05)

"""Quotas of an address inside the write transaction: the rate to the change, and being told before the end."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prontodb import log
from prontodb.engine.sqlite import quotas, upkeep, writing
from prontodb.errors import QuotaExceededError
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence, Op, Receipt
from tests.unit.engine.store import ME, Store, sets


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """The events of near quotas."""
    events: list[dict[str, Any]] = []
    quotas.NEAR.clear()
    log.use(lambda name, **fields: events.append(fields) if name == "quota.near" else None)
    yield events
    log.disable()
    quotas.NEAR.clear()


def limited(store: Store, **limits: Any) -> Store:
    """The same keystore under other limits."""
    return store.another(Limits(**limits))


def fullest_second(store: Store) -> int:
    """The most changes that any window of one second of the journal holds, expired entries left out."""
    rows = [(at, n) for at, n, text in store.rows("SELECT at, rev - first_rev + 1, records FROM journal ORDER BY at")
            if not text.startswith('[["expire"')]  # fmt: skip
    return max((sum(n for other, n in rows if at <= other < at + 1_000) for at, _ in rows), default=0)


def test_no_second_takes_more_changes_than_allowed_and_the_error_says_when_to_come_again(store: Store) -> None:
    slow = limited(store, writes_per_second=3)
    for step in range(3):
        slow.apply(Op(f"k{step}", "1"))
        slow.now_ms += 100
    with pytest.raises(QuotaExceededError) as caught:
        slow.apply(Op("more", "1"))
    assert (caught.value.quota, caught.value.allowed, caught.value.retry_after_s) == ("writes_per_second", 3, 0.7)
    slow.now_ms += 699
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("more", "1"))
    slow.now_ms += 1
    slow.apply(Op("more", "1"))
    with pytest.raises(QuotaExceededError) as caught:
        slow.apply(Op("x", "1"), Op("y", "1"))
    assert caught.value.retry_after_s == 0.2
    assert fullest_second(slow) == 3
    slow.close()


def test_the_rate_holds_across_the_batches_of_one_group_and_between_connections(store: Store) -> None:
    one, other = limited(store, writes_per_second=3), limited(store, writes_per_second=3)
    outcomes = one.group(sets([("a", "1")]), sets([("b", "1"), ("c", "1")]), sets([("d", "1")]), [Op("a", None)])
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, True, False, True]
    with pytest.raises(QuotaExceededError):
        other.apply(Op("e", "1"))
    assert "d" not in one.values()
    one.close()
    other.close()


def test_a_batch_that_no_second_could_take_is_refused_for_good(store: Store) -> None:
    slow = limited(store, writes_per_second=3)
    with pytest.raises(QuotaExceededError, match="split them") as caught:
        slow.apply(*sets((f"k{n}", "1") for n in range(4)))
    assert caught.value.retry_after_s is None
    slow.apply(*sets((f"k{n}", "1") for n in range(3)))
    slow.close()


def test_what_changes_nothing_costs_nothing_of_the_rate(store: Store) -> None:
    slow = limited(store, writes_per_second=1)
    slow.apply(Op("k", "1"))
    assert slow.apply(Op("absent", None)) == Receipt(1, 0)
    slow.close()


def test_deleting_and_sweeping_are_never_refused_and_expired_entries_do_not_count(store: Store) -> None:
    slow = limited(store, writes_per_second=10)
    slow.apply(*(Op(f"old{n}", "1", ttl_ms=5) for n in range(10)))
    slow.apply(Op("old0", None), Op("old1", None))
    slow.now_ms += 1_000
    assert writing.sweep(slow.connection, slow.target, 100, Fence("sweep"), slow.now_ms) == 8
    slow.apply(*sets((f"k{n}", "1") for n in range(10)))
    slow.apply(*(Op(f"k{n}", None) for n in range(10)))
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("k", "1"))
    slow.close()


def test_a_journal_full_of_sweeps_hides_no_writes(store: Store) -> None:
    slow = limited(store, writes_per_second=2)
    store.apply(*(Op(f"old{n}", "1", ttl_ms=5) for n in range(40)))
    slow.now_ms += 2_000
    slow.apply(*sets([("a", "1"), ("b", "1")]))
    for _ in range(40):  # each a row of its own
        assert writing.sweep(slow.connection, slow.target, 1, Fence("sweep"), slow.now_ms) == 1
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("c", "1"))
    slow.close()


def filled_up(store: Store, ops: Callable[[int], list[Op]]) -> int:
    """Write batches until one is refused; return how many bytes are used then."""
    for number in range(100_000):
        outcome = store.group(ops(number))[0]
        if not isinstance(outcome, Receipt):
            break
    assert isinstance(outcome, QuotaExceededError)
    assert outcome.quota == "max_keystore_bytes"
    return quotas.used_bytes(store.connection)


SMALL_ONES: dict[str, Callable[[int], list[Op]]] = {
    "empty values": lambda n: sets((f"{n}.{i}", "") for i in range(300)),
    "long keys": lambda n: sets((f"{n}.{i}." + "k" * 400, "") for i in range(30)),
    "keys that take more in JSON": lambda n: sets((f"{n}.{i}." + "\U0001f600" * 100, "") for i in range(30)),
    "one at a time": lambda n: sets([(f"{n}", "")]),
}


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("kind", SMALL_ONES)
def test_many_small_entries_do_not_pass_the_size_by_what_they_take_beside_their_values(
    store: Store, kind: str, history: bool
) -> None:
    most = 300_000
    writing.set_history(store.connection, store.target, history, ME, store.now_ms)
    tight = limited(store, max_keystore_bytes=most)
    assert 0.3 * most < filled_up(tight, SMALL_ONES[kind]) <= most
    tight.close()


def test_values_that_the_history_keeps_as_json_do_not_pass_the_size(store: Store) -> None:
    most = 300_000
    writing.set_history(store.connection, store.target, True, ME, store.now_ms)
    tight = limited(store, max_keystore_bytes=most)
    assert 0.3 * most < filled_up(tight, lambda n: sets([(f"{n}", "\x01" * 20_000)])) <= most
    tight.close()


def test_the_smallest_quota_that_may_be_set_holds_something(store: Store) -> None:
    tight = limited(store, max_keystore_bytes=65_536)
    tight.apply(Op("a", "x" * 500))
    tight.close()


def test_what_the_log_holds_counts_for_the_size_however_small_the_file_is(store: Store) -> None:
    most = 75_000_000  # far above the file, so that only its log says how much there is
    tight = limited(store, max_keystore_bytes=most)
    reader = store.another()
    reader.connection.execute("BEGIN DEFERRED").close()
    reader.values()
    with pytest.raises(QuotaExceededError):
        for number in range(100):
            tight.apply(Op(f"{number}", "x" * 1_000_000))
    assert tight.target.size_bytes < most / 2
    reader.close()
    tight.close()


def test_lifetimes_of_namespaces_obey_the_size_and_the_rate(store: Store) -> None:
    most = 200_000
    tight = limited(store, max_keystore_bytes=most)
    with pytest.raises(QuotaExceededError, match="max_keystore_bytes"):
        for number in range(10_000):
            name = f"{number}." + "n" * 200
            writing.set_lifetime(tight.connection, tight.target, name, 60_000, ME, tight.now_ms)
    assert quotas.used_bytes(tight.connection) <= most
    # Taking one away always works.
    writing.set_lifetime(tight.connection, tight.target, "0." + "n" * 200, None, ME, tight.now_ms)
    tight.close()
    slow = limited(store, writes_per_second=2)
    slow.now_ms += 10_000
    for name in "ab":
        writing.set_lifetime(slow.connection, slow.target, name, 60_000, ME, slow.now_ms)
    with pytest.raises(QuotaExceededError, match="writes_per_second"):
        writing.set_lifetime(slow.connection, slow.target, "c", 60_000, ME, slow.now_ms)
    slow.close()


@pytest.mark.parametrize("back_ms", [1, 500, 999, 1_000, 86_400_000])
def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_more_than_two_seconds(store: Store, back_ms: int) -> None:
    slow = limited(store, writes_per_second=2)
    slow.apply(*sets([("a", "1"), ("b", "1")]))
    slow.now_ms -= back_ms
    waited = 0.0
    while True:
        try:
            slow.apply(Op("c", "1"))
            break
        except QuotaExceededError as error:
            pause_s = error.retry_after_s or 60
            waited += pause_s
            slow.now_ms += round(pause_s * 1_000)
    assert waited <= 2.0
    slow.close()


def test_a_writer_that_was_stopped_between_its_clock_and_its_commit_lets_nobody_write_more(store: Store) -> None:
    slow, late = limited(store, writes_per_second=4), limited(store, writes_per_second=4)
    slow.now_ms += 5_000
    slow.apply(*sets([("a", "1"), ("b", "1"), ("c", "1")]))
    late.apply(Op("late", "1"))
    slow.apply(Op("d", "1"))
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("e", "1"))
    assert fullest_second(slow) == 4
    slow.close()
    late.close()


def test_a_journal_that_keeps_values_is_judged_the_same(store: Store) -> None:
    writing.set_history(store.connection, store.target, True, ME, store.now_ms - 5_000)
    slow = limited(store, writes_per_second=2)
    slow.apply(Op("k", '[["expire"'), Op("l", "x" * 100_000))
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("m", "1"))
    slow.close()


def test_without_quotas_a_write_asks_sqlite_nothing_more(store: Store) -> None:
    def statements(target: Store) -> list[str]:
        seen: list[str] = []
        target.apply(Op("first", "1"))
        target.connection.set_trace_callback(seen.append)  # type: ignore[attr-defined]
        target.apply(Op("k", "1"))
        target.connection.set_trace_callback(None)  # type: ignore[attr-defined]
        return [text.split(" ")[0] for text in seen]

    assert store.target.near is None
    plain = statements(store)
    assert plain[1:] == ["PRAGMA", "INSERT", "INSERT", "COMMIT"]
    far = limited(store, max_entries=10**6, max_keystore_bytes=2**40)
    assert statements(far) == plain
    far.close()


# Told before the end


def test_a_nearly_full_quota_is_told_once_and_again_after_it_was_left(store: Store, told: list[dict[str, Any]]) -> None:
    tight = limited(store, max_entries=10)
    tight.apply(*sets((f"k{n}", "1") for n in range(7)))
    assert told == []
    tight.apply(Op("k7", "1"))
    assert told == [{"address": tight.address, "quota": "max_entries", "used": 8, "allowed": 10}]
    tight.apply(Op("k8", "1"))
    tight.apply(Op("k8", "2"))
    assert len(told) == 1
    tight.apply(*(Op(f"k{n}", None) for n in range(5)))
    assert quotas.NEAR == {}
    tight.apply(*sets((f"k{n}", "1") for n in range(5)))
    assert len(told) == 2
    tight.close()


def test_the_size_is_told_at_the_part_that_is_set_and_by_one_connection_alone(
    store: Store, told: list[dict[str, Any]]
) -> None:
    tight = limited(store, max_keystore_bytes=400_000, soft=0.5)
    tight.apply(Op("a", "x" * 100_000))
    assert told == []
    tight.apply(Op("b", "x" * 100_000))
    another = limited(store, max_keystore_bytes=400_000, soft=0.5)
    another.apply(Op("c", "x"))
    assert [(fields["quota"], fields["used"] >= 200_000) for fields in told] == [("max_keystore_bytes", True)]
    for one in (tight, another):
        one.close()


def test_a_write_that_is_refused_tells_nothing(store: Store, told: list[dict[str, Any]]) -> None:
    tight = limited(store, max_entries=4)
    with pytest.raises(QuotaExceededError):
        tight.apply(*sets((f"k{n}", "1") for n in range(5)))
    assert told == []
    tight.close()


def test_pruning_the_journal_makes_no_room_in_the_present_second(store: Store) -> None:
    slow = limited(store, writes_per_second=2)
    slow.apply(*sets([("a", "1"), ("b", "1")]))
    rule = upkeep.Rule(before_ms=slow.now_ms - 1_000, keep_records=0, until_revision=None)
    assert upkeep.Pruning(rule).step(slow.connection, slow.target, ME, slow.now_ms) == 0
    with pytest.raises(QuotaExceededError):
        slow.apply(Op("c", "1"))
    slow.now_ms += 1_000
    assert upkeep.Pruning(rule).step(slow.connection, slow.target, ME, slow.now_ms) == 2
    slow.close()

"""The write transaction: groups of batches, expectations, fences, quotas, journal, and files that went away."""

import itertools
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from prontodb.engine.sqlite import writing
from prontodb.engine.sqlite.writing import MAX_RECORDS, Batch
from prontodb.errors import (
    AddressGoneError,
    BusyError,
    CorruptError,
    FencedError,
    OutcomeUnknownError,
    ProntoError,
    QuotaExceededError,
    RevisionConflictError,
    StorageFullError,
)
from prontodb.model.limits import Limits
from prontodb.model.operation import ABSENT, CHECK, FOREVER, Fence, Op, Receipt
from prontodb.storage import connection as sqlite
from tests.checking import connection_faults
from tests.unit.engine.conftest import new_store
from tests.unit.engine.store import ME, NOW, Store, sets

if TYPE_CHECKING:
    from prontodb.storage.connection import Connection, Cursor


def test_revisions_count_changes_without_gaps(store: Store) -> None:
    assert store.group(sets([("a", "1"), ("b", "1")]), sets([("a", "2")])) == [Receipt(2, 2), Receipt(3, 1)]
    assert [store.read(key).revision for key in "ab"] == [3, 2]  # type: ignore[union-attr]
    assert store.revision() == 3


def test_batches_are_judged_in_order_against_what_earlier_ones_of_the_group_changed(store: Store) -> None:
    assert store.group(
        [Op("k", "first", expect=ABSENT)],
        [Op("k", "second", expect=ABSENT)],
        [Op("k", "third", expect=1)],
        [Op("k", None, expect=2)],
        [Op("k", "fourth", expect=ABSENT)],
    )[0] == Receipt(1, 1)
    assert store.values() == {"k": "fourth"}
    assert store.read("k").revision == 4  # type: ignore[union-attr]


def test_a_failing_operation_takes_its_batch_and_no_other(store: Store) -> None:
    good, bad, late = store.group(
        sets([("a", "1")]), [Op("b", "1"), Op("a", "9", expect=7), Op("c", "1")], sets([("d", "1")])
    )
    assert (good, late) == (Receipt(1, 1), Receipt(2, 1))
    assert isinstance(bad, RevisionConflictError)
    assert (bad.key, bad.expected, bad.found) == ("a", 7, 1)
    assert store.values() == {"a": "1", "d": "1"}


def test_a_group_in_which_all_fail_commits_nothing(store: Store) -> None:
    outcomes = store.group([Op("a", "1", expect=5)], [Op("b", "1", expect=6)])
    assert all(isinstance(outcome, RevisionConflictError) for outcome in outcomes)
    assert store.journal() == []
    assert not store.connection.in_transaction


def test_operations_of_one_batch_see_each_other(store: Store) -> None:
    store.apply(Op("k", "1", expect=ABSENT), Op("k", "2", expect=1), Op("k", None), Op("k", "3", expect=ABSENT))
    assert store.values() == {"k": "3"}
    assert store.apply(Op("k", None), Op("k", None)) == Receipt(5, 1)


def test_an_expired_entry_counts_as_absent(store: Store) -> None:
    store.apply(Op("k", "old", ttl_ms=1_000))
    store.now_ms += 999
    assert isinstance(store.group([Op("k", "new", expect=ABSENT)])[0], RevisionConflictError)
    store.now_ms += 1
    assert store.read("k") is None
    assert store.apply(Op("k", None)) == Receipt(1, 0)
    assert store.apply(Op("k", "new", expect=ABSENT)) == Receipt(2, 1)
    assert store.read("k").created_at_ms == NOW + 1_000  # type: ignore[union-attr]


def test_an_overwrite_keeps_the_moment_of_creation(store: Store) -> None:
    store.apply(Op("k", "1"))
    store.now_ms += 5
    store.apply(Op("k", "2"))
    entry = store.read("k")
    assert entry is not None
    assert (entry.created_at_ms, entry.updated_at_ms) == (NOW, NOW + 5)


@pytest.mark.parametrize("in_one_group", [True, False])
def test_a_key_deleted_and_set_again_is_created_anew_however_commits_are_grouped(
    store: Store, in_one_group: bool
) -> None:
    store.apply(Op("k", "1"))
    store.now_ms += 5
    if in_one_group:
        store.group([Op("k", None)], [Op("k", "2")])
    else:
        store.apply(Op("k", None))
        store.apply(Op("k", "2"))
    assert store.read("k").created_at_ms == NOW + 5  # type: ignore[union-attr]


def test_a_check_changes_nothing_and_guards_its_batch(store: Store) -> None:
    store.apply(Op("seen", "1"))
    assert store.apply(Op("seen", None, CHECK, 1)) == Receipt(1, 0)
    assert store.apply(Op("seen", None, CHECK, 1), Op("other", "1")) == Receipt(2, 1)
    with pytest.raises(RevisionConflictError):
        store.apply(Op("other", "2"), Op("seen", None, CHECK, ABSENT))
    assert store.values() == {"seen": "1", "other": "1"}


def test_a_lifetime_comes_from_the_operation_or_else_from_its_namespace(store: Store) -> None:
    writing.set_lifetime(store.connection, store.target, "cache", 500, ME, store.now_ms)
    writing.set_lifetime(store.connection, store.target, "", 700, ME, store.now_ms)
    store.apply(
        Op("cache.a", "1"), Op("cache.b", "1", ttl_ms=9), Op("cache.c", "1", ttl_ms=FOREVER), Op("cache.d.e", "1")
    )
    store.apply(Op("plain", "1"), Op("cache.f", "1", FOREVER, expires_at_ms=NOW + 3))
    found = {key: store.read(key).expires_at_ms for key in store.values()}  # type: ignore[union-attr]
    assert found == {
        "cache.a": NOW + 500,
        "cache.b": NOW + 9,
        "cache.c": None,
        "cache.d.e": None,
        "cache.f": NOW + 3,
        "plain": NOW + 700,
    }
    writing.set_lifetime(store.connection, store.target, "cache", None, ME, store.now_ms)
    store.apply(Op("cache.a", "2"))
    assert store.read("cache.a").expires_at_ms is None  # type: ignore[union-attr]
    assert store.revision() == 10


def test_dropping_a_lifetime_that_is_not_there_is_no_change(store: Store) -> None:
    writing.set_lifetime(store.connection, store.target, "none", None, ME, store.now_ms)
    assert store.journal() == []


def test_what_another_connection_committed_is_seen_by_the_next_commit(store: Store) -> None:
    store.apply(Op("a", "1"))
    other = store.another()
    other.apply(Op("a", "2", expect=1), Op("b", "1"))
    writing.set_lifetime(other.connection, other.target, "ns", 100, ME, other.now_ms)
    other.close()
    assert store.apply(Op("ns.k", "1"), Op("a", "3", expect=2)) == Receipt(6, 2)
    assert store.read("ns.k").expires_at_ms == NOW + 100  # type: ignore[union-attr]


# Fences


def test_a_write_of_an_epoch_that_is_over_is_refused_alone(store: Store) -> None:
    store.tamper("UPDATE meta SET epoch = 0")
    old, new = Fence("old", 0), Fence("new", 1)
    assert store.apply(Op("a", "1"), fence=old) == Receipt(1, 1)
    store.tamper("UPDATE meta SET epoch = 1")
    fenced, passed, shared = store.judged(
        [Batch([Op(key, "2")], fence) for key, fence in zip("abc", (old, new, ME), strict=True)]
    )
    assert isinstance(fenced, FencedError)
    assert isinstance(passed, Receipt)
    assert isinstance(shared, Receipt)
    assert store.values() == {"a": "1", "b": "2", "c": "2"}


@pytest.mark.parametrize("epoch", [None, 0])
def test_a_revoked_session_is_refused_whatever_its_epoch(store: Store, epoch: int | None) -> None:
    store.tamper("UPDATE meta SET epoch = 0")
    store.apply(Op("a", "1"), fence=Fence("bad", epoch))
    store.tamper("INSERT INTO revoked VALUES ('bad', 0)")
    with pytest.raises(FencedError):
        store.apply(Op("a", "2"), fence=Fence("bad", epoch))
    with pytest.raises(FencedError):
        writing.sweep(store.connection, store.target, 10, Fence("bad"), store.now_ms)
    with pytest.raises(FencedError):
        writing.set_lifetime(store.connection, store.target, "n", 1, Fence("bad"), store.now_ms)
    assert store.values() == {"a": "1"}
    assert store.apply(Op("a", "3")) == Receipt(2, 1)


# The journal


def test_a_commit_of_one_session_is_one_row_of_the_journal(store: Store) -> None:
    store.group(sets([("a", "1")]), [Op("a", None)], [Op("b", "2", ttl_ms=5)])
    ((first, last, session, records),) = store.journal()
    assert (first, last, session) == (1, 3, "me")
    assert [record[:2] for record in json.loads(records)] == [["set", "a"], ["del", "a"], ["set", "b"]]
    assert json.loads(records)[2][3] == NOW + 5


def test_sessions_have_rows_of_their_own_in_the_order_of_their_changes(store: Store) -> None:
    ann, bob = Fence("ann"), Fence("bob")
    store.judged([Batch([Op(key, "1")], who) for key, who in (("a", ann), ("b", ann), ("c", bob), ("d", ann))])
    assert [row[:3] for row in store.journal()] == [(1, 2, "ann"), (3, 3, "bob"), (4, 4, "ann")]


def test_a_large_commit_is_split_into_rows_of_a_thousand_records(store: Store) -> None:
    store.group(sets((f"a{i}", "1") for i in range(700)), sets((f"b{i}", "1") for i in range(2_000)))
    store.group(sets((f"c{i}", "1") for i in range(MAX_RECORDS)))
    assert [row[:2] for row in store.journal()] == [(1, 1_000), (1_001, 2_000), (2_001, 2_700), (2_701, 3_700)]
    assert len(store.values()) == 3_700


def test_values_stand_in_the_journal_only_where_history_is_kept(store: Store) -> None:
    store.apply(Op("a", "SECRET"))
    store.tamper("UPDATE meta SET history = 1")
    store.apply(Op("b", "KEPT"))
    without, with_history = (json.loads(row[3])[0] for row in store.journal())
    assert "SECRET" not in without
    assert with_history[4] == "KEPT"


def test_random_operations_leave_counts_chain_and_revisions_right(store: Store) -> None:
    chance, other = random.Random(7), store.another()
    model: dict[str, str] = {}
    for _ in range(150):
        writer = chance.choice((store, other))
        batches = []
        for _ in range(chance.randint(1, 4)):
            ops = [random_op(chance) for _ in range(chance.randint(1, 6))]
            batches.append(Batch(ops, Fence(chance.choice("xy"))))
        writer.judged(batches)
        for batch in batches:
            if batch.error is None:
                model.update({op.key: op.value or "" for op in batch.ops if op.ttl_ms != CHECK})
                for op in batch.ops:
                    model[op.key] = op.value or ""
                    if op.value is None:
                        del model[op.key]
    other.close()
    assert store.values() == model
    assert connection_faults(store.connection) == []


def random_op(chance: random.Random) -> Op:
    expect = chance.choice((None, None, None, ABSENT, 3))
    return Op(chance.choice("abcdefgh"), chance.choice(("1", "", "text", None)), expect=expect)


# Quotas


def small(store: Store, **limits: Any) -> Store:
    """Open the same keystore with smaller limits."""
    return store.another(Limits(**limits))


def test_the_number_of_entries_is_bounded_and_deleting_makes_room(store: Store) -> None:
    tight = small(store, max_entries=3)
    tight.apply(*sets([("a", "1"), ("b", "1"), ("c", "1")]))
    with pytest.raises(QuotaExceededError, match="max_entries"):
        tight.apply(Op("d", "1"))
    tight.apply(Op("a", "2"))
    tight.apply(Op("a", None), Op("d", "1"))
    with pytest.raises(QuotaExceededError):
        tight.apply(Op("e", "1"), Op("d", "2"))
    assert tight.values() == {"b": "1", "c": "1", "d": "1"}
    tight.close()


def test_the_entries_quota_holds_across_the_batches_of_a_group(store: Store) -> None:
    tight = small(store, max_entries=2)
    outcomes = tight.group(
        sets([("a", "1")]), sets([("b", "1")]), sets([("c", "1")]), [Op("a", None)], sets([("d", "1")])
    )
    assert [isinstance(outcome, Receipt) for outcome in outcomes] == [True, True, False, True, True]
    assert tight.values() == {"b": "1", "d": "1"}
    tight.close()


def test_what_another_connection_added_counts_for_the_quota(store: Store) -> None:
    tight = small(store, max_entries=3)
    tight.apply(Op("a", "1"))
    store.apply(*sets([("b", "1"), ("c", "1")]))
    with pytest.raises(QuotaExceededError):
        tight.apply(Op("d", "1"))
    tight.close()


def test_a_keystore_at_its_size_quota_refuses_sets_and_allows_deletes(store: Store) -> None:
    tight = small(store, max_keystore_bytes=200_000)
    for number in range(100):
        outcome = tight.group([Op(f"k{number}", "x" * 10_000)])[0]
        if isinstance(outcome, ProntoError):
            break
    assert isinstance(outcome, QuotaExceededError)
    assert outcome.quota == "max_keystore_bytes"
    assert 10 <= number <= 20
    tight.apply(*(Op(f"k{i}", None) for i in range(number)))
    tight.apply(Op("after", "x" * 10_000))
    tight.close()


def test_the_size_quota_holds_across_the_batches_of_a_group(store: Store) -> None:
    tight = small(store, max_keystore_bytes=200_000)
    outcomes = tight.group(*(sets([(f"k{i}", "x" * 20_000)]) for i in range(20)))
    passed = sum(isinstance(outcome, Receipt) for outcome in outcomes)
    assert 4 <= passed <= 9
    tight.close()


def test_expired_entries_make_room_before_the_entries_quota_refuses(store: Store) -> None:
    tight = small(store, max_entries=10)
    tight.apply(*(Op(f"old{i}", "1", ttl_ms=5) for i in range(10)))
    with pytest.raises(QuotaExceededError):
        tight.apply(Op("new", "1"))
    tight.now_ms += 5
    tight.apply(*sets((f"new{i}", "1") for i in range(10)))
    assert sorted(tight.values()) == [f"new{i}" for i in range(10)]
    assert tight.rows("SELECT count(*) FROM kvstore") == [(10,)]
    assert [json.loads(row[3])[0][0] for row in tight.journal()] == ["set", "expire", "set"]
    tight.close()


def test_expired_entries_make_room_before_the_size_quota_refuses(store: Store) -> None:
    tight = small(store, max_keystore_bytes=200_000)
    tight.apply(*(Op(f"old{i}", "x" * 20_000, ttl_ms=5) for i in range(6)))
    with pytest.raises(QuotaExceededError):
        tight.apply(Op("new", "x" * 80_000))
    tight.now_ms += 5
    tight.apply(Op("new", "x" * 80_000))
    assert list(tight.values()) == ["new"]
    tight.close()


# Damage

DAMAGES = {
    "a revision that is text": "UPDATE journal SET rev = 9223372036854775807",
    "a chain that is text": "UPDATE journal SET chain = 'abc'",
    "a chain that is short": "UPDATE journal SET chain = x'00'",
    "an epoch that is text": "UPDATE meta SET epoch = 'abc'",
    "a lifetime that is text": "INSERT INTO namespace_ttl VALUES ('ns', 'abc')",
    "a lifetime below zero": "INSERT INTO namespace_ttl VALUES ('ns', -5)",
    "a lifetime of ages": "INSERT INTO namespace_ttl VALUES ('ns', 9223372036854775807)",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_nothing_is_built_on_damaged_records(root: Path, damage: str) -> None:
    store = new_store(root)
    store.apply(Op("ns.k", "1"))
    store.tamper(damage)
    with pytest.raises(CorruptError):
        store.apply(Op("ns.k", "2"))
    assert not store.connection.in_transaction
    assert store.values() == {"ns.k": "1"}
    store.close()


@pytest.mark.parametrize(("column", "damage"), [("ttl_expires_at", "abc"), ("ttl_expires_at", 1), ("rev", "abc")])
def test_an_entry_with_a_damaged_column_can_be_deleted(store: Store, column: str, damage: object) -> None:
    store.apply(Op("k", "1"))
    store.tamper(f"UPDATE kvstore SET {column} = {damage!r}")
    with pytest.raises(CorruptError):
        store.read("k")
    with pytest.raises(RevisionConflictError):
        store.apply(Op("k", "2", expect=7))
    assert store.apply(Op("k", None)).changed == 1
    assert store.rows("SELECT * FROM kvstore") == []


@pytest.mark.parametrize("column", ["value", "created_at", "updated_at", "ttl_expires_at", "rev", "checksum"])
@pytest.mark.parametrize(
    "damage", ["'abc'", "7", "-7", "1.5", "x'00'", "9223372036854775807", "1e300", "9e999", "-9e999"]
)
def test_what_replaces_a_damaged_entry_can_be_read(store: Store, column: str, damage: str) -> None:
    store.apply(Op("k", "1"))
    store.tamper(f"UPDATE kvstore SET {column} = {damage}")
    store.apply(Op("k", "2"))
    assert store.values() == {"k": "2"}
    entry = store.read("k")
    assert entry is not None
    assert type(entry.created_at_ms) is int


# Files and failures


@pytest.mark.parametrize("fate", ["renamed", "removed", "replaced"])
def test_a_write_to_a_folder_that_went_away_is_not_acknowledged(store: Store, fate: str) -> None:
    store.apply(Op("a", "1"))
    folder = os.path.dirname(store.layout.keystore_path(store.address))
    os.rename(folder, folder + "-away")
    if fate == "replaced":
        os.mkdir(folder, 0o700)
        with open(store.layout.keystore_path(store.address), "wb"):
            pass
    with pytest.raises(AddressGoneError):
        store.apply(Op("a", "2"))
    assert not store.connection.in_transaction
    if fate == "replaced":
        os.unlink(store.layout.keystore_path(store.address))
        os.rmdir(folder)
    os.rename(folder + "-away", folder)
    assert store.values() == {"a": "1"}
    assert store.apply(Op("a", "2")) == Receipt(2, 1)


def test_a_folder_renamed_in_the_middle_of_a_transaction_is_noticed_before_the_commit(store: Store) -> None:
    folder = os.path.dirname(store.layout.keystore_path(store.address))

    def work(group: writing.Group) -> None:
        group.judge([Batch([Op("a", "1")], ME)])
        os.rename(folder, folder + "-away")

    with pytest.raises(AddressGoneError):
        writing.transact(store.connection, store.target, store.now_ms, work)
    os.rename(folder + "-away", folder)
    assert store.values() == {}


def test_a_locked_file_is_busy_and_the_same_batch_can_be_tried_again(store: Store) -> None:
    other = store.another()
    other.rows("BEGIN IMMEDIATE")
    store.rows("PRAGMA busy_timeout = 0")
    batch = Batch([Op("a", "1")], ME)
    with pytest.raises(BusyError):
        store.judged([batch])
    other.rows("ROLLBACK")
    other.close()
    assert store.judged([batch]) == [Receipt(1, 1)]


def test_an_error_in_the_middle_leaves_no_transaction_open(store: Store) -> None:
    def work(group: writing.Group) -> None:
        group.judge([Batch([Op("a", "1")], ME)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.transact(store.connection, store.target, store.now_ms, work)
    assert not store.connection.in_transaction
    assert store.apply(Op("a", "1")) == Receipt(1, 1)


class Named(sqlite.Error):  # type: ignore[misc]
    """An error of SQLite with a name of our choice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.sqlite_errorname = name


class FailingCommit:
    """A connection whose COMMIT fails: what a broken disk does, without one."""

    secret = None

    def __init__(self, store: Store, name: str) -> None:
        self._connection, self._name = store.connection, name

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> "Cursor":
        if sql == "COMMIT":
            raise Named(self._name)
        return self._connection.execute(sql, parameters)

    def cursor(self) -> "FailingCommit":
        return self

    def close(self) -> None:
        """As a cursor of itself: nothing to do."""

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SQLITE_FULL", StorageFullError),
        ("SQLITE_IOERR_FSYNC", OutcomeUnknownError),
        ("SQLITE_BUSY", OutcomeUnknownError),
        ("SQLITE_CORRUPT", OutcomeUnknownError),
    ],
)
def test_a_commit_that_fails_is_never_acknowledged(store: Store, name: str, expected: type[ProntoError]) -> None:
    batch = Batch([Op("a", "1")], ME)
    with pytest.raises(expected):
        writing.apply(cast("Connection", FailingCommit(store, name)), store.target, [batch], NOW)
    assert not store.connection.in_transaction
    assert store.values() == {}
    # What the failed commit had prepared is not built upon.
    assert store.apply(Op("b", "1")) == Receipt(1, 1)


def test_the_log_is_overwritten_in_place_and_stays_small(store: Store) -> None:
    sizes, written = [], 0
    values = (f"{number:06d}".ljust(4_000, "v") for number in itertools.count())
    while written < 4 * sqlite.AUTOCHECKPOINT_PAGES * 4_096:
        store.group(*([Op(f"k{number}", next(values))] for number in range(100)))
        sizes.append(os.stat(f"{store.target.path}-wal").st_size)
        written += 100 * 4_000
    # Cut after a checkpoint it would grow again, and each sync would have to record that: twice as slow.
    assert sizes == sorted(sizes)
    assert written > 3 * sizes[-1]
    assert sizes[-1] < sqlite.JOURNAL_SIZE_LIMIT


def test_a_keystore_without_its_own_record_is_damaged_and_no_traceback(store: Store) -> None:
    store.apply(Op("a", "1"))
    kept = store.rows("SELECT * FROM meta")[0]
    store.tamper("DELETE FROM meta")
    with pytest.raises(CorruptError):
        store.apply(Op("a", "2"))
    with pytest.raises(CorruptError):
        store.revision()
    with pytest.raises(CorruptError):
        store.changes()
    assert store.values() == {"a": "1"}
    store.rows(f"INSERT INTO meta VALUES ({', '.join('?' * len(kept))})", kept)


# Sweeping


def test_a_sweep_deletes_expired_entries_alone_the_oldest_first(store: Store) -> None:
    store.apply(Op("forever", "1"), Op("late", "1", ttl_ms=9_000), *(Op(f"k{i}", "1", ttl_ms=10 + i) for i in range(5)))
    store.now_ms += 1_000
    assert writing.sweep(store.connection, store.target, 3, ME, store.now_ms) == 3
    assert store.rows("SELECT namespace_key FROM kvstore WHERE ttl_expires_at < ?", (store.now_ms,)) == [
        ("k3",),
        ("k4",),
    ]
    assert writing.sweep(store.connection, store.target, 100, ME, store.now_ms) == 2
    assert writing.sweep(store.connection, store.target, 100, ME, store.now_ms) == 0
    assert store.values() == {"forever": "1", "late": "1"}
    assert [record[0] for record in json.loads(store.journal()[1][3])] == ["expire"] * 3


def test_a_sweep_leaves_a_damaged_entry_for_the_doctor(store: Store) -> None:
    store.apply(Op("k", "precious"))
    store.tamper("UPDATE kvstore SET ttl_expires_at = 5")
    store.apply(Op("old", "1", ttl_ms=1))
    store.now_ms += 1
    assert writing.sweep(store.connection, store.target, 100, ME, store.now_ms) == 1
    store.tamper("UPDATE kvstore SET ttl_expires_at = NULL")
    assert store.values() == {"k": "precious"}

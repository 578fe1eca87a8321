"""Reading: snapshots, ranges, expiry, damage that is noticed, and the history of changes."""

from pathlib import Path

import pytest

from prontodb.engine.sqlite import transactions
from prontodb.errors import CompactedError, CorruptError
from prontodb.model.limits import PAGE_BYTES
from prontodb.model.operation import Op, Position
from tests.unit.engine.conftest import new_store
from tests.unit.engine.store import NOW, Store, sets

COLUMNS = ("namespace_key", "value", "created_at", "updated_at", "ttl_expires_at", "rev", "checksum")


def test_keys_are_returned_in_the_order_asked_for_with_none_where_there_is_nothing(store: Store) -> None:
    store.apply(*sets([("a", "1"), ("b", "2"), ("ü", "3")]))
    found = transactions.read(store.connection, ["ü", "x", "a", "a"], NOW)
    assert [entry and entry.value for entry in found] == ["3", None, "1", "1"]


@pytest.mark.parametrize("key", ["a'b", 'a"b', "a\\b", "a\u2028b", "\U0001f600", "%_*?", "x" * 1024])
def test_any_key_is_found_by_itself_alone(store: Store, key: str) -> None:
    store.apply(Op(key, "here"), Op("other", "there"))
    for asked in ([key], [key, "nothing"]):
        assert transactions.read(store.connection, asked, NOW)[0].value == "here"  # type: ignore[union-attr]
    assert store.apply(Op(key, None)).changed == 1


def test_values_come_back_exactly(store: Store) -> None:
    values = ["", " ", "\n", "\x00", "a\x00b", "ä", "\U0010ffff", "e\u0301", "null", "0", "x" * 100_000]
    store.apply(*(Op(f"k{i}", value) for i, value in enumerate(values)))
    assert [store.read(f"k{i}").value for i in range(len(values))] == values  # type: ignore[union-attr]


def test_a_range_is_half_open_and_in_byte_order(store: Store) -> None:
    keys = ["B", "a", "a.b", "b", "ü", "\ue000", "\U0001f600"]
    store.apply(*sets((key, "1") for key in reversed(keys)))
    scan = transactions.scan(store.connection, "a", "\ue000", 100, NOW)
    assert [entry.key for entry in scan] == keys[1:5]
    assert transactions.keys(store.connection, "", None, 3, NOW) == keys[:3]
    assert transactions.count(store.connection, "a", None, NOW) == 6
    backwards = transactions.scan(store.connection, "", None, 2, NOW, reverse=True)
    assert [entry.key for entry in backwards] == keys[:-3:-1]


def test_a_page_ends_early_when_its_values_are_large(store: Store) -> None:
    store.apply(*(Op(f"k{i}", "x" * (PAGE_BYTES // 2)) for i in range(4)))
    page = transactions.scan(store.connection, "", None, 100, NOW)
    assert 1 <= len(page) < 4


def test_an_expired_entry_is_nowhere(store: Store) -> None:
    store.apply(Op("gone", "1", ttl_ms=10), Op("here", "1"))
    at = NOW + 10
    assert transactions.read(store.connection, ["gone"], at) == [None]
    assert transactions.read(store.connection, ["gone", "gone"], at) == [None, None]
    assert [entry.key for entry in transactions.scan(store.connection, "", None, 9, at)] == ["here"]
    assert transactions.keys(store.connection, "", None, 9, at) == ["here"]
    assert transactions.count(store.connection, "", None, at) == 1


def test_a_page_of_none_is_empty(store: Store) -> None:
    store.apply(Op("key", "value"))
    assert transactions.scan(store.connection, "", None, 0, NOW) == []
    assert transactions.scan(store.connection, "", None, 0, NOW, reverse=True) == []
    assert transactions.keys(store.connection, "", None, 0, NOW) == []


# Damage

DAMAGE = {
    "namespace_key": ("'other'", "'keY'"),
    "value": ("'Value'", "''", "x'76616c7565'", "7"),
    "created_at": ("created_at + 1", "created_at ^ 4096".replace("^", "|"), "NULLIF(1, 2)"),
    "updated_at": ("updated_at + 1", "0"),
    "ttl_expires_at": ("ttl_expires_at + 1", "NULL", "0", "1", "ttl_expires_at - 200000", "'x'", "9e999", "-9e999"),
    "rev": ("rev + 1", "0", "-1", "9e999"),
    "checksum": ("checksum + 1", "0", "'x'", "1.5"),
}


@pytest.mark.parametrize(("column", "text"), [(column, text) for column in DAMAGE for text in DAMAGE[column]])
def test_a_change_to_any_column_is_noticed_by_every_read(store: Store, column: str, text: str) -> None:
    store.apply(Op("key", "value", ttl_ms=100_000), Op("sound", "1"))
    number = store.rows("SELECT id FROM kvstore WHERE namespace_key = 'key'")[0][0]
    kept = store.rows(f"SELECT * FROM kvstore WHERE id = {number}")[0]
    store.tamper(f"UPDATE kvstore SET {column} = {text} WHERE id = {number}")
    asked = store.rows(f"SELECT namespace_key FROM kvstore WHERE id = {number}")[0][0]
    with pytest.raises(CorruptError):
        transactions.read(store.connection, [asked], NOW)
    with pytest.raises(CorruptError):
        transactions.read(store.connection, [asked, "sound"], NOW)
    for page in (transactions.scan, transactions.first_page):
        with pytest.raises(CorruptError):
            page(store.connection, "", None, 9, NOW)
    assert transactions.keys(store.connection, "", None, 9, NOW) == sorted([asked, "sound"]), "it counts as there"
    assert transactions.first_keys(store.connection, "", None, 9, NOW) in (None, sorted([asked, "sound"]))
    assert [transactions.count(store.connection, "", hi, NOW) for hi in (None, "z")] == [2, 2]
    report: list[str] = []
    transactions.check_all(store.connection, report)
    assert len(report) == 1
    assert transactions.read(store.connection, ["sound"], NOW)[0] is not None
    assignments = ", ".join(f"{name} = ?" for name in COLUMNS)
    store.rows(f"UPDATE kvstore SET {assignments} WHERE id = {number}", tuple(kept[1:]))


def test_an_entry_that_never_expires_does_not_vanish_when_its_expiry_is_damaged(store: Store) -> None:
    store.apply(Op("key", "value"))
    store.tamper("UPDATE kvstore SET ttl_expires_at = 0")
    with pytest.raises(CorruptError):
        store.read("key")
    store.tamper("UPDATE kvstore SET ttl_expires_at = NULL")


def test_the_values_of_two_entries_cannot_be_swapped(store: Store) -> None:
    store.apply(*sets([("a", "1"), ("b", "2")]))
    store.tamper("UPDATE kvstore SET value = CASE namespace_key WHEN 'a' THEN '2' ELSE '1' END")
    with pytest.raises(CorruptError):
        store.read("a")
    store.tamper("UPDATE kvstore SET value = CASE namespace_key WHEN 'a' THEN '1' ELSE '2' END")


def test_a_damaged_entry_is_named_without_its_value(store: Store) -> None:
    store.apply(Op("key", "PRECIOUS"))
    store.tamper("UPDATE kvstore SET rev = 9")
    with pytest.raises(CorruptError, match="'key'") as caught:
        store.read("key")
    assert "PRECIOUS" not in str(caught.value)
    store.tamper("UPDATE kvstore SET rev = 1")


@pytest.mark.parametrize("records", ["garbage", "[[]]", "[1]", "{}", '[["set"]]', "7", "null", "[" * 100_000])
def test_a_damaged_journal_is_corrupt_and_not_a_crash(store: Store, records: str) -> None:
    store.apply(Op("key", "value"))
    kept = store.journal()[0][3]
    store.rows("UPDATE journal SET records = ?", (records,))
    with pytest.raises(CorruptError, match="revision 1"):
        store.changes()
    store.rows("UPDATE journal SET records = ?", (kept,))


# Changes


def test_a_key_that_is_no_text_and_a_lifetime_that_is_no_number_are_damage(root: Path) -> None:
    store = new_store(root)
    store.apply(Op("k", "1"))
    store.tamper("UPDATE kvstore SET namespace_key = x'6b'", "INSERT INTO namespace_ttl VALUES ('ns', 'abc')")
    with pytest.raises(CorruptError):
        transactions.keys(store.connection, "", None, 10, NOW)
    with pytest.raises(CorruptError):
        transactions.lifetimes(store.connection)
    store.close()


def test_changes_show_the_latest_state_of_each_key_once_deletions_included(store: Store) -> None:
    store.apply(*sets([("a", "1"), ("b", "1"), ("c", "1")]))
    store.apply(Op("a", "2"), Op("b", None), Op("d", "1", ttl_ms=5))
    changes, end = store.changes()
    assert [(c.key, c.entry and c.entry.value, c.revision) for c in changes] == [
        ("c", "1", 3),
        ("a", "2", 4),
        ("b", None, 5),
        ("d", "1", 6),
    ]
    assert end == 6
    store.now_ms += 5
    assert [c.entry for c in store.changes(5)[0]] == [None]
    assert store.changes(6) == ([], 6)


def test_pages_of_changes_join_without_loss(store: Store) -> None:
    for number in range(30):
        store.apply(*sets((f"k{number}.{i}", "1") for i in range(3)))
    seen, since = [], 0
    while True:
        changes, end = store.changes(since, limit=7)
        if end == since:
            break
        assert 7 <= len(changes) <= 9 or end == 90
        seen += [change.key for change in changes]
        since = end
    assert seen == [f"k{number}.{i}" for number in range(30) for i in range(3)]


def test_a_revision_of_a_change_is_that_of_its_entry(store: Store) -> None:
    store.group(sets([("a", "1"), ("a", "2")]), sets([("b", "1"), ("a", "3")]))
    changes, _ = store.changes()
    assert [(c.key, c.revision, c.entry and c.entry.revision) for c in changes] == [("b", 3, 3), ("a", 4, 4)]


def test_a_place_in_another_history_or_out_of_bounds_is_refused(store: Store) -> None:
    store.apply(*sets([("a", "1"), ("b", "1")]))
    here = transactions.position(store.connection)
    for since in (Position("00" * 16, 0), Position(here.incarnation, 3)):
        with pytest.raises(CompactedError):
            transactions.changes(store.connection, since, 10, NOW)
    store.rows("UPDATE meta SET floor = 1")
    with pytest.raises(CompactedError):
        store.changes(0)
    assert [change.key for change in store.changes(1)[0]] == ["b"]
    store.rows("UPDATE meta SET floor = 0")
    assert not store.connection.in_transaction

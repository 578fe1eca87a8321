"""The digest of a keystore's contents: every entry counts, no order does, and a change costs what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.engine.sqlite.digest import COLUMNS, STOP_EVERY, Digest, digest_of, hashes_of, row_hash
from prontodb.errors import CorruptError
from prontodb.model.operation import Op
from tests.unit.engine.conftest import new_store
from tests.unit.engine.store import NOW, Store, sets

ROW = ("key", "value", 10, 20, 30, 4, 99)
"""Of `COLUMNS`: key, value, created, updated, expires, revision, checksum."""
HASHES = st.integers(0, 2**256 - 1)


def hashes(store: Store) -> list[int]:
    return [row_hash(row, b"") for row in store.rows(f"SELECT {COLUMNS} FROM kvstore")]


# Of one row


@pytest.mark.parametrize(
    "other",
    [
        ("kez", *ROW[1:]),
        ("key", "valuf", *ROW[2:]),
        (*ROW[:2], 11, *ROW[3:]),
        (*ROW[:3], 21, *ROW[4:]),
        (*ROW[:4], 31, *ROW[5:]),
        (*ROW[:4], None, *ROW[5:]),
        (*ROW[:5], 5, ROW[6]),
    ],
)
def test_every_fact_of_a_row_is_in_its_hash(other: Sequence[Any]) -> None:
    assert row_hash(other, b"") != row_hash(ROW, b"")


def test_with_a_key_the_hash_is_another_and_tells_nothing_of_the_one_without() -> None:
    hashes = {row_hash(ROW, key) for key in (b"", bytes(32), bytes([1]) * 32)}
    assert len(hashes) == 3


def test_the_checksum_which_follows_from_the_rest_is_not_in_the_hash() -> None:
    assert row_hash((*ROW[:6], 100), b"") == row_hash(ROW, b"")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", 1, 1, None, 1, 0), ("a", "bc", 1, 1, None, 1, 0)),
        (("k", "v", 1, 12, None, 1, 0), ("k", "v", 11, 2, None, 1, 0)),
        (("k", "v", 1, 1, 2, 1, 0), ("k", "v", 1, 1, None, 21, 0)),
        (("ü", "x", 1, 1, None, 1, 0), ("u", "\u0308x", 1, 1, None, 1, 0)),
    ],
)
def test_what_stands_in_one_field_cannot_move_to_the_next(one: Sequence[Any], other: Sequence[Any]) -> None:
    assert row_hash(one, b"") != row_hash(other, b"")


# Of many


@given(st.lists(HASHES), st.lists(HASHES), st.randoms(use_true_random=False))
def test_a_digest_after_changes_is_that_of_what_is_left_in_any_order(
    stay: list[int], leave: list[int], rng: Any
) -> None:
    first = [*stay, *leave]
    rng.shuffle(first)
    whole = Digest().changed([], first)
    assert whole.changed(leave, []) == Digest().changed([], stay)
    assert Digest.of_hex(whole.hex, whole.entries) == whole
    assert len(whole.hex) == 64


def test_a_row_twice_is_another_digest_than_once_or_never() -> None:
    # A sum of hashes, not their exclusive or: with that, two of the same would be none.
    once = Digest().changed([], [5])
    assert len({Digest().hex, once.hex, once.changed([], [5]).hex}) == 3


def test_a_digest_does_not_change() -> None:
    empty = Digest()
    empty.changed([], [1])
    assert empty == Digest(0, 0)


# Of a keystore


def test_it_is_the_sum_over_all_rows_live_and_expired(store: Store) -> None:
    store.apply(*sets((f"k{n}", str(n)) for n in range(20)), Op("old", "x", expires_at_ms=NOW + 1))
    store.now_ms += 1_000
    assert store.read("old") is None
    assert digest_of(store.connection) == Digest().changed([], hashes(store))
    assert digest_of(store.connection).entries == 21


def test_what_changed_keeps_it_up(store: Store) -> None:
    store.apply(*sets((f"k{n}", str(n)) for n in range(20)))
    before, keys = digest_of(store.connection), ["k3", "k4", "new", "never"]
    gone = hashes_of(store.connection, keys)
    assert gone.keys() == {"k3", "k4"}
    store.now_ms += 5
    store.apply(Op("k3", "changed"), Op("k4", None), Op("new", "ä"))
    come = hashes_of(store.connection, keys)
    assert come.keys() == {"k3", "new"}
    assert before.changed(gone.values(), come.values()) == digest_of(store.connection)


def test_the_journal_the_sessions_and_the_lifetimes_are_not_in_it(store: Store) -> None:
    store.apply(Op("a", "1"))
    before = digest_of(store.connection)
    store.apply(Op("b", "1"))
    store.apply(Op("b", None))
    assert (digest_of(store.connection), store.revision()) == (before, 3)


def test_a_row_whose_checksum_is_wrong_is_named_and_not_counted(root: Path) -> None:
    store = new_store(root)
    store.apply(Op("good", "1"), Op("bad", "1"))
    store.tamper("UPDATE kvstore SET value = '2' WHERE namespace_key = 'bad'")
    with pytest.raises(CorruptError, match="'bad' is damaged"):
        digest_of(store.connection)
    store.close()


@pytest.mark.parametrize("column", ["value", "created_at", "rev"])
def test_a_row_of_another_type_is_damage_and_no_accident(root: Path, column: str) -> None:
    store = new_store(root)
    store.apply(Op("bad", "1"))
    store.tamper(f"UPDATE kvstore SET {column} = x'ff'")
    with pytest.raises(CorruptError):
        hashes_of(store.connection, ["bad"])
    with pytest.raises(CorruptError):
        digest_of(store.connection)
    store.close()


def test_it_ends_early_when_it_is_told_to(store: Store) -> None:
    for begin in range(0, 2 * STOP_EVERY + 100, 500):
        store.apply(*sets((f"k{n}", "") for n in range(begin, begin + 500)))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2

    assert digest_of(store.connection, stop).entries == 2 * STOP_EVERY

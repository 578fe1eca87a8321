"""What changed since a place in the history: read whole or not at all, and put in only where it goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prontodb.engine.sqlite import opening, snapshot, upkeep, writing
from prontodb.engine.sqlite.digest import Digest, digest_of
from prontodb.engine.sqlite.increment import Options, Reading, Writing, can_go_on
from prontodb.engine.sqlite.snapshot import State, mark_of
from prontodb.errors import CorruptError
from prontodb.model.address import Address
from prontodb.model.history import Mark
from prontodb.model.operation import Op
from prontodb.storage.files import open_root
from tests.backups import all_rows, state_at
from tests.unit.engine.conftest import new_store
from tests.unit.engine.store import HERE, ME, NOW, Store, sets

ALL = upkeep.Rule(before_ms=2**62, keep_records=0, until_revision=None)


def copied(store: Store, name: str = "copy.db") -> State:
    """Copy a keystore as a backup does, beside the root."""
    with open_root(str(beside(store))) as folder:
        return snapshot.copy_whole(
            store.layout,
            store.address,
            folder,
            name,
            busy_timeout_ms=1_000,
            stop=lambda: False,
            look=lambda _: None,
        )


def beside(store: Store) -> Path:
    folder = Path(store.layout.root).parent / "copies"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def reading(store: Store, since: Mark | None) -> Iterator[Reading]:
    connection, _ = opening.open_reader(store.layout, store.address, busy_timeout_ms=1_000)
    try:
        yield Reading(connection, since)
    finally:
        connection.close()


class Change:
    """Everything that changed since a place, in memory."""

    def __init__(self, store: Store, since: Mark) -> None:
        with reading(store, since) as found:
            assert found.goes_on
            self.journal = list(found.journal())
            self.gone = found.gone
            self.entries = list(found.entries())
            self.options = found.options()
            self.now, self.at_ms = found.now, found.at_ms


@contextmanager
def staged(store: Store, state: State, name: str = "copy.db") -> Iterator[tuple[Writing, Any]]:
    """A copy of a copy, to be changed, and its connection."""
    target = beside(store) / f"staged-{name}"
    shutil.copy(beside(store) / name, target)
    connection = snapshot.open_staged(str(target))
    try:
        snapshot.begin(connection)
        yield Writing(connection, state.digest), connection
    finally:
        connection.close()
        target.unlink()


def put_in(store: Store, state: State, change: Change) -> tuple[Digest, Mark, dict[str, Any]]:
    """Put a change into a copy; return the digest that it reports, the mark, and all rows as they are then."""
    with staged(store, state) as (writing_, connection):
        writing_.journal(change.journal)
        writing_.gone(change.gone)
        writing_.entries(change.entries)
        digest = writing_.finish(change.options)
        assert digest == digest_of(connection)
        return digest, mark_of(connection)[0], all_rows(connection)


def fill(store: Store) -> None:
    store.apply(*sets((f"k{n}", str(n)) for n in range(10)), Op("soon", "x", expires_at_ms=NOW + 10))


def change_much(store: Store) -> None:
    store.now_ms += 100
    store.apply(Op("k1", "changed"), Op("k2", None), Op("new", "ä\x00"))
    store.apply(Op("flash", "1"), Op("k3", "1"))
    store.apply(Op("flash", None), Op("k3", "2", expires_at_ms=NOW + 10**6))
    store.apply(Op("k4", None))
    store.apply(Op("k4", "again"))
    writing.set_lifetime(store.connection, store.target, "n", 5_000, ME, store.now_ms)
    writing.set_lifetime(store.connection, store.target, "m", 1, ME, store.now_ms)
    writing.set_lifetime(store.connection, store.target, "m", None, ME, store.now_ms)
    writing.sweep(store.connection, store.target, 10, ME, store.now_ms)


# Read and put in


def test_a_change_put_into_a_copy_makes_it_the_keystore_of_now(store: Store) -> None:
    fill(store)
    state = copied(store)
    change_much(store)
    change = Change(store, state.mark)
    assert sorted(change.gone) == ["flash", "k2", "soon"]
    assert {row[0] for row in change.entries} == {"k1", "k3", "k4", "new"}
    assert change.at_ms == store.now_ms
    digest, mark, rows = put_in(store, state, change)
    assert rows == state_at(Path(store.layout.root), str(HERE))
    assert (digest, mark) == (digest_of(store.connection), mark_of(store.connection)[0])
    assert mark == change.now


def test_where_nothing_changed_there_is_nothing_to_read(store: Store) -> None:
    fill(store)
    state = copied(store)
    change = Change(store, state.mark)
    assert (change.journal, change.gone, change.entries, change.at_ms) == ([], [], [], None)
    assert put_in(store, state, change)[:2] == (state.digest, state.mark)


def test_a_commit_of_more_changes_than_a_row_of_the_journal_holds_is_read_whole(store: Store) -> None:
    state = copied(store)
    for begin in range(0, 2_500, 500):
        store.apply(*sets((f"k{n:04}", str(n)) for n in range(begin, begin + 500)))
    writing.apply(store.connection, store.target, [writing.Batch(sets((f"j{n}", "") for n in range(1_500)), ME)], NOW)
    assert put_in(store, state, Change(store, state.mark))[0] == digest_of(store.connection)


def test_what_is_written_while_it_is_read_is_not_in_it(store: Store) -> None:
    fill(store)
    state = copied(store)
    store.apply(Op("k1", "before"))
    with reading(store, state.mark) as found:
        store.apply(Op("k1", "after"), Op("late", "1"))
        store.apply(Op("k2", None))
        assert len(list(found.journal())) == 1
        assert [row[:2] for row in found.entries()] == [("k1", "before")]
        assert found.now.revision == state.mark.revision + 1


# Where it goes on from


def test_history_that_went_another_way_under_one_incarnation_is_not_gone_on_with(root: Path) -> None:
    """A keystore put back by hand: the same incarnation and revision, another past."""
    store = new_store(root)
    fill(store)
    store.close()
    file = Path(store.layout.keystore_path(HERE))
    shutil.copy(file, root.parent / "aside.db")
    store = Store(store.layout)
    store.apply(Op("k1", "one way"))
    state = copied(store)
    store.close()
    shutil.copy(root.parent / "aside.db", file)
    store = Store(store.layout)
    with reading(store, state.mark) as found:
        assert not found.goes_on  # the backup is ahead of it
    store.apply(Op("k1", "another"))
    with reading(store, state.mark) as found:
        assert found.now.revision == state.mark.revision
        assert found.now != state.mark
        assert not found.goes_on
    store.apply(Op("k1", "further"))
    with reading(store, state.mark) as found:
        assert not found.goes_on
    store.close()


def test_another_incarnation_is_not_gone_on_with(root: Path) -> None:
    store = new_store(root)
    fill(store)
    now, floor = mark_of(store.connection)
    assert can_go_on(store.connection, now, now, floor)
    assert not can_go_on(store.connection, Mark("0" * 32, now.revision, now.chain), now, floor)
    assert not can_go_on(store.connection, Mark(now.incarnation, now.revision + 1, now.chain), now, floor)
    assert not can_go_on(store.connection, Mark(now.incarnation, 0, "00" * 16), Mark("0" * 32, 0, ""), floor)
    store.close()


def test_a_journal_pruned_up_to_the_place_still_goes_on_and_past_it_no_more(store: Store) -> None:
    fill(store)
    state = copied(store)
    assert upkeep.Pruning(ALL).step(store.connection, store.target, ME, NOW) == 11
    change_much(store)
    with reading(store, state.mark) as found:
        assert found.floor == state.mark.revision
    change = Change(store, state.mark)
    digest, mark, rows = put_in(store, state, change)
    assert (digest, mark) == (digest_of(store.connection), change.now)
    assert rows["entries"] == state_at(Path(store.layout.root), str(HERE))["entries"]
    upkeep.Pruning(ALL).step(store.connection, store.target, ME, NOW)
    with reading(store, state.mark) as found:
        assert not found.goes_on
    with reading(store, mark_of(store.connection)[0]) as found:
        assert found.goes_on


def test_at_the_floor_the_chain_must_be_that_of_the_floor(root: Path) -> None:
    store = new_store(root)
    fill(store)
    since = mark_of(store.connection)[0]
    upkeep.Pruning(ALL).step(store.connection, store.target, ME, NOW)
    assert can_go_on(store.connection, since, *mark_of(store.connection))
    assert not can_go_on(
        store.connection, Mark(since.incarnation, since.revision, "ab" * 16), *mark_of(store.connection)
    )
    store.close()


def test_a_place_inside_a_commit_is_none(store: Store) -> None:
    store.apply(Op("a", "1"), Op("b", "1"))
    now, floor = mark_of(store.connection)
    assert not can_go_on(store.connection, Mark(now.incarnation, 1, now.chain), now, floor)


# Journal and entries that disagree


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM kvstore WHERE namespace_key = 'k1'", "'k1' is lost"),
        ("UPDATE kvstore SET value = 'x' WHERE namespace_key = 'k1'", "'k1' is damaged"),
        ("UPDATE kvstore SET rev = 2 WHERE namespace_key = 'k1'", "'k1'"),
        ("UPDATE journal SET records = replace(records, 'k1', 'k5') WHERE rev = 14", "does not follow"),
        ("UPDATE journal SET session = 'else' WHERE rev = 14", "does not follow"),
        ("UPDATE journal SET at = at + 1 WHERE rev = 14", "does not follow"),
        ("DELETE FROM journal WHERE rev = 14", "goes from revision 11 to 15"),
        ("DELETE FROM journal WHERE rev = 16", "goes from revision 14 to 17"),
        ("UPDATE journal SET chain = zeroblob(16) WHERE rev = 14", "does not follow"),
    ],
)
def test_a_keystore_that_contradicts_itself_is_never_read_as_a_change(root: Path, damage: str, said: str) -> None:
    store = new_store(root)
    fill(store)
    state = copied(store)
    change_much(store)
    store.tamper(damage)
    with reading(store, state.mark) as found, pytest.raises(CorruptError, match=said):
        assert found.goes_on
        list(found.journal())
        list(found.entries())
    store.close()


def test_an_old_entry_with_a_right_checksum_is_not_taken_for_the_new_one(root: Path) -> None:
    """A page that was written back late: everything in the row fits but the journal knows better."""
    store = new_store(root)
    fill(store)
    state = copied(store)
    (old,) = store.rows("SELECT value, updated_at, rev, checksum FROM kvstore WHERE namespace_key = 'k1'")
    store.apply(Op("k1", "new"))
    store.rows("UPDATE kvstore SET value = ?, updated_at = ?, rev = ?, checksum = ? WHERE namespace_key = 'k1'", old)
    with reading(store, state.mark) as found, pytest.raises(CorruptError, match="not what the journal says"):
        list(found.journal())
        list(found.entries())
    store.close()


# What does not fit is not put in


def test_a_change_goes_nowhere_but_where_it_goes_on_from(store: Store) -> None:
    fill(store)
    first = copied(store)
    store.apply(Op("k1", "1"))
    second = copied(store, "second.db")
    store.apply(Op("k1", "2"))
    change = Change(store, second.mark)
    with staged(store, first) as (into, _), pytest.raises(CorruptError, match="goes from revision 11 to 13"):
        into.journal(change.journal)


def test_a_change_of_another_keystore_is_refused(store: Store, tmp_path: Path) -> None:
    fill(store)
    state = copied(store)
    other = new_store(Path(store.layout.root), Address("agent", "other"))
    other.apply(*sets((f"x{n}", "1") for n in range(10)), Op("soon", "x"))
    since = mark_of(other.connection)[0]
    assert since.revision == state.mark.revision
    other.apply(Op("a", "1"))
    change = Change(other, since)
    other.close()
    with staged(store, state) as (into, _), pytest.raises(CorruptError, match="does not follow"):
        into.journal(change.journal)


def test_gone_keys_and_entries_must_be_exactly_those_of_the_journal(store: Store) -> None:
    fill(store)
    state = copied(store)
    change_much(store)
    change = Change(store, state.mark)
    for gone in ([], change.gone[1:], [*change.gone, "k5"]):
        with staged(store, state) as (into, _), pytest.raises(CorruptError, match="keys that are gone"):
            into.journal(change.journal)
            into.gone(gone)
    with staged(store, state) as (into, _), pytest.raises(CorruptError, match="1 changed entries are missing"):
        into.journal(change.journal)
        into.gone(change.gone)
        into.entries(change.entries[1:])
        into.finish(change.options)
    key, value, *rest, checksum = change.entries[0]
    for wrong in (
        (key, value + "x", *rest, checksum),
        ("k5", value, *rest, checksum),
        (key, value, *rest, checksum + 1),
    ):
        with staged(store, state) as (into, _), pytest.raises(CorruptError):
            into.journal(change.journal)
            into.gone(change.gone)
            into.entries([wrong])  # type: ignore[list-item]


def test_a_row_of_the_journal_with_a_chain_of_another_length_is_refused(store: Store) -> None:
    fill(store)
    state = copied(store)
    store.apply(Op("a", "1"))
    *row, chain = Change(store, state.mark).journal[0]
    with staged(store, state) as (into, _), pytest.raises(CorruptError, match="another length"):
        into.journal([(*row, chain[:-1])])  # type: ignore[list-item]


def test_lifetimes_and_switches_replace_what_was_there(store: Store) -> None:
    writing.set_lifetime(store.connection, store.target, "old", 7, ME, NOW)
    state = copied(store)
    change = Change(store, state.mark)
    change.options = Options({"new": 9}, 3, 0, 5)
    _, _, rows = put_in(store, state, change)
    assert rows["lifetimes"] == [("new", 9)]
    assert rows["meta"][0][2:] == (3, 0, 5)

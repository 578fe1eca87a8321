"""The old design is a store like ours to whoever is alone, and refuses a transaction that met another writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2 as sqlite

from prontodb import errors
from stress import old_design
from stress.old_design import FILE, OneDatabase, Prefixed, make
from stress.worlds import SHARED_WORLD, entered


@pytest.fixture
def database(tmp_path: Path) -> Iterator[OneDatabase]:
    make(tmp_path)
    with OneDatabase(tmp_path) as opened:
        yield opened


def at(database: OneDatabase, address: str = "agent000/prod") -> Prefixed:
    return Prefixed(database._connection, f"{address}:")


@pytest.fixture
def store(database: OneDatabase) -> Prefixed:
    return at(database)


def is_at_rest(database: OneDatabase) -> bool:
    return not database._connection.in_transaction


async def test_what_is_set_is_read_and_what_is_deleted_is_gone(store: Prefixed) -> None:
    assert await store.get("a") is None
    await store.set("a", "1")
    await store.set("a", "2")
    assert await store.get("a") == "2"
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.get("a") is None


async def test_several_keys_are_set_and_read_at_once(store: Prefixed) -> None:
    assert await store.set_many({"a": "1", "b": "2"}) == 2
    assert await store.get_many(["b", "x", "a"]) == {"b": "2", "x": None, "a": "1"}


async def test_compare_and_set_compares_first(store: Prefixed) -> None:
    assert await store.compare_and_set("a", None, "1")
    assert not await store.compare_and_set("a", None, "2")
    assert not await store.compare_and_set("a", "x", "2")
    assert await store.compare_and_set("a", "1", "3")
    assert await store.get("a") == "3"


async def test_a_counter_begins_at_nought_and_keeps_its_sum(store: Prefixed) -> None:
    assert [await store.increment("n"), await store.increment("n", 5), await store.increment("n", -2)] == [1, 6, 4]
    assert await store.get("n") == "4"


async def test_a_lifetime_ends_what_was_lent(store: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = 1_000_000
    monkeypatch.setattr(old_design, "_now_ms", lambda: now_ms)
    await store.set("a", "1", ttl=2.5)
    await store.set("b", "1", ttl=2.5)
    await store.set("c", "1")
    now_ms += 2_499
    assert await store.list_keys() == ["a", "b", "c"]
    assert await store.touch("b", 10)
    now_ms += 1
    assert [await store.get(key) for key in "abc"] == [None, "1", "1"]
    assert await store.list_keys() == ["b", "c"]
    assert not await store.delete("a")
    assert not await store.touch("a", 10)
    assert await store.touch("b", None)
    now_ms += 10**9
    assert await store.get("b") == "1"


async def test_a_list_is_of_one_user_and_one_prefix_alone(database: OneDatabase, store: Prefixed) -> None:
    await store.set_many({"b.2": "", "b.1": "", "a": "", "b": "", "c": "", "b.\U0010fffe": ""})
    await at(database, "agent000/prod2").set("b.3", "another cursor's")
    await at(database, "agent0001/prod").set("b.4", "another user's")
    assert await store.list_keys("b.") == ["b.1", "b.2", "b.\U0010fffe"]
    assert await store.list_keys() == ["a", "b", "b.1", "b.2", "b.\U0010fffe", "c"]
    assert await at(database, "agent0001/prod").list_keys() == ["b.4"]
    assert await at(database, "agent0001/prod").get("b.1") is None


async def test_a_transaction_writes_at_its_end_and_reads_its_own_changes(
    database: OneDatabase, store: Prefixed
) -> None:
    await store.set("a", "0")
    async with store.transaction() as changes:
        assert await changes.get("a") == "0"
        changes.set("a", "1")
        changes.set("b", "2")
        assert await changes.get("a") == "1"
        assert await store.get("a") == "0"
    assert await store.get_many(["a", "b"]) == {"a": "1", "b": "2"}
    assert is_at_rest(database)


async def test_a_transaction_that_raises_writes_nothing(database: OneDatabase, store: Prefixed) -> None:
    with pytest.raises(LookupError):
        async with store.transaction() as changes:
            changes.set("a", "1")
            raise LookupError
    assert await store.get("a") is None
    assert is_at_rest(database)


async def test_a_transaction_that_met_another_writer_is_refused_and_leaves_nothing_open(
    database: OneDatabase, store: Prefixed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read; another process writes; SQLite refuses its write at once, however long it would wait."""
    await store.set("n", "1")
    with OneDatabase(tmp_path) as other:
        read = store._read

        def read_and_be_overtaken(key: str) -> str | None:
            found = read(key)
            monkeypatch.undo()
            other._connection.execute("UPDATE kv SET value = '10'")
            return found

        monkeypatch.setattr(store, "_read", read_and_be_overtaken)
        with pytest.raises(errors.BusyError, match="locked"):
            await store.increment("n")
        assert is_at_rest(database)
        assert await store.increment("n") == 11


async def test_a_writer_that_waits_in_vain_is_refused_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(old_design, "BUSY_TIMEOUT_S", 0.01)
    with OneDatabase(tmp_path) as database, OneDatabase(tmp_path) as holder:
        holder._connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.BusyError):
            await at(database).set("a", "1")
        assert is_at_rest(database)
        holder._connection.execute("ROLLBACK")
        await at(database).set("a", "1")


async def test_an_error_of_our_own_leaves_nothing_open_either(database: OneDatabase, store: Prefixed) -> None:
    await store.set("n", "many")
    with pytest.raises(ValueError, match="many"):
        await store.increment("n")
    assert is_at_rest(database)
    assert await store.get("n") == "many"


async def test_it_is_as_durable_as_ours(tmp_path: Path) -> None:
    make(tmp_path)
    with OneDatabase(tmp_path) as database:
        assert database._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database._connection.execute("PRAGMA busy_timeout").fetchone() == (5_000,)


async def test_a_world_of_it_gives_each_address_its_prefix(tmp_path: Path) -> None:
    make(tmp_path)

    async def visited(address: str) -> str | None:
        async with entered(SHARED_WORLD, tmp_path) as world, world.visit(address, "exclusive", None) as store:
            assert (store.session_id, store.epoch) == ("", None)
            before = await store.get("k")
            await store.set("k", address)
            return before

    assert [await visited("a/prod"), await visited("b/prod"), await visited("a/prod")] == [None, None, "a/prod"]
    rows = sqlite.connect(str(tmp_path / FILE))
    assert [key for (key,) in rows.execute("SELECT key FROM kv ORDER BY key")] == ["a/prod:k", "b/prod:k"]
    rows.close()

"""Hostile and wrong input to the handle: one of our own errors, nothing written, and the keystore works on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from prontodb.errors import (
    ClosedError,
    InvalidInputError,
    InvalidKeyError,
    InvalidTtlError,
    InvalidValueError,
    LimitError,
    ProntoError,
    RevisionConflictError,
)
from prontodb.keystore import Keystore
from tests.managing import keystore_at, managed

# The methods are called with what their types forbid, so here they have none.
Call = Callable[[Any, Any], Awaitable[object]]

NOT_TEXT = [None, b"key", 5, 1.5, True, ["a"], object()]
NOT_KEYS = ["", "\ud800", "a\udcff", "a\x00", "a\nb", "\x1b[31m", "a\x7f", "a\x85"]


async def collected(items: AsyncIterator[object]) -> list[object]:
    return [item async for item in items]


async def transacted(ks: Any, act: Callable[[Any], object]) -> None:
    async with ks.transaction() as tx:
        result = act(tx)
        if isinstance(result, Awaitable):
            await result


BY_KEY: dict[str, Call] = {
    "get": lambda ks, key: ks.get(key),
    "entry": lambda ks, key: ks.entry(key),
    "exists": lambda ks, key: ks.exists(key),
    "ttl": lambda ks, key: ks.ttl(key),
    "get_many": lambda ks, key: ks.get_many(["good", key]),
    "delete": lambda ks, key: ks.delete(key),
    "delete_many": lambda ks, key: ks.delete_many(["good", key]),
    "set": lambda ks, key: ks.set(key, "x"),
    "compare_and_set": lambda ks, key: ks.compare_and_set(key, None, "x"),
    "increment": lambda ks, key: ks.increment(key),
    "touch": lambda ks, key: ks.touch(key, 5),
    "touch as before": lambda ks, key: ks.touch(key),
    "persist": lambda ks, key: ks.persist(key),
    "wait_for": lambda ks, key: ks.wait_for(key, timeout=0),
    "transaction get": lambda ks, key: transacted(ks, lambda tx: tx.get(key)),
    "transaction exists": lambda ks, key: transacted(ks, lambda tx: tx.exists(key)),
    "transaction set": lambda ks, key: transacted(ks, lambda tx: tx.set(key, "x")),
    "transaction delete": lambda ks, key: transacted(ks, lambda tx: tx.delete(key)),
}
BY_HASHABLE_KEY: dict[str, Call] = {"set_many": lambda ks, key: ks.set_many({"good": "x", key: "x"})}
BY_PREFIX: dict[str, Call] = {
    "scan": lambda ks, prefix: collected(ks.scan(prefix)),
    "list_keys": lambda ks, prefix: ks.list_keys(prefix),
    "count": lambda ks, prefix: ks.count(prefix),
    "clear": lambda ks, prefix: ks.clear(prefix),
    "watch": lambda ks, prefix: anext(ks.watch(prefix)),
    "namespaces": lambda ks, prefix: ks.namespaces(5 if prefix is None else prefix),  # None asks for all
    "set_namespace_ttl": lambda ks, prefix: ks.set_namespace_ttl(prefix, 5),
}
BY_VALUE: dict[str, Call] = {
    "set": lambda ks, value: ks.set("new", value),
    "set_many": lambda ks, value: ks.set_many({"new": value}),
    "compare_and_set": lambda ks, value: ks.compare_and_set("new", None, value),
    "transaction": lambda ks, value: transacted(ks, lambda tx: tx.set("new", value)),
}
BY_TTL: dict[str, Call] = {
    "set": lambda ks, ttl: ks.set("new", "x", ttl=ttl),
    "set_many": lambda ks, ttl: ks.set_many({"new": "x"}, ttl=ttl),
    "compare_and_set": lambda ks, ttl: ks.compare_and_set("new", None, "x", ttl=ttl),
    "touch": lambda ks, ttl: ks.touch("good", ttl),
    "set_namespace_ttl": lambda ks, ttl: ks.set_namespace_ttl("ns", ttl),
    "transaction": lambda ks, ttl: transacted(ks, lambda tx: tx.set("new", "x", ttl=ttl)),
}
NOT_TTLS = [
    0, -1, 0.0, -0.5, True, False, float("nan"), float("inf"), -float("inf"), 1e300,
    1e306, 10**11, 1 << 20_000,
    "", "5 parsecs", "-5", "1e5", "nan", "٣s", "5mm", "9" * 5_000, "999999w", b"5", [], (5,), 5j,
]  # fmt: skip


@pytest.fixture(scope="module")
async def only(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keystore]:
    """A keystore with one entry."""
    async with keystore_at(tmp_path_factory.mktemp("root")) as keystore:
        await keystore.set("good", "1")
        yield keystore


@pytest.fixture
async def ks(only: Keystore) -> AsyncIterator[Keystore]:
    """That keystore, whose entry must be all that it ever holds."""
    yield only
    entries = [entry async for entry in only.scan()]
    assert [(entry.key, entry.value, entry.revision) for entry in entries] == [("good", "1", 1)]
    assert await only.namespace_ttls() == {}


@pytest.fixture(scope="module")
async def left(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keystore]:
    """A handle whose session has ended, of a manager that is open."""
    async with managed(tmp_path_factory.mktemp("root")) as manager:
        async with manager.session("agent", "test") as keystore:
            await keystore.set("good", "1")
        yield keystore


@pytest.fixture(scope="module")
async def orphan(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Keystore]:
    """A handle whose manager was closed before its session."""
    async with managed(tmp_path_factory.mktemp("root")) as manager:
        session = manager.session("agent", "test")
        keystore = await session.__aenter__()
        await keystore.set("good", "1")
    yield keystore
    await session.__aexit__(None, None, None)


@pytest.mark.parametrize("name", [*BY_KEY, *BY_HASHABLE_KEY])
async def test_what_is_no_key_is_refused(ks: Keystore, name: str) -> None:
    call = (BY_KEY | BY_HASHABLE_KEY)[name]
    unhashable = [] if name in BY_HASHABLE_KEY else [{"a": 1}]
    for key in [*NOT_TEXT, *NOT_KEYS, *unhashable]:
        if name in BY_HASHABLE_KEY and isinstance(key, list):
            continue
        with pytest.raises(InvalidKeyError) as caught:
            await call(ks, key)
        assert str(caught.value).isprintable()
    with pytest.raises(LimitError, match="max_key_bytes is 1,024") as limit:
        await call(ks, "ä" * 513)
    assert limit.value.given == 1_026


@pytest.mark.parametrize("name", BY_PREFIX)
async def test_what_begins_no_key_is_refused(ks: Keystore, name: str) -> None:
    for prefix in [*NOT_TEXT, *NOT_KEYS[1:], b"", 0, False, [], {}]:
        with pytest.raises(InvalidKeyError):
            await BY_PREFIX[name](ks, prefix)
    with pytest.raises(LimitError, match="max_key_bytes"):
        await BY_PREFIX[name](ks, "x" * 1_025)


@pytest.mark.parametrize("name", BY_VALUE)
async def test_what_is_no_text_is_refused_as_a_value_and_never_shown(ks: Keystore, name: str) -> None:
    for value in [b"secret-7", 5, 1.5, True, ["secret-7"], {"secret-7": 1}, "secret-7\ud800", "\udcff"]:
        with pytest.raises(InvalidValueError) as caught:
            await BY_VALUE[name](ks, value)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidValueError):
        await BY_VALUE[name](ks, None)


@pytest.mark.parametrize("name", BY_TTL)
async def test_what_is_no_lifetime_is_refused(ks: Keystore, name: str) -> None:
    for ttl in NOT_TTLS:
        with pytest.raises(InvalidTtlError):
            await BY_TTL[name](ks, ttl)


async def test_a_namespace_cannot_be_given_no_lifetime_by_that_name(ks: Keystore) -> None:
    with pytest.raises(InvalidTtlError):
        await ks.set_namespace_ttl("ns", "never")


@pytest.mark.parametrize("keys", ["good", b"good", None, 5, object()], ids=repr)
async def test_one_text_is_no_list_of_keys(ks: Any, keys: object) -> None:
    for call in (ks.get_many, ks.delete_many):
        with pytest.raises(InvalidInputError, match="several keys"):
            await call(keys)


@pytest.mark.parametrize("values", ["good", [("good", "x")], None, 5], ids=repr)
async def test_set_many_takes_a_mapping(ks: Any, values: object) -> None:
    with pytest.raises(InvalidInputError, match="mapping"):
        await ks.set_many(values)


@pytest.mark.parametrize("expect", [-1, True, 1.0, "1", b"1"], ids=repr)
async def test_a_revision_is_a_whole_number(ks: Any, expect: object) -> None:
    with pytest.raises(InvalidInputError, match="revision"):
        await ks.set("good", "x", expect=expect)


async def test_a_revision_beyond_all_revisions_harms_nobody_else(ks: Keystore) -> None:
    for expect in (2**63, 1 << 20_000):
        with pytest.raises(InvalidInputError):
            await ks.set("good", "x", expect=expect)
    with pytest.raises(RevisionConflictError):
        await ks.set("good", "x", expect=2**63 - 1)


@pytest.mark.parametrize("by", [1.0, "1", None, True, b"1"], ids=repr)
async def test_increment_takes_a_whole_number(ks: Any, by: object) -> None:
    with pytest.raises(InvalidInputError, match="whole number"):
        await ks.increment("good", by)


@pytest.mark.parametrize("timeout", ["5", float("nan"), True, b"", []], ids=repr)
async def test_a_timeout_is_seconds(ks: Any, timeout: object) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        await ks.wait_for("good", timeout=timeout)


async def test_a_position_beyond_all_revisions_is_refused(ks: Keystore) -> None:
    here = await ks._keyspace.position()
    for revision in (2**63 - 1, 2**63, 10**19 - 1):
        with pytest.raises(ProntoError):
            await anext(ks.watch(since=f"{here.incarnation}:{revision}"))


async def test_a_predicate_can_be_called(ks: Any) -> None:
    with pytest.raises(InvalidInputError, match="predicate"):
        await ks.wait_for("good", "1")


@pytest.mark.parametrize("since", ["", "x", "abc:", ":1", "abc:-1", "abc:1:2", "a b:1", 5, b"abc:1", "a:" + "9" * 30])
async def test_a_position_comes_from_a_watch(ks: Any, since: object) -> None:
    with pytest.raises(InvalidInputError, match="position"):
        ks.watch(since=since)


async def test_a_number_that_is_an_enum_is_a_number(root: Path) -> None:
    class Level(IntEnum):
        HIGH = 7

    async with keystore_at(root) as ks:
        await ks.set("a", "1", ttl=Level.HIGH)
        assert await ks.increment("n", Level.HIGH) == 7
        assert await ks.get("n") == "7"


@pytest.mark.parametrize("name", [*BY_KEY, *BY_PREFIX])
async def test_a_handle_is_closed_once_its_session_has_ended(left: Keystore, name: str) -> None:
    with pytest.raises(ClosedError, match="session at agent/test has ended"):
        await (BY_KEY | BY_PREFIX)[name](left, "good")
    assert repr(left) == "<Keystore agent/test (closed)>"


@pytest.mark.parametrize("name", [*BY_KEY, *BY_PREFIX])
async def test_a_handle_is_closed_once_its_manager_is(orphan: Keystore, name: str) -> None:
    with pytest.raises(ClosedError):
        await (BY_KEY | BY_PREFIX)[name](orphan, "good")


async def test_a_mistake_that_is_found_late_fails_nobody_who_shares_the_commit(root: Path) -> None:
    async with keystore_at(root) as ks:
        mistaken, good = await asyncio.gather(
            ks.set("a", "x", expect=1 << 20_000), ks.set("b", "x"), return_exceptions=True
        )
        assert isinstance(mistaken, ProntoError)
        assert good == 1

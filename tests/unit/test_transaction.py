"""Transactions: what they read, what they collect, and that their end is all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from prontodb.errors import ClosedError, ConflictError, LimitError, RevisionConflictError
from prontodb.keystore import Keystore
from prontodb.model.clock import ManualClock
from prontodb.transaction import Transaction
from tests.managing import keystore_at


@pytest.fixture
def clock() -> ManualClock:
    """Time that only moves when told."""
    return ManualClock()


@pytest.fixture
async def ks(root: Path, clock: ManualClock) -> AsyncIterator[Keystore]:
    """A keystore with two entries, whose batches hold at most six operations."""
    async with keystore_at(root, clock=clock, max_batch_ops=6) as keystore:
        await keystore.set_many({"a": "1", "b": "2"})
        yield keystore


async def values(ks: Keystore) -> dict[str, str]:
    return {entry.key: entry.value async for entry in ks.scan()}


async def test_reads_see_what_the_transaction_wrote_and_others_do_not(ks: Keystore) -> None:
    async with ks.transaction() as tx:
        tx.set("a", "mine")
        tx.delete("b")
        tx.set("c", "new")
        assert (await tx.get("a"), await tx.get("b"), await tx.get("c")) == ("mine", None, "new")
        assert (await tx.exists("a"), await tx.exists("b")) == (True, False)
        assert await values(ks) == {"a": "1", "b": "2"}
    assert await values(ks) == {"a": "mine", "c": "new"}


async def test_everything_is_one_commit(ks: Keystore) -> None:
    before = await ks._keyspace.position()
    async with ks.transaction() as tx:
        tx.set("a", "x")
        tx.set("a", "y")
        tx.delete("b")
        tx.set("c", "z", ttl=5)
    found = await ks.entry("c")
    assert found is not None
    assert found.revision == before.revision + 3
    assert await ks.ttl("c") == 5


async def test_a_write_to_what_was_read_and_changed_since_is_refused(ks: Keystore) -> None:
    with pytest.raises(RevisionConflictError) as caught:
        async with ks.transaction() as tx:
            balance = await tx.get("a")
            await ks.set("a", "other")
            tx.set("a", f"{balance}+1")
            tx.set("c", "too")
    assert caught.value.key == "a"
    assert await values(ks) == {"a": "other", "b": "2"}


async def test_a_key_that_was_only_read_guards_the_whole_transaction(ks: Keystore) -> None:
    with pytest.raises(RevisionConflictError) as caught:
        async with ks.transaction() as tx:
            if await tx.get("a") == "1":
                tx.set("b", "because a is 1")
            await ks.set("a", "no longer")
    assert caught.value.key == "a"
    assert await ks.get("b") == "2"


async def test_a_key_that_was_read_as_absent_must_still_be_absent(ks: Keystore) -> None:
    with pytest.raises(ConflictError):
        async with ks.transaction() as tx:
            assert not await tx.exists("c")
            tx.set("a", "x")
            await ks.set("c", "came meanwhile")
    async with ks.transaction() as tx:
        assert not await tx.exists("d")
        tx.set("d", "mine")
    assert await values(ks) == {"a": "1", "b": "2", "c": "came meanwhile", "d": "mine"}


async def test_a_key_that_changed_between_two_readings_is_a_conflict(ks: Keystore) -> None:
    with pytest.raises(RevisionConflictError):
        async with ks.transaction() as tx:
            await tx.get("a")
            await ks.set("a", "x")
            assert await tx.get("a") == "x"
            tx.set("b", "y")
    assert await ks.get("b") == "2"


async def test_a_transaction_that_only_read_fails_too_when_what_it_read_has_changed(ks: Keystore) -> None:
    with pytest.raises(RevisionConflictError):
        async with ks.transaction() as tx:
            first = await tx.get("a")
            await ks.set_many({"a": "10", "b": "20"})
            second = await tx.get("b")
            assert (first, second) == ("1", "20")  # never true at one instant
    async with ks.transaction() as tx:
        assert (await tx.get("a"), await tx.get("b"), await tx.get("no")) == ("10", "20", None)


async def test_what_expired_after_it_was_read_is_a_conflict(ks: Keystore, clock: ManualClock) -> None:
    await ks.set("lease", "mine", ttl=5)
    with pytest.raises(RevisionConflictError):
        async with ks.transaction() as tx:
            assert await tx.get("lease") == "mine"
            clock.advance(5)
            tx.set("work", "done under the lease")
    assert await ks.get("work") is None


async def test_writes_without_reads_expect_nothing(ks: Keystore) -> None:
    async with ks.transaction() as tx:
        tx.set("a", "x")
        await ks.set("a", "y")
    assert await ks.get("a") == "x"


async def test_an_exception_in_the_block_applies_nothing(ks: Keystore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with ks.transaction() as tx:
            tx.set("a", "x")
            raise ZeroDivisionError
    assert await values(ks) == {"a": "1", "b": "2"}


async def test_cancelling_the_block_applies_nothing(ks: Keystore) -> None:
    reached = anyio.Event()

    async def block() -> None:
        async with ks.transaction() as tx:
            tx.set("a", "x")
            reached.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(block())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with anyio.CancelScope() as scope:
        async with ks.transaction() as tx:
            tx.set("a", "x")
            scope.cancel()
            await anyio.sleep_forever()
    assert await values(ks) == {"a": "1", "b": "2"}


async def test_an_empty_transaction_does_nothing(ks: Keystore) -> None:
    before = await ks._keyspace.position()
    async with ks.transaction():
        pass
    assert await ks._keyspace.position() == before


async def test_a_transaction_is_used_inside_its_block_and_once(ks: Keystore) -> None:
    tx = ks.transaction()
    with pytest.raises(ClosedError):
        tx.set("a", "x")
    async with tx:
        tx.set("a", "x")
    with pytest.raises(ClosedError):
        tx.set("a", "y")
    with pytest.raises(ClosedError):
        tx.delete("a")
    with pytest.raises(ClosedError):
        await tx.get("a")
    await ks.set("a", "later")
    with pytest.raises(ClosedError):
        await _enter_again(tx)
    assert await ks.get("a") == "later"


async def _enter_again(tx: Transaction) -> None:
    async with tx:
        pass


async def test_a_transaction_that_outlives_its_session_applies_nothing(ks: Keystore) -> None:
    with pytest.raises(ClosedError):
        async with ks.transaction() as tx:
            tx.set("a", "x")
            ks.close()


async def test_the_limit_counts_each_key_once(ks: Keystore) -> None:
    keys = [f"k{n}" for n in range(6)]
    async with ks.transaction() as tx:
        for key in keys:
            assert await tx.get(key) is None
            tx.set(key, "x")
            tx.set(key, "y")
    assert await ks.get_many(keys) == dict.fromkeys(keys, "y")


async def test_the_call_that_passes_the_limit_is_refused_and_the_rest_is_applied(ks: Keystore) -> None:
    async with ks.transaction() as tx:
        for n in range(6):
            tx.set(f"k{n}", "x")
        with pytest.raises(LimitError) as caught:
            tx.set("k6", "x")
        assert (caught.value.limit, caught.value.allowed, caught.value.given) == ("max_batch_ops", 6, 7)
        with pytest.raises(LimitError):
            tx.delete("k6")
        with pytest.raises(LimitError):
            await tx.get("a")
        tx.set("k5", "last")
    assert await ks.count("k") == 6
    assert await ks.get("k5") == "last"


async def test_a_batch_that_is_too_large_in_bytes_applies_nothing(root: Path) -> None:
    async with keystore_at(root, max_value_bytes=10, max_key_bytes=16, max_batch_bytes=30) as ks:
        with pytest.raises(LimitError, match="max_batch_bytes"):
            async with ks.transaction() as tx:
                for n in range(4):
                    tx.set(str(n), "x" * 10)
        assert await ks.count() == 0


async def test_transfers_between_many_tasks_keep_the_sum(ks: Keystore) -> None:
    """Optimistic transactions, tried again on conflict: nothing is lost or made."""
    await ks.set_many({"a": "100", "b": "100"})
    done = 0

    async def transfer(source: str, target: str) -> None:
        nonlocal done
        while True:
            try:
                async with ks.transaction() as tx:
                    left, right = await tx.get(source), await tx.get(target)
                    assert left is not None
                    assert right is not None
                    tx.set(source, str(int(left) - 1))
                    tx.set(target, str(int(right) + 1))
            except ConflictError:
                continue
            done += 1
            return

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(transfer, *(("a", "b") if number % 4 else ("b", "a")))
    assert done == 40
    assert await values(ks) == {"a": "80", "b": "120"}

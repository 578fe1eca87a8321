"""Several processes at one root: exact counters, each other's commits, one layout, and a log that stays bounded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from prontodb.errors import BusyError
from tests.checking import root_faults
from tests.managing import PATIENCE_S, Child, keystore_at, lock_holder, managed, taken_away

WORKER = """
import asyncio, sys, prontodb
from prontodb.errors import BusyError
async def main():
    settings = prontodb.Settings(durability="relaxed", wait_s=float(sys.argv[2]))
    async with prontodb.open(sys.argv[1], settings=settings) as manager:
        # Opening takes its time whatever the deadline of what comes then.
        async with manager.session("agent", "test", mode="shared", wait=60) as ks:
            print("ready", flush=True)
            for line in sys.stdin:
                print(await eval(line), flush=True)
async def raises(ks, count):
    done = 0
    async def one():
        nonlocal done
        try:
            await ks.increment("n")
            done += 1
        except BusyError:
            pass
    await asyncio.gather(*(one() for _ in range(count)))
    return done
asyncio.run(main())
"""
"""A process with a session at agent/test that evaluates the lines it is told, `ks` being its keystore."""


def worker(root: Path, wait_s: float = PATIENCE_S) -> Child:
    return Child(WORKER, root, wait_s)


@pytest.fixture
def others(root: Path) -> Iterator[list[Child]]:
    """Two processes beside us."""
    with ExitStack() as stack:
        children = [stack.enter_context(worker(root)) for _ in range(2)]
        for child in children:
            assert child.line() == "ready"
        yield children
        for child in children:
            child.end()


def ask(child: Child, line: str) -> str:
    child.tell(line)
    return child.line()


def test_eight_processes_on_one_counter_end_at_exactly_the_acknowledged_raises(root: Path) -> None:
    """With tasks inside each, with and without time to wait, so that some give up."""
    with ExitStack() as stack:
        children = [stack.enter_context(worker(root))]
        # Once the address is there and open: who has no time to wait cannot wait for its creation either.
        assert children[0].line() == "ready"
        children += [stack.enter_context(worker(root, wait_s=0.05 if n % 2 else PATIENCE_S)) for n in range(1, 8)]
        for child in children[1:]:
            assert child.line() == "ready"
        for child in children:
            child.tell("raises(ks, 25)")
        acknowledged = sum(int(child.line()) for child in children)
        value = int(ask(children[0], 'ks.get("n")'))
        for child in children:
            child.end()
    assert value == acknowledged
    assert acknowledged >= 4 * 25, "those with time to wait got through"
    assert root_faults(str(root)) == []


async def test_a_commit_of_another_process_is_read_at_once(root: Path, others: list[Child]) -> None:
    async with keystore_at(root, mode="shared") as ks:
        for number in range(20):
            revision = int(ask(others[number % 2], f'ks.set("a", "{number}")'))
            found = await ks.entry("a")
            assert found is not None
            assert (found.value, found.revision) == (str(number), revision)
            await ks.set("b", str(number))
            assert ask(others[0], 'ks.get("b")') == str(number)


async def test_watchers_and_waiters_see_other_processes_commits(root: Path, others: list[Child]) -> None:
    async with keystore_at(root, mode="shared") as ks:
        watch = ks.watch("job.")
        await watch.start()
        waiting = asyncio.create_task(ks.wait_for("job.done", timeout=PATIENCE_S))
        others[0].tell('ks.set("job.step", "1")')
        with anyio.fail_after(PATIENCE_S):
            assert (await anext(watch)).key == "job.step"
        others[1].tell('ks.set("job.done", "yes")')
        assert await waiting == "yes"
        with anyio.fail_after(PATIENCE_S):
            change = await anext(watch)
        assert change.entry is not None
        assert (change.key, change.entry.value) == ("job.done", "yes")
        for child in others:
            child.line()


async def test_of_processes_that_compare_at_once_one_wins(root: Path) -> None:
    with ExitStack() as stack:
        children = [stack.enter_context(worker(root)) for _ in range(4)]
        for child in children:
            assert child.line() == "ready"
        for number, child in enumerate(children):
            child.tell(f'ks.compare_and_set("leader", None, "{number}")')
        won = [child.line() for child in children]
        assert sorted(won) == ["False"] * 3 + ["True"]
        assert ask(children[0], 'ks.get("leader")') == str(won.index("True"))
        for child in children:
            child.end()


async def test_a_busy_keystore_delays_no_other_address_of_another_process(root: Path, others: list[Child]) -> None:
    async with managed(root, lanes=1, wait_s=0.05) as manager:
        with lock_holder(root, "agent/test"):
            async with (
                manager.session("agent", "test", mode="shared") as held,
                manager.session("agent", "free", mode="shared") as free,
            ):
                blocked = asyncio.create_task(held.set("a", "1"))
                for number in range(10):
                    await free.set("a", str(number))
                with pytest.raises(BusyError):
                    await blocked
        assert ask(others[0], 'ks.set("a", "2")') == "1"


async def test_the_log_stays_bounded_while_readers_come_and_go(root: Path, others: list[Child]) -> None:
    """About 60 MB are written, a quarter of that is the checkpoint's threshold."""
    wal = root / "addresses/agent/test/keystore.db-wal"
    largest = 0
    async with keystore_at(root, mode="shared") as ks:
        for number in range(60):
            await ks.set_many({f"k{number % 5}.{n}": "x" * 50_000 for n in range(20)})
            largest = max(largest, wal.stat().st_size)
            others[0].tell("ks.count()")
            async for entry in ks.scan("k"):
                assert len(entry.value) == 50_000
                if number % 3:
                    break  # a reader that leaves early holds nothing
            assert others[0].line() == str(min(number + 1, 5) * 20)
    assert largest < 32 * 1024 * 1024
    assert os.stat(root / "addresses/agent/test/keystore.db").st_size < 20 * 1024 * 1024


async def test_an_address_taken_away_by_hand_is_gone_for_the_sessions_of_other_processes(
    root: Path, others: list[Child]
) -> None:
    others[1].tell('ks.set("a", "1")')
    others[1].line()
    async with managed(root) as manager:
        taken_away(root, "agent/test")
        for child in others:
            child.tell('asyncio.wait([asyncio.ensure_future(ks.set("a", "lost"))])')
            assert "AddressGoneError" in child.line()
        async with manager.session("agent", "test", mode="shared") as ks:
            assert await ks.get("a") is None
            others[0].tell('asyncio.wait([asyncio.ensure_future(ks.set("a", "lost again"))])')
            assert "AddressGoneError" in others[0].line()
            assert await ks.get("a") is None

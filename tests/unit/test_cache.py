"""The cache of an exclusive session: bounded, and never wiser than the store."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prontodb.cache import ENTRY_BYTES, Cache
from prontodb.errors import FencedError, OutcomeUnknownError, RevisionConflictError
from prontodb.keystore import Keystore
from prontodb.model.clock import ManualClock
from prontodb.model.entry import Entry
from tests.managing import keystore_at, managed


def entry(key: str, value: str = "v", *, revision: int = 1, expires_at_ms: int | None = None) -> Entry:
    return Entry(key, value, 0, 0, expires_at_ms, revision)


LOCK_FILE = tempfile.TemporaryFile()  # noqa: SIM115 - of all tests, one after the other


class Surroundings:
    """What a cache asks about its session."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.clock, self.ours, self.over = ManualClock(), True, False
        self.fd = LOCK_FILE.fileno()
        self.mark(b" ")
        self.cache = Cache(max_bytes, self.clock, self, self.look)

    def mark(self, mark: bytes) -> None:
        os.pwrite(self.fd, mark, 0)

    def look(self) -> bool:
        if self.over:
            raise FencedError("put out")
        return self.ours

    def keep(self, found: Entry) -> None:
        self.cache.keep(found, self.cache.moment)


@pytest.fixture
def around() -> Surroundings:
    return Surroundings()


def test_what_was_read_is_found_and_counted(around: Surroundings) -> None:
    assert around.cache.find("a") is None
    around.keep(entry("a"))
    assert around.cache.find("a") == entry("a")
    report = around.cache.report()
    assert (report.hits, report.misses, report.entries) == (1, 1, 1)
    assert 0 < report.bytes <= report.max_bytes


def test_an_expired_entry_is_not_found(around: Surroundings) -> None:
    around.keep(entry("a", expires_at_ms=around.clock.wall_ms() + 10))
    assert around.cache.find("a") is not None
    around.clock.advance(0.01)
    assert around.cache.find("a") is None


def test_nothing_is_found_once_somebody_put_the_session_out_or_took_its_lock_away(around: Surroundings) -> None:
    around.keep(entry("a"))
    around.mark(b"?")
    assert around.cache.find("a") is not None, "asked, and not out yet"
    around.mark(b"!")
    around.over = True
    with pytest.raises(FencedError):
        around.cache.find("a")
    around.mark(b" ")
    around.over, around.ours = False, False
    around.cache._looked_at = 0.0
    assert around.cache.find("a") is None
    around.ours = True
    around.keep(entry("b"))
    assert around.cache.find("b") is None, "what was lost once is not trusted again"


def test_in_the_child_of_a_fork_nothing_is_found(around: Surroundings) -> None:
    around.keep(entry("a"))
    around.fd = -1
    assert around.cache.find("a") is None


def test_a_key_that_is_being_written_is_not_in_it(around: Surroundings) -> None:
    around.keep(entry("a"))
    around.cache.begin(["a", "b"])
    around.cache.begin(["a"])
    for _ in range(2):
        assert around.cache.find("a") is None
        around.keep(entry("a"))
    around.cache.end(["a", "b"])
    around.keep(entry("a"))
    assert around.cache.find("a") is None, "one write is still under way"
    around.keep(entry("b"))
    assert around.cache.find("b") is not None
    around.cache.end(["a"])
    around.keep(entry("a"))
    assert around.cache.find("a") is not None


def test_a_reading_that_a_write_overtook_is_not_kept(around: Surroundings) -> None:
    moment = around.cache.moment
    around.cache.begin(["a"])
    around.cache.end(["a"])
    around.cache.keep(entry("a", "old"), moment)
    assert around.cache.find("a") is None


def test_a_write_that_ended_without_telling_is_never_trusted_again(around: Surroundings) -> None:
    around.cache.begin(["a"])
    around.cache.lose()
    around.keep(entry("a"))
    assert around.cache.find("a") is None
    around.keep(entry("b"))
    assert around.cache.find("b") is not None


def test_it_stays_within_its_bytes_and_keeps_what_is_asked_for() -> None:
    around = Surroundings(100 * (ENTRY_BYTES + 10))
    around.keep(entry("hot"))
    for number in range(1_000):
        around.keep(entry(f"k{number}"))
        assert around.cache.find("hot") is not None, number
        assert around.cache.report().bytes <= around.cache.report().max_bytes
    assert around.cache.find("k999") is not None
    assert around.cache.find("k0") is None
    assert around.cache.report().evicted > 800


def test_one_large_value_does_not_push_out_all_others() -> None:
    around = Surroundings(100_000)
    around.keep(entry("a"))
    around.keep(entry("large", "x" * 50_000))
    assert around.cache.find("a") is not None
    assert around.cache.find("large") is None


def test_text_is_counted_by_what_it_takes() -> None:
    plain, wide = Surroundings(), Surroundings()
    plain.keep(entry("a", "x" * 1_000))
    wide.keep(entry("a", "\U0001f600" * 1_000))
    assert plain.cache.report().bytes >= 1_000
    assert wide.cache.report().bytes >= 4_000


class Coherence(RuleBasedStateMachine):
    """Reads and writes whose steps are taken apart: what is found is always what the store holds."""

    KEYS = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.around = Surroundings(20 * (ENTRY_BYTES + 10))
        self.store: dict[str, Entry] = {}
        self.revision = 0
        self.readings: list[tuple[Entry | None, int]] = []
        self.writings: list[str] = []

    @rule(key=KEYS)
    def begin_reading(self, key: str) -> None:
        self.readings.append((self.store.get(key), self.around.cache.moment))

    @precondition(lambda self: self.readings)
    @rule(data=st.data())
    def end_reading(self, data: st.DataObject) -> None:
        found, moment = self.readings.pop(data.draw(st.integers(0, len(self.readings) - 1)))
        if found is not None:
            self.around.cache.keep(found, moment)

    @rule(key=KEYS)
    def begin_writing(self, key: str) -> None:
        self.around.cache.begin([key])
        self.writings.append(key)

    @precondition(lambda self: self.writings)
    @rule(data=st.data(), outcome=st.sampled_from(["committed", "refused", "unknown"]))
    def end_writing(self, data: st.DataObject, outcome: str) -> None:
        key = self.writings.pop(data.draw(st.integers(0, len(self.writings) - 1)))
        if outcome != "refused":
            self.revision += 1
            self.store[key] = entry(key, str(self.revision), revision=self.revision)
        if outcome == "unknown":
            self.around.cache.lose()
        else:
            self.around.cache.end([key])

    @invariant()
    def what_is_found_is_true(self) -> None:
        for key in ("a", "b", "c"):
            found = self.around.cache.find(key)
            assert found is None or found == self.store.get(key)


TestCoherence = Coherence.TestCase
TestCoherence.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# In a session


async def test_own_writes_are_seen_at_once_and_reading_again_asks_nobody(root: Path) -> None:
    async with keystore_at(root) as ks:
        await ks.set("a", "1")
        assert await ks.get("a") == "1"
        assert await ks.get("a") == "1"
        await ks.set("a", "2")
        assert await ks.get("a") == "2"
        await ks.delete("a")
        assert await ks.get("a") is None
        await ks.set_many({"a": "3", "b": "4"})
        assert [await ks.get(key) for key in ("a", "b", "a", "b")] == ["3", "4", "3", "4"]
        assert await ks.increment("a") == 4
        assert await ks.get("a") == "4"
        async with ks.transaction() as tx:
            tx.set("a", "5")
        assert await ks.get("a") == "5"
        await ks.clear()
        assert await ks.get("a") is None
        report = ks.cache
        assert report is not None
        assert report.hits == 3
    assert ks.cache == report, "still told after the end"


async def test_a_refused_write_leaves_the_value_to_be_found(root: Path) -> None:
    async with keystore_at(root) as ks:
        await ks.set("a", "1")
        await ks.get("a")
        with pytest.raises(RevisionConflictError):
            await ks.set("a", "2", expect=0)
        assert [await ks.get("a"), await ks.get("a")] == ["1", "1"]
        report = ks.cache
        assert report is not None
        assert report.hits == 1


async def test_an_expired_entry_is_gone_although_it_was_remembered(root: Path) -> None:
    clock = ManualClock()
    async with keystore_at(root, clock=clock) as ks:
        await ks.set("a", "1", ttl=5)
        assert [await ks.get("a"), await ks.get("a")] == ["1", "1"]
        clock.advance(5)
        assert await ks.get("a") is None


async def test_a_write_of_unknown_outcome_is_read_from_the_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with keystore_at(root) as ks:
        await ks.set("a", "1")
        await ks.get("a")
        real = ks._keyspace.apply

        async def unknown(*given: Any) -> None:
            await real(*given)
            raise OutcomeUnknownError("the disk said nothing")

        with monkeypatch.context() as patched:
            patched.setattr(ks._keyspace, "apply", unknown)
            with pytest.raises(OutcomeUnknownError):
                await ks.set("a", "2")
        for _ in range(3):
            assert await ks.get("a") == "2"
        report = ks.cache
        assert report is not None
        assert report.hits == 0


async def test_only_exclusive_sessions_have_one_and_none_when_it_is_switched_off(root: Path) -> None:
    async with keystore_at(root) as ks:
        assert ks.cache is not None
    for mode in ("shared", "read"):
        async with keystore_at(root, mode=mode) as ks:
            assert ks.cache is None
    async with keystore_at(root, cache_bytes=0) as ks:
        assert ks.cache is None


@pytest.mark.parametrize("key", [None, 7, ["a"], b"a", "", "a\nb"])
async def test_a_key_that_is_none_is_refused_as_ever(root: Path, key: Any) -> None:
    async with keystore_at(root) as ks:
        with pytest.raises(ValueError, match=r"key|Key"):
            await ks.get(key)


async def test_readers_beside_writers_never_see_a_value_go_back(root: Path) -> None:
    """Each reader sees the counter rise: a stale value from the cache would be a step back."""
    async with managed(root) as manager, manager.session("agent", "test") as ks:
        await ks.set("n", "0")
        done = False

        async def read(ks: Keystore) -> None:
            last = 0
            while not done:
                seen = int(await ks.get("n") or 0)
                assert seen >= last
                last = seen
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(read, ks)
            async with anyio.create_task_group() as writers:
                for _ in range(20):
                    writers.start_soon(_raise, ks, 20)
            done = True
        assert await ks.get("n") == "400"


async def _raise(ks: Keystore, times: int) -> None:
    for _ in range(times):
        await ks.increment("n")

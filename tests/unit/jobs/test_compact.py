"""Compacting: what is old and was backed up goes from the journal, files really shrink, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from prontodb.engine.sqlite import folders, upkeep
from prontodb.engine.sqlite.opening import open_reader
from prontodb.jobs.compact import Compacting, CompactReport
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.limits import Limits
from prontodb.model.settings import Settings
from prontodb.registry.jobs import JobRegistry
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import rows
from prontodb.work import Work
from tests.backups import Root, finished
from tests.checking import keystore_faults
from tests.managing import PATIENCE_S, Child, managed
from tests.sessions import holder
from tests.unit.stores import done

HERE = "agent/test"
PLACE = Address.parse(HERE)
DAY_S = 86_400


@pytest.fixture
def made(root: Path) -> Iterator[Root]:
    found = Root(root)
    yield found
    found.close()


def compacted(made: Root, **settings: int) -> CompactReport:
    chosen = Settings(durability="relaxed", wait_s=0.2, **settings)  # type: ignore[arg-type]
    registry = JobRegistry(made.layout, wait_s=0.2, one_shot=True)
    report = finished(Work(made.layout, chosen, made.clock, made.lifecycle, registry).compact())
    for address in folders.listed(made.layout):
        if not any(name == str(address) for name, _ in report.failed):
            assert keystore_faults(str(made.path), address) == []
    return report


def written(made: Root, count: int, address: str = HERE, prefix: str = "k") -> None:
    keystore = made.at(address)
    for number in range(count):
        done(keystore.set(f"{prefix}{number}", "x"))


def journal(made: Root, address: str = HERE) -> tuple[int, int, int]:
    """The floor, and the first and last revision in the journal; 0 when it is empty."""
    state = made.state(address)
    revisions = [row[0] for row in state["journal"]]
    return state["meta"][0][0], min(revisions, default=0), max(revisions, default=0)


def sizes(made: Root, address: str = HERE) -> tuple[int, int]:
    """The bytes of the keystore's file and of its log."""
    path = made.path / "addresses" / address / "keystore.db"
    log = path.with_name("keystore.db-wal")
    return path.stat().st_size, log.stat().st_size if log.exists() else 0


def test_changes_past_their_days_go_and_younger_ones_stay(made: Root) -> None:
    written(made, 10)
    made.clock.advance(2 * DAY_S)
    written(made, 5)
    entries = made.state(HERE)["entries"]
    assert compacted(made, journal_days=3).records == 0
    assert compacted(made, journal_days=1).records == 10
    assert journal(made) == (10, 11, 15)
    assert made.state(HERE)["entries"] == entries
    assert compacted(made, journal_days=1).records == 0
    assert compacted(made, journal_days=0).records == 0, "these are of this very moment"
    made.clock.advance(1)
    assert compacted(made, journal_days=0).records == 5
    assert journal(made) == (15, 0, 0)
    written(made, 2)
    assert journal(made) == (15, 16, 17)


def test_of_one_address_so_many_changes_stay_at_most(made: Root) -> None:
    written(made, 20)
    written(made, 3, "agent/small")
    assert compacted(made, journal_records=7).records == 13
    assert journal(made) == (13, 14, 20)
    assert journal(made, "agent/small") == (0, 1, 3)
    assert compacted(made, journal_records=0).records == 10


def test_a_long_journal_goes_in_many_steps(made: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "JOURNAL_ROWS", 4)
    written(made, 30)
    assert compacted(made, journal_records=1).records == 29


def test_what_the_newest_backup_has_not_seen_stays_and_the_chain_goes_on(made: Root) -> None:
    written(made, 10)
    first = made.backup()
    written(made, 4, prefix="later")
    made.clock.advance(400 * DAY_S)
    assert compacted(made, journal_days=1).records == 10
    assert journal(made) == (10, 11, 14)
    second = made.backup()
    assert (second.parent, second.segments, second.snapshots) == (first.id, 1, 0)
    assert made.verify().problems == ()
    assert compacted(made, journal_days=1).records == 4
    assert made.backup().id is None


def test_many_changes_past_what_a_backup_has_seen_stay_too(made: Root) -> None:
    written(made, 10)
    made.backup()
    written(made, 30, prefix="later")
    assert compacted(made, journal_records=1).records == 10
    assert made.backup().segments == 1


def test_of_several_chains_the_newest_counts_and_without_any_all_may_go(made: Root) -> None:
    written(made, 10)
    made.backup(user="agent")
    written(made, 5)
    made.full()
    written(made, 5)
    written(made, 8, "other/unseen")
    made.backup(user="other", cursor="unseen")
    made.clock.advance(400 * DAY_S)
    assert compacted(made, journal_days=1).records == 15 + 8
    assert journal(made)[0] == 15
    written(made, 3, "new/x")
    made.clock.advance(400 * DAY_S)
    assert compacted(made, journal_days=1).records == 3


def test_a_broken_chain_holds_nothing_back_that_a_whole_one_has_not(made: Root) -> None:
    written(made, 10)
    full = made.full()
    written(made, 5, prefix="b")
    middle = made.backup()
    written(made, 5, prefix="c")
    made.backup()
    made.clock.advance(400 * DAY_S)
    assert middle.path is not None
    (Path(middle.path) / "manifest.json").write_text("{}")
    assert full.id is not None
    assert compacted(made, journal_days=1).records <= 20
    assert made.backup().failed == ()


def test_the_file_and_its_log_really_shrink(made: Root) -> None:
    keystore = made.at(HERE)
    done(keystore.set("k", "x"))
    reader, _ = open_reader(made.layout, PLACE)  # as long as one has it open, the log is not removed
    for number in range(120):
        done(keystore.set(f"k{number}", "x" * 30_000))
    done(keystore.clear())
    done(keystore.set("left", "x"))
    made.clock.advance(DAY_S)
    before = sizes(made)
    assert sum(before) > 3_000_000
    assert before[1] > 0
    report = compacted(made, journal_days=0)
    after = sizes(made)
    assert after[0] < 500_000
    assert after[1] == 0
    assert report.freed_bytes == sum(before) - sum(after)
    assert done(keystore.get("left")) == "x", "whoever has it open goes on"
    assert compacted(made).freed_bytes == 0
    reader.close()


def test_a_keystore_that_came_back_from_a_backup_shrinks_like_any(made: Root) -> None:
    keystore = made.at(HERE)
    for number in range(60):
        done(keystore.set(f"k{number}", "x" * 30_000))
    backup = made.backup()
    made.close()
    made.restore(backup.id)
    done(made.at(HERE).clear())
    assert sizes(made)[0] + sizes(made)[1] > 1_500_000
    compacted(made)
    assert sizes(made)[0] < 500_000
    assert made.backup().failed == ()
    assert made.verify().problems == ()


def test_what_a_restore_put_aside_is_kept_for_its_days_and_then_forgotten(made: Root) -> None:
    written(made, 3)
    backup = made.backup()
    made.restore(backup.id)
    made.clock.advance(6.9 * DAY_S)
    assert compacted(made).forgotten == 0
    assert made.work.undoable() == [PLACE]
    made.clock.advance(0.2 * DAY_S)
    assert compacted(made).forgotten == 1
    assert made.work.undoable() == []
    assert keystore_faults(str(made.path), PLACE) == []
    assert [path.name for path in (made.path / "addresses/agent").iterdir()] == ["test"]


def test_of_several_put_aside_each_has_its_own_days(made: Root) -> None:
    written(made, 3)
    backup = made.backup()
    made.restore(backup.id)
    made.clock.advance(5 * DAY_S)
    made.restore(backup.id)
    made.clock.advance(3 * DAY_S)
    assert compacted(made).forgotten == 1
    assert made.work.undoable() == [PLACE]
    made.clock.advance(5 * DAY_S)
    assert compacted(made).forgotten == 1


def test_with_no_days_it_is_forgotten_at_once_but_never_what_has_lost_its_place(made: Root) -> None:
    written(made, 3)
    made.restore(made.backup().id)
    assert compacted(made, undo_days=0).forgotten == 1
    made.restore()
    place = made.path / "addresses/agent/test"
    kept = next(path for path in place.parent.iterdir() if path.name.startswith(".old-"))
    (place / "keystore.db").rename(made.path.parent / "taken")
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    made.clock.advance(1)
    compacted(made, undo_days=0)
    assert not kept.exists()
    assert done(made.at(HERE).get("k1")) == "x", "a restore was killed between its renames: this is the address"


def test_an_address_that_somebody_holds_is_counted_and_left_alone(made: Root) -> None:
    written(made, 5)
    written(made, 5, "agent/other")
    made.close()
    made.clock.advance(400 * DAY_S)
    with holder(made.path) as child:
        assert child.line().startswith("s-")
        report = compacted(made, journal_days=1)
        assert (report.addresses, report.held, report.records) == (1, 1, 5)
    assert compacted(made, journal_days=1).records == 5


def test_beside_shared_sessions_it_compacts_and_they_go_on(made: Root) -> None:
    written(made, 5)
    made.close()
    made.clock.advance(400 * DAY_S)
    with holder(made.path, "shared") as child:
        assert child.line().startswith("s-")
        report = compacted(made, journal_days=1)
        assert (report.held, report.records) == (0, 5)
        child.tell("ks.set('more', '1')")
        assert child.line() == "6"
    assert keystore_faults(str(made.path), PLACE) == []


def test_a_damaged_address_is_named_and_keeps_nobody_from_the_next(made: Root) -> None:
    for address in ("a/a", HERE, "z/z"):
        written(made, 4, address)
    made.close()
    (made.path / "addresses" / HERE / "keystore.db").write_bytes(b"garbage" * 1_000)
    made.clock.advance(400 * DAY_S)
    report = compacted(made, journal_days=1)
    assert (report.addresses, report.records) == (2, 8)
    assert [address for address, _ in report.failed] == [HERE]


def test_a_stop_ends_it_between_two_steps(made: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "JOURNAL_ROWS", 1)
    written(made, 30)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    rule = upkeep.Rule(before_ms=2**62, keep_records=0, until_revision=None)
    compacting = Compacting(
        made.lifecycle, Limits(), made.clock, rule_for=lambda _: rule, forget_before_ms=0, stop=stop
    )
    assert 0 < finished(compacting.steps()).records < 10
    assert keystore_faults(str(made.path), PLACE) == []


def test_a_round_ends_although_somebody_writes_faster_than_it_prunes(
    made: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "JOURNAL_ROWS", 1)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0)
    written(made, 10)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        assert len(asked) < 50, "it never ends"
        written(made, 2, prefix=f"meanwhile{len(asked)}.")
        return False

    rule = upkeep.Rule(before_ms=2**62, keep_records=0, until_revision=None)
    compacting = Compacting(
        made.lifecycle, Limits(), made.clock, rule_for=lambda _: rule, forget_before_ms=0, stop=stop
    )
    assert finished(compacting.steps()).records == 12, "what was there at the first step"
    assert keystore_faults(str(made.path), PLACE) == []


async def test_a_round_at_a_held_address_ends_although_its_session_writes_all_the_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "JOURNAL_ROWS", 1)
    async with managed(root, journal_records=5) as manager, manager.session("agent", "test") as ks:
        ended = anyio.Event()

        async def write() -> None:
            number = 0
            while not ended.is_set():
                number += 1
                await ks.set(f"k{number % 50}", f"{number}")

        for number in range(40):
            await ks.set(f"k{number}", "x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            with anyio.fail_after(PATIENCE_S):
                report = await manager.compact()
            ended.set()
    assert report.records >= 35
    assert keystore_faults(str(root), PLACE) == []


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
async def test_giving_pages_back_ends_although_somebody_frees_more(
    root: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A step that found less than it would have taken is the last."""
    steps: list[int] = []

    def give_back(_connection: object) -> int:
        steps.append(1)
        assert len(steps) < 10, "it never ends"
        return upkeep.VACUUM_BYTES if len(steps) < 3 else 4096

    monkeypatch.setattr(upkeep, "give_back", give_back)
    async with managed(root) as manager, manager.session("agent", "test", mode=mode) as ks:
        await ks.set("k", "x")
        await manager.compact()
    assert len(steps) == 3


async def test_what_this_process_holds_exclusively_is_compacted_through_its_session(root: Path) -> None:
    clock = ManualClock()
    async with managed(root, clock=clock, journal_days=1) as manager, manager.session("agent", "test") as ks:
        for number in range(60):
            await ks.set(f"k{number}", "x" * 30_000)
        await ks.clear()
        await ks.set("left", "x")
        clock.advance(2 * DAY_S)
        before = sum(path.stat().st_size for path in (root / "addresses" / HERE).iterdir() if "shm" not in path.name)
        with anyio.fail_after(20):
            report = await manager.compact()
        after = sum(path.stat().st_size for path in (root / "addresses" / HERE).iterdir() if "shm" not in path.name)
        assert (report.addresses, report.held, report.failed) == (1, 0, ())
        assert report.records == 121
        assert before - after > 1_000_000
        assert report.freed_bytes > 1_000_000
        assert await ks.get("left") == "x"
        assert keystore_faults(str(root), PLACE) == []


def test_a_file_that_gives_nothing_back_is_left_as_it_is(made: Root) -> None:
    keystore = made.at(HERE)
    for number in range(40):
        done(keystore.set(f"k{number}", "x" * 30_000))
    made.close()
    connection = sqlite.connect(made.layout.keystore_path(PLACE))
    rows(connection, "PRAGMA auto_vacuum=NONE")  # as no keystore of ours has it, and a forged one may
    rows(connection, "VACUUM")
    connection.close()
    done(made.at(HERE).clear())
    made.close()
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        assert len(asked) < 100, "it never ends"
        return False

    rule = upkeep.Rule(before_ms=0, keep_records=10**6, until_revision=None)
    report = finished(
        Compacting(made.lifecycle, Limits(), made.clock, rule_for=lambda _: rule, forget_before_ms=0, stop=stop).steps()
    )
    assert (report.addresses, report.failed) == (1, ())


HELD = """
import sys
from prontodb.storage import connection as sqlite
connection = sqlite.connect(sys.argv[1], mode=sqlite.READ_ONLY)
connection.execute("BEGIN DEFERRED").close()
connection.execute("SELECT count(*) FROM kvstore").fetchall()
print("reading", flush=True)
sys.stdin.readline()
"""


def test_a_log_that_a_reader_keeps_from_being_cut_is_told_with_the_reader(
    made: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "WAL_BOUND_BYTES", 10_000)
    done(made.at("a/x").set("k", "v" * 100))
    made.close()
    with Child(HELD, made.layout.keystore_path(Address("a", "x"))) as reader:
        assert reader.line() == "reading"
        for number in range(20):
            done(made.at("a/x").set("k", str(number) * 5_000))
        made.close()
        [(address, reason)] = finished(made.work.compact()).logs
        assert address == "a/x"
        assert f"pid {reader.process.pid}" in reason
        reader.tell("enough")
        reader.end()
    assert finished(made.work.compact()).logs == ()

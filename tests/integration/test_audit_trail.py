"""What the audit shows, beside writers and pruning; who leaves anchors; the log of denied calls."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from prontodb import blocking, log
from prontodb.audit import denied, entries
from prontodb.audit.denied import DeniedLog
from prontodb.engine.sqlite import auditing
from prontodb.errors import CorruptError, InvalidInputError, QuotaExceededError, StoppedError
from prontodb.model.address import Address
from prontodb.model.anchor import MOST, Anchor, to_drop
from prontodb.model.clock import Clock
from prontodb.model.history import Mark
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings
from prontodb.registry.anchors import AnchorRegistry
from prontodb.registry.sessions import SessionRegistry
from prontodb.storage import connection as sqlite
from tests import encrypted
from tests.audits import ADDRESS, recorded, swapped, tampered
from tests.managing import PATIENCE_S, managed
from tests.parts import fill
from tests.unit.cli.harness import Cli, command, environment, spawn

SECRET = "s3cret-value"


@pytest.fixture
def cli(root: Path) -> Cli:
    return Cli(root)


def registry(root: Path) -> AnchorRegistry:
    return AnchorRegistry(Layout(str(root)), wait_s=1, one_shot=True)


def denials(root: Path) -> list[dict[str, object]]:
    return DeniedLog(Layout(str(root)), Clock()).lines(1_000)


# While others are at it


# A part reads the journal to its end, so that with very small ones each has more to read than the one before.
@pytest.mark.parametrize("part", [entries.RECORDS_EACH, 400])
async def test_verifying_beside_writers_and_pruning_accuses_nobody_and_stops_nobody(
    root: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(entries, "RECORDS_EACH", part)
    async with managed(root, journal_records=60) as manager:
        written = 0

        async def write() -> None:
            nonlocal written
            async with manager.session("agent", "test", mode="shared") as keystore:
                while not done.is_set():
                    await keystore.set_many({f"key{(written + n) % 50}": f"{written}" for n in range(20)})
                    await keystore.delete(f"key{written % 50}")
                    written += 20
                    await anyio.sleep(0.001)

        done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            floor = rounds = 0
            with anyio.fail_after(PATIENCE_S):
                while rounds < 4 or floor < 100:
                    await manager.compact()
                    report = await manager.verify_audit()
                    assert report.is_sound, report
                    floor, rounds = max((one.floor for one in report.addresses), default=0), rounds + 1
            done.set()
        report = await manager.verify_audit(ADDRESS)
        assert report.is_sound
        assert report.addresses[0].revision > written


async def test_verifying_ends_although_somebody_writes_faster_than_it_reads(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await recorded(root, changes=30)
    looks: list[int] = []
    page = auditing.page

    async def written(key: str) -> None:
        async with managed(root) as other, other.session("agent", "test", mode="shared") as keystore:
            for number in range(3):
                await keystore.set(f"{key}.{number}", "x")

    def meanwhile(connection: sqlite.Connection, since: int) -> auditing.Page:
        """A page, and before it more than it held of what a writer adds."""
        if not connection.in_transaction:
            looks.append(since)
            assert len(looks) < 25, "it never ends"
            with ThreadPoolExecutor(1) as another:
                another.submit(anyio.run, written, f"k{len(looks)}").result()
        return page(connection, since)

    monkeypatch.setattr(auditing, "page", meanwhile)
    monkeypatch.setattr(auditing, "PAGE_ROWS", 2)
    async with managed(root) as manager:
        report = await manager.verify_audit()
    assert report.is_sound, report
    assert report.addresses[0].revision > 30


async def test_an_audit_that_is_cancelled_leaves_nothing_open(root: Path) -> None:
    await recorded(root, changes=50)
    async with managed(root) as manager:
        with anyio.move_on_after(0):
            await manager.verify_audit()
        work = manager._upkeep.work.audits.verify(stop=lambda: True)
        with pytest.raises(StoppedError):
            next(work)
        assert (await manager.verify_audit()).is_sound


async def test_many_keys_are_looked_at_in_parts_and_each_part_is_tested(
    root: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "RECORDS_EACH", 10)
    await recorded(root, changes=60)
    [audit] = cli.ok("audit", "verify", "--json").json
    assert (audit["records"], audit["entries"]) == (60, 60)
    tampered(root, "DELETE FROM kvstore WHERE rev IN (3, 17, 31, 60)")
    found = cli("audit", "verify", ADDRESS, "--json").json[0]["findings"]
    assert [finding["revision"] for finding in found] == [3, 17, 31, 60]


def test_a_read_only_root_is_audited_and_left_as_it_is(root: Path, cli: Cli) -> None:
    fill(root, ADDRESS, {"a": "1"})
    cli.ok("audit", "verify")
    before = {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*")) if path.is_file()}
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert cli("audit", "verify", ADDRESS).code == 0
    finally:
        for folder in folders:
            folder.chmod(0o700)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} <= {path for path in before if "-shm" in path.name}


# Showing


async def test_records_are_shown_newest_last_by_key_session_and_since_and_never_a_value(root: Path, cli: Cli) -> None:
    cli.ok("address", "create", ADDRESS)
    cli.ok("address", "history", ADDRESS, "on")  # then the journal holds values
    async with managed(root) as manager:
        async with manager.session("agent", "test") as keystore:
            for number in range(4):
                await keystore.set(f"k{number % 2}", f"{SECRET} {number}", ttl=3_600)
            await keystore.delete("k1")
            session = keystore.session_id
        records = await manager.audit(ADDRESS)
        assert [record.revision for record in records] == [1, 2, 3, 4, 5, 6]
        assert [record.action for record in records] == ["history", "set", "set", "set", "set", "del"]
        assert [one.revision for one in await manager.audit(ADDRESS, key="k1")] == [3, 5, 6]
        assert [one.revision for one in await manager.audit(ADDRESS, session=session, limit=2)] == [5, 6]
        assert [one.revision for one in await manager.audit(ADDRESS, since=4)] == [4, 5, 6]
        assert await manager.audit(ADDRESS, since="2999-01-01") == []
        assert SECRET not in repr(records)
        for wrong in ({"limit": 0}, {"since": "soon"}, {"key": 5}):
            with pytest.raises(InvalidInputError):
                await manager.audit(ADDRESS, **wrong)
    outcome = cli.ok("audit", "show", ADDRESS, "--limit", "2")
    assert [line.split("\t")[3:5] for line in outcome.lines] == [["set", "k1"], ["del", "k1"]]
    assert "the last 2; there are more" in outcome.err
    shown = cli.ok("audit", "show", ADDRESS, "--json", "--since", "2")
    assert [row["key"] for row in shown.json] == ["k0", "k1", "k0", "k1", "k1"]
    assert SECRET not in shown.text + outcome.text


def test_a_key_that_steers_terminals_is_shown_escaped_and_a_damaged_record_is_said(root: Path, cli: Cli) -> None:
    fill(root, ADDRESS, {"a\u2028b\u202e": "x"})
    assert "\\u2028" in cli.ok("audit", "show", ADDRESS).text
    tampered(root, "UPDATE journal SET records = '{'")
    assert "prontodb audit verify" in cli.fails("audit", "show", ADDRESS)


def test_the_blocking_face_has_both(root: Path) -> None:
    with blocking.open(str(root), settings=Settings(durability="relaxed")) as manager:
        with manager.session("agent", "test") as keystore:
            keystore.set("a", "1")
        assert manager.verify_audit(ADDRESS).is_sound
        assert [record.key for record in manager.audit(ADDRESS)] == ["a"]


# Anchors


async def test_every_session_that_ends_leaves_an_anchor_and_one_that_changed_nothing_no_second(root: Path) -> None:
    await recorded(root, sessions=2)
    async with managed(root) as manager, manager.session("agent", "test", mode="shared") as keystore:
        await keystore.get("key1")
    assert [anchor.mark.revision for anchor in registry(root).all()] == [5, 10]


def test_the_end_of_a_run_leaves_an_anchor(root: Path) -> None:
    inner = command("set", "a", "1")
    done = spawn(root, "run", "--", *inner, env=environment(root))
    assert done.code == 0, done.err
    [anchor] = registry(root).all()
    assert (anchor.mark.revision, anchor.by[:2]) == (1, "s-")


async def test_anchors_follow_a_renaming_and_go_with_a_deletion(root: Path, cli: Cli) -> None:
    await recorded(root)
    cli.ok("address", "rename", ADDRESS, "agent/new")
    assert [str(anchor.address) for anchor in registry(root).all()] == ["agent/new"]
    assert cli.ok("audit", "anchors", "agent/new", "--json").json[0]["revision"] == 5
    assert "does not exist" in cli.fails("audit", "anchors", ADDRESS)
    cli.ok("address", "delete", "agent/new", "--yes")
    assert registry(root).all() == []


def test_few_anchors_are_kept_the_newest_all_and_the_older_the_sparser(root: Path) -> None:
    kept = registry(root)
    kept.add_all([Anchor(Address("a"), Mark("00", revision, "00"), revision, "s") for revision in range(1, 1_001)])
    found = [anchor.mark.revision for anchor in kept.all()]
    assert len(found) == MOST
    assert (found[0], found[-4:]) == (1, [997, 998, 999, 1_000])
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps[:4]) > 50 > max(gaps[-6:])
    # Restored again and again: then the oldest goes.
    assert to_drop([Mark(f"{n:02x}", 1, "00") for n in range(MOST + 1)]) == 0


def test_a_registry_of_the_format_before_is_brought_up_to_date_with_its_rows_after_a_copy(root: Path, cli: Cli) -> None:
    with blocking.open(str(root), settings=Settings(durability="relaxed")) as manager, manager.session("agent", "test"):
        pass
    path = root / "registry" / "active_sessions.db"
    connection = sqlite.connect(str(path))
    for statement in (
        "DROP TABLE anchors",
        "PRAGMA user_version=1",
        "INSERT INTO sessions VALUES "
        "('s-0123456789ab01234567', 'a', 'b', 'shared', 1, 1, 'b', 'h', 'n', 'p', '{}', 1, 1, 1)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ):
        connection.execute(statement).close()
    connection.close()
    before = path.read_bytes()
    sessions = SessionRegistry(Layout(str(root)), wait_s=1, one_shot=True)
    # Reading changes nothing, and finds what there is.
    assert registry(root).all() == []
    assert len(sessions.rows()) == 1
    assert path.read_bytes() == before
    registry(root).add(Anchor(Address("a"), Mark("00", 1, "00"), 1, "s"))
    assert len(sessions.rows()) == len(registry(root).all()) == 1
    [copy] = (root / "registry").glob("active_sessions.db.format1-*")
    connection = sqlite.connect(str(copy))
    assert sqlite.one(connection, "SELECT count(*) FROM sessions")[0] == 1
    assert sqlite.one(connection, "PRAGMA user_version")[0] == 1
    connection.close()
    assert not list((root / "registry").glob("*.aside-*"))
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_a_swap_is_told_at_an_address_that_has_no_anchor_itself(root: Path, cli: Cli) -> None:
    await recorded(root, address="agent/one")
    fill(root, "agent/two", {"a": "1"})
    swapped(root, "agent/one", "agent/two")
    outcome = cli("audit", "verify")
    assert "agent/two: the keystore of agent/one lies here" in outcome.text
    assert "agent/one: another keystore lies here" in outcome.text


# Denied and failed calls


async def test_what_a_keystore_refuses_is_logged_once_with_who_and_where_and_no_value(root: Path, cli: Cli) -> None:
    async with managed(root, max_entries=1) as manager, manager.session("agent", "test") as keystore:
        await keystore.set("a", SECRET)
        with pytest.raises(QuotaExceededError):
            await keystore.set("b\u2028", SECRET)
        session = keystore.session_id
    [line] = denials(root)
    assert (line["session"], line["address"], line["error"]) == (session, ADDRESS, "QuotaExceededError")
    assert line.get("key") == (None if encrypted.is_on() else "'b\\u2028'")
    assert SECRET not in repr(line)
    shown = cli.ok("audit", "show", "--denied")
    assert shown.lines[0].split("\t")[-1] == "QuotaExceededError"
    assert cli.ok("audit", "show", "--denied", "--json").json == [line]
    assert (root / "registry" / denied.DENIED_FILE).stat().st_mode & 0o777 == 0o600


def test_a_command_that_meets_damage_is_logged_and_conflicts_and_misses_are_not(root: Path, cli: Cli) -> None:
    fill(root, ADDRESS, {"a": SECRET})
    cli("get", "nothing", "--user", "agent", "--cursor", "test")
    cli("cas", "a", "other", "new", "--user", "agent", "--cursor", "test")
    assert denials(root) == []
    tampered(root, "UPDATE kvstore SET checksum = 1")
    cli.fails("get", "a", "--user", "agent", "--cursor", "test")
    [line] = denials(root)
    assert (line["operation"], line["address"], line["error"]) == ("get", ADDRESS, "CorruptError")


async def test_denials_that_others_report_are_logged_for_their_root_alone(root: Path, tmp_path: Path) -> None:
    async with managed(root), managed(tmp_path / "other"):
        log.event("access.denied", root=str(root), principal="p", address=ADDRESS, operation="set", error="DeniedError")
    log.event("access.denied", root=str(root), address=ADDRESS)  # nobody is there any more
    assert [line["principal"] for line in denials(root)] == ["p"]
    assert denials(tmp_path / "other") == []


def test_the_log_is_bounded_never_raises_and_reads_over_rubbish(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denied, "MAX_BYTES", 2_000)
    kept = DeniedLog(Layout(str(root)), Clock())
    DeniedLog(Layout(str(root / "none")), Clock()).record(error="DeniedError")
    assert list(root.iterdir()) == []
    fill(root, ADDRESS, {"a": "1"})
    for number in range(100):
        kept.record(error="DeniedError", key="k" * 500, session=f"s-{number}")
    file = root / "registry" / denied.DENIED_FILE
    older = file.with_name(denied.DENIED_FILE + denied.OLDER)
    assert file.stat().st_size + older.stat().st_size < 6_000
    assert kept.lines(1)[0]["session"] == "s-99"
    file.write_bytes(b"\xff\nrubbish\n[1]\n")
    assert all(isinstance(line, dict) for line in kept.lines(1_000))
    file.unlink()
    os.mkfifo(file)
    kept.record(error="DeniedError")  # refused, and nobody waits
    file.unlink()
    file.symlink_to(root / "elsewhere")
    kept.record(error="DeniedError")
    assert not (root / "elsewhere").exists()


async def test_damage_met_by_a_session_is_logged(root: Path) -> None:
    fill(root, ADDRESS, {"a": SECRET})
    tampered(root, "UPDATE kvstore SET checksum = 1")
    async with managed(root) as manager, manager.session("agent", "test") as keystore:
        with pytest.raises(CorruptError):
            await keystore.get("a")
    assert [line["operation"] for line in denials(root)] == ["get"]

"""Where a migration could pass something off as what it is not: stale values, cut logs, others' keys, full disks."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from prontodb.direct import OneShot, run
from prontodb.engine.sqlite import snapshot
from prontodb.errors import ConflictError, InvalidInputError, InvalidSourceError, ProntoError, UnavailableError
from prontodb.migration import moments, saved
from prontodb.model.address import Address
from prontodb.storage import connection as sqlite
from tests.backups import finished
from tests.migrating import chosen, counts, migrated, planned, reasons, values, work_at
from tests.old_sources import SHARED, T0, cursor, database, fingerprint, old_root, packed, rust, shared, with_live_log
from tests.parts import fill

LATER = "2023-11-14 22:13:30"

# What cannot come over still was written last


@pytest.mark.parametrize("newest", [b"\xff\xfe", "x" * 2_000, None], ids=["not UTF-8", "too large", "no text"])
def test_an_older_row_does_not_pass_for_a_newer_one_that_cannot_come_over(
    root: Path, tmp_path: Path, newest: Any
) -> None:
    loose = SHARED.replace("value TEXT NOT NULL", "value")
    with database(tmp_path / "old.db", loose) as connection:
        rows = [("a.b.n.k", "stale", T0), ("a.b.n.k", newest, T0 + 5), ("a.b.n.other", "v", T0)]
        for number, (address, stored, at) in enumerate(rows, 1):
            connection.execute("INSERT INTO kvstore VALUES (?, ?, ?, ?, ?)", (number, address, stored, at, at)).close()
    report = migrated(root, tmp_path / "old.db", work=work_at(root, max_value_bytes=1_024))
    assert values(root, "a/b") == {"n.other": "v"}
    assert counts(report) == (1, 0, 1, 1)
    assert report.reasons[0].examples[0].row == 2


def test_a_newest_row_that_cannot_come_over_and_has_expired_is_expired(root: Path, tmp_path: Path) -> None:
    rows = [("p", "n", "k", "old", None, T0), ("p", "n", "k", b"\xff", None, T0 + 1, T0 + 2)]
    report = migrated(root, rust(tmp_path / "main" / "pronto.main.prdb", rows))
    assert counts(report) == (0, 1, 1, 0)


# Keys that are one only here


def test_the_same_key_of_two_views_of_one_cursor_is_reported(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(
        old / "w" / "w.db", [("m.P", "n", "k", "behind"), ("P", "n", "k", "plain", None, T0 + 5), ("P", "n", "l", "v")]
    )
    cursor(old / "w" / "cursors" / "w.cursor", "w.db", "bob", meta_context="m")
    cursor(old / "cursors" / "w.cursor", old / "w" / "w.db", "bob")
    report = migrated(root, old)
    assert reasons(report) == {"twin_key": 2}
    assert values(root, "bob/w") == {"P.n.l": "v"}


def test_two_tables_of_one_file_are_two_sources(root: Path, tmp_path: Path) -> None:
    from tests.old_sources import NAMESPACES, RUST

    path = tmp_path / "main" / "pronto.main.prdb"
    with database(path, SHARED, RUST, NAMESPACES) as connection:
        connection.execute("INSERT INTO kvstore VALUES (1, 'default.default.ns.k', 'shared', 5, 5)").close()
        connection.execute("INSERT INTO kv VALUES ('default', 'ns', 'k', NULL, 'rust', 5, 5, NULL)").close()
    assert counts(migrated(root, path)) == (0, 0, 0, 2)


def test_places_that_are_called_the_same_are_told_apart(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(old / "pronto.db", [("p", "n", "k", "a database")])
    shared(old / "shared.db", [("pronto.db.n.k", "an owner")])
    report = migrated(root, old, mapping={"pronto.db": "t/one"})
    assert sorted(one.old for one in report.places) == ["pronto.db", "pronto.db (2)"]
    assert values(root, "t/one") == {"p.n.k": "a database"}
    assert values(root, "pronto/db") == {"n.k": "an owner"}


def test_the_default_database_stays_everybodys_when_a_cursor_file_names_it(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(old / "pronto.main.prdb", [("P", "n", "k", "v")])
    cursor(old / "cursors" / "staging.cursor", old / "pronto.main.prdb")
    cursor(old / "cursors" / "default.alice.cursor", old / "pronto.main.prdb", "alice")
    report = migrated(root, old)
    for address in ("_default/staging", "alice/_default", "_default/_default"):
        assert values(root, address) == {"P.n.k": "v"}
    assert (report.read, report.migrated) == (1, 1)


@pytest.mark.parametrize("name", ["cursors/default.cursor", "main/cursors/default.default.cursor"])
def test_a_cursor_file_that_says_what_the_name_says_changes_nothing(root: Path, tmp_path: Path, name: str) -> None:
    old = tmp_path / "old"
    rust(old / "pronto.db", [("p", "n", "k", "older")])
    rust(old / "main" / "pronto.main.prdb", [("p", "n", "k", "newer", None, T0 + 5)])
    cursor(old / name, old / "main" / "pronto.main.prdb", "default")
    report = migrated(root, old)
    assert counts(report) == (1, 0, 1, 0)
    assert values(root, "_default/_default") == {"p.n.k": "newer"}


# Logs


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("at", [2, 17, 40, 60, 3_000])
def test_a_damaged_log_is_refused(root: Path, tmp_path: Path, at: int) -> None:
    folder = with_live_log(tmp_path / "work", commits=3)
    flipped(folder / "work.db-wal", at)
    before = fingerprint(folder)
    with pytest.raises(InvalidSourceError, match=r"work\.db-wal'? is damaged"):
        migrated(root, folder)
    assert fingerprint(folder) == before
    (folder / "work.db-wal").unlink()
    assert values_after(root, folder) == {"p.n.k": "in the file"}, "what is left is what the way out says"


@pytest.mark.parametrize("at", [-3_000, -4_096 - 10])
def test_a_last_transaction_that_is_not_whole_was_never_committed_and_is_told(
    root: Path, tmp_path: Path, at: int
) -> None:
    folder = with_live_log(tmp_path / "work", commits=3)
    flipped(folder / "work.db-wal", at)
    report = migrated(root, folder)
    assert any("work.db-wal" in note and "frame" in note for note in report.notes)
    assert values(root, "_default/work").keys() == {"p.n.k", "p.n.late", "p.n.late2"}


def test_a_whole_log_is_no_reason_for_a_word(root: Path, tmp_path: Path) -> None:
    report = migrated(root, with_live_log(tmp_path / "work", commits=3))
    assert report.notes == ()
    assert report.migrated == 4


@pytest.mark.parametrize("at", [2 * 5_120 + 512 + 4 + (4_096 - 200), 3 * 5_120])
def test_a_damaged_journal_is_refused(root: Path, tmp_path: Path, at: int) -> None:
    path = shared(tmp_path / "old.db", [(f"a.b.c.{n}", "x" * 2_000) for n in range(40)])
    dying = (
        "import sys, os\nfrom sqlcipher3 import dbapi2 as s\nc = s.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=2')\nc.execute('BEGIN IMMEDIATE')\n"
        "c.execute(\"UPDATE kvstore SET value = 'half ' || value\")\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", dying, str(path)], check=True)
    whole = Path(f"{path}-journal").read_bytes()
    # It has parts of one record each. Every 200th byte counts, from the end of the page; or it is the head of a part.
    flipped(Path(f"{path}-journal"), at)
    with pytest.raises(InvalidSourceError, match=r"old\.db-journal' is damaged"):
        migrated(root, path)
    Path(f"{path}-journal").write_bytes(whole)
    assert set(values_after(root, path, "a/b").values()) == {"x" * 2_000}


def values_after(root: Path, source: Path, address: str = "_default/work") -> dict[str, str]:
    migrated(root, source)
    return values(root, address)


@pytest.mark.parametrize("data", [b"garbage", os.urandom(9_000), bytes(64)])
def test_a_log_that_is_none_is_refused(root: Path, tmp_path: Path, data: bytes) -> None:
    path = rust(tmp_path / "main" / "pronto.main.prdb", [("p", "n", "k", "v")])
    Path(f"{path}-wal").write_bytes(data)
    with pytest.raises(InvalidSourceError, match="no log of SQLite"):
        migrated(root, path)


def test_a_journal_that_is_none_is_refused_and_a_finished_one_is_not(root: Path, tmp_path: Path) -> None:
    path = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    journal = tmp_path / "old.db-journal"
    journal.write_bytes(b"garbage")
    with pytest.raises(InvalidSourceError, match="no journal of SQLite"):
        migrated(root, path)
    journal.write_bytes(bytes(512))
    assert values_after(root, path, "a/b") == {"c.d": "v"}


def test_what_an_earlier_round_of_a_log_left_is_no_damage(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    rust(folder / "work.db", [("p", "n", f"k{n}", "x" * 500) for n in range(50)])
    writer = (
        "import sys, os\nfrom sqlcipher3 import dbapi2 as s\nc = s.connect(sys.argv[1], isolation_level=None)\n"
        "put = lambda k, v: c.execute(\"INSERT INTO kv VALUES ('p', 'n', ?, NULL, ?, 0, 0, NULL)\", (k, v))\n"
        "[put(f'many{n}', 'y' * 3000) for n in range(30)]\n"
        "c.execute('PRAGMA wal_checkpoint(RESTART)').fetchall()\n"
        "put('last', 'after the restart')\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", writer, str(folder / "work.db")], check=True)
    found = values_after(root, folder)
    assert found["p.n.last"] == "after the restart"
    assert len(found) == 81


# Backups


def test_an_archive_that_ends_too_early_or_goes_on_is_refused(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    for name in ("a", "b"):
        rust(old / name / f"{name}.db", [("P", "n", name, "v")])
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        tar.add(old / "a" / "a.db", arcname="a/a.db")
        second = tar.offset
        tar.add(old / "b" / "b.db", arcname="b/b.db")
    plain = (tmp_path / "plain.tar").read_bytes()
    source = tmp_path / "b.tar.gz"
    bad = (
        plain[:second],
        plain[: second + 100],
        plain[: second + 5] + b"?" + plain[second + 6 :],
        plain[:second] + bytes(512) + plain[second + 512 :],
        plain + plain,
    )
    for data in bad:
        source.write_bytes(gzip.compress(data))
        with pytest.raises(InvalidSourceError, match="damaged, cut"):
            migrated(root, source)
    assert list(root.iterdir()) == []
    source.write_bytes(gzip.compress(plain[: len(plain) // 2]) + gzip.compress(plain[len(plain) // 2 :]))
    assert migrated(root, source).migrated == 2, "in several parts it is whole"


def test_a_flipped_byte_or_a_cut_end_of_a_backup_is_noticed(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "work"
    rust(old / "work.db", [("P", "n", f"a{n}", f"value-a-{n}") for n in range(20)])
    whole = packed(old, tmp_path / "b.tar.gz").read_bytes()
    plain = gzip.decompress(whole)
    at = plain.index(b"value-a-5")
    damaged = gzip.compress(plain[: at + 4] + b"d" + plain[at + 5 :])[:-8] + whole[-8:]
    for data in (damaged, whole[:-8], whole[:-1], whole + b"garbage after it"):
        (tmp_path / "bad.tar.gz").write_bytes(data)
        with pytest.raises(InvalidSourceError, match="damaged, cut"):
            migrated(root, tmp_path / "bad.tar.gz")
    assert list(root.iterdir()) == []


def test_a_database_of_any_name_in_a_backup_has_its_log(root: Path, tmp_path: Path) -> None:
    folder = with_live_log(tmp_path / "store")
    for ending in ("", "-wal"):
        (folder / f"store.db{ending}").rename(folder / f"store.sqlite{ending}")
    cursor(folder / "cursors" / "store.bob.cursor", "store.sqlite", "bob")
    found = values_after(root, packed(folder, tmp_path / "b.tar.gz"), "bob/store")
    assert found == {"p.n.k": "in the file", "p.n.late": "in the log"}


def test_an_absolute_path_into_the_old_root_is_found_in_its_backup(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "any" / "prontodb"
    rust(old / "work" / "pronto.work.prdb", [("p", "n", "k", "v")])
    path = "/home/bob/.local/data/odx/prontodb/work/pronto.work.prdb"
    cursor(old / "cursors" / "z.bob.cursor", path, "bob")
    assert values_after(root, packed(old, tmp_path / "b.tar.gz"), "bob/z") == {"p.n.k": "v"}


@pytest.mark.parametrize("as_backup", [False, True])
def test_a_database_that_a_cursor_names_is_not_passed_over_for_its_looks(
    root: Path, tmp_path: Path, as_backup: bool
) -> None:
    old = old_root(tmp_path)
    broken = rust(old / "data" / "store.sqlite", [("p", "n", "k", "v")])
    broken.write_bytes(bytes(16) + broken.read_bytes()[16:])
    cursor(old / "cursors" / "w.bob.cursor", old / "data" / "store.sqlite", "bob")
    source = packed(old, tmp_path / "b.tar.gz") if as_backup else old
    with pytest.raises(InvalidSourceError, match=r"store\.sqlite.*is no database"):
        migrated(root, source)


def test_a_database_that_a_cursor_names_is_live_whatever_it_is_called(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    rust(old / "data" / "prontodb_x_20240101.db", [("p", "n", "k", "bob's")])
    cursor(old / "cursors" / "x.bob.cursor", old / "data" / "prontodb_x_20240101.db", "bob")
    assert values_after(root, old, "bob/x") == {"p.n.k": "bob's"}


def test_a_member_whose_name_is_no_text_is_refused(root: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz", errors="surrogateescape") as tar:
        info = tarfile.TarInfo("x\udcff.db")
        tar.addfile(info, io.BytesIO())
    with pytest.raises(InvalidSourceError, match="not UTF-8"):
        migrated(root, tmp_path / "b.tar.gz")


# Files of ours and of the source's


def test_no_report_takes_the_place_of_anything_that_belongs_to_the_source(root: Path, tmp_path: Path) -> None:
    folder = with_live_log(tmp_path / "work")
    far = rust(tmp_path / "far" / "away.db", [("p", "n", "k", "v")])
    file = cursor(folder / "cursors" / "far.alice.cursor", far, "alice")
    before = fingerprint(tmp_path)
    for source, paths in (
        (folder / "work.db", (folder / "work.db-wal", folder / "work.db-journal", file)),
        (folder, (far,)),
    ):
        for path in paths:
            with work_at(root).migration(str(source), chosen({})) as migration:
                finished(migration.taking())
                with pytest.raises(InvalidInputError, match="belongs to the source"):
                    migration.check_writable(str(path))
    fill(root, "a/b", {"k": "v"})
    with (
        work_at(root).migration(str(folder), chosen({})) as migration,
        pytest.raises(InvalidInputError, match="lies in the root"),
    ):
        migration.check_writable(str(root / "addresses" / "a" / "b" / "keystore.db"))
    assert {name: found for name, found in fingerprint(tmp_path).items() if name in before and "root" not in name} == {
        name: found for name, found in before.items() if "root" not in name
    }


# Faults


def test_an_error_of_the_disk_at_one_address_stops_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared(tmp_path / "old.db", [("a.b.c.d", "1"), ("b.b.c.d", "2"), ("c.b.c.d", "3")])
    real, calls = snapshot.end, []

    def failing(staged: Any, path: str) -> None:
        calls.append(path)
        if len(calls) == 2:
            error = sqlite.Error("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        real(staged, path)

    monkeypatch.setattr(snapshot, "end", failing)
    report = migrated(root, source)
    (failed,) = report.failed
    assert failed[0] == "b/b"
    assert "no space left" in failed[1]
    assert "keystore.db" in failed[1]
    assert (values(root, "a/b"), values(root, "b/b"), values(root, "c/b")) == ({"c.d": "1"}, {}, {"c.d": "3"})


def test_a_private_folder_that_cannot_be_written_is_one_of_our_errors_and_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prontodb.migration.ledger import Ledger

    source, place = shared(tmp_path / "old.db", [("a.b.c.d", "1")]), tmp_path / "scratch"
    place.mkdir()

    def failing(_: Ledger, sql: str) -> None:
        error = sqlite.Error("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_WRITE"
        raise error

    monkeypatch.setattr(Ledger, "_run", failing)
    with pytest.raises(UnavailableError, match="scratch"):
        work_at(root).migration(str(source), chosen({}), scratch=str(place))
    assert list(place.iterdir()) == []


def test_a_twin_that_came_since_the_plan_is_a_failed_address(root: Path, tmp_path: Path) -> None:
    source = shared(tmp_path / "old.db", [("alice.b.c.d", "1"), ("bob.b.c.d", "2")])
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        fill(root, "Alice/b", {"k": "v"})
        report = finished(migration.applying())
    assert [address for address, _ in report.failed] == ["alice/b"]
    assert values(root, "bob/b") == {"c.d": "2"}


def test_what_is_sorted_stays_in_the_private_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prontodb.migration.ledger import Ledger

    source, place, seen = shared(tmp_path / "old.db", [("a.b.c.d", "1")]), tmp_path / "it's here", []
    place.mkdir()
    real = Ledger.all_added

    def looked(self: Ledger, now_ms: int) -> None:
        seen.append(sqlite.one(self._connection, "PRAGMA temp_store_directory")[0])
        real(self, now_ms)

    monkeypatch.setattr(Ledger, "all_added", looked)
    migrated(root, source, scratch=place)
    assert seen
    assert seen[0].startswith(f"{place}/prontodb-scratch-")
    assert list(place.iterdir()) == []


def test_fail_counts_a_lifetime_in_the_way_as_well(root: Path, tmp_path: Path) -> None:
    source = rust(tmp_path / "main" / "pronto.main.prdb", [("P", "n", "new", "v")], [("P", "n", 1, 30)])
    with OneShot(str(root), Address()) as keystore:
        run(keystore.set_namespace_ttl("P.n", 60))
    with pytest.raises(ConflictError, match="default lifetime"):
        migrated(root, source, on_conflict="fail")
    assert values(root, "_default/_default") == {}


# Bounds


def test_what_is_too_long_to_be_a_key_a_name_or_a_time_is_not_even_read(root: Path, tmp_path: Path) -> None:
    rubbish = "t" * 100_000
    rows = [
        ("a.b.c." + "k" * 100_000, "v"), ("u" * 300 + ".b.c.d", "v"), ("a.b.c.sound", "v", rubbish, rubbish),
        ("." * 100_000, "v"), ("a.b.c.large", "x" * 5_000),
    ]  # fmt: skip
    source = shared(tmp_path / "old.db", rows)
    moments._of_text.cache_clear()
    report = migrated(root, source, work=work_at(root, max_value_bytes=1_024))
    assert reasons(report) == {"bad_key": 2, "no_address": 1, "value_too_large": 1}
    assert values(root, "a/b") == {"c.sound": "v"}
    assert moments._of_text.cache_info().currsize <= 2, "what is remembered is short: a word for rubbish, and one time"
    assert max(len(place.old) for place in report.places) < 300


@pytest.mark.parametrize("path", ["\ud800", "/tmp/\ud800x"])
def test_a_path_that_cannot_be_spelt_is_bad_input(root: Path, tmp_path: Path, path: str) -> None:
    source = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    with pytest.raises(InvalidInputError, match="is no path on this system"):
        work_at(root).migration(path, chosen({}))
    with (
        work_at(root).migration(str(source), chosen({})) as migration,
        pytest.raises(InvalidInputError, match="no path"),
    ):
        migration.check_writable(path)


def test_a_plan_with_half_a_character_in_it_is_bad_input(root: Path, tmp_path: Path) -> None:
    source = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        migration.write_plan(str(tmp_path / "plan.json"))
    text = (tmp_path / "plan.json").read_text().replace('"source": "/', '"source": "/\\ud800')
    plan = saved.read(text.encode(), "plan.json")
    with pytest.raises(ProntoError):
        work_at(root).migration(plan.source, plan.options, plan=plan)


# Recognition


def test_names_of_tables_have_no_case_and_a_trigger_is_no_table(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    trigger = "CREATE TRIGGER kv AFTER INSERT ON notes BEGIN SELECT 1; END"
    with database(path, SHARED.replace("kvstore", "KVStore"), "CREATE TABLE notes (a)", trigger) as connection:
        connection.execute("INSERT INTO kvstore VALUES (1, 'a.b.c.d', 'v', 0, 0)").close()
    assert values_after(root, path, "a/b") == {"c.d": "v"}


def test_rows_whose_id_is_not_their_number_are_not_named_by_another(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with database(path, SHARED.replace("id INTEGER PRIMARY KEY", "id INT PRIMARY KEY")):
        pass
    with pytest.raises(InvalidSourceError, match="no row ids"):
        planned(root, path)


def test_a_copy_that_cannot_be_tested_names_the_original(root: Path, tmp_path: Path) -> None:
    path = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    with database(path) as connection:
        connection.execute("PRAGMA writable_schema=ON").close()
        text = "CREATE INDEX i ON kvstore (value COLLATE unheard_of)"
        connection.execute("CREATE INDEX i ON kvstore (value)").close()
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'i'", (text,)).close()
    with pytest.raises(InvalidSourceError, match=r"old\.db"):
        migrated(root, path)


def test_without_a_folder_for_temporary_files_it_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    source = shared(tmp_path / "old.db", [("a.b.c.d", "v")])

    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(InvalidInputError, match="no folder for temporary files"):
        work_at(root).migration(str(source), chosen({}))

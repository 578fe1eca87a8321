"""What is refused as a source, with its reason; that a source stays what it was; and the private copies of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prontodb.errors import BusyError, ConflictError, InvalidInputError, InvalidSourceError, NotFoundError, ProntoError
from prontodb.model.address import Address
from prontodb.storage import foreign
from prontodb.storage import scratch as scratch_module
from prontodb.storage.foreign import SQLITE_MAGIC
from tests.backups import finished
from tests.managing import Child
from tests.migrating import chosen, counts, migrated, planned, reasons, values, work_at
from tests.old_sources import (
    NAMESPACES,
    RUST,
    SHARED,
    cursor,
    database,
    fingerprint,
    old_root,
    rust,
    shared,
    with_live_log,
)
from tests.parts import Parts, fill
from tests.roots import together

# What a source must be


def test_a_source_that_is_not_there_says_where_it_may_be(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="odx/prontodb"):
        migrated(root, tmp_path / "nothing")


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def sqlite_file(path: Path, *statements: str) -> Path:
    with database(path, *statements):
        pass
    return path


def cut_file(path: Path) -> Path:
    shared(path, [("a.b.c.d", "x" * 50_000)])
    path.write_bytes(path.read_bytes()[:-5_000])
    return path


def flipped_file(path: Path) -> Path:
    shared(path, [(f"a.b.c.{n}", "x" * 500) for n in range(200)])
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 3 + 200] = os.urandom(200)
    path.write_bytes(data)
    return path


WITH_VIEW = (
    "CREATE VIEW kvstore AS SELECT 1 AS id, 'a.b.c.d' AS address, 'v' AS value, 0 AS created_at, 0 AS updated_at"
)
WITH_FTS = "CREATE VIRTUAL TABLE kvstore USING fts5(id, address, value, created_at, updated_at)"
REFUSED = [
    pytest.param(lambda path: written(path, b""), "is empty", id="empty"),
    pytest.param(lambda path: written(path, b"hello, this is text" * 99), "no database of SQLite", id="text"),
    pytest.param(lambda path: written(path, os.urandom(9_000)), "no database of SQLite", id="noise"),
    pytest.param(lambda path: written(path, b"SQLite format 3\x00"), "damaged, cut", id="a header alone"),
    pytest.param(lambda path: written(path, SQLITE_MAGIC + bytes(8_176)), "damaged, cut", id="a header of zeros"),
    pytest.param(cut_file, "damaged", id="cut"),
    pytest.param(flipped_file, "damaged", id="overwritten in the middle"),
    pytest.param(sqlite_file, "holds no table", id="no table"),
    pytest.param(lambda path: sqlite_file(path, "PRAGMA encoding='UTF-16le'", SHARED), "text as UTF-16", id="UTF-16"),
    pytest.param(lambda path: sqlite_file(path, "CREATE TABLE users (a)"), "it holds users", id="foreign"),
    pytest.param(lambda path: sqlite_file(path, WITH_VIEW), "kvstore is a view", id="a view"),
    pytest.param(
        lambda path: sqlite_file(path, SHARED.replace("value TEXT NOT NULL, ", "")), "other columns", id="a column less"
    ),
    pytest.param(
        lambda path: sqlite_file(path, SHARED[:-1] + ", more TEXT)"), r"other columns.*more", id="a column more"
    ),
    pytest.param(
        lambda path: sqlite_file(path, SHARED[:-1].replace("value TEXT NOT NULL", "value AS (address)") + ")"),
        "other columns",
        id="a computed column",
    ),
    pytest.param(
        lambda path: sqlite_file(path, RUST, NAMESPACES.replace("is_ttl BOOLEAN NOT NULL DEFAULT 0, ", "")),
        "sys_namespaces has other columns",
        id="other namespaces",
    ),
    pytest.param(
        lambda path: sqlite_file(path, RUST.replace("context TEXT", "context TEXT NOT NULL") + " WITHOUT ROWID"),
        "no row ids",
        id="no rowid",
    ),
    pytest.param(
        lambda path: sqlite_file(path, WITH_FTS),
        "kvstore is a virtual",
        id="a virtual table",
    ),
    pytest.param(
        lambda path: sqlite_file(path, "CREATE TABLE meta_registry (a)", "CREATE TABLE keys_1f (a)"),
        "no table kvstore or kv",
        id="hierarchical, empty",
    ),
    pytest.param(
        lambda path: sqlite_file(path, SHARED, "CREATE TABLE meta_registry AS SELECT 1 AS a"),
        "meta_registry: a schema that the old program was never connected to",
        id="hierarchical, beside the shared table",
    ),
    pytest.param(
        lambda path: sqlite_file(path, "CREATE TABLE meta_mappings (a)", "CREATE TABLE meta_routes (a)",
                                 "INSERT INTO meta_routes VALUES (1)"),
        "meta_mappings, meta_routes",
        id="mappings and routes",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_what_is_no_whole_old_database_is_refused_with_its_reason(
    root: Path, tmp_path: Path, make: Any, reason: str
) -> None:
    source = make(tmp_path / "source.db")
    before = fingerprint(tmp_path / "source.db")
    with pytest.raises(InvalidSourceError, match=reason):
        migrated(root, source)
    assert fingerprint(source) == before
    assert list(root.iterdir()) == [], "not even a part of it was imported"
    # In a folder one such file stops the others, too, until it is left out by name.
    folder = tmp_path / "folder"
    rust(folder / "main" / "pronto.main.prdb", [("p", "n", "k", "v")])
    shutil.copy(source, folder / "source.db")
    with pytest.raises(InvalidSourceError, match=r"source\.db"):
        migrated(root, folder)
    assert list(root.iterdir()) == []
    assert migrated(root, folder, skip=("source.db",)).is_complete


def test_empty_tables_of_other_schemas_are_in_nobodys_way(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "main" / "pronto.main.prdb"
    with database(path, RUST, NAMESPACES, "CREATE TABLE meta_mappings (a)", "CREATE TABLE notes (a)") as connection:
        connection.execute("INSERT INTO kv VALUES ('p', 'n', 'k', NULL, 'v', 0, 0, NULL)").close()
    report = migrated(root, path)
    assert report.is_complete
    assert any("notes" in note for note in report.notes)


def test_a_keystore_of_ours_is_no_old_database(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fill(other, "a/b", {"k": "v"})
    copy = Path(shutil.copy(other / "addresses" / "a" / "b" / "keystore.db", tmp_path / "copy.db"))
    with pytest.raises(InvalidSourceError, match="of this ProntoDB"):
        migrated(root, copy)


def test_links_and_pipes_are_not_followed(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    target = rust(tmp_path / "target.db", [("p", "n", "k", "v")])
    (old / "link.db").symlink_to(target)
    os.mkfifo(old / "pipe.db")
    with pytest.raises(InvalidSourceError, match="2 files cannot be used"):
        migrated(root, old)
    assert migrated(root, old, skip=("link.db", "pipe.db")).is_complete
    with pytest.raises(InvalidInputError, match="does not hold"):
        migrated(root, old, skip=("link.db", "pipe.db", "other.db"))
    os.mkfifo(tmp_path / "fifo.db")
    with pytest.raises(InvalidSourceError, match="not a file"):
        migrated(root, tmp_path / "fifo.db")


def test_a_database_whose_name_is_no_text_is_a_fault(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    os.rename(old / "pronto.db", os.fsencode(old) + b"/\xff.db")
    with pytest.raises(InvalidSourceError, match="not UTF-8"):
        migrated(root, old)


def test_the_named_source_itself_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    (tmp_path / "link").symlink_to(old)
    assert migrated(root, tmp_path / "link").read == 7


def test_an_empty_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSourceError, match="holds no database"):
        migrated(root, tmp_path / "empty")


def test_nothing_of_ours_may_lie_in_the_source(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    for inside, scratch in ((old / "new", None), (old, None), (root, old)):
        work = work_at(inside)
        with pytest.raises(InvalidInputError, match=r"lies in the source|lies in the present root"):
            work.migration(str(old), chosen({}), scratch=None if scratch is None else str(scratch))
    fill(root, "a/b", {"k": "v"})
    with pytest.raises(InvalidInputError, match="lies in the present root"):
        migrated(root, root / "addresses")
    with work_at(root).migration(str(old), chosen({})) as migration, pytest.raises(InvalidInputError, match="source"):
        migration.check_writable(str(old / "report.jsonl"))


# The source stays as it is


@pytest.mark.parametrize("what", ["plan", "run", "refused", "failed"])
def test_the_source_is_byte_for_byte_the_same_afterwards(root: Path, tmp_path: Path, what: str) -> None:
    old = old_root(tmp_path)
    with_live_log(old / "late")
    cursor(old / "cursors" / "x.alice.cursor", "late/late.db", "alice")
    if what == "refused":
        (old / "bad.db").write_bytes(b"")
    before = fingerprint(old)
    if what == "plan":
        planned(root, old)
    elif what == "run":
        migrated(root, old)
        assert values(root, "alice/x") == {"p.n.k": "in the file", "p.n.late": "in the log"}
    elif what == "refused":
        with pytest.raises(InvalidSourceError):
            migrated(root, old)
    else:
        (root / "registry").mkdir(mode=0o700)
        (root / "registry" / "locks").write_text("in the way")
        assert len(migrated(root, old).failed) == 5
    assert fingerprint(old) == before


def test_what_was_never_committed_is_not_migrated(root: Path, tmp_path: Path) -> None:
    path = shared(tmp_path / "old.db", [(f"a.b.c.{n}", "x" * 2_000) for n in range(40)])
    dying = (
        "import sys, os\nfrom sqlcipher3 import dbapi2 as s\nc = s.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=2')\nc.execute('BEGIN IMMEDIATE')\n"
        "c.execute(\"UPDATE kvstore SET value = 'half ' || value\")\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", dying, str(path)], check=True)
    assert (tmp_path / "old.db-journal").stat().st_size > 0, "a hot journal"
    before = fingerprint(path)
    migrated(root, path)
    assert set(values(root, "a/b").values()) == {"x" * 2_000}
    assert fingerprint(path) == before


HOLDING = """
import sys
from sqlcipher3 import dbapi2 as s
c = s.connect(sys.argv[1], isolation_level=None)
c.execute(sys.argv[2]).fetchall()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("wal", "statement"),
    [(True, "SELECT count(*) FROM kvstore"), (False, "BEGIN IMMEDIATE")],
)
def test_a_source_in_use_is_refused(root: Path, tmp_path: Path, wal: bool, statement: str) -> None:
    path = tmp_path / "old.db"
    with database(path, SHARED, wal=wal) as connection:
        connection.execute("INSERT INTO kvstore VALUES (1, 'a.b.c.d', 'v', 0, 0)").close()
    with Child(HOLDING, path, statement) as child:
        assert child.line() == "ready"
        names = {found.name for found in tmp_path.iterdir()}
        with pytest.raises(BusyError, match=rf"in use by .*{child.process.pid}"):
            migrated(root, path)
        assert {found.name for found in tmp_path.iterdir()} == names
        assert list(root.iterdir()) == []
    assert migrated(root, path).is_complete, "its end frees it"


def test_a_source_that_this_very_process_has_open_is_refused(root: Path, tmp_path: Path) -> None:
    path = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    with path.open("rb"), pytest.raises(BusyError, match="this very process"):
        migrated(root, path)
    assert migrated(root, path).is_complete


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_a_source_that_changes_while_it_is_copied_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    check = foreign.check_unused

    def changed(found: str) -> None:
        with (tmp_path / f"old.db{ending}").open("ab") as file:
            file.write(b"x")
        check(found)

    monkeypatch.setattr(foreign, "check_unused", changed)
    with pytest.raises(ConflictError, match="was changed while it was read"):
        migrated(root, path)
    assert list(root.iterdir()) == []


# The private copies


def scratches(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.name.startswith("prontodb-")]


def test_private_copies_are_private_and_go_with_the_end(root: Path, tmp_path: Path) -> None:
    source, place = shared(tmp_path / "old.db", [("a.b.c.d", "v")]), tmp_path / "scratch"
    place.mkdir()
    with work_at(root).migration(str(source), chosen({}), scratch=str(place)) as migration:
        finished(migration.planning())
        (folder,) = scratches(place)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert scratches(place) == []
    with pytest.raises(ProntoError), work_at(root).migration(str(source), chosen({"mapping": {"x.y": "a/b"}}),
                                                             scratch=str(place)) as migration:  # fmt: skip
        finished(migration.planning())
    assert scratches(place) == []


def test_what_a_killed_migration_left_is_removed_by_the_next_and_not_what_a_living_one_uses(
    root: Path, tmp_path: Path
) -> None:
    source, place = shared(tmp_path / "old.db", [("a.b.c.d", "v")]), tmp_path / "scratch"
    place.mkdir()
    dead = place / f"{scratch_module.PREFIX}dead"
    dead.mkdir(mode=0o700)
    (dead / "database-0").write_text("a secret")
    (dead / "scratch.lock").touch(mode=0o600)
    with work_at(root).migration(str(source), chosen({}), scratch=str(place)):
        assert not dead.exists()
        (living,) = scratches(place)
        with work_at(root).migration(str(source), chosen({}), scratch=str(place)):
            assert living.exists()
            assert len(scratches(place)) == 2


SCRATCHING = """
import sys
from prontodb.storage.scratch import Scratch
print("ready", flush=True)
input()
for _ in range(60):
    made = Scratch.make(sys.argv[1])
    made.folder.create("database-0", b"x" * 10_000)
    assert made.folder.names() == ["database-0", "scratch.lock"]
    made.close()
"""


def test_those_who_tidy_up_and_those_who_are_at_it_are_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    assert together(SCRATCHING, [(tmp_path / "scratch",)] * 3) == ["", "", ""]
    assert scratches(tmp_path / "scratch") == []


def test_a_disk_without_room_for_the_copies_is_told_before_anything_is_copied(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_root(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(ProntoError, match="--scratch"):
        migrated(root, old)


def test_an_address_that_is_used_meanwhile_is_told_and_the_others_go_on(root: Path, tmp_path: Path) -> None:
    source = shared(tmp_path / "old.db", [("a.b.c.d", "1"), ("c.d.e.f", "2")])
    with Parts(root).lifecycle.hold(Address("a", "b"), "something else"):
        report = migrated(root, source, work=work_at(root, wait_s=0.1))
    assert [address for address, _ in report.failed] == ["a/b"]
    assert reasons(report) == {"failed": 1}
    assert values(root, "c/d") == {"e.f": "2"}
    assert counts(migrated(root, source)) == (2, 0, 0, 0), "the second run does the rest"

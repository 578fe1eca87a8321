"""What a source may be: files, folders with cursor files, old backups; and whose each row is."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from prontodb.errors import InvalidInputError, InvalidSourceError
from tests.migrating import counts, migrated, reasons, values
from tests.old_sources import (
    T0,
    cursor,
    database,
    fingerprint,
    old_root,
    packed,
    rust,
    with_live_log,
)


def test_each_database_of_an_old_root_goes_to_its_cursor(root: Path, tmp_path: Path) -> None:
    report = migrated(root, old_root(tmp_path))
    assert counts(report) == (7, 0, 0, 0)
    assert values(root, "_default/_default") == {"p.n.oldest": "pronto.db", "p.n.main": "main", "p.n.auto": "auto"}
    assert values(root, "_default/work") == {"p.n.work": "work", "M.q.n.behind": "meta"}
    assert values(root, "_default/home") == {"p.n.home": "home"}
    assert values(root, "_default/pronto") == {"p.n.pronto": "pronto"}
    assert {one.old for one in report.places} == {
        "pronto.db", "main/pronto.main.prdb", "pronto.main.prdb", "work/work.db", "home/pronto.home.prdb",
        "pronto/pronto.db",
    }  # fmt: skip


def test_cursor_files_say_whose_a_database_is(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "work.alice.cursor", old / "work" / "work.db", "alice")
    cursor(old / "work" / "cursors" / "desk.bob.cursor", "work.db", "bob")  # a second one, by a relative path
    cursor(old / "work" / "cursors" / "m.carl.cursor", old / "work" / "work.db", "carl", meta_context="M")
    cursor(old / "cursors" / "old.dora.cursor", old / "home" / "pronto.home.prdb", "dora")  # the older place
    cursor(old / "main" / "cursors" / "wrong.eve.cursor", old / "pronto" / "pronto.db", "eric")  # the field counts
    cursor(old / "main" / "cursors" / "solo.cursor", old / "pronto.main.prdb")  # nobody named: the default user
    report = migrated(root, old)
    assert values(root, "alice/work") == values(root, "bob/desk") == {"p.n.work": "work"}
    assert values(root, "carl/m") == {"q.n.behind": "meta"}, "a meta context is taken off the project"
    assert values(root, "dora/old") == {"p.n.home": "home"}
    assert values(root, "eric/wrong") == {"p.n.pronto": "pronto"}
    assert values(root, "_default/solo") == {"p.n.auto": "auto"}
    assert values(root, "_default/work") == {}, "cursor files count more than the name"
    assert (report.read, *counts(report)) == (7, 7, 0, 0, 0), "a row that goes to two addresses is one row"


def test_a_meta_context_alone_leaves_the_other_rows_to_the_name(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "m.carl.cursor", "work.db", "carl", meta_context="M")
    migrated(root, old)
    assert values(root, "carl/m") == {"q.n.behind": "meta"}
    assert values(root, "_default/work") == {"p.n.work": "work"}


def test_a_cursor_file_that_leaves_its_cursor_open_is_not_guessed_at(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(old / "work" / "work.db", [("p", "n", "k", "v")])
    name = "work/cursors/v1.alice.cursor"
    cursor(old / name, "work.db", "default")
    report = migrated(root, old)
    assert reasons(report) == {"no_address": 1}
    assert counts(migrated(root, old, mapping={name: "alice/v1"})) == (1, 0, 0, 0)
    assert values(root, "alice/v1") == {"p.n.k": "v"}


def test_a_cursor_file_may_name_a_database_outside(root: Path, tmp_path: Path) -> None:
    old, elsewhere = old_root(tmp_path), rust(tmp_path / "far" / "away.db", [("p", "n", "far", "away")])
    cursor(old / "cursors" / "far.alice.cursor", elsewhere, "alice")
    before = fingerprint(elsewhere)
    migrated(root, old)
    assert values(root, "alice/far") == {"p.n.far": "away"}
    assert fingerprint(elsewhere) == before


def test_the_cursor_files_of_a_root_that_was_copied_mean_the_copy(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "work.alice.cursor", old / "work" / "work.db", "alice")
    copy = tmp_path / "copy"
    shutil.copytree(old, copy)
    with database(old / "work" / "work.db") as connection:
        connection.execute("UPDATE kv SET value = 'changed since'").close()
    migrated(root, copy)
    assert values(root, "alice/work")["p.n.work"] == "work"
    shutil.rmtree(old)
    assert migrated(root, copy).there == 7, "and nothing of the first place is needed"


def test_a_home_that_is_another_one_now_is_no_obstacle(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "a.alice.cursor", "~/.local/data/odx/prontodb/work/work.db", "alice")
    cursor(old / "cursors" / "b.bob.cursor", "/home/gone/.local/data/odx/prontodb/home/pronto.home.prdb", "bob")
    migrated(root, old)
    assert (values(root, "alice/a")["p.n.work"], values(root, "bob/b")) == ("work", {"p.n.home": "home"})


def test_a_cursor_file_without_its_database_is_told_and_stops_nothing(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "cursors" / "gone.alice.cursor", "/nowhere/gone.db", "alice")
    report = migrated(root, old)
    assert any("gone.alice.cursor" in note for note in report.notes)
    assert report.is_complete


def test_default_projects_of_cursors_are_told_for_people_to_know(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "w.alice.cursor", "work.db", "alice", default_project="proj")
    report = migrated(root, old)
    assert any("proj.default.KEY" in note for note in report.notes)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"database_path": 5}', '{"user": "x"}', '{"database_path": "a.db", "user": ["x"]}',
     '{"database_path": "a", "database_path": "b"}', "[" * 100_000, "\x00", '{"database_path": NaN}'],
)  # fmt: skip
def test_a_broken_cursor_file_stops_the_whole_until_it_is_left_out(root: Path, tmp_path: Path, text: str) -> None:
    old = old_root(tmp_path)
    path = old / "cursors" / "bad.alice.cursor"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InvalidSourceError, match=r"bad\.alice\.cursor"):
        migrated(root, old)
    assert list(root.iterdir()) == []
    assert migrated(root, old, skip=("cursors/bad.alice.cursor",)).is_complete


def test_a_database_that_no_rule_knows_is_reported_until_it_is_mapped(root: Path, tmp_path: Path) -> None:
    source = rust(tmp_path / "some" / "copy of it.bak", [("p", "n", "k", "v")])
    assert reasons(migrated(root, source)) == {"no_address": 1}
    assert migrated(root, source, mapping={"copy of it.bak": "alice/work"}).is_complete
    assert values(root, "alice/work") == {"p.n.k": "v"}


def test_a_map_overrules_names_and_cursor_files(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "work.alice.cursor", "work.db", "alice")
    migrated(root, old, mapping={"work/work.db": "t/one", "home/pronto.home.prdb": "t/two"})
    assert values(root, "t/one") == {"p.n.work": "work", "M.q.n.behind": "meta"}
    assert values(root, "t/two") == {"p.n.home": "home"}
    with pytest.raises(InvalidInputError, match="does not hold"):
        migrated(root, old, mapping={"nothing.db": "t/x"})


def test_several_databases_of_one_address_are_weighed_by_time(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    rust(old / "pronto.db", [
        ("p", "n", "k", "older", None, T0), ("p", "n", "same", "s", None, T0), ("p", "n", "tie", "1", None, T0),
        ("p", "n", "undated", "1", None, "x"),
    ])  # fmt: skip
    rust(old / "main" / "pronto.main.prdb", [
        ("p", "n", "k", "newer", None, T0 + 1), ("p", "n", "same", "s", None, T0), ("p", "n", "tie", "2", None, T0),
        ("p", "n", "undated", "2", None, T0),
    ])  # fmt: skip
    report = migrated(root, old)
    assert counts(report) == (2, 0, 2, 4)
    assert reasons(report) == {"unclear_which": 4}
    assert values(root, "_default/_default") == {"p.n.k": "newer", "p.n.same": "s"}
    # Each of its own, nothing is in doubt.
    report = migrated(root, old, mapping={"pronto.db": "t/old", "main/pronto.main.prdb": "t/new"})
    assert counts(report) == (8, 0, 0, 0)


# Single files and old backups


def test_a_single_database_is_its_cursors(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "work.alice.cursor", "work.db", "alice")
    cursor(old / "cursors" / "m.carl.cursor", old / "work" / "work.db", "carl", meta_context="M")
    cursor(old / "cursors" / "other.dora.cursor", old / "home" / "pronto.home.prdb", "dora")
    report = migrated(root, old / "work" / "work.db")
    assert counts(report) == (2, 0, 0, 0)
    assert (values(root, "alice/work"), values(root, "carl/m")) == ({"p.n.work": "work"}, {"q.n.behind": "meta"})
    migrated(root, old / "home" / "pronto.home.prdb")
    assert values(root, "dora/other") == {"p.n.home": "home"}


@pytest.mark.parametrize("name", ["prontodb_work_20250101.tar.gz", "prontodb_work_20250101_n02.tar.gz", "any.tgz"])
def test_an_old_backup_is_read_like_its_folder(root: Path, tmp_path: Path, name: str) -> None:
    old = old_root(tmp_path)
    cursor(old / "work" / "cursors" / "m.carl.cursor", "work.db", "carl", meta_context="M")
    archive = packed(old / "work", tmp_path / name)
    before = fingerprint(archive)
    report = migrated(root, archive)
    assert counts(report) == (2, 0, 0, 0)
    assert (values(root, "_default/work"), values(root, "carl/m")) == ({"p.n.work": "work"}, {"q.n.behind": "meta"})
    assert fingerprint(archive) == before


def test_a_backup_without_its_folder_is_that_of_its_name(root: Path, tmp_path: Path) -> None:
    source = rust(tmp_path / "work.db", [("p", "n", "k", "v")])
    archive = tmp_path / "prontodb_work_20250101.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname="./work.db")
    migrated(root, archive)
    bare = shutil.copy(source, tmp_path / "prontodb_home_20250101.db")
    main = shutil.copy(source, tmp_path / "prontodb_main_20250101_n03.db")
    migrated(root, Path(bare))
    migrated(root, Path(main))
    for address in ("_default/work", "_default/home", "_default/_default"):
        assert values(root, address) == {"p.n.k": "v"}


def test_a_log_inside_a_backup_counts(root: Path, tmp_path: Path) -> None:
    folder = with_live_log(tmp_path / "work")
    migrated(root, packed(folder, tmp_path / "prontodb_work_20250101.tar.gz"))
    assert values(root, "_default/work") == {"p.n.k": "in the file", "p.n.late": "in the log"}


def test_backups_inside_an_old_root_are_no_part_of_it(root: Path, tmp_path: Path) -> None:
    old = old_root(tmp_path)
    packed(old / "work", old / "prontodb_work_20250101.tar.gz")
    rust(old / "prontodb_main_20240101.db", [("p", "n", "deleted since", "v")])
    report = migrated(root, old)
    assert report.read == 7
    assert sum("is an old backup" in note for note in report.notes) == 2


def tampered(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("../out.db"), member("/etc/out.db"), member("work/../../out.db"), member("a//b.db"),
        member("work/work.db", tarfile.SYMTYPE, "/etc/passwd"), member("work/work.db", tarfile.LNKTYPE, "/etc/passwd"),
        member("work/work.db", tarfile.FIFOTYPE), member("work/work.db", tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)  # fmt: skip
def test_a_backup_with_other_things_than_files_in_it_is_refused(
    root: Path, tmp_path: Path, info: tarfile.TarInfo
) -> None:
    archive = tampered(tmp_path / "prontodb_x_20250101.tar.gz", (info, b""))
    with pytest.raises(InvalidSourceError, match="it was not read"):
        migrated(root, archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "root"]


def test_a_backup_with_one_file_twice_is_refused(root: Path, tmp_path: Path) -> None:
    data = rust(tmp_path / "work.db", [("p", "n", "k", "v")]).read_bytes()
    archive = tampered(tmp_path / "b.tar.gz", (member("w/w.db"), data), (member("w/w.db"), data))
    with pytest.raises(InvalidSourceError, match="twice"):
        migrated(root, archive)


@pytest.mark.parametrize("keep", [3, 20, 0.5, 0.95])
def test_a_cut_backup_is_refused(root: Path, tmp_path: Path, keep: float) -> None:
    whole = packed(old_root(tmp_path), tmp_path / "b.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    with pytest.raises(InvalidSourceError):
        migrated(root, cut)
    assert list(root.iterdir()) == []

"""A second place for backups: the same files, the same tests, resumed when interrupted, never half there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from prontodb.backup import second
from prontodb.backup.container import Container
from prontodb.backup.manifest import MANIFEST_FILE
from prontodb.backup.second import COPYING_PREFIX, FolderPlace, Name, copy_out
from prontodb.errors import ProntoError, StorageFullError
from tests.backups import Root, finished, image, states_at
from tests.unit.cli.harness import Cli
from tests.unit.stores import done

OURS = (".backups.lock", ".scratch.lock")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Another disk, as it were."""
    made = tmp_path / "disk" / "prontodb"
    made.parent.mkdir()
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def shop(root: Path, place: Path) -> Iterator[Root]:
    """A root with three addresses whose settings name the second place, and keep one backup."""
    opened = Root(root)
    for address in ("a/x", "a/y", "b/z"):
        done(opened.at(address).set_many({f"k{n}": f"{address} {n}" for n in range(5)}))
    opened.close()
    retention = {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}
    settings = {"format": 1, "backups": {"second_place": str(place), "retention": retention}}
    file = root / "registry" / "global_config.json"
    file.write_text(json.dumps(settings))
    file.chmod(0o600)
    yield opened
    opened.close()


def change(shop: Root, value: str) -> None:
    done(shop.at("a/x").set("k1", value))
    shop.close()


def files(folder: Path) -> dict[str, tuple[int, str]]:
    return image(folder, but=OURS)


def test_every_backup_is_there_byte_for_byte_and_works_from_there_alone(
    shop: Root, place: Path, tmp_path: Path
) -> None:
    copied = [shop.backup().copied]
    for number in range(3):
        change(shop, str(number))
        copied.append(shop.backup(full=number == 2).copied)
    assert copied == [(one,) for one in shop.ids()]
    assert files(place) == files(shop.path / "backups")
    assert shop.verify(str(place)).is_whole
    finished(shop.work.restoring(str(place), into=str(tmp_path / "new")).steps())
    assert states_at(tmp_path / "new") == shop.states()


def test_where_the_folder_is_not_there_nothing_is_made_and_the_next_backup_brings_all(shop: Root, place: Path) -> None:
    place.rmdir()
    report = shop.backup()
    assert report.id is not None
    assert "mount its disk" in str(report.not_copied)
    assert not place.exists()
    place.mkdir(mode=0o700)
    # Nothing has changed, so no backup is made; what is missing there is brought all the same.
    again = shop.backup()
    assert (again.id, again.copied, again.not_copied) == (None, (report.id,), None)
    assert files(place) == files(shop.path / "backups")


class Interrupted(FolderPlace):
    """A place that goes away after so many files, in the middle of one."""

    def __init__(self, path: str, files: int) -> None:
        super().__init__(path)
        self.left = files
        self.taken: list[Name] = []

    def put(self, name: Name, data: Iterable[bytes]) -> None:
        self.left -= 1
        self.taken.append(name)
        if self.left < 0:
            begun = iter(data)

            def cut() -> Iterator[bytes]:
                yield next(begun)[:5]
                raise StorageFullError("the disk went away")

            data = cut()
        super().put(name, data)


@pytest.mark.parametrize("so_many", range(7))
def test_an_interrupted_copy_is_not_there_and_goes_on_where_it_stopped(shop: Root, place: Path, so_many: int) -> None:
    there = Container(str(place), by_kind=True)
    (place / "full").mkdir(mode=0o700)
    # Without the settings, so that the copy is ours to interrupt.
    (shop.path / "registry" / "global_config.json").unlink()
    shop.backup()
    change(shop, "later")
    shop.backup()
    stopped = Interrupted(str(place), so_many)
    try:
        finished(copy_out(shop.container, stopped, str(place)))
    except StorageFullError:
        listing = there.list()
        # Full: three files and a manifest; incremental: one file and a manifest.
        assert (len(listing.backups), listing.unreadable) == (1 if so_many >= 4 else 0, ())
    resumed = Interrupted(str(place), 100)
    finished(copy_out(shop.container, resumed, str(place)))
    assert len(resumed.taken) == 6 - min(so_many, 6)
    assert files(place) == files(shop.path / "backups")
    assert list(place.rglob("*.tmp")) == []


def test_a_crash_between_the_manifest_and_the_name_goes_on(shop: Root, place: Path) -> None:
    shop.backup()
    (found,) = (place / "full").iterdir()
    found.rename(found.with_name(COPYING_PREFIX + found.name))
    assert Container(str(place), by_kind=True).list().backups == ()
    report = shop.backup()
    assert report.copied == tuple(shop.ids())
    assert files(place) == files(shop.path / "backups")


def test_a_damaged_backup_is_not_put_there(shop: Root, place: Path) -> None:
    (shop.path / "registry" / "global_config.json").unlink()
    shop.backup()
    (folder,) = (shop.path / "backups" / "full").iterdir()
    file = folder / "a@x.db"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    damaged = shop.ids()[0]
    change(shop, "later")
    sound = shop.full().id
    report = finished(copy_out(shop.container, FolderPlace(str(place)), str(place)))
    (said,) = report.not_copied
    assert f"backup {damaged} is damaged" in said
    assert report.copied == (sound,), "the others go on"
    assert [one.id for one in Container(str(place), by_kind=True).list().backups] == [sound]
    assert [path.parent.name for path in place.rglob("a@x.db")] == [sound]


def test_what_is_gone_here_before_it_was_whole_there_is_cleared_away(shop: Root, place: Path) -> None:
    shop.backup()
    half = place / "full" / f"{COPYING_PREFIX}20200101T000000Z-00000000"
    half.mkdir(mode=0o700)
    (half / "a@x.db").write_bytes(b"x")
    (half / "a@x.db").chmod(0o600)
    shop.backup()
    assert not half.exists()
    assert files(place) == files(shop.path / "backups")


def test_it_is_pruned_like_the_first_and_a_missing_one_is_told(shop: Root, place: Path) -> None:
    for number in range(3):
        change(shop, str(number))
        shop.full()
    gone = shop.ids()[:2]
    report = finished(shop.work.prune())
    assert set(report.removed) == set(gone)
    assert report.second_place is not None
    assert set(report.second_place.removed) == set(gone)
    assert files(place) == files(shop.path / "backups")
    place.rename(place.with_name("unmounted"))
    later = finished(shop.work.prune())
    assert "mount its disk" in str(later.not_pruned)
    assert not place.exists()


def test_a_place_removes_a_backup_from_one_instant_on(shop: Root, place: Path) -> None:
    shop.backup()
    there = FolderPlace(str(place))
    names = sorted(there.list(), key=lambda name: name[2] != MANIFEST_FILE)
    assert b"".join(there.get(names[0])) == (place / "/".join(names[0])).read_bytes()
    there.delete(names[0])
    assert Container(str(place), by_kind=True).list() == Container(str(place / "nothing"), by_kind=True).list()
    assert set(there.list()) == set(names[1:])
    for name in (*names, names[0]):
        there.delete(name)
    assert there.list() == {}
    assert list((place / "full").iterdir()) == []


def test_from_a_shell_its_absence_is_an_error_and_the_backup_stands(shop: Root, place: Path) -> None:
    cli = Cli(shop.path)
    place.rmdir()
    outcome = cli("backup")
    assert outcome.code == 1
    assert "not copied to the second place" in outcome.err
    assert len(shop.ids()) == 1
    place.mkdir(mode=0o700)
    assert "copied 1 backup to the second place" in cli.ok("backup").err


def test_its_modes_are_private_under_any_umask(shop: Root, place: Path) -> None:
    before = os.umask(0)
    try:
        shop.backup()
    finally:
        os.umask(before)
    assert {path.lstat().st_mode & 0o777 for path in [place, *place.rglob("*")]} == {0o600, 0o700}


def test_a_link_in_it_is_not_followed(shop: Root, place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (place / "full").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProntoError):
        FolderPlace(str(place)).list()
    assert shop.backup().not_copied is not None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert second.COPYING_PREFIX.startswith(".")


def other_root(tmp_path: Path, place: Path) -> Root:
    """Another root that uses the same place."""
    path = tmp_path / "other"
    opened = Root(path)
    done(opened.at("z/z").set("k", "other"))
    opened.close()
    settings = {"format": 1, "backups": {"second_place": str(place)}}
    (path / "registry").mkdir(mode=0o700, exist_ok=True)
    file = path / "registry" / "global_config.json"
    file.write_text(json.dumps(settings))
    file.chmod(0o600)
    return opened


def test_two_roots_in_one_place_neither_build_on_nor_prune_nor_restore_each_others(
    shop: Root, place: Path, tmp_path: Path
) -> None:
    other = other_root(tmp_path, place)
    shared = tmp_path / "shared"
    for number in range(3):
        change(shop, str(number))
        done(other.at("z/z").set("k", str(number)))
        other.close()
        mine, theirs = shop.full(), other.full()
        assert (mine.not_copied, theirs.not_copied) == (None, None)
        made = [shop.backup(output=str(shared)), other.backup(output=str(shared))]
    assert all(report.parent is not None for report in made)
    finished(shop.work.prune())  # keeps one
    there = {one.id: one.root for one in Container(str(place), by_kind=True).list().backups}
    assert sorted(there.values()).count(other.work.root_id()) == 3
    assert sorted(there.values()).count(shop.work.root_id()) == 1
    for root, report in ((shop, made[0]), (other, made[1])):
        for source in (place, shared):
            into = tmp_path / f"{root.path.name}-{source.name}"
            finished(root.work.restoring(str(source), into=str(into)).steps())
            assert states_at(into) == root.states()
        finished(root.work.restoring(report.path, into=str(tmp_path / f"named-{root.path.name}")).steps())
    third = Root(tmp_path / "third")
    with pytest.raises(ProntoError, match=r"backups of 2 roots lie in .*name the one"):
        third.work.restoring(str(place))


def test_what_is_damaged_there_is_found_and_brought_again(shop: Root, place: Path) -> None:
    first = shop.backup()
    (copy,) = place.rglob("a@x.db")
    data = copy.read_bytes()
    copy.write_bytes(data[:-1] + b"?")
    assert shop.verify(str(place)).damaged == {first.id}
    assert shop.verify().is_whole, "the first is not blamed for the second"
    assert not shop.work.checks()[str(first.id)].problems
    assert shop.work.checks(str(place))[str(first.id)].problems
    assert "damaged" in Cli(shop.path).ok("backup", "list", str(place)).text
    # A prune believes neither a damaged copy nor its own: the last good state stays.
    finished(shop.work.prune())
    report = shop.backup()
    assert (report.id, report.copied) == (None, (first.id,))
    assert copy.read_bytes() == data
    assert files(place) == files(shop.path / "backups")
    assert shop.verify(str(place)).is_whole


@pytest.mark.parametrize("where", ["backups", "registry/here", ""])
def test_a_second_place_within_the_root_is_refused_before_any_work(shop: Root, where: str) -> None:
    file = shop.path / "registry" / "global_config.json"
    file.write_text(json.dumps({"format": 1, "backups": {"second_place": str(shop.path / where)}}))
    with pytest.raises(ProntoError):
        shop.backup()
    assert shop.ids() == []


def test_where_nothing_may_be_pruned_there_it_is_told(shop: Root, place: Path) -> None:
    shop.backup()
    (manifest,) = place.rglob(MANIFEST_FILE)
    manifest.write_text("{}")
    cli = Cli(shop.path)
    for words in ((), ("--dry-run",)):
        outcome = cli("backup", "prune", *words)
        assert outcome.code == 1
        assert "in the second place nothing" in outcome.err
        assert "a manifest cannot be read" in outcome.err
    outcome = cli("jobs", "once", "prune")
    assert outcome.code == 1
    assert "the second place was not pruned: a manifest cannot be read" in outcome.err


def test_a_root_that_lost_its_index_knows_its_own_backups_again(shop: Root, place: Path, tmp_path: Path) -> None:
    other = other_root(tmp_path, place)
    shop.full()
    other.full()
    before = shop.work.root_id()
    for file in (shop.path / "registry").glob("jobs.db*"):
        file.unlink()
    again = Root(shop.path)
    assert again.work.root_id() == before
    finished(again.work.restoring(str(place), into=str(tmp_path / "into")).steps())
    assert states_at(tmp_path / "into") == shop.states()

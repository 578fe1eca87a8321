"""Folders of backups: what is listed, what is left over, who may write, and whose folder it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.backup import container as container_module
from prontodb.backup.container import Container, faults, new_backup_id
from prontodb.backup.manifest import MANIFEST_FILE, Manifest
from prontodb.backup.place import located
from prontodb.errors import (
    BackupNotFoundError,
    BusyError,
    CorruptError,
    InvalidInputError,
    ProntoError,
    UnsafePathError,
)
from prontodb.model.layout import Layout
from prontodb.storage.files import open_root
from tests.backups import edited
from tests.unit.backup.test_manifest import FIRST, SECOND, manifest, piece

THIRD = "20261121T050000Z-00000003"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a container may come to be."""
    return tmp_path / "backups"


@pytest.fixture(params=[True, False], ids=["root", "output"])
def container(place: Path, request: pytest.FixtureRequest) -> Container:
    return Container(str(place), by_kind=request.param)


def publish(container: Container, one: Manifest) -> Path:
    """Put a backup into a container whose files are all b'x'."""
    with container.hold("test", 0):
        staged = container.stage(one.id, one.kind)
        for part in one.pieces:
            staged.folder.create(part.file, b"x")
        staged.publish(one)
    with container.open(one.id) as folder:
        return Path(folder.path)


def names(container: Container) -> list[str]:
    return [one.id for one in container.list().backups]


@pytest.fixture
def steps() -> Iterator[list[str]]:
    """The steps that are gone through."""
    seen: list[str] = []
    container_module.FAILPOINT.append(seen.append)
    yield seen
    container_module.FAILPOINT.remove(seen.append)


# Listing


def test_what_does_not_exist_holds_nothing_and_is_not_made(container: Container, place: Path) -> None:
    assert container.list().backups == ()
    assert not container.holds(FIRST)
    with pytest.raises(BackupNotFoundError):
        container.open(FIRST)
    assert not place.exists()


def test_backups_are_listed_by_when_they_were_made_and_not_by_their_names(container: Container) -> None:
    publish(container, manifest(id=THIRD, created_at_ms=1))
    publish(container, manifest(id=FIRST, created_at_ms=3))
    publish(container, manifest(id=SECOND, created_at_ms=2, parent=FIRST))
    assert names(container) == [THIRD, SECOND, FIRST]


def test_kinds_lie_apart_in_a_root_and_side_by_side_elsewhere(place: Path) -> None:
    for by_kind, where in ((True, place / "full"), (False, place)):
        assert (
            publish(Container(str(place), by_kind=by_kind), manifest(id=FIRST if by_kind else SECOND)).parent == where
        )
    # Each way reads both.
    assert names(Container(str(place), by_kind=True)) == names(Container(str(place), by_kind=False)) == [FIRST, SECOND]


def test_a_backup_in_the_making_is_not_there(container: Container, steps: list[str]) -> None:
    with container.hold("test", 0):
        staged = container.stage(FIRST, "full")
        staged.folder.create(MANIFEST_FILE, manifest().encode())
        assert (names(container), container.list().unreadable, container.holds(FIRST)) == ([], (), False)
        staged.folder.remove(MANIFEST_FILE)
        staged.publish(manifest())
        assert names(container) == [FIRST]
    assert steps[-2:] == ["backup.manifest", "backup.published"]


def test_a_folder_with_a_backups_name_that_cannot_be_read_hides_no_other(container: Container) -> None:
    good = publish(container, manifest())
    torn, empty, other = (good.parent / f"20261121T06000{n}Z-00000009" for n in range(3))
    for folder in (torn, empty, other):
        folder.mkdir(mode=0o700)
    (torn / MANIFEST_FILE).write_bytes((good / MANIFEST_FILE).read_bytes()[:-9])
    shutil.copy(good / MANIFEST_FILE, other / MANIFEST_FILE)
    for file in (torn / MANIFEST_FILE, other / MANIFEST_FILE):
        file.chmod(0o600)
    (good.parent / "notes.txt").write_text("somebody's")
    listing = container.list()
    assert [one.id for one in listing.backups] == [FIRST]
    reasons = {broken.id: broken.reason for broken in listing.unreadable}
    assert list(reasons) == [path.name for path in (torn, empty, other)]
    for path, said in ((torn, "no manifest"), (empty, "missing"), (other, f"that of backup {FIRST}")):
        assert said in reasons[path.name]
    with pytest.raises(CorruptError, match="cannot be used"):
        listing.find(torn.name)


def test_a_link_with_a_backups_name_hides_no_other(container: Container) -> None:
    good = publish(container, manifest())
    (good.parent / SECOND).symlink_to(good)
    listing = container.list()
    assert [one.id for one in listing.backups] == [FIRST]
    assert [broken.id for broken in listing.unreadable] == [SECOND]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "two names"])
def test_a_manifest_that_is_no_file_of_its_own_is_not_read(container: Container, tmp_path: Path, kind: str) -> None:
    path = publish(container, manifest()) / MANIFEST_FILE
    path.rename(tmp_path / "aside")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "aside")
        case "pipe":
            os.mkfifo(path, 0o600)
        case "folder":
            path.mkdir(mode=0o700)
        case _:
            os.link(tmp_path / "aside", path)
    (broken,) = container.list().unreadable
    assert broken.id == FIRST


def test_the_folder_of_a_kind_that_is_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    container = Container(str(place), by_kind=True)
    publish(container, manifest())
    (place / "full").rename(tmp_path / "elsewhere")
    (place / "full").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError):
        container.list()
    with pytest.raises(UnsafePathError):
        container.hold("test", 0)


def test_a_huge_manifest_is_not_read(container: Container) -> None:
    folder = publish(container, manifest())
    os.truncate(folder / MANIFEST_FILE, 2**40)
    (broken,) = container.list().unreadable
    assert "was not read" in broken.reason


# Found by name


def test_a_backup_is_found_by_its_name_or_by_a_beginning_that_no_other_has(container: Container) -> None:
    other = FIRST[:-1] + "9"
    for name in (FIRST, other, THIRD):
        publish(container, manifest(id=name))
    listing = container.list()
    assert listing.find(FIRST).id == FIRST
    assert listing.find(THIRD[:12]).id == THIRD
    with pytest.raises(InvalidInputError, match="begins the names of 2 backups"):
        listing.find(FIRST[:-1])
    for wrong in ("x", FIRST + "0", FIRST[1:]):
        with pytest.raises(BackupNotFoundError):
            listing.find(wrong)


def test_an_empty_name_is_no_backups(container: Container) -> None:
    publish(container, manifest())
    with pytest.raises(ProntoError):
        container.list().find("")


def test_a_backup_is_found_by_its_path_and_a_container_by_its(container: Container, root: Path) -> None:
    layout = Layout(str(root))
    path = publish(container, manifest())
    assert located(layout, str(path))[2] == manifest()
    assert located(layout, f"{path}/")[2] == manifest()
    assert located(layout, container.path)[1].backups == (manifest(),)
    with pytest.raises(BackupNotFoundError):
        located(layout, f"{container.path}/nothing")
    with pytest.raises(BackupNotFoundError):
        located(layout, str(root))
    renamed = path.parent / "mine"
    path.rename(renamed)
    with pytest.raises(InvalidInputError, match="under another name"):
        located(layout, str(renamed))


@pytest.mark.parametrize("reference", ["/a\0b", "/\ud800"])
def test_what_no_path_can_be_is_refused_typed(root: Path, reference: str) -> None:
    with pytest.raises(ProntoError):
        located(Layout(str(root)), reference)


# Writing


def test_one_writes_at_a_time_and_what_crashes_left_goes_before(container: Container, place: Path) -> None:
    publish(container, manifest())
    tops = [place, place / "full", place / "incremental"]
    for top in tops:
        top.mkdir(mode=0o700, exist_ok=True)
        for name in (f".tmp-{SECOND}", f".trash-{THIRD}"):
            (top / name / "deep").mkdir(parents=True)
            (top / name / "deep" / "file").write_text("x")
    assert names(container) == [FIRST]
    with container.hold("test", 0):
        assert [path.name for top in tops for path in top.iterdir() if path.name.startswith((".tmp", ".trash"))] == []
        with pytest.raises(BusyError, match="test"):
            container.hold("another", 0)
        assert names(container) == [FIRST]
    container.hold("another", 0).release()


def test_what_is_discarded_leaves_nothing(container: Container, place: Path) -> None:
    with container.hold("test", 0):
        staged = container.stage(FIRST, "full")
        staged.folder.create("a@b.db", b"x")
        staged.discard()
    assert [path.name for path in place.rglob("*") if FIRST in path.name or "@" in path.name] == []


def test_a_removed_backup_is_gone_at_once_and_its_files_after(container: Container, steps: list[str]) -> None:
    publish(container, manifest(piece()))
    path = publish(container, manifest(id=SECOND, parent=FIRST))
    seen: list[list[str]] = []
    container_module.FAILPOINT.append(lambda _: seen.append(names(container)))
    try:
        with container.hold("test", 0):
            container.remove(FIRST)
            container.remove(THIRD)
    finally:
        container_module.FAILPOINT.pop()
    assert (seen, steps[-1], names(container)) == ([[SECOND]], "prune.moved", [SECOND])
    assert [one.name for one in path.parent.iterdir() if one.name.startswith(".trash")] == []


def test_everything_in_it_is_closed_to_others_whatever_the_umask(container: Container, place: Path) -> None:
    before = os.umask(0)
    try:
        publish(container, manifest(piece()))
        with container.scratch() as folder:
            folder.create("x", b"")
            open_ = [path for path in [place, *place.rglob("*")] if path.stat().st_mode & 0o077]
    finally:
        os.umask(before)
    assert open_ == []


# Whose folder


@pytest.mark.parametrize("name", ["photos", "keystore.db", ".bashrc", "Full", "20261121"])
def test_a_folder_that_holds_other_things_is_refused_and_stays_as_it_is(
    container: Container, place: Path, name: str
) -> None:
    place.mkdir(mode=0o755)
    (place / name).write_text("x")
    with pytest.raises(UnsafePathError, match="holds other things"):
        container.hold("test", 0)
    assert os.listdir(place) == [name]
    assert place.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_taken_and_closed(container: Container, place: Path) -> None:
    place.mkdir(mode=0o755)
    publish(container, manifest())
    assert place.stat().st_mode & 0o777 == 0o700


def test_what_somebody_has_in_a_folder_beside_one_called_full_is_never_removed(
    container: Container, place: Path
) -> None:
    (place / "full").mkdir(parents=True)
    place.chmod(0o700)
    (place / "full").chmod(0o700)
    (place / ".tmp-thesis").mkdir()
    (place / ".tmp-thesis" / "only copy").write_text("years of work")
    try:
        container.hold("test", 0).release()
    except UnsafePathError:
        pass
    assert (place / ".tmp-thesis" / "only copy").exists()


def test_a_file_or_a_link_to_nowhere_is_no_container(container: Container, place: Path) -> None:
    place.write_text("x")
    with pytest.raises(ProntoError):
        container.hold("test", 0)
    place.unlink()
    place.symlink_to("/nowhere/at/all")
    with pytest.raises(ProntoError):
        container.hold("test", 0)


def test_a_container_that_others_can_write_is_refused(container: Container, place: Path) -> None:
    publish(container, manifest())
    place.chmod(0o777)
    with pytest.raises(UnsafePathError, match="written by others"):
        container.list()
    with pytest.raises(UnsafePathError, match="written by others"):
        container.hold("test", 0)


# Trials


def test_one_tries_at_a_time_and_nothing_of_it_stays(container: Container, place: Path) -> None:
    publish(container, manifest())
    (place / ".scratch").mkdir(mode=0o700)
    (place / ".scratch" / "left").write_text("by a crash")
    with container.scratch() as folder:
        assert folder.names() == []
        folder.create("x", b"1")
        with pytest.raises(BusyError), container.scratch():
            pass
    assert not (place / ".scratch").exists()
    with pytest.raises(ZeroDivisionError), container.scratch() as folder:
        folder.create("x", b"1")
        raise ZeroDivisionError
    assert not (place / ".scratch").exists()
    assert names(container) == [FIRST]


# Files against the manifest


def test_each_fault_of_a_folder_is_named(container: Container) -> None:
    one = manifest(piece("a/whole", size_bytes=1), piece("a/gone"), piece("a/long", size_bytes=2), piece("a/other"))
    path = publish(container, one)
    (path / "a@gone.db").unlink()
    (path / "more").write_text("x")
    (path / "a@other.db").unlink()
    (path / "a@other.db").symlink_to("/etc/hostname")
    with open_root(str(path)) as folder:
        found = list(faults(folder, one))
    assert [is_file for _, is_file in found] == [False, True, True, True, True]
    for (fault, _), said in zip(
        found, ("'more' does not belong", "hash is another", "missing", "not 2", "link"), strict=True
    ):
        assert fault is not None
        assert said in fault


def test_names_of_new_backups_are_the_time_in_utc_and_never_the_same() -> None:
    found = {new_backup_id(1_700_000_000_000) for _ in range(100)}
    assert len(found) == 100
    assert {name[:17] for name in found} == {"20231114T221320Z-"}


def test_an_edited_manifest_with_its_hash_is_one_again(container: Container) -> None:
    """The hash is no signature: what contradicts the files is found in them (test_backup_damage.py)."""
    path = publish(container, manifest())
    edited(path / MANIFEST_FILE, lambda found: found.update(unchanged=5))
    assert container.list().backups[0].unchanged == 5

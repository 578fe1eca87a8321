"""Backups by what they hold: every address row for row at one instant, and nothing else touched or waited for."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.create import MAX_LINKS, BackupReport
from prontodb.engine.sqlite import folders
from prontodb.errors import (
    AddressNotFoundError,
    InvalidAddressError,
    InvalidInputError,
    ProntoError,
    UnsafePathError,
)
from prontodb.model.address import Address
from prontodb.model.history import Fact, Mark
from tests.backups import Root, edited, finished, image, states_at
from tests.checking import keystore_faults
from tests.managing import ran
from tests.unit.stores import done

QUIET = ("locks", "backups", "jobs.db", "jobs.db-wal", "jobs.db-shm")


@pytest.fixture
def shop(root: Path) -> Iterator[Root]:
    """A root with four addresses of two users."""
    opened = Root(root)
    for address in ("a/x", "a/y", "b/x", "b/z"):
        done(opened.at(address).set_many({f"k{n}": f"{address} {n}" for n in range(5)}))
    yield opened
    opened.close()
    for found in folders.listed(opened.layout):
        if (root / "addresses" / str(found) / "keystore.db").exists():
            assert keystore_faults(str(root), found) == []


def restored(shop: Root, tmp_path: Path, reference: str | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    """What a backup holds, restored into another root."""
    into = tmp_path / f"into-{len(os.listdir(tmp_path))}"
    report = shop.restore(reference, into=str(into), **options)
    assert report.failed == ()
    return states_at(into)


def counts(report: BackupReport) -> tuple[int, int, int]:
    return report.snapshots, report.segments, report.unchanged


# Full and incremental


def test_a_full_backup_and_each_increment_hold_every_address_as_it_was(shop: Root, tmp_path: Path) -> None:
    made = [(shop.full(), shop.states())]
    done(shop.at("a/x").set("k1", "changed"))
    done(shop.at("b/z").delete("k2"))
    made.append((shop.backup(), shop.states()))
    done(shop.at("a/x").set_many({"k1": "again", "new": "ä\x00\n"}))
    made.append((shop.backup(), shop.states()))
    assert [counts(report) for report, _ in made] == [(4, 0, 0), (0, 2, 2), (0, 1, 3)]
    assert [report.kind for report, _ in made] == ["full", "incremental", "incremental"]
    assert [report.parent for report, _ in made] == [None, made[0][0].id, made[1][0].id]
    for report, states in made:
        assert restored(shop, tmp_path, report.id) == states
    assert shop.verify().is_whole


def test_what_did_not_change_costs_nothing_and_no_backup_is_made_of_it(shop: Root) -> None:
    full = shop.full()
    before = image(shop.path / "backups")
    again = shop.backup()
    assert (again.id, again.parent, counts(again), again.size_bytes) == (None, full.id, (0, 0, 4), 0)
    assert image(shop.path / "backups") == before
    done(shop.at("a/x").set("k1", "changed"))
    report = shop.backup()
    assert [piece.address for piece in shop.manifest(report).pieces] == ["a/x"]
    assert sorted(os.listdir(report.path or "")) == ["a@x.jsonl.zst", "manifest.json"]


def test_an_increment_is_as_large_as_the_change_not_as_the_keystore(shop: Root) -> None:
    for begin in range(5):
        done(shop.at("a/x").set_many({f"big{begin}.{n}": os.urandom(500).hex() for n in range(200)}))
    assert shop.full().size_bytes > 1_000_000
    done(shop.at("a/x").set("k1", "changed"))
    assert shop.backup().size_bytes < 1_000


def test_without_an_address_there_is_nothing_to_back_up(root: Path) -> None:
    empty = Root(root)
    assert (empty.full().id, empty.backup().id, empty.ids()) == (None, None, [])


def test_a_keystore_without_entries_and_one_whose_entries_all_went_are_held_too(shop: Root, tmp_path: Path) -> None:
    shop.lifecycle.create(Address("c", "empty"))
    shop.full()
    done(shop.at("a/x").clear("k"))
    shop.backup()
    found = restored(shop, tmp_path)
    assert found == shop.states()
    assert (found["c/empty"]["entries"], found["a/x"]["entries"]) == ([], [])


@pytest.mark.plain("it reads the file from another process")
def test_what_a_manifest_says_of_a_keystore_is_so(shop: Root) -> None:
    (shop.path / "addresses/a/x/metadata.json").write_text(
        json.dumps({"format": 1, "created_at": 77, "encryption": None, "labels": {"team": "ä"}})
    )
    full = shop.manifest(shop.full())
    piece = {one.address: one for one in full.pieces}["a/x"]
    journal = shop.state("a/x")["journal"]
    assert (piece.revision, piece.chain, piece.floor) == (journal[-1][0], journal[-1][5].hex(), 0)
    assert (piece.entries, piece.created_at_ms, dict(piece.labels)) == (5, 77, {"team": "ä"})
    assert (full.created_at_ms, full.unchanged, full.gone, full.failed) == (shop.clock.wall_ms(), 0, (), ())


# Addresses that come and go


@pytest.mark.plain("to delete an encrypted address is to make its backups unreadable")
def test_new_deleted_and_renamed_addresses_are_as_they_were_at_each_backup(shop: Root, tmp_path: Path) -> None:
    made = [(shop.full(), shop.states())]
    done(shop.at("c/new").set("k", "v"))
    made.append((shop.backup(), shop.states()))
    shop.stores.close()
    shop.lifecycle.delete(Address("a", "x"))
    shop.lifecycle.rename(Address("b", "z"), Address("b", "w"))
    made.append((shop.backup(), shop.states()))
    done(shop.at("a/x").set("k", "another life"))
    made.append((shop.backup(), shop.states()))
    assert [report.gone for report, _ in made] == [(), (), ("a/x", "b/z"), ()]
    assert [counts(report) for report, _ in made[1:]] == [(1, 0, 4), (1, 0, 3), (1, 0, 4)]
    for report, states in made:
        assert restored(shop, tmp_path, report.id) == states


def test_a_user_whose_addresses_are_all_gone_is_gone_in_an_increment(shop: Root, tmp_path: Path) -> None:
    shop.full()
    shop.stores.close()
    for cursor in ("x", "z"):
        shop.lifecycle.delete(Address("b", cursor))
    assert shop.backup().gone == ("b/x", "b/z")
    assert sorted(restored(shop, tmp_path)) == ["a/x", "a/y"]


def test_after_a_restore_the_next_increment_begins_anew_with_a_snapshot(shop: Root, tmp_path: Path) -> None:
    full = shop.full()
    done(shop.at("a/x").set("k1", "changed"))
    shop.stores.close()
    shop.restore(full.id, user="a", cursor="x")
    assert counts(shop.backup()) == (1, 0, 3)
    done(shop.at("a/x").set("k1", "later"))
    assert counts(shop.backup()) == (0, 1, 3)
    assert restored(shop, tmp_path) == shop.states()


def test_a_restore_undone_goes_on_from_where_it_was(shop: Root, tmp_path: Path) -> None:
    full = shop.full()
    shop.stores.close()
    shop.restore(full.id, user="a", cursor="x")
    shop.work.undo_restore(Address("a", "x"))
    assert counts(shop.backup()) == (0, 0, 4)
    done(shop.at("a/x").set("k1", "later"))
    assert counts(shop.backup()) == (0, 1, 3)
    assert restored(shop, tmp_path) == shop.states()


def test_a_keystore_put_back_by_hand_is_noticed_though_its_revision_is_the_same(shop: Root, tmp_path: Path) -> None:
    file = shop.path / "addresses/a/x/keystore.db"
    shop.stores.close()
    before = file.read_bytes()
    done(shop.at("a/x").set("k1", "one way"))
    shop.full()
    shop.stores.close()
    file.write_bytes(before)
    shop.stores.clock.advance(1)
    done(shop.at("a/x").set("k1", "another"))
    assert counts(shop.backup()) == (1, 0, 3)
    assert restored(shop, tmp_path) == shop.states()


def test_a_journal_pruned_past_the_backup_begins_the_chain_anew(shop: Root, tmp_path: Path) -> None:
    shop.full()
    done(shop.at("a/x").set("k1", "changed"))
    shop.stores.close()
    finished(shop.work.compact())  # keeps what no backup has seen
    assert counts(shop.backup()) == (0, 1, 3)
    assert restored(shop, tmp_path) == shop.states()


def test_a_chain_is_begun_anew_before_it_is_too_long(shop: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_LINKS == 100
    monkeypatch.setattr("prontodb.backup.create.MAX_LINKS", 3)
    found = [shop.full()]
    for n in range(6):
        done(shop.at("a/x").set("k1", str(n)))
        found.append(shop.backup())
    assert [report.snapshots for report in found] == [4, 0, 0, 0, 1, 0, 0]
    monkeypatch.setattr("prontodb.backup.create.MAX_SEGMENT_CHANGES", 2)
    done(shop.at("a/x").set_many({"k1": "1", "k2": "2", "k3": "3"}))
    assert shop.backup().snapshots == 1


def test_whether_history_is_kept_is_part_of_what_is_backed_up(shop: Root, tmp_path: Path) -> None:
    shop.full()
    shop.stores.close()
    shop.lifecycle.keep_history(Address("a", "x"), True)
    shop.backup()
    assert restored(shop, tmp_path) == shop.states()


# Hints


def test_hints_save_opening_a_keystore_and_a_full_backup_does_not_believe_them(shop: Root, tmp_path: Path) -> None:
    shop.full()
    address = Address("a", "x")
    done(shop.at("a/x").set("k1", "changed"))
    shop.stores.close()
    stamp = folders.stamp_of(shop.layout, address)
    assert stamp is not None
    tip = {piece.address: piece for piece in shop.listing().backups[-1].pieces}["a/x"]
    # As though somebody had put every mark of a file back by hand.
    shop.jobs.keep_facts({address: Fact(stamp.text, tip.mark, None)})
    assert counts(shop.backup()) == (0, 0, 4)
    assert counts(shop.full()) == (4, 0, 0)
    assert restored(shop, tmp_path) == shop.states()


def test_a_hint_of_another_look_of_the_file_is_not_believed(shop: Root, tmp_path: Path) -> None:
    shop.full()
    address = Address("a", "x")
    shop.stores.close()
    stamp = folders.stamp_of(shop.layout, address)
    assert stamp is not None
    tip = {piece.address: piece for piece in shop.listing().backups[-1].pieces}["a/x"]
    shop.jobs.keep_facts({address: Fact(stamp.text, tip.mark, None)})
    done(shop.at("a/x").set("k1", "changed"))
    assert counts(shop.backup()) == (0, 1, 3)


@pytest.mark.plain("to delete an encrypted address is to make its backups unreadable")
def test_a_hint_of_a_place_that_no_backup_has_seen_does_not_pass_for_unchanged(shop: Root, tmp_path: Path) -> None:
    shop.full()
    address = Address("a", "x")
    done(shop.at("a/x").set("k1", "changed"))
    shop.stores.close()
    stamp = folders.stamp_of(shop.layout, address)
    assert stamp is not None
    rev, *_, chain = shop.state("a/x")["journal"][-1]
    tip = {piece.address: piece for piece in shop.listing().backups[-1].pieces}["a/x"]
    # As a sweep leaves it, which looked after the change.
    shop.jobs.keep_facts({address: Fact(stamp.text, Mark(tip.incarnation, rev, chain.hex()), None)})
    assert counts(shop.backup()) == (0, 1, 3)
    assert restored(shop, tmp_path) == shop.states()


# Damage of the source


@pytest.mark.plain("it operates on the file itself")
@pytest.mark.parametrize(
    ("full", "damage"),
    [
        *((full, damage) for full in (True, False) for damage in ("garbage", "empty", "missing", "entry", "link")),
        (False, "journal"),  # a whole copy does not read it, see below
    ],
)
def test_a_damaged_address_is_named_keeps_nobody_from_the_others_and_its_last_good_state_stays(
    shop: Root, tmp_path: Path, full: bool, damage: str
) -> None:
    good = shop.full()
    state = shop.state("a/x")
    for address in ("a/x", "b/z"):
        done(shop.at(address).set("k1", "changed"))
    shop.stores.close()
    file = shop.path / "addresses/a/x/keystore.db"
    match damage:
        case "garbage":
            file.write_bytes(os.urandom(20_000))
        case "empty":
            file.write_bytes(b"")
        case "missing":
            file.unlink()
        case "link":
            file.rename(tmp_path / "aside.db")
            file.symlink_to(tmp_path / "aside.db")
        case _:
            sql = {"entry": "UPDATE kvstore SET value = 'x'", "journal": "UPDATE journal SET at = at + 1"}[damage]
            ran("import sys; from prontodb.storage.connection import connect; c = connect(sys.argv[1]);"
                "c.execute(sys.argv[2]).close(); c.close()", file, sql)  # fmt: skip
    report = shop.backup(full=full)
    assert [address for address, _ in report.failed] == ["a/x"]
    assert report.addresses == 3
    assert [address for address, _ in shop.manifest(report).failed] == ["a/x"]
    assert "a/x" not in report.gone
    assert restored(shop, tmp_path, user="b", cursor="z")["b/z"] == shop.state("b/z")
    assert restored(shop, tmp_path, user="a", cursor="x") == {"a/x": state}
    assert restored(shop, tmp_path, good.id)["a/x"] == state
    if file.exists() or file.is_symlink():
        file.unlink()
    shop.restore(user="a", cursor="x")
    assert shop.state("a/x") == state
    assert shop.backup().failed == ()


@pytest.mark.plain("it operates on the file itself")
@pytest.mark.parametrize("change", ["UPDATE journal SET at = at + 1", "UPDATE meta SET epoch = 'x'"])
def test_a_keystore_that_contradicts_itself_is_copied_as_it_is_and_told(
    shop: Root, tmp_path: Path, change: str
) -> None:
    shop.stores.close()
    ran("import sys; from prontodb.storage.connection import connect; c = connect(sys.argv[1]);"
        "c.execute(sys.argv[2]).close(); c.close()", shop.path / "addresses/a/x/keystore.db", change)  # fmt: skip
    entries = shop.state("a/x")["entries"]
    report = shop.full()
    assert [address for address, _ in report.doubtful] == ["a/x"]
    assert {piece.address: piece.faults > 0 for piece in shop.manifest(report).pieces} == {
        "a/x": True, "a/y": False, "b/x": False, "b/z": False,
    }  # fmt: skip
    assert shop.verify().is_whole
    assert restored(shop, tmp_path, user="a", cursor="x")["a/x"]["entries"] == entries
    # What nobody told of is damage of the backup.
    edited(Path(report.path or "") / "manifest.json", lambda found: found["pieces"][0].update(faults=0))
    assert report.id in dict(shop.verify().problems)
    shop.lifecycle.delete(Address("a", "x"))


def test_a_users_folder_that_cannot_be_used_hides_nobody_and_loses_nothing(shop: Root, tmp_path: Path) -> None:
    shop.full()
    before = shop.states()
    done(shop.at("b/z").set("k1", "changed"))
    shop.stores.close()
    (shop.path / "addresses/a").chmod(0o777)
    report = shop.backup()
    (shop.path / "addresses/a").chmod(0o700)
    assert [name for name, _ in report.failed] == ["a"]
    assert (report.gone, counts(report)) == ((), (0, 1, 1))
    assert restored(shop, tmp_path) == {**before, "b/z": shop.state("b/z")}


@pytest.mark.parametrize("damage", ["missing", "newer", "link"])
def test_a_damaged_link_of_the_chain_makes_the_next_increment_begin_anew(shop: Root, damage: str) -> None:
    file = Path(shop.full().path or "") / "a@x.db"
    data = bytearray(file.read_bytes())
    file.unlink()
    if damage == "newer":
        data[63] ^= 2  # of user_version
        file.write_bytes(data)
        file.chmod(0o600)
    elif damage == "link":
        (shop.path.parent / "elsewhere.db").write_bytes(data)
        file.symlink_to(shop.path.parent / "elsewhere.db")
    done(shop.at("a/x").set("k1", "changed"))
    report = shop.backup()
    assert (report.failed, report.snapshots) == ((), 1)


# Scopes


def test_each_scope_has_a_chain_of_its_own(shop: Root, tmp_path: Path) -> None:
    scopes: list[dict[str, str]] = [{}, {"user": "a"}, {"user": "a", "cursor": "x"}]
    first = [shop.backup(**scope) for scope in scopes]
    assert [(report.scope, report.kind, report.addresses) for report in first] == [
        ("", "full", 4), ("a", "full", 2), ("a/x", "full", 1),
    ]  # fmt: skip
    done(shop.at("a/x").set("k1", "changed"))
    second = [shop.backup(**scope) for scope in reversed(scopes)]
    assert [report.parent for report in second] == [report.id for report in reversed(first)]
    assert [counts(report) for report in second] == [(0, 1, 0), (0, 1, 1), (0, 1, 3)]
    for report in second:
        assert restored(shop, tmp_path, report.id, user="a", cursor="x") == {"a/x": shop.state("a/x")}
    assert restored(shop, tmp_path) == shop.states()  # of all, though others are newer


def test_a_scope_that_names_nothing_is_refused(shop: Root) -> None:
    with pytest.raises(AddressNotFoundError):
        shop.backup(user="a", cursor="none")
    with pytest.raises(InvalidAddressError):
        shop.backup(user="nobody")
    with pytest.raises(InvalidInputError):
        shop.backup(cursor="x")
    for user in ("../a", "", 5, "a/x"):
        with pytest.raises(InvalidInputError):
            shop.backup(user=user)
    assert shop.ids() == []


# Time


def test_a_backup_made_after_the_clock_was_set_back_is_still_the_newest(shop: Root, tmp_path: Path) -> None:
    shop.full()
    shop.clock.set_wall_ms(shop.clock.wall_ms() - 3_600_000)
    done(shop.at("a/x").set("k1", "later"))
    later = shop.backup()
    assert restored(shop, tmp_path) == shop.states()
    assert shop.ids()[-1] == later.id


# Elsewhere


def test_a_container_is_made_when_it_is_missing_and_has_chains_of_its_own(shop: Root, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "down"
    before = os.umask(0)
    try:
        own = shop.backup()
        first = shop.backup(output=str(place))
        done(shop.at("a/x").set("k1", "changed"))
        second = shop.backup(output=place)
    finally:
        os.umask(before)
    assert (first.kind, second.kind, second.parent) == ("full", "incremental", first.id)
    assert sorted(path.name for path in place.iterdir() if not path.name.startswith(".")) == [first.id, second.id]
    assert shop.ids() == [own.id]
    modes = {path.lstat().st_mode & 0o777 for path in [place, *place.rglob("*"), *(shop.path / "backups").rglob("*")]}
    assert modes == {0o600, 0o700}
    shop.stores.close()
    for reference in (str(place), second.path):
        assert restored(shop, tmp_path, reference) == shop.states()
        assert shop.verify(reference).is_whole


def test_a_folder_of_somebodys_is_refused_and_stays_as_it_is(shop: Root, tmp_path: Path) -> None:
    place = tmp_path / "photos"
    place.mkdir(mode=0o755)
    (place / "cat.jpg").write_text("x")
    before = image(place)
    with pytest.raises(UnsafePathError):
        shop.full(output=place)
    assert image(place) == before
    for odd in (b"bytes", 5, "", "a\0b", shop.path, shop.path / "registry"):
        with pytest.raises(ProntoError):
            shop.full(output=odd)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ProntoError):
        shop.full(output=tmp_path / "file")


def test_no_container_is_made_where_addresses_lie(shop: Root) -> None:
    before = folders.listed(shop.layout)
    with pytest.raises(ProntoError):
        shop.full(output=shop.path / "addresses" / "c" / "d")
    assert folders.listed(shop.layout) == before


READ_ONLY = """
import ctypes, os, sys
from prontodb.blocking import open as open_blocking
from prontodb.errors import ProntoError
libc = ctypes.CDLL(None, use_errno=True)
def done(result):
    if result:
        print("skip", os.strerror(ctypes.get_errno()))
        sys.exit(0)
place = sys.argv[2].encode()
done(libc.unshare(0x20000))
done(libc.mount(b"none", b"/", None, 16384 | 1 << 18, None))
done(libc.mount(place, place, None, 4096, None))
done(libc.mount(b"none", place, None, 4096 | 32 | 1, None))
with open_blocking(sys.argv[1]) as manager:
    print(manager.verify(sys.argv[2]).is_whole)
    print(len(manager.restore(sys.argv[2]).restored))
    try:
        manager.backup(output=sys.argv[2], full=True)
    except ProntoError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_container_that_cannot_be_written_is_verified_and_restored_from(shop: Root, tmp_path: Path) -> None:
    shop.full(output=tmp_path / "disc")
    before, held = image(tmp_path / "disc"), shop.states()
    done(shop.at("a/x").clear("k"))
    shop.stores.close()
    said = ran(READ_ONLY, shop.path, tmp_path / "disc")
    if said.startswith("skip"):
        pytest.skip(f"this machine gives no mount namespace: {said}")
    assert said.split() == ["True", "4", "ReadOnlyError"]
    assert (image(tmp_path / "disc"), shop.states()) == (before, held)


# Retention, with real backups


def policy(root: Path, **retention: int) -> None:
    (root / "registry" / "global_config.json").write_text(
        json.dumps({"format": 1, "backups": {"retention": retention}})
    )
    (root / "registry" / "global_config.json").chmod(0o600)


def test_pruning_keeps_what_the_kept_ones_build_on_and_the_last_good_state_of_who_failed(
    shop: Root, tmp_path: Path
) -> None:
    policy(shop.path, keep_last=1, hourly=0, daily=0, weekly=0, monthly=0)
    old = shop.full()
    good = shop.full()
    last_good = shop.state("a/x")
    shop.stores.close()
    (shop.path / "addresses/a/x/keystore.db").write_bytes(b"garbage")
    base = shop.full()
    done(shop.at("b/z").set("k1", "changed"))
    top = shop.backup()
    shop.clock.advance(100)
    would = finished(shop.work.prune(dry_run=True))
    assert len(shop.ids()) == 4
    report = finished(shop.work.prune())
    assert report.removed == would.removed == (old.id,)
    assert shop.ids() == [good.id, base.id, top.id]
    assert restored(shop, tmp_path, user="a", cursor="x") == {"a/x": last_good}
    assert shop.verify().is_whole
    assert not list((shop.path / "backups").rglob(".trash-*"))
    subprocess.run(["rm", "-rf", str(shop.path / "addresses/a/x")], check=True)


def test_nothing_is_pruned_while_a_manifest_cannot_be_read(shop: Root) -> None:
    policy(shop.path, keep_last=1, hourly=0, daily=0, weekly=0, monthly=0)
    made = [shop.full() for _ in range(3)]
    (Path(made[1].path or "") / "manifest.json").write_text("{")
    report = finished(shop.work.prune())
    assert (report.removed, report.refused is None) == ((), False)
    assert len(os.listdir(shop.path / "backups/full")) == 3

"""What is known to be doubtful is never passed off as sound: damaged parents, unreadable newest, contradictions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.manifest import MANIFEST_FILE
from prontodb.errors import CorruptError, StoppedError
from prontodb.model.address import Address
from tests.backups import Root, edited, finished
from tests.managing import ran
from tests.unit.cli.harness import Cli
from tests.unit.stores import done

EDIT = """
import sys
from prontodb.storage.connection import connect
connection = connect(sys.argv[1])
connection.execute(sys.argv[2]).close()
connection.close()
"""


@pytest.fixture
def shop(root: Path) -> Iterator[Root]:
    """A root with two addresses."""
    opened = Root(root)
    for address in ("a/x", "b/z"):
        done(opened.at(address).set_many({f"k{n}": f"{address} {n}" for n in range(5)}))
    opened.close()
    yield opened
    opened.close()


def changed(shop: Root, value: str) -> None:
    done(shop.at("a/x").set("k1", value))
    shop.close()


def test_nothing_is_built_on_a_backup_that_a_verification_found_damaged(shop: Root) -> None:
    first = shop.full()
    changed(shop, "2")
    second = shop.backup()
    changed(shop, "3")
    third = shop.backup()
    damaged = Path(second.path or "") / "a@x.jsonl.zst"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert shop.verify().damaged >= {second.id}
    changed(shop, "4")
    fourth = shop.backup()
    # Neither on the damaged one nor on what was built on it before.
    assert (third.parent, fourth.parent, fourth.segments) == (second.id, first.id, 1)
    assert shop.restore(fourth.id).failed == ()
    assert done(shop.at("a/x").get("k1")) == "4"


def test_with_every_chain_damaged_the_next_backup_is_a_full_one(shop: Root) -> None:
    first = shop.full()
    (Path(first.path or "") / "a@x.db").write_bytes(b"")
    assert not shop.verify().is_whole
    changed(shop, "2")
    report = shop.backup()
    assert (report.kind, report.parent, report.snapshots) == ("full", None, 2)
    assert shop.verify(report.id).is_whole


def test_an_older_backup_does_not_pass_for_the_newest(shop: Root) -> None:
    first = shop.full()
    shop.clock.advance(60)
    changed(shop, "2")
    second = shop.full()
    (Path(second.path or "") / MANIFEST_FILE).write_text("{}")
    before = shop.states()
    with pytest.raises(CorruptError, match=f"{second.id} is newer.*name that: {first.id}"):
        shop.restore()
    assert shop.states() == before
    assert shop.restore(first.id).backup == first.id
    line = Cli(shop.path).fails("restore", "--yes")
    assert str(second.id) in line
    assert str(first.id) in line


def test_a_keystore_that_contradicts_itself_is_backed_up_as_it_is_and_told(shop: Root, tmp_path: Path) -> None:
    clean = shop.full()
    ran(EDIT, shop.layout.keystore_path(Address("a", "x")), "UPDATE journal SET at = at + 1")
    doubtful = shop.full()
    [(address, reason)] = doubtful.doubtful
    assert (address, doubtful.failed) == ("a/x", ())
    assert "edited" in reason
    assert shop.verify().is_whole
    finished(shop.work.restoring(doubtful.id, into=str(tmp_path / "into")).steps())
    assert [piece.faults > 0 for piece in shop.manifest(doubtful).pieces] == [True, False]
    outcome = Cli(shop.path).ok("backup", "--full")
    assert "a/x contradicts itself, and is backed up as it is" in outcome.err
    # Its last sound state is never thinned out, however many doubtful ones follow.
    (shop.path / "registry" / "global_config.json").write_text(
        '{"format": 1, "backups": {"retention": {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}}}'
    )
    (shop.path / "registry" / "global_config.json").chmod(0o600)
    for _ in range(3):
        shop.full()
    finished(shop.work.prune())
    assert clean.id in shop.ids()


def test_no_segment_is_built_on_a_row_that_has_rotted(shop: Root) -> None:
    first = shop.full()
    copy = Path(first.path or "") / "a@x.db"
    data = copy.read_bytes()
    assert data.count(b"a/x 1") == 1
    copy.write_bytes(data.replace(b"a/x 1", b"a/x ?"))
    changed(shop, "2")
    second = shop.backup()
    assert (second.snapshots, second.segments, second.failed) == (1, 0, ())
    assert shop.verify(second.id).damaged == {first.id}
    shop.restore(second.id, user="a")
    assert done(shop.at("a/x").get("k1")) == "2"


def test_a_look_at_the_files_does_not_take_back_what_a_trial_has_found(
    shop: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = shop.full(), shop.full()
    third = shop.full()
    # Every file has its hash, but what they make is not what the manifest says: only a trial tells.
    edited(Path(first.path or "") / MANIFEST_FILE, lambda found: found["pieces"][0].update(entries=4))
    assert shop.verify(first.id).damaged == {first.id}
    chosen: list[str] = []

    class Chance(random.Random):
        def choice(self, among: Any) -> Any:
            chosen.append(among[-1].id)
            return among[-1]

    monkeypatch.setattr("prontodb.work.random.Random", Chance)
    for _ in range(2):
        report = shop.verify()
        assert set(report.tried) >= {first.id, third.id}
        assert report.damaged == {first.id}
        assert [name for name, check in shop.work.checks().items() if check.problems] == [first.id]
    assert second.id in chosen


def test_a_restore_of_all_takes_who_could_not_be_read_from_an_older_backup_or_names_them(shop: Root) -> None:
    shop.full()
    done(shop.at("c/new").set("k", "never backed up"))
    changed(shop, "2")
    files = [shop.layout.keystore_path(Address.parse(name)) for name in ("a/x", "c/new")]
    for file in files:
        Path(file).write_bytes(b"rotten" * 1_000)
    newest = shop.full()
    assert [name for name, _ in newest.failed] == ["a/x", "c/new"]
    report = shop.restore()
    assert [str(one.target) for one in report.restored] == ["a/x", "b/z"]
    assert [name for name, _ in report.failed] == ["c/new"]
    assert done(shop.at("a/x").get("k1")) == "a/x 1"
    shop.close()
    # Who names a backup gets that, and is told what it has not.
    named = shop.restore(newest.id)
    assert [str(one.target) for one in named.restored] == ["b/z"]
    assert [name for name, _ in named.failed] == ["a/x", "c/new"]
    outcome = Cli(shop.path)("restore", "--yes")
    assert (outcome.code, outcome.lines) == (1, ["a/x", "b/z"])
    assert "c/new was not restored: it could not be read when the backup was made" in outcome.err


def test_a_backup_that_is_stopped_in_the_middle_of_an_address_blames_nobody(shop: Root) -> None:
    for batch in range(3):
        done(shop.at("a/x").set_many({f"{batch}-{n}": "x" * 1_000 for n in range(1_000)}))
    shop.close()

    def interrupted() -> bool:
        raise KeyboardInterrupt

    for stop, raised in ((interrupted, KeyboardInterrupt), (lambda: True, StoppedError)):
        with pytest.raises(raised):
            shop.backup(full=True, stop=stop)
        assert shop.ids() == []
        assert [path for path in (shop.path / "backups").rglob("*") if path.is_dir() and path.name != "full"] == []
    assert shop.full().failed == ()


def test_who_could_not_be_read_when_a_users_folder_could_not_either_is_not_forgotten(shop: Root) -> None:
    done(shop.at("a/y").set("k", "once"))
    shop.close()
    shop.full()
    Path(shop.layout.keystore_path(Address("a", "y"))).write_bytes(b"rotten" * 1_000)
    shop.full()
    done(shop.at("b/z").set("k1", "2"))
    shop.close()
    (shop.path / "addresses/a").chmod(0o777)
    named = shop.backup()
    (shop.path / "addresses/a").chmod(0o700)
    assert [name for name, _ in named.failed] == ["a"]
    report = shop.restore()
    assert [str(one.target) for one in report.restored] == ["a/x", "a/y", "b/z"]
    assert report.failed == ()
    assert done(shop.at("a/y").get("k")) == "once"
    shop.close()
    assert shop.restore(named.id).failed == (), "a/x is as it was in what the backup builds on"


def test_what_builds_on_a_damaged_backup_is_not_listed_as_whole(shop: Root) -> None:
    made = [shop.full()]
    for number in range(3):
        changed(shop, str(number))
        made.append(shop.backup())
    (Path(made[0].path or "") / "a@x.db").write_bytes(b"")
    for _ in range(3):
        shop.verify()
        assert {name for name, check in shop.work.checks().items() if check.problems} == {one.id for one in made}

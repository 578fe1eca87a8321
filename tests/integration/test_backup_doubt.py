"""What is known to be doubtful is never passed off as sound: damaged parents, unreadable newest, contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.backup.manifest import MANIFEST_FILE
from prontodb.errors import CorruptError
from prontodb.model.address import Address
from tests.backups import Root, finished
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

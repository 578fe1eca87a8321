"""Time travel: where an address keeps its history, every commit since a backup can be restored, row for row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prontodb.backup.history import Until
from prontodb.backup.restore import RestoreReport
from prontodb.cli.output import MISS
from prontodb.errors import InvalidInputError, NotFoundError
from prontodb.model.address import Address
from tests.backups import Root, finished, state_at
from tests.checking import keystore_faults
from tests.unit.cli.harness import Cli
from tests.unit.stores import done

HOME = Address("agent", "prod")


@pytest.fixture
def shop(root: Path) -> Iterator[Root]:
    """A root whose one address keeps its history from the beginning."""
    opened = Root(root)
    opened.lifecycle.create(HOME)
    opened.lifecycle.keep_history(HOME, True)
    yield opened
    opened.close()


class Diary:
    """Writes at the address and remembers every state that it left, by revision and by moment."""

    def __init__(self, shop: Root) -> None:
        self._shop, self.by_revision, self.moments = shop, {}, {}  # type: ignore[var-annotated]

    def note(self) -> None:
        """Remember the present state; a second passes."""
        self._shop.close()
        state = self._shop.state(str(HOME))
        revision = state["journal"][-1][0]
        self.by_revision[revision] = state
        self.moments[revision] = self._shop.clock.wall_ms()
        self._shop.clock.advance(1)

    def live(self, seed: int) -> None:
        """A stay with every kind of change."""
        ks = self._shop.at(str(HOME))
        for step in (
            lambda: ks.set("a.k", f"one {seed}"),
            lambda: ks.set_many({f"a.{n}": f"{n} {seed}" for n in range(5)}, ttl=50 + seed),
            lambda: ks.delete("a.k"),
            lambda: ks.set("a.k", f"two {seed}", ttl=1.5),
            lambda: ks.touch("a.1", ttl="1h"),
            lambda: ks.persist("a.2"),
            lambda: ks.increment("n", seed),
            lambda: ks.set_namespace_ttl("a", 100 + seed),
            lambda: ks.set("a.inherits", "x"),
            # What expired a while ago is created anew.
            lambda: ks.set("a.k", f"three {seed}"),
            lambda: ks.set_namespace_ttl("a", None),
            lambda: ks.delete_many(["a.0", "a.3"]),
        ):
            done(step())
            self.note()


def back(shop: Root, until: Until, into: Path) -> tuple[RestoreReport, dict[str, Any]]:
    work = shop.work.restoring(user=HOME.user, cursor=HOME.cursor, until=until, into=str(into))
    report = finished(work.steps())
    assert report.failed == ()
    assert keystore_faults(str(into), HOME) == []
    return report, state_at(into, str(HOME))


def test_every_commit_since_the_first_backup_comes_back_by_its_revision(shop: Root, tmp_path: Path) -> None:
    diary = Diary(shop)
    diary.live(0)
    first = shop.backup()
    for seed in range(1, 4):
        diary.live(seed)
        # Later pieces of every kind: a segment, a whole snapshot, and at last the live keystore alone.
        if seed < 3:
            shop.backup(full=seed == 2)
    oldest = shop.manifest(first).pieces[0].revision
    wanted = [revision for revision in diary.by_revision if revision >= oldest]
    assert len(wanted) > 30
    for number, revision in enumerate(wanted):
        report, state = back(shop, Until(revision=revision), tmp_path / f"r{number}")
        assert state == diary.by_revision[revision], revision
        assert report.restored[0].revision == revision
        assert report.restored[0].entries == len(state["entries"])


def test_a_moment_brings_back_what_was_there_then(shop: Root, tmp_path: Path) -> None:
    diary = Diary(shop)
    diary.live(0)
    shop.backup()
    diary.live(1)
    for number, (revision, at_ms) in enumerate(list(diary.moments.items())[-12:]):
        for late_ms in (0, 999):
            _, state = back(shop, Until(at_ms=at_ms + late_ms), tmp_path / f"m{number}-{late_ms}")
            assert state == diary.by_revision[revision]


def test_a_revision_within_a_commit_brings_the_commit_before(shop: Root, tmp_path: Path) -> None:
    ks = shop.at(str(HOME))
    done(ks.set("a", "1"))
    shop.close()
    shop.backup()
    done(ks.set_many({"b": "1", "c": "2", "d": "3"}))
    shop.close()
    revision = shop.state(str(HOME))["journal"][-1][0]
    report, state = back(shop, Until(revision=revision - 1), tmp_path / "into")
    assert report.restored[0].revision == revision - 3
    assert [row[0] for row in state["entries"]] == ["a"]


def test_without_history_the_backup_before_is_what_there_is(root: Path, tmp_path: Path) -> None:
    shop = Root(root)
    ks = shop.at(str(HOME))
    done(ks.set("a", "1"))
    shop.close()
    shop.backup()
    before = shop.state(str(HOME))
    done(ks.set("a", "2"))
    revision = done(ks.set("a", "3"))
    shop.close()
    shop.backup()
    report, state = back(shop, Until(revision=revision - 1), tmp_path / "into")
    assert (state, report.restored[0].revision) == (before, 1)


def test_history_switched_off_in_between_ends_what_can_be_reached(shop: Root, tmp_path: Path) -> None:
    ks = shop.at(str(HOME))
    done(ks.set("a", "1"))
    shop.close()
    shop.backup()
    before = shop.state(str(HOME))
    done(ks.set("a", "2"))
    shop.close()
    shop.lifecycle.keep_history(HOME, False)
    revision = done(ks.set("a", "3"))
    done(ks.set("a", "4"))
    shop.close()
    # Up to where the values are kept; what lies beyond cannot be told, so the backup is what there is.
    _, kept = back(shop, Until(revision=revision - 1), tmp_path / "kept")
    assert [row[1] for row in kept["entries"]] == ["2"]
    _, lost = back(shop, Until(revision=revision), tmp_path / "lost")
    assert lost == before


def test_a_revision_that_no_backup_reaches_is_refused(shop: Root) -> None:
    done(shop.at(str(HOME)).set("a", "1"))
    done(shop.at(str(HOME)).set("a", "2"))
    shop.close()
    shop.backup()
    with pytest.raises(NotFoundError, match="at revision 1 or before"):
        shop.work.restoring(user=HOME.user, cursor=HOME.cursor, until=Until(revision=1))
    for user in (None, HOME.user):
        with pytest.raises(InvalidInputError, match="name the user and the cursor"):
            shop.work.restoring(until=Until(revision=1), user=user)
    for wrong in (0, -1, 2**63, True, "1"):
        with pytest.raises(InvalidInputError, match="whole number above 0"):
            Until(revision=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not both"):
        Until(at_ms=5, revision=5)


def test_keeping_history_is_a_change_of_its_own_and_costs_nothing_twice(shop: Root) -> None:
    rows = shop.state(str(HOME))["journal"]
    shop.lifecycle.keep_history(HOME, True)
    assert shop.state(str(HOME))["journal"] == rows
    shop.lifecycle.keep_history(HOME, False)
    assert shop.state(str(HOME))["journal"][-1][4] == '[["history","off"]]'
    assert keystore_faults(str(shop.path), HOME) == []


def test_the_mistake_of_a_minute_ago_is_undone_from_a_shell(root: Path) -> None:
    cli = Cli(root)
    cli.ok("address", "create", "agent1/prod")
    cli.ok("address", "history", "agent1/prod", "on")
    at = ("--user", "agent1", "--cursor", "prod")
    cli.ok("set", "plan", "good", *at)
    cli.ok("backup")
    cli.ok("set", "plan", "better", *at)
    revision = cli.ok("address", "show", "agent1/prod", "--json").json[0]["revision"]
    cli.ok("del", "plan", *at)
    assert cli("get", "plan", *at).code == MISS
    assert "history is on or off, not 'maybe'" in cli.fails("address", "history", "agent1/prod", "maybe")
    cli.ok("restore", *at, "--revision", str(revision), "--yes")
    assert cli.ok("get", "plan", *at).text == "better"


@pytest.mark.plain("it looks at the chain itself")
def test_after_a_restore_what_came_before_and_after_it_can_both_be_reached(shop: Root, tmp_path: Path) -> None:
    before, after = Diary(shop), Diary(shop)
    before.live(0)
    shop.backup()
    before.live(1)
    # By mistake: the backup again, and what came since is only in what was put aside.
    shop.clock.advance(60)
    shop.restore(user=HOME.user, cursor=HOME.cursor)
    shop.clock.advance(60)
    after.live(2)
    for number, diary in enumerate((before, after)):
        for revision, at_ms in list(diary.moments.items())[-12:]:
            _, state = back(shop, Until(at_ms=at_ms), tmp_path / f"{number}-{revision}")
            assert state == diary.by_revision[revision], (number, revision)
    # And once it is all in a backup, no keystore is needed for it.
    shop.backup()
    shop.close()
    shop.lifecycle.delete(HOME)
    for revision, at_ms in list(after.moments.items())[-3:]:
        _, state = back(shop, Until(at_ms=at_ms), tmp_path / f"deleted-{revision}")
        assert state["entries"] == after.by_revision[revision]["entries"]


@pytest.mark.parametrize("again", [False, True])
def test_what_a_restore_threw_away_does_not_answer_for_a_later_moment(shop: Root, tmp_path: Path, again: bool) -> None:
    ks = shop.at(str(HOME))
    done(ks.set("k", "good"))
    good = shop.full()
    shop.clock.advance(60)
    done(ks.set("k", "bad"))
    if not again:
        bad = shop.full()
    shop.close()
    shop.clock.advance(60)
    shop.restore(good.id)
    restored = shop.state(str(HOME))
    if again:
        shop.backup()
    shop.clock.advance(60)
    moment = shop.clock.wall_ms()
    shop.clock.advance(60)
    done(shop.at(str(HOME)).set("k", "later"))
    shop.close()
    if again:
        assert back(shop, Until(at_ms=moment), tmp_path / "then")[1]["entries"] == restored["entries"]
    else:
        with pytest.raises(NotFoundError, match=r"was restored at .*no backup tells"):
            back(shop, Until(at_ms=moment), tmp_path / "then")
        assert bad.id in shop.ids()

"""Restoring: row for row as it was, nobody hurt who is at work, and always a way back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb.engine.sqlite import folders
from prontodb.errors import (
    AddressBusyError,
    AddressExistsError,
    AddressGoneError,
    AddressNotFoundError,
    BackupNotFoundError,
    CompactedError,
    InvalidInputError,
    NotFoundError,
    ProntoError,
)
from prontodb.model.address import Address
from prontodb.model.operation import Position
from tests.backups import Root, finished, image, state_at, states_at
from tests.checking import keystore_faults
from tests.managing import descriptors, managed
from tests.sessions import holder
from tests.unit.stores import done

AX = Address("a", "x")


@pytest.fixture
def shop(root: Path) -> Iterator[Root]:
    """A root with three addresses, in which everything is that a keystore can hold."""
    opened = Root(root)
    for address in ("a/x", "a/y", "b/x"):
        keystore = opened.at(address)
        done(keystore.set_many({"k1": "1", "k2": "", "text": "ä\x00\n\U0010ffff", "n.a": "9" * 18}))
        opened.clock.advance(1)
        done(keystore.set("soon", "x", ttl=5))
        done(keystore.set_namespace_ttl("n", "2h"))
        done(keystore.set("n.b", address))
        done(keystore.set("k1", "2"))
        done(keystore.delete("k2"))
    about = root / "addresses/a/x/metadata.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"created_at": 77, "labels": {"team": "ä"}}))
    yield opened
    opened.close()
    for found in folders.listed(opened.layout):
        assert keystore_faults(str(root), found) == []


def change(shop: Root, address: str = "a/x") -> None:
    """Make an address another one, and close it."""
    done(shop.at(address).set_many({"k1": "changed", "more": "1"}))
    done(shop.at(address).set_namespace_ttl("n", None))
    shop.stores.close()


def kept(shop: Root) -> list[str]:
    """What restores have put aside."""
    return sorted(path.name for path in (shop.path / "addresses").glob("*/.*"))


# What comes back


def test_everything_comes_back_row_for_row(shop: Root) -> None:
    before = shop.states()
    shop.full()
    done(shop.at("a/x").set("k1", "3"))
    shop.backup()
    before["a/x"] = shop.state("a/x")
    for address in before:
        change(shop, address)
    shop.clock.advance(10)  # what has expired comes back as well, and stays expired
    report = shop.restore()
    assert [str(one.address) for one in report.restored] == ["a/x", "a/y", "b/x"]
    assert (report.failed, shop.states()) == ((), before)
    assert done(shop.at("a/x").get("soon")) is None
    assert done(shop.at("a/x").get("text")) == "ä\x00\n\U0010ffff"
    assert done(shop.at("a/x").namespace_ttls()) == {"n": 7_200}
    assert done(shop.at("a/x").set("new", "1")) == before["a/x"]["journal"][-1][0] + 1
    found = json.loads((shop.path / "addresses/a/x/metadata.json").read_text())
    assert (found["created_at"], found["labels"]) == (77, {"team": "ä"})
    first = report.restored[0]
    assert (first.revision, first.entries, first.kept) == (before["a/x"]["journal"][-1][0], 5, True)


def test_it_is_a_keystore_of_its_own_afterwards(shop: Root) -> None:
    shop.full()
    before = done(shop.at("a/x")._keyspace.position())
    shop.stores.close()
    shop.restore(user="a", cursor="x")
    after = done(shop.at("a/x")._keyspace.position())
    assert (after.revision, after.incarnation != before.incarnation) == (before.revision, True)


def test_one_address_or_one_users_come_back_and_no_other_is_touched(shop: Root) -> None:
    before = shop.states()
    shop.full()
    for address in before:
        change(shop, address)
    changed = shop.states()
    shop.restore(user="a", cursor="x")
    assert shop.states() == {**changed, "a/x": before["a/x"]}
    shop.restore(user="a")
    assert shop.states() == {**changed, "a/x": before["a/x"], "a/y": before["a/y"]}


@pytest.mark.plain("to delete an encrypted address is to make its backups unreadable")
def test_a_deleted_address_comes_back_and_is_listed(shop: Root) -> None:
    before = shop.state("b/x")
    shop.full()
    shop.stores.close()
    shop.lifecycle.delete(Address("b", "x"))
    assert not (shop.path / "addresses/b").exists()
    report = shop.restore(user="b")
    assert (report.restored[0].kept, shop.state("b/x")) == (False, before)
    assert kept(shop) == []


def test_it_comes_back_as_another_address_and_the_first_stays(shop: Root) -> None:
    before = shop.states()
    shop.full()
    change(shop)
    changed = shop.states()
    report = shop.restore(user="a", cursor="x", target=Address("c", "copy"))
    assert [(str(one.address), str(one.target)) for one in report.restored] == [("a/x", "c/copy")]
    assert shop.states() == {**changed, "c/copy": before["a/x"]}
    with pytest.raises(InvalidInputError, match="cannot become one"):
        shop.restore(user="a", target=Address("c", "copy"))
    with pytest.raises(AddressExistsError, match="differs only in case"):
        shop.restore(user="a", cursor="x", target=Address("C", "copy"))
    assert (set(shop.states()), kept(shop)) == ({*changed, "c/copy"}, [])


def test_it_comes_back_into_another_root_and_this_one_is_as_it_was(shop: Root, tmp_path: Path) -> None:
    shop.full()
    shop.stores.close()
    before = image(shop.path)
    for into in (tmp_path / "deep" / "down", tmp_path / "deep" / "down"):
        shop.restore(into=str(into))
        assert states_at(into) == shop.states()
    assert image(shop.path) == before
    modes = {path.lstat().st_mode & 0o777 for path in (tmp_path / "deep").rglob("*")}
    assert modes == {0o600, 0o700}


def test_the_newest_up_to_a_moment_is_taken(shop: Root) -> None:
    made = []
    for value in ("one", "two", "three"):
        done(shop.at("a/x").set("k1", value))
        shop.backup()
        made.append((shop.clock.wall_ms(), shop.state("a/x")))
    shop.stores.close()
    for at_ms, state in made:
        for later in (0, 999):
            shop.restore(user="a", cursor="x", at_ms=at_ms + later)
            assert shop.state("a/x") == state
    with pytest.raises(NotFoundError, match="2023-11-14"):
        shop.restore(at_ms=made[0][0] - 1)
    with pytest.raises(InvalidInputError):
        shop.restore(shop.ids()[0], at_ms=made[0][0])


def test_what_is_not_there_is_said_to_be_missing_and_nothing_is_touched(shop: Root) -> None:
    with pytest.raises(NotFoundError):
        shop.restore()
    shop.full(user="a")
    shop.stores.close()
    before = image(shop.path)
    for options in ({"user": "b"}, {"user": "a", "cursor": "none"}, {"reference": "20200101"}, {}):
        with pytest.raises(NotFoundError):
            shop.restore(**options)
    with pytest.raises(NotFoundError):
        shop.restore(shop.ids()[0], user="b")
    with pytest.raises(BackupNotFoundError):
        shop.restore("/nowhere")
    assert image(shop.path) == before


# Who is at work


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_sessions_keep_a_restore_away_are_named_and_nothing_is_touched(root: Path, mode: str) -> None:
    shop = Root(root)
    done(shop.at("agent/test").set("k", "old"))
    done(shop.at("agent/other").set("k", "old"))
    shop.full()
    done(shop.at("agent/other").set("k", "new"))
    shop.stores.close()
    with holder(root, mode) as child:
        session = child.line()
        before = image(root / "addresses")
        for options in ({}, {"user": "agent"}, {"user": "agent", "cursor": "test"}):
            with pytest.raises(AddressBusyError, match=session) as busy:
                shop.restore(**options)
            assert busy.value.holders
        assert image(root / "addresses") == before
        child.tell("ks.set('k', 'mine')")
        assert child.line() == "2"
        child.end()
    assert shop.restore(user="agent", cursor="test").failed == ()
    assert done(shop.at("agent/test").get("k")) == "old"
    shop.close()


async def test_a_session_of_our_own_keeps_it_away_too_and_works_on(root: Path) -> None:
    async with managed(root, wait_s=0.2) as manager:
        async with manager.session("a", "x") as keystore:
            await keystore.set("k", "1")
            await manager.backup()
            with pytest.raises(AddressBusyError, match="a/x"):
                await manager.restore()
            assert await keystore.set("k", "2") == 2
        assert (await manager.restore()).failed == ()
        async with manager.session("a", "x") as keystore:
            assert await keystore.get("k") == "1"


async def test_who_reads_sees_the_old_or_is_told_and_who_watches_is_told_to_begin_anew(root: Path) -> None:
    async with managed(root) as manager:
        async with manager.session("a", "x") as keystore:
            await keystore.set("k", "old")
            await manager.backup()
            await keystore.set("k", "new")
        async with manager.session("a", "x", mode="read") as reader:
            assert await reader.get("k") == "new"
            before = await reader._keyspace.position()
            await manager.restore()
            with pytest.raises(AddressGoneError):
                await reader.get("k")
            with pytest.raises((AddressGoneError, CompactedError)):
                await reader.wait_for("none", timeout=5)
        async with manager.session("a", "x", mode="read") as reader:
            assert await reader.get("k") == "old"
            with pytest.raises(CompactedError, match="restored"):
                await reader._keyspace.changes(Position(before.incarnation, 1), 10)


# The way back


def test_undo_brings_back_what_was_replaced_and_redo_what_was_restored(shop: Root) -> None:
    shop.full()
    old = shop.state("a/x")
    change(shop)
    new = shop.state("a/x")
    shop.restore(user="a", cursor="x")
    assert (len(kept(shop)), shop.state("a/x")) == (1, old)
    assert shop.work.undoable() == [AX] == shop.work.undoable("a", "x")
    assert shop.work.undoable("b") == []
    for expected, redo in ((new, False), (old, True), (new, False)):
        assert shop.work.undoable("a", redo=redo) == [AX]
        assert shop.work.undoable("a", redo=not redo) == []
        shop.work.undo_restore(AX, redo=redo)
        assert (shop.state("a/x"), len(kept(shop))) == (expected, 1)
        assert keystore_faults(str(shop.path), AX) == []
    with pytest.raises(NotFoundError, match="nothing to undo"):
        shop.work.undo_restore(AX)
    assert done(shop.at("a/x").set("k1", "further"))


def test_several_restores_are_undone_one_after_the_other_though_the_clock_goes_back(shop: Root) -> None:
    shop.full()
    states = []
    for value in ("one", "two"):
        done(shop.at("a/x").set("k1", value))
        shop.stores.close()
        states.append(shop.state("a/x"))
        shop.restore(user="a", cursor="x")
        shop.clock.set_wall_ms(shop.clock.wall_ms() - 3_600_000)
    assert len(kept(shop)) == 2
    old = shop.state("a/x")
    for expected in (states[1], states[0]):
        shop.work.undo_restore(AX)
        assert shop.state("a/x") == expected
    for expected in (states[1], old):
        shop.work.undo_restore(AX, redo=True)
        assert shop.state("a/x") == expected


def test_with_nothing_put_aside_there_is_nothing_to_undo(shop: Root) -> None:
    shop.full()
    shop.stores.close()
    for address in (AX, Address("no", "body")):
        with pytest.raises(NotFoundError, match="nothing to undo"):
            shop.work.undo_restore(address)
    shop.restore(user="a", cursor="x", target=Address("c", "new"))
    with pytest.raises(NotFoundError):
        shop.work.undo_restore(Address("c", "new"))


def test_deleting_or_renaming_an_address_discards_what_was_put_aside(shop: Root) -> None:
    shop.full()
    change(shop)
    for address in (AX, Address("a", "y")):
        shop.restore(user=address.user, cursor=address.cursor)
    assert len(kept(shop)) == 2
    shop.lifecycle.delete(AX)
    shop.lifecycle.rename(Address("a", "y"), Address("a", "z"))
    assert (kept(shop), sorted(shop.states())) == ([], ["a/z", "b/x"])
    with pytest.raises(AddressNotFoundError):
        shop.lifecycle.rename(AX, Address("a", "w"))


def test_what_was_put_aside_is_in_no_backup_and_no_list(shop: Root) -> None:
    shop.full()
    shop.stores.close()
    shop.restore()
    assert len(kept(shop)) == 3
    assert shop.full().addresses == 3
    assert len(folders.listed(shop.layout)) == 3


# Half-way


def test_a_restore_of_several_goes_on_when_one_fails_and_says_so(shop: Root) -> None:
    before = shop.states()
    shop.full()
    for address in before:
        change(shop, address)
    changed = shop.states()
    work = shop.work.restoring().steps()
    for _ in range(3):
        next(work)  # the files are tested
    with shop.lifecycle.hold(Address("a", "y"), "test"):
        report = finished(work)
    ((failed, reason),) = report.failed
    assert (failed, len(report.restored), "busy" in reason) == ("a/y", 2, True)
    assert shop.states() == {**before, "a/y": changed["a/y"]}


def test_a_restore_that_is_left_half_way_leaves_whole_addresses_and_nothing_else(shop: Root) -> None:
    before = shop.states()
    shop.full()
    for address in before:
        change(shop, address)
    changed = shop.states()
    for steps in range(7):
        work = shop.work.restoring().steps()
        for _ in range(steps):
            next(work, None)
        work.close()
        restored = sorted(before)[: max(0, steps - 3)]
        assert shop.states() == {name: (before if name in restored else changed)[name] for name in before}
        assert [name for name in kept(shop) if not name.startswith(".old-")] == []
        for name in restored:
            shop.work.undo_restore(Address.parse(name))
            for put_aside in (shop.path / "addresses" / name).parent.glob(".old-*"):
                assert keystore_faults(str(shop.path), Address.parse(name)) == []
                assert put_aside.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["backup", "verify", "restore"])
async def test_cancelled_at_any_moment_it_leaves_nothing_and_the_next_call_works(root: Path, what: str) -> None:
    async with managed(root) as manager:
        for name in ("x", "y"):
            async with manager.session("a", name) as keystore:
                for begin in range(6):
                    await keystore.set_many({f"{begin}.k{n}": "v" * 200 for n in range(500)})
        first = await manager.backup()
        states = states_at(root)
        open_before = descriptors()
        for delay_ms in (0, 1, 3, 7, 15, 30, 60):
            with anyio.move_on_after(delay_ms / 1_000):
                match what:
                    case "backup":
                        await manager.backup(full=True)
                    case "verify":
                        await manager.verify(first.id)
                    case _:
                        await manager.restore(first.id)
            left = [
                path.name for path in root.rglob(".*") if path.name.startswith((".tmp-", ".new-", ".trash-", ".scr"))
            ]
            assert [name for name in left if name != ".scratch.lock"] == []
            assert states_at(root) == states
        assert descriptors() <= open_before + 2
        assert (await manager.restore(first.id)).failed == ()
        assert (await manager.backup()).failed == ()
        report = await manager.verify()
        assert report.problems == ()


async def test_moments_targets_and_roots_are_checked_before_anything_is_done(root: Path, tmp_path: Path) -> None:
    async with managed(root) as manager:
        async with manager.session("a", "x") as keystore:
            await keystore.set("k", "1")
        made = await manager.backup()
        assert (await manager.restore(at=datetime.now(UTC), user="a", cursor="x", to="a/copy")).failed == ()
        assert state_at(root, "a/copy") == state_at(root, "a/x")
        before = image(root / "addresses")
        wrong: list[dict[str, Any]] = [
            {"at": "yesterday"}, {"at": datetime.now(UTC).replace(tzinfo=None)}, {"to": "../x"}, {"to": 5},
            {"into": "relative"}, {"into": 5}, {"cursor": "x"}, {"user": ""}, {"at": "2020-01-01"},
            {"backup": "a" * 5_000},
        ]  # fmt: skip
        for options in wrong:
            with pytest.raises(ProntoError):
                await manager.restore(**options)
        assert made.id is not None
        with pytest.raises(ProntoError):
            await manager.restore(made.id, into=root / "registry" / "address_registry.db")
        assert image(root / "addresses") == before
        assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("backup", [5, b"x", Path("/x"), ["x"]])
async def test_a_reference_of_another_type_is_refused_typed(root: Path, backup: object) -> None:
    async with managed(root) as manager:
        with pytest.raises(ProntoError):
            await manager.verify(backup)  # type: ignore[arg-type]


def test_an_undo_of_all_is_of_the_last_restore_also_when_that_was_left_half_way(shop: Root) -> None:
    shop.full()
    change(shop)
    shop.restore()
    change(shop)
    last = shop.states()
    steps = shop.work.restoring().steps()
    while not next(steps).what.startswith("a/x"):
        pass
    steps.close()
    assert shop.work.undoable() == [AX]
    shop.work.undo_restore(AX)
    assert shop.states() == last
    assert shop.work.undoable() == []


def test_what_was_undone_and_done_again_is_undone_with_the_others(shop: Root) -> None:
    shop.full()
    change(shop)
    new = shop.states()
    shop.restore()
    everywhere = shop.work.undoable()
    shop.work.undo_restore(AX)
    assert shop.work.undoable() == [address for address in everywhere if address != AX]
    assert shop.work.undoable(redo=True) == [AX]
    shop.work.undo_restore(AX, redo=True)
    assert (shop.work.undoable(), shop.work.undoable(redo=True)) == (everywhere, [])
    for address in everywhere:
        shop.work.undo_restore(address)
    assert shop.states() == new
    assert (shop.work.undoable(), shop.work.undoable(redo=True)) == ([], everywhere)

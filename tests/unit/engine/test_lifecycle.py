"""Creating, renaming and deleting an address: what each leaves, killed at any step, and with others at it too."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite import lifecycle as lifecycle_module
from prontodb.errors import (
    AddressBusyError,
    AddressExistsError,
    AddressNotFoundError,
    StorageFullError,
    UnsafePathError,
)
from prontodb.model.address import Address
from tests.checking import root_faults
from tests.parts import Parts, fill, value
from tests.roots import killed_at, together

ONE, OTHER = Address("agent1", "prod"), Address("agent2", "test")

CREATING = ("create.staged", "create.published", "create.registered")
DELETING = ("delete.marked", "delete.shredded", "delete.moved", "delete.forgotten", "delete.emptied")
RENAMING = ("rename.marked", "rename.recorded", "rename.moved", "rename.registered")


def steps_of(work: Callable[[], object]) -> tuple[str, ...]:
    seen: list[str] = []
    lifecycle_module.FAILPOINT.append(seen.append)
    try:
        work()
    finally:
        lifecycle_module.FAILPOINT.remove(seen.append)
    return tuple(seen)


def is_clean(root: Path) -> bool:
    """Nothing is left over, everything is sound, and registry and folders agree."""
    parts = Parts(root)
    return root_faults(str(root)) == [] and parts.book.disagreements() == [] and parts.book.missing() == []


# What each change does


def test_a_created_address_is_whole_and_private(root: Path) -> None:
    parts = Parts(root)
    assert parts.lifecycle.create(ONE)
    folder = root / "addresses" / "agent1" / "prod"
    assert sorted(path.name for path in folder.iterdir()) == ["keystore.db", "metadata.json"]
    assert parts.book.check(ONE, deep=True) == []
    assert is_clean(root)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_are_ours_under_any_umask(root: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert Parts(root).lifecycle.create(ONE)
    finally:
        os.umask(before)
    assert root_faults(str(root)) == []


def test_two_addresses_never_share_an_incarnation(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    parts.lifecycle.create(OTHER)
    assert parts.book.describe(ONE).incarnation != parts.book.describe(OTHER).incarnation


def test_creating_what_exists_changes_nothing(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    before = parts.book.describe(ONE)
    assert not parts.lifecycle.create(ONE)
    assert parts.book.describe(ONE) == before


def test_deleting_leaves_nothing_of_the_address_nor_of_its_user(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    parts = Parts(root)
    assert parts.lifecycle.delete(ONE)
    assert list((root / "addresses").iterdir()) == []
    assert parts.registry.rows() == []
    assert not parts.lifecycle.delete(ONE)
    assert is_clean(root)


def test_deleting_one_cursor_leaves_the_users_others(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    fill(root, "agent1/test", {"k": "w"})
    assert Parts(root).lifecycle.delete(ONE)
    assert value(root, "agent1/test", "k") == "w"
    assert is_clean(root)


def test_renaming_keeps_contents_history_and_creation_time(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    parts = Parts(root)
    before = parts.book.describe(ONE)
    parts.lifecycle.rename(ONE, OTHER)
    after = parts.book.describe(OTHER)
    assert (after.incarnation, after.revision, after.created_at_ms) == (
        before.incarnation,
        before.revision,
        before.created_at_ms,
    )
    assert value(root, "agent2/test", "k") == "v"
    assert parts.registry.row(OTHER) == folders_row(parts, before.created_at_ms)
    assert sorted(path.name for path in (root / "addresses").iterdir()) == ["agent2"]
    assert is_clean(root)


def folders_row(parts: Parts, created_at_ms: int | None) -> object:
    rows = parts.registry.rows()
    assert [row.created_at_ms for row in rows] == [created_at_ms]
    return rows[0]


def test_renaming_never_overwrites_and_needs_something_to_rename(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "one"})
    fill(root, "agent2/test", {"k": "other"})
    lifecycle = Parts(root).lifecycle
    with pytest.raises(AddressExistsError):
        lifecycle.rename(ONE, OTHER)
    with pytest.raises(AddressNotFoundError):
        lifecycle.rename(Address("nobody"), Address("somebody"))
    lifecycle.rename(ONE, ONE)
    assert (value(root, "agent1/prod", "k"), value(root, "agent2/test", "k")) == ("one", "other")
    assert is_clean(root)


def test_a_filled_address_appears_complete_or_not_at_all(root: Path) -> None:
    parts = Parts(root)

    def fail(path: str, _secret: object) -> None:
        assert os.path.exists(f"{path}/keystore.db")
        assert not parts.lifecycle.exists(ONE)
        raise StorageFullError("the disk is full")

    with pytest.raises(StorageFullError):
        parts.lifecycle.create_filled(ONE, fail)
    assert not parts.lifecycle.exists(ONE)
    assert is_clean(root)
    seen: list[str] = []
    parts.lifecycle.create_filled(ONE, lambda path, _: seen.append(path))
    assert len(seen) == 1
    assert is_clean(root)
    with pytest.raises(AddressExistsError):
        parts.lifecycle.create_filled(ONE, lambda path, _: seen.append(path))


# Killed at any step


def test_the_steps_below_are_all_there_are(root: Path) -> None:
    lifecycle = Parts(root).lifecycle
    assert steps_of(lambda: lifecycle.create(ONE)) == CREATING
    assert steps_of(lambda: lifecycle.rename(ONE, OTHER)) == RENAMING
    assert steps_of(lambda: lifecycle.delete(OTHER)) == DELETING
    assert steps_of(lambda: lifecycle.create_filled(ONE, lambda _folder, _secret: None)) == CREATING


@pytest.mark.parametrize("step", CREATING)
def test_a_killed_creation_leaves_a_whole_address_or_none(root: Path, step: str) -> None:
    with killed_at(step):
        Parts(root).lifecycle.create(ONE)
    parts = Parts(root)
    assert parts.lifecycle.exists(ONE) == (step != "create.staged")
    # The next command at this address heals by itself ...
    assert parts.lifecycle.create(ONE) == (step == "create.staged")
    assert parts.book.check(ONE, deep=True) == []
    # ... and the list heals the registry.
    assert parts.listed() == {"agent1/prod": "active"}
    assert is_clean(root)


@pytest.mark.parametrize("step", DELETING)
def test_a_killed_deletion_leaves_the_whole_address_or_nothing(root: Path, step: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    with killed_at(step):
        Parts(root).lifecycle.delete(ONE)
    there = step in ("delete.marked", "delete.shredded")
    assert value(root, "agent1/prod", "k") == ("v" if there else None)
    assert Parts(root).listed() == ({"agent1/prod": "active"} if there else {})
    assert is_clean(root)


@pytest.mark.parametrize("step", DELETING)
def test_a_killed_deletion_is_finished_by_the_next_one(root: Path, step: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    with killed_at(step):
        Parts(root).lifecycle.delete(ONE)
    parts = Parts(root)
    assert parts.lifecycle.delete(ONE) == (step in ("delete.marked", "delete.shredded"))
    assert parts.registry.rows() == []
    assert folders.remains(parts.layout) == []
    assert is_clean(root)


@pytest.mark.parametrize("step", DELETING)
def test_what_is_left_of_one_address_is_found_without_a_look_at_any_other_user(
    root: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (ONE, OTHER):
        fill(root, str(address), {"k": "v"})
        with killed_at(step):
            Parts(root).lifecycle.delete(address)
    layout, looked_into = Parts(root).layout, []
    left = folders.remains(layout)
    assert left == [] or {address for address, _ in left} == {ONE, OTHER}

    def noted(descriptor: int) -> Any:
        looked_into.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return listed(descriptor)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", noted)
    assert folders.remains_of(layout, ONE) == [name for address, name in left if address == ONE]
    assert set(looked_into) <= {str(root / "addresses" / ONE.user)}


@pytest.mark.parametrize("step", DELETING)
def test_an_address_made_again_after_a_killed_deletion_is_a_new_one(root: Path, step: str) -> None:
    fill(root, "agent1/prod", {"k": "old"})
    before = Parts(root).book.describe(ONE).incarnation
    with killed_at(step):
        Parts(root).lifecycle.delete(ONE)
    parts = Parts(root)
    made = parts.lifecycle.create(ONE)
    assert made == (step not in ("delete.marked", "delete.shredded"))
    assert (parts.book.describe(ONE).incarnation != before) == made
    assert parts.listed() == {"agent1/prod": "active"}
    assert is_clean(root)


@pytest.mark.parametrize("step", RENAMING)
def test_a_killed_renaming_leaves_the_old_name_or_the_new_one(root: Path, step: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    created_at_ms = Parts(root).book.describe(ONE).created_at_ms
    with killed_at(step):
        Parts(root).lifecycle.rename(ONE, OTHER)
    parts = Parts(root)
    name = "agent1/prod" if step in RENAMING[:2] else "agent2/test"
    assert parts.listed() == {name: "active"}
    assert value(root, name, "k") == "v"
    assert [row.created_at_ms for row in parts.registry.rows()] == [created_at_ms]
    assert is_clean(root)


def test_a_deletion_whose_registry_rows_a_power_cut_took_back_is_no_missing_address(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    with killed_at("delete.moved"):
        Parts(root).lifecycle.delete(ONE)
    Parts(root).registry.put(ONE)  # relaxed, as the registry is: the mark was not on the disk yet
    assert Parts(root).listed() == {}
    assert is_clean(root)


def test_a_renaming_killed_half_way_can_be_followed_by_a_deletion_of_the_new_name(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    with killed_at("rename.moved"):
        Parts(root).lifecycle.rename(ONE, OTHER)
    assert Parts(root).lifecycle.delete(OTHER)
    assert Parts(root).listed() == {}  # the old name went with it: it is not missing


def test_contents_that_a_killed_restore_left_aside_come_back(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    user = root / "addresses" / "agent1"
    (user / "prod").rename(user / ".old-prod@0123456789ab")
    assert not Parts(root).lifecycle.create(ONE)
    assert value(root, "agent1/prod", "k") == "v"
    (user / "prod").rename(user / ".old-prod@0123456789ab")
    assert Parts(root).listed() == {"agent1/prod": "active"}
    assert is_clean(root)


def test_deleting_takes_contents_that_a_killed_restore_left_aside(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    user = root / "addresses" / "agent1"
    (user / "prod").rename(user / ".old-prod@0123456789ab")
    assert Parts(root).lifecycle.delete(ONE)
    assert Parts(root).listed() == {}
    assert is_clean(root)


def test_healing_takes_what_is_this_addresss_and_nothing_else(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    user = root / "addresses" / "agent1"
    for name in (".new-prod@a1", ".trash-prod@a2", ".trash-prod2@a3", ".new-pro@a4", ".hidden", ".old-prod@a5"):
        (user / name).mkdir(mode=0o700)
        (user / name / "file").touch(mode=0o600)
    done = Parts(root).lifecycle.heal(ONE)
    assert len(done) == 2
    assert sorted(path.name for path in user.iterdir()) == [
        ".hidden",
        ".new-pro@a4",
        ".old-prod@a5",
        ".trash-prod2@a3",
        "prod",
    ]


def test_removing_remains_follows_no_link(root: Path, tmp_path: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    trash = root / "addresses" / "agent1" / ".trash-prod@a1"
    trash.mkdir(mode=0o700)
    (trash / "link").symlink_to(outside)
    Parts(root).lifecycle.heal(ONE)
    assert not trash.exists()
    assert (outside / "precious").read_text() == "kept"


# Twins


def test_names_that_differ_only_in_case_are_refused(root: Path) -> None:
    lifecycle = Parts(root).lifecycle
    lifecycle.create(ONE)
    for twin in (Address("Agent1", "prod"), Address("AGENT1", "other"), Address("agent1", "Prod")):
        with pytest.raises(AddressExistsError, match="differs only in case"):
            lifecycle.create(twin)
    lifecycle.create(OTHER)
    with pytest.raises(AddressExistsError, match="differs only in case"):
        lifecycle.rename(OTHER, Address("agent1", "PROD"))
    assert is_clean(root)


def test_an_address_may_be_renamed_to_its_own_name_in_another_case(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    lifecycle = Parts(root).lifecycle
    lifecycle.rename(ONE, Address("agent1", "PROD"))
    assert value(root, "agent1/PROD", "k") == "v"
    lifecycle.rename(Address("agent1", "PROD"), Address("Agent1", "prod"))
    assert sorted(path.name for path in (root / "addresses").iterdir()) == ["Agent1"]
    assert is_clean(root)


def test_a_user_with_other_addresses_keeps_the_case_of_its_name(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    fill(root, "agent1/test", {"k": "w"})
    with pytest.raises(AddressExistsError, match="differs only in case"):
        Parts(root).lifecycle.rename(ONE, Address("Agent1", "prod"))
    assert is_clean(root)


def test_a_user_whose_addresses_are_gone_is_no_twin(root: Path) -> None:
    lifecycle = Parts(root).lifecycle
    lifecycle.create(ONE)
    with killed_at("delete.emptied"):
        lifecycle.delete(ONE)
    assert (root / "addresses" / "agent1").is_dir()
    assert lifecycle.create(Address("AGENT1", "prod"))
    assert is_clean(root)


# Others at it, too


def test_a_held_address_is_busy_and_its_holder_is_named(root: Path) -> None:
    parts = Parts(root, wait_s=0)
    parts.lifecycle.create(ONE)
    with parts.lifecycle.hold(ONE, "a long restore"):
        for change in (
            lambda: parts.lifecycle.delete(ONE),
            lambda: parts.lifecycle.rename(ONE, OTHER),
            lambda: parts.lifecycle.heal(ONE),
        ):
            with pytest.raises(AddressBusyError, match=rf"pid {os.getpid()} .* \(a long restore\)"):
                change()
        assert parts.lifecycle.create(OTHER)  # another address waits for nobody
    assert parts.lifecycle.delete(ONE)


CREATE = """
import sys
from tests.parts import Parts
from prontodb.model.address import Address
lifecycle = Parts(sys.argv[1], wait_s=60).lifecycle
print("ready", flush=True)
input()
print(lifecycle.create(Address.parse(sys.argv[2])))
"""


@pytest.mark.slow
def test_of_twenty_processes_that_create_an_address_at_once_one_does(root: Path) -> None:
    answers = together(CREATE, [(root, "agent1/prod")] * 20)
    assert sorted(answers) == ["False"] * 19 + ["True"]
    assert Parts(root).listed() == {"agent1/prod": "active"}
    assert is_clean(root)


@pytest.mark.slow
def test_of_processes_that_create_twins_at_once_one_wins(root: Path) -> None:
    names = ["agent1/prod", "Agent1/prod", "agent1/Prod", "AGENT1/PROD"]
    answers = together(CREATE, [(root, name) for name in names * 2])
    assert answers.count("True") == 1
    assert len(Parts(root).listed()) == 1
    assert is_clean(root)


# Planted


@pytest.mark.parametrize("place", ["addresses", "addresses/agent1", "addresses/agent1/prod"])
def test_a_link_in_the_way_is_refused_and_not_followed(root: Path, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / place).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (root / place).parents:
        if folder != root and root in folder.parents:
            folder.chmod(0o700)
    (root / place).symlink_to(outside)
    parts = Parts(root)

    def use() -> None:
        if not parts.lifecycle.create(ONE):
            parts.book.describe(ONE)

    with pytest.raises(UnsafePathError):
        use()
    assert list(outside.iterdir()) == []
    if place == "addresses":
        with pytest.raises(UnsafePathError):
            folders.listed(parts.layout)
    else:
        assert folders.listed(parts.layout) == []

"""The index of addresses: damaged, locked, half lost, written by many at once; it never stands in data's way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb import log
from prontodb.errors import BusyError, CorruptError, NewerFormatError, UnsafePathError
from prontodb.model.address import Address
from prontodb.registry.addresses import ACTIVE, DELETING, RENAMING, AddressRegistry, Row
from prontodb.storage import connection as sqlite
from tests.parts import Parts
from tests.roots import NOBODY, as_root, give, python, reachable_root, together

ONE, OTHER = Address("agent1", "prod"), Address("agent2", "test")


@pytest.fixture
def registry(root: Path) -> AddressRegistry:
    return Parts(root).registry


@pytest.fixture
def file(root: Path) -> Path:
    return root / "registry" / "address_registry.db"


def set_aside(file: Path) -> list[Path]:
    return sorted(path for path in file.parent.iterdir() if ".aside-" in path.name)


def change(file: Path, *statements: str) -> None:
    """Do to the file what only another tool would."""
    connection = sqlite.connect(str(file))
    try:
        for statement in statements:
            connection.execute(statement).close()
    finally:
        connection.close()


# Rows


def test_an_index_that_does_not_exist_has_no_rows_and_is_not_made_by_looking(
    registry: AddressRegistry, root: Path
) -> None:
    assert registry.rows() == []
    assert registry.row(ONE) is None
    assert list(root.iterdir()) == []


def test_rows_come_back_in_order_with_what_was_put(registry: AddressRegistry) -> None:
    registry.put(OTHER, ACTIVE, 2)
    registry.put(ONE, RENAMING, 1, target="agent3/x")
    assert registry.rows() == [Row(ONE, RENAMING, 1, "agent3/x"), Row(OTHER, ACTIVE, 2, None)]
    assert registry.row(OTHER) == Row(OTHER, ACTIVE, 2, None)


def test_a_known_creation_time_is_kept_when_none_is_given(registry: AddressRegistry) -> None:
    registry.created(ONE, 1)
    registry.deleting(ONE)
    assert registry.rows() == [Row(ONE, DELETING, 1, None)]


def test_a_renamed_address_takes_its_creation_time_along(registry: AddressRegistry) -> None:
    registry.created(ONE, 1)
    registry.renaming(ONE, OTHER)
    registry.renamed(ONE, OTHER)
    assert registry.rows() == [Row(OTHER, ACTIVE, 1, None)]


def test_a_deleted_address_takes_along_a_renaming_to_it_that_was_never_noted_as_done(
    registry: AddressRegistry,
) -> None:
    registry.created(ONE, 1)
    registry.renaming(ONE, OTHER)
    registry.deleted(OTHER)
    assert registry.rows() == []


def test_adopting_adds_what_is_missing_and_only_what_is_still_there(registry: AddressRegistry) -> None:
    registry.created(ONE, 1)
    gone = Address("gone")
    registry.adopt([(ONE, 9), (OTHER, 2), (gone, 3)], lambda address: address != gone)
    assert registry.rows() == [Row(ONE, ACTIVE, 1, None), Row(OTHER, ACTIVE, 2, None)]


def test_replacing_keeps_the_old_index_aside(registry: AddressRegistry, file: Path) -> None:
    registry.created(ONE, 1)
    registry.replace([Row(OTHER, ACTIVE, 2)])
    assert registry.rows() == [Row(OTHER, ACTIVE, 2)]
    assert len(set_aside(file)) == 1


# Damaged


def garbage(file: Path) -> None:
    file.write_bytes(b"\x00garbage\xff" * 1_000)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def foreign(file: Path) -> None:
    change(file, "PRAGMA application_id=1")


def view_for_a_table(file: Path) -> None:
    change(
        file,
        "DROP TABLE addresses",
        "CREATE VIEW addresses AS SELECT 'a' AS user, 'b' AS cursor, 'active' AS state, 1 AS created_at, '' AS target",
    )


def another_journal_mode(file: Path) -> None:
    change(file, "PRAGMA journal_mode=DELETE")


DAMAGES = (garbage, empty, truncated, foreign, view_for_a_table, another_journal_mode)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_says_so_and_is_set_aside_by_the_next_change(
    registry: AddressRegistry, file: Path, damage: Callable[[Path], None]
) -> None:
    registry.created(ONE, 1)
    damage(file)
    damaged = file.read_bytes()
    with pytest.raises(CorruptError):
        registry.rows()
    registry.created(OTHER, 2)
    assert registry.rows() == [Row(OTHER, ACTIVE, 2)]
    assert [path.read_bytes() for path in set_aside(file)] == [damaged]


@pytest.mark.parametrize(
    "values",
    ["'../up', 'x', 'active', 1, NULL", "'a', 'b', 'active', 'soon', NULL", "x'ff', 'b', 'active', 1, NULL"],
)
def test_a_row_that_is_no_address_is_damage(registry: AddressRegistry, file: Path, values: str) -> None:
    registry.created(ONE, 1)
    change(file, f"INSERT INTO addresses VALUES ({values})")
    with pytest.raises(CorruptError):
        registry.rows()


def test_an_index_of_a_newer_format_is_left_untouched_and_changes_are_deferred(
    registry: AddressRegistry, file: Path
) -> None:
    registry.created(ONE, 1)
    change(file, "PRAGMA user_version=2")
    before = file.read_bytes()
    with pytest.raises(NewerFormatError):
        registry.rows()
    registry.created(OTHER, 2)
    with pytest.raises(NewerFormatError):
        registry.put(OTHER)
    assert file.read_bytes() == before
    assert set_aside(file) == []


LEAVE_A_WAL = """
import os, sys
from prontodb.storage import connection as sqlite
from tests.parts import Parts
from prontodb.model.address import Address
registry = Parts(sys.argv[1]).registry
registry.created(Address("settled"), 1)
held = sqlite.connect(sys.argv[1] + "/registry/address_registry.db")
sqlite.one(held, "SELECT count(*) FROM addresses")
registry.created(Address("late"), 2)
os._exit(0)
"""


def test_a_lost_wal_costs_rows_and_nothing_else(registry: AddressRegistry, root: Path, file: Path) -> None:
    assert python(LEAVE_A_WAL, root).returncode == 0
    wal = file.with_name(file.name + "-wal")
    assert wal.stat().st_size > 0
    wal.unlink()
    assert registry.rows() == [Row(Address("settled"), ACTIVE, 1)]
    registry.created(ONE, 3)
    assert len(registry.rows()) == 2


def test_a_wal_whose_index_is_gone_is_not_played_into_the_new_one(
    registry: AddressRegistry, root: Path, file: Path
) -> None:
    assert python(LEAVE_A_WAL, root).returncode == 0
    file.unlink()
    registry.created(ONE, 3)
    assert registry.rows() == [Row(ONE, ACTIVE, 3)]


# Locked, closed, in the way


def test_a_locked_index_is_busy_at_the_deadline_and_the_change_is_deferred(root: Path, file: Path) -> None:
    registry = Parts(root, wait_s=0.05).registry
    registry.created(ONE, 1)
    events: list[str] = []
    log.use(lambda name, **_fields: events.append(name))
    holder = sqlite.connect(str(file))
    try:
        holder.execute("BEGIN IMMEDIATE").close()
        with pytest.raises(BusyError):
            registry.put(OTHER)
        registry.created(OTHER, 2)
        assert registry.rows() == [Row(ONE, ACTIVE, 1)]
    finally:
        holder.close()
        log.disable()
    assert events == ["registry.deferred"]


def test_a_link_in_the_place_of_the_index_is_not_followed(
    registry: AddressRegistry, root: Path, file: Path, tmp_path: Path
) -> None:
    (root / "registry").mkdir(mode=0o700)
    file.symlink_to(tmp_path / "outside.db")
    with pytest.raises(UnsafePathError):
        registry.rows()
    registry.created(ONE, 1)
    assert not (tmp_path / "outside.db").exists()
    assert file.is_symlink()


ADD_AS_NOBODY = """
from prontodb.errors import ProntoError
from prontodb.model.address import Address
from prontodb.registry.addresses import Row
registry = tests.parts.Parts(sys.argv[1]).registry
become()
registry.created(Address("late"), 2)
try:
    registry.put(Address("late"))
except ProntoError as error:
    print(type(error).__name__, error)
print(len(os.listdir(sys.argv[1] + "/registry")))
"""


@as_root
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_an_index_that_cannot_be_written_defers_the_change(mode: int) -> None:
    with reachable_root() as root:
        Parts(root).registry.created(ONE, 1)
        before = len(os.listdir(root / "registry"))
        give(root, NOBODY)
        os.chmod(root / "registry" / "address_registry.db", 0o400)
        os.chmod(root / "registry", mode)
        done = python(ADD_AS_NOBODY, root, user=NOBODY)
        kind, *reason = done.stdout.split()
        assert kind in ("UnavailableError", "ReadOnlyError"), done
        assert "registry" in " ".join(reason)
        assert len(os.listdir(root / "registry")) == before


# Many at once

WRITE = """
import sys
from tests.parts import Parts
from prontodb.model.address import Address
registry = Parts(sys.argv[1], wait_s=60).registry
print("ready", flush=True)
input()
for number in range(5):
    registry.put(Address(f"agent{sys.argv[2]}", f"c{number}"), "active", number)
    registry.rows()
"""


@pytest.mark.slow
def test_sixteen_processes_write_a_new_index_at_once_and_no_row_is_lost(
    registry: AddressRegistry, root: Path, file: Path
) -> None:
    answers = together(WRITE, [(root, number) for number in range(16)])
    assert answers == [""] * 16
    assert len(registry.rows()) == 16 * 5
    assert set_aside(file) == []
    assert sorted(path.name for path in file.parent.iterdir()) == ["address_registry.db", "locks"]


@pytest.mark.slow
def test_sixteen_processes_find_a_damaged_index_at_once_and_set_it_aside_once(
    registry: AddressRegistry, root: Path, file: Path
) -> None:
    registry.created(ONE, 1)
    garbage(file)
    answers = together(WRITE, [(root, number) for number in range(16)])
    assert answers == [""] * 16
    assert len(registry.rows()) == 16 * 5
    assert len(set_aside(file)) == 1

"""The list of addresses, what each of them holds, and what is wrong with one: folders first, registry second."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb.addresses import AddressRow
from prontodb.direct import OneShot, run
from prontodb.errors import AddressBusyError, AddressNotFoundError, CorruptError, UnsafePathError
from prontodb.model.address import Address
from prontodb.registry.addresses import ACTIVE, DELETING, RENAMING, Row
from prontodb.storage import connection as sqlite
from tests.parts import Parts, fill, value
from tests.roots import NOBODY, as_root, give, python, reachable_root

ONE, OTHER = Address("agent1", "prod"), Address("agent2", "test")


def folder(root: Path, address: Address = ONE) -> Path:
    return root / "addresses" / address.user / address.cursor


def keystore(root: Path, address: Address = ONE) -> Path:
    return folder(root, address) / "keystore.db"


def registry_file(root: Path) -> Path:
    return root / "registry" / "address_registry.db"


def edit(root: Path, *statements: str) -> None:
    """Change a keystore behind our back, as another tool would."""
    connection = sqlite.connect(str(keystore(root)))
    try:
        for statement in statements:
            connection.execute(statement).close()
    finally:
        connection.close()


# The list


def test_a_root_that_does_not_exist_has_no_addresses_and_is_not_made(tmp_path: Path) -> None:
    book = Parts(tmp_path / "nothing").book
    assert book.list() == []
    assert book.notes == []
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_in_order_with_states_sizes_and_creation_times(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(OTHER)
    parts.lifecycle.create(ONE)
    at_ms = parts.clock.wall_ms()
    size = keystore(root).stat().st_size
    assert parts.book.list() == [
        AddressRow(address=ONE, state="active", created_at_ms=at_ms, size_bytes=size),
        AddressRow(address=OTHER, state="active", created_at_ms=at_ms, size_bytes=size),
    ]
    assert parts.book.list()[0].as_dict() == {
        "address": "agent1/prod",
        "state": "active",
        "created_at_ms": at_ms,
        "size_bytes": size,
    }
    assert parts.book.notes == []


def test_a_listing_of_what_is_well_changes_nothing(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    Parts(root).book.list()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_row_is_listed_and_gets_its_row_back(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    parts.registry.remove(ONE)
    assert parts.listed() == {"agent1/prod": "active"}
    assert parts.registry.rows() == [Row(ONE, ACTIVE, parts.clock.wall_ms())]


def test_a_folder_that_vanished_is_missing_and_stays_so(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    shutil.rmtree(folder(root))
    for _ in range(2):
        assert parts.listed() == {"agent1/prod": "missing"}
    assert parts.book.missing() == [ONE]
    assert parts.book.list()[0].size_bytes == 0


def test_a_missing_address_comes_back_with_its_folder(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    folder(root).rename(root.parent / "elsewhere")
    assert Parts(root).listed() == {"agent1/prod": "missing"}
    (root.parent / "elsewhere").rename(folder(root))
    assert Parts(root).listed() == {"agent1/prod": "active"}


def test_a_missing_address_is_forgotten_only_when_told(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    assert not parts.book.forget(ONE)  # it is not missing
    shutil.rmtree(folder(root))
    assert parts.book.delete(ONE)
    assert not parts.book.delete(ONE)
    assert parts.listed() == {}


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [empty, Path.unlink])
def test_a_keystore_that_is_gone_or_empty_is_damaged_beside_others_that_are_well(
    root: Path, damage: Callable[[Path], None]
) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    fill(root, "agent2/test", {"k": "w"})
    damage(keystore(root))
    assert Parts(root).listed() == {"agent1/prod": "damaged", "agent2/test": "active"}
    assert value(root, "agent2/test", "k") == "w"


def test_what_is_no_address_is_not_listed(root: Path) -> None:
    Parts(root).lifecycle.create(ONE)
    (root / "addresses" / "not a name").mkdir(mode=0o700)
    (root / "addresses" / "agent1" / "..odd").mkdir(mode=0o700)
    (root / "addresses" / "file").touch(mode=0o600)
    (root / "addresses" / "agent1" / "link").symlink_to(folder(root))
    assert Parts(root).listed() == {"agent1/prod": "active"}


# What crashes left in the registry


def test_a_deletion_that_is_going_on_is_left_alone(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    with parts.lifecycle.hold_all("delete", ONE):
        parts.registry.deleting(ONE)
        assert Parts(root).listed() == {"agent1/prod": "active"}
        shutil.rmtree(folder(root))
        assert Parts(root).listed() == {}
        assert [row.state for row in parts.registry.rows()] == [DELETING]
    assert Parts(root).listed() == {}
    assert parts.registry.rows() == []


def test_a_deletion_killed_before_its_folder_went_did_not_happen(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    parts.registry.deleting(ONE)
    assert parts.listed() == {"agent1/prod": "active"}
    assert [row.state for row in parts.registry.rows()] == [ACTIVE]


def test_a_renaming_without_either_folder_is_missing_under_its_old_name(root: Path) -> None:
    parts = Parts(root)
    parts.registry.created(ONE, 1)
    parts.registry.renaming(ONE, OTHER)
    assert parts.listed() == {"agent1/prod": "missing"}
    assert parts.registry.rows() == [Row(ONE, ACTIVE, 1)]


@pytest.mark.parametrize("target", ["agent2/test", "../up", "no address"])
def test_a_renaming_that_did_not_happen_is_undone_whatever_its_target(root: Path, target: str) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    parts.registry.put(ONE, RENAMING, target=target)
    assert parts.listed() == {"agent1/prod": "active"}
    assert [row.state for row in parts.registry.rows()] == [ACTIVE]


# A registry that cannot be used


def test_a_lost_registry_is_rebuilt_with_the_same_list(root: Path) -> None:
    for name in ("a/x", "a/y", "b/x", "_default/_default", "_global/shared"):
        fill(root, name, {"k": name})
    before = Parts(root).book.list()
    shutil.rmtree(root / "registry")
    assert Parts(root).book.list() == before
    assert [row.address for row in Parts(root).registry.rows()] == [row.address for row in before]
    assert value(root, "b/x", "k") == "b/x"


def test_a_damaged_registry_is_made_anew_and_the_reader_is_told(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    before = Parts(root).book.list()
    registry_file(root).write_bytes(b"garbage" * 1_000)
    parts = Parts(root)
    assert parts.book.list() == before
    assert len(parts.book.notes) == 1
    assert "made anew" in parts.book.notes[0]
    again = Parts(root)
    assert again.book.list() == before
    assert again.book.notes == []


def test_a_registry_with_a_row_that_is_none_is_made_anew(root: Path) -> None:
    Parts(root).lifecycle.create(ONE)
    connection = sqlite.connect(str(registry_file(root)))
    connection.execute("INSERT INTO addresses VALUES ('../up', 'x', 'active', 1, NULL)").close()
    connection.close()
    assert Parts(root).listed() == {"agent1/prod": "active"}
    assert Parts(root).book.disagreements() == []


def test_a_locked_registry_does_not_keep_the_list_from_being_shown(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    parts = Parts(root, wait_s=0.05)
    parts.registry.remove(ONE)
    holder = sqlite.connect(str(registry_file(root)))
    try:
        holder.execute("BEGIN IMMEDIATE").close()
        assert parts.listed() == {"agent1/prod": "active"}
    finally:
        holder.close()
    assert len(parts.book.notes) == 1
    assert "locked" in parts.book.notes[0]
    assert parts.book.list()[0].created_at_ms is not None


def test_rebuilding_keeps_what_is_missing_when_the_old_registry_can_be_read(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    parts.lifecycle.create(OTHER)
    shutil.rmtree(folder(root))
    parts.book.rebuild()
    assert parts.listed() == {"agent1/prod": "missing", "agent2/test": "active"}


def test_registering_notes_an_unknown_address_and_never_fails(root: Path) -> None:
    parts = Parts(root, wait_s=0.05)
    parts.lifecycle.create(ONE)
    parts.registry.remove(ONE)
    parts.book.register(ONE)
    assert [row.address for row in parts.registry.rows()] == [ONE]
    parts.book.register(OTHER)  # it has no folder
    assert [row.address for row in parts.registry.rows()] == [ONE]
    registry_file(root).write_bytes(b"garbage" * 1_000)
    parts.book.register(ONE)


LIST_AS_NOBODY = """
parts = tests.parts.Parts(sys.argv[1])
become()
print(json.dumps([parts.listed(), parts.book.notes]))
print(tests.parts.value(sys.argv[1], "agent2/test", "k"))
"""


def listed_as_nobody(root: Path) -> tuple[dict[str, str], list[str]]:
    done = python(LIST_AS_NOBODY, root, user=NOBODY)
    assert done.returncode == 0, done.stderr
    answer, read = done.stdout.splitlines()
    assert read == "v"  # whatever is wrong with the list, reading goes on
    states, notes = json.loads(answer)
    return states, notes


@as_root
def test_a_root_that_cannot_be_written_is_listed_all_the_same() -> None:
    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        fill(root, "agent2/test", {"k": "v"})
        fill(root, "agent3/gone", {"k": "v"})
        shutil.rmtree(root / "addresses" / "agent3")
        Parts(root).registry.remove(OTHER)
        (root / "addresses" / "agent2" / ".trash-gone@a1").mkdir(mode=0o700)
        give(root, NOBODY)
        for path in root.rglob("*"):
            path.chmod(0o500 if path.is_dir() else 0o400)
        states, notes = listed_as_nobody(root)
        assert states == {"agent1/prod": "active", "agent2/test": "active", "agent3/gone": "missing"}
        assert len(notes) == 2
        assert ".trash-gone" in notes[0] or "agent2/gone" in notes[0]
        assert "registry" in notes[1]


@as_root
def test_a_user_whose_folder_is_closed_hides_nobody_else() -> None:
    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        fill(root, "agent2/test", {"k": "v"})
        give(root, NOBODY)
        os.chmod(root / "addresses" / "agent1", 0o000)
        states, notes = listed_as_nobody(root)
        assert states == {"agent1/prod": "damaged", "agent2/test": "active"}
        assert len(notes) == 1
        assert "agent1" in notes[0]
        os.chmod(root / "addresses" / "agent1", 0o700)
        os.chown(root / "addresses" / "agent1", 0, 0)
        states, notes = listed_as_nobody(root)
        assert states == {"agent1/prod": "damaged", "agent2/test": "active"}
        assert "uid 0" in notes[0]


# One address


def test_an_address_is_described_from_its_own_files(root: Path) -> None:
    parts = Parts(root)
    parts.lifecycle.create(ONE)
    fill(root, "agent1/prod", {"a.b.c": "1", "a.b.d": "2"})
    report = parts.book.describe(ONE)
    assert report.path == str(keystore(root))
    assert (report.entries, report.expired, report.revision, report.floor, report.journal_rows) == (
        2,
        0,
        2,
        0,
        2,
    )
    assert report.created_at_ms == parts.clock.wall_ms()
    assert report.size_bytes == keystore(root).stat().st_size
    assert (report.labels, report.encryption, report.metadata_problem) == ({}, None, None)
    assert len(report.incarnation) == 32
    assert json.loads(json.dumps(report.as_dict()))["address"] == "agent1/prod"


def test_expired_entries_are_counted_apart(root: Path) -> None:
    fill(root, "agent1/prod", {"stays": "1", "goes": "2"})
    edit(root, "UPDATE kvstore SET ttl_expires_at = 1 WHERE namespace_key = 'goes'")
    edit(root, "INSERT INTO namespace_ttl VALUES ('cache', 60000)")
    report = Parts(root).book.describe(ONE)
    assert (report.entries, report.expired) == (1, 1)
    assert report.lifetimes_ms == {"cache": 60_000}


def test_describing_what_does_not_exist_makes_nothing(root: Path) -> None:
    with pytest.raises(AddressNotFoundError):
        Parts(root).book.describe(ONE)
    with pytest.raises(AddressNotFoundError):
        Parts(root).book.check(ONE)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 1}',
        '{"format": "1", "created_at": 1, "encryption": null, "labels": {}}',
        '{"format": 0, "created_at": 1, "encryption": null, "labels": {}}',
        '{"format": 2, "created_at": 1, "encryption": null, "labels": {}}',
        '{"format": true, "created_at": 1, "encryption": null, "labels": {}}',
        '{"format": 1, "created_at": -1, "encryption": null, "labels": {}}',
        '{"format": 1, "created_at": 1e400, "encryption": null, "labels": {}}',
        '{"format": 1, "created_at": NaN, "encryption": null, "labels": {}}',
        '{"format": 1, "created_at": 1, "encryption": 7, "labels": {}}',
        '{"format": 1, "created_at": 1, "encryption": null, "labels": {"a": 1}}',
        '{"format": 1, "created_at": 1, "encryption": null, "labels": {"a": "1", "a": "2"}}',
        '{"format": 1, "created_at": 1, "encryption": null, "labels": {}, "more": 1}',
        "[" * 100_000,
        '{"format": 1, "created_at": ' + "9" * 5_000 + ', "encryption": null, "labels": {}}',
        " " * 2_000_000,
    ],
)
def test_damaged_metadata_is_reported_and_stops_nothing(root: Path, text: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    (folder(root) / "metadata.json").write_text(text)
    book = Parts(root).book
    report = book.describe(ONE)
    assert report.metadata_problem is not None
    assert (report.entries, report.created_at_ms, report.labels) == (1, None, {})
    assert book.check(ONE) == [report.metadata_problem]
    assert value(root, "agent1/prod", "k") == "v"


def test_a_keystore_that_is_well_passes_every_check(root: Path) -> None:
    fill(root, "agent1/prod", {f"key.{number}": "v" * number for number in range(300)})
    book = Parts(root).book
    assert book.check(ONE) == []
    assert book.check(ONE, deep=True) == []


# Each row: what another hand did, whether only a deep check sees it, what the check says.
EDITS = [
    ("UPDATE meta SET incarnation = x'00'", False, "table meta: incarnation is not 16 bytes"),
    ("DELETE FROM meta", False, "table meta has lost its row"),
    ("DELETE FROM journal WHERE rev = 3", False, "an entry has revision 3"),
    ("DELETE FROM kvstore WHERE rev = 2", True, "entry 'k2' is lost or old"),
    ("UPDATE kvstore SET namespace_key = 'k9', checksum = 0 WHERE rev = 2", True, "entry 'k9' is damaged"),
    ("UPDATE kvstore SET value = 'w' WHERE rev = 2", True, "entry 'k2' is damaged"),
    ("UPDATE kvstore SET ttl_expires_at = 99 WHERE rev = 2", True, "entry 'k2' is damaged"),
    ("UPDATE kvstore SET created_at = created_at + 1 WHERE rev = 2", True, "entry 'k2' is damaged"),
    ("UPDATE kvstore SET value = x'00' WHERE rev = 2", True, "entry 'k2' is damaged"),
    ("UPDATE kvstore SET value = CAST(x'ff' AS TEXT) WHERE rev = 2", True, "holds text that is not UTF-8"),
    ("DELETE FROM journal WHERE rev = 2", True, "the journal goes from revision 1 to 3"),
    ("UPDATE journal SET session = 'x' WHERE rev = 2", True, "journal row 2 does not follow"),
    ("UPDATE journal SET at = at + 1 WHERE rev = 2", True, "journal row 2 does not follow"),
    ("UPDATE journal SET records = '[]' WHERE rev = 2", True, "journal row 2 does not follow"),
    ("UPDATE journal SET records = x'00' WHERE rev = 2", True, "journal row 2 does not follow"),
    ("UPDATE journal SET chain = x'00' WHERE rev = 2", True, "journal row 3 does not follow"),
    ("UPDATE meta SET floor_chain = x'00'", False, "journal row 1 does not follow"),
]


@pytest.mark.parametrize(("statement", "only_deep", "says"), EDITS)
def test_what_another_hand_changed_is_found(root: Path, statement: str, only_deep: bool, says: str) -> None:
    fill(root, "agent1/prod", {"k1": "v", "k2": "v", "k3": "v"})
    edit(root, statement)
    book = Parts(root).book
    assert any(says in fault for fault in book.check(ONE, deep=True)), book.check(ONE, deep=True)
    assert (book.check(ONE) == []) == only_deep


def test_entries_that_the_journal_tells_otherwise_of_are_found(root: Path) -> None:
    fill(root, "agent1/prod", {"old": "1", "new": "1", "gone": "1"})
    shutil.copy(keystore(root), root.parent / "before.db")
    fill(root, "agent1/prod", {"old": "2"})
    with OneShot(str(root), ONE) as handle:
        run(handle.set_namespace_ttl("gone", 60))
        run(handle.delete("gone"))
        run(handle.set_many({f"many.{number}": "x" for number in range(1_000)}))
        run(handle.clear("many"))
    assert Parts(root).book.check(ONE, deep=True) == []
    edit(
        root,
        f"ATTACH '{root.parent / 'before.db'}' AS before",
        "DELETE FROM kvstore",
        "INSERT INTO kvstore SELECT * FROM before.kvstore",
        "DETACH before",
    )
    assert Parts(root).book.check(ONE, deep=True) == [
        "entry 'old' is lost or old: the journal knows of a later change",
        "entry 'gone' has no change in the journal that it could come from",
        "entry 'old' has no change in the journal that it could come from",
    ]


def test_a_journal_pruned_to_its_floor_is_whole(root: Path) -> None:
    fill(root, "agent1/prod", {f"k{number}": "v" for number in range(600)})
    edit(
        root,
        "UPDATE meta SET floor = 300, floor_chain = (SELECT chain FROM journal WHERE rev = 300)",
        "DELETE FROM journal WHERE rev <= 300",
    )
    assert Parts(root).book.check(ONE, deep=True) == []
    edit(root, "DELETE FROM journal", "UPDATE meta SET floor = 600")
    assert Parts(root).book.check(ONE, deep=True) == []


def test_many_faults_are_cut_short(root: Path) -> None:
    fill(root, "agent1/prod", {f"k{number}": "v" for number in range(150)})
    edit(root, "UPDATE kvstore SET checksum = 0")
    found = Parts(root).book.check(ONE, deep=True)
    assert len(found) == 101
    assert found[-1] == "and 50 more faults"


def flip_bits(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in range(8_192, len(data), 64):
        data[at] ^= 0x40
    file.write_bytes(data)


def swap_for_garbage(file: Path) -> None:
    file.write_bytes(b"\x07" * 40_000)


def truncate(file: Path) -> None:
    os.truncate(file, 10_000)


def make_foreign(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[68:72] = b"\x00\x00\x00\x01"  # application_id
    file.write_bytes(data)


def make_newer(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[60:64] = b"\x00\x00\x00\x63"  # user_version
    file.write_bytes(data)


def put_a_journal_beside(file: Path) -> None:
    file.with_name(file.name + "-journal").write_bytes(b"\x00" * 512)


@pytest.mark.parametrize(
    "damage",
    [
        flip_bits,
        swap_for_garbage,
        truncate,
        make_foreign,
        make_newer,
        put_a_journal_beside,
        empty,
        Path.unlink,
    ],
)
def test_damage_of_the_file_is_a_line_of_the_check_and_the_file_stays_as_it_is(
    root: Path, damage: Callable[[Path], None]
) -> None:
    fill(root, "agent1/prod", {f"key.{number}": "v" * 100 for number in range(100)})
    fill(root, "agent2/test", {"k": "w"})
    damage(keystore(root))
    before = keystore(root).read_bytes() if keystore(root).exists() else None
    book = Parts(root).book
    assert book.check(ONE, deep=True) != []
    assert book.check(OTHER, deep=True) == []
    assert (keystore(root).read_bytes() if keystore(root).exists() else None) == before


def test_a_keystore_that_is_a_link_or_has_two_names_is_not_opened(root: Path, tmp_path: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    os.link(keystore(root), tmp_path / "second")
    book = Parts(root).book
    assert "hard links" in book.check(ONE)[0]
    (tmp_path / "second").unlink()
    keystore(root).rename(tmp_path / "moved.db")
    keystore(root).symlink_to(tmp_path / "moved.db")
    assert "symbolic link" in book.check(ONE)[0]
    with pytest.raises(UnsafePathError):
        book.describe(ONE)


def test_a_damaged_keystore_cannot_be_described(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    swap_for_garbage(keystore(root))
    with pytest.raises(CorruptError):
        Parts(root).book.describe(ONE)


def test_forgetting_waits_for_whoever_holds_the_address(root: Path) -> None:
    parts = Parts(root, wait_s=0)
    parts.registry.created(ONE, 1)
    with parts.lifecycle.hold(ONE, "restore"), pytest.raises(AddressBusyError):
        parts.book.forget(ONE)
    assert parts.book.forget(ONE)


def test_listing_thousands_of_addresses_reads_no_keystore(root: Path) -> None:
    parts = Parts(root)
    for number in range(50):
        parts.lifecycle.create(Address(f"agent{number}"))
    for file in (root / "addresses").rglob("keystore.db"):
        file.write_bytes(b"garbage")
    assert set(parts.listed().values()) == {"active"}

"""The door to SQLite: set up right, locked down, and shut to files that are not ours, which stay as they are."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prontodb.direct import OneShot, lifecycle, run
from prontodb.engine.sqlite import opening
from prontodb.errors import (
    BusyError,
    CorruptError,
    NewerFormatError,
    ProntoError,
    ReadOnlyError,
    StorageFullError,
    UnavailableError,
    UnsafePathError,
)
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from prontodb.storage.connection import Connection

HERE = Address("agent", "home")


@pytest.fixture
def file(root: Path) -> Path:
    """A keystore with one entry; nobody has it open."""
    with OneShot(str(root), HERE) as keystore:
        run(keystore.set("key", "value"))
    return root / "addresses" / "agent" / "home" / "keystore.db"


@pytest.fixture
def connection(file: Path) -> Iterator["Connection"]:
    """A checked and locked-down writing connection."""
    layout = Layout(str(file.parents[3]))
    opened, _ = opening.open_writer(layout, HERE, Limits())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "statement",
    [
        "ATTACH ':memory:' AS other",
        "ATTACH '/etc/passwd' AS other",
        "DETACH main",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE INDEX i ON kvstore (value)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER g AFTER INSERT ON kvstore BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER g AFTER INSERT ON kvstore BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE v USING fts5(a)",
        "DROP TABLE kvstore",
        "DROP INDEX kvstore_expiry",
        "ALTER TABLE kvstore ADD COLUMN x",
        "REINDEX",
        "ANALYZE",
        "VACUUM",
        "VACUUM INTO '/nowhere/x'",
        "PRAGMA writable_schema=ON",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA synchronous=OFF",
        "PRAGMA key='x'",
        "PRAGMA rekey='x'",
        "PRAGMA user_version=9",
        "PRAGMA application_id=9",
        "PRAGMA trusted_schema=ON",
        "PRAGMA mmap_size=1000000",
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA nonsense",
        "SELECT load_extension('x')",
    ],
)
def test_what_no_transaction_of_ours_does_is_denied(connection: "Connection", statement: str) -> None:
    with pytest.raises(sqlite.Error):
        connection.execute(statement).close()
    assert sqlite.one(connection, "PRAGMA journal_mode") == ("wal",)
    assert sqlite.one(connection, "PRAGMA user_version") == (1,)


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("page_size", 4_096), ("auto_vacuum", 2), ("user_version", 1)],
)
def test_a_connection_is_set_up_for_durability(connection: "Connection", pragma: str, value: object) -> None:
    assert sqlite.one(connection, f"PRAGMA {pragma}") == (value,)


def test_relaxed_durability_syncs_less(file: Path) -> None:
    opened = sqlite.connect(str(file), durability="relaxed")
    assert sqlite.one(opened, "PRAGMA synchronous") == (1,)
    opened.close()


def test_a_reading_connection_cannot_write(file: Path) -> None:
    opened, _ = opening.open_reader(Layout(str(file.parents[3])), HERE)
    with pytest.raises(sqlite.Error) as caught:
        opened.execute("DELETE FROM kvstore").close()
    assert isinstance(sqlite.translated(caught.value, str(file)), ReadOnlyError)
    opened.close()


@pytest.mark.parametrize("name", ["a b", "ü", "a%20b", "a?mode=memory", "a#b", "a&b=c", "'\"", "a\nb", "%", "\udcff"])
def test_any_folder_name_can_hold_a_root(tmp_path: Path, name: str) -> None:
    root = str(tmp_path / name)
    try:
        with OneShot(root, HERE) as keystore:
            run(keystore.set("key", "value"))
            assert run(keystore.get("key")) == "value"
    except ProntoError:
        # SQLite takes paths as UTF-8; another one is refused, in our own words.
        assert name == "\udcff"
        return
    assert os.listdir(tmp_path) == [name]


class Named(sqlite.Error):  # type: ignore[misc]
    """An error of SQLite with a name of our choice."""

    def __init__(self, name: str) -> None:
        super().__init__("secret value")
        self.sqlite_errorname = name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SQLITE_BUSY", BusyError),
        ("SQLITE_BUSY_SNAPSHOT", BusyError),
        ("SQLITE_LOCKED", BusyError),
        ("SQLITE_FULL", StorageFullError),
        ("SQLITE_CORRUPT", CorruptError),
        ("SQLITE_CORRUPT_INDEX", CorruptError),
        ("SQLITE_NOTADB", CorruptError),
        ("SQLITE_READONLY_DBMOVED", ReadOnlyError),
        ("SQLITE_CANTOPEN", UnavailableError),
        ("SQLITE_IOERR_WRITE", UnavailableError),
        ("SQLITE_TOOBIG", UnavailableError),
        ("SQLITE_ERROR", UnavailableError),
        ("", UnavailableError),
    ],
)
def test_errors_are_translated_by_name_and_show_no_value(
    tmp_path: Path, name: str, expected: type[ProntoError]
) -> None:
    error = sqlite.translated(Named(name), str(tmp_path / "x"))
    assert type(error) is expected
    assert "secret" not in str(error)


def test_text_that_is_not_utf_8_is_damage_and_is_not_shown(file: Path) -> None:
    opened = sqlite.connect(str(file))
    opened.execute("UPDATE kvstore SET value = CAST(x'5345435245ff54' AS TEXT)").close()
    opened.close()
    with OneShot(str(file.parents[3]), HERE) as keystore:
        with pytest.raises(CorruptError) as caught:
            run(keystore.get("key"))
        shown = "".join(f"{error} {error!r}" for error in (caught.value, caught.value.__cause__))
        assert "SECRE" not in shown


# Files that are not ours, or not sound


def built(path: Path, *statements: str) -> None:
    """Make an SQLite file by these statements."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    opened = sqlite.connect(str(path))
    for statement in statements:
        opened.execute(statement).close()
    opened.close()


def altered(path: Path, *statements: str) -> None:
    """Change the schema of a keystore as a stranger would."""
    opened = sqlite.connect(str(path))
    for statement in statements:
        opened.execute(statement).close()
    opened.close()


def overwritten(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def wal_kept(path: Path) -> None:
    """A newer format whose last commit is still in the log, as a killed newer ProntoDB leaves it."""
    opened, second = sqlite.connect(str(path)), sqlite.connect(str(path), mode=sqlite.READ_ONLY)
    sqlite.one(second, "SELECT 1 FROM kvstore")
    opened.execute("PRAGMA user_version=2").close()
    for ending in ("", "-wal"):
        shutil.copy(f"{path}{ending}", f"{path}{ending}.copy")
    second.close()
    opened.close()
    for ending in ("", "-wal"):
        os.replace(f"{path}{ending}.copy", f"{path}{ending}")
        os.chmod(f"{path}{ending}", 0o600)


FILES: dict[str, tuple[Callable[[Path], object], type[ProntoError]]] = {
    "a foreign database": (lambda path: built(path, "CREATE TABLE t (a)"), CorruptError),
    "a foreign database in WAL mode": (
        lambda path: built(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t (a)"),
        CorruptError,
    ),
    "an empty database": (lambda path: built(path, "PRAGMA user_version=0", "VACUUM"), CorruptError),
    "a newer format": (lambda path: altered(path, "PRAGMA user_version=2"), NewerFormatError),
    "a newer format with a log": (wal_kept, NewerFormatError),
    "a format that never was": (lambda path: altered(path, "PRAGMA user_version=0"), CorruptError),
    "a negative format": (lambda path: altered(path, "PRAGMA user_version=-5"), CorruptError),
    "another application": (lambda path: altered(path, "PRAGMA application_id=1"), CorruptError),
    "a view for a table": (
        lambda path: altered(
            path, "ALTER TABLE kvstore RENAME TO hidden", "CREATE VIEW kvstore AS SELECT * FROM hidden"
        ),
        CorruptError,
    ),
    "a trigger": (
        lambda path: altered(path, "CREATE TRIGGER g AFTER UPDATE ON meta BEGIN DELETE FROM kvstore; END"),
        CorruptError,
    ),
    "another table": (lambda path: altered(path, "CREATE TABLE extra (a)"), CorruptError),
    "a missing index": (lambda path: altered(path, "DROP INDEX kvstore_expiry"), CorruptError),
    "another journal mode": (lambda path: altered(path, "PRAGMA journal_mode=DELETE"), CorruptError),
    "garbage": (lambda path: path.write_bytes(os.urandom(20_000)), CorruptError),
    "text": (lambda path: path.write_text("hello\n" * 1_000), CorruptError),
    "zeros": (lambda path: path.write_bytes(bytes(20_000)), CorruptError),
    "nothing": (lambda path: path.write_bytes(b""), CorruptError),
    "one byte": (lambda path: path.write_bytes(b"S"), CorruptError),
    "half a page": (lambda path: os.truncate(path, 2_048), CorruptError),
    "one page": (lambda path: os.truncate(path, 4_096), CorruptError),
    "a broken header": (lambda path: overwritten(path, 0, b"SQLite format 4\0"), CorruptError),
    "a broken schema page": (lambda path: overwritten(path, 100, b"\xff" * 400), CorruptError),
    "a foreign journal beside it": (lambda path: Path(f"{path}-journal").write_bytes(b"x" * 600), CorruptError),
}


@pytest.mark.parametrize("what", sorted(FILES))
def test_a_file_that_is_not_ours_or_not_sound_is_refused_and_untouched(file: Path, what: str) -> None:
    spoil, expected = FILES[what]
    spoil(file)
    with_others = [path for path in sorted(file.parent.iterdir()) if not path.name.endswith("-shm")]
    before = {path.name: path.read_bytes() for path in with_others}
    shot = OneShot(str(file.parents[3]), HERE)
    with shot as keystore:
        for attempt in (keystore.get("key"), keystore.set("key", "new"), keystore.count(), keystore.delete("key")):
            with pytest.raises(expected, match=r"keystore\.db"):
                run(attempt)
    assert {path.name: path.read_bytes() for path in with_others} == before


@pytest.mark.parametrize("what", ["garbage", "nothing", "a view for a table", "one page"])
def test_one_damaged_address_does_not_stop_another(file: Path, what: str) -> None:
    FILES[what][0](file)
    with OneShot(str(file.parents[3]), Address("agent", "other")) as keystore:
        run(keystore.set("key", "value"))
        assert run(keystore.get("key")) == "value"


def test_a_missing_file_in_a_folder_is_named_and_not_made_anew(file: Path) -> None:
    file.unlink()
    with OneShot(str(file.parents[3]), HERE) as keystore:
        for attempt in (keystore.get("key"), keystore.set("key", "new")):
            with pytest.raises(CorruptError, match="backup"):
                run(attempt)
    assert not file.exists()


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["link", "pipe", "twice", "folder", "open to others"])
def test_planted_files_are_refused_without_waiting(file: Path, tmp_path: Path, ending: str, kind: str) -> None:
    path = Path(f"{file}{ending}")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if ending == "" and kind in ("link", "pipe", "folder"):
        file.rename(tmp_path / "kept")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "twice":
        if ending:
            path.write_bytes(b"")
            path.chmod(0o600)
        os.link(path, tmp_path / "second name")
    else:
        path.touch(0o600)
        path.chmod(0o666)
    with OneShot(str(file.parents[3]), HERE) as keystore:
        for attempt in (keystore.get("key"), keystore.set("key", "new")):
            with pytest.raises(UnsafePathError):
                run(attempt)
    assert victim.read_text() == "precious"


def test_damage_in_the_middle_is_noticed_when_it_is_read(root: Path) -> None:
    with OneShot(str(root), HERE) as keystore:
        run(keystore.set_many({f"k{i:03}": "x" * 500 for i in range(200)}))
    file = root / "addresses" / "agent" / "home" / "keystore.db"
    overwritten(file, 4_096 * 12, b"\xff" * 4_096 * 8)
    with OneShot(str(root), HERE) as keystore, pytest.raises(CorruptError):
        run(keystore.get_many([f"k{i:03}" for i in range(200)]))


def test_every_flipped_bit_is_noticed_or_harmless(root: Path) -> None:
    """No read returns anything but what was written, or an error of ours."""
    values = {f"k{i}": f"value-{i}" * 20 for i in range(12)}
    with OneShot(str(root), HERE) as keystore:
        run(keystore.set_many(values))
    file = root / "addresses" / "agent" / "home" / "keystore.db"
    whole = file.read_bytes()
    wrong = []
    for offset in range(100, len(whole), 173):
        overwritten(file, offset, bytes([whole[offset] ^ (1 << offset % 8)]))
        for key, value in list(values.items())[offset % 3 :: 3]:
            try:
                with OneShot(str(root), HERE) as keystore:
                    found = run(keystore.get(key))
            except ProntoError:
                continue
            if found not in (value, None):
                wrong.append((offset, key, found))
        for ending in ("-wal", "-shm"):
            Path(f"{file}{ending}").unlink(missing_ok=True)
        file.write_bytes(whole)
    assert wrong == []


def test_a_lifecycle_over_a_damaged_neighbour_still_works(file: Path) -> None:
    FILES["garbage"][0](file)
    life = lifecycle(Layout(str(file.parents[3])), Limits(), Clock())
    assert life.create(Address("agent", "new"))
    life.rename(Address("agent", "new"), Address("agent", "newer"))
    assert life.delete(Address("agent", "newer"))

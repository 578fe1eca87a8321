"""Opening an address's file: checked on the way, by SQLite, and against what it was (D3, D4, D9, D35)."""

from __future__ import annotations

import os

from prontodb.engine.sqlite import schema
from prontodb.engine.sqlite.context import Target
from prontodb.errors import (
    AddressGoneError,
    AddressNotFoundError,
    CorruptError,
    ReadOnlyError,
    UnavailableError,
    shown,
)
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.storage import connection as sqlite
from prontodb.storage.files import Folder, identity, open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection


def open_folder(layout: Layout, address: Address) -> Folder:
    """Open the folder of an address, every step checked; `AddressNotFoundError` when there is none."""
    try:
        return open_root(layout.root, *layout.address_parts(address))
    except FileNotFoundError:
        raise AddressNotFoundError(address) from None


def check_files(folder: Folder, address: Address) -> os.stat_result:
    """Check the files of an open address folder and return lstat of the keystore."""
    found = folder.check_file(KEYSTORE_FILE)
    if found is None:
        raise CorruptError(f"address {address} has a folder but no {KEYSTORE_FILE}; restore it from a backup")
    if found.st_size == 0:
        raise CorruptError(f"{KEYSTORE_FILE} of address {address} is empty; restore it from a backup")
    for ending in ("-wal", "-shm"):
        folder.check_file(KEYSTORE_FILE + ending)
    if folder.stat(KEYSTORE_FILE + "-journal") is not None:
        # We are always in WAL mode: a rollback journal is not ours, and SQLite would play it into the file.
        raise CorruptError(
            f"a foreign {KEYSTORE_FILE}-journal lies beside the keystore of {address}; move it away, "
            "then run 'prontodb doctor --deep'"
        )
    return found


def open_writer(
    layout: Layout,
    address: Address,
    limits: Limits,
    *,
    durability: str = "full",
    busy_timeout_ms: int = 0,
    any_thread: bool = False,
) -> tuple[Connection, Target]:
    """Open the keystore of `address` for writing."""
    with open_folder(layout, address) as folder:
        found = check_files(folder, address)
        path = layout.keystore_path(address)
        wal = folder.stat(KEYSTORE_FILE + "-wal")
        if wal is not None and wal.st_size > 0:
            # A writer that closes plays the log into the file: first make sure, without writing, that both are ours.
            reader = sqlite.connect(path, mode=sqlite.READ_ONLY, busy_timeout_ms=busy_timeout_ms)
            _checked(reader, path, found).close()
        connection = sqlite.connect(path, durability=durability, busy_timeout_ms=busy_timeout_ms, any_thread=any_thread)
        return _checked(connection, path, found), Target(path, (found.st_dev, found.st_ino), limits)


def open_reader(
    layout: Layout, address: Address, *, busy_timeout_ms: int = 0, any_thread: bool = False
) -> tuple[Connection, tuple[int, int]]:
    """Open the keystore of `address` for reading, also where the file system or the folder cannot be written.

    Returns the connection and the file's (device, inode).
    """
    with open_folder(layout, address) as folder:
        found = check_files(folder, address)
        path = layout.keystore_path(address)
        try:
            connection = _checked(
                sqlite.connect(path, mode=sqlite.READ_ONLY, busy_timeout_ms=busy_timeout_ms, any_thread=any_thread),
                path,
                found,
            )
        except UnavailableError:
            # SQLite needs its shared-memory file even to read; where that cannot be made one way is left.
            if os.access(folder.path, os.W_OK):
                raise
            connection = _open_immutable(folder, path, found, any_thread)
        return connection, (found.st_dev, found.st_ino)


def _open_immutable(folder: Folder, path: str, found: os.stat_result, any_thread: bool) -> Connection:
    """Open a file that nobody can change; refuse where changes wait in a WAL (E3: false 'malformed')."""
    wal = folder.stat(KEYSTORE_FILE + "-wal")
    if wal is not None and wal.st_size > 0:
        raise ReadOnlyError(
            f"{shown(path)} has commits in its -wal that a read-only folder cannot recover; "
            "make the folder writable for one 'prontodb doctor', or copy it elsewhere"
        )
    # SQLite reports no journal mode of a file that it takes for immutable.
    connection = _checked(sqlite.connect(path, mode=sqlite.IMMUTABLE, any_thread=any_thread), path, found, wal=False)
    again = folder.stat(KEYSTORE_FILE)
    if again is None or (again.st_size, again.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        connection.close()
        raise UnavailableError(f"{shown(path)} changed while it was opened read-only; try again")
    return connection


def _checked(connection: Connection, path: str, found: os.stat_result, *, wal: bool = True) -> Connection:
    """Check what was opened and lock the connection down; close it when anything is wrong."""
    try:
        schema.check(connection, path, wal=wal)
        sqlite.lock_down(connection)
        if identity(path) != (found.st_dev, found.st_ino):
            raise AddressGoneError(f"{shown(path)} was replaced while it was opened; try again")
    except sqlite.ERRORS as error:
        connection.close()
        raise sqlite.translated(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection

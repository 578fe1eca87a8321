"""Opening an address's file: checked on the way, by SQLite, and against what it was (D3, D4, D9, D35)."""

from __future__ import annotations

import os
import time

from prontodb.engine.sqlite import ciphers, schema
from prontodb.engine.sqlite.context import Target
from prontodb.errors import (
    AddressGoneError,
    AddressNotFoundError,
    BusyError,
    CorruptError,
    ProntoError,
    ReadOnlyError,
    StorageFullError,
    UnavailableError,
    shown,
)
from prontodb.log import event
from prontodb.model.layout import ADDRESS_LOCK_FILE, KEYSTORE_FILE, OLD_PREFIX
from prontodb.storage import connection as sqlite
from prontodb.storage.files import Folder, identity, open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection

    T = TypeVar("T")

ATTEMPTS = 5
"""How often an address is looked for again that is removed or replaced while it is opened."""
REPLACED_WITHIN_S = 5.0
"""How long a restore may take for the two renames that put another folder in the place of an address's."""
POLL_S = 0.002
RETRY_S = 0.001
LOST_LOGS: list[str] = []
"""Keystores whose -wal somebody removed, as this process found out: what it held is lost."""


def open_folder(layout: Layout, address: Address) -> Folder:
    """Open the folder of an address, every step checked; `AddressNotFoundError` when there is none."""
    try:
        folder = open_root(layout.root, *layout.address_parts(address))
    except FileNotFoundError:
        from prontodb.storage.confined import is_kept_out, sandboxed

        if is_kept_out(layout.root):
            raise sandboxed(layout.path(*layout.address_parts(address))) from None
        return _open_replaced(layout, address)
    if folder.is_passage:
        from prontodb.storage.confined import sandboxed

        folder.close()
        raise sandboxed(folder.path)
    return folder


def _open_replaced(layout: Layout, address: Address) -> Folder:
    """Open an address that has no folder, if a restore is just putting another one in its place, or died doing it."""
    deadline = time.monotonic() + REPLACED_WITHIN_S
    while _is_put_aside(layout, address):
        from prontodb.engine.sqlite import folders
        from prontodb.storage import lock

        try:
            return open_root(layout.root, *layout.address_parts(address))
        except FileNotFoundError:
            pass
        try:
            with lock.acquire(
                layout.root,
                layout.lock_parts(address),
                ADDRESS_LOCK_FILE,
                purpose=f"heal {address}",
                wait_s=0,
                one_shot=True,
            ):
                folders.remove_remains(layout, address)
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
    try:
        return open_root(layout.root, *layout.address_parts(address))
    except FileNotFoundError:
        raise AddressNotFoundError(address) from None


def _is_put_aside(layout: Layout, address: Address) -> bool:
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            return any(name.startswith(f"{OLD_PREFIX}{address.cursor}@") for name in user.names())
    except FileNotFoundError:
        return False


def check_files(folder: Folder, address: Address) -> os.stat_result:
    """Check the files of an open address folder and return lstat of the keystore."""
    found = folder.check_file(KEYSTORE_FILE)
    if found is None:
        raise CorruptError(f"address {address} has a folder but no {KEYSTORE_FILE}; restore it from a backup")
    if found.st_size == 0:
        raise CorruptError(f"{KEYSTORE_FILE} of address {address} is empty; restore it from a backup")
    log, index = (folder.check_file(KEYSTORE_FILE + ending) for ending in ("-wal", "-shm"))
    if index is not None and log is None:
        # SQLite makes the log first and removes it last: somebody else has taken it away.
        LOST_LOGS.append(f"{folder.path}/{KEYSTORE_FILE}-wal")
        event("keystore.log_lost", address=address)
    if folder.stat(KEYSTORE_FILE + "-journal") is not None:
        # We are always in WAL mode: a rollback journal is not ours, and SQLite would play it into the file.
        raise CorruptError(
            f"a foreign {KEYSTORE_FILE}-journal lies beside the keystore of {address}; move it away, "
            "then run 'prontodb doctor --deep'"
        )
    return found


def _steadily(layout: Layout, address: Address, work: Callable[[Folder, os.stat_result], T]) -> T:
    """Return what `work` makes of an address's folder; look again when it went away while we were at it."""
    for attempt in range(1, ATTEMPTS + 1):
        with open_folder(layout, address) as folder:
            try:
                return work(folder, check_files(folder, address))
            except ProntoError:
                here = os.fstat(folder.fd)
                if attempt == ATTEMPTS or identity(folder.path) == (here.st_dev, here.st_ino):
                    raise
    raise AssertionError("the last attempt returns or raises")


def open_writer(
    layout: Layout,
    address: Address,
    limits: Limits,
    *,
    durability: str = "full",
    busy_timeout_ms: int = 0,
    any_thread: bool = False,
) -> tuple[Connection, Target]:
    """Open the keystore of `address` for writing, under the limits that are its own."""
    path, limits = layout.keystore_path(address), limits.at(address)

    def opened(folder: Folder, found: os.stat_result) -> tuple[Connection, Target]:
        secret = ciphers.secret_in(layout, folder, address)
        if _log_waits(folder):
            # A writer that closes plays the log into the file: first make sure, without writing, that both are ours.
            reader = sqlite.connect(
                path, mode=sqlite.READ_ONLY, busy_timeout_ms=busy_timeout_ms, found=found, secret=secret
            )
            _checked(reader, path, found, log_waits=True).close()
        connection = sqlite.connect(
            path,
            durability=durability,
            busy_timeout_ms=busy_timeout_ms,
            any_thread=any_thread,
            found=found,
            secret=secret,
        )
        near = None
        if limits.max_entries is not None or limits.max_keystore_bytes is not None:
            from prontodb.engine.sqlite import quotas  # few addresses have any

            near = quotas.Nearness(address, path, limits)
        return _checked(connection, path, found), Target(path, (found.st_dev, found.st_ino), limits, near)

    return _steadily(layout, address, opened)


def insist(opened: Callable[[], T], path: str, clock: Clock, deadline: float) -> T:
    """Open what others may have locked, as while they recover its log; again up to the deadline. Waits in place."""
    while True:
        try:
            return opened()
        except BusyError as error:
            if clock.monotonic_s() >= deadline:
                raise sqlite.with_writer_named(error, path) from error
            time.sleep(RETRY_S)


def open_reader(
    layout: Layout, address: Address, *, busy_timeout_ms: int = 0, any_thread: bool = False, knows_log: bool = False
) -> tuple[Connection, tuple[int, int]]:
    """Open the keystore of `address` for reading, also where the file system or the folder cannot be written.

    `knows_log`: this process writes to it, so whose log it is was checked. (To check it again would cost a descriptor
    for as long: SQLite closes none of a file that it holds locks of.) Returns the connection and the file's (device,
    inode).
    """
    path = layout.keystore_path(address)

    def opened(folder: Folder, found: os.stat_result) -> tuple[Connection, tuple[int, int]]:
        secret = ciphers.secret_in(layout, folder, address)
        try:
            reader = sqlite.connect(
                path,
                mode=sqlite.READ_ONLY,
                busy_timeout_ms=busy_timeout_ms,
                any_thread=any_thread,
                found=found,
                secret=secret,
            )
            connection = _checked(reader, path, found, log_waits=not knows_log and _log_waits(folder))
        except UnavailableError:
            # SQLite needs its shared-memory file even to read; where that cannot be made one way is left.
            if os.access(".", os.W_OK, dir_fd=folder.fd):
                raise
            connection = _open_immutable(folder, path, found, secret, any_thread=any_thread)
        return connection, (found.st_dev, found.st_ino)

    return _steadily(layout, address, opened)


def read(
    layout: Layout,
    address: Address,
    work: Callable[[Connection], T],
    *,
    busy_timeout_ms: int,
    only: tuple[int, int] | None = None,
) -> T:
    """Run one read over a connection of its own; with `only`, raise `AddressGoneError` unless it is that very file."""
    try:
        connection, found = open_reader(layout, address, busy_timeout_ms=busy_timeout_ms)
    except StorageFullError:
        return read_as_it_is(layout, address, work)
    try:
        if only not in (None, found):
            raise AddressGoneError(f"address {address} was renamed, removed or replaced; open a new session")
        return work(connection)
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, layout.keystore_path(address)) from error
    finally:
        connection.close()


def read_as_it_is(layout: Layout, address: Address, work: Callable[[Connection], T]) -> T:
    """Run one read where the disk is too full for SQLite's shared-memory file; raises when the file changes under it.

    A log that waits cannot be read without that file: then this raises `StorageFullError` as SQLite did.
    """
    path = layout.keystore_path(address)

    def read(folder: Folder, found: os.stat_result) -> T:
        if _log_waits(folder):
            raise StorageFullError(f"no space left to read the log of {shown(path)}; nothing is lost, make some room")
        connection = _open_immutable(folder, path, found, ciphers.secret_in(layout, folder, address))
        try:
            result = work(connection)
        except sqlite.ERRORS as error:
            raise sqlite.translated(error, path) from error
        finally:
            connection.close()
        _check_unchanged(folder, path, found)
        return result

    return _steadily(layout, address, read)


def _log_waits(folder: Folder) -> bool:
    wal = folder.stat(KEYSTORE_FILE + "-wal")
    return wal is not None and wal.st_size > 0


def _open_immutable(
    folder: Folder, path: str, found: os.stat_result, secret: Secret | None, *, any_thread: bool = False
) -> Connection:
    """Open a file that nobody can change; refuse where changes wait in a WAL (E3: false 'malformed')."""
    wal = folder.stat(KEYSTORE_FILE + "-wal")
    if wal is not None and wal.st_size > 0:
        raise ReadOnlyError(
            f"{shown(path)} has commits in its -wal that a read-only folder cannot recover; "
            "make the folder writable for one 'prontodb doctor', or copy it elsewhere"
        )
    connection = _unchanging(path, found, secret, any_thread=any_thread)
    try:
        _check_unchanged(folder, path, found)
    except BaseException:
        connection.close()
        raise
    return connection


def _unchanging(path: str, found: os.stat_result, secret: Secret | None, *, any_thread: bool = False) -> Connection:
    """Open the file alone, as if nobody could change it: without its log, its index and any lock."""
    # SQLite reports no journal mode of a file that it takes for immutable.
    connection = sqlite.connect(path, mode=sqlite.IMMUTABLE, any_thread=any_thread, found=found, secret=secret)
    return _checked(connection, path, found, wal=False)


def _check_unchanged(folder: Folder, path: str, found: os.stat_result) -> None:
    again = folder.stat(KEYSTORE_FILE)
    if again is None or (again.st_size, again.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise UnavailableError(f"{shown(path)} changed while it was read without its log; try again")


def _checked(
    connection: Connection, path: str, found: os.stat_result, *, wal: bool = True, log_waits: bool = False
) -> Connection:
    """Check what was opened and lock the connection down; close it when anything is wrong."""

    def check() -> None:
        schema.check(connection, path, wal=wal)
        if log_waits:
            _check_log(connection, path, found)
        sqlite.lock_down(connection)
        if identity(path) != (found.st_dev, found.st_ino):
            raise AddressGoneError(f"{shown(path)} was replaced while it was opened; try again")

    return sqlite.checked(connection, path, check)


_ALONE = (
    "SELECT incarnation, (SELECT max(rev) FROM journal), "
    "(SELECT chain FROM journal ORDER BY rev DESC LIMIT 1) FROM meta"
)
_WITH_LOG = "SELECT incarnation, floor, (SELECT chain FROM journal WHERE rev = ?) FROM meta"


def _check_log(connection: Connection, path: str, found: os.stat_result) -> None:
    """Raise when the log is another keystore's: what the file says alone must go on in what it says with its log.

    A log names no file. Played into another one it would mix two addresses, and all checksums would be right.
    """
    try:
        alone = _unchanging(path, found, connection.secret)
        try:
            incarnation, rev, chain = sqlite.one(alone, _ALONE) or (None, None, None)
        finally:
            alone.close()
    except (*sqlite.ERRORS, CorruptError):
        return  # caught in the middle of a checkpoint, or by a crash in one: alone the file says nothing
    if not isinstance(incarnation, bytes):
        return
    now = sqlite.one(connection, _WITH_LOG, (rev,))
    if now is not None and now[0] == incarnation:
        goes_on = rev is None or now[1] >= rev or now[2] == chain
        if goes_on or not isinstance(chain, bytes):
            return
    raise CorruptError(
        f"{shown(path)}-wal is not the log of this keystore; nothing was played in. Bring back its own log, or move "
        "this one away to go on with what was last checkpointed"
    )

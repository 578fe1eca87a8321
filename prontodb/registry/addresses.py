"""The index of known addresses: rebuilt from the folders at any time, never asked before a value is used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.errors import CorruptError, InvalidAddressError, ProntoError, UnavailableError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import ADDRESS_REGISTRY_FILE, REGISTRY, REGISTRY_LOCK_FILE, Layout
from prontodb.model.value import Value
from prontodb.storage import connection as sqlite
from prontodb.storage import lock
from prontodb.storage.files import Folder, make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

APPLICATION_ID = 0x50724152  # "PrAR"
FORMAT = 1
_SCHEMA = (
    "CREATE TABLE addresses (user TEXT NOT NULL, cursor TEXT NOT NULL, state TEXT NOT NULL, "
    "created_at INTEGER, target TEXT, PRIMARY KEY (user, cursor)) WITHOUT ROWID"
)

_ALL = "SELECT user, cursor, state, created_at, target FROM addresses"
_ONE = "SELECT user, cursor, state, created_at, target FROM addresses WHERE user = ? AND cursor = ?"
_PUT = (
    "INSERT INTO addresses (user, cursor, state, created_at, target) VALUES (?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT (user, cursor) DO UPDATE SET state = ?3, created_at = coalesce(?4, created_at), target = ?5"
)
_ADOPT = (
    "INSERT INTO addresses (user, cursor, state, created_at) VALUES (?1, ?2, ?3, ?4) "
    "ON CONFLICT (user, cursor) DO UPDATE SET created_at = coalesce(created_at, ?4)"
)
_DELETE = "DELETE FROM addresses WHERE user = ? AND cursor = ?"
_DELETE_RENAMED = "DELETE FROM addresses WHERE state = ? AND target = ?"

ACTIVE = "active"
DELETING = "deleting"
RENAMING = "renaming"


SET_ASIDE = f"{ADDRESS_REGISTRY_FILE}.aside-"
"""What the name of an index begins with that was damaged and set aside."""


class Row(Value):
    """What the index says of one address; `target` is the new address of one that is being renamed."""

    __slots__ = ("address", "state", "created_at_ms", "target")

    address: Address
    state: str
    created_at_ms: int | None
    target: str | None

    def __init__(self, address: Address, state: str, created_at_ms: int | None, target: str | None = None) -> None:
        self._fill(address, state, created_at_ms, target)


def _row(user: object, cursor: object, state: object, created_at_ms: object, target: object) -> Row:
    """Return a stored row, its types checked."""
    if isinstance(user, str) and isinstance(cursor, str) and isinstance(state, str):
        try:
            address = Address(user, cursor)
        except InvalidAddressError:
            address = None
        if address and isinstance(created_at_ms, int | None) and isinstance(target, str | None):
            return Row(address, state, created_at_ms, target)
    raise CorruptError("the address registry holds a row that is none; 'prontodb address list' makes it anew")


class AddressRegistry:
    """The index file of one root. Each call opens and closes it; a damaged one is set aside and made anew."""

    def __init__(self, layout: Layout, *, wait_s: float, one_shot: bool) -> None:
        self._layout, self._wait_s, self._one_shot = layout, wait_s, one_shot

    def rows(self) -> list[Row]:
        """Return every row, in order; empty when there is no index yet. Raises when it is damaged."""
        return sorted(self._select(_ALL), key=lambda row: row.address)

    def row(self, address: Address) -> Row | None:
        """Return the row of one address, or None."""
        found = self._select(_ONE, (address.user, address.cursor))
        return found[0] if found else None

    def _select(self, query: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        try:
            with open_root(self._layout.root, REGISTRY) as folder:
                if folder.check_file(ADDRESS_REGISTRY_FILE) is None:
                    return []
                try:
                    connection = self._connect_to_read(folder)
                except UnavailableError:
                    if folder.check_file(ADDRESS_REGISTRY_FILE) is not None:
                        raise
                    return []  # set aside by another process a moment ago
        except FileNotFoundError:
            return []
        try:
            return [_row(*columns) for columns in sqlite.rows(connection, query, parameters)]
        except sqlite.ERRORS as error:
            raise sqlite.translated(error, self._layout.path(REGISTRY, ADDRESS_REGISTRY_FILE)) from error
        finally:
            connection.close()

    def put(self, address: Address, state: str = ACTIVE, created_at_ms: int | None = None, target: str = "") -> None:
        """Insert or update the row of an address; its known creation time is kept when none is given."""
        row = (address.user, address.cursor, state, created_at_ms, target or None)
        self._write(lambda connection: connection.execute(_PUT, row).close())

    def remove(self, address: Address) -> None:
        """Remove the row of an address, and of one whose renaming to it was never noted as done."""

        def work(connection: sqlite.Connection) -> None:
            connection.execute(_DELETE, (address.user, address.cursor)).close()
            connection.execute(_DELETE_RENAMED, (RENAMING, str(address))).close()

        self._write(work)

    def adopt(self, found: Iterable[tuple[Address, int | None]], still_there: Callable[[Address], bool]) -> None:
        """Add rows for addresses that have none, and creation times to rows without one, in one transaction.

        Only those that are `still_there` once the index is locked: a deletion takes its folder before its
        row, so none that is going on can leave a row behind.
        """

        def work(connection: sqlite.Connection) -> None:
            for address, created_at_ms in found:
                if still_there(address):
                    connection.execute(_ADOPT, (address.user, address.cursor, ACTIVE, created_at_ms)).close()

        self._write(work)

    def replace(self, rows: list[Row]) -> None:
        """Make the index anew with exactly `rows`."""
        with (
            make_root(self._layout.root, REGISTRY) as folder,
            lock.acquire(
                self._layout.root,
                self._layout.registry_lock_parts(),
                REGISTRY_LOCK_FILE,
                purpose="rebuild the address registry",
                wait_s=self._wait_s,
                one_shot=self._one_shot,
            ),
        ):
            self._set_aside(folder)
            self._build(folder, rows)

    def created(self, address: Address, at_ms: int) -> None:
        """Note a new address."""
        self._deferrable(lambda: self.put(address, ACTIVE, at_ms))

    def deleting(self, address: Address) -> None:
        """Note that an address is about to go, if it is known."""
        self._deferrable(lambda: self.put(address, DELETING))

    def deleted(self, address: Address) -> None:
        """Forget an address."""
        self._deferrable(lambda: self.remove(address))

    def renaming(self, old: Address, new: Address) -> None:
        """Note that `old` is about to become `new`."""
        self._deferrable(lambda: self.put(old, RENAMING, target=str(new)))

    def renamed(self, old: Address, new: Address) -> None:
        """Note that `old` is `new` now."""

        def work(connection: sqlite.Connection) -> None:
            found = sqlite.one(connection, _ONE, (old.user, old.cursor))
            created_at_ms = None if found is None else found[3]
            connection.execute(_PUT, (new.user, new.cursor, ACTIVE, created_at_ms, None)).close()
            connection.execute(_DELETE, (old.user, old.cursor)).close()

        self._deferrable(lambda: self._write(work))

    def _deferrable(self, update: Callable[[], None]) -> None:
        """Update the index if that can be done: data never fails for an index; the next listing heals it."""
        try:
            update()
        except ProntoError as error:
            event("registry.deferred", reason=str(error))

    def _write(self, work: Callable[[sqlite.Connection], None]) -> None:
        """Run `work` in one transaction, on a new index where there is none or a damaged one."""
        with make_root(self._layout.root, REGISTRY) as folder:
            if folder.check_file(ADDRESS_REGISTRY_FILE) is None:
                self._begin(folder, damaged=False)
            try:
                connection = self._connect(folder)
            except CorruptError:
                self._begin(folder, damaged=True)
                connection = self._connect(folder)
            except UnavailableError:
                if folder.check_file(ADDRESS_REGISTRY_FILE) is not None:
                    raise
                # Another process is between setting a damaged index aside and publishing the new one.
                self._begin(folder, damaged=False)
                connection = self._connect(folder)
            try:
                connection.execute("BEGIN IMMEDIATE").close()
                work(connection)
                connection.execute("COMMIT").close()
            except sqlite.ERRORS as error:
                raise sqlite.translated(error, f"{folder.path}/{ADDRESS_REGISTRY_FILE}") from error
            finally:
                connection.close()

    def _connect_to_read(self, folder: Folder) -> sqlite.Connection:
        try:
            return self._connect(folder)
        except UnavailableError:
            # SQLite needs its -shm even to read; where nobody can write and no commit waits in a -wal, it need not.
            wal = folder.stat(f"{ADDRESS_REGISTRY_FILE}-wal")
            if os.access(folder.path, os.W_OK) or (wal is not None and wal.st_size > 0):
                raise
            return self._connect(folder, sqlite.IMMUTABLE)

    def _connect(self, folder: Folder, mode: str = sqlite.READ_WRITE) -> sqlite.Connection:
        path = f"{folder.path}/{ADDRESS_REGISTRY_FILE}"
        busy_ms = round(self._wait_s * 1_000)
        connection = sqlite.connect(path, mode=mode, durability="relaxed", busy_timeout_ms=busy_ms)
        try:
            sqlite.check_format(
                connection,
                path,
                application_id=APPLICATION_ID,
                version=FORMAT,
                schema=frozenset({_SCHEMA}),
                wal=mode == sqlite.READ_WRITE,
            )
            sqlite.lock_down(connection)
        except sqlite.ERRORS as error:
            connection.close()
            raise sqlite.translated(error, path) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin(self, folder: Folder, *, damaged: bool) -> None:
        """Make an empty index where there is none or a damaged one; one process does it, the others wait."""
        with lock.acquire(
            self._layout.root,
            self._layout.registry_lock_parts(),
            REGISTRY_LOCK_FILE,
            purpose="make the address registry",
            wait_s=self._wait_s,
            one_shot=self._one_shot,
        ):
            if damaged:
                try:
                    self._connect(folder).close()
                except CorruptError:
                    self._set_aside(folder)
            if folder.check_file(ADDRESS_REGISTRY_FILE) is None:
                # A -wal whose index was removed would be played into the new one.
                self._set_aside(folder)
                self._build(folder, [])

    def _set_aside(self, folder: Folder) -> None:
        """Keep a damaged index under another name, with its -wal and -shm: they must not meet the new one."""
        mark = os.urandom(4).hex()
        for ending in ("-wal", "-shm", ""):
            if folder.stat(ADDRESS_REGISTRY_FILE + ending) is not None:
                folder.rename(ADDRESS_REGISTRY_FILE + ending, f"{SET_ASIDE}{mark}{ending}")

    def _build(self, folder: Folder, rows: list[Row]) -> None:
        # The caller holds the registry's lock, so whatever is still staged was left by a crash.
        for name in folder.names():
            if name.startswith(f".{ADDRESS_REGISTRY_FILE}."):
                folder.remove(name)
        staged = f".{ADDRESS_REGISTRY_FILE}.{os.urandom(6).hex()}.tmp"
        folder.create(staged, b"")
        insert = "INSERT INTO addresses (user, cursor, state, created_at, target) VALUES (?, ?, ?, ?, ?)"
        sqlite.build(
            f"{folder.path}/{staged}",
            (),
            (
                (_SCHEMA, ()),
                (f"PRAGMA application_id={APPLICATION_ID}", ()),
                (f"PRAGMA user_version={FORMAT}", ()),
                *((insert, (r.address.user, r.address.cursor, r.state, r.created_at_ms, r.target)) for r in rows),
            ),
            durability="relaxed",
        )
        folder.rename(staged, ADDRESS_REGISTRY_FILE)

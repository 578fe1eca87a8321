"""A small SQLite file that describes what is true elsewhere: damaged, it is set aside and made anew; lost, nothing is.

Relaxed durability: a power cut may take the last rows, and whoever looks next puts them back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.errors import CorruptError, UnavailableError
from prontodb.model.layout import REGISTRY, REGISTRY_LOCK_FILE, Layout
from prontodb.storage import connection as sqlite
from prontodb.storage import lock
from prontodb.storage.files import Folder, make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

SET_ASIDE = ".aside-"
"""Stands in the name of an index that was damaged and set aside."""


class Index:
    """One index file of a root. Each call opens and closes it; a write makes a missing or damaged one anew."""

    def __init__(
        self,
        layout: Layout,
        file: str,
        what: str,
        *,
        application_id: int,
        schema: tuple[str, ...],
        steps: tuple[tuple[str, ...], ...] = (),
        wait_s: float,
        one_shot: bool,
    ) -> None:
        """`schema` makes format 1 of the index; each of `steps` what the next format has besides."""
        self._layout, self._file, self._what = layout, file, what
        self._application_id = application_id
        self._parts = (schema, *steps)
        self._wait_s, self._one_shot = wait_s, one_shot

    @property
    def _version(self) -> int:
        return len(self._parts)

    def _schema(self, version: int) -> tuple[str, ...]:
        return tuple(statement for part in self._parts[:version] for statement in part)

    def select(self, query: str, parameters: tuple[object, ...] = (), *, since: int = 1) -> list[Any]:
        """Return the rows of a query; none when there is no index yet. Raises when it is damaged.

        None either from an index of a format before `since`: reading changes nothing, so it is not brought up to date.
        """
        try:
            with open_root(self._layout.root, REGISTRY) as folder:
                if folder.check_file(self._file) is None:
                    return []
                try:
                    connection = self._connect_to_read(folder)
                except UnavailableError:
                    if folder.check_file(self._file) is not None:
                        raise
                    return []  # set aside by another process a moment ago
        except FileNotFoundError:
            return []
        try:
            return sqlite.rows(connection, query, parameters) if _format_of(connection) >= since else []
        except sqlite.ERRORS as error:
            raise sqlite.translated(error, self._layout.path(REGISTRY, self._file)) from error
        finally:
            connection.close()

    def exists(self) -> bool:
        """True when there is an index, sound or not."""
        try:
            with open_root(self._layout.root, REGISTRY) as folder:
                return folder.check_file(self._file) is not None
        except FileNotFoundError:
            return False

    def write(self, work: Callable[[sqlite.Connection], None]) -> None:
        """Run `work` in one transaction, on a new index where there is none or a damaged one."""
        with make_root(self._layout.root, REGISTRY) as folder:
            connection = self._connect_or_begin(folder)
            try:
                connection.execute("BEGIN IMMEDIATE").close()
                work(connection)
                connection.execute("COMMIT").close()
            except sqlite.ERRORS as error:
                raise sqlite.translated(error, f"{folder.path}/{self._file}") from error
            finally:
                connection.close()

    def replace(self, inserts: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        """Make the index anew with exactly what `inserts` put into it: statements and their parameters."""
        with make_root(self._layout.root, REGISTRY) as folder, self._held(f"rebuild {self._what}"):
            self._set_aside(folder)
            self._build(folder, inserts)

    def _connect_or_begin(self, folder: Folder) -> sqlite.Connection:
        if folder.check_file(self._file) is None:
            self._begin(folder, damaged=False)
        try:
            connection = self._connect(folder)
            if _format_of(connection) == self._version:
                return connection
            connection.close()
            self._upgrade(folder)
        except CorruptError:
            self._begin(folder, damaged=True)
        except UnavailableError:
            if folder.check_file(self._file) is not None:
                raise
            # Another process is between setting a damaged index aside and publishing the new one.
            self._begin(folder, damaged=False)
        return self._connect(folder)

    def _connect_to_read(self, folder: Folder) -> sqlite.Connection:
        try:
            return self._connect(folder)
        except UnavailableError:
            # SQLite needs its -shm even to read; where nobody can write and no commit waits in a -wal, it need not.
            wal = folder.stat(f"{self._file}-wal")
            if os.access(".", os.W_OK, dir_fd=folder.fd) or (wal is not None and wal.st_size > 0):
                raise
            return self._connect(folder, sqlite.IMMUTABLE)

    def _connect(self, folder: Folder, mode: str = sqlite.READ_WRITE) -> sqlite.Connection:
        path = f"{folder.path}/{self._file}"
        busy_ms = round(self._wait_s * 1_000)
        found = folder.stat(self._file)
        connection = sqlite.connect(path, mode=mode, durability="relaxed", busy_timeout_ms=busy_ms, found=found)

        return sqlite.checked(connection, path, lambda: self._check(connection, path, wal=mode == sqlite.READ_WRITE))

    def _check(self, connection: sqlite.Connection, path: str, *, wal: bool, changing: bool = False) -> None:
        """Raise unless it is this index, in this format or an older one; `changing`: its schema may be added to."""
        found = _format_of(connection)
        version = found if 0 < found < self._version else self._version
        sqlite.check_format(
            connection,
            path,
            application_id=self._application_id,
            version=version,
            schema=frozenset(self._schema(version)),
            wal=wal,
        )
        if not changing:
            sqlite.lock_down(connection)

    def _upgrade(self, folder: Folder) -> None:
        """Bring an index of an older format up to date in one transaction, after a copy of it was made."""
        path = f"{folder.path}/{self._file}"
        with self._held(f"bring {self._what} up to date"):
            old = self._connect(folder)
            try:
                before = _format_of(old)
                if before == self._version:
                    return  # another process has done it meanwhile
                copy = f"{self._file}.format{before}-{os.urandom(4).hex()}"
                folder.create(copy, b"")
                sqlite.vacuum_into(old, f"{folder.path}/{copy}", lambda: False)
            except sqlite.ERRORS as error:
                raise sqlite.translated(error, path) from error
            finally:
                old.close()
            busy_ms = round(self._wait_s * 1_000)
            connection = sqlite.connect(path, durability="relaxed", busy_timeout_ms=busy_ms)
            sqlite.checked(connection, path, lambda: self._check(connection, path, wal=True, changing=True))
            try:
                connection.execute("BEGIN IMMEDIATE").close()
                for statement in self._schema(self._version)[len(self._schema(before)) :]:
                    connection.execute(statement).close()
                connection.execute(f"PRAGMA user_version={self._version:d}").close()
                connection.execute("COMMIT").close()
            except sqlite.ERRORS as error:
                raise sqlite.translated(error, path) from error
            finally:
                connection.close()

    def _held(self, purpose: str) -> lock.HeldLock:
        return lock.acquire(
            self._layout.root,
            self._layout.registry_lock_parts(),
            REGISTRY_LOCK_FILE,
            purpose=purpose,
            wait_s=self._wait_s,
            one_shot=self._one_shot,
        )

    def _begin(self, folder: Folder, *, damaged: bool) -> None:
        """Make an empty index where there is none or a damaged one; one process does it, the others wait."""
        with self._held(f"make {self._what}"):
            if damaged:
                try:
                    self._connect(folder).close()
                except CorruptError:
                    self._set_aside(folder)
            if folder.check_file(self._file) is None:
                # A -wal whose index was removed would be played into the new one.
                self._set_aside(folder)
                self._build(folder, ())

    def _set_aside(self, folder: Folder) -> None:
        """Keep a damaged index under another name, with its -wal and -shm: they must not meet the new one."""
        mark = os.urandom(4).hex()
        for ending in ("-wal", "-shm", ""):
            if folder.stat(self._file + ending) is not None:
                folder.rename(self._file + ending, f"{self._file}{SET_ASIDE}{mark}{ending}")

    def _build(self, folder: Folder, inserts: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        # The caller holds the registry's lock, so whatever is still staged was left by a crash.
        for name in folder.names():
            if name.startswith(f".{self._file}."):
                folder.remove(name)
        staged = f".{self._file}.{os.urandom(6).hex()}.tmp"
        folder.create(staged, b"")
        sqlite.build(
            f"{folder.path}/{staged}",
            (),
            (
                *((statement, ()) for statement in self._schema(self._version)),
                (f"PRAGMA application_id={self._application_id}", ()),
                (f"PRAGMA user_version={self._version}", ()),
                *inserts,
            ),
            durability="relaxed",
        )
        folder.rename(staged, self._file)


def _format_of(connection: sqlite.Connection) -> int:
    found: int = sqlite.one(connection, "PRAGMA user_version")[0]
    return found

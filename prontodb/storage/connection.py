"""The only door to SQLite: sqlcipher3 connections, set up and checked the same way everywhere."""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock

from sqlcipher3 import dbapi2 as sqlite

from prontodb.errors import (
    BusyError,
    CorruptError,
    NewerFormatError,
    ProntoError,
    ReadOnlyError,
    StoppedError,
    StorageFullError,
    UnavailableError,
    UnsafePathError,
    shown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    from prontodb.model.secret import Secret

    class Cursor(Protocol):
        """What we use of a cursor."""

        def execute(self, sql: str, parameters: Sequence[object] = ..., /) -> Cursor: ...
        def fetchone(self) -> Any: ...
        def fetchall(self) -> list[Any]: ...
        def close(self) -> None: ...
        def __iter__(self) -> Iterator[Any]: ...

    class Connection(Protocol):
        """What we use of sqlcipher3's connection, which has no types of its own."""

        text_factory: Callable[[bytes], object]
        secret: Secret | None
        """What the file was opened with; None for a plain one."""
        point: Cursor
        """For queries asked over and over whose rows are all fetched at once: a new one each time costs a tenth."""

        @property
        def in_transaction(self) -> bool: ...
        def cursor(self) -> Cursor: ...
        def execute(self, sql: str, parameters: Sequence[object] = ..., /) -> Cursor: ...
        def executemany(self, sql: str, parameters: Sequence[Sequence[object]], /) -> Cursor: ...
        def set_authorizer(self, callback: Callable[..., int] | None, /) -> None: ...
        def set_progress_handler(self, callback: Callable[[], int] | None, steps: int, /) -> None: ...
        def interrupt(self) -> None: ...
        def close(self) -> None: ...


Error = sqlite.Error
ERRORS = (sqlite.Error, UnicodeDecodeError)
"""What a call to SQLite raises: the binding cannot decode a message that quotes a damaged schema."""
LIBRARY_VERSION: str = sqlite.sqlite_version

READ_WRITE = "rw"
READ_ONLY = "ro"
IMMUTABLE = "immutable"

AUTOCHECKPOINT_PAGES = 2_000
JOURNAL_SIZE_LIMIT = 16 * 1024 * 1024
"""More than the log grows to between checkpoints: a log that is cut after each of them grows again, and a sync that
must also record a file's new size takes twice as long (ops/decisions/0019-log-keeps-its-size.md)."""
CACHE_KIB = 16_384
"""At most, and only as far as a keystore is that large: 2 MiB made batches over 100,000 keys take 1.4 times as long."""
SOFT_HEAP_BYTES = 512 * 1024 * 1024
"""Past this, all connections of the process together recycle cached pages instead of taking more memory."""
CACHED_STATEMENTS = 64
TRIES = 5
"""How often a file is opened again that seems to be another one than was looked at."""

# Authorizer action codes of SQLite's C interface (sqlite.org/c3ref/c_alter_table.html); the binding does not name them.
_PRAGMA, _ATTACH, _DETACH, _FUNCTION = 19, 24, 25, 31
_DDL = frozenset((*range(1, 9), *range(10, 18), 26, 27, 28, 29, 30))
_OK, _DENY = 0, 1
_PROBE_BYTES = 65_536
_STEPS_BETWEEN_LOOKS = 100_000
"""Steps of SQLite's machine, a few milliseconds, between two looks whether a long statement shall end."""

_READABLE_PRAGMAS = frozenset({
    "application_id", "user_version", "journal_mode", "synchronous", "page_count", "page_size", "freelist_count",
    "data_version", "integrity_check", "quick_check", "auto_vacuum", "schema_version",
})  # fmt: skip
_WRITABLE_PRAGMAS = frozenset({"incremental_vacuum", "wal_checkpoint", "busy_timeout", "optimize"})
# Flags of sqlite3_open_v2 (sqlite.org/c3ref/open.html); the binding does not name them.
_OPEN_READ_WRITE, _OPEN_NO_FOLLOW = 0x2, 0x01000000
_ONE_AT_A_TIME = allocate_lock()
"""Held while a file is opened, so that its descriptor is known; opening waits for no lock of SQLite's."""
os.register_at_fork(after_in_child=_ONE_AT_A_TIME._at_fork_reinit)  # type: ignore[attr-defined]
_REFUSED_FUNCTIONS = frozenset({"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"})


class _Opened(sqlite.Connection):  # type: ignore[misc]
    """A connection that knows what its file was opened with."""

    secret: Secret | None = None
    point: Cursor | None = None

    def close(self) -> None:
        """Close the file. The cursor goes first: it names its connection, and neither would ever be freed."""
        if self.point is not None:
            self.point.close()
            self.point = None
        super().close()


def _authorize(action: int, first: str | None, second: str | None, _database: str, _source: str) -> int:
    """Deny what no transaction of ours ever does, so that nothing in a damaged or foreign schema can do it either."""
    if action in _DDL or action in (_ATTACH, _DETACH):
        return _DENY
    if action == _PRAGMA:
        name = (first or "").lower()
        allowed = name in _WRITABLE_PRAGMAS or (name in _READABLE_PRAGMAS and second is None)
        return _OK if allowed else _DENY
    if action == _FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS:
        return _DENY
    return _OK


def connect(
    path: str,
    *,
    mode: str = READ_WRITE,
    durability: str = "full",
    busy_timeout_ms: int = 0,
    any_thread: bool = False,
    found: os.stat_result | None = None,
    secret: Secret | None = None,
) -> Connection:
    """Return a connection to an existing file, set up by rules D3 to D9 but for the checks of its content.

    `mode` is READ_WRITE, READ_ONLY or IMMUTABLE (a file that nobody can change while it is open). No link on the way to
    it is followed. With `found`, what its folder said of the file, `UnsafePathError` when SQLite opened another one:
    nothing of that was locked, recovered or changed. `secret` opens an encrypted file, and makes an empty one an
    encrypted one.
    """
    kind = "ro" if mode == READ_ONLY else "ro&immutable=1" if mode == IMMUTABLE else "rw"
    for _ in range(TRIES):
        with _ONE_AT_A_TIME:
            free = -1 if found is None else _free_descriptor()
            try:
                connection: Connection = sqlite.connect(
                    f"{uri(path)}?mode={kind}",
                    uri=True,
                    flags=_OPEN_READ_WRITE | _OPEN_NO_FOLLOW,
                    timeout=busy_timeout_ms / 1_000,
                    isolation_level=None,
                    check_same_thread=not any_thread,
                    cached_statements=CACHED_STATEMENTS,
                    factory=_Opened,
                )
            except ERRORS as error:
                raise translated(error, path) from error
            if found is None or not _is_another(free, path, found):
                break
            connection.close()
    else:
        raise UnsafePathError(f"{shown(path)} was replaced while it was opened; it was left alone, try again")
    try:
        connection.point = connection.cursor()
        if secret is not None:
            _bring(connection, secret)
        _set_up(connection, mode, durability)
    except ERRORS as error:
        connection.close()
        raise translated(error, path) from error
    return connection


def _bring(connection: Connection, secret: Secret) -> None:
    """Have SQLCipher open the file with a raw key (D36), before anything else is asked of it."""
    # By itself SQLCipher writes what goes wrong to stderr.
    connection.execute("PRAGMA cipher_log_level=NONE").close()
    # A pragma takes no parameters; hex digits mean nothing in it.
    connection.execute(f"PRAGMA key=\"x'{secret.data_key.hex()}'\"").close()
    connection.secret = secret


def chain_key(connection: Connection) -> bytes:
    """Return what the journal's chain is keyed with; empty for a plain keystore."""
    return b"" if connection.secret is None else connection.secret.chain_key


def digest_key(connection: Connection) -> bytes:
    """Return what the digest of a keystore's entries is keyed with; empty for a plain keystore."""
    return b"" if connection.secret is None else connection.secret.digest_key


def _free_descriptor() -> int:
    """Return the number that the next descriptor will have, unless another thread takes it first."""
    try:
        fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1  # none is left, which SQLite will say
    os.close(fd)
    return fd


def _is_another(fd: int, path: str, found: os.stat_result) -> bool:
    """True when the descriptor that SQLite has just opened at `path` is of another file than the one expected.

    SQLite opens by path: a folder on it may be swapped for a link in between. So far it has read the header alone.
    """
    try:
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
            return False
        # SQLite may have used again what it keeps open of this file, and another thread may have taken the number: if
        # for such a file, too, that is over at the next try.
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == os.path.basename(path)
    except OSError:
        return False


def uri(path: str) -> str:
    """Return a path as a file URI, without parameters: what has a meaning there is escaped."""
    return "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _set_up(connection: Connection, mode: str, durability: str) -> None:
    pragmas = [
        "trusted_schema=OFF",
        "cell_size_check=ON",
        "temp_store=MEMORY",
        "mmap_size=0",
        f"soft_heap_limit={SOFT_HEAP_BYTES}",
        # The first page that is read sizes a block of pages that is kept for life. With a tiny cache at that moment an
        # open keystore takes 254 KiB instead of 373.
        "cache_size=2",
        "shrink_memory",
        "application_id",
        f"cache_size=-{CACHE_KIB}",
    ]
    if mode == READ_WRITE:
        pragmas += [
            "synchronous=NORMAL" if durability == "relaxed" else "synchronous=FULL",
            f"wal_autocheckpoint={AUTOCHECKPOINT_PAGES}",
            f"journal_size_limit={JOURNAL_SIZE_LIMIT}",
            "foreign_keys=ON",
            "secure_delete=FAST",
        ]
    else:
        pragmas.append("query_only=ON")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()


def build(
    path: str,
    pragmas: Sequence[str],
    statements: Sequence[tuple[str, Sequence[object]]],
    *,
    durability: str = "full",
    secret: Secret | None = None,
) -> None:
    """Make an existing empty file a database in WAL mode: `pragmas` first, then `statements` in one transaction.

    When it returns, everything is in the file itself and synced, and nothing lies beside it.
    """
    connection = connect(path, durability=durability, secret=secret)
    try:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()
        whole = one(connection, "PRAGMA journal_mode=WAL")[0] == "wal"
        connection.execute("BEGIN IMMEDIATE").close()
        for sql, parameters in statements:
            connection.execute(sql, parameters).close()
        connection.execute("COMMIT").close()
        # Closing would move the log into the file too, but keeps it to itself when that fails.
        whole = one(connection, "PRAGMA wal_checkpoint(TRUNCATE)")[0] == 0 and whole
    except ERRORS as error:
        raise translated(error, path) from error
    finally:
        connection.close()
    if not whole or os.path.lexists(f"{path}-wal"):
        raise UnavailableError(f"the disk did not take all of {shown(path)}; see the system's log")


def spill_into(connection: Connection, folder: str | None) -> None:
    """Have what SQLite sorts go to temporary files in a private folder; None: to none any more, but into memory.

    SQLite keeps one such folder for the whole process (sqlite.org/pragma.html#pragma_temp_store_directory). All
    connections but those that ask for this keep what is temporary in memory.
    """
    # A pragma takes no parameters; a quote is the one character that means something in it.
    quoted = "" if folder is None else folder.replace("'", "''")
    connection.execute(f"PRAGMA temp_store_directory='{quoted}'").close()
    connection.execute(f"PRAGMA temp_store={'MEMORY' if folder is None else 'FILE'}").close()


def vacuum_into(connection: Connection, target: str, stop: Callable[[], bool]) -> None:
    """Write what a reading connection sees, compacted, into the existing empty file `target`.

    SQLite attaches the file for it, which is denied at all other times. Ends early with an error once `stop()` is true.
    """

    interrupts: list[BaseException] = []

    def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action == _ATTACH:
            return _OK if first == target else _DENY
        return _DENY if action == _FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS else _OK

    def look() -> int:
        # SQLite swallows what is raised in here, such as Ctrl-C, and says that it was interrupted.
        try:
            return int(stop())
        except BaseException as interrupt:  # noqa: BLE001 - raised again below
            interrupts.append(interrupt)
            return 1

    connection.set_authorizer(None)
    # The source stays as it is all the same: it was opened with mode=ro.
    connection.execute("PRAGMA query_only=OFF").close()
    connection.set_authorizer(authorize)
    connection.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
    try:
        connection.execute("VACUUM INTO ?", (target,)).close()
    except ERRORS as error:
        if interrupts:
            raise interrupts[0] from error
        if getattr(error, "sqlite_errorname", None) == "SQLITE_INTERRUPT":
            raise StoppedError("the copy was stopped before it was whole") from error
        raise
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)
        connection.execute("PRAGMA query_only=ON").close()
        lock_down(connection)


def lock_down(connection: Connection) -> None:
    """Allow from now on only what transactions need: no DDL, ATTACH, unknown pragma or file function."""
    connection.set_authorizer(_authorize)


def checked(connection: Connection, path: str, check: Callable[[], None]) -> Connection:
    """Run checks on a new connection and return it; when one raises, close it and raise our own error."""
    try:
        check()
    except ERRORS as error:
        connection.close()
        raise translated(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def one(connection: Connection, sql: str, parameters: tuple[object, ...] = ()) -> Any:
    """Return the first row of a query, or None; the cursor is closed at once."""
    cursor = connection.execute(sql, parameters)
    try:
        return cursor.fetchone()
    finally:
        cursor.close()


def rows(connection: Connection, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
    """Return all rows of a query; the cursor is closed at once."""
    cursor = connection.execute(sql, parameters)
    try:
        return cursor.fetchall()
    finally:
        cursor.close()


def check_format(
    connection: Connection, path: str, *, application_id: int, version: int, schema: frozenset[str], wal: bool = True
) -> None:
    """Raise unless the file is ours, of a format we know, with exactly the expected schema, in WAL mode.

    Reads only: a foreign file stays as it is. `schema` holds the expected SQL texts of `sqlite_schema`.
    """
    found_id = one(connection, "PRAGMA application_id")[0]
    found_version = one(connection, "PRAGMA user_version")[0]
    if found_id != application_id:
        raise CorruptError(f"{shown(path)} is no ProntoDB file (application_id {found_id:#x}); it was left untouched")
    if found_version > version:
        raise NewerFormatError(shown(path), found_version, version)
    if found_version != version:
        raise CorruptError(f"{shown(path)} has format {found_version}, which never existed; it was left untouched")
    texts = {sql for (sql,) in rows(connection, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
    if texts != schema:
        odd = next(iter(texts ^ schema))
        raise CorruptError(f"{shown(path)} has another schema than format {version}: {shown(odd)}")
    if wal and one(connection, "PRAGMA journal_mode")[0] != "wal":
        raise CorruptError(f"{shown(path)} is not in WAL mode; 'prontodb doctor --repair' sets it")


def is_no_database(error: BaseException | None) -> bool:
    """True when SQLite said of a file that it is none of its own: garbage, or encrypted."""
    return getattr(error, "sqlite_errorname", None) == "SQLITE_NOTADB"


def translated(error: Exception, path: str) -> ProntoError:
    """Return our own error for one of SQLite's, by its error name (never by its text)."""
    name = getattr(error, "sqlite_errorname", None) or ""
    place = shown(path)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return BusyError(f"{place} is locked by another writer; try again")
    if name.startswith("SQLITE_FULL"):
        return StorageFullError(f"no space left for {place}; nothing was written, everything stored can be read")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
        return CorruptError(f"{place} is damaged, or encrypted with another key; it was left untouched")
    if name.startswith("SQLITE_READONLY"):
        return ReadOnlyError(f"{place} cannot be written here; reading still works")
    if name.startswith("SQLITE_CANTOPEN"):
        if os.path.lexists(path) and not os.access(path, os.R_OK | os.W_OK):
            from prontodb.storage.permissions import way_in

            return UnavailableError(f"no permission for {place}; {way_in(path)}")
        return UnavailableError(f"cannot open {place}; it is gone, or this user has no right to it")
    if name.startswith("SQLITE_TOOBIG"):
        return UnavailableError(f"a row of {place} is over SQLite's own limit")
    if name.startswith("SQLITE_IOERR"):
        if _disk_is_full(path):
            return StorageFullError(f"no space left for {place}; nothing was written, everything stored can be read")
        return UnavailableError(f"the disk reported an error for {place} ({name}); see the system's log")
    if isinstance(error, UnicodeDecodeError):
        return CorruptError(f"{place} is damaged: its schema is not UTF-8; it was left untouched")
    if not name and type(error).__name__ == "OperationalError" and "decode" in str(error).lower():
        # Text that is not UTF-8 raises in the binding, not in SQLite, without a name, and quotes the text: a secret.
        error.args = ("text is not UTF-8",)
        return CorruptError(f"{place} holds text that is not UTF-8; it was left untouched")
    return UnavailableError(f"SQLite refused {place}: {name or type(error).__name__}")


_WRITE_LOCK_BYTE, _RECOVERY_LOCK_BYTE = 120, 122
"""Where in the -shm file the writer of a WAL, and who recovers it, hold their locks:
https://sqlite.org/walformat.html#wal_locks"""
_READ_LOCK_BYTES = (123, 127)


def readers_of(path: str) -> list[str]:
    """Return who is just reading a keystore, as far as the system tells; a reader keeps its log from being cut."""
    from prontodb.storage.process import lock_owners

    return [str(reader) for reader in lock_owners(path + "-shm", *_READ_LOCK_BYTES, "READ", "WRITE")]


def with_writer_named(error: BusyError, path: str) -> BusyError:
    """Return a busy error that names the process which is writing now, for whoever gave up waiting for it."""
    from prontodb.storage.process import lock_owner

    for byte, doing in ((_WRITE_LOCK_BYTE, "is writing"), (_RECOVERY_LOCK_BYTE, "is recovering its log")):
        owner = lock_owner(path + "-shm", byte)
        if owner is not None:
            whose = "a connection of this process" if owner.pid == os.getpid() else str(owner)
            return BusyError(f"{shown(path)} is locked by {whose}, which {doing}; try again")
    return error


def _disk_is_full(path: str) -> bool:
    """Ask the disk: SQLite reports a reached quota or file size limit like any other I/O error."""
    try:
        size = max(os.stat(path + ending).st_size for ending in ("", "-wal") if os.path.exists(path + ending))
        fd = os.open(os.path.dirname(path), os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError, AttributeError):
        return False  # gone, or a system without nameless files
    try:
        return os.pwrite(fd, bytes(_PROBE_BYTES), size) < _PROBE_BYTES
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finally:
        os.close(fd)

"""Whole copies of a keystore: taken from a live one without its writer's lock, looked at, and made a keystore again."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import inspection, opening, schema
from prontodb.engine.sqlite.digest import Digest, digest_of
from prontodb.engine.sqlite.transactions import HEAD
from prontodb.errors import (
    AddressGoneError,
    AddressNotFoundError,
    CorruptError,
    ProntoError,
    StoppedError,
    StorageFullError,
    shown,
)
from prontodb.model.history import Mark
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection
    from prontodb.storage.files import Folder

_MARK = (
    f"SELECT incarnation, {HEAD}, coalesce((SELECT chain FROM journal ORDER BY rev DESC LIMIT 1), floor_chain), floor "
    "FROM meta"
)
_LAST_AT = "SELECT at FROM journal ORDER BY rev DESC LIMIT 1"


_PROBE_BYTES = 1024 * 1024
BUSY_TIMEOUT_MS = 1_000


class CopyFullError(StorageFullError):
    """There is no room where the copy goes; the keystore has nothing to do with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What one keystore holds at one instant. `floor`: changes up to there are no longer in its journal."""

    mark: Mark
    floor: int
    digest: Digest
    contradictions: tuple[str, ...]
    """Where it contradicts itself, as somebody left it: the copy is faithful, and the doctor says the same."""
    secret: Secret | None
    """What opens it."""


def mark_of(connection: Connection) -> tuple[Mark, int]:
    """Return where the history of a keystore stands, and its floor."""
    found = sqlite.one(connection, _MARK)
    if found is None or [type(value) for value in found] != [bytes, int, bytes, int]:
        raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
    incarnation, revision, chain, floor = found
    return Mark(incarnation.hex(), revision, chain.hex()), floor


def mark_in(folder: Folder, secret: Secret | None) -> Mark:
    """Return where the history of a keystore stands that lies at no address; `ProntoError` when it cannot be read."""
    path = f"{folder.path}/{KEYSTORE_FILE}"
    log = folder.stat(f"{KEYSTORE_FILE}-wal")
    connection = open_copy(path, secret) if log is None or not log.st_size else open_aside(path, secret)
    try:
        return mark_of(connection)[0]
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        connection.close()


def incarnation_at(layout: Layout, address: Address) -> str | None:
    """Return the incarnation of the keystore at an address; None when there is none, '' when it cannot be read."""
    try:
        mark, _ = opening.read(layout, address, mark_of, busy_timeout_ms=BUSY_TIMEOUT_MS)
    except (AddressNotFoundError, AddressGoneError):
        return None
    except ProntoError:
        return ""
    return mark.incarnation


def copy_whole(
    layout: Layout,
    address: Address,
    folder: Folder,
    name: str,
    *,
    busy_timeout_ms: int,
    stop: Callable[[], bool],
    look: Callable[[Connection], object],
) -> State:
    """Write a compact copy of a live keystore as the new file `name`, synced and read again; return what it holds.

    One snapshot, and no lock that a writer would meet. `look` is called with the source's connection first.
    `CorruptError` when the source is damaged.
    """
    try:
        folder.create(name, b"")
    except StorageFullError as error:
        raise CopyFullError(str(error)) from error
    target = f"{folder.path}/{name}"

    secret: Secret | None = None

    def work(connection: Connection) -> None:
        nonlocal secret
        secret = connection.secret
        look(connection)
        try:
            sqlite.vacuum_into(connection, target, stop)
        except sqlite.ERRORS as error:
            raise _of_whom(error, layout.keystore_path(address), target) from error

    # On a full disk this reads as well as can be: a copy to another one is what is wanted then.
    opening.read(layout, address, work, busy_timeout_ms=busy_timeout_ms)
    folder.sync_file(name)
    return state_of(target, secret, stop=stop)


def _of_whom(error: Exception, path: str, target: str) -> ProntoError:
    """Translate an error of a copy: what there is no room for is the copy's, everything else the keystore's own."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _is_too_large(path, target)):
        return CopyFullError(f"no space left for the copy {shown(target)}; nothing was lost, make some room")
    return sqlite.translated(error, path)


def _is_too_large(path: str, target: str) -> bool:
    """True when no file where the copy goes may become as large: a limit or quota, which SQLite calls an I/O error."""
    try:
        size = os.stat(path).st_size
        fd = os.open(os.path.dirname(target), os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):
        return False  # gone, or a system without nameless files
    try:
        # Written, and not only reserved: no quota counts what is not.
        for begin in range(0, size, _PROBE_BYTES):
            wanted = min(_PROBE_BYTES, size - begin)
            if os.pwrite(fd, bytes(wanted), begin) < wanted:
                return True
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finally:
        os.close(fd)
    return False


def open_copy(path: str, secret: Secret | None = None) -> Connection:
    """Open a whole copy for reading: nobody changes it, so no lock is taken and nothing is left beside it."""
    connection = sqlite.connect(path, mode=sqlite.IMMUTABLE, secret=secret)

    def check() -> None:
        schema.check(connection, path, wal=False)
        sqlite.lock_down(connection)

    return sqlite.checked(connection, path, check)


def open_aside(path: str, secret: Secret | None = None) -> Connection:
    """Open for reading a keystore that a restore has put aside, with what its log holds."""
    connection = sqlite.connect(path, mode=sqlite.READ_ONLY, secret=secret)

    def check() -> None:
        schema.check(connection, path)
        sqlite.lock_down(connection)

    return sqlite.checked(connection, path, check)


def state_of(path: str, secret: Secret | None = None, *, stop: Callable[[], bool] = lambda: False) -> State:
    """Read a whole copy from end to end, SQLite's own check and every entry; return what it holds."""
    connection = open_copy(path, secret)
    try:
        _check_pages(connection, path)
        digest = digest_of(connection, stop)
        mark, floor = mark_of(connection)
        contradictions = inspection.contradictions(connection, path)
        if stop():
            raise StoppedError("the work was stopped")
        return State(mark=mark, floor=floor, digest=digest, contradictions=tuple(contradictions), secret=secret)
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        connection.close()


def last_change_ms(connection: Connection) -> int | None:
    """Return when the last change in the journal was made; None when it holds none."""
    found = sqlite.one(connection, _LAST_AT)
    return None if found is None else int(found[0])


# Making one a keystore again


def open_staged(
    path: str, secret: Secret | None = None, *, unlogged: bool = False, any_thread: bool = False
) -> Connection:
    """Open a whole copy that nobody else can see yet, to be changed; losing it to a crash loses nothing.

    `unlogged`: an error in the middle loses it too, and nothing is written twice.
    """
    connection = sqlite.connect(path, any_thread=any_thread, secret=secret)

    def check() -> None:
        schema.check(connection, path, wal=False)
        connection.execute("PRAGMA synchronous=OFF").close()
        if unlogged:
            connection.execute("PRAGMA journal_mode=OFF").close()
        sqlite.lock_down(connection)

    return sqlite.checked(connection, path, check)


def begin(staged: Connection) -> None:
    """Begin the one transaction in which a staged copy is changed."""
    staged.execute("BEGIN IMMEDIATE").close()


def end(staged: Connection, path: str) -> None:
    """End it, and have SQLite check the whole file."""
    staged.execute("COMMIT").close()
    _check_pages(staged, path)


def _check_pages(connection: Connection, path: str) -> None:
    for (line,) in sqlite.rows(connection, "PRAGMA integrity_check"):
        if line != "ok":
            raise CorruptError(f"{shown(path)} is damaged: {shown(line)}")


def make_new(path: str, secret: Secret | None = None) -> None:
    """Make a staged copy a keystore of its own: another incarnation, a new epoch, nobody's session, in WAL mode.

    Everything is in the file itself and synced when this returns, and nothing lies beside it.
    """
    epoch, incarnation = schema.first_epoch(), os.urandom(schema.INCARNATION_BYTES)
    sqlite.build(
        path,
        (),
        (
            ("DELETE FROM revoked", ()),
            ("UPDATE meta SET incarnation = ?, epoch = ?, lock_device = NULL, lock_inode = NULL", (incarnation, epoch)),
        ),
        secret=secret,
    )

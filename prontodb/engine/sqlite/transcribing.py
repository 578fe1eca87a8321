"""A keystore written anew under another secret, or under none: the same entries and history, every row checked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import schema, snapshot
from prontodb.engine.sqlite.digest import COLUMNS, Digest, checked_hash
from prontodb.engine.sqlite.increment import Walk
from prontodb.engine.sqlite.writing import next_chain
from prontodb.errors import CorruptError, StoppedError, shown
from prontodb.model.history import Mark
from prontodb.model.progress import Progress, never
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection
    from prontodb.storage.files import Folder

PAGE = 1_000

_ENTRIES = f"SELECT {COLUMNS} FROM kvstore ORDER BY id"
_PUT_ENTRY = f"INSERT INTO kvstore ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_JOURNAL = "SELECT rev, first_rev, at, session, records, chain FROM journal ORDER BY rev"
_PUT_JOURNAL = "INSERT INTO journal (rev, first_rev, at, session, records, chain) VALUES (?, ?, ?, ?, ?, ?)"
_META = "SELECT floor, floor_chain, token_epoch, history, audit FROM meta"
_PUT_META = (
    "INSERT INTO meta (id, epoch, incarnation, floor, floor_chain, token_epoch, history, audit) "
    "VALUES (1, ?, ?, ?, ?, ?, ?, ?)"
)
_LIFETIMES = "SELECT namespace, ttl_ms FROM namespace_ttl"
_PUT_LIFETIME = "INSERT INTO namespace_ttl (namespace, ttl_ms) VALUES (?, ?)"
_SIZE = "SELECT (SELECT count(*) FROM kvstore) + (SELECT count(*) FROM journal)"


def steps(
    source: Connection, folder: Folder, name: str, secret: Secret | None, stop: Callable[[], bool] = never
) -> Generator[Progress, None, Digest]:
    """Write what a reading connection sees as the new file `name`, a keystore of its own; return its digest.

    One snapshot. The file has another incarnation and epoch; it is read from end to end before this returns, and
    synced. Raises `CorruptError` for a damaged source, `StoppedError` once `stop()` is true; nobody sees the file yet,
    whoever made its folder discards it.
    """
    path = f"{folder.path}/{name}"
    source.execute("BEGIN DEFERRED").close()
    meta = one(source, _META)
    if meta is None:
        raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
    total: int = one(source, _SIZE)[0]
    folder.create(name, b"")
    inserts = [
        (_PUT_META, (schema.first_epoch(), os.urandom(schema.INCARNATION_BYTES), *meta)),
        *((_PUT_LIFETIME, pair) for pair in rows(source, _LIFETIMES)),
    ]
    schema.build(path, inserts, secret)
    target = snapshot.open_staged(path, secret, any_thread=True)  # each step may run in another
    done = 0
    digest, hash_key = Digest(), sqlite.digest_key(target)
    try:
        for page, statement in _pages(source, target, (meta[0], meta[1])):
            _put(target, statement, page)
            if statement is _PUT_ENTRY:
                digest = digest.changed((), (checked_hash(row, hash_key) for row in page))
            done += len(page)
            if stop():
                raise StoppedError("the work was stopped")
            yield Progress(what="writing it anew", done=done, total=max(total, done))
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, path) from error
    finally:
        target.close()
    source.execute("ROLLBACK").close()
    folder.sync_file(name)
    found = snapshot.state_of(path, secret, stop=stop)
    if found.digest != digest:
        raise CorruptError(f"{shown(path)} does not hold what was written into it; look at the disk")
    return digest


def _put(target: Connection, statement: str, page: list[tuple[object, ...]]) -> None:
    target.execute("BEGIN IMMEDIATE").close()
    target.executemany(statement, page).close()
    target.execute("COMMIT").close()


def _pages(
    source: Connection, target: Connection, floor: tuple[int, bytes]
) -> Iterator[tuple[list[tuple[object, ...]], str]]:
    for page in _paged(source, _ENTRIES):
        yield page, _PUT_ENTRY
    # The chain begins where the journal does, and goes on under the new key; what it was must be unbroken.
    walk, chain, key = (
        Walk(Mark("", floor[0], floor[1].hex()), sqlite.chain_key(source)),
        floor[1],
        sqlite.chain_key(target),
    )
    for page in _paged(source, _JOURNAL):
        anew: list[tuple[object, ...]] = []
        for row in page:
            walk.step(row)
            rev, first_rev, at, session, records, _ = row
            chain = next_chain(chain, rev, first_rev, at, session, records, key)
            anew.append((rev, first_rev, at, session, records, chain))
        yield anew, _PUT_JOURNAL


def _paged(source: Connection, query: str) -> Iterator[list[Any]]:
    cursor = source.execute(query)
    page: list[Any] = []
    try:
        for row in cursor:
            page.append(row)
            if len(page) == PAGE:
                yield page
                page = []
    finally:
        cursor.close()
    if page:
        yield page

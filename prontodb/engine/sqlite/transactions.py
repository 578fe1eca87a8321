"""The transactions of a keystore: plain synchronous functions over one connection.

Lanes run them for async handles; one-shot commands call them directly. Each takes the present time as an argument,
closes its cursors, and either commits all of its effect or leaves none.
"""

from __future__ import annotations

from binascii import crc32

from prontodb.errors import CompactedError, CorruptError, LimitError, shown
from prontodb.model.entry import Entry
from prontodb.model.limits import BATCH_BYTES, PAGE_BYTES
from prontodb.model.operation import Change, Changes, Position
from prontodb.storage.connection import one, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prontodb.storage.connection import Connection

_COLUMNS = "namespace_key, value, created_at, updated_at, ttl_expires_at, rev, checksum"
_LIVE = "(ttl_expires_at IS NULL OR ttl_expires_at > ?)"
_ONE = f"SELECT {_COLUMNS} FROM kvstore WHERE namespace_key = ?"
_MANY = f"SELECT {_COLUMNS} FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))"
HEAD = "coalesce((SELECT max(rev) FROM journal), floor)"
"""SQL over `meta` for the keystore's revision: that of the newest journal row, or of the last one pruned."""


def checksum(key: str, value: bytes, updated_at_ms: int, expires_at_ms: int | None, revision: int) -> int:
    """Return CRC-32 over all of a row but created_at, which is added to it when stored.

    Added and not hashed, so that an overwrite can keep the old created_at without reading the row first; a flipped bit
    in it still shows (D13).
    """
    expires_at = -1 if expires_at_ms is None else expires_at_ms
    return crc32(b"%s\x00%d\x00%d\x00%d" % (key.encode(), updated_at_ms, expires_at, revision), crc32(value))


def entry_of(row: Sequence[object]) -> Entry:
    """Return the entry in a row of `_COLUMNS`; `CorruptError` when its checksum does not match."""
    key, value, created_at, updated_at, expires_at, revision, stored = row
    try:
        good = stored - created_at == checksum(key, value.encode(), updated_at, expires_at, revision)  # type: ignore[operator,attr-defined,arg-type]
    except (TypeError, AttributeError, ValueError, OverflowError):
        good = False  # a column of another type than ours, or without end
    if not good:
        raise CorruptError(f"entry {shown(key)} is damaged (its checksum does not match); restore it from a backup")
    return Entry(key, value, created_at, updated_at, expires_at, revision)  # type: ignore[arg-type]


def read_one(connection: Connection, key: str, now_ms: int) -> Entry | None:
    """Return the live entry of `key`, or None."""
    # A key has one row at most: its statement is at its end, and holds no snapshot, once all of it is fetched.
    found = connection.point.execute(_ONE, (key,)).fetchall()
    if not found:
        return None
    row = found[0]
    # Checked before its expiry is believed: else a damaged expiry would make a live entry vanish in silence.
    entry = entry_of(row)
    return None if row[4] is not None and row[4] <= now_ms else entry


def read(connection: Connection, keys: Sequence[str], now_ms: int, max_bytes: int = BATCH_BYTES) -> list[Entry | None]:
    """Return the live entries of `keys` in their order, from one snapshot.

    Raises `LimitError` as soon as the values of several keys pass `max_bytes`, before more of them are read.
    """
    if len(keys) == 1:
        return [read_one(connection, keys[0], now_ms)]
    live: dict[str, Entry] = {}
    size = 0
    cursor = connection.execute(_MANY, (_json_list(keys),))
    try:
        for row in cursor:
            entry = entry_of(row)
            if entry.expires_at_ms is None or entry.expires_at_ms > now_ms:
                live[entry.key] = entry
                size += len(entry.value.encode())
                if size > max_bytes:
                    raise LimitError("max_batch_bytes", max_bytes, size)
    finally:
        cursor.close()
    return [live.get(key) for key in keys]


def _json_list(keys: Iterable[str]) -> str:
    import json

    return json.dumps(list(keys))


def scan(
    connection: Connection, lo: str, hi: str | None, limit: int, now_ms: int, *, reverse: bool = False
) -> list[Entry]:
    """Return up to `limit` live entries of `lo <= key < hi` in byte order; a page ends early past PAGE_BYTES.

    Expired ones are passed over here and not by SQLite: none is believed to be expired before its checksum was seen.
    """
    upper = "" if hi is None else "AND namespace_key < ?"
    order = "DESC" if reverse else "ASC"
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM kvstore WHERE namespace_key >= ? {upper} AND ? ORDER BY namespace_key {order}",
        (lo, limit > 0) if hi is None else (lo, hi, limit > 0),
    )
    page: list[Entry] = []
    size = 0
    try:
        for row in cursor:
            entry = entry_of(row)
            if row[4] is not None and row[4] <= now_ms:
                continue
            page.append(entry)
            size += len(row[1])
            if size > PAGE_BYTES or len(page) >= limit:
                break  # without a look at the next one, which may be large
    finally:
        cursor.close()
    return page


def first_page(connection: Connection, lo: str, hi: str | None, limit: int, now_ms: int) -> list[Entry] | None:
    """`scan` that looks at `limit` rows at most; None when expired ones among them leave the page open."""
    page: list[Entry] = []
    seen = size = 0
    upper = "" if hi is None else "AND namespace_key < ?"
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM kvstore WHERE namespace_key >= ? {upper} ORDER BY namespace_key LIMIT ?",
        (lo, limit) if hi is None else (lo, hi, limit),
    )
    try:
        for row in cursor:
            seen += 1
            entry = entry_of(row)
            if row[4] is not None and row[4] <= now_ms:
                continue
            page.append(entry)
            size += len(row[1])
            if size > PAGE_BYTES:
                return page
    finally:
        cursor.close()
    return page if seen < limit or len(page) == limit else None


def first_keys(connection: Connection, lo: str, hi: str | None, limit: int, now_ms: int) -> list[str] | None:
    """`keys` that looks at `limit` rows at most; None when any of them may have expired, which takes a closer look."""
    upper = "" if hi is None else "AND namespace_key < ?"
    found = rows(
        connection,
        f"SELECT namespace_key, ttl_expires_at FROM kvstore WHERE namespace_key >= ? {upper} "
        "ORDER BY namespace_key LIMIT ?",
        (lo, limit) if hi is None else (lo, hi, limit),
    )
    if any(_seems_expired(expires_at, now_ms) for _, expires_at in found):
        return None
    return _names(key for key, _ in found)


def _seems_expired(expires_at: object, now_ms: int) -> bool:
    """As SQLite compares: text, which only damage puts there, is later than any number."""
    return expires_at is not None and isinstance(expires_at, (int, float)) and expires_at <= now_ms


def is_damaged(connection: Connection, key: str) -> bool:
    """True when the checksum of a key's row does not match: what it says of its expiry is not to be believed."""
    row = one(connection, _ONE, (key,))
    return row is not None and _is_damaged(row)


def _is_damaged(row: Sequence[object]) -> bool:
    try:
        entry_of(row)
    except CorruptError:
        return True
    return False


def _names(found: Iterable[object]) -> list[str]:
    names = list(found)
    if not all(isinstance(name, str) for name in names):
        raise CorruptError("a key is damaged (it is no text); 'prontodb doctor --deep' says more")
    return names  # type: ignore[return-value]


def keys(connection: Connection, lo: str, hi: str | None, limit: int, now_ms: int) -> list[str]:
    """Return up to `limit` live keys of the range in byte order; damaged ones count as live."""
    upper = "" if hi is None else "AND namespace_key < ?"
    cursor = connection.execute(
        f"SELECT namespace_key, ttl_expires_at FROM kvstore WHERE namespace_key >= ? {upper} ORDER BY namespace_key",
        (lo,) if hi is None else (lo, hi),
    )
    found: list[object] = []
    try:
        for key, expires_at in cursor:
            if len(found) >= limit:
                break
            if not _seems_expired(expires_at, now_ms) or is_damaged(connection, key):
                found.append(key)
    finally:
        cursor.close()
    return _names(found)


def expired(connection: Connection, limit: int, now_ms: int) -> list[str]:
    """Return up to `limit` keys of expired entries, the oldest first; damaged ones stay for the doctor."""
    cursor = connection.execute(
        f"SELECT {_COLUMNS} FROM kvstore WHERE ttl_expires_at <= ? ORDER BY ttl_expires_at", (now_ms,)
    )
    found: list[str] = []
    try:
        for row in cursor:
            try:
                found.append(entry_of(row).key)
            except CorruptError:
                continue  # perhaps it is its expiry that is wrong
            if len(found) >= limit:
                break
    finally:
        cursor.close()
    return found


def count(connection: Connection, lo: str, hi: str | None, now_ms: int) -> int:
    """Return how many live entries the range holds; damaged ones count as live."""
    upper = "" if hi is None else "AND namespace_key < ?"
    found: int = one(
        connection,
        f"SELECT count(*) FROM kvstore WHERE namespace_key >= ? {upper} AND {_LIVE}",
        (lo, now_ms) if hi is None else (lo, hi, now_ms),
    )[0]
    seemingly_expired = connection.execute(
        f"SELECT {_COLUMNS} FROM kvstore WHERE ttl_expires_at <= ? AND namespace_key >= ? {upper}",
        (now_ms, lo) if hi is None else (now_ms, lo, hi),
    )
    try:
        return found + sum(map(_is_damaged, seemingly_expired))
    finally:
        seemingly_expired.close()


def lifetimes(connection: Connection) -> dict[str, int]:
    """Return the default lifetime of each namespace that has one, in milliseconds."""
    found = dict(rows(connection, "SELECT namespace, ttl_ms FROM namespace_ttl ORDER BY namespace"))
    if not all(isinstance(name, str) and isinstance(ms, int) for name, ms in found.items()):
        raise CorruptError("a namespace's lifetime is damaged; 'prontodb doctor --deep' says more")
    return found


def _head(connection: Connection) -> tuple[int, int, bytes]:
    """Return the revision, the floor and the incarnation."""
    found: tuple[int, int, bytes] | None = one(connection, f"SELECT {HEAD}, floor, incarnation FROM meta")
    if found is None or [type(value) for value in found] != [int, int, bytes]:
        raise CorruptError("the keystore's own record (meta) is damaged; restore it from a backup")
    return found


def position(connection: Connection) -> Position:
    """Return the present end of the history."""
    revision, _, incarnation = _head(connection)
    return Position(incarnation.hex(), revision)


def changes(connection: Connection, since: Position, limit: int, now_ms: int) -> Changes:
    """Return the latest state of the keys that changed after `since`: about `limit` of them, whole commits.

    A transaction of its own, so that journal and entries are of one snapshot.
    """
    connection.execute("BEGIN DEFERRED").close()
    try:
        return _changes(connection, since, limit, now_ms)
    finally:
        connection.execute("ROLLBACK").close()


def _changes(connection: Connection, since: Position, limit: int, now_ms: int) -> Changes:
    revision, floor, incarnation = _head(connection)
    if since.incarnation != incarnation.hex():
        raise CompactedError("the keystore was created anew or restored since; start again from a scan")
    if since.revision < floor:
        raise CompactedError(f"changes up to revision {floor} are no longer kept; start again from a scan")
    if since.revision > revision:
        raise CompactedError(f"revision {since.revision} is in the future of this keystore (at {revision})")
    latest: dict[str, int] = {}
    end = since.revision
    cursor = connection.execute(
        "SELECT rev, first_rev, records FROM journal WHERE rev > ? ORDER BY rev", (since.revision,)
    )
    try:
        for rev, first_rev, records in cursor:
            for number, (action, key) in enumerate(records_of(first_rev, rev, records), first_rev):
                # A position may lie inside a commit of many changes only if a caller made it up; honour it.
                if number > since.revision and action not in OF_NO_ENTRY:
                    latest.pop(key, None)
                    latest[key] = number
            end = rev
            if len(latest) >= limit:
                break
    finally:
        cursor.close()
    found: list[Change] = []
    size = 0
    for key, number in latest.items():  # in the order of their latest change, so that any of them can end the page
        if size > PAGE_BYTES:
            end = found[-1].revision
            break
        entry = read_one(connection, key, now_ms)
        found.append(Change(key, entry, number))
        size += 0 if entry is None else len(entry.value)
    return Changes(found, Position(since.incarnation, end))


def records_of(first_rev: int, rev: int, text: object) -> list[tuple[str, str]]:
    """Return action and key of each record in a row of the journal; `CorruptError` when it holds something else."""
    import json

    try:
        found = [(record[0], record[1]) for record in json.loads(text)]  # type: ignore[arg-type]
        whole = len(found) == rev - first_rev + 1
        if whole and all(isinstance(word, str) for record in found for word in record):
            return found
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise CorruptError(f"the journal is damaged at revision {rev}; restore the keystore from a backup")


LIFETIME = "lifetime"
"""The journal's record of a namespace's default lifetime."""
HISTORY = "history"
"""The journal's record that values are kept from now on, or no longer: 'on' or 'off'."""
OF_NO_ENTRY = (LIFETIME, HISTORY)
"""Records that are no change of an entry."""


def check_all(connection: Connection, report: list[str], *, limit: int = 1_000) -> int:
    """Check every row's checksum; append a line per damaged one to `report`; return how many rows were read.

    One row in memory at a time, and a new snapshot every `limit` rows, so that no checkpoint waits for long.
    """
    checked = seen = 0
    last = -(2**63)
    while True:
        cursor = connection.execute(
            f"SELECT {_COLUMNS}, id FROM kvstore WHERE id > ? ORDER BY id LIMIT ?", (last, limit)
        )
        try:
            for row in cursor:
                checked, last = checked + 1, row[-1]
                try:
                    entry_of(row[:-1])
                except CorruptError as error:
                    report.append(str(error))
        finally:
            cursor.close()
        if checked - seen < limit:
            return checked
        seen = checked

"""Looking at one keystore without changing it: its facts, and what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import ciphers, opening, schema, shapes, transactions
from prontodb.engine.sqlite.writing import next_chain
from prontodb.errors import CorruptError, shown
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

MAX_FAULTS = 100
"""Faults named of one keystore; past that their number says more than their list."""
JOURNAL_PAGE = 256
"""Journal rows read from one snapshot, so that a long check pins no checkpoint."""

_FACTS = (
    f"SELECT {transactions.HEAD}, floor, epoch, incarnation, history, (SELECT count(*) FROM kvstore), "
    "(SELECT count(*) FROM kvstore WHERE ttl_expires_at <= ?), (SELECT count(*) FROM journal), "
    "(SELECT at FROM journal ORDER BY rev LIMIT 1), "
    "(SELECT json_group_object(namespace, ttl_ms) FROM namespace_ttl) FROM meta"
)
_COUNTS = f"SELECT {transactions.HEAD}, floor, (SELECT max(rev) FROM kvstore) FROM meta"
# Read as text, which fails where it is none.
_NAMES = "SELECT namespace FROM namespace_ttl UNION ALL SELECT session FROM revoked"
_FLOOR = "SELECT floor, floor_chain FROM meta"
_NO_META = "table meta has lost its row; restore the keystore from a backup"
_JOURNAL = "SELECT rev, first_rev, at, session, records, chain FROM journal WHERE rev > ? ORDER BY rev LIMIT ?"
# With max() in a group, the other columns are of the row that has it. Without the cast SQLite makes no index on the
# names, and looks through all of them for each entry.
_LAST = (
    "WITH last AS MATERIALIZED (SELECT CAST(json_extract(record.value, '$[1]') AS TEXT) AS name, "
    "json_extract(record.value, '$[0]') AS op, max(first_rev + record.key) AS at "
    "FROM journal, json_each(records) AS record WHERE json_extract(record.value, '$[0]') NOT IN (?, ?) GROUP BY 1) "
)
_LOST = (
    _LAST + "SELECT name FROM last LEFT JOIN kvstore ON namespace_key = name "
    "WHERE op = 'set' AND rev IS NOT at ORDER BY name LIMIT ?"
)
_INVENTED = (
    _LAST + "SELECT namespace_key FROM kvstore LEFT JOIN last ON name = namespace_key "
    "WHERE rev > (SELECT floor FROM meta) AND (at IS NOT rev OR op <> 'set') ORDER BY namespace_key LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one keystore says of itself, from one snapshot."""

    revision: int
    floor: int
    epoch: int
    incarnation: str
    keeps_history: bool
    entries: int
    """Live entries; `expired` ones wait for the sweep."""
    expired: int
    journal_rows: int
    journal_oldest_at_ms: int | None
    lifetimes_ms: dict[str, int]


def facts(connection: Connection, now_ms: int) -> Facts:
    """Return what an open keystore says of itself; `CorruptError` when that is nothing we would say."""
    for wrong in shapes.faults(connection, shapes.OF_THE_KEYSTORE, 1):
        raise CorruptError(f"the keystore's own records are damaged: {wrong}")
    found = one(connection, _FACTS, (now_ms,))
    if found is None:
        raise CorruptError(_NO_META)
    revision, floor, epoch, incarnation, history, stored, expired, journal_rows, oldest, lifetimes = found
    if not isinstance(oldest, int | None):
        raise CorruptError("the journal's oldest row is damaged; 'prontodb doctor --deep' says more")
    return Facts(
        revision=revision,
        floor=floor,
        epoch=epoch,
        incarnation=incarnation.hex(),
        keeps_history=bool(history),
        entries=stored - expired,
        expired=expired,
        journal_rows=journal_rows,
        journal_oldest_at_ms=oldest,
        lifetimes_ms=json.loads(lifetimes),
    )


def faults(connection: Connection, path: str, *, deep: bool) -> list[str]:
    """Return what is wrong with an open keystore, a line each, at most MAX_FAULTS.

    SQLite's own check and the counts; `deep` adds every row's checksum, the journal's chain, and whether the entries
    are those that the journal tells of. Raises `BusyError` and other errors that tell nothing of the keystore's health.
    """
    if not deep:
        return _faults(connection, path, (_check_pages, _check_shapes, _check_counts))
    deeply = (_check_pages_deeply, _check_all_shapes, _check_counts, transactions.check_all)
    return _faults(connection, path, (*deeply, _check_journal, _check_last_changes))


def contradictions(connection: Connection, path: str) -> list[str]:
    """Return where an open keystore contradicts itself, as far as that is seen without going through its entries."""
    return _faults(connection, path, _QUICKLY_SEEN)


def _faults(connection: Connection, path: str, steps: Iterable[Callable[[Connection, list[str]], object]]) -> list[str]:
    found: list[str] = []
    for step in steps:
        try:
            step(connection, found)
        except sqlite.ERRORS as error:
            failure = sqlite.translated(error, path)
            if not isinstance(failure, CorruptError):
                raise failure from error
            found.append(str(failure))
    found = list(dict.fromkeys(found))
    more = len(found) - MAX_FAULTS
    return found if more <= 0 else [*found[:MAX_FAULTS], f"and {more:,} more faults"]


def _check_pages(connection: Connection, found: list[str]) -> None:
    found += [_line(text) for (text,) in rows(connection, "PRAGMA quick_check") if text != "ok"]


def _check_pages_deeply(connection: Connection, found: list[str]) -> None:
    found += [_line(text) for (text,) in rows(connection, "PRAGMA integrity_check") if text != "ok"]


def _line(text: object) -> str:
    return "SQLite's check: " + shown(text).strip("'")


def _check_shapes(connection: Connection, found: list[str]) -> None:
    found += shapes.faults(connection, shapes.OF_THE_KEYSTORE, MAX_FAULTS + 1)
    rows(connection, _NAMES)


def _check_all_shapes(connection: Connection, found: list[str]) -> None:
    found += shapes.faults(connection, shapes.ALL, MAX_FAULTS + 1)
    rows(connection, _NAMES)


def _check_counts(connection: Connection, found: list[str]) -> None:
    """One statement, one snapshot: what meta says against what the tables hold."""
    meta = one(connection, _COUNTS)
    if meta is None:
        found.append(_NO_META)
        return
    revision, floor, highest = meta
    if highest is not None and not isinstance(highest, int):
        found.append("an entry's revision is no whole number")
    elif highest is not None and isinstance(revision, int) and highest > revision:
        found.append(f"an entry has revision {highest}, past the keystore's own, {revision}")
    if isinstance(floor, int) and isinstance(revision, int) and floor > revision:
        found.append(f"changes up to revision {floor} are said to be pruned, past the keystore's own, {revision}")


def _floor(connection: Connection) -> tuple[int, bytes]:
    """Return where the journal begins; from the very beginning where meta says nothing that could be right."""
    floor, chain = one(connection, _FLOOR) or (0, schema.CHAIN_START)
    return (floor, chain) if isinstance(floor, int) and isinstance(chain, bytes) else (0, schema.CHAIN_START)


def _check_journal(connection: Connection, found: list[str]) -> None:
    """Every journal row in order: no revision is missing, no row was edited, the chain holds."""
    at, chain = _floor(connection)
    while len(found) <= MAX_FAULTS:
        cursor = connection.execute(_JOURNAL, (at, JOURNAL_PAGE))
        seen = 0
        try:
            for row in cursor:
                seen += 1
                if row[1] != at + 1 and seen == 1:
                    # Pruned since the last page: the chain goes on from the floor.
                    floor, floor_chain = _floor(connection)
                    at, chain = (floor, floor_chain) if floor > at else (at, chain)
                _check_row(row, at, chain, found, sqlite.chain_key(connection))
                at, chain = row[0], row[5]
        finally:
            cursor.close()
        if seen < JOURNAL_PAGE:
            return


def _check_row(row: tuple[int, int, int, str, str, bytes], at: int, chain: bytes, found: list[str], key: bytes) -> None:
    revision, first, moment, session, records, stored = row
    if first != at + 1:
        found.append(f"the journal goes from revision {at} to {first}")
    try:
        whole = next_chain(chain, revision, first, moment, session, records, key) == stored
        changes = json.loads(records)
    except (TypeError, ValueError, AttributeError, RecursionError):
        whole, changes = False, None
    if not whole:
        found.append(f"journal row {revision} does not follow from the one before it: one of them was edited")
    elif not _are_changes(changes):
        found.append(f"journal row {revision} holds something else than changes")
    elif len(changes) != revision - first + 1:
        found.append(f"journal row {revision} holds {len(changes)} changes, not those from {first} on")


def _are_changes(records: object) -> bool:
    """True for a list of records: each a list that begins with what was done and to which key."""
    return isinstance(records, list) and all(
        isinstance(record, list) and len(record) > 1 and isinstance(record[0], str) and isinstance(record[1], str)
        for record in records
    )


def _check_last_changes(connection: Connection, found: list[str]) -> None:
    """The last change of each key in the journal against its entry: none was lost, none came from elsewhere."""
    if found:
        return  # a damaged journal tells nothing
    for (key,) in rows(connection, _LOST, (*transactions.OF_NO_ENTRY, MAX_FAULTS + 1)):
        found.append(f"entry {shown(key)} is lost or old: the journal knows of a later change")
    for (key,) in rows(connection, _INVENTED, (*transactions.OF_NO_ENTRY, MAX_FAULTS + 1)):
        found.append(f"entry {shown(key)} has no change in the journal that it could come from")


_QUICKLY_SEEN = (_check_shapes, _check_counts, _check_journal)


def is_out_of_wal_mode(layout: Layout, address: Address) -> bool:
    """True for a keystore that is ours in all but its journal mode, which another tool has changed."""
    connection = _connect(layout, address, sqlite.READ_ONLY)
    try:
        return bool(one(connection, "PRAGMA journal_mode")[0] != "wal")
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, layout.keystore_path(address)) from error
    finally:
        connection.close()


def set_wal_mode(layout: Layout, address: Address) -> None:
    """Put a keystore back into WAL mode; the caller holds the lock of the address."""
    connection = _connect(layout, address, sqlite.READ_WRITE)
    try:
        mode = one(connection, "PRAGMA journal_mode=WAL")[0]
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, layout.keystore_path(address)) from error
    finally:
        connection.close()
    if mode != "wal":
        raise CorruptError(f"{shown(layout.keystore_path(address))} cannot be put into WAL mode ({mode})")


def _connect(layout: Layout, address: Address, mode: str) -> Connection:
    path = layout.keystore_path(address)
    with opening.open_folder(layout, address) as folder:
        found = opening.check_files(folder, address)
        connection = sqlite.connect(path, mode=mode, found=found, secret=ciphers.secret_in(layout, folder, address))
    return sqlite.checked(connection, path, lambda: schema.check(connection, path, wal=False))


def wal_bytes(layout: Layout, address: Address) -> int:
    """Return the size of a keystore's WAL by lstat; 0 when there is none."""
    with opening.open_folder(layout, address) as folder:
        found = folder.stat(f"{KEYSTORE_FILE}-wal")
        return 0 if found is None else found.st_size


def empty_wal(layout: Layout, address: Address, limits: Limits) -> bool:
    """Carry the WAL into the keystore and cut it to nothing; False when a reader or writer is in the way."""
    connection, _ = opening.open_writer(layout, address, limits, busy_timeout_ms=round(limits.wait_s * 1_000))
    try:
        busy, _, _ = one(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, layout.keystore_path(address)) from error
    finally:
        connection.close()
    return not busy

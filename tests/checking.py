"""What must be true of every keystore and every root, whatever was done to it; each fault is one line of text."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prontodb.engine.sqlite import folders, schema, transactions, writing
from prontodb.engine.sqlite.opening import open_reader
from prontodb.model.address import Address
from prontodb.model.layout import (
    ADDRESS_LOCK_FILE,
    ADDRESS_REGISTRY_FILE,
    ADDRESSES,
    CONFIG_FILE,
    CREATE_LOCK_FILE,
    DUES,
    GATE_LOCK_FILE,
    KEYS_LOCK_FILE,
    KEYSTORE_FILE,
    LOCKS,
    METADATA_FILE,
    REGISTRY,
    REGISTRY_LOCK_FILE,
    SESSION_REGISTRY_FILE,
    Layout,
)
from prontodb.model.secret import is_record_id
from prontodb.storage.connection import chain_key, one, rows
from prontodb.storage.reserve import RESERVE_FILE

if TYPE_CHECKING:
    from prontodb.storage.connection import Connection

_IN_REGISTRY = {ADDRESS_REGISTRY_FILE, SESSION_REGISTRY_FILE, CONFIG_FILE, LOCKS, RESERVE_FILE}
_IN_LOCKS = {ADDRESS_LOCK_FILE, CREATE_LOCK_FILE, GATE_LOCK_FILE, KEYS_LOCK_FILE, REGISTRY_LOCK_FILE}
_IN_ADDRESS = {KEYSTORE_FILE, METADATA_FILE}


def keystore_faults(root: str, address: Address) -> list[str]:
    """What is wrong with the keystore at `address`; it is opened as any reader opens it."""
    connection, _ = open_reader(Layout(root), address, busy_timeout_ms=5_000)
    try:
        return connection_faults(connection)
    finally:
        connection.close()


def connection_faults(connection: Connection) -> list[str]:
    """What is wrong with an open keystore: pages, checksums, revisions, the journal and its chain."""
    faults = [line for (line,) in rows(connection, "PRAGMA integrity_check") if line != "ok"]
    transactions.check_all(connection, faults)
    revision, incarnation = one(connection, f"SELECT {transactions.HEAD}, incarnation FROM meta")
    highest = one(connection, "SELECT max(rev) FROM kvstore")[0]
    if (highest or 0) > revision:
        faults.append(f"an entry has revision {highest}, above the keystore's {revision}")
    if len(incarnation) != schema.INCARNATION_BYTES:
        faults.append("the incarnation has the wrong length")
    return faults + journal_faults(connection, revision)


def journal_faults(connection: Connection, revision: int) -> list[str]:
    """What is wrong with the journal: gaps between its revisions, and rows that the chain does not lead to."""
    import json

    floor, chain = one(connection, "SELECT floor, floor_chain FROM meta")
    faults, expected = [], floor + 1
    query = "SELECT rev, first_rev, at, session, records, chain FROM journal ORDER BY rev"
    for rev, first, at, session, records, stored in rows(connection, query):
        if first != expected or rev - first + 1 != len(json.loads(records)):
            faults.append(f"journal row {first}..{rev} does not follow {expected - 1} with all of its records")
        chain = writing.next_chain(chain, rev, first, at, session, records, chain_key(connection))
        if chain != stored:
            faults.append(f"journal row {rev} breaks the chain")
        expected = rev + 1
    if expected != revision + 1:
        faults.append(f"the journal ends at {expected - 1}, the keystore stands at {revision}")
    return faults


def files_below(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and folder below `root` as a relative path with its lstat; the root itself is '.'."""
    yield ".", os.lstat(root)
    for folder, below, files in os.walk(root):
        for name in sorted(below + files):
            path = os.path.join(folder, name)
            yield os.path.relpath(path, root), os.lstat(path)


def root_faults(root: str) -> list[str]:
    """What is wrong with a root nobody uses at the moment: open modes, links, and what does not belong there."""
    faults = []
    for path, found in files_below(root):
        wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
        if stat.S_IMODE(found.st_mode) != wanted:
            faults.append(f"{path} has mode {stat.S_IMODE(found.st_mode):o}")
        # A reader that closes last cannot tidy up: it leaves SQLite's shared memory and its log.
        owner = path[:-4] if path.endswith(("-shm", "-wal")) else path
        if not _belongs(owner.split(os.sep), stat.S_ISDIR(found.st_mode)):
            faults.append(f"{path} was left over")
    for address in folders.listed(Layout(root)):
        faults += [f"{address}: {fault}" for fault in keystore_faults(root, address)]
    return faults


def _belongs(parts: list[str], is_folder: bool) -> bool:
    match parts:
        case ["."]:
            return is_folder
        case [("addresses" | "registry") as top]:
            return is_folder and top in (ADDRESSES, REGISTRY)
        case ["addresses", *names] if len(names) <= 2:
            return is_folder and not any(name.startswith(".") for name in names)
        case ["addresses", _, _, file]:
            return not is_folder and file in _IN_ADDRESS
        case ["registry", name]:
            return name in _IN_REGISTRY or (name == DUES and is_folder)
        case ["keys"]:
            return is_folder
        case ["keys", file]:
            return not is_folder and (file == "tokens.json" or is_record_id(file.removesuffix(".json")))
        case ["registry", "locks", _]:
            return is_folder
        case ["registry", "locks", _, file]:
            return not is_folder and file in _IN_LOCKS
    return False


def contents(connection: Connection) -> dict[str, Any]:
    """Every row's key with its value, read without any help of ours."""
    return dict(rows(connection, "SELECT namespace_key, value FROM kvstore"))

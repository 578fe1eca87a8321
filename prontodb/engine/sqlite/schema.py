"""Format 1 of a keystore file: its schema, its identity, and the image that new keystores are made from."""

from __future__ import annotations

import os

from prontodb.storage import connection as sqlite
from prontodb.storage.files import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from prontodb.model.secret import Secret

APPLICATION_ID = 0x50724442  # "PrDB"
FORMAT = 1

INCARNATION_BYTES = 16
# Stand in the template where each keystore's own random incarnation and first epoch go.
_PLACEHOLDER = bytes.fromhex("50726f6e746f4442696e6361726e6174")
_EPOCH_PLACEHOLDER = bytes.fromhex("1a50726f6e74")

_STATEMENTS = (
    "CREATE TABLE kvstore (id INTEGER PRIMARY KEY, namespace_key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, "
    "created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, ttl_expires_at INTEGER, rev INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL)",
    # Partial: a full index would be rewritten by each overwrite of an entry that never expires (measured: 1.41x).
    "CREATE INDEX kvstore_expiry ON kvstore (ttl_expires_at) WHERE ttl_expires_at IS NOT NULL",
    "CREATE TABLE journal (rev INTEGER PRIMARY KEY, first_rev INTEGER NOT NULL, at INTEGER NOT NULL, "
    "session TEXT NOT NULL, records TEXT NOT NULL, chain BLOB NOT NULL)",
    "CREATE TABLE namespace_ttl (namespace TEXT PRIMARY KEY, ttl_ms INTEGER NOT NULL) WITHOUT ROWID",
    # The revision is the newest journal row's (or `floor` when all are pruned): kept here too, it would cost each
    # commit one more page (ops/decisions/0003-journal-head.md).
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), floor INTEGER NOT NULL, floor_chain BLOB NOT NULL, "
    "epoch INTEGER NOT NULL, incarnation BLOB NOT NULL, token_epoch INTEGER NOT NULL, history INTEGER NOT NULL, "
    "audit INTEGER NOT NULL, lock_device INTEGER, lock_inode INTEGER)",
    "CREATE TABLE revoked (session TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID",
)
SCHEMA = frozenset(_STATEMENTS)

CHAIN_BYTES = 16
CHAIN_START = bytes(CHAIN_BYTES)


_META = (
    "INSERT INTO meta (id, floor, floor_chain, epoch, incarnation, token_epoch, history, audit) "
    "VALUES (1, 0, ?, ?, ?, 0, 0, 1)"
)


def build_template(folder: Folder, name: str) -> None:
    """Write an empty keystore, with placeholders in it, into the existing empty file `name`."""
    build(f"{folder.path}/{name}", ((_META, (CHAIN_START, int.from_bytes(_EPOCH_PLACEHOLDER), _PLACEHOLDER)),), None)


def build_encrypted(path: str, secret: Secret) -> None:
    """Make an empty file an empty keystore that only its secret opens: no template, since no page of it repeats."""
    build(path, ((_META, (CHAIN_START, first_epoch(), os.urandom(INCARNATION_BYTES))),), secret)


def build(path: str, inserts: Sequence[tuple[str, Sequence[object]]], secret: Secret | None) -> None:
    """Make an empty file a keystore of this format and put something in: the one place that runs DDL."""
    sqlite.build(
        path,
        ("page_size=4096", "auto_vacuum=INCREMENTAL"),
        (
            *((statement, ()) for statement in _STATEMENTS),
            (f"PRAGMA application_id={APPLICATION_ID}", ()),
            (f"PRAGMA user_version={FORMAT}", ()),
            *inserts,
        ),
        secret=secret,
    )


def image_for_new_keystore(template: bytes) -> bytes:
    """Return the template with a random incarnation and first epoch in place of the placeholders.

    An epoch that begins at random is never that of another keystore, which lay at the same address before.
    """
    epoch = first_epoch().to_bytes(len(_EPOCH_PLACEHOLDER))
    return _filled(_filled(template, _PLACEHOLDER, os.urandom(INCARNATION_BYTES)), _EPOCH_PLACEHOLDER, epoch)


def first_epoch() -> int:
    """Return a random epoch to begin with."""
    # 0x01 to 0x20 keep the number positive and six bytes long, as SQLite would store it.
    return int.from_bytes(bytes([1 + os.urandom(1)[0] % 0x20]) + os.urandom(len(_EPOCH_PLACEHOLDER) - 1))


def _filled(template: bytes, placeholder: bytes, value: bytes) -> bytes:
    before, found, behind = template.partition(placeholder)
    assert found and placeholder not in behind, "the template holds its placeholders exactly once"
    return before + value + behind


def check(connection: sqlite.Connection, path: str, *, wal: bool = True) -> None:
    """Raise unless `connection` is a keystore of this format; reads only. `wal` False: in any journal mode."""
    sqlite.check_format(connection, path, application_id=APPLICATION_ID, version=FORMAT, schema=SCHEMA, wal=wal)

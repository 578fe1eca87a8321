"""Recorded keystores for the audit's tests, and hands that edit them behind the store's back."""

from __future__ import annotations

import shutil
from binascii import crc32
from pathlib import Path
from typing import Any

from prontodb.audit.report import AuditReport
from prontodb.audits import Audits
from prontodb.engine.sqlite.writing import next_chain
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.storage import connection as sqlite
from tests.managing import managed

ADDRESS = "agent/test"


def file_of(root: Path, address: str = ADDRESS) -> Path:
    return root / "addresses" / address / "keystore.db"


def tampered(root: Path, *statements: tuple[str, tuple[object, ...]] | str, address: str = ADDRESS) -> None:
    """Do to a closed keystore what somebody does who has its file."""
    connection = sqlite.connect(str(file_of(root, address)))
    try:
        connection.execute("BEGIN IMMEDIATE").close()
        for statement in statements:
            sql, parameters = (statement, ()) if isinstance(statement, str) else statement
            connection.execute(sql, parameters).close()
        connection.execute("COMMIT").close()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        connection.close()


def looked(root: Path, query: str, address: str = ADDRESS) -> list[Any]:
    connection = sqlite.connect(str(file_of(root, address)))
    try:
        return sqlite.rows(connection, query)
    finally:
        connection.close()


async def recorded(root: Path, sessions: int = 1, changes: int = 5, address: str = ADDRESS) -> None:
    """Sessions, one after the other, with so many changes each; the end of each leaves an anchor."""
    user, _, cursor = address.partition("/")
    async with managed(root) as manager:
        for session in range(sessions):
            async with manager.session(user, cursor) as keystore:
                for change in range(changes):
                    await keystore.set(f"key{change}", f"value {session}.{change} of {address}")


def accusations(root: Path) -> list[str]:
    """What `audit verify` finds at any address."""
    audits = Audits(Layout(str(root)), Clock(), 1.0, lambda: ())
    work = audits.verify()
    while True:
        try:
            next(work)
        except StopIteration as end:
            report: AuditReport = end.value
            return [f"{one.address}: {found.what}" for one in report.addresses for found in one.findings]


def checksum(key: str, value: str, created_at: int, updated_at: int, expires_at: int | None, revision: int) -> int:
    """What the store writes beside an entry, computed by somebody who has read how."""
    moment = -1 if expires_at is None else expires_at
    return (
        crc32(b"%s\x00%d\x00%d\x00%d" % (key.encode(), updated_at, moment, revision), crc32(value.encode()))
        + created_at
    )


def forged(root: Path, first: int, records: str, address: str = ADDRESS) -> None:
    """Replace the records of one row, and compute the chain anew from there: who knows how needs no key for it."""
    rows = looked(root, "SELECT rev, first_rev, at, session, records, chain FROM journal ORDER BY rev", address)
    chain, statements = bytes(16), []
    for rev, first_rev, at, session, found, old in rows:
        text = records if first_rev == first else found
        chain = next_chain(chain, rev, first_rev, at, session, text) if first_rev >= first else old
        statements.append(("UPDATE journal SET records = ?, chain = ? WHERE rev = ?", (text, chain, rev)))
    tampered(root, *statements, address=address)


def swapped(root: Path, one: str, other: str) -> None:
    """Swap the files of two closed keystores."""
    a, b = file_of(root, one), file_of(root, other)
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def copied(root: Path, to: Path, address: str = ADDRESS) -> None:
    shutil.copyfile(file_of(root, address), to)

"""Databases as the old programs left them, any number of rows, with a fate for each row that is known beforehand."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlcipher3 import dbapi2 as sqlite

from benchmarks.workload import SEED, VALUE_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AGENTS = 40
NAMESPACES = 25
PROJECTS = ("default", "web", "ops", "lab")
BEGAN = datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - the old programs wrote UTC without saying so
BEGAN_S = 1_700_000_000
EVERY_S = 30
"""Between two rows: each has a moment of its own, as in life, and there is none to be remembered from the last row."""
CACHE_KIB = 512 * 1_024
HOUR_S, FAR_S = 3_600, 1_000_000_000

# Of every ten rows, numbered from 0: the last repeats a key of some earlier row numbered 8, with a newer value.
REPEATED, REPEATS = 8, 9
# Rust program: of every ten rows one has expired, and one will.
EXPIRES, EXPIRED = 6, 7
# Shared table: of every thousand rows the first few are awkward, one of each kind.
FEW_PARTS, KEY_NOT_UTF8, VALUE_NOT_UTF8, UNSAFE_NAME, BLOB, GARBAGE_TIME = range(6)
REPORTED_AS = {
    FEW_PARTS: "few_parts",
    KEY_NOT_UTF8: "not_utf8",
    VALUE_NOT_UTF8: "value_not_utf8",
    UNSAFE_NAME: "no_address",
}
NOT_UTF8 = b"\xff\xfe"

SHARED_TABLE = (
    "CREATE TABLE kvstore (id INTEGER PRIMARY KEY, address TEXT NOT NULL, value TEXT NOT NULL, created_at TIMESTAMP, "
    "updated_at TIMESTAMP)"
)
RUST_TABLE = (
    "CREATE TABLE kv (project TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL, context TEXT, "
    "value TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER, "
    "PRIMARY KEY (project, namespace, key, context))"
)
_LIFETIMES_TABLE = (
    "CREATE TABLE sys_namespaces (project TEXT NOT NULL, namespace TEXT NOT NULL, is_ttl BOOLEAN NOT NULL DEFAULT 0, "
    "default_ttl INTEGER, created_at INTEGER NOT NULL, PRIMARY KEY (project, namespace))"
)
# Bytes are bound as a BLOB, and only a cast makes text of them that is not UTF-8.
_PUT_SHARED = (
    "INSERT INTO kvstore VALUES (?, CAST(? AS TEXT), CASE ? WHEN 'blob' THEN ?4 ELSE CAST(?4 AS TEXT) END, ?, ?)"
)
_PUT_RUST = "INSERT INTO kv VALUES (?, ?, ?, NULL, ?, ?, ?, ?)"
_PUT_LIFETIME = "INSERT INTO sys_namespaces VALUES (?, ?, ?, ?, ?)"


@dataclass(slots=True, kw_only=True)
class Expected:
    """What must become of a source. `reported`: rows by reason; `lifetimes`: namespaces with a default lifetime."""

    read: int
    expired: int = 0
    superseded: int = 0
    reported: Counter[str] = field(default_factory=Counter)
    addresses: int = 0
    lifetimes: int = 0

    @property
    def migrated(self) -> int:
        """What is left of all rows."""
        return self.read - self.expired - self.superseded - self.reported.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One of the old formats: what it is called, where its database lies, and what fills it."""

    name: str
    file: str
    schema: tuple[str, ...]
    journal_mode: str
    fill: Callable[[Any, int], Expected]

    def make(self, folder: Path, count: int) -> tuple[Path, Expected]:
        """Make a source with so many rows; return its path and what must become of it."""
        path = folder / self.file
        path.parent.mkdir(parents=True)
        with closing(sqlite.connect(str(path), isolation_level=None)) as connection:
            # Keys come in no order: with less, every row of the Rust program's index would be read back from disk.
            for pragma in (f"journal_mode={self.journal_mode}", f"cache_size=-{CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}").close()
            connection.execute("BEGIN IMMEDIATE").close()
            for statement in self.schema:
                connection.execute(statement).close()
            expected = self.fill(connection, count)
            connection.execute("COMMIT").close()
        return path, expected


def _name(number: int) -> str:
    """Return the last part of a key: unlike for every number, and in no order, as keys come to a table."""
    return f"note-{number * 2_654_435_761 % 2**32:08x}"


def _numbered(count: int) -> Iterator[tuple[int, int, str]]:
    """Yield the number of each row, the number that its key is made from, and its value."""
    chance = random.Random(SEED)
    for number in range(count):
        of = number
        if number % 10 == REPEATS:
            of = chance.randrange(number // 10 + 1) * 10 + REPEATED
        yield number, of, chance.randbytes(VALUE_CHARACTERS // 2).hex()


def _fill_shared(connection: Any, count: int) -> Expected:
    expected = Expected(read=count)
    agents: set[int] = set()

    def rows() -> Iterator[tuple[object, ...]]:
        for number, of, value in _numbered(count):
            agent = (of * 7 + of // 10) % AGENTS
            path = f"main.area{of // AGENTS % NAMESPACES}.{_name(of)}"
            address: object = f"agent{agent}.{path}"
            stored: object = value
            kind, at = "text", str(BEGAN + timedelta(seconds=number * EVERY_S))
            expected.superseded += number % 10 == REPEATS
            odd = number % 1_000
            if odd in REPORTED_AS:
                expected.reported[REPORTED_AS[odd]] += 1
            else:
                agents.add(agent)
            if odd == FEW_PARTS:
                address = f"agent{agent}.main.{_name(of)}"
            elif odd == KEY_NOT_UTF8:
                address = f"agent{agent}.{path}".encode() + NOT_UTF8
            elif odd == VALUE_NOT_UTF8:
                stored = value.encode() + NOT_UTF8
            elif odd == UNSAFE_NAME:
                address = f"agent {agent}.{path}"
            elif odd == BLOB:
                kind, stored = "blob", value.encode()
            elif odd == GARBAGE_TIME:
                at = "yesterday"
            yield number + 1, address, kind, stored, at, at

    connection.executemany(_PUT_SHARED, rows()).close()
    expected.addresses = len(agents)
    return expected


def _fill_rust(connection: Any, count: int) -> Expected:
    expected = Expected(read=count, addresses=1)

    def rows() -> Iterator[tuple[object, ...]]:
        for number, of, value in _numbered(count):
            at, expires, turn = BEGAN_S + number * EVERY_S, None, number % 10
            if turn == EXPIRED:
                expires = at + HOUR_S
            elif turn == EXPIRES:
                expires = at + FAR_S
            expected.expired += turn == EXPIRED
            expected.superseded += turn == REPEATS
            project, area = PROJECTS[of // 10 % len(PROJECTS)], of // 10 // len(PROJECTS) % NAMESPACES
            yield project, f"area{area}", _name(of), value, at, at, expires

    connection.executemany(_PUT_RUST, rows()).close()
    for project in PROJECTS:
        for area in range(NAMESPACES):
            is_ttl = area % 10 == 0
            expected.lifetimes += is_ttl
            row = (project, f"area{area}", is_ttl, HOUR_S if is_ttl else None, BEGAN_S)
            connection.execute(_PUT_LIFETIME, row).close()
    return expected


SHARED = Format(
    name="the shared table", file="old/shared.db", schema=(SHARED_TABLE,), journal_mode="DELETE", fill=_fill_shared
)
RUST = Format(
    name="the Rust program's tables",
    # By its place and name the old program's own, so that nobody has to say whose it is.
    file="odx/prontodb/work/pronto.work.prdb",
    schema=(RUST_TABLE, _LIFETIMES_TABLE),
    journal_mode="WAL",
    fill=_fill_rust,
)
FORMATS = {"shared": SHARED, "rust": RUST}

"""Sources as the old programs left them, made up by the tests: databases, cursor files, old roots, damaged ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlcipher3 import dbapi2 as sqlite

if TYPE_CHECKING:
    from prontodb.storage.connection import Connection

SHARED = (
    "CREATE TABLE kvstore (id INTEGER PRIMARY KEY, address TEXT NOT NULL, value TEXT NOT NULL, created_at TIMESTAMP, "
    "updated_at TIMESTAMP)"
)
RUST = (
    "CREATE TABLE kv (project TEXT NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL, context TEXT, "
    "value TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER, "
    "PRIMARY KEY (project, namespace, key, context))"
)
NAMESPACES = (
    "CREATE TABLE sys_namespaces (project TEXT NOT NULL, namespace TEXT NOT NULL, is_ttl BOOLEAN NOT NULL DEFAULT 0, "
    "default_ttl INTEGER, created_at INTEGER NOT NULL, PRIMARY KEY (project, namespace))"
)
T0 = 1_700_000_000
"""A moment in epoch seconds: 2023-11-14T22:13:20Z."""
TEXT_T0 = "2023-11-14 22:13:20"


@contextmanager
def database(path: Path, *statements: str, wal: bool = False) -> Iterator[Connection]:
    """Make a database with these tables and yield a connection to fill it; committed and closed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection: Connection = sqlite.connect(str(path), isolation_level=None)
    try:
        connection.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}").close()
        connection.execute("BEGIN IMMEDIATE").close()
        for statement in statements:
            connection.execute(statement).close()
        yield connection
        connection.execute("COMMIT").close()
    finally:
        connection.close()


def shared(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Make a shared table: rows of address, value and perhaps created_at, updated_at."""
    with database(path, SHARED) as connection:
        for number, row in enumerate(rows, 1):
            address, value, created, updated = [*row, TEXT_T0, TEXT_T0][:4] if len(row) == 2 else row
            connection.execute(
                "INSERT INTO kvstore VALUES (?, ?, ?, ?, ?)", (number, address, value, created, updated)
            ).close()
    return path


def rust(path: Path, rows: Iterable[Sequence[object]], namespaces: Iterable[Sequence[object]] = ()) -> Path:
    """Make the Rust program's tables.

    Rows of project, namespace, key, value and perhaps context, updated_at, expires_at; namespaces of project,
    namespace, is_ttl, default_ttl.
    """
    with database(path, RUST, NAMESPACES, wal=True) as connection:
        for row in rows:
            defaults: tuple[object, ...] = (None, None, None, None, None, T0, None)
            project, namespace, key, value, context, updated, expires = tuple(row) + defaults[len(row) :]
            connection.execute(
                "INSERT INTO kv VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (project, namespace, key, context, value, T0, updated, expires),
            ).close()
        for namespace_row in namespaces:
            connection.execute("INSERT INTO sys_namespaces VALUES (?, ?, ?, ?, ?)", (*namespace_row, T0)).close()
    return path


def cursor(path: Path, database_path: object, user: str | None = None, **fields: object) -> Path:
    """Write a cursor file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {
        "database_path": str(database_path),
        "default_project": "default",
        "default_namespace": "default",
        "created_at": "2023-11-14T22:13:20Z",
        **fields,
    }
    if user is not None:
        content["user"] = user
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def packed(folder: Path, target: Path) -> Path:
    """Pack a folder as the old program packed its backups."""
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return target


def fingerprint(path: Path) -> dict[str, tuple[object, ...]]:
    """Return all that a source is: the bytes, modes and times of every file and folder in it."""
    found = sorted([path, *path.rglob("*")]) if path.is_dir() else [path]
    return {
        os.path.relpath(one, path.parent): (
            one.lstat().st_mode,
            one.lstat().st_size,
            one.lstat().st_mtime_ns,
            hashlib.sha256(one.read_bytes()).hexdigest() if one.is_file() and not one.is_symlink() else "",
        )
        for one in (*found, *([] if path.is_dir() else path.parent.glob(path.name + "-*")))
    }


def old_root(tmp_path: Path) -> Path:
    """An old root with everything the old program could have left, each key telling where it lay."""
    root = tmp_path / "odx" / "prontodb"
    rust(root / "pronto.db", [("p", "n", "oldest", "pronto.db")])
    rust(root / "main" / "pronto.main.prdb", [("p", "n", "main", "main")], [("p", "cache", 1, 60)])
    rust(root / "pronto.main.prdb", [("p", "n", "auto", "auto")])
    rust(root / "work" / "work.db", [("p", "n", "work", "work"), ("M.q", "n", "behind", "meta")])
    rust(root / "home" / "pronto.home.prdb", [("p", "n", "home", "home")])
    rust(root / "pronto" / "pronto.db", [("p", "n", "pronto", "pronto")])
    return root


def with_live_log(folder: Path, commits: int = 1) -> Path:
    """A database whose newest rows lie in its log alone, a commit each, as a killed program leaves it."""
    made = folder.parent / "made"
    rust(made / f"{folder.name}.db", [("p", "n", "k", "in the file")])
    writer = (
        "import sys, os\nfrom sqlcipher3 import dbapi2 as s\nc = s.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint=0')\n"
        f"for k in ['late', 'late2', 'late3'][:{commits}]:\n"
        f"    c.execute(\"INSERT INTO kv VALUES ('p', 'n', ?, NULL, 'in the log', {T0}, {T0}, NULL)\", (k,))\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", writer, str(made / f"{folder.name}.db")], check=True)
    shutil.move(made, folder)
    assert (folder / f"{folder.name}.db-wal").stat().st_size > 0
    return folder

"""Roots with backups for tests: the long works run where they stand, on a clock that moves a second for each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prontodb.backup.container import Container, Listing
from prontodb.backup.create import BackupReport
from prontodb.backup.history import Until
from prontodb.backup.manifest import MANIFEST_FILE, Manifest
from prontodb.backup.restore import RestoreReport
from prontodb.backup.verify import VerifyReport
from prontodb.engine.sqlite.digest import COLUMNS
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.engine.sqlite.opening import open_reader
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.model.settings import Settings
from prontodb.registry.addresses import AddressRegistry
from prontodb.registry.jobs import JobRegistry
from prontodb.storage.connection import rows
from prontodb.work import Work
from tests.unit.stores import Stores

if TYPE_CHECKING:
    from prontodb.storage.connection import Connection

T = TypeVar("T")
WAIT_S = 0.2
"""How long a lock is waited for: those that a test holds are never let go in time."""


def finished(work: Generator[Any, None, T]) -> T:
    """Do a long work to its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: T = end.value
            return found


class Root:
    """A root: its keystores, and everything long that is done with them."""

    def __init__(self, path: Path) -> None:
        self.path, self.layout = path, Layout(str(path))
        self.stores = Stores(str(path))
        self.clock = self.stores.clock
        registry = AddressRegistry(self.layout, wait_s=WAIT_S, one_shot=True)
        self.lifecycle = Lifecycle(self.layout, self.clock, registry, wait_s=WAIT_S, one_shot=True)
        self.jobs = JobRegistry(self.layout, wait_s=WAIT_S, one_shot=True)
        settings = Settings(durability="relaxed", wait_s=WAIT_S)
        self.work = Work(self.layout, settings, self.clock, self.lifecycle, self.jobs)

    def close(self) -> None:
        """Close every keystore."""
        self.stores.close()

    def at(self, address: str) -> Keystore:
        """A handle of an address, which the first write makes."""
        return self.stores.at(address)

    @property
    def container(self) -> Container:
        """The root's own backups."""
        return Container.of_root(self.layout)

    def listing(self) -> Listing:
        """What backups there are."""
        return self.container.list()

    def ids(self) -> list[str]:
        """The ids of all backups, the oldest first."""
        return [one.id for one in self.listing().backups]

    def manifest(self, report: BackupReport) -> Manifest:
        """The manifest of a backup just made, wherever it is."""
        assert report.path is not None
        data = json.loads((Path(report.path) / MANIFEST_FILE).read_text())
        (found,) = [one for one in Container(str(Path(report.path).parent), by_kind=False).list().backups
                    if one.id == data["id"]]  # fmt: skip
        return found

    def backup(self, **options: Any) -> BackupReport:
        """Make a backup, a second after whatever came before."""
        self.clock.advance(1)
        return finished(self.work.backup(**options))

    def full(self, **options: Any) -> BackupReport:
        """Make a full backup."""
        return self.backup(full=True, **options)

    def verify(self, reference: str | None = None) -> VerifyReport:
        """Test backups."""
        return finished(self.work.verify(reference))

    def restore(self, reference: str | None = None, **options: Any) -> RestoreReport:
        """Restore addresses; `at_ms`: as they were at a moment."""
        until = Until(options.pop("at_ms", None))
        return finished(self.work.restoring(reference, until=until, **options).steps())

    def state(self, address: str) -> dict[str, Any]:
        """Every row of an address, see `state_at`."""
        return state_at(self.path, address)

    def states(self) -> dict[str, dict[str, Any]]:
        """Every row of every address."""
        return states_at(self.path)


def state_at(root: Path, address: str) -> dict[str, Any]:
    """Every row of one keystore but for what says which file it is: incarnation, epoch, locks, row numbers."""
    connection, _ = open_reader(Layout(str(root)), Address.parse(address), busy_timeout_ms=5_000)
    try:
        return all_rows(connection)
    finally:
        connection.close()


def all_rows(connection: Connection) -> dict[str, Any]:
    """The same over an open connection. Of an encrypted keystore the chain is its own and no other's: left out."""
    chain = "chain" if connection.secret is None else "NULL"
    return {
        "entries": rows(connection, f"SELECT {COLUMNS} FROM kvstore ORDER BY namespace_key"),
        "journal": rows(connection, f"SELECT rev, first_rev, at, session, records, {chain} FROM journal ORDER BY rev"),
        "lifetimes": rows(connection, "SELECT namespace, ttl_ms FROM namespace_ttl ORDER BY namespace"),
        "meta": rows(connection, "SELECT floor, floor_chain, history, audit, token_epoch FROM meta"),
    }


def states_at(root: Path) -> dict[str, dict[str, Any]]:
    """Every row of every address of a root."""
    found = sorted((root / "addresses").glob("*/*")) if (root / "addresses").exists() else []
    names = [f"{path.parent.name}/{path.name}" for path in found if not path.name.startswith(".")]
    return {name: state_at(root, name) for name in names}


def unlogged(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a state holds for whoever reads it: all but its history."""
    return {"entries": state["entries"], "lifetimes": state["lifetimes"]}


def image(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, tuple[int, str]]:
    """Every path below a folder with its mode and the hash of what it holds; names in `but` are left out."""
    found: dict[str, tuple[int, str]] = {}
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in but]
        for name in (*folders, *files):
            path = Path(above) / name
            if name in but:
                continue
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(folder))] = (path.lstat().st_mode, hashlib.sha256(data).hexdigest())
    return found


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest, and give it the hash that it should then have."""
    found = json.loads(path.read_text())
    del found["sha256"]
    change(found)
    path.write_bytes(sealed(found))


def sealed(found: dict[str, Any]) -> bytes:
    """Return a manifest with the right hash at its end: of all the bytes before it."""
    body = json.dumps(found)[:-1].encode() + b","
    return body + b'"sha256": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def rehashed(folder: Path, file: str, data: bytes, raw_bytes: int | None = None) -> None:
    """Put other bytes into a file of a backup, and have its manifest say that they belong there."""
    (folder / file).write_bytes(data)

    def change(found: dict[str, Any]) -> None:
        (piece,) = [one for one in found["pieces"] if one["file"] == file]
        piece |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if raw_bytes is not None:
            piece["raw_bytes"] = raw_bytes

    edited(folder / MANIFEST_FILE, change)

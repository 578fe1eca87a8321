"""The source of a migration: a file, the old program's folder, or an old backup; copied to a private folder and tested.

Everything is read before anything is decided, and what cannot be understood stops the whole, unless it is left out by
name: half an import would look like a whole one.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from prontodb.errors import InvalidInputError, InvalidSourceError, NotFoundError, ProntoError, StorageFullError, shown
from prontodb.migration import cursors, formats
from prontodb.migration.archive import unpack
from prontodb.migration.places import BACKUP_NAME
from prontodb.model.progress import Progress
from prontodb.storage.foreign import (
    GZIP_MAGIC,
    INDEX_FILE,
    SIDE_FILES,
    SQLITE_MAGIC,
    SourceFile,
    beginning,
    copied,
    stamp,
)
from prontodb.storage.survey import survey

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable

    from prontodb.migration.cursors import Cursor
    from prontodb.migration.formats import Tables
    from prontodb.storage.files import Folder
    from prontodb.storage.survey import Found

    T = TypeVar("T")

_ENDINGS = (".db", ".prdb")
MAX_FAULTS_NAMED = 10
MAX_FILES = 100_000
"""Files in a source: more is a whole disk, and no old root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One old database: its name below the source, its settled private copy, and what it holds."""

    name: str
    copy: str
    tables: Tables
    folder: str
    """The name of the folder it lay in."""
    is_top: bool
    """True when that is the folder that was named as the source."""

    @property
    def file(self) -> str:
        """Its name alone."""
        return self.name.rpartition("/")[2]


@dataclass(slots=True, kw_only=True)
class Source:
    """All that a migration reads. `cursors` maps the name of a database to the cursor files that name it."""

    path: str
    paths: list[str] = field(default_factory=list)
    """The path of every database and cursor file that was read."""
    databases: list[Database] = field(default_factory=list)
    cursors: dict[str, list[Cursor]] = field(default_factory=dict)
    files: list[SourceFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def checked_path(path: object, root: str, *apart: str) -> str:
    """Return the absolute path of a source that exists, links resolved.

    It must not lie in the root, and neither the root nor anything else that we write to may lie in it.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str) or not text or "\x00" in text:
        raise InvalidInputError("a source is the path of an old database, of the old program's folder, or of a backup")
    check_spelling(text)
    found = os.path.realpath(text)
    if stamp(found) is None:
        raise NotFoundError(f"there is no {shown(text)}; the old program kept its data in ~/.local/data/odx/prontodb")
    if found.startswith(os.path.realpath(root).rstrip("/") + "/"):
        raise InvalidInputError(f"{shown(found)} lies in the present root {shown(root)}; it is not an old one")
    for other in (root, *apart):
        inside = os.path.realpath(other)
        if inside == found or inside.startswith(found.rstrip("/") + "/"):
            raise InvalidInputError(
                f"{shown(inside)} lies in the source {shown(found)}, which must stay as it is; name the old folder "
                "itself, or write elsewhere (--root, --scratch, --report)"
            )
    return found


def check_spelling(path: str) -> None:
    """Raise `InvalidInputError` for text that is no path on this system."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise InvalidInputError(f"{shown(path)} is no path on this system") from None


class Taking:
    """Copies a source into a private folder and tests every database of it; `steps` returns the `Source`."""

    def __init__(self, path: str, folder: Folder, skip: Collection[str]) -> None:
        self._path, self._folder, self._skip = path, folder, frozenset(skip)
        self._faults: list[ProntoError] = []
        self._copies = self._wanted = self._done_bytes = self._total_bytes = 0
        self._skipped: set[str] = set()
        self._names: list[str] = []
        """Of all files below the folder."""
        self._refused: set[str] = set()
        """Databases that a fault is told of already."""

    def steps(self) -> Generator[Progress, None, Source]:
        """Do it. Raises `InvalidSourceError`, `BusyError` and `ConflictError`, before which nothing was imported."""
        if os.path.isdir(self._path):
            source = yield from self._from_folder()
        else:
            begin = beginning(self._path, len(SQLITE_MAGIC))
            if begin.startswith(GZIP_MAGIC):
                source = yield from self._from_backup()
            else:
                source = yield from self._from_file(begin)
        unused = self._skip - self._skipped
        if unused:
            raise InvalidInputError(f"--skip names {shown(sorted(unused)[0])}, which the source does not hold")
        self._refuse_faults()
        if not source.databases:
            raise InvalidSourceError(f"{shown(self._path)} holds no database of the old program (table kvstore or kv)")
        return source

    def _refuse_faults(self) -> None:
        if not self._faults:
            return
        first = self._faults[0]
        if len(self._faults) == 1:
            raise first
        texts = "; ".join(str(error) for error in self._faults[:MAX_FAULTS_NAMED])
        raise InvalidSourceError(
            f"{len(self._faults)} files cannot be used: {texts}; leave them out by name (--skip), or mend them"
        )

    def _is_skipped(self, name: str) -> bool:
        if name in self._skip:
            self._skipped.add(name)
            return True
        return False

    # One file

    def _from_file(self, begin: bytes) -> Generator[Progress, None, Source]:
        folder, file = os.path.split(self._path)
        if not begin:
            raise InvalidSourceError(f"{shown(file)} is empty: it holds no database; nothing was imported")
        if begin != SQLITE_MAGIC:
            raise InvalidSourceError(f"{shown(file)} is no database of SQLite, or is encrypted; nothing was imported")
        source = Source(path=self._path)
        self._total_bytes = self._size_of(self._path)
        yield from self._take(source, file, self._path, os.path.basename(folder), is_top=True)
        self._refuse_faults()
        # Whoever names one database may have cursors for it, which say whose it is.
        for place, above in ((folder, folder), (os.path.dirname(folder), os.path.dirname(folder))):
            path = f"{place}/{cursors.CURSOR_FOLDER}"
            if os.path.isdir(path) and not os.path.islink(path):
                names = [name for name, found in self._below(path).items() if found.is_file]
                self._cursors_of_file(source, file, above, [f"{cursors.CURSOR_FOLDER}/{name}" for name in names])
        return source

    def _cursors_of_file(self, source: Source, file: str, above: str, names: Iterable[str]) -> None:
        for name in names:
            if not cursors.is_cursor_file(name):
                continue
            source.paths.append(f"{above}/{name}")
            try:
                cursor = cursors.read(f"{above}/{name}", name)
            except ProntoError as error:
                source.notes.append(str(error))
                continue
            targets = {os.path.realpath(path) for path in _candidates(cursor, above, os.path.dirname(self._path))}
            if self._path in targets or _moved(cursor.database_path, [self._path]):
                source.cursors.setdefault(file, []).append(cursor)

    # A folder

    def _from_folder(self) -> Generator[Progress, None, Source]:
        source = Source(path=self._path)
        found = self._below(self._path)
        self._names = list(found)
        databases = [name for name, one in found.items() if self._is_database(name, one, found, source)]
        self._total_bytes = sum(self._size_of(f"{self._path}/{name}") for name in databases)
        self._wanted = len(databases)
        self._check_room()
        for name in databases:
            folder = os.path.dirname(name) or os.path.basename(self._path)
            yield from self._take(
                source, name, f"{self._path}/{name}", os.path.basename(folder), is_top="/" not in name
            )
        for name in found:
            if cursors.is_cursor_file(name) and not self._is_skipped(name):
                yield from self._cursor(source, name)
        return source

    def _below(self, path: str) -> dict[str, Found]:
        """Return everything below a folder but the folders, by name in order; one that stays shut is a fault."""
        found: dict[str, Found] = {}
        for one in survey(path):
            name = "/".join(one.parts)
            if one.trouble is not None:
                if not self._is_skipped(name):
                    self._faults.append(InvalidSourceError(f"{shown(name)}: {one.trouble}; leave it out with --skip"))
            elif not one.is_folder:
                found[name] = one
            if len(found) > MAX_FILES:
                raise InvalidSourceError(f"{shown(path)} holds over {MAX_FILES:,} files; name the old folder itself")
        return dict(sorted(found.items()))

    def _is_database(self, name: str, one: Found, names: Collection[str], source: Source) -> bool:
        """True for a file that is to be read as a database; what looks like one and is none is a fault."""
        last = name.rpartition("/")[2]
        for ending in (*SIDE_FILES, INDEX_FILE):
            if last.endswith(ending):
                if name.removesuffix(ending) not in names:
                    source.notes.append(f"{name} has lost its database; it was left alone")
                return False
        if self._is_skipped(name):
            if not cursors.is_cursor_file(name):
                source.notes.append(f"{name} was left out (--skip)")
            return False
        if not one.is_file:
            if last.endswith((*_ENDINGS, cursors.CURSOR_ENDING)):
                self._faults.append(InvalidSourceError(f"{shown(name)} is {one.kind}; name what it leads to"))
            return False
        if BACKUP_NAME.fullmatch(last):
            source.notes.append(f"{name} is an old backup, and no part of the present state; name it to migrate it")
            return False
        try:
            begin = beginning(f"{self._path}/{name}", len(SQLITE_MAGIC))
        except ProntoError as error:
            self._faults.append(error)
            return False
        if begin != SQLITE_MAGIC:
            if last.endswith(_ENDINGS):
                what = "no database of SQLite, or encrypted" if begin else "empty"
                self._fault(name, InvalidSourceError(f"{shown(name)} is {what}; leave it out with --skip {name}"))
            return False
        if not _is_text(name):
            self._faults.append(InvalidSourceError(f"the name of {shown(name)} is not UTF-8; migrate a renamed copy"))
            return False
        return True

    def _cursor(self, source: Source, name: str) -> Generator[Progress, None, None]:
        try:
            cursor = cursors.read(f"{self._path}/{name}", name)
            yield from self._find(source, cursor)
        except ProntoError as error:
            self._faults.append(error)

    def _find(self, source: Source, cursor: Cursor) -> Generator[Progress, None, None]:
        """Note which database a cursor file names; one outside of the folder is read, too."""
        above = os.path.dirname(os.path.dirname(f"{self._path}/{cursor.file}"))
        moved = [f"{self._path}/{name}" for name in _moved(cursor.database_path, self._names)]
        existing = dict.fromkeys(
            os.path.realpath(path) for path in (*moved, *_candidates(cursor, above, self._path)) if os.path.isfile(path)
        )
        inside = [path for path in existing if path.startswith(self._path + "/")]
        found = inside or list(existing)
        if not found:
            source.notes.append(f"{cursor.file} names {shown(cursor.database_path)}, which is not there")
            return
        if len(found) > 1:
            raise InvalidSourceError(
                f"cursor file {shown(cursor.file)} may mean {shown(found[0])} or {shown(found[1])}; "
                "leave it out with --skip"
            )
        path = found[0]
        name = path.removeprefix(self._path + "/")
        if self._is_skipped(name):
            return
        if all(database.name != name for database in source.databases) and name not in self._refused:
            # One that lies elsewhere, or that nothing but this file tells from other files.
            self._total_bytes += self._size_of(path)
            yield from self._take(source, name, path, os.path.basename(os.path.dirname(path)), is_top=False)
        source.cursors.setdefault(name, []).append(cursor)

    # A backup

    def _from_backup(self) -> Generator[Progress, None, Source]:
        file = os.path.basename(self._path)
        source = Source(path=self._path)
        self._total_bytes = self._size_of(self._path)
        found = yield from self._told(unpack(self._path, file, self._folder), file)
        assert found.source is not None
        source.files.append(found.source)
        named = BACKUP_NAME.fullmatch(file)
        for name, member in found.files.items():
            base = next((name.removesuffix(ending) for ending in SIDE_FILES if name.endswith(ending)), None)
            if base in found.files or cursors.is_cursor_file(name) or self._is_skipped(name):
                continue
            for ending in SIDE_FILES:
                if name + ending in found.files:
                    os.rename(
                        f"{self._folder.path}/{found.files[name + ending]}", f"{self._folder.path}/{member}{ending}"
                    )
            folder = os.path.basename(os.path.dirname(name)) or (named["database"] if named else "")
            self._settle(source, name, f"{self._folder.path}/{member}", folder, is_top="/" not in name)
        for name, member in found.files.items():
            if cursors.is_cursor_file(name) and not self._is_skipped(name):
                self._cursor_in_backup(source, name, f"{self._folder.path}/{member}", found.others)
        return source

    def _cursor_in_backup(self, source: Source, name: str, path: str, others: Collection[str]) -> None:
        """Note which database a cursor file in a backup names: one of the same backup, or none at all."""
        try:
            cursor = cursors.read(path, name)
        except ProntoError as error:
            self._faults.append(error)
            return
        above = "/" + os.path.dirname(os.path.dirname(name))
        known = {f"/{database.name}": database.name for database in source.databases}
        members = {f"/{one}": one for one in (*known.values(), *others)}
        found = {members[path] for path in map(os.path.normpath, _candidates(cursor, above, "/")) if path in members}
        found = found or set(_moved(cursor.database_path, list(members.values())))
        if len(found) > 1:
            self._faults.append(InvalidSourceError(f"cursor file {shown(name)} may mean {' or '.join(sorted(found))}"))
        elif not found:
            source.notes.append(f"{name} names {shown(cursor.database_path)}, which the backup does not hold")
        elif found & set(known.values()):
            source.cursors.setdefault(found.pop(), []).append(cursor)
        elif not found & self._refused:
            self._faults.append(InvalidSourceError(f"{shown(found.pop())}, which {shown(name)} names, is no database"))

    # What all have in common

    def _size_of(self, path: str) -> int:
        sizes = (stamp(path + ending) for ending in ("", *SIDE_FILES))
        return sum(found[2] for found in sizes if found is not None)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._folder.path).free
        if self._total_bytes > free:
            raise StorageFullError(
                f"{shown(self._folder.path)} has {free:,} bytes free, and a copy of the source takes "
                f"{self._total_bytes:,}; name another folder with --scratch"
            )

    def _told(self, work: Generator[int, None, T], name: str) -> Generator[Progress, None, T]:
        while True:
            try:
                self._done_bytes += next(work)
            except StopIteration as end:
                found: T = end.value
                return found
            yield Progress(
                what=name,
                done=self._copies,
                total=max(self._wanted, self._copies + 1),
                done_bytes=self._done_bytes,
                total_bytes=self._total_bytes,
            )

    def _take(
        self, source: Source, name: str, path: str, folder: str, *, is_top: bool
    ) -> Generator[Progress, None, None]:
        """Copy one database and test the copy; what is wrong with it is kept for the end."""
        copy = f"database-{self._copies}"
        source.paths.append(path)
        try:
            source.files += yield from self._told(copied(path, name, self._folder, copy), name)
        except StorageFullError:
            raise
        except ProntoError as error:
            self._fault(name, error)
            return
        self._settle(source, name, f"{self._folder.path}/{copy}", folder, is_top=is_top)

    def _fault(self, name: str, error: ProntoError) -> None:
        self._refused.add(name)
        self._faults.append(error)

    def _settle(self, source: Source, name: str, copy: str, folder: str, *, is_top: bool) -> None:
        self._copies += 1
        try:
            if beginning(copy, len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                raise InvalidSourceError(f"{shown(name)} is no database of SQLite, empty, or encrypted")
            tables = formats.settle(copy, name)
        except StorageFullError:
            raise
        except ProntoError as error:
            self._fault(name, error)
            return
        if tables.doubt is not None:
            source.notes.append(tables.doubt)
        for table in tables.unknown:
            source.notes.append(f"{name}: table {shown(table)} is not the old program's; it was left alone")
        source.databases.append(Database(name=name, copy=copy, tables=tables, folder=folder, is_top=is_top))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


_OLD_ROOT = "/odx/prontodb/"


def _candidates(cursor: Cursor, above: str, top: str) -> list[str]:
    """Return where the database of a cursor file may lie, the likeliest first.

    A relative path begins at the folder of its database or at the old root.
    """
    path = cursor.database_path
    return [path] if path.startswith("/") else [f"{above}/{path}", f"{top}/{path}"]


def _moved(path: str, names: Iterable[str]) -> list[str]:
    """Return those of the names that a path into an old root means, wherever that root lies now."""
    _, found, rest = f"/{path}".rpartition(_OLD_ROOT)
    if not found or not rest:
        return []
    rest = os.path.normpath(rest)
    known = list(names)
    return [rest] if rest in known else [name for name in known if f"/{name}".endswith(f"/{rest}")]

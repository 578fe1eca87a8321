"""The old program's cursor files: whose cursor names which database, and under which prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidSourceError, shown
from prontodb.model import strict_json
from prontodb.storage.foreign import content

if TYPE_CHECKING:
    from collections.abc import Mapping

CURSOR_ENDING = ".cursor"
CURSOR_FOLDER = "cursors"
DEFAULT = "default"
MAX_CURSOR_BYTES = 64 * 1024

_TEXTS = ("database_path", "default_project", "default_namespace", "meta_context", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """One cursor file. `cursor` None: its name leaves open what the cursor is called."""

    file: str
    """Its name below the source."""
    user: str
    cursor: str | None
    database_path: str
    meta: str | None
    project: str | None
    namespace: str | None


def is_cursor_file(name: str) -> bool:
    """True for the name of a cursor file below the source."""
    folders, _, last = name.rpartition("/")
    return last.endswith(CURSOR_ENDING) and last != CURSOR_ENDING and folders.rpartition("/")[2] == CURSOR_FOLDER


def read(path: str, name: str) -> Cursor:
    """Return what a cursor file says; `InvalidSourceError` when it says nothing that could be right."""
    try:
        fields = strict_json.loads(content(path, MAX_CURSOR_BYTES))
    except ValueError as error:
        raise _wrong(name, f"it is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise _wrong(name, "it is no JSON object")
    texts: dict[str, str | None] = {}
    for field in _TEXTS:
        value = fields.get(field)
        if value is not None and not isinstance(value, str):
            raise _wrong(name, f"field '{field}' must be text")
        texts[field] = value or None
    if not texts["database_path"]:
        raise _wrong(name, "field 'database_path' is missing")
    stem = name.rpartition("/")[2].removesuffix(CURSOR_ENDING)
    user, cursor = _whose(stem, texts)
    return Cursor(
        file=name,
        user=user,
        cursor=cursor,
        database_path=texts["database_path"],
        meta=texts["meta_context"],
        project=texts["default_project"],
        namespace=texts["default_namespace"],
    )


def _whose(stem: str, texts: Mapping[str, str | None]) -> tuple[str, str | None]:
    """Return user and cursor: the field `user` counts more than the name of the file.

    NAME.cursor is the default user's, NAME.USER.cursor another one's. A file with both, whose field says default or
    nothing against it, may be either: then the cursor stays open.
    """
    name, dot, last = stem.rpartition(".")
    user = texts["user"]
    if user is None:
        return (last, name) if dot and name else (DEFAULT, stem)
    if not dot or not name:
        return user, stem
    if last == user:
        return user, name
    return user, None if user == DEFAULT else name


def _wrong(name: str, reason: str) -> InvalidSourceError:
    return InvalidSourceError(f"cursor file {shown(name)} cannot be used: {reason}; mend it, or leave it out: --skip")

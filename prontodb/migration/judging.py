"""Old rows judged one by one: which key at which old place, with which moments, or why none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prontodb.errors import InvalidInputError
from prontodb.migration import ledger
from prontodb.migration.cursors import DEFAULT
from prontodb.migration.formats import MAX_TEXT_BYTES
from prontodb.migration.moments import NEVER, UNKNOWN, expiry_ms, moment_ms
from prontodb.migration.reasons import Reason
from prontodb.model.key import check_key

if TYPE_CHECKING:
    from prontodb.model.limits import Limits

TEXT, NULL = b"text", b"null"
CONTEXT_MARK = "__"
_Value = tuple[int, int, int, str]
"""Digest, flags, reason, detail."""
MAX_NAME = 256
"""Characters of an old user or cursor; a longer one cannot be mapped, neither."""
TOO_LONG = f"it, or a part of it, is longer than {MAX_TEXT_BYTES:,} bytes"
SHOWN_BYTES = 200
"""Of an old name that cannot be a key, so much is shown."""


class NotMigratedError(Exception):
    """This row cannot be migrated; never leaves the package. `old` is what it was called, as far as one can tell."""

    def __init__(self, reason: Reason, old: str, detail: str = "") -> None:
        self.reason, self.old, self.detail = reason, old, detail
        super().__init__(reason, detail)


class Judged(NamedTuple):
    """What a row is: `identity` tells old keys apart that become one key; it is empty where that is not in doubt."""

    key: str
    identity: str
    created: int
    updated: int
    expires: int
    digest: int
    flags: int
    reason: int
    """Why the value cannot come over, 0 when it can: the row may be the last of its key all the same."""
    detail: str


def shown_name(*parts: object) -> str:
    """Return what an old row was called, for a report: text as it is, bytes that are none escaped."""
    texts = (part.decode("utf-8", "backslashreplace") if isinstance(part, bytes) else str(part) for part in parts)
    return ".".join(texts)[:SHOWN_BYTES]


class Judge:
    """Judges the rows of both formats under one root's limits and one delimiter."""

    def __init__(self, limits: Limits, delimiter: str) -> None:
        self._limits, self._delimiter = limits, delimiter

    # The shared table: address = user.cursor.namespace.key

    def owner(self, kind: bytes, address: object) -> tuple[str, str, list[str]]:
        """Return user, cursor and the other parts of an address of the shared table."""
        if address is None and kind == TEXT:
            raise NotMigratedError(Reason.BAD_KEY, "", TOO_LONG)
        if kind != TEXT or not isinstance(address, bytes):
            raise NotMigratedError(Reason.NOT_TEXT, shown_name(address))
        try:
            text = address.decode()
        except UnicodeDecodeError:
            raise NotMigratedError(Reason.NOT_UTF8, shown_name(address)) from None
        parts = text.split(self._delimiter)
        if "" in parts:
            raise NotMigratedError(Reason.EMPTY_PART, text[:SHOWN_BYTES])
        if len(parts) < 4:
            raise NotMigratedError(Reason.FEW_PARTS, text[:SHOWN_BYTES])
        if max(len(parts[0]), len(parts[1])) > MAX_NAME:
            raise NotMigratedError(
                Reason.NO_ADDRESS, text[:SHOWN_BYTES], f"a user or cursor over {MAX_NAME} characters"
            )
        return parts[0], parts[1], parts[2:]

    def shared(
        self,
        parts: list[str],
        old: object,
        value_kind: bytes,
        value: object,
        value_bytes: int,
        created: object,
        updated: object,
    ) -> Judged:
        """Judge the rest of a row of the shared table; `parts` are those behind user and cursor."""
        if self._delimiter != "." and any("." in part for part in parts):
            raise NotMigratedError(Reason.DOT_IN_PART, shown_name(old))
        flags = ledger.MORE_PARTS if len(parts) > 2 else 0
        kept = _without_defaults(parts)
        # Of three parts, those without the defaults are what four parts in all would have said as well.
        identity = "\x1f".join(parts) if len(parts) > 2 and kept is not parts else ""
        key = self._key(".".join(kept), old)
        return self._timed(key, identity, created, updated, None, self._value(value_kind, value, value_bytes), flags)

    # The Rust program's table: project, namespace, key, context

    def rust(
        self,
        project: str,
        named: tuple[bytes, object, bytes, object, bytes, object],
        value_kind: bytes,
        value: object,
        value_bytes: int,
        times: tuple[object, object, object],
    ) -> Judged:
        """Judge a row of the Rust program; `named` are kind and bytes of namespace, key and context."""
        old = (project, named[1], named[3])
        namespace, key = text_of(*named[:2], *old), text_of(*named[2:4], *old)
        has_context = named[4] != NULL
        context = text_of(*named[4:], *old) if has_context else ""
        if not (project and namespace and key) or (has_context and not context):
            raise NotMigratedError(Reason.EMPTY_PART, shown_name(*old))
        name = key + CONTEXT_MARK + context if context else key
        flags, identity = 0, ""
        if "." in project or "." in namespace or "." in name:
            # What these parts are of can only be told from the row itself: all of it is the key.
            flags, path = ledger.DOTS_INSIDE, f"{project}.{namespace}.{name}"
        elif project != DEFAULT:
            path = f"{project}.{namespace}.{name}"
        else:
            path = name if namespace == DEFAULT else f"{namespace}.{name}"
        if flags or CONTEXT_MARK in key or CONTEXT_MARK in context:
            identity = "\x1f".join((project, namespace, key, context))
        found = self._value(value_kind, value, value_bytes)
        return self._timed(self._key(path, *old), identity, *times, found, flags)

    # What both have in common

    def _key(self, path: str, *old: object) -> str:
        if path.isascii() and path.isprintable() and len(path) <= self._limits.max_key_bytes:
            return path
        try:
            return check_key(path, self._limits.max_key_bytes)
        except InvalidInputError as error:
            raise NotMigratedError(Reason.BAD_KEY, shown_name(*old), str(error)) from None

    def _value(self, kind: bytes, value: object, size: int) -> _Value:
        """Return a digest of a value that is good for this run, flags, and why it cannot come over, if it cannot.

        A value over the limit was not even read.
        """
        flags = 0
        if size > self._limits.max_value_bytes:
            return 0, 0, Reason.VALUE_TOO_LARGE, f"it has {size:,} bytes"
        if isinstance(value, bytes):
            flags = 0 if kind == TEXT else ledger.WAS_BLOB
        elif isinstance(value, int):
            value, flags = b"%d" % value, ledger.WAS_NUMBER
        else:
            return 0, 0, Reason.VALUE_NOT_TEXT, ""
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return hash(value), 0, Reason.VALUE_NOT_UTF8, ""
        return hash(value), flags, 0, ""

    def _timed(
        self,
        key: str,
        identity: str,
        created: object,
        updated: object,
        expires: object,
        value: _Value,
        flags: int,
    ) -> Judged:
        digest, more, reason, detail = value
        flags |= more
        created_ms, updated_ms = moment_ms(created), moment_ms(updated)
        if created_ms == UNKNOWN or updated_ms == UNKNOWN:
            flags |= ledger.TIME_UNKNOWN
        expires_ms = NEVER
        if expires is not None:
            expires_ms, is_known = expiry_ms(expires)
            flags |= 0 if is_known else ledger.EXPIRY_UNKNOWN
        return Judged(key, identity, created_ms, updated_ms, expires_ms, digest, flags, reason, detail)


def text_of(kind: bytes, stored: object, *old: object) -> str:
    """Return stored text; raises when it is none, or not UTF-8."""
    if stored is None and kind == TEXT:
        raise NotMigratedError(Reason.BAD_KEY, shown_name(*old), TOO_LONG)
    if kind != TEXT or not isinstance(stored, bytes):
        raise NotMigratedError(Reason.NOT_TEXT, shown_name(*old))
    try:
        return stored.decode()
    except UnicodeDecodeError:
        raise NotMigratedError(Reason.NOT_UTF8, shown_name(*old)) from None


def _without_defaults(parts: list[str]) -> list[str]:
    """Drop what only repeats the default project and namespace, as the path grammar does (`model/path.py`)."""
    if parts[0] != DEFAULT or len(parts) > 3:
        return parts
    kept = parts
    while len(kept) > 1 and kept[0] == DEFAULT:
        kept = kept[1:]
    return kept


def namespace_of(project: str, namespace: str) -> str:
    """Return the namespace of the keys that are stored below an old project and namespace."""
    if project != DEFAULT or "." in namespace:
        return f"{project}.{namespace}"
    return "" if namespace == DEFAULT else namespace

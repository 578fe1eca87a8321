"""The export format (a head, a JSON line per entry, an end with the count) and the strict reading of it.

Hand-made lines, with neither head nor end, need `key` and `value` only; `ttl` or `expires_at` may stand
beside them.
"""

from __future__ import annotations

import json
import re

from prontodb.errors import InvalidImportError, InvalidInputError, NewerFormatError, shown
from prontodb.model import strict_json
from prontodb.model.entry import MAX_MOMENT_MS
from prontodb.model.key import check_key, check_value
from prontodb.model.operation import FOREVER, INHERIT, Op
from prontodb.model.ttl import lifetime_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.entry import Entry
    from prontodb.model.limits import Limits

FORMAT = 1

MAX_IMPORT_ENTRIES = 10_000_000
"""Entries in one import: their keys are remembered, to find one that stands twice."""

MARK = "prontodb"
"""The field that tells a head or an end from an entry."""

_EXPORT, _END = "export", "end"
_REQUIRED = ("key", "value")
_MOMENTS = ("created_at", "updated_at", "expires_at")
_FIELDS = frozenset({*_REQUIRED, *_MOMENTS, "revision", "ttl"})
_MAX_REVISION = 2**63 - 1
# JSON writes a byte as up to six characters (\u0000); the rest of a line is short.
_CHARACTERS_A_BYTE = 6
_LINE_EXTRA = 4_096

# An object of a few plain fields. Judged before it is parsed, so that a long line cannot become a structure
# many times its size: outside of strings there is little room, and none for a list or an object. Possessive:
# no way back, so the time is linear whatever the line holds.
_FLAT = re.compile(r'\s*+\{[^"\[\]{}]{0,999}+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]{0,999}+){0,64}+\}\s*+', re.DOTALL)
_BLANKS = " \t\r\n"

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode  # ASCII, so that a line is a line


def head(address: Address) -> str:
    """Return the first line of an export."""
    return _to_json({MARK: _EXPORT, "format": FORMAT, "address": str(address)})


def line_of(entry: Entry) -> str:
    """Return the line of an entry; moments are integer milliseconds UTC, `expires_at` null for ever."""
    return _to_json(
        {
            "key": entry.key,
            "value": entry.value,
            "created_at": entry.created_at_ms,
            "updated_at": entry.updated_at_ms,
            "expires_at": entry.expires_at_ms,
            "revision": entry.revision,
        }
    )


def end(count: int) -> str:
    """Return the last line of an export of `count` entries; a file without it was cut."""
    return _to_json({MARK: _END, "count": count})


def max_line_bytes(limits: Limits) -> int:
    """Return how long the line of the largest entry can be."""
    return _CHARACTERS_A_BYTE * (limits.max_key_bytes + limits.max_value_bytes) + _LINE_EXTRA


class LineReader:
    """Reads the lines of one import in their order: `feed` each, then `finish`.

    Both raise `InvalidImportError` with the number of the line, and never show a value; a file of a newer
    format raises `NewerFormatError`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._most = limits, max_line_bytes(limits)
        self._number = 0
        self._keys: set[str] = set()
        self._headed = self._ended = False

    def feed(self, line: bytes | str) -> Op | None:
        """Return the operation that stores the entry of a line; None for a head, an end or an empty line."""
        self._number += 1
        if not isinstance(line, (str, bytes)):
            raise self._wrong(f"its type is {type(line).__name__}, not text or bytes")
        if len(line) > self._most:
            raise self._wrong(f"it is longer than {self._most:,} bytes, the most that max_value_bytes allows")
        try:
            text = (line if isinstance(line, str) else line.decode("utf-8")).strip(_BLANKS)
        except UnicodeDecodeError as error:
            raise self._wrong(f"byte {error.start + 1} is not UTF-8") from None
        if not text:
            return None
        if self._ended:
            raise self._wrong("it stands after the end of the export; import one file at a time")
        if not _FLAT.fullmatch(text):
            raise self._wrong("it is no JSON object of plain fields, such as an export's, or it is cut")
        try:
            fields = strict_json.loads(text)
        except ValueError as error:
            raise self._wrong(f"it is not valid JSON: {error}") from None
        assert isinstance(fields, dict)  # by _FLAT
        if MARK in fields:
            self._mark(fields)
            return None
        try:
            return self._entry(fields)
        except InvalidImportError:
            raise
        except InvalidInputError as error:
            raise self._wrong(str(error)) from None

    def finish(self) -> None:
        """Judge the whole: an export must have its end, and nothing at all is no import."""
        if self._headed and not self._ended:
            raise InvalidImportError(
                f"the export is cut after {len(self._keys):,} entries: its last line is missing; export again"
            )
        if not self._headed and not self._keys:
            raise InvalidImportError("there is nothing to import: no line with a key and a value")

    def _mark(self, fields: dict[str, object]) -> None:
        kind = fields[MARK]
        if kind == _EXPORT:
            version = self._whole(fields, "format", 1, _MAX_REVISION)
            if version > FORMAT:
                raise NewerFormatError("the export", version, FORMAT)
            if self._headed or self._keys:
                raise self._wrong("it is the head of an export, which may only stand first; import one file at a time")
            self._headed = True
        elif kind == _END:
            if not self._headed:
                raise self._wrong("it is the end of an export whose head is missing; import the whole file")
            count = self._whole(fields, "count", 0, _MAX_REVISION)
            if count != len(self._keys):
                raise self._wrong(
                    f"the export had {count:,} entries, but {len(self._keys):,} are here; export it again"
                )
            self._ended = True
        else:
            raise self._wrong(f"field '{MARK}' must be '{_EXPORT}' or '{_END}'")

    def _entry(self, fields: dict[str, object]) -> Op:
        strange = next((name for name in fields if name not in _FIELDS), None)
        if strange is not None:
            raise self._wrong(f"field {shown(strange)} is unknown; there are {', '.join(sorted(_FIELDS))}")
        for name in _REQUIRED:
            if name not in fields:
                raise self._wrong(f"field '{name}' is missing")
        key = check_key(fields["key"], self._limits.max_key_bytes)
        value = check_value(fields["value"], self._limits.max_value_bytes)
        # What the store assigns itself is checked, so that a damaged file is noticed, and then left out.
        for name in ("created_at", "updated_at"):
            if name in fields:
                self._whole(fields, name, 0, MAX_MOMENT_MS)
        if "revision" in fields:
            self._whole(fields, "revision", 1, _MAX_REVISION)
        lifetime, expires_at_ms = self._lifetime(fields)
        if key in self._keys:
            raise self._wrong(f"key {shown(key)} stands twice in this import")
        if len(self._keys) >= MAX_IMPORT_ENTRIES:
            raise self._wrong(f"an import holds {MAX_IMPORT_ENTRIES:,} entries at most; split it")
        self._keys.add(key)
        return Op(key, value, lifetime, None, expires_at_ms)

    def _lifetime(self, fields: dict[str, object]) -> tuple[int, int | None]:
        """Return ttl_ms and expires_at_ms: null is for ever, a line that says nothing takes the default."""
        if "expires_at" not in fields:
            return lifetime_ms(fields.get("ttl")), None
        if "ttl" in fields:
            raise self._wrong("it has both ttl and expires_at; leave one out")
        if fields["expires_at"] is None:
            return FOREVER, None
        return INHERIT, self._whole(fields, "expires_at", 0, MAX_MOMENT_MS)

    def _whole(self, fields: dict[str, object], name: str, lowest: int, highest: int) -> int:
        number = fields.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or not lowest <= number <= highest:
            raise self._wrong(f"field '{name}' must be a whole number from {lowest:,} to {highest:,}")
        return number

    def _wrong(self, reason: str) -> InvalidImportError:
        return InvalidImportError(f"line {self._number:,} cannot be imported: {reason}")

"""What a backup says of itself: its files with their sizes and hashes, and what each keystore was at that instant.

The manifest is written last; a backup without a whole one does not exist. Its own hash stands in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from prontodb.engine.sqlite.digest import HASH_BYTES, Digest
from prontodb.engine.sqlite.schema import CHAIN_BYTES, INCARNATION_BYTES
from prontodb.errors import CorruptError, InvalidAddressError, NewerFormatError, shown
from prontodb.model import strict_json
from prontodb.model.address import Address
from prontodb.model.history import Mark
from prontodb.model.secret import parsed_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FORMAT = 1
MANIFEST_FILE = "manifest.json"
MAX_BYTES = 256 * 1024 * 1024
"""Of a manifest: half a million addresses."""

ROOT_BYTES = 8
LATEST_MS = 10**14
"""The year 5138. A backup that says to be later would be the newest for ever, and no new one could be newer."""

FULL, INCREMENTAL = "full", "incremental"
SNAPSHOT, SEGMENT = "snapshot", "segment"
ENDINGS = {SNAPSHOT: ".db", SEGMENT: ".jsonl.zst"}

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}", re.ASCII)
_SHA256_BYTES = 32

_to_json = json.JSONEncoder().encode


def is_backup_id(text: object) -> bool:
    """True for what a backup can be called: its time in UTC, then something random."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one backup holds of one address: a whole snapshot, or a segment with what changed since `parent`'s piece.

    The state of the keystore at that instant: `incarnation`, `revision`, `chain` (the audit head), `floor`, `entries`,
    `digest`; `faults` is in how many places its snapshot contradicted itself. Sizes in bytes; `raw_bytes` is a segment
    unpacked. Moments in milliseconds UTC; hashes in hex.
    """

    address: str
    kind: str
    file: str
    size_bytes: int
    raw_bytes: int
    sha256: str
    parent: str | None
    since: int
    incarnation: str
    revision: int
    floor: int
    chain: str
    entries: int
    digest: str
    faults: int
    at_ms: int
    created_at_ms: int | None
    labels: Mapping[str, str]
    encryption: str | None = None
    """The name of the secret that its file is sealed with; None for a plain one."""

    @property
    def mark(self) -> Mark:
        """The place in the keystore's history."""
        return Mark(self.incarnation, self.revision, self.chain)

    @property
    def content(self) -> Digest:
        """The digest of the entries."""
        return Digest.of_hex(self.digest, self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup. `root` is random and the same for all backups of a root.

    `scope` is whose it is: '' everybody's, else a user, else an address.

    An incremental backup holds pieces of what changed since `parent`; the other addresses are as they were there, but
    for those that are `gone`. `failed` are those that could not be read, with the reason: they, too, are as they were
    in the parent, if there.
    """

    id: str
    root: str
    kind: str
    scope: str
    parent: str | None
    created_at_ms: int
    ended_at_ms: int
    prontodb: str
    sqlite: str
    pieces: tuple[Piece, ...]
    gone: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    unchanged: int

    @property
    def size_bytes(self) -> int:
        """The bytes of its files, without the manifest."""
        return sum(piece.size_bytes for piece in self.pieces)

    def encode(self) -> bytes:
        """Return the manifest as it stands in its file: a piece a line, and at the end the hash of all before it."""
        head: dict[str, object] = {"format": FORMAT} | {name: getattr(self, name) for name in _names(Manifest)}
        del head["pieces"]
        pieces = ",\n".join(_to_json(_fields_of(piece)) for piece in self.pieces)
        body = f'{_to_json(head)[:-1]},\n"pieces": [\n{pieces}],\n'.encode()
        return body + _seal(body)


def _seal(body: bytes) -> bytes:
    return b'"sha256": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


_SEAL_BYTES = len(_seal(b""))


def decode(data: bytes, place: str) -> Manifest:
    """Return the manifest in `data`; `CorruptError` for anything but what `encode` makes, `NewerFormatError`."""
    try:
        found = strict_json.loads(data)
    except ValueError as error:
        raise CorruptError(f"{place} is no manifest: {error}") from error
    reader = _Reader(found, place)
    version = reader.whole("format")
    if version > FORMAT:
        raise NewerFormatError(place, version, FORMAT)
    reader.has_only({"format", "sha256", *_names(Manifest)})
    body = data[:-_SEAL_BYTES]
    if data != body + _seal(body):
        raise CorruptError(f"{place} is not as it was written: its own hash is another")
    return _manifest(reader)


def _fields_of(piece: Piece) -> dict[str, object]:
    """Return the fields of a piece; what is not encrypted says nothing of it, as before there was encryption."""
    found = {name: getattr(piece, name) for name in _names(Piece)}
    if piece.encryption is None:
        del found["encryption"]
    return found


def _names(kind: type[Manifest | Piece]) -> list[str]:
    return [field.name for field in fields(kind)]


def _manifest(reader: _Reader) -> Manifest:
    failed = [reader.texts(item, 2) for item in reader.items("failed")]
    manifest = Manifest(
        id=reader.text("id"),
        root=reader.hexadecimal("root", ROOT_BYTES),
        kind=reader.choice("kind", (FULL, INCREMENTAL)),
        scope=reader.text("scope"),
        parent=reader.maybe_text("parent"),
        created_at_ms=reader.whole("created_at_ms"),
        ended_at_ms=reader.whole("ended_at_ms"),
        prontodb=reader.text("prontodb"),
        sqlite=reader.text("sqlite"),
        pieces=tuple(_piece(_Reader(item, reader.place)) for item in reader.items("pieces")),
        gone=tuple(reader.texts(reader.items("gone"))),
        failed=tuple((address, reason) for address, reason in failed),
        unchanged=reader.whole("unchanged"),
    )
    addresses = [piece.address for piece in manifest.pieces]
    files = {piece.file for piece in manifest.pieces}
    parents = (manifest.parent, *(piece.parent for piece in manifest.pieces))
    sound = (
        is_backup_id(manifest.id)
        and all(parent is None or is_backup_id(parent) for parent in parents)
        and (manifest.parent is None) == (manifest.kind == FULL)
        and _is_scope(manifest.scope)
        and all(_is_scope(name, whole=True) for name in (*manifest.gone, *(name for name, _ in manifest.failed)))
        and len(set(addresses)) == len(addresses) == len(files)
        and all(piece.kind == SNAPSHOT for piece in manifest.pieces if manifest.kind == FULL)
    )
    if not sound or manifest.created_at_ms > LATEST_MS:
        raise reader.wrong("it contradicts itself")
    return manifest


def _is_scope(text: str, *, whole: bool = False) -> bool:
    """True for a user or an address, and unless `whole` for the empty text, which is everybody."""
    try:
        return (text == "" and not whole) or bool(Address.parse(text))
    except InvalidAddressError:
        return False


def _piece(reader: _Reader) -> Piece:
    encrypted = reader.has("encryption")
    reader.has_only(set(_names(Piece)) - (set() if encrypted else {"encryption"}))
    address, kind = reader.text("address"), reader.choice("kind", (SNAPSHOT, SEGMENT))
    try:
        place = Address.parse(address)
    except InvalidAddressError as error:
        raise reader.wrong(str(error)) from error
    labels = reader.mapping("labels")
    piece = Piece(
        address=address,
        kind=kind,
        file=reader.text("file"),
        size_bytes=reader.whole("size_bytes"),
        raw_bytes=reader.whole("raw_bytes"),
        sha256=reader.hexadecimal("sha256", _SHA256_BYTES),
        parent=reader.maybe_text("parent"),
        since=reader.whole("since"),
        incarnation=reader.hexadecimal("incarnation", INCARNATION_BYTES),
        revision=reader.whole("revision"),
        floor=reader.whole("floor"),
        chain=reader.hexadecimal("chain", CHAIN_BYTES),
        entries=reader.whole("entries"),
        digest=reader.hexadecimal("digest", HASH_BYTES),
        faults=reader.whole("faults"),
        at_ms=reader.whole("at_ms"),
        created_at_ms=None if reader.is_null("created_at_ms") else reader.whole("created_at_ms"),
        labels=labels,
        encryption=reader.text("encryption") if encrypted else None,
    )
    # A name of another form could lead out of the folder.
    snapshot = kind == SNAPSHOT
    sound = piece.file == file_name(place, kind) and (piece.parent is None) == snapshot
    sound = sound and (piece.encryption is None or parsed_name(piece.encryption) is not None)
    if not sound or piece.floor > (piece.revision if snapshot else piece.since) or piece.since > piece.revision:
        raise reader.wrong("it contradicts itself")
    return piece


def file_name(address: Address, kind: str) -> str:
    """Return what the file of an address is called in a backup; `@` stands in no name."""
    return f"{address.user}@{address.cursor}{ENDINGS[kind]}"


class _Reader:
    """The fields of one JSON object, each checked for its type when it is read."""

    def __init__(self, found: object, place: str) -> None:
        self.place = place
        if not isinstance(found, dict):
            raise self.wrong("something in it is no JSON object")
        self._fields: dict[str, Any] = found

    def wrong(self, reason: str) -> CorruptError:
        return CorruptError(f"{self.place} is no manifest: {reason}")

    def _field(self, name: str, kind: type) -> Any:
        found = self._fields.get(name)
        if type(found) is not kind:
            raise self.wrong(f"field {shown(name)} is missing or of another type")
        return found

    def has_only(self, names: set[str]) -> None:
        if self._fields.keys() != names:
            odd = next(iter(self._fields.keys() ^ names))
            raise self.wrong(f"field {shown(odd)} is missing, or unknown")

    def has(self, name: str) -> bool:
        return name in self._fields

    def is_null(self, name: str) -> bool:
        return name in self._fields and self._fields[name] is None

    def text(self, name: str) -> str:
        return str(self._field(name, str))

    def maybe_text(self, name: str) -> str | None:
        return None if self.is_null(name) else self.text(name)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        found = self.text(name)
        if found not in allowed:
            raise self.wrong(f"field {shown(name)} must be one of {', '.join(allowed)}")
        return found

    def whole(self, name: str) -> int:
        found = self._field(name, int)
        if not 0 <= found < 2**63:
            raise self.wrong(f"field {shown(name)} is out of range")
        return int(found)

    def hexadecimal(self, name: str, size: int) -> str:
        found = self.text(name)
        try:
            right = len(found) == 2 * size and bytes.fromhex(found).hex() == found
        except ValueError:
            right = False
        if not right:
            raise self.wrong(f"field {shown(name)} is not {size} bytes in hex")
        return found

    def items(self, name: str) -> list[Any]:
        found: list[Any] = self._field(name, list)
        return found

    def texts(self, found: object, count: int | None = None) -> list[str]:
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise self.wrong("a list in it holds something else than text")
        if count is not None and len(found) != count:
            raise self.wrong("a list in it is of another length")
        return found

    def mapping(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self._field(name, dict)
        self.texts(list(found.values()))
        return found

"""metadata.json, beside each keystore: what people and backups ask about an address, and no transaction."""

from __future__ import annotations

import json

from prontodb.engine.sqlite.schema import FORMAT
from prontodb.errors import CorruptError, NewerFormatError, shown
from prontodb.model.layout import METADATA_FILE
from prontodb.model.value import Value
from prontodb.storage.files import read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

    from prontodb.storage.files import Folder

_FIELDS = frozenset({"format", "created_at", "encryption", "labels"})


class Metadata(Value):
    """What metadata.json says: `encryption` is the name of its secret (see `ciphers`), None when it has none."""

    __slots__ = ("created_at_ms", "encryption", "labels")

    created_at_ms: int
    encryption: str | None
    labels: Mapping[str, str]

    def __init__(self, created_at_ms: int, encryption: str | None, labels: Mapping[str, str]) -> None:
        self._fill(created_at_ms, encryption, labels)


def image(created_at_ms: int, labels: Mapping[str, str] | None = None, encryption: str | None = None) -> bytes:
    """Return an address's metadata.json; `encryption` is the name of its secret."""
    pairs = dict(labels or {})
    fields = {"format": FORMAT, "created_at": created_at_ms, "encryption": encryption, "labels": pairs}
    return (json.dumps(fields, indent=2) + "\n").encode()


def read(folder: Folder) -> Metadata:
    """Return the metadata in an address's folder.

    Raises `CorruptError` when it is missing or not what we write, `NewerFormatError` when a newer one wrote it.
    """
    path = f"{folder.path}/{METADATA_FILE}"
    if folder.stat(METADATA_FILE) is None:
        raise CorruptError(f"{shown(path)} is missing; the keystore works without it")
    fields = read_json(folder, METADATA_FILE)
    if not isinstance(fields, dict) or not is_moment(fields.get("format")):
        raise _broken(path, "field 'format' must be a whole number")
    if fields["format"] > FORMAT:
        raise NewerFormatError(shown(path), fields["format"], FORMAT)
    if fields["format"] != FORMAT:
        raise _broken(path, f"format {fields['format']} never existed")
    if fields.keys() != _FIELDS:
        raise _broken(path, f"it does not hold exactly the fields {', '.join(sorted(_FIELDS))}")
    if not is_moment(fields["created_at"]):
        raise _broken(path, "field 'created_at' must be a moment in milliseconds")
    if not isinstance(fields["encryption"], str | None):
        raise _broken(path, "field 'encryption' must be text or null")
    labels = fields["labels"]
    if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
        raise _broken(path, "field 'labels' must hold text under each name")
    return Metadata(fields["created_at"], fields["encryption"], labels)


def is_moment(number: object) -> TypeGuard[int]:
    """True for a whole number that can be a moment, or a format."""
    # Beyond 64 bits nothing of ours could store it.
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**63


def _broken(path: str, reason: str) -> CorruptError:
    return CorruptError(f"{shown(path)} is damaged: {reason}; the keystore works without it")

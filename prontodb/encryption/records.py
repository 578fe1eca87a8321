"""Key records, `keys/ID.json`: the keys of one keystore, sealed with a key that lies elsewhere.

A record outlives rekeyings: older generations stay in it for the backups of their time, until they are dropped.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.encryption.sealing import WrongKeyError, seal, unseal
from prontodb.encryption.sources import KINDS, PASSPHRASE, Stretch, fingerprint
from prontodb.errors import CorruptError, InvalidAddressError, NewerFormatError, SecretError, shown
from prontodb.model import strict_json
from prontodb.model.address import Address
from prontodb.model.secret import ID_BYTES, SECRET_BYTES, Secret, is_record_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from prontodb.encryption.sources import KeySource

FORMAT = 1
MAX_GENERATION = 999_999
MAX_RECORD_BYTES = 1024 * 1024
"""Of a record's file; one that would be larger is not written."""
MAX_SECRETS = 5_000
"""Generations in a record: some 700 KB. Forgetting older ones makes room."""
_FIELDS = {"format", "id", "address", "also", "created_at", "wrapped_by", "sealed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One key record as it stands in its file. `address` says whose it is: nobody else is let in with it.

    `also` is its other name while it is renamed: a kill then leaves it either one's. `created_at_ms` says when it was
    made, `kind` is the kind of source whose key it is sealed with, `check` that key's fingerprint.
    """

    id: str
    address: str
    also: str | None
    created_at_ms: int
    kind: str
    check: str
    stretch: Stretch | None
    sealed: bytes

    @property
    def _context(self) -> bytes:
        return f"prontodb key record {FORMAT} {self.id}".encode()

    def encode(self) -> bytes:
        """Return the record as it stands in its file."""
        wrapped_by = {
            "kind": self.kind,
            "check": self.check,
            "stretch": None if self.stretch is None else self.stretch.as_dict(),
        }
        fields = {
            "format": FORMAT,
            "id": self.id,
            "address": self.address,
            "also": self.also,
            "created_at": self.created_at_ms,
            "wrapped_by": wrapped_by,
            "sealed": base64.b64encode(self.sealed).decode(),
        }
        return (json.dumps(fields, indent=2) + "\n").encode()

    def opened(self, source: KeySource) -> Keys:
        """Return the keys; `SecretError` when the source brings another key than the record was sealed with."""
        if (self.kind == PASSPHRASE) != (source.kind == PASSPHRASE):
            raise SecretError(f"{self} is sealed with a {self.kind}; what was brought is a {source.kind}")
        key = source.wrapping_key(self.stretch)
        try:
            return Keys.decode(self.id, unseal(key, self.sealed, self._context))
        except WrongKeyError:
            other = fingerprint(key) != self.check
            what = "it was sealed with another one" if other else "the record is not as it was written"
            raise SecretError(f"wrong key or damaged: {self} does not open; {what}. Nothing was changed") from None

    def __str__(self) -> str:
        return f"key record {self.id} of {self.address}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Whose it is: one address, or two while it is renamed."""
        return (self.address,) if self.also is None else (self.address, self.also)

    def renamed(self, address: str, also: str | None) -> Record:
        """Return the record with another address, and its other name until that is settled."""
        return replace(self, address=address, also=also)

    def resealed(self, keys: Keys, source: KeySource, stretch: Stretch | None) -> Record:
        """Return the record with these keys, sealed with what a source brings."""
        anew = sealed(keys, self.address, self.created_at_ms, source, stretch)
        return replace(anew, also=self.also)

    def is_sealed_by(self, source: KeySource) -> bool:
        """True when the source brings the key that it is sealed with."""
        if (self.kind == PASSPHRASE) != (source.kind == PASSPHRASE):
            return False
        return fingerprint(source.wrapping_key(self.stretch)) == self.check


def sealed(keys: Keys, address: str, created_at_ms: int, source: KeySource, stretch: Stretch | None) -> Record:
    """Return a record of keys, sealed with what a source brings; `stretch` is used for a passphrase alone."""
    if source.kind != PASSPHRASE:
        stretch = None
    elif stretch is None:
        stretch = Stretch.new()
    key = source.wrapping_key(stretch)
    empty = Record(
        id=keys.record,
        address=address,
        also=None,
        created_at_ms=created_at_ms,
        kind=source.kind,
        check=fingerprint(key),
        stretch=stretch,
        sealed=b"",
    )
    return replace(empty, sealed=seal(key, keys.encode(), empty._context))


def decode(data: bytes, place: str, record: str | None = None) -> Record:
    """Return the record in a file's bytes; `CorruptError` for anything but what `encode` makes, `NewerFormatError`.

    `record`: the id that it must have.
    """
    try:
        fields = strict_json.loads(data)
    except ValueError as error:
        raise CorruptError(f"{place} is no key record: {error}") from error
    if not isinstance(fields, dict) or type(fields.get("format")) is not int:
        raise _broken(place, "field 'format' must be a whole number")
    if fields["format"] > FORMAT:
        raise NewerFormatError(place, fields["format"], FORMAT)
    try:
        found = _record(fields)
    except (InvalidAddressError, ValueError, TypeError, LookupError, AttributeError, binascii.Error) as error:
        raise _broken(place, str(error) or "a field of it is of another type") from error
    if record not in (None, found.id):
        raise _broken(place, f"it is the record {shown(found.id)}")
    return found


def _record(fields: dict[str, Any]) -> Record:
    wrapped_by = fields["wrapped_by"]
    if fields.keys() != _FIELDS or wrapped_by.keys() != {"kind", "check", "stretch"} or fields["format"] != FORMAT:
        raise ValueError("it has other fields than a key record")
    also = fields["also"]
    texts = (fields["id"], fields["address"], fields["sealed"], wrapped_by["check"], also or "")
    if not all(isinstance(text, str) and text.isprintable() for text in texts) or wrapped_by["kind"] not in KINDS:
        raise ValueError("a field of it is of another type")
    if not is_record_id(fields["id"]) or type(fields["created_at"]) is not int or fields["created_at"] < 0:
        raise ValueError("its id or moment is none of ours")
    for address in (fields["address"], also):
        Address.parse(address or fields["address"])
    stretch = None if wrapped_by["stretch"] is None else Stretch.from_dict(wrapped_by["stretch"])
    if (stretch is None) == (wrapped_by["kind"] == PASSPHRASE):
        raise ValueError("a passphrase goes with its stretching, and nothing else does")
    return Record(
        id=fields["id"],
        address=fields["address"],
        also=also,
        created_at_ms=fields["created_at"],
        kind=wrapped_by["kind"],
        check=wrapped_by["check"],
        stretch=stretch,
        sealed=base64.b64decode(fields["sealed"], validate=True),
    )


def _broken(place: str, reason: str) -> CorruptError:
    return CorruptError(f"{place} is no key record: {reason}")


class Keys:
    """The keys in a record: one data key per generation, and the chain key of them all."""

    __slots__ = ("_chain_key", "_data_keys", "record")

    def __init__(self, record: str, data_keys: Mapping[int, bytes], chain_key: bytes) -> None:
        self.record, self._data_keys, self._chain_key = record, dict(data_keys), chain_key

    @classmethod
    def new(cls) -> Keys:
        """Return random keys under a random id."""
        return cls(os.urandom(ID_BYTES).hex(), {1: os.urandom(SECRET_BYTES)}, os.urandom(SECRET_BYTES))

    @property
    def generations(self) -> list[int]:
        """The generations there are, the newest last."""
        return sorted(self._data_keys)

    def secret(self, generation: int | None = None) -> Secret:
        """Return one generation, the newest when none is named; `SecretError` when it was dropped."""
        number = self.generations[-1] if generation is None else generation
        if number not in self._data_keys:
            raise SecretError(f"generation {number} of key record {self.record} was dropped; nothing opens it any more")
        return Secret(self.record, number, self._data_keys[number], self._chain_key)

    def with_next(self, spare: int = 0) -> Keys:
        """Return these and a new generation; `SecretError` when there are as many as a record holds, and `spare`."""
        number = self.generations[-1] + 1
        if len(self._data_keys) >= MAX_SECRETS + spare:
            raise SecretError(
                f"key record {self.record} holds {MAX_SECRETS:,} secrets, as many as one can; forget the older ones: "
                "prontodb address rekey ADDRESS --drop-older"
            )
        if number > MAX_GENERATION:
            raise SecretError(
                f"key record {self.record} has no generation left; decrypt the address and encrypt it again"
            )
        return Keys(self.record, {**self._data_keys, number: os.urandom(SECRET_BYTES)}, self._chain_key)

    def with_only(self, generation: int) -> Keys:
        """Return one generation alone."""
        return Keys(self.record, {generation: self.secret(generation).data_key}, self._chain_key)

    def holds(self, other: Keys) -> bool:
        """True when every key of the other is here, too."""
        mine = self._data_keys.items()
        return self.record == other.record and self._chain_key == other._chain_key and other._data_keys.items() <= mine

    def encode(self) -> bytes:
        """Return the keys as they are sealed."""
        data_keys = {str(number): key.hex() for number, key in self._data_keys.items()}
        return json.dumps({"chain_key": self._chain_key.hex(), "data_keys": data_keys}).encode()

    @classmethod
    def decode(cls, record: str, data: bytes) -> Keys:
        """Return what `encode` made; what opens is ours, so nothing else is expected."""
        fields: Any = strict_json.loads(data)
        data_keys = {int(number): bytes.fromhex(key) for number, key in fields["data_keys"].items()}
        return cls(record, data_keys, bytes.fromhex(fields["chain_key"]))

    def __repr__(self) -> str:
        return f"Keys({self.record}, generations {self.generations})"

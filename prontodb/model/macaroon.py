"""Macaroons (Birgisson and others, NDSS 2014) with first-party caveats, in libmacaroons' binary format, version 2.

A chain of HMAC-SHA256: whoever holds one can add a caveat, since the signature so far is the key of the next; nobody
can take one away, change one or put them in another order. What a caveat means is not known here.
"""

from __future__ import annotations

import hmac

from prontodb.model.value import Value

MAX_CAVEATS = 64
MAX_FIELD_BYTES = 4_096
MAX_BYTES = 16_384
"""Of a whole macaroon; the longest key is 1,024 bytes, and only a prefix is that long."""

_VERSION = 2
_END, _LOCATION, _IDENTIFIER, _SIGNATURE = 0, 1, 2, 6
_SIGNATURE_BYTES = 32
_GENERATOR = b"macaroons-key-generator"


class Macaroon(Value):
    """An identifier, caveats in order, and the signature over all of it. `location` is a hint that nothing signs."""

    __slots__ = ("identifier", "caveats", "signature", "location")

    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes
    location: bytes

    def __init__(self, identifier: bytes, caveats: tuple[bytes, ...], signature: bytes, location: bytes = b"") -> None:
        self._fill(identifier, caveats, signature, location)

    def __repr__(self) -> str:
        return "<Macaroon>"  # it is a secret

    def with_caveat(self, caveat: bytes) -> Macaroon:
        """Return the macaroon cut down by one more caveat."""
        signature = _signed(self.signature, caveat)
        return Macaroon(self.identifier, (*self.caveats, caveat), signature, self.location)

    def is_genuine(self, key: bytes) -> bool:
        """True when it was made with `key` and every caveat added since is there, unchanged and in order."""
        return self.is_made_of(made(key, self.identifier))

    def is_made_of(self, other: Macaroon) -> bool:
        """True when it is another one, or was made of it by adding caveats alone; the other is taken for genuine."""
        count = len(other.caveats)
        if (self.identifier, self.caveats[:count]) != (other.identifier, other.caveats):
            return False
        signature = other.signature
        for caveat in self.caveats[count:]:
            signature = _signed(signature, caveat)
        return hmac.compare_digest(signature, self.signature)


def made(key: bytes, identifier: bytes, location: bytes = b"") -> Macaroon:
    """Return a macaroon without caveats."""
    return Macaroon(identifier, (), _signed(_signed(_GENERATOR, key), identifier), location)


def _signed(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


# The binary format: packets of a type, a length and that many bytes; a type 0 ends a section.


def encode(macaroon: Macaroon) -> bytes:
    """Return the binary form, version 2."""
    parts = [bytes((_VERSION,))]
    if macaroon.location:
        parts.append(_packet(_LOCATION, macaroon.location))
    parts += [_packet(_IDENTIFIER, macaroon.identifier), b"\0"]
    for caveat in macaroon.caveats:
        parts += [_packet(_IDENTIFIER, caveat), b"\0"]
    parts += [b"\0", _packet(_SIGNATURE, macaroon.signature)]
    return b"".join(parts)


def _packet(kind: int, data: bytes) -> bytes:
    length, number = bytearray(), len(data)
    while number > 0x7F:
        length.append(number & 0x7F | 0x80)
        number >>= 7
    length.append(number)
    return bytes((kind,)) + bytes(length) + data


def decode(data: bytes) -> Macaroon:
    """Return the macaroon in `data`; `ValueError` for anything but its one binary form.

    Caveats for third parties are refused: nobody discharges them here.
    """
    if len(data) > MAX_BYTES:
        raise ValueError("it is too long")
    reader = _Reader(data)
    if reader.byte() != _VERSION:
        raise ValueError("it has another version")
    head = reader.section()
    caveats: list[bytes] = []
    while section := reader.section():
        if set(section) != {_IDENTIFIER}:
            raise ValueError("a caveat in it is for somebody else")
        caveats.append(section[_IDENTIFIER])
        if len(caveats) > MAX_CAVEATS:
            raise ValueError(f"it has over {MAX_CAVEATS} caveats")
    kind, signature = reader.packet()
    if _IDENTIFIER not in head or head.keys() - {_LOCATION, _IDENTIFIER} or kind != _SIGNATURE:
        raise ValueError("it lacks a field")
    if len(signature) != _SIGNATURE_BYTES or not reader.is_at_end:
        raise ValueError("it does not end where it should")
    found = Macaroon(head[_IDENTIFIER], tuple(caveats), signature, head.get(_LOCATION, b""))
    if encode(found) != data:
        raise ValueError("it is not in its one form")
    return found


class _Reader:
    """Takes packets off bytes that anybody may have written."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("it was cut")
        self._at += 1
        return self._data[self._at - 1]

    def packet(self) -> tuple[int, bytes]:
        """Return one packet's type and data; a section's end has none."""
        kind = self.byte()
        if kind == _END:
            return _END, b""
        size = shift = 0
        while True:
            byte = self.byte()
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 14:
                raise ValueError("a field in it is too long")
        if size > MAX_FIELD_BYTES:
            raise ValueError("a field in it is too long")
        if self._at + size > len(self._data):
            raise ValueError("it was cut")
        self._at += size
        return kind, self._data[self._at - size : self._at]

    def section(self) -> dict[int, bytes]:
        """Return the packets up to the end of a section, by their types, which rise."""
        found: dict[int, bytes] = {}
        while True:
            kind, data = self.packet()
            if kind == _END:
                return found
            if found and kind <= max(found):
                raise ValueError("its fields are out of order")
            found[kind] = data

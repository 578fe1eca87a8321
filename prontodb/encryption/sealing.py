"""The only door to `cryptography`: small things sealed, long ones sealed in a stream, a passphrase made a key.

All of it authenticates: what was changed does not open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.errors import SecretError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SALT_BYTES = 32
CHUNK_BYTES = 64 * 1024
"""Of a stream, sealed one by one: the size that age uses (C2SP, age.md, "Payload")."""
_LAST = 1


class WrongKeyError(SecretError):
    """It does not open: sealed with another key, or changed since."""


def _aead(key: bytes) -> ChaCha20Poly1305:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError as error:
        raise _missing() from error
    return ChaCha20Poly1305(key)


def _missing() -> UnavailableError:
    return UnavailableError("encryption needs the package 'cryptography': pip install 'prontodb[encryption]'")


def check_available() -> None:
    """Raise `UnavailableError` with the way out where the package for encryption is not installed."""
    _aead(bytes(KEY_BYTES))


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Return a small thing sealed with ChaCha20-Poly1305 (RFC 8439) and bound to its context, which is not hidden."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _aead(key).encrypt(nonce, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what was sealed; `WrongKeyError` for another key or context, and for whatever was changed."""
    aead = _aead(key)
    from cryptography.exceptions import InvalidTag

    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise WrongKeyError("wrong key or damaged: it is cut")
    try:
        return bytes(aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context))
    except InvalidTag:
        raise WrongKeyError("wrong key or damaged") from None


# Streams: the construction STREAM of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
# Nonce-Reuse Misuse-Resistance" (CRYPTO 2015): chunks cannot be changed, dropped, added or put in another order.


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(NONCE_BYTES - 1) + bytes([_LAST if last else 0])


class StreamSealer:
    """Seals what it is given piece by piece; the key is for this one stream and no other."""

    __slots__ = ("_aead", "_number", "_waiting")

    def __init__(self, key: bytes) -> None:
        self._aead, self._number, self._waiting = _aead(key), 0, bytearray()

    def update(self, data: bytes) -> bytes:
        """Take more; return what is sealed by now."""
        self._waiting += data
        done = bytearray()
        # One chunk stays behind: the last is sealed as the last.
        while len(self._waiting) > CHUNK_BYTES:
            done += self._aead.encrypt(_nonce(self._number, last=False), bytes(self._waiting[:CHUNK_BYTES]), None)
            del self._waiting[:CHUNK_BYTES]
            self._number += 1
        return bytes(done)

    def finish(self) -> bytes:
        """Return the end."""
        return self._aead.encrypt(_nonce(self._number, last=True), bytes(self._waiting), None)


def unseal_stream(key: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what a stream holds, each piece only once it is known to be true; `WrongKeyError` where it is not.

    Whoever takes only the beginning does not learn whether the end is there.
    """
    aead, number, waiting = _aead(key), 0, bytearray()
    from cryptography.exceptions import InvalidTag

    whole = CHUNK_BYTES + TAG_BYTES

    def opened(sealed: bytes, *, last: bool) -> bytes:
        try:
            return bytes(aead.decrypt(_nonce(number, last=last), sealed, None))
        except InvalidTag:
            raise WrongKeyError("wrong key or damaged") from None

    for chunk in chunks:
        waiting += chunk
        while len(waiting) > whole:
            yield opened(bytes(waiting[:whole]), last=False)
            del waiting[:whole]
            number += 1
    if len(waiting) < TAG_BYTES:
        raise WrongKeyError("wrong key or damaged: it is cut")
    yield opened(bytes(waiting), last=True)


# Passphrases


def stretched(passphrase: str, *, salt: bytes, memory_kib: int, iterations: int, lanes: int) -> bytes:
    """Return a key made of a passphrase by Argon2id (RFC 9106)."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError as error:
        raise _missing() from error
    try:
        kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
        return bytes(kdf.derive(passphrase.encode()))
    except UnsupportedAlgorithm as error:
        raise UnavailableError("this OpenSSL has no Argon2id: use a key file, or a newer 'cryptography'") from error
    except MemoryError as error:
        raise UnavailableError(
            f"stretching the passphrase takes {memory_kib:,} KiB of memory, too much here"
        ) from error

"""What opens one encrypted keystore: its data key and its chain key, which nobody gets to see."""

from __future__ import annotations

from _blake2 import blake2b

from prontodb.model.value import Value

SECRET_BYTES = 32
ID_BYTES = 8


class Secret(Value):
    """The keys of one keystore. `record` is the id of the key record that holds them, `generation` counts rekeyings.

    `chain_key` is the same in every generation: the journal's chain goes on when the file is rewritten.
    """

    __slots__ = ("record", "generation", "data_key", "chain_key")

    record: str
    generation: int
    data_key: bytes
    chain_key: bytes

    def __init__(self, record: str, generation: int, data_key: bytes, chain_key: bytes) -> None:
        self._fill(record, generation, data_key, chain_key)

    @property
    def name(self) -> str:
        """What metadata and manifests call it: RECORD-GENERATION."""
        return secret_name(self.record, self.generation)

    @property
    def digest_key(self) -> bytes:
        """What the digest of the keystore's entries is keyed with, another one in every generation."""
        return self.derived(b"prontodb-digest")

    def derived(self, purpose: bytes, salt: bytes = b"") -> bytes:
        """Return 32 bytes for one purpose, of at most 16 bytes, that tell nothing of the data key.

        Keyed BLAKE2b (RFC 7693) as a key derivation; `salt` makes them another file's, too.
        """
        return blake2b(salt, key=self.data_key, person=purpose, digest_size=SECRET_BYTES).digest()

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not written down")


def secret_name(record: str, generation: int) -> str:
    """Return what a generation of a key record is called."""
    return f"{record}-{generation}"


def parsed_name(name: str) -> tuple[str, int] | None:
    """Return the record and the generation in a secret's name; None when it is none."""
    record, dash, number = name.partition("-")
    if dash and is_record_id(record) and number.isascii() and number.isdigit() and 0 < len(number) < 7:
        return record, int(number)
    return None


def is_record_id(text: str) -> bool:
    """True for what a key record can be called: 8 random bytes in hex."""
    return len(text) == 2 * ID_BYTES and all(c in "0123456789abcdef" for c in text)

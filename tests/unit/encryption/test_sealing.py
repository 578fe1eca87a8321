"""What is sealed opens whole or not at all: small things, and streams of any length."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.encryption import sealing
from prontodb.encryption.sealing import CHUNK_BYTES, TAG_BYTES, StreamSealer, WrongKeyError, unseal_stream

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def sealed(plain: bytes, pieces: int = 1, key: bytes = KEY) -> bytes:
    sealer = StreamSealer(key)
    size = max(1, len(plain) // pieces)
    return b"".join(sealer.update(plain[at : at + size]) for at in range(0, len(plain), size)) + sealer.finish()


def opened(data: bytes, size: int = 70_000, key: bytes = KEY) -> bytes:
    return b"".join(unseal_stream(key, (data[at : at + size] for at in range(0, len(data), size))))


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 200_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_stream_comes_back_whatever_it_is_cut_into(length: int, pieces: int) -> None:
    plain = os.urandom(length)
    data = sealed(plain, pieces)
    assert len(data) == length + TAG_BYTES * max(1, -(-length // CHUNK_BYTES))
    assert opened(data) == opened(data, size=13_001) == plain


LONG = sealed(bytes(3 * CHUNK_BYTES + 100))
WHOLE = CHUNK_BYTES + TAG_BYTES


@pytest.mark.parametrize(
    "data",
    [
        LONG[:-1], LONG[:WHOLE], LONG[: 2 * WHOLE], LONG[WHOLE:],
        LONG[WHOLE : 2 * WHOLE] + LONG[:WHOLE] + LONG[2 * WHOLE :],
        LONG + LONG[-50:], LONG + b"x", LONG[:WHOLE] + LONG, b"", b"x" * 15,
    ],
)  # fmt: skip
def test_a_stream_that_is_cut_reordered_or_longer_does_not_open(data: bytes) -> None:
    with pytest.raises(WrongKeyError, match="wrong key or damaged"):
        opened(data)


@given(at=st.integers(0, len(LONG) - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_stream_can_be_flipped(at: int, bit: int) -> None:
    data = bytearray(LONG)
    data[at] ^= 1 << bit
    with pytest.raises(WrongKeyError):
        opened(bytes(data))


def test_what_comes_before_a_damaged_part_is_true_and_nothing_after_it_comes() -> None:
    data = bytearray(LONG)
    data[2 * WHOLE + 5] ^= 1
    found = []
    with pytest.raises(WrongKeyError):
        for piece in unseal_stream(KEY, (bytes(data),)):
            found.append(piece)
    assert b"".join(found) == bytes(2 * CHUNK_BYTES)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(WrongKeyError):
        opened(LONG, key=OTHER)
    small = sealing.seal(KEY, b"secret", b"context")
    with pytest.raises(WrongKeyError):
        sealing.unseal(OTHER, small, b"context")


@pytest.mark.parametrize("cut", [0, 11, 27, -1])
def test_a_small_thing_is_bound_to_its_context_and_cannot_be_cut(cut: int) -> None:
    small = sealing.seal(KEY, b"secret", b"context")
    assert sealing.unseal(KEY, small, b"context") == b"secret"
    assert sealing.seal(KEY, b"secret", b"context") != small
    with pytest.raises(WrongKeyError):
        sealing.unseal(KEY, small, b"another")
    with pytest.raises(WrongKeyError):
        sealing.unseal(KEY, small[:cut], b"context")


def test_a_passphrase_is_stretched_by_its_salt_and_parameters() -> None:
    def stretched(text: str, salt: int, iterations: int) -> bytes:
        return sealing.stretched(text, salt=bytes([salt]) * 32, memory_kib=64, iterations=iterations, lanes=1)

    keys = {stretched(text, salt, more) for text in ("one", "two") for salt in (1, 2) for more in (1, 2)}
    assert len(keys) == 8
    assert stretched("one", 1, 1) in keys

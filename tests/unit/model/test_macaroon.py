"""Macaroons against the values that libmacaroons publishes, and against bytes that anybody may send."""

from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.model import macaroon

KEY = b"this is our super secret key; only we should know it"
IDENTIFIER = b"we used our secret key"

# libmacaroons' README, step by step.
SIGNATURES = [
    (b"", "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f"),
    (b"account = 3735928559", "1efe4763f290dbce0c1d08477367e11f4eee456a64933cf662d79772dbb82128"),
    (b"time < 2020-01-01T00:00", "b5f06c8c8ef92f6c82c6ff282cd1f8bd1849301d09a2db634ba182536a611c49"),
    (b"email = alice@example.org", "ddf553e46083e55b8d71ab822be3d8fcf21d6bf19c40d617bb9fb438934474b6"),
]

# libmacaroons' tests root_v2_1, caveat_v2_1 and that with two caveats: key, caveats, binary form in base64url.
SERIALIZED = [
    ((), "AgETaHR0cDovL2V4YW1wbGUub3JnLwIFa2V5aWQAAAYgfN7nklEcW8b1KEhYBd_psk54XijiqZMB-dcRxgnjjvc="),
    (
        (b"account = 3735928559",),
        "AgETaHR0cDovL2V4YW1wbGUub3JnLwIFa2V5aWQAAhRhY2NvdW50ID0gMzczNTkyODU1OQAABiD1SAf23G7fiL8PcwazgiVio2JTPb9zObphdl2k"
        "vSWdhw==",
    ),
    (
        (b"account = 3735928559", b"user = alice"),
        "AgETaHR0cDovL2V4YW1wbGUub3JnLwIFa2V5aWQAAhRhY2NvdW50ID0gMzczNTkyODU1OQACDHVzZXIgPSBhbGljZQAABiBL6WfNHqDGsmuvakqU"
        "7psFsViG2guoXoxCqTyNDhJe_A==",
    ),
]


def test_signatures_are_the_published_ones() -> None:
    found = macaroon.made(KEY, IDENTIFIER, b"http://mybank/")
    for caveat, signature in SIGNATURES:
        found = found.with_caveat(caveat) if caveat else found
        assert found.signature.hex() == signature
        assert found.is_genuine(KEY)
    one = macaroon.made(KEY, IDENTIFIER).with_caveat(b"test = caveat")
    assert one.signature.hex() == "197bac7a044af33332865b9266e26d493bdd668a660e44d88ce1a998c23dbd67"


@pytest.mark.parametrize(("caveats", "text"), SERIALIZED)
def test_the_binary_form_is_the_published_one(caveats: tuple[bytes, ...], text: str) -> None:
    wanted = urlsafe_b64decode(text)
    found = macaroon.made(b"this is the key", b"keyid", b"http://example.org/")
    for caveat in caveats:
        found = found.with_caveat(caveat)
    assert macaroon.encode(found) == wanted
    assert macaroon.decode(wanted) == found
    assert not found.is_genuine(b"this is not the key")


CAVEATS = st.lists(st.binary(min_size=0, max_size=200), max_size=6)


@given(st.binary(min_size=1), st.binary(max_size=300), CAVEATS)
def test_what_is_encoded_is_decoded(key: bytes, identifier: bytes, caveats: list[bytes]) -> None:
    found = macaroon.made(key, identifier)
    for caveat in caveats:
        found = found.with_caveat(caveat)
    again = macaroon.decode(macaroon.encode(found))
    assert again == found
    assert again.is_genuine(key)


@given(CAVEATS.filter(bool), st.data())
def test_no_caveat_can_be_dropped_edited_or_moved(caveats: list[bytes], data: st.DataObject) -> None:
    whole = macaroon.made(KEY, IDENTIFIER)
    for caveat in caveats:
        whole = whole.with_caveat(caveat)
    forged = list(caveats)
    at = data.draw(st.integers(0, len(caveats) - 1))
    match data.draw(st.sampled_from(["drop", "edit", "move", "insert"])):
        case "drop":
            del forged[at]
        case "edit":
            forged[at] = data.draw(st.binary(max_size=20))
        case "move":
            forged.insert(data.draw(st.integers(0, len(caveats) - 1)), forged.pop(at))
        case "insert":
            forged.insert(at, data.draw(st.binary(max_size=20)))
    attempt = macaroon.Macaroon(IDENTIFIER, tuple(forged), whole.signature)
    assert attempt.is_genuine(KEY) == (forged == caveats)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_macaroon_in_its_one_form_or_refused(data: bytes) -> None:
    try:
        found = macaroon.decode(data)
    except ValueError:
        return
    assert macaroon.encode(found) == data


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_no_longer_genuine(at: int, flip: int) -> None:
    data = bytearray(macaroon.encode(macaroon.made(KEY, IDENTIFIER).with_caveat(b"rights = read")))
    data[at % len(data)] ^= flip
    try:
        found = macaroon.decode(bytes(data))
    except ValueError:
        return
    # A location is a hint that nothing signs.
    assert not found.is_genuine(KEY) or found.location


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02",
        b"\x02\x02\xff\xff\xff\xff\x7fx",
        b"\x02\x02\x81\x00a\x00\x00\x06\x20" + b"s" * 32,  # a length that is not in its shortest form
        b"\x02\x02\x01a\x00\x02\x01b\x04\x01v\x00\x00\x06\x20" + b"s" * 32,  # a caveat for a third party
        b"\x02\x02\x01a\x00\x01\x01l\x02\x01b\x00\x00\x06\x20" + b"s" * 32,
        b"\x02\x02\x01a\x02\x01b\x00\x00\x06\x20" + b"s" * 32,
        b"\x02\x02\x01a\x00\x00\x06\x1f" + b"s" * 31,
        b"\x02\x02\x01a\x00\x00\x06\x20" + b"s" * 32 + b"x",
        b"\x02\x01\x01l\x00\x00\x06\x20" + b"s" * 32,
        b"\x02" + b"x" * macaroon.MAX_BYTES,
        b"\x02\x02\x01a\x00" + b"\x02\x01c\x00" * (macaroon.MAX_CAVEATS + 1) + b"\x00\x06\x20" + b"s" * 32,
    ],
)
def test_what_is_no_macaroon_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it |^a |^its "):
        macaroon.decode(data)


def test_it_is_never_shown() -> None:
    assert repr(macaroon.made(KEY, IDENTIFIER)) == "<Macaroon>"

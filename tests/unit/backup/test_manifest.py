"""Manifests: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prontodb.backup.manifest import FORMAT, Manifest, Piece, decode, file_name, is_backup_id
from prontodb.engine.sqlite.digest import Digest
from prontodb.errors import CorruptError, NewerFormatError
from prontodb.model.address import Address
from prontodb.model.history import Mark
from tests.backups import sealed

FIRST, SECOND = "20261121T030000Z-00000001", "20261121T040000Z-00000002"


def piece(address: str = "agent/test", **facts: Any) -> Piece:
    """A snapshot's piece, but for what is given."""
    kind = facts.get("kind", "snapshot")
    plain: dict[str, Any] = {
        "address": address,
        "kind": kind,
        "file": file_name(Address.parse(address), kind),
        "size_bytes": 10,
        "raw_bytes": 10,
        "sha256": "ab" * 32,
        "parent": None if kind == "snapshot" else FIRST,
        "since": 0,
        "incarnation": "cd" * 16,
        "revision": 4,
        "floor": 0,
        "chain": "ef" * 16,
        "entries": 2,
        "digest": "01" * 32,
        "faults": 0,
        "at_ms": 5,
        "created_at_ms": None,
        "labels": {},
    }
    return Piece(**{**plain, **facts})


def manifest(*pieces: Piece, **facts: Any) -> Manifest:
    """A full backup of these pieces, but for what is given."""
    plain: dict[str, Any] = {
        "id": FIRST,
        "root": "aa" * 8,
        "kind": "full" if facts.get("parent") is None else "incremental",
        "scope": "",
        "parent": None,
        "created_at_ms": 7,
        "ended_at_ms": 8,
        "prontodb": "1.0",
        "sqlite": "3.53.4",
        "pieces": pieces,
        "gone": (),
        "failed": (),
        "unchanged": 0,
    }
    return Manifest(**{**plain, **facts})


def signed(plain: dict[str, Any]) -> bytes:
    """A manifest of these fields with the hash that they have, whatever they are."""
    kept = {name: value for name, value in plain.items() if name != "sha256"}
    return sealed(kept)


def plain(found: Manifest) -> dict[str, Any]:
    """Its fields as JSON has them."""
    fields_: dict[str, Any] = json.loads(found.encode())
    return fields_


def changed(found: Manifest, place: str, name: str, value: object) -> bytes:
    """A manifest with one field changed, of itself or of its first piece, and the right hash."""
    own = plain(found)
    (own if place == "manifest" else own["pieces"][0])[name] = value
    return signed(own)


NUMBERS = st.integers(0, 2**63 - 1)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.from_regex(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}", fullmatch=True)


@st.composite
def pieces(draw: st.DrawFn, segments: bool) -> tuple[Piece, ...]:
    names = draw(st.lists(st.tuples(NAMES, NAMES), max_size=4, unique=True))
    found = []
    for user, cursor in names:
        kind = draw(st.sampled_from(["snapshot", "segment"] if segments else ["snapshot"]))
        numbers = {name: draw(NUMBERS) for name in ("size_bytes", "raw_bytes", "revision", "entries", "at_ms")}
        numbers["since"] = draw(st.integers(0, numbers["revision"]))
        numbers["floor"] = draw(st.integers(0, numbers["since"]))
        found.append(
            piece(
                f"{user}/{cursor}",
                kind=kind,
                parent=draw(IDS) if kind == "segment" else None,
                created_at_ms=draw(st.none() | NUMBERS),
                labels=draw(st.dictionaries(TEXTS, TEXTS, max_size=3)),
                digest=draw(st.binary(min_size=32, max_size=32)).hex(),
                **numbers,
            )
        )
    return tuple(found)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    parent = draw(st.none() | IDS)
    return manifest(
        *draw(pieces(parent is not None)),
        id=draw(IDS),
        parent=parent,
        scope=draw(st.sampled_from(["", "a", "a/b"])),
        created_at_ms=draw(st.integers(0, 10**14)),
        gone=tuple(draw(st.lists(st.builds("{}/{}".format, NAMES, NAMES), max_size=3))),
        failed=tuple(draw(st.lists(st.tuples(NAMES, TEXTS), max_size=3))),
        unchanged=draw(NUMBERS),
    )


# Round trip


@settings(max_examples=50)
@given(manifests())
def test_what_is_written_is_read_again(one: Manifest) -> None:
    assert decode(one.encode(), "here") == one


@settings(max_examples=50)
@given(manifests(), st.data())
def test_no_flipped_bit_is_read_as_another_manifest(one: Manifest, data: st.DataObject) -> None:
    image = bytearray(one.encode())
    image[data.draw(st.integers(0, len(image) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode(bytes(image), "here")
    except (CorruptError, NewerFormatError):
        return
    assert found == one


@settings(max_examples=50)
@given(manifests(), st.data())
def test_no_beginning_of_a_manifest_is_read_as_another(one: Manifest, data: st.DataObject) -> None:
    image = one.encode()
    # But for the last line end, of which below.
    with pytest.raises(CorruptError):
        decode(image[: data.draw(st.integers(0, len(image) - 2))], "here")


@pytest.mark.parametrize(
    ("old", "new"), [(b"}\n", b"}"), (b'"floor": 0', b'"floor":  0'), (b"\\u00e9", b"\\u00E9"), (b'"t', b'"\\u0074')]
)
def test_a_manifest_that_is_not_byte_for_byte_as_it_was_written_is_refused(old: bytes, new: bytes) -> None:
    image = manifest(piece(labels={"a": "é", "test": "t"})).encode()
    cut = image.replace(old, new) if old != b"}\n" else image[:-1]
    assert cut != image
    with pytest.raises(CorruptError):
        decode(cut, "here")


def test_pieces_say_where_the_history_stood_and_what_it_held() -> None:
    one = piece(revision=9, entries=3)
    assert one.mark == Mark("cd" * 16, 9, "ef" * 16)
    assert one.content == Digest(int("01" * 32, 16), 3)
    assert manifest(one, piece("a/b", size_bytes=5)).size_bytes == 15


# Refused


NOT_TEXT: list[object] = [None, 5, True, [], {}]
NOT_WHOLE: list[object] = [None, "5", True, 1.0, -1, 2**63, [], {}]
NOT_HEX: list[object] = [None, 5, "", "AB" * 32, "ab" * 31, "zz" * 32, " " + "ab" * 31 + "a", "ab" * 33]


def wrong_values(name: str) -> list[object]:
    match name:
        case "parent":
            return [5, True, [], "", "../x", FIRST + "\n", FIRST.lower()]
        case (
            "created_at_ms"
            | "ended_at_ms"
            | "at_ms"
            | "since"
            | "revision"
            | "floor"
            | "entries"
            | "unchanged"
            | "faults"
        ):
            return NOT_WHOLE
        case "size_bytes" | "raw_bytes" | "format" | "faults":
            return NOT_WHOLE
        case "sha256" | "digest" | "incarnation" | "chain":
            return NOT_HEX
        case "kind":
            return [*NOT_TEXT, "", "other", "Full"]
        case "labels":
            return [None, 5, [], "", {"a": 1}, {"a": None}, {"a": {}}]
        case "pieces" | "gone" | "failed":
            return [None, 5, {}, "", [5], [None], [["a"]], [["a", 1]], [["a", "b", "c"]]]
    return [*NOT_TEXT]


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
def test_a_field_of_another_type_is_refused(name: str) -> None:
    whole = manifest(piece(kind="segment"), parent=FIRST, id=SECOND)
    for value in wrong_values(name):
        with pytest.raises(CorruptError, match="here"):
            decode(changed(whole, "manifest", name, value), "here")


@pytest.mark.parametrize("name", [field.name for field in fields(Piece)])
def test_a_piece_with_a_field_of_another_type_is_refused(name: str) -> None:
    whole = manifest(piece(kind="segment"), parent=FIRST, id=SECOND)
    for value in wrong_values(name):
        if name == "created_at_ms" and value is None:
            continue
        with pytest.raises(CorruptError, match="here"):
            decode(changed(whole, "piece", name, value), "here")


@pytest.mark.parametrize("place", ["manifest", "piece"])
def test_a_field_that_is_missing_or_unknown_is_refused(place: str) -> None:
    whole = manifest(piece(encryption="0123456789abcdef-1"))
    names = [field.name for field in fields(Manifest if place == "manifest" else Piece) if field.name != "encryption"]
    for name in names:
        own = plain(whole)
        del (own if place == "manifest" else own["pieces"][0])[name]
        with pytest.raises(CorruptError):
            decode(signed(own), "here")
    with pytest.raises(CorruptError, match="'more'"):
        decode(changed(whole, place, "more", 1), "here")


@pytest.mark.parametrize(
    "file",
    ["../../etc/passwd", "/etc/passwd", "a@b.db", "agent@test.db/..", "agent@test.db\0", "agent@test.jsonl.zst", "",
     ".", "..", "AGENT@test.db", "agent@test.db "],
)  # fmt: skip
def test_a_piece_is_in_no_file_but_its_own(file: str) -> None:
    with pytest.raises(CorruptError, match="contradicts itself"):
        decode(changed(manifest(piece()), "piece", "file", file), "here")


@pytest.mark.parametrize(
    "address", ["../x", "a/../b", "a/b/c", "", "/", "a/", "/b", ".new-a/b", "a\0/b", "ä/b", "a@b/c"]
)
def test_a_piece_is_of_an_address_that_can_be(address: str) -> None:
    own = plain(manifest(piece()))
    own["pieces"][0] |= {"address": address, "file": address.replace("/", "@") + ".db"}
    with pytest.raises(CorruptError):
        decode(signed(own), "here")


@pytest.mark.parametrize(
    "odd",
    [
        manifest(piece(), piece()),
        manifest(piece("a"), piece(str(Address("a")))),
        manifest(piece(), id="../../x"),
        manifest(piece(), id=FIRST + "\n"),
        manifest(piece(), parent=SECOND, kind="full"),
        manifest(piece(), kind="incremental"),
        manifest(piece(kind="segment")),
        manifest(piece(kind="segment", parent=None), parent=FIRST, id=SECOND),
        manifest(piece(parent=FIRST), parent=FIRST, id=SECOND),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(odd: Manifest) -> None:
    with pytest.raises(CorruptError):
        decode(odd.encode(), "here")


def test_a_manifest_of_a_newer_format_is_said_to_be_one_whatever_else_is_in_it() -> None:
    with pytest.raises(NewerFormatError, match=f"format {FORMAT + 1}"):
        decode(json.dumps({"format": FORMAT + 1, "new": []}).encode(), "here")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"null", b"[]", b"{}", b'{"format": 1}', b"\xff\xfe", b'{"format": NaN}',
     b'{"format": 1, "format": 1}',
     b'{"format": ' + b"9" * 5_000 + b"}", b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"x" * 1_000_000],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="here"):
        decode(data, "here")


def test_its_own_hash_is_of_all_of_it() -> None:
    own = plain(manifest(piece(), gone=("a/b",)))
    for name in set(own) - {"sha256", "format"}:
        other = dict(own)
        other[name] = "else" if isinstance(own[name], str) else 77 if isinstance(own[name], int) else []
        if other[name] != own[name]:
            with pytest.raises(CorruptError, match="its own hash is another"):
                decode(json.dumps(other).encode(), "here")


def test_no_depth_of_nesting_raises_anything_untyped() -> None:
    own = plain(manifest())
    limit = sys.getrecursionlimit()
    raised = set()
    for depth in range(limit - 150, limit + 10):
        text = json.dumps(own).replace('"gone": []', '"gone": ' + "[" * depth + "]" * depth)
        try:
            decode(text.encode(), "here")
        except (CorruptError, RecursionError) as error:
            raised.add(type(error))
    assert raised == {CorruptError}


# Names


@pytest.mark.parametrize("name", [FIRST, "00000000T000000Z-ffffffff"])
def test_a_backups_name_is_its_time_and_something_random(name: str) -> None:
    assert is_backup_id(name)


@pytest.mark.parametrize(
    "name",
    [FIRST + "\n", FIRST[:-1], FIRST.upper() + "0", "\uff12" + FIRST[1:], f".tmp-{FIRST}", "", None, 5, "../" + FIRST],
)
def test_nothing_else_is(name: object) -> None:
    assert not is_backup_id(name)


def test_files_of_different_addresses_never_share_a_name() -> None:
    names = {file_name(Address(user, cursor), "snapshot") for user in ("a", "a-b", "b") for cursor in ("a", "b", "b-a")}
    assert len(names) == 9
    assert asdict(replace(piece(), file="x"))["file"] == "x"

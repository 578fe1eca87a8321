"""The grammar of addresses, keys, paths and lifetimes, for every text there is; and the order keys stand in."""

import re
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidAddressError, InvalidInputError, InvalidPathError, InvalidTtlError, LimitError
from prontodb.model.address import Address
from prontodb.model.key import (
    MAX_KEY_BYTES,
    after,
    check_key,
    check_prefix,
    check_value,
    namespace_of,
    prefix_end,
    project_of,
)
from prontodb.model.path import key_of, namespace_scope
from prontodb.model.ttl import MAX_TTL_MS, ttl_ms

ANY_TEXT = st.text() | st.text(st.characters(), max_size=40) | st.text(" ._-/\\\n\x00\x85\u2028äÄABab01", max_size=70)
ANYTHING = ANY_TEXT | st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.lists(st.text())
NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", fullmatch=True)
PART = st.text("abcäß_- \U0001f600", min_size=1, max_size=5)
KEY_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


def attempt(work: Callable[..., Any], *arguments: object) -> tuple[Any, InvalidInputError | None]:
    """Return what the call gives, or the error of ours that it raises; any other error fails the test."""
    try:
        return work(*arguments), None
    except InvalidInputError as error:
        return None, error


@given(ANYTHING)
def test_a_name_that_is_accepted_is_a_harmless_folder(name: object) -> None:
    try:
        address = Address(name)  # type: ignore[arg-type]
    except InvalidAddressError:
        return
    assert isinstance(name, str)
    assert 1 <= len(name) <= 64
    assert set(name) <= set(string.ascii_letters + string.digits + "_.-")
    assert name[0] not in ".-"
    assert name[-1] != "."
    assert ".." not in name
    assert Address.parse(str(address)) == address


@given(NAME, NAME)
def test_an_address_survives_its_text_form(user: str, cursor: str) -> None:
    try:
        address = Address(user, cursor)
    except InvalidAddressError:
        return
    assert Address.parse(str(address)) == address
    assert Address(user, cursor) == address
    assert hash(Address(user, cursor)) == hash(address)
    assert address.folded == Address(user.lower(), cursor.upper()).folded


@given(ANYTHING)
def test_text_that_is_no_address_raises_our_error_and_no_other(text: object) -> None:
    _, error = attempt(Address.parse, text)
    assert error is None or (isinstance(error, InvalidAddressError) and str(error).isprintable())


@given(ANYTHING)
def test_a_key_that_is_accepted_fits_the_rules(key: object) -> None:
    found, error = attempt(check_key, key)
    if error is not None:
        assert str(error).isprintable()
        return
    assert found == key
    assert isinstance(key, str)
    assert 1 <= len(key.encode()) <= MAX_KEY_BYTES
    assert not re.search("[\x00-\x1f\x7f-\x9f]", key)


@given(KEY_TEXT)
def test_every_text_without_control_characters_is_a_key(key: str) -> None:
    assert check_key(key) == key


@given(st.integers(1, 400), st.sampled_from("aä€\U0001f600"))
def test_the_limit_of_keys_counts_bytes(count: int, character: str) -> None:
    key, size = character * count, len(character.encode()) * count
    if size <= 300:
        assert check_key(key, 300) == key
    else:
        with pytest.raises(LimitError) as caught:
            check_key(key, 300)
        assert (caught.value.allowed, caught.value.given) == (300, size)


@given(ANYTHING)
def test_a_value_is_text_that_utf_8_can_hold(value: object) -> None:
    found, error = attempt(check_value, value, 50)
    if error is not None:
        assert not isinstance(value, str) or len(value) < 4 or value not in str(error)
        return
    assert found == value
    assert isinstance(value, str)
    assert len(value.encode()) <= 50


@given(ANYTHING)
def test_a_prefix_is_empty_or_a_key(prefix: object) -> None:
    try:
        check_prefix(prefix)
    except InvalidInputError:
        return
    assert prefix == "" or check_key(prefix) == prefix


ENDS = st.text("a\ud7ff\ue000\U0010ffff~", max_size=4)


@given(ENDS, ENDS | KEY_TEXT)
def test_the_end_of_a_prefix_parts_those_who_begin_with_it_from_the_rest(prefix: str, key: str) -> None:
    end = prefix_end(prefix)
    inside = key.encode() >= prefix.encode() and (end is None or key.encode() < end.encode())
    assert inside == key.startswith(prefix)


@given(KEY_TEXT, KEY_TEXT)
def test_bytes_and_code_points_give_one_order_and_nothing_lies_right_after_a_key(one: str, other: str) -> None:
    assert (one < other) == (one.encode() < other.encode())
    assert not one < other < after(one)


@given(st.lists(PART, min_size=1, max_size=6))
def test_namespace_and_project_are_the_front_of_a_key(parts: list[str]) -> None:
    key = ".".join(parts)
    assert namespace_of(key) == ".".join(parts[:-1])
    assert project_of(key) == (parts[0] if len(parts) >= 3 else "")


# Paths


@given(st.lists(PART, min_size=1, max_size=6), st.sampled_from([".", ":", "/", "::"]))
def test_a_path_names_the_same_key_with_any_delimiter(parts: list[str], delimiter: str) -> None:
    assert key_of(delimiter.join(parts), delimiter=delimiter) == key_of(".".join(parts))


@given(PART, PART, PART)
def test_defaults_that_are_written_out_change_nothing(project: str, namespace: str, key: str) -> None:
    assert key_of(key) == key_of(f"default.{key}") == key_of(f"default.default.{key}") == key
    assert key_of(f"{namespace}.{key}") == key_of(f"default.{namespace}.{key}") == f"{namespace}.{key}"
    assert key_of(key, project=project, namespace=namespace) == key_of(f"{project}.{namespace}.{key}")
    assert key_of(key, namespace=namespace) == f"{namespace}.{key}"


@given(st.lists(PART, min_size=4, max_size=6))
def test_long_paths_are_verbatim(parts: list[str]) -> None:
    assert key_of(".".join(parts)) == ".".join(parts)
    assert key_of(".".join(["default", *parts])) == ".".join(["default", *parts])


@given(ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT, st.none() | ANY_TEXT)
def test_any_path_is_a_key_or_our_error(path: str, delimiter: str, project: str | None, namespace: str | None) -> None:
    try:
        key = key_of(path, project=project, namespace=namespace, delimiter=delimiter)
    except InvalidInputError:
        return
    assert check_key(key) == key
    assert all(key.split("."))


@given(ANY_TEXT)
def test_any_scope_is_a_namespace_or_our_error(scope: str) -> None:
    try:
        namespace = namespace_scope(scope)
    except InvalidInputError:
        return
    assert not namespace or check_key(namespace) == namespace


@given(PART, PART)
def test_the_namespace_of_a_path_is_the_scope_in_front_of_it(front: str, key: str) -> None:
    for scope in ("default", "default.default", front, f"default.{front}", f"{front}.x"):
        assert namespace_of(key_of(f"{scope}.{key}")) == namespace_scope(scope)


@given(st.lists(st.sampled_from(["", "a"]), min_size=2).filter(lambda parts: "" in parts))
def test_empty_parts_are_refused(parts: list[str]) -> None:
    with pytest.raises(InvalidPathError):
        key_of(".".join(parts))


# Lifetimes


@given(st.integers(1, MAX_TTL_MS // 1_000))
def test_whole_seconds_are_exact(seconds: int) -> None:
    assert ttl_ms(seconds) == ttl_ms(str(seconds)) == ttl_ms(f"{seconds}s") == ttl_ms(f"{seconds} s") == seconds * 1_000


@given(st.integers(1, 400), st.sampled_from([("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)]))
def test_units_are_multiples_of_seconds(count: int, unit: tuple[str, int]) -> None:
    assert ttl_ms(f"{count}{unit[0]}") == count * unit[1] * 1_000


@given(
    ANYTHING
    | st.integers(-(10**30), 10**30)
    | st.sampled_from(
        [10**5_000, -(10**5_000), 1e306, -1e306, 1e308, 5e-324, "9" * 15 + "w", "0.0001", "1e5", "٣", "never"]
    )
)
def test_any_lifetime_is_in_range_or_our_error(ttl: object) -> None:
    found, error = attempt(ttl_ms, ttl)
    if error is not None:
        assert isinstance(error, InvalidTtlError)
        assert str(error).isprintable()
        assert len(str(error)) < 300
        return
    assert isinstance(found, int)
    assert 1 <= found <= MAX_TTL_MS

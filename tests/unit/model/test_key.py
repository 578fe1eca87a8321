"""Keys, prefixes and values: the limits in bytes, and messages that show a key safely and a value never."""

import pytest

from prontodb.errors import InvalidKeyError, InvalidValueError, LimitError, shown
from prontodb.model.key import after, check_key, check_prefix, check_value, namespace_of, prefix_end, project_of


@pytest.mark.parametrize(
    "key", ["a", "a.b.c", "a b", "ä", "\u2028", "\U0010ffff", "-", ".", "..", "a__ctx", "x" * 1024, "ä" * 512]
)
def test_text_of_up_to_1024_bytes_is_a_key(key: str) -> None:
    assert check_key(key) == key
    assert check_prefix(key) == key


@pytest.mark.parametrize("key", ["", "a\n", "\x00", "a\x7f", "\x85", "a\tb", "\x1b[2J", "\ud800", "a\udfff"])
def test_text_with_control_characters_or_surrogates_is_no_key(key: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        check_key(key)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", [None, 1, b"a", ["a"], ("a",), True])
def test_what_is_no_text_is_no_key(key: object) -> None:
    with pytest.raises(InvalidKeyError, match="must be text"):
        check_key(key)
    with pytest.raises(InvalidKeyError, match="must be text"):
        check_prefix(key)


@pytest.mark.parametrize("key", ["x" * 1025, "ä" * 513, "\U0001f600" * 257])
def test_a_key_that_is_too_long_names_the_limit(key: str) -> None:
    with pytest.raises(LimitError, match="max_key_bytes") as caught:
        check_key(key)
    assert (caught.value.limit, caught.value.allowed, caught.value.given) == ("max_key_bytes", 1024, len(key.encode()))


def test_an_empty_prefix_begins_every_key() -> None:
    assert check_prefix("") == ""
    assert prefix_end("") is None


@pytest.mark.parametrize("value", ["", "x", "\x00", "ä" * 5, "x" * 10])
def test_any_text_within_the_limit_is_a_value(value: str) -> None:
    assert check_value(value, 10) == value


def test_a_value_is_measured_in_bytes_and_never_shown() -> None:
    with pytest.raises(LimitError, match="max_value_bytes") as caught:
        check_value("äSECRET", 7)
    assert caught.value.given == 8
    assert "SECRET" not in str(caught.value)
    with pytest.raises(InvalidValueError) as broken:
        check_value("SECRET\ud800", 100)
    assert "SECRET" not in str(broken.value)
    assert broken.value.__suppress_context__  # the error below quotes the text


@pytest.mark.parametrize("value", [None, 1, 1.5, b"x", True, {}])
def test_what_is_no_text_is_no_value(value: object) -> None:
    with pytest.raises(InvalidValueError, match=f"not {type(value).__name__}"):
        check_value(value, 10)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("a", "b"),
        ("a.", "a/"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("\U0010fffe", "\U0010ffff"),
    ],
)
def test_the_end_of_a_prefix_is_the_first_text_after_it(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_namespace_and_project_of_a_key() -> None:
    assert [namespace_of(key) for key in ("k", "n.k", "p.n.k", ".k", "k.")] == ["", "n", "p.n", "", "k"]
    assert [project_of(key) for key in ("k", "n.k", "p.n.k", "a.b.c.d")] == ["", "", "p", "a"]
    assert after("a") == "a\x00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "'a'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[2J", r"'\x1b[2J'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 80, "'" + "x" * 80 + "'"),
        (5, "'5'"),
    ],
)
def test_what_is_shown_is_one_printable_line(text: object, expected: str) -> None:
    assert shown(text) == expected


def test_a_long_text_is_shown_by_its_beginning_and_its_end() -> None:
    found = shown("front" + "x" * 1_000 + "end")
    assert found.startswith("'front")
    assert found.endswith("end'")
    assert "…" in found
    assert len(found) < 100

"""Addresses: which names can be a folder of their own, and the text form."""

import pytest

from prontodb.errors import InvalidAddressError, InvalidInputError
from prontodb.model.address import DEFAULT_NAME, GLOBAL_NAME, Address

GOOD = ["a", "A", "0", "agent1", "a.b", "a-b", "a_b", "x" * 64, "default", "global", "con1", "com", "console", "nulx"]
BAD = [
    *("", ".", "..", "a..b", ".a", "a.", "-a", "a b", "a/b", "a\\b", "a\n", "\na", "a\x00b", "x" * 65, "~", "$HOME"),
    *("CON", "con", "con.txt", "Nul", "aux.x.y", "COM1", "lpt9.", "_x", "_Default", "_defaults", "__", "a*", "a:b"),
    *("ä", "\u0430", "\uff05", "a\u200b", "\ud800"),  # letters of other scripts that look like ours, and invisible ones
]


@pytest.mark.parametrize("name", GOOD)
def test_an_ordinary_name_is_accepted_as_user_and_as_cursor(name: str) -> None:
    assert str(Address(name, name)) == f"{name}/{name}"


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_cannot_be_a_folder_everywhere_is_refused_in_either_place(name: str) -> None:
    for user, cursor, what in ((name, "ok", "user"), ("ok", name, "cursor")):
        with pytest.raises(InvalidAddressError, match=f"^{what} ") as caught:
            Address(user, cursor)
        assert str(caught.value).isprintable()
        assert isinstance(caught.value, InvalidInputError)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", [None, 7, b"a", ["a"], object()])
def test_what_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(InvalidAddressError, match="must be text"):
        Address(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidAddressError, match="must be text"):
        Address.parse(name)  # type: ignore[arg-type]


def test_our_own_names_are_accepted_and_stand_in_when_none_is_given() -> None:
    assert Address() == Address(DEFAULT_NAME, DEFAULT_NAME)
    assert str(Address("u")) == "u/_default"
    assert Address(GLOBAL_NAME, "x").user == "_global"
    assert Address("default") != Address()


@pytest.mark.parametrize(
    ("text", "expected"), [("a/b", Address("a", "b")), ("a", Address("a")), ("_global/x", Address("_global", "x"))]
)
def test_the_text_form_is_read(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a/b/c", "a//b", " a/b", "a/b\n", "../x", "a/.."])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        Address.parse(text)


def test_addresses_are_ordered_by_user_and_then_by_cursor() -> None:
    mixed = [Address("b", "a"), Address("a", "b"), Address("a-b", "a"), Address("a", "a")]
    assert [str(address) for address in sorted(mixed)] == ["a/a", "a/b", "a-b/a", "b/a"]


def test_twins_share_a_folded_form() -> None:
    assert Address("Agent", "Prod").folded == Address("aGENT", "pROD").folded
    assert Address("a", "b").folded != Address("a", "c").folded

"""Patterns of addresses: what they match, which of two says more, and what is no pattern."""

import pytest

from prontodb.errors import InvalidInputError
from prontodb.model.address import Address
from prontodb.model.pattern import Pattern


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*/*", ["a/b", "_default/_default", "_global/x"], []),
        ("agent1/prod", ["agent1/prod"], ["agent1/prod2", "agent11/prod", "Agent1/prod"]),
        ("agent*/prod", ["agent/prod", "agent12/prod"], ["age/prod", "agent1/test"]),
        ("agent1/*", ["agent1/_default", "agent1/x"], ["agent12/x"]),
        ("_g*/*", ["_global/x"], ["global/x"]),
        ("a.*/b-*", ["a.1/b-2"], ["a1/b-2", "a.1/b2"]),
    ],
)
def test_a_pattern_matches_what_it_says_and_nothing_else(pattern: str, yes: list[str], no: list[str]) -> None:
    rule = Pattern.parse(pattern)
    assert str(rule) == pattern
    assert [text for text in (*yes, *no) if rule.matches(Address.parse(text))] == yes


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/", "/a", "*", "a/b/c", "a*b/c", "**/x", "a/*x", ".a*/x", "-*/x", "ä*/x", "a b/*", "con/x", "_x/*",
     "a../x", "a/" + "b" * 65, "b" * 65 + "*/x", "a\n/x", None, 3, ["a/b"]],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Pattern.parse(text)
    assert str(caught.value).isprintable()


def test_of_two_patterns_the_more_exact_one_weighs_more_and_the_user_decides_first() -> None:
    order = ["*/*", "*/p*", "*/prod", "a*/*", "a*/prod", "agent*/*", "agent1/*", "agent1/pr*", "agent1/prod"]
    weights = [Pattern.parse(text).weight for text in order]
    assert weights == sorted(weights)
    assert len(set(weights)) == len(order)

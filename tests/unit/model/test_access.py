"""Access rules decided from grants alone: patterns, rights, prefixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidInputError
from prontodb.model.access import (
    ADMIN,
    EVERYBODY,
    READ,
    RIGHTS,
    WRITE,
    Grant,
    Rules,
    check_pattern,
    check_rights,
    covers,
)
from prontodb.model.address import Address
from prontodb.model.operations import OF_HANDLE, OF_MANAGER, OPERATIONS

NAMES = st.sampled_from(["a", "ab", "b", "team-1", "team-2", "_default", "_global"])
PARTS = st.one_of(NAMES, st.sampled_from(["*", "a*", "team-*", "_*"]))
PATTERNS = st.builds(lambda user, cursor: f"{user}/{cursor}", PARTS, PARTS)
ADDRESSES = st.builds(Address, NAMES, NAMES)
PREFIXES = st.sampled_from(["", "a", "a.", "a.b", "b."])
KEYS = st.sampled_from(["a", "a.b", "a.b.c", "b.x", "ab"])
GRANTS = st.builds(
    Grant,
    st.sampled_from(["p", "q", "*"]),
    PATTERNS,
    PREFIXES,
    st.lists(st.sampled_from([READ, WRITE]), min_size=1),
)


@pytest.mark.parametrize(
    ("pattern", "address", "wanted"),
    [
        ("*", "a/b", True),
        ("*/*", "_global/_default", True),
        ("a/*", "a/b", True),
        ("a/*", "ab/b", False),
        ("a*/prod", "ab/prod", True),
        ("a*/prod", "a/prod", True),
        ("a*/prod", "b/prod", False),
        ("a/prod", "a/prod2", False),
        ("a/prod*", "a/prod2", True),
        ("*/prod", "x/prod", True),
        ("a/b", "A/b", False),
    ],
)
def test_a_pattern_takes_in_what_it_says(pattern: str, address: str, wanted: bool) -> None:
    assert covers(check_pattern(pattern), Address.parse(address)) is wanted


@pytest.mark.parametrize(
    "pattern",
    ["", "a", "a/", "/b", "a/b/c", "*a/b", "a*b/c", "**/a", "a/**", "a?/b", "[ab]/c", "../b", "a/..", "-a*/b", ".*/b",
     "a\n/b", "é*/b", "_x/b", "con/b", 5, None, f"{'x' * 65}*/b"],
)  # fmt: skip
def test_a_pattern_is_names_and_one_star_and_nothing_else(pattern: object) -> None:
    with pytest.raises(InvalidInputError):
        check_pattern(pattern)


@given(PATTERNS, PATTERNS, ADDRESSES)
def test_what_a_pattern_covers_covers_no_more(wide: str, narrow: str, address: Address) -> None:
    if covers(wide, narrow) and covers(narrow, address):
        assert covers(wide, address)


@pytest.mark.parametrize("rights", ["", [], "reed", ["read", "all"], "read,,write", None, 5, ["read", 5], "READ"])
def test_rights_are_the_three_there_are(rights: object) -> None:
    with pytest.raises(InvalidInputError):
        check_rights(rights)


def test_rights_stand_in_order_and_once() -> None:
    assert check_rights("admin, read,read") == (READ, ADMIN)


@pytest.mark.parametrize(
    "fields",
    [
        {"principal": "a b"},
        {"principal": "_x"},
        {"principal": ""},
        {"principal": "a*"},
        {"addresses": "a"},
        {"prefix": "a\nb"},
        {"prefix": 5},
        {"rights": ("admin",), "prefix": "a."},
    ],
)
def test_a_grant_is_checked_when_it_is_made(fields: dict[str, object]) -> None:
    sound: dict[str, object] = {"principal": "a", "addresses": "a/*", "prefix": "", "rights": ("read",)}
    Grant(**sound)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        Grant(**(sound | fields))  # type: ignore[arg-type]


def test_without_a_grant_everything_is_open() -> None:
    for right in RIGHTS:
        assert Rules().allow(None, right, "*/*")


def test_no_right_implies_another() -> None:
    for right in RIGHTS:
        rules = Rules([Grant("p", "*", "", [right])])
        assert [one for one in RIGHTS if rules.allow("p", one, "a/b", "k")] == [right]


@pytest.mark.parametrize(
    ("principal", "right", "place", "text", "wanted"),
    [
        ("agent", READ, "agent/prod", "app.x", True),
        ("agent", READ, "agent/prod", "app.", True),
        ("agent", READ, "agent/prod", "app", False),
        ("agent", READ, "agent/prod", "", False),
        ("agent", WRITE, "agent/prod", "app.x", False),
        ("agent", WRITE, "agent/prod", "app.w.x", True),
        ("agent", READ, "other/prod", "app.x", False),
        ("agent", READ, "agent/*", "app.x", True),
        ("agent", READ, "*/*", "app.x", False),
        ("agent", READ, "_global/config", "public.x", True),
        (None, READ, "_global/config", "public.x", True),
        (None, READ, "_global/config", "private", False),
        (None, READ, "agent/prod", "app.x", False),
        ("operator", ADMIN, "*/*", "", True),
        ("Agent", READ, "agent/prod", "app.x", False),
    ],
)
def test_rules_allow_what_one_grant_takes_in(
    principal: str | None, right: str, place: str, text: str, wanted: bool
) -> None:
    rules = Rules(
        [
            Grant("operator", "*", "", "read,write,admin"),
            Grant("agent", "agent/*", "app.", "read"),
            Grant("agent", "agent/*", "app.w.", "write"),
            Grant(EVERYBODY, "_global/*", "public.", "read"),
        ]
    )
    assert rules.allow(principal, right, place, text) is wanted
    assert rules.explained(principal, right, place, text)[0] is wanted


@given(st.lists(GRANTS, max_size=5), st.sampled_from(["p", "q", "r", None]), ADDRESSES, KEYS, PREFIXES)
def test_the_decision_is_that_of_the_grants_one_by_one(
    grants: list[Grant], principal: str | None, address: Address, key: str, prefix: str
) -> None:
    rules = Rules(grants)
    for right in RIGHTS:
        plainly = not grants or any(
            right in grant.rights
            and grant.principal in ("*", principal)
            and covers(grant.addresses, address)
            and key.startswith(grant.prefix)
            for grant in grants
        )
        assert rules.allow(principal, right, address, key) is plainly
        assert rules.explained(principal, right, address, key)[0] is plainly
        # Who may touch a whole prefix may touch each key in it.
        if key.startswith(prefix) and rules.allow(principal, right, address, prefix):
            assert plainly


def test_an_explanation_says_what_each_grant_lacks() -> None:
    rules = Rules([Grant("operator", "*", "", "admin"), Grant("agent", "agent/*", "app.", "read")])
    _, lines = rules.explained("agent", WRITE, "agent/prod", "b.x")
    assert lines == [
        "agent: read at agent/*, keys that begin with 'app.': does not give write and is only for keys that begin with "
        "'app.'"
    ]
    assert rules.explained("nobody", READ, "agent/prod", "x")[1] == ["no grant is for principal 'nobody' at agent/prod"]
    assert "is not for all of */*" in rules.explained("agent", READ, "*/*", "app.x")[1][0]
    assert "no grant yet" in Rules().explained(None, READ, "*/*")[1][0]


def test_every_operation_of_the_table_needs_a_right_that_there_is() -> None:
    for rights, _ in OPERATIONS.values():
        assert rights
        assert set(rights) <= set(RIGHTS)
    assert OPERATIONS["delete"] == OF_HANDLE["delete"] != OF_MANAGER["delete"]

"""Tokens: what caveats allow together, and that nobody can make them allow more."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.errors import InvalidInputError, InvalidTokenError
from prontodb.model import token
from prontodb.model.access import ADMIN, READ, RIGHTS, WRITE
from prontodb.model.address import Address
from prontodb.model.macaroon import MAX_CAVEATS, Macaroon, made

SECRET = b"s" * 32
ADDRESS = Address("agent1", "prod")
BOUND = token.Identifier(ADDRESS, "ab" * 16, 3, "cd" * 16)


def minted(
    prefix: str = "", rights: str = "read,write", expires_at_ms: int = 1_000_000, by: str = "operator"
) -> Macaroon:
    return token.mint(SECRET, BOUND, prefix=prefix, rights=rights, expires_at_ms=expires_at_ms, by=by)


def with_caveats(*caveats: str) -> Macaroon:
    found = made(BOUND.key(SECRET), BOUND.encode())
    for caveat in caveats:
        found = found.with_caveat(caveat.encode())
    return found


def test_a_minted_token_says_what_it_was_minted_for() -> None:
    found = token.parse(token.text_of(minted("app.")))
    assert token.identifier_of(found) == BOUND
    claims = token.claims_of(found)
    assert (claims.address, claims.prefix, claims.rights) == (ADDRESS, "app.", (READ, WRITE))
    assert (claims.expires_at_ms, claims.issuers) == (1_000_000, "operator")


def test_narrowing_names_the_chain() -> None:
    one = token.narrow(minted(), prefix="app.", by="planner")
    two = token.narrow(one, prefix="app.jobs.", rights="read", expires_at_ms=5, by="sub1")
    claims = token.claims_of(two)
    assert (claims.prefix, claims.rights, claims.expires_at_ms) == ("app.jobs.", (READ,), 5)
    assert claims.issuers == "operator>planner>sub1"
    assert two.is_genuine(BOUND.key(SECRET))


@pytest.mark.parametrize(
    "wider", [{"prefix": ""}, {"prefix": "ap"}, {"prefix": "b."}, {"rights": "write"}, {"rights": "read,admin"},
              {"expires_at_ms": 1_000_001}, {}]
)  # fmt: skip
def test_asking_for_more_is_refused(wider: dict[str, object]) -> None:
    with pytest.raises(InvalidTokenError):
        token.narrow(minted("app.", rights="read"), **wider)  # type: ignore[arg-type]


CAVEATS = st.one_of(
    st.builds("prefix = {}".format, st.sampled_from(["", "a", "a.", "a.b", "b"])),
    st.sets(st.sampled_from(RIGHTS), min_size=1).map(
        lambda some: f"rights = {','.join(r for r in RIGHTS if r in some)}"
    ),
    st.builds("expires = {}".format, st.integers(0, 100)),
    st.builds("address = {}".format, st.sampled_from(["agent1/prod", "agent1/test", "b/prod"])),
    st.builds("by = {}".format, st.sampled_from(["x", "y"])),
)


def allowed(claims: token.Claims) -> set[tuple[str, str, str, int]]:
    """Everything that claims allow of a small world."""
    return {
        (place, right, key, moment)
        for place in ("agent1/prod", "agent1/test", "b/prod")
        for right in RIGHTS
        for key in ("", "a", "a.", "a.b", "a.b.c", "b", "b.x")
        for moment in (0, 50, 100)
        if key.startswith(claims.prefixes(place, right))
        and (claims.expires_at_ms is None or moment < claims.expires_at_ms)
    }


@given(st.lists(CAVEATS, max_size=6), CAVEATS)
def test_one_more_caveat_never_allows_more(caveats: list[str], more: str) -> None:
    before = token.claims_of(with_caveats(*caveats))
    after = token.claims_of(with_caveats(*caveats, more))
    assert allowed(after) <= allowed(before)


@given(st.lists(CAVEATS, max_size=6))
def test_the_order_of_caveats_does_not_matter_to_what_they_allow(caveats: list[str]) -> None:
    assert allowed(token.claims_of(with_caveats(*caveats))) == allowed(token.claims_of(with_caveats(*caveats[::-1])))


@pytest.mark.parametrize(
    "caveat",
    ["", "colour = red", "rights", "rights=read", "rights = ", "rights = write,read", "rights = all",
     "rights = read, write", "expires = soon", "expires = -1", "expires = 007", "expires = 1e9", "expires = \u0661",
     "expires = 99999999999999999", "address = agent1", "address = a/../b", "by = ", "by = a>b", "by = _x",
     "prefix = a\nb", "Prefix = a", " prefix = a"],
)  # fmt: skip
def test_what_is_not_understood_denies(caveat: str) -> None:
    with pytest.raises(InvalidTokenError):
        token.claims_of(with_caveats("rights = read", caveat))


def test_bytes_that_are_no_text_deny() -> None:
    with pytest.raises(InvalidTokenError, match="not UTF-8"):
        token.claims_of(with_caveats().with_caveat(b"by = \xff"))


def test_a_chain_is_bounded() -> None:
    found = minted()
    for number in range(token.MAX_CHAIN - 1):
        found = token.narrow(found, by=f"n{number}")
    with pytest.raises(InvalidTokenError, match="at most 8"):
        token.narrow(found, by="one-more")
    with pytest.raises(InvalidTokenError, match="at most 8"):
        token.claims_of(found.with_caveat(b"by = one-more"))


def test_caveats_are_bounded() -> None:
    found = minted()
    while len(found.caveats) < MAX_CAVEATS:
        found = token.narrow(found, rights="read")
    with pytest.raises(InvalidInputError, match="max_caveats"):
        token.narrow(found, rights="read")


def test_admin_is_of_whole_addresses() -> None:
    with pytest.raises(InvalidTokenError):
        minted("app.", rights="admin")
    narrowed = token.claims_of(token.narrow(minted(rights="read,admin"), prefix="app."))
    assert narrowed.prefixes(ADDRESS, ADMIN) == ()
    assert narrowed.prefixes(ADDRESS, READ) == ("app.",)


def test_another_address_incarnation_or_epoch_has_another_key() -> None:
    others = [
        token.Identifier(Address("agent1", "test"), BOUND.incarnation, 3, BOUND.nonce),
        token.Identifier(ADDRESS, "ff" * 16, 3, BOUND.nonce),
        token.Identifier(ADDRESS, BOUND.incarnation, 4, BOUND.nonce),
    ]
    keys = {one.key(SECRET) for one in (BOUND, *others)} | {BOUND.key(b"t" * 32)}
    assert len(keys) == 5


@pytest.mark.parametrize(
    "identifier",
    [b"", b"1", b"2 agent1/prod ab 3 cd", b"1 agent1 ab 3 cd", b"1 agent1/prod ab x cd", b"1 agent1/prod ab 03 cd",
     b"1 ../x ab 3 cd", b"1 agent1/prod ab 3 \xff", b"1  agent1/prod ab 3 cd"],
)  # fmt: skip
def test_a_macaroon_of_somebody_else_is_no_token(identifier: bytes) -> None:
    with pytest.raises(InvalidTokenError):
        token.identifier_of(made(b"k", identifier))


SPOILT: dict[str, Callable[[str], str]] = {
    "nothing": lambda t: t[:0],
    "without its form": lambda t: t[5:],
    "cut": lambda t: t[:-1],
    "padded": lambda t: t + "=",
    "longer": lambda t: t + "A",
    "upper case": lambda t: t.upper(),
    "with a blank": lambda t: t[:20] + " " + t[20:],
    "with a star": lambda t: t[:30] + "*" + t[30:],
    "not ASCII": lambda t: t + "é",
    "far too long": lambda t: t + "A" * 100_000,
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_text_that_is_not_whole_is_refused_and_never_shown(how: str) -> None:
    text = SPOILT[how](token.text_of(minted("app.secret-prefix")))
    with pytest.raises(InvalidTokenError) as caught:
        token.parse(text)
    assert text[8:40] not in str(caught.value) or len(text) < 9


def test_a_token_is_text() -> None:
    with pytest.raises(InvalidTokenError, match="not int"):
        token.parse(5)


def test_white_space_around_it_is_no_part_of_it() -> None:
    text = token.text_of(minted())
    assert token.text_of(token.parse(f" {text}\n")) == text

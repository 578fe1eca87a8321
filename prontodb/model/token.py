"""Tokens: macaroons whose caveats are of a closed grammar, and what they allow together. Pure.

A caveat is `NAME = VALUE`: address, prefix, rights, expires (milliseconds since 1970, UTC) or by (who cut it down). All
hold at once, so that adding one never allows more. What is not understood denies.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from prontodb.errors import InvalidInputError, InvalidTokenError, LimitError, shown
from prontodb.model import macaroon
from prontodb.model.access import ADMIN, RIGHTS, check_principal, check_rights
from prontodb.model.address import Address
from prontodb.model.key import check_prefix
from prontodb.model.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.macaroon import Macaroon

FORM = "pdb1."
"""How the text form begins; then comes base64url without padding."""
MAX_CHAIN = 8
"""Names in a chain of issuers: it stands in every row of the journal that its sessions write."""
CHAIN_LINK = ">"

_MAX_TEXT = 4 * macaroon.MAX_BYTES // 3 + 16
_KIND = b"1"
_NONCE_BYTES = 16
_MAX_MOMENT_DIGITS = 16


class Identifier(Value):
    """What a token was minted for: an address as it was then. Another incarnation or epoch of it takes no old token."""

    __slots__ = ("address", "incarnation", "epoch", "nonce")

    address: Address
    incarnation: str
    epoch: int
    nonce: str

    def __init__(self, address: Address, incarnation: str, epoch: int, nonce: str) -> None:
        self._fill(address, incarnation, epoch, nonce)

    def encode(self) -> bytes:
        """Return the identifier as it stands in the macaroon."""
        return b" ".join((_KIND, f"{self.address} {self.incarnation} {self.epoch} {self.nonce}".encode()))

    def key(self, secret: bytes) -> bytes:
        """Return the key of the tokens of one incarnation and epoch of an address, made from the root's secret."""
        import hmac

        what = f"prontodb token 1\0{self.address}\0{self.incarnation}\0{self.epoch}"
        return hmac.digest(secret, what.encode(), "sha256")


class Claims(Value):
    """What a token allows, all its caveats taken together. `prefix` None: no key at all."""

    __slots__ = ("address", "prefix", "rights", "expires_at_ms", "chain")

    address: Address | None
    prefix: str | None
    rights: tuple[str, ...]
    expires_at_ms: int | None
    chain: tuple[str, ...]

    def __init__(
        self,
        address: Address | None,
        prefix: str | None = "",
        rights: tuple[str, ...] = RIGHTS,
        expires_at_ms: int | None = None,
        chain: tuple[str, ...] = (),
    ) -> None:
        self._fill(address, prefix, rights, expires_at_ms, chain)

    @property
    def issuers(self) -> str:
        """The chain of those who minted the token and cut it down, as the journal and the logs have it."""
        return CHAIN_LINK.join(self.chain)

    def prefixes(self, place: object, right: str) -> tuple[str, ...]:
        """Return what keys may begin with for the token to give a right to them at all of `place`."""
        if self.address is None or str(self.address) != str(place) or right not in self.rights or self.prefix is None:
            return ()
        # Admin is of whole addresses.
        return () if right == ADMIN and self.prefix else (self.prefix,)


# The text form


def text_of(token: Macaroon) -> str:
    """Return the text form: ASCII, one word."""
    return FORM + urlsafe_b64encode(macaroon.encode(token)).decode().rstrip("=")


def parse(text: object) -> Macaroon:
    """Return the macaroon in a text form; `InvalidTokenError`, which never shows it, for anything else."""
    if not isinstance(text, str):
        raise InvalidTokenError(f"a token is text, not {type(text).__name__}")
    text = text.strip()
    if not text.startswith(FORM) or len(text) > _MAX_TEXT or not text.isascii():
        raise InvalidTokenError(f"this is no token: one begins with {FORM}, as 'prontodb token mint' prints it")
    data = text[len(FORM) :]
    try:
        found = macaroon.decode(urlsafe_b64decode(data + "=" * (-len(data) % 4)))
    except (Base64Error, ValueError) as error:
        raise InvalidTokenError(f"this is no whole token: {_plain(error)}") from None
    if text_of(found) != text:
        raise InvalidTokenError("this is no whole token: it is not in its one form")
    return found


def _plain(error: Exception) -> str:
    # What base64 says may quote what it was given.
    return "it is not base64url" if isinstance(error, Base64Error) else str(error)


def identifier_of(token: Macaroon) -> Identifier:
    """Return what a token was minted for; `InvalidTokenError` for a macaroon that is none of ours."""
    parts = token.identifier.split(b" ")
    try:
        kind, address, incarnation, epoch, nonce = parts
        if kind != _KIND:
            raise InvalidTokenError("this token is of another kind; use a newer ProntoDB")
        found = Identifier(_address(address.decode("ascii")), incarnation.decode("ascii"), int(epoch), nonce.decode())
    except (InvalidInputError, ValueError) as error:
        if isinstance(error, InvalidTokenError):
            raise
        raise InvalidTokenError("this is no token of ProntoDB") from None
    if found.encode() != token.identifier:
        raise InvalidTokenError("this is no token of ProntoDB")
    return found


def _address(text: str) -> Address:
    found = Address.parse(text)
    if str(found) != text:
        raise InvalidTokenError("a token names its address as USER/CURSOR")
    return found


# Caveats


def claims_of(token: Macaroon) -> Claims:
    """Return what the caveats allow together; `InvalidTokenError` when one is not understood.

    Not a proof: whether the token is genuine only the root can say.
    """
    claims = Claims(identifier_of(token).address)
    for caveat in token.caveats:
        claims = _cut_down(claims, *_understood(caveat))
    return claims


def _understood(caveat: bytes) -> tuple[str, str]:
    try:
        name, equals, value = caveat.decode("utf-8").partition(" = ")
    except UnicodeDecodeError:
        raise InvalidTokenError("a caveat of the token is not UTF-8") from None
    if not equals:
        raise InvalidTokenError("a caveat of the token is not understood")
    return name, value


def _cut_down(claims: Claims, name: str, value: str) -> Claims:
    """Return what is left of `claims` under one more caveat; the value must stand in its one form."""
    address, prefix, rights, ends_ms, chain = (getattr(claims, slot) for slot in Claims.__slots__)
    try:
        if name == "address":
            address = address if _address(value) == address else None
        elif name == "prefix":
            check_prefix(value)
            if prefix is not None:
                prefix = value if value.startswith(prefix) else prefix if prefix.startswith(value) else None
        elif name == "rights":
            given = check_rights(value)
            if ",".join(given) != value:
                raise InvalidTokenError("rights of a token stand in order, each once")
            rights = tuple(right for right in rights if right in given)
        elif name == "expires":
            moment = _moment(value)
            ends_ms = moment if ends_ms is None else min(ends_ms, moment)
        elif name == "by":
            chain = (*chain, check_principal(value))
            if len(chain) > MAX_CHAIN:
                raise InvalidTokenError(f"a token names at most {MAX_CHAIN} issuers")
        else:
            raise InvalidTokenError(f"the caveat {shown(name)} of the token is not understood")
    except InvalidTokenError:
        raise
    except InvalidInputError as error:
        raise InvalidTokenError(f"a caveat of the token is wrong: {error}") from None
    return Claims(address, prefix, rights, ends_ms, chain)


def _moment(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_MOMENT_DIGITS and str(int(text)) == text:
        return int(text)
    raise InvalidTokenError("a token's expiry is a whole number of milliseconds")


# Minting and narrowing


def mint(
    secret: bytes,
    minted_for: Identifier,
    *,
    prefix: str,
    rights: object,
    expires_at_ms: int,
    by: str,
) -> Macaroon:
    """Return a new token. The caveats it begins with are all five, so that each is there to be cut down."""
    given, name = check_rights(rights), check_principal(by)
    if ADMIN in given and prefix:
        raise InvalidTokenError("admin is of whole addresses: give it without a prefix, or read and write alone")
    token = macaroon.made(minted_for.key(secret), minted_for.encode())
    for caveat in (
        f"address = {minted_for.address}",
        f"prefix = {check_prefix(prefix)}",
        f"rights = {','.join(given)}",
        f"expires = {expires_at_ms}",
        f"by = {name}",
    ):
        token = token.with_caveat(caveat.encode())
    return token


def narrow(
    token: Macaroon,
    *,
    prefix: str | None = None,
    rights: object = None,
    expires_at_ms: int | None = None,
    by: str | None = None,
) -> Macaroon:
    """Return a token cut down further; needs no root and no secret. `InvalidTokenError` for what would widen it.

    That is said for the holder's sake alone: a caveat that asks for more than the token has gives no more.
    """
    before = claims_of(token)
    added: list[str] = []
    if prefix is not None:
        if before.prefix is None or not check_prefix(prefix).startswith(before.prefix):
            raise InvalidTokenError(f"prefix {shown(prefix)} is not within the token's, {shown(before.prefix or '')}")
        added.append(f"prefix = {prefix}")
    if rights is not None:
        given = check_rights(rights)
        if not set(given) <= set(before.rights):
            raise InvalidTokenError(f"the token has {','.join(before.rights) or 'no rights'}: no more can be given on")
        added.append(f"rights = {','.join(given)}")
    if expires_at_ms is not None:
        if before.expires_at_ms is not None and expires_at_ms > before.expires_at_ms:
            raise InvalidTokenError("the token ends before that; give an earlier end")
        added.append(f"expires = {expires_at_ms}")
    if by is not None:
        if len(before.chain) >= MAX_CHAIN:
            raise InvalidTokenError(f"a token names at most {MAX_CHAIN} issuers, and this one does")
        added.append(f"by = {check_principal(by)}")
    if not added:
        raise InvalidTokenError("nothing was said that cuts the token down: a prefix, rights, an end, or a name")
    if len(token.caveats) + len(added) > macaroon.MAX_CAVEATS:
        raise LimitError("max_caveats", macaroon.MAX_CAVEATS, len(token.caveats) + len(added))
    for caveat in added:
        token = token.with_caveat(caveat.encode())
    return token

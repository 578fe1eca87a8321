"""Tokens: minted and verified at a root, cut down anywhere.

`narrow` and `describe` need no root and no secret: the holder of a token makes one for a sub-agent with them, offline.
"""

from __future__ import annotations

from functools import partial

from prontodb.errors import AddressNotFoundError, InvalidTokenError
from prontodb.model import token as tokens
from prontodb.model.clock import Clock
from prontodb.model.layout import SANDBOX_TOKEN_FILE
from prontodb.model.ttl import ttl_ms
from prontodb.storage.confined import is_kept_out
from prontodb.storage.files import open_root, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.model.token import Claims, Identifier
    from prontodb.storage.files import Folder

DEFAULT_LIFETIME = "1h"
BUSY_TIMEOUT_MS = 50
_NOT_LENT = (
    "this sandboxed run was started with another token or with none, and can verify only its own and what was narrowed "
    "from that; start 'prontodb run --sandbox' with the token"
)
_REVOKED = "the tokens of this address were revoked"


def narrow(
    token: str,
    *,
    prefix: str | None = None,
    rights: str | Iterable[str] | None = None,
    expires: float | str | None = None,
    by: str | None = None,
    clock: Clock | None = None,
) -> str:
    """Return a token cut down further: to keys under `prefix`, to some `rights`, to a shorter life, in the name `by`.

    `expires` is a duration from now: seconds, or text like '15m'. Needs no root. Raises `InvalidTokenError` for what is
    no token and for what would widen it; the root would give no more in any case.
    """
    given = rights if rights is None or isinstance(rights, str) else list(rights)
    ends_ms = None if expires is None else (clock or Clock()).wall_ms() + _lifetime_ms(expires)
    cut = tokens.narrow(tokens.parse(token), prefix=prefix, rights=given, expires_at_ms=ends_ms, by=by)
    return tokens.text_of(cut)


def _lifetime_ms(expires: float | str) -> int:
    return ttl_ms(
        expires,
        "a token's lifetime",
        too_short="to end tokens before their time: prontodb token revoke ADDRESS",
        too_long="none lasts longer, and a new one can be minted any time",
    )


def describe(token: str) -> Claims:
    """Return what a token says of itself: address, prefix, rights, end, issuers. No proof; only its root can tell."""
    return tokens.claims_of(tokens.parse(token))


# At a root


class Verified:
    """A genuine token: what it allows, and the state of its address that it is bound to."""

    __slots__ = ("claims", "minted_for")

    def __init__(self, claims: Claims, minted_for: Identifier) -> None:
        self.claims, self.minted_for = claims, minted_for


class RefusedError(Exception):
    """Why a token counts for nothing; never leaves this package: a denial is made of it."""


def mint(
    layout: Layout,
    address: Address,
    *,
    prefix: str,
    rights: object,
    expires: float | str,
    by: str,
    limits: Limits,
    clock: Clock,
) -> str:
    """Return a new token for an address that exists; the first one makes the root's secret."""
    import os

    from prontodb.engine.sqlite import fencing
    from prontodb.registry import secret

    ends_ms = clock.wall_ms() + _lifetime_ms(expires)
    incarnation, epoch = _state(layout, address)
    held = secret.load_or_make(layout, wait_s=limits.wait_s)
    lowest = held.revoked.get(str(address), 0)
    if epoch < lowest:
        # What lies here is older than a revocation: a restore or an undo has brought it back.
        epoch = fencing.at(layout, address, limits, clock, partial(fencing.revoke_tokens, lowest=lowest))
    minted_for = tokens.Identifier(address, incarnation, epoch, os.urandom(16).hex())
    token = tokens.mint(held.secret, minted_for, prefix=prefix, rights=rights, expires_at_ms=ends_ms, by=by)
    return tokens.text_of(token)


def revoke(layout: Layout, address: Address, *, limits: Limits, clock: Clock) -> int:
    """End every token of an address minted so far, those cut down from them too; return the new epoch.

    On a full disk in the room of the reserve: a token that leaked must end then, too.
    """
    from prontodb.engine.sqlite import fencing
    from prontodb.log import event
    from prontodb.registry import secret
    from prontodb.storage import reserve

    def remember(epoch: int) -> int:
        return reserve.in_its_room(layout, partial(secret.revoke, layout, address, epoch, wait_s=limits.wait_s))

    # Remembered first: killed in between, the tokens have ended all the same.
    lowest = remember(_state(layout, address)[1])
    revoking = partial(fencing.revoke_tokens, lowest=lowest)
    epoch = reserve.in_its_room(layout, partial(fencing.at, layout, address, limits, clock, revoking))
    if epoch > lowest:
        remember(epoch - 1)  # somebody minted in between
    event("tokens.revoked", address=address, token_epoch=epoch)
    return epoch


def verify(layout: Layout, token: str, clock: Clock) -> Verified:
    """Return what a token allows here and now; `RefusedError` with the reason.

    Nothing of the address is looked at before the signature has proven that the root itself minted the token.
    """
    from prontodb.registry import secret

    try:
        parsed = tokens.parse(token)
        minted_for, claims = tokens.identifier_of(parsed), tokens.claims_of(parsed)
    except InvalidTokenError as error:
        raise RefusedError(str(error)) from None
    if layout.sandbox is not None and is_kept_out(layout.root):
        # In a sandbox the secret is closed. The run has proven its own token; what is made of that is as genuine.
        given = lent(layout)
        if given is None or not parsed.is_made_of(tokens.parse(given)):
            raise RefusedError(_NOT_LENT)
        check_current(layout, minted_for)
        check_time(claims, clock)
        return Verified(claims, minted_for)
    held = secret.load(layout)
    if held is None or not parsed.is_genuine(minted_for.key(held.secret)):
        raise RefusedError("it was changed, or another root minted it")
    check_current(layout, minted_for)
    if minted_for.epoch < held.revoked.get(str(minted_for.address), 0):
        raise RefusedError(_REVOKED)
    check_time(claims, clock)
    return Verified(claims, minted_for)


def lend(folder: Folder, token: str) -> None:
    """Lay out the token of a sandboxed run in its private folder: inside, it and those made of it can be verified.

    It is no more than the command has been given. A key of the address would do to verify, and to mint any other.
    """
    folder.create(SANDBOX_TOKEN_FILE, tokens.text_of(tokens.parse(token)).encode())


def lent(layout: Layout) -> str | None:
    """Return the token of the sandboxed run around us, None when it has none: all inside of it go by that."""
    if layout.sandbox is None or not is_kept_out(layout.root):
        return None  # a variable that was left over
    try:
        with open_root(layout.sandbox) as folder:
            found = read_bytes(folder, SANDBOX_TOKEN_FILE)
    except FileNotFoundError:
        return None  # the run has ended; whoever asks for its settings says so
    return None if found is None else found.decode("ascii", "replace")


def check_current(layout: Layout, minted_for: Identifier) -> None:
    """Raise `RefusedError` when the tokens of the address were revoked, or it is another keystore by now."""
    try:
        incarnation, epoch = _state(layout, minted_for.address)
    except AddressNotFoundError:
        incarnation, epoch = "", -1
    if incarnation != minted_for.incarnation:
        raise RefusedError("the address it was minted for was deleted, restored or made anew")
    if epoch != minted_for.epoch:
        raise RefusedError(_REVOKED)


def check_time(claims: Claims, clock: Clock) -> None:
    """Raise `RefusedError` when a token has expired."""
    if claims.expires_at_ms is not None and clock.wall_ms() >= claims.expires_at_ms:
        raise RefusedError("it has expired")


def _state(layout: Layout, address: Address) -> tuple[str, int]:
    from prontodb.engine.sqlite import fencing, opening

    return opening.read(layout, address, fencing.token_state, busy_timeout_ms=BUSY_TIMEOUT_MS)

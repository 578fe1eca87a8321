"""The secret from which a root's tokens are made: 32 random bytes in `keys/tokens.json`, made when first needed.

Beside it stands up to which token epoch the tokens of an address were revoked: what a restore, an undo or a rename puts
in its place says nothing of that, and would bring them back.
"""

from __future__ import annotations

from prontodb.errors import CorruptError, NewerFormatError, shown
from prontodb.model.layout import REGISTRY_LOCK_FILE
from prontodb.storage.files import make_root, open_root, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.storage.files import Folder
    from prontodb.storage.lock import HeldLock

FOLDER = "keys"
FILE = "tokens.json"
FORMAT = 1
SECRET_BYTES = 32
MAX_REVOKED = 4_000
"""Addresses whose revocation is remembered: they fit the file. For one more all begins anew, and every token ends."""


class Held:
    """What the file holds. `revoked`: by address, the lowest token epoch that counts."""

    __slots__ = ("revoked", "secret")

    def __init__(self, secret: bytes, revoked: dict[str, int]) -> None:
        self.secret, self.revoked = secret, revoked


def load(layout: Layout) -> Held | None:
    """Return the secret and what is revoked; None when no token was ever minted here."""
    try:
        with open_root(layout.root, FOLDER) as folder:
            return _read(folder)
    except FileNotFoundError:
        return None


def load_or_make(layout: Layout, *, wait_s: float) -> Held:
    """Return what the file holds; a secret that is made is on disk before it is used."""
    found = load(layout)
    if found is not None:
        return found
    with _lock(layout, "make the tokens' secret", wait_s), make_root(layout.root, FOLDER) as folder:
        # Somebody else's may have come first, and tokens of it may be about.
        found = _read(folder)
        return found or _publish(folder, _new())


def revoke(layout: Layout, address: Address, epoch: int, *, wait_s: float) -> int:
    """Have no token of an address count that was minted by now; return the epoch from which on they count.

    It is above `epoch`, its keystore's, and all revoked before at any address: another keystore of the address, with an
    epoch that it got at another, may be put back there.
    """
    with _lock(layout, "revoke tokens", wait_s), make_root(layout.root, FOLDER) as folder:
        found = _read(folder)
        if found is None:
            return epoch + 1  # there is no token
        name = str(address)
        lowest = max(epoch, *found.revoked.values(), 0) + 1
        if name not in found.revoked and len(found.revoked) >= MAX_REVOKED:
            found = _new()
        found.revoked[name] = lowest
        _publish(folder, found)
        return lowest


def _new() -> Held:
    import os

    return Held(os.urandom(SECRET_BYTES), {})


def _lock(layout: Layout, purpose: str, wait_s: float) -> HeldLock:
    from prontodb.storage import lock

    parts = layout.registry_lock_parts()
    return lock.acquire(layout.root, parts, REGISTRY_LOCK_FILE, purpose=purpose, wait_s=wait_s, one_shot=True)


def _publish(folder: Folder, held: Held) -> Held:
    import json

    fields: dict[str, object] = {"format": FORMAT, "secret": held.secret.hex()}
    if held.revoked:
        fields["revoked"] = held.revoked
    folder.publish(FILE, (json.dumps(fields) + "\n").encode())
    return held


def _read(folder: Folder) -> Held | None:
    fields = read_json(folder, FILE)
    path = f"{folder.path}/{FILE}"
    if fields is None and folder.stat(FILE) is None:
        return None
    version = fields.get("format") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _broken(path, "field 'format' must be a whole number from 1 up")
    if version > FORMAT:
        raise NewerFormatError(shown(path), version, FORMAT)
    secret, revoked = fields.get("secret"), fields.get("revoked", {})
    if not isinstance(revoked, dict) or not all(type(epoch) is int and epoch > 0 for epoch in revoked.values()):
        raise _broken(path, "field 'revoked' must be whole numbers by address")
    if isinstance(secret, str) and len(secret) == 2 * SECRET_BYTES and all(c in "0123456789abcdef" for c in secret):
        return Held(bytes.fromhex(secret), revoked)
    raise _broken(path, f"field 'secret' must be {SECRET_BYTES} bytes in hexadecimal")


def _broken(path: str, reason: str) -> CorruptError:
    return CorruptError(
        f"{shown(path)} is not the tokens' secret: {reason}; put back a copy, or move it away: all tokens end with it"
    )

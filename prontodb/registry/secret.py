"""The secret from which a root's tokens are made: 32 random bytes in `keys/tokens.json`, made when first needed."""

from __future__ import annotations

from prontodb.errors import CorruptError, NewerFormatError, shown
from prontodb.model.layout import REGISTRY_LOCK_FILE
from prontodb.storage.files import make_root, open_root, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.layout import Layout
    from prontodb.storage.files import Folder

FOLDER = "keys"
FILE = "tokens.json"
FORMAT = 1
SECRET_BYTES = 32


def load(layout: Layout) -> bytes | None:
    """Return the secret; None when no token was ever minted here."""
    try:
        with open_root(layout.root, FOLDER) as folder:
            return _read(folder)
    except FileNotFoundError:
        return None


def load_or_make(layout: Layout, *, wait_s: float) -> bytes:
    """Return the secret, made and on disk before it is used."""
    found = load(layout)
    if found is not None:
        return found
    import json
    import os

    from prontodb.storage import lock

    held = lock.acquire(
        layout.root,
        layout.registry_lock_parts(),
        REGISTRY_LOCK_FILE,
        purpose="make the tokens' secret",
        wait_s=wait_s,
        one_shot=True,
    )
    with held, make_root(layout.root, FOLDER) as folder:
        # Somebody else's may have come first, and tokens of it may be about.
        found = _read(folder)
        if found is None:
            found = os.urandom(SECRET_BYTES)
            folder.publish(FILE, (json.dumps({"format": FORMAT, "secret": found.hex()}) + "\n").encode())
        return found


def _read(folder: Folder) -> bytes | None:
    fields = read_json(folder, FILE)
    path = f"{folder.path}/{FILE}"
    if fields is None and folder.stat(FILE) is None:
        return None
    version = fields.get("format") if isinstance(fields, dict) else None
    if not isinstance(fields, dict) or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _broken(path, "field 'format' must be a whole number from 1 up")
    if version > FORMAT:
        raise NewerFormatError(shown(path), version, FORMAT)
    secret = fields.get("secret")
    if isinstance(secret, str) and len(secret) == 2 * SECRET_BYTES and all(c in "0123456789abcdef" for c in secret):
        return bytes.fromhex(secret)
    raise _broken(path, f"field 'secret' must be {SECRET_BYTES} bytes in hexadecimal")


def _broken(path: str, reason: str) -> CorruptError:
    return CorruptError(
        f"{shown(path)} is not the tokens' secret: {reason}; put back a copy, or move it away: all tokens end with it"
    )

"""Which secret opens the keystore in a folder, and which one a new keystore of an address gets.

An address's metadata.json names its secret, so the name and the file that it opens come and go by one rename.
"""

from __future__ import annotations

import os

from prontodb.errors import CorruptError
from prontodb.model.layout import KEYS, METADATA_FILE
from prontodb.model.secret import parsed_name, secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.layout import Keys, Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

PLAIN = 0
"""The generation in the metadata of an address that was decrypted: its record is kept for its backups."""


def name_in(layout: Layout, folder: Folder) -> str | None:
    """Return the name of the secret that opens the keystore in a folder; None for a plain one."""
    found = _named(layout, folder)
    return None if found is None or found[1] == PLAIN else secret_name(*found)


def _named(layout: Layout, folder: Folder) -> tuple[str, int] | None:
    """Return the record and the generation that belong to the keystore in a folder; None when it has none."""
    # One look at a folder's name: a root without encrypted addresses pays for nothing more.
    if not os.path.lexists(layout.path(KEYS)):
        return None
    from prontodb.engine.sqlite import metadata

    try:
        name = metadata.read(folder).encryption
    except CorruptError:
        # A plain keystore works without its metadata; an encrypted one does if a key record says whose it is.
        return keys_of(layout).of_path(folder.path)
    if name is None:
        return None
    parsed = parsed_name(name)
    if parsed is None:
        raise CorruptError(f"{folder.path}/{METADATA_FILE} names a secret that is none of ours")
    return parsed


def secret_in(layout: Layout, folder: Folder) -> Secret | None:
    """Return what opens the keystore in a folder; None for a plain one. `SecretError` when nobody brought it."""
    name = name_in(layout, folder)
    return None if name is None else secret_called(layout, name)


def secret_called(layout: Layout, name: str) -> Secret:
    """Return the secret with a name; `SecretError` when nobody brought it."""
    return keys_of(layout).secret(name)


def secret_of(layout: Layout, name: str | None) -> Secret | None:
    """Return the secret with a name, None for no name."""
    return None if name is None else secret_called(layout, name)


def keys_of(layout: Layout) -> Keys:
    """Return who brings the secrets of a root; when nobody does, who says so."""
    if layout.keys is not None:
        return layout.keys
    from prontodb.encryption.keyring import Keyring

    return Keyring(layout.root, None)


def record_in(layout: Layout, folder: Folder) -> str | None:
    """Return the key record of the address in a folder, also of one that was decrypted; None when it has none."""
    found = _named(layout, folder)
    return None if found is None else found[0]


def new_secret(layout: Layout, address: Address, now_ms: int, record: str | None = None) -> Secret:
    """Make a secret for an address: in its own record, where it has one, else in a new one."""
    keys = keys_of(layout)
    return keys.make(address, now_ms) if record is None else keys.add(record)


def secret_for_restore(
    layout: Layout, address: Address, folder: Folder | None, now_ms: int, like: str | None
) -> tuple[Secret | None, str | None]:
    """Return what is to open a keystore that takes an address's place, and what its metadata says of it.

    `folder` is what lies there now, None for nothing; `like` the name of the secret of what is put in, None for plain.
    What is encrypted stays so, and what was encrypted becomes so.
    """
    record = None if folder is None else record_in(layout, folder)
    name = None if folder is None else name_in(layout, folder)
    if name is not None:
        return secret_called(layout, name), name
    if like is None and (folder is not None or not encrypts_new(layout)):
        return None, plain_name(record)
    parsed = None if like is None else parsed_name(like)
    keys = keys_of(layout)
    if folder is None and parsed is not None and keys.is_of(parsed[0], address):
        secret = keys.newest(parsed[0])  # its address is back
    else:
        secret = new_secret(layout, address, now_ms, record)
    return secret, secret.name


def encrypts_new(layout: Layout) -> bool:
    """True when addresses that are made from now on are to be encrypted."""
    return layout.keys is not None and layout.keys.encrypts_new


def plain_name(record: str | None) -> str | None:
    """Return what the metadata of a plain address says: nothing, or the record that its backups need."""
    return None if record is None else secret_name(record, PLAIN)

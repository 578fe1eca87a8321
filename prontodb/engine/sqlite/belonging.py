"""Which key records belong to an address: those that say they are its, as long as no other address uses them."""

from __future__ import annotations

import os

from prontodb.engine.sqlite import ciphers, folders
from prontodb.errors import ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import KEYS
from prontodb.storage.files import open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret


def records_of(layout: Layout, address: Address) -> list[str]:
    """Return the key records that go when an address goes; also one that is damaged, if its metadata names it.

    Raises what keeps a record from being read that may be the address's, `NewerFormatError` and `UnsafePathError` for
    two: it would stay behind, and open the backups of what is said to be gone.
    """
    if not os.path.lexists(layout.path(KEYS)):
        return []
    keys, name = ciphers.keys_of(layout), str(address)
    # A record has two names while its address is renamed.
    own = [
        record.id
        for record in keys.of_address(name)
        if not any(uses(layout, Address.parse(other), record.id) for other in record.addresses if other != name)
    ]
    named = named_by(layout, address)
    if named is not None and named not in own and keys.is_damaged(named):
        own.append(named)
    doubted: list[str] = []
    if named is not None:
        doubted = [] if named in own else [named]
    elif not own and is_encrypted(layout, address):
        doubted = keys.ids()
    for record in doubted:
        keys.is_of(record, address)
    return own


def named_by(layout: Layout, address: Address) -> str | None:
    """Return the record that the metadata of an address names, whosever that is; None without one."""
    try:
        with open_root(layout.root, *layout.address_parts(address)) as folder:
            return ciphers.named_in(folder)
    except FileNotFoundError:
        return None


def namers(layout: Layout, record: str) -> list[Address]:
    """Return the addresses whose metadata names a key record, whether or not it is theirs."""
    return [one for one in folders.listed(layout) if named_by(layout, one) == record]


def uses(layout: Layout, address: Address, record: str) -> bool:
    """True when the metadata of an address names a record, and when it cannot be told."""
    try:
        with open_root(layout.root, *layout.address_parts(address)) as folder:
            return ciphers.uses(folder, record)
    except FileNotFoundError:
        return any(owner == address for owner, _ in folders.remains(layout))


def take_back(layout: Layout, address: Address, secret: Secret) -> None:
    """Destroy a record that was made for a change which did not come to be."""
    if not uses(layout, address, secret.record):
        ciphers.keys_of(layout).destroy(secret.record)


def settle(layout: Layout, address: Address, records: list[str]) -> None:
    """Say in key records what their address is called now. Both names do until then: `prontodb doctor` ends it."""
    try:
        for record in records:
            ciphers.keys_of(layout).settle(record, address)
    except ProntoError as error:
        event("keys.not_renamed", address=address, reason=str(error))


def is_encrypted(layout: Layout, address: Address) -> bool:
    """True when the file of an address is encrypted, whether or not anything here opens it."""
    try:
        with open_root(layout.root, *layout.address_parts(address)) as folder:
            return not ciphers.is_plain(folder)
    except FileNotFoundError:
        return False


def is_shredded(layout: Layout, address: Address) -> bool:
    """True for an encrypted address whose key record is gone: by a deletion that was killed, or lost."""
    if not is_encrypted(layout, address):
        return False
    record = named_by(layout, address)
    return record is not None and not ciphers.keys_of(layout).has(record)

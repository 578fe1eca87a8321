"""Which secret opens the keystore in a folder, and which one a new keystore of an address gets.

An address's metadata.json names its secret, so the name and the file that it opens come and go by one rename. It is
taken from a key record of that very address alone: who can write the metadata cannot come to another's secret by it.
"""

from __future__ import annotations

import os

from prontodb.errors import CorruptError, ProntoError, SecretError
from prontodb.model.layout import KEYS, KEYSTORE_FILE, METADATA_FILE
from prontodb.model.secret import parsed_name, secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.layout import Keys, Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

PLAIN = 0
"""The generation in the metadata of an address that was decrypted: its record is kept for its backups."""
_NAMING = b'"encryption": "'
"""What stands in a metadata.json that names a secret; one that names none says null there."""


def name_in(layout: Layout, folder: Folder, address: Address) -> str | None:
    """Return the name of the secret that opens the keystore in a folder; None for a plain one."""
    found = _named(layout, folder, address)
    return None if found is None or found[1] == PLAIN else secret_name(*found)


def _named(layout: Layout, folder: Folder, address: Address) -> tuple[str, int] | None:
    """Return the record and the generation that belong to the keystore in a folder; None when it has none."""
    # One look at a folder's name and at one small file: a root without encrypted addresses pays for nothing more.
    if not os.path.lexists(layout.path(KEYS)) and not _may_name_secret(folder):
        return None
    from prontodb.engine.sqlite import metadata

    try:
        name = metadata.read(folder).encryption
    except CorruptError:
        return found_out(layout, folder, address)
    return None if name is None else parsed_name(name) or found_out(layout, folder, address)


def _may_name_secret(folder: Folder) -> bool:
    """True unless the metadata in a folder, not read as JSON yet, plainly names no secret."""
    try:
        return _NAMING in next(folder.chunks(METADATA_FILE), b"")
    except FileNotFoundError:
        return False


def is_plain(folder: Folder) -> bool:
    """True when the file of a keystore is not encrypted, and when there is none.

    SQLite is asked: who closes a file past it gives up every lock that this process holds on it.
    """
    from prontodb.storage import connection as sqlite

    found = folder.stat(KEYSTORE_FILE)
    if found is None:
        return True
    try:
        path = f"{folder.path}/{KEYSTORE_FILE}"
        opened = sqlite.connect(path, mode=sqlite.IMMUTABLE, found=found)
        try:
            sqlite.one(opened, "PRAGMA schema_version")
        finally:
            opened.close()
    except sqlite.ERRORS as error:
        return not sqlite.is_no_database(error)
    except ProntoError as error:
        return not sqlite.is_no_database(error.__cause__)
    return True


def found_out(layout: Layout, folder: Folder, address: Address) -> tuple[str, int] | None:
    """Return what opens a keystore whose metadata is lost: found out by trying what key records say is its.

    None for a plain one without a record; `SecretError` when nothing here opens it.
    """
    keys = keys_of(layout)
    if is_plain(folder):
        records = keys.of_address(address)
        return (records[0].id, PLAIN) if records else None
    for secret in keys.secrets_of(address):
        if _opens(folder, secret):
            return secret.record, secret.generation
    raise SecretError(
        f"{folder.path}/{METADATA_FILE}, which names the secret of {address}, is lost, and no key record that says it "
        f"is of {address} opens it: bring one back: prontodb secret import FILE"
    )


def _opens(folder: Folder, secret: Secret) -> bool:
    from prontodb.storage import connection as sqlite

    found = folder.stat(KEYSTORE_FILE)
    try:
        # Nothing is locked, and no log is played: the first page alone tells.
        opened = sqlite.connect(f"{folder.path}/{KEYSTORE_FILE}", mode=sqlite.IMMUTABLE, found=found, secret=secret)
    except CorruptError:
        return False
    try:
        sqlite.one(opened, "PRAGMA schema_version")
    except sqlite.ERRORS:
        return False
    finally:
        opened.close()
    return True


def secret_in(layout: Layout, folder: Folder, address: Address) -> Secret | None:
    """Return what opens the keystore in a folder; None for a plain one. `SecretError` when nobody brought it."""
    name = name_in(layout, folder, address)
    return None if name is None else keys_of(layout).secret(name, address)


def secret_called(layout: Layout, name: str) -> Secret:
    """Return the secret with a name, whosever it is; `SecretError` when nobody brought it."""
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


def record_in(layout: Layout, folder: Folder, address: Address) -> str | None:
    """Return the key record of the address in a folder, also of one that was decrypted; None when it has none."""
    found = _named(layout, folder, address)
    return None if found is None or not keys_of(layout).is_of(found[0], address) else found[0]


def named_in(folder: Folder) -> str | None:
    """Return the record that the metadata in a folder names, whosever that is; None when it names none."""
    from prontodb.engine.sqlite import metadata

    try:
        name = metadata.read(folder).encryption
    except CorruptError:
        return None
    parsed = None if name is None else parsed_name(name)
    return None if parsed is None else parsed[0]


def uses(folder: Folder, record: str) -> bool:
    """True when the keystore in a folder may be opened with a record: its metadata names it, or cannot be read."""
    from prontodb.engine.sqlite import metadata

    try:
        name = metadata.read(folder).encryption
    except CorruptError:
        return True
    parsed = None if name is None else parsed_name(name)
    return name is not None and (parsed is None or parsed[0] == record)


def new_secret(
    layout: Layout, address: Address, now_ms: int, record: str | None = None, *, forgetting: bool = False
) -> tuple[Secret, bool]:
    """Make a secret for an address: in the record it has, or one that it had; True when that is a new record."""
    keys = keys_of(layout)
    if record is not None:
        return keys.add(record, forgetting=forgetting), False
    for left in keys.of_address(address):
        try:
            return keys.add(left.id), False  # of a change that was killed, or of what was here before
        except SecretError:
            continue  # sealed with another key
    return keys.make(address, now_ms), True


def secret_for_restore(
    layout: Layout, address: Address, folder: Folder | None, now_ms: int, like: str | None
) -> tuple[Secret | None, str | None, bool]:
    """Return what is to open a keystore that takes an address's place, what its metadata says, and if a record is new.

    `folder` is what lies there now, None for nothing; `like` the name of the secret of what is put in, None for plain.
    What is encrypted stays so, and what was encrypted becomes so.
    """
    keys = keys_of(layout)
    found = None if folder is None else _named(layout, folder, address)
    record = found[0] if found is not None and keys.is_of(found[0], address) else None
    if found is not None and record is not None and found[1] != PLAIN:
        name = secret_name(*found)
        return keys.secret(name, address), name, False
    sealed = found is not None and found[1] != PLAIN  # and its record is lost, or is not its own
    if like is None and not sealed and (folder is not None or not encrypts_new(layout)):
        return None, plain_name(record), False
    parsed = None if like is None else parsed_name(like)
    if folder is None and parsed is not None and keys.is_of(parsed[0], address):
        secret, is_new = keys.newest(parsed[0]), False  # its address is back
    else:
        secret, is_new = new_secret(layout, address, now_ms, record)
    return secret, secret.name, is_new


def encrypts_new(layout: Layout) -> bool:
    """True when addresses that are made from now on are to be encrypted."""
    return layout.keys is not None and layout.keys.encrypts_new


def plain_name(record: str | None) -> str | None:
    """Return what the metadata of a plain address says: nothing, or the record that its backups need."""
    return None if record is None else secret_name(record, PLAIN)

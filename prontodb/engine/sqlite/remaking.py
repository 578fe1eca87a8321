"""Making an address's metadata.json anew, when it is lost or no metadata at all, from what is known besides it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import ciphers, metadata, opening
from prontodb.errors import CorruptError, ProntoError, UnsafePathError
from prontodb.log import event
from prontodb.model.layout import KEYS, KEYSTORE_FILE, METADATA_FILE
from prontodb.model.secret import secret_name
from prontodb.storage.files import read_json

if TYPE_CHECKING:
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.storage.files import Folder

ASIDE = ".aside"
"""The end of the name of what stood in the place of the metadata: `metadata.json.NUMBER.aside`."""


def wrong(layout: Layout, address: Address) -> str | None:
    """Return why the metadata of an address is to be made anew; None when it can be used, or the keystore is damaged.

    Raises `NewerFormatError` for one of a newer format, which stays; `SecretError` for a keystore that nothing here
    opens; `UnsafePathError` for a file that is mended where it is, such as one of somebody else.
    """
    with opening.open_folder(layout, address) as folder:
        fault = _fault(folder)
        if fault is None or not (os.path.lexists(layout.path(KEYS)) or ciphers.is_plain(folder)):
            return None  # without key records, what is no database is damaged and not encrypted
        ciphers.found_out(layout, folder, address)
        return fault


def blocks(layout: Layout, address: Address) -> bool:
    """True when what stands in the place of the metadata keeps the keystore from being opened."""
    with opening.open_folder(layout, address) as folder:
        return not _is_file_or_nothing(folder)


def _is_file_or_nothing(folder: Folder) -> bool:
    found = folder.stat(METADATA_FILE)
    return found is None or stat.S_ISREG(found.st_mode)


def _fault(folder: Folder) -> str | None:
    try:
        metadata.read(folder)
    except CorruptError as error:
        return str(error)
    except UnsafePathError as error:
        if _is_file_or_nothing(folder):
            raise
        return str(error).partition("; move it away")[0]
    return None


def remake(lifecycle: Lifecycle, address: Address, created_at_ms: int | None) -> str:
    """Make the metadata anew; return what was done. A file or folder of ours in its place is kept beside it.

    `created_at_ms`: when the address was made, as far as the registry knows. Which secret opens the keystore is found
    out by trying those in the key records that say they are the address's. After a crash it is old, missing or new.
    """
    layout = lifecycle.layout
    # Nobody puts another keystore into the place meanwhile. The keystore itself is not written, so sessions may go on.
    with (
        lifecycle.hold_creation(address.user, f"make the metadata of {address} anew"),
        opening.open_folder(layout, address) as folder,
    ):
        if _fault(folder) is None:
            return f"the metadata of {address} was mended by somebody else"
        named = ciphers.found_out(layout, folder, address)
        created, labels = _saved(folder, created_at_ms)
        kept = _put_aside(folder)
        image = metadata.image(created, labels, None if named is None else secret_name(*named))
        folder.publish(METADATA_FILE, image)
        event("address.metadata_remade", address=address, kept=kept)
    return f"made the metadata of {address} anew" + ("" if kept is None else f"; what was there is {kept}")


def _saved(folder: Folder, created_at_ms: int | None) -> tuple[int, dict[str, str]]:
    """Return the moment of creation and the labels, as far as anything says them."""
    try:
        fields = read_json(folder, METADATA_FILE)
    except ProntoError:
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    pairs, said = fields.get("labels"), fields.get("created_at")
    labels = {name: text for name, text in pairs.items() if isinstance(text, str)} if isinstance(pairs, dict) else {}
    if metadata.is_moment(said):
        return said, labels
    if created_at_ms is None:
        found = folder.stat(KEYSTORE_FILE)
        created_at_ms = 0 if found is None else found.st_mtime_ns // 1_000_000
    return created_at_ms, labels


def _put_aside(folder: Folder) -> str | None:
    """Take what is there out of the way; None when it is nothing to keep: a link or a pipe, which holds nothing."""
    found = folder.stat(METADATA_FILE)
    if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return None
    name = f"{METADATA_FILE}.{int.from_bytes(os.urandom(6))}{ASIDE}"
    folder.rename(METADATA_FILE, name)
    return f"{folder.path}/{name}"

"""Where backups are meant to be: in the root, in a folder that somebody names, or one backup in such a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prontodb.backup.container import Container, Listing
from prontodb.backup.manifest import FULL, INCREMENTAL, MANIFEST_FILE, Manifest, is_backup_id
from prontodb.errors import BackupNotFoundError, InvalidInputError, shown
from prontodb.storage.files import resolved

if TYPE_CHECKING:
    from prontodb.model.layout import Layout


def container_at(path: object, layout: Layout | None = None) -> Container:
    """Return the container at a path that somebody names; it need not exist yet."""
    return Container(resolved(os.path.abspath(_as_path(path))), by_kind=False, layout=layout)


def _as_path(path: object) -> str:
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidInputError("a backup, or the folder of backups, is named by its id or a path")
    try:
        os.fsencode(found)
    except UnicodeEncodeError:
        raise InvalidInputError(f"{shown(found)} is no path on this system") from None
    return found


def outside(layout: Layout, path: object) -> Container:
    """Return the container at a path that lies in no folder of the root's own."""
    container = container_at(path, layout)
    root = resolved(layout.root)
    if container.path == root or container.path.startswith(f"{root}/"):
        raise InvalidInputError(f"{shown(container.path)} lies in the root itself; name a folder elsewhere")
    return container


def located(layout: Layout, reference: object) -> tuple[Container, Listing, Manifest | None]:
    """Return the backup that is meant: an id (or how it begins) in the root, the path of one, or of a container.

    The manifest is None where a container is meant and not one of its backups; None means the root's.
    """
    if reference is None:
        container = Container.of_root(layout)
        return container, container.list(), None
    reference = _as_path(reference)
    if "/" not in reference and not os.path.isdir(reference):
        container = Container.of_root(layout)
        listing = container.list()
        return container, listing, listing.find(reference)
    path = resolved(os.path.abspath(reference))
    above, name = os.path.split(path)
    if is_backup_id(name):
        if os.path.basename(above) in (FULL, INCREMENTAL):
            above = os.path.dirname(above)
        container = container_at(above, layout)
        listing = container.list()
        return container, listing, listing.find(name)
    if not os.path.isdir(path):
        raise BackupNotFoundError(reference)
    if os.path.exists(f"{path}/{MANIFEST_FILE}"):
        raise InvalidInputError(
            f"{shown(path)} is a backup under another name; give it back the one that its {MANIFEST_FILE} says"
        )
    container = container_at(path, layout)
    listing = container.list()
    if not listing.backups and not listing.unreadable:
        raise BackupNotFoundError(reference)
    return container, listing, None

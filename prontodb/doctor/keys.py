"""The key records of a root as the doctor sees them: damaged ones, and what changes left that were killed."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from prontodb.doctor.findings import MEND, NEWER, REPAIR, error, warning
from prontodb.errors import BusyError, NewerFormatError, ProntoError, SecretError, UnsafePathError
from prontodb.model.address import Address
from prontodb.model.layout import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.doctor.findings import Problem
    from prontodb.encryption.keyring import Keyring
    from prontodb.engine.sqlite.lifecycle import Lifecycle


def problems(lifecycle: Lifecycle) -> Iterator[Problem]:
    """Name what is wrong with key records. Needs no key: whether they open, their addresses say."""
    if not os.path.lexists(lifecycle.layout.path(KEYS)):
        return
    from prontodb.encryption.keyring import Keyring

    keyring = Keyring(lifecycle.layout.root, None)
    for record in sorted(keyring.ids()):
        yield from _record(lifecycle, keyring, record)
    if keyring.remains():

        def heal() -> str:
            keyring.tidy()
            return "removed what changes that were killed had left in keys/"

        yield warning("changes of key records that were killed left copies of them in keys/", REPAIR, heal)
    for path in keyring.aside():
        yield warning(
            f"{path} is a key record that an imported one took the place of",
            f"prontodb secret import {shlex.quote(path)}, with the key that it is sealed with; or remove it",
        )


def _record(lifecycle: Lifecycle, keyring: Keyring, record: str) -> Iterator[Problem]:
    try:
        found = keyring.record(record)
    except NewerFormatError as newer:
        yield error(str(newer), NEWER)
        return
    except UnsafePathError:
        return  # the walk over all files has said it, with the command
    except SecretError as damaged:
        if keyring.has(record):  # else its address was deleted just now
            yield error(str(damaged), "prontodb secret import FILE, with the copy that was exported")
        return
    except ProntoError as trouble:
        yield error(str(trouble), MEND)
        return
    if found.also is None:
        return

    def heal() -> str:
        return f"said in {found} that it is of {lifecycle.settle_record(record, found.addresses)}"

    try:
        with lifecycle.hold_all(f"look at {found}", *map(Address.parse, found.addresses), wait_s=0, sealed=True):
            pass
    except BusyError:
        return  # it is being renamed
    yield warning(f"{found} is of {found.also}, too: a rename was killed", REPAIR, heal)

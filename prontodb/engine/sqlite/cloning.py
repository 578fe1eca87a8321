"""A new address filled from another before anybody can see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.engine.sqlite import opening, schema, transactions, writing
from prontodb.engine.sqlite.context import Target
from prontodb.errors import CorruptError
from prontodb.model import quotas
from prontodb.model.key import after, prefix_end
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.limits import Limits
from prontodb.model.operation import FOREVER, Fence, Op
from prontodb.model.reports import CopyReport
from prontodb.storage import connection as sqlite
from prontodb.storage.files import identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.entry import Entry
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection

SESSION = "copy"


def clone(
    lifecycle: Lifecycle,
    source: Address,
    target: Address,
    keys: Sequence[str] | None,
    prefix: str,
    limits: Limits,
    clock: Clock,
    fence: Fence | None = None,
) -> CopyReport:
    """Make `target` with the entries of `source`: all, the given `keys`, or those under `prefix`; one snapshot.

    A copy of all takes the namespaces' default lifetimes along; one of a part that has no entries makes nothing.
    `fence` says on whose behalf. Raises `AddressExistsError` when the target exists. A crash at any step leaves no
    target or a complete one.
    """
    wanted = None if keys is None else list(dict.fromkeys(keys))
    # A new keystore has its own epochs: only who copies is taken over from the fence.
    author = Fence(SESSION if fence is None else fence.author)
    reader, _ = opening.open_reader(lifecycle.layout, source, busy_timeout_ms=round(limits.wait_s * 1_000))
    copied = 0

    def pages() -> Iterator[list[Entry]]:
        return _pages(reader, wanted, prefix, clock.wall_ms(), limits.max_page)

    def fill(folder: str, secret: Secret | None) -> None:
        nonlocal copied
        path = f"{folder}/{KEYSTORE_FILE}"
        found = identity(path)
        if found is None:
            raise CorruptError("the staged keystore vanished while it was filled")
        writer = sqlite.connect(path, secret=secret)
        try:
            schema.check(writer, path)
            sqlite.lock_down(writer)
            file = Target(path, found, quotas.unhurried(limits.at(target)))
            for page in pages():
                ops = [Op(entry.key, entry.value, FOREVER, None, entry.expires_at_ms) for entry in page]
                batch = writing.Batch(ops, author)
                writing.apply(writer, file, (batch,), clock.wall_ms())
                if batch.error is not None:
                    raise batch.error
                copied += len(ops)
            if wanted is None and not prefix:
                for namespace, ttl_ms in transactions.lifetimes(reader).items():
                    writing.set_lifetime(writer, file, namespace, ttl_ms, author, clock.wall_ms())
        finally:
            writer.close()

    try:
        reader.execute("BEGIN DEFERRED").close()  # one snapshot for all pages
        if (wanted is None and not prefix) or any(pages()):
            # A copy of what is encrypted is encrypted, too.
            lifecycle.create_filled(target, fill, encrypted=True if reader.secret is not None else None)
    except sqlite.ERRORS as error:
        raise sqlite.translated(error, lifecycle.layout.keystore_path(source)) from error
    finally:
        reader.close()
    return CopyReport(copied=copied, absent=0 if wanted is None else len(wanted) - copied)


def _pages(
    reader: Connection, keys: Sequence[str] | None, prefix: str, now_ms: int, size: int
) -> Iterator[list[Entry]]:
    if keys is not None:
        for key in keys:
            entry = transactions.read_one(reader, key, now_ms)
            if entry is not None:
                yield [entry]
        return
    lo, hi = prefix, prefix_end(prefix)
    while page := transactions.scan(reader, lo, hi, size, now_ms):
        yield page
        lo = after(page[-1].key)

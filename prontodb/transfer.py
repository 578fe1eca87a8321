"""Export to JSON lines and import from them: checked as a whole first, then written.

Nothing here suspends when the keyspace does not, so that one-shot commands drive the same functions
(`direct.run`). The format is `model/exchange.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.bulk import FAIL, BulkWriter, check_on_conflict, needs
from prontodb.errors import ConflictError, InvalidImportError, InvalidInputError, NewerFormatError
from prontodb.model import exchange
from prontodb.model.access import READ
from prontodb.model.exchange import LineReader, max_line_bytes
from prontodb.model.key import check_prefix
from prontodb.model.limits import MIB
from prontodb.model.reports import ImportReport
from prontodb.storage.files import translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from prontodb.keystore import Keystore
    from prontodb.model.limits import Limits
    from prontodb.model.operation import Op

MAX_IMPORT_BYTES = 256 * MIB
"""Lines of a stream, held until the last one is checked. A file that can be read twice has no such limit."""

KEYS_PAGE = 1_000
"""Keys looked up at a time when conflicts are searched for."""


async def export_lines(keystore: Keystore, prefix: str = "") -> AsyncIterator[str]:
    """Yield the entries whose keys begin with `prefix` as lines of ASCII JSON, without line ends.

    A head comes first and an end with the count last: a file without it was cut. Read like `Keystore.scan`,
    page by page.
    """
    keystore._allow(READ, check_prefix(prefix))
    yield exchange.head(keystore.address)
    count = 0
    async for entry in keystore.scan(prefix):
        yield exchange.line_of(entry)
        count += 1
    yield exchange.end(count)


class Checked:
    """An import that was read to its end and found right; `ops()` gives its operations, as often as asked."""

    def __init__(self, ops: Callable[[], Iterator[Op]], keys: list[str], expired: int) -> None:
        self.ops, self.expired = ops, expired
        keys.sort()
        self.keys: Sequence[str] = keys


def check_lines(lines: Iterable[bytes | str], limits: Limits, now_ms: int) -> Checked:
    """Read and check all of `lines`, at most 256 MiB, and hold what they say.

    Raises `InvalidImportError` with the number of the first wrong line. Blocks while it works: hand large
    imports to a worker thread, then `store` what it returns.
    """
    # A text is an iterable too, of its characters.
    if isinstance(lines, (str, bytes)) or not hasattr(lines, "__iter__"):
        raise InvalidInputError(f"lines must be several lines, such as a list or a file, not {type(lines).__name__}")
    held: list[Op] = []
    size = 0

    def counted() -> Iterator[bytes | str]:
        nonlocal size
        for line in lines:
            yield line
            # Afterwards, when the reader has judged that it is a line, and not longer than one may be.
            size += len(line)
            if size > MAX_IMPORT_BYTES:
                raise InvalidImportError(
                    f"a stream may hold {MAX_IMPORT_BYTES:,} bytes, since all of it is checked before it is "
                    "written; import from a file, which can be read twice"
                )

    def keep(op: Op) -> None:
        held.append(op)

    keys, expired = _check(_ops(counted(), limits), now_ms, keep)
    return Checked(lambda: iter(held), keys, expired)


def check_file(file: BinaryIO, limits: Limits, now_ms: int) -> Checked:
    """`check_lines` for an open file: one that can seek is read twice and may have any length."""
    if not file.seekable():
        return check_lines(_bounded_lines(file, limits), limits, now_ms)
    begin = file.tell()
    keys, expired = _check(_ops(_bounded_lines(file, limits), limits), now_ms)

    def again() -> Iterator[Op]:
        file.seek(begin)
        try:
            for op in _ops(_bounded_lines(file, limits), limits):
                if not _is_expired(op, now_ms):
                    yield op
        except (InvalidImportError, NewerFormatError) as error:
            raise ConflictError(f"the file changed while it was imported: {error}") from error

    return Checked(again, keys, expired)


async def store(
    keystore: Keystore,
    checked: Checked,
    *,
    on_conflict: str = FAIL,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Write a checked import; see `import_lines`."""
    if keystore._gate is not None:
        keystore._gate.check_keys(needs(on_conflict), checked.keys)
    writer = BulkWriter(keystore, on_conflict, progress)
    await writer.write(_awaited(checked.ops()), lambda: _pages(checked.keys))
    return ImportReport(
        imported=writer.written,
        kept=writer.kept,
        expired=checked.expired + writer.expired,
        batches=writer.batches,
    )


async def import_lines(
    keystore: Keystore,
    lines: Iterable[bytes | str],
    *,
    on_conflict: str = FAIL,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Store the entries in `lines`: an export, or JSON objects with `key`, `value` and perhaps a lifetime.

    All lines are checked before any is written: `InvalidImportError` names the first that is wrong, and
    nothing was written. Expiry is kept as the moment it is; entries past theirs are left out and counted.
    Revision and times of creation are the keystore's own, as after `set`.

    `on_conflict`: 'fail' writes nothing and raises `RevisionConflictError` when the keystore has one of the
    keys, 'keep' leaves its entry, 'replace' writes over it. What fits one batch is written in one step; more
    in batches, each all or nothing, as `copying.copy_many` says in full.
    """
    check_on_conflict(on_conflict)
    checked = check_lines(lines, keystore._limits, keystore._clock.wall_ms())
    return await store(keystore, checked, on_conflict=on_conflict, progress=progress)


async def import_file(
    keystore: Keystore,
    file: BinaryIO,
    *,
    on_conflict: str = FAIL,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """`import_lines` from an open binary file: of any length when it can seek, up to 256 MiB otherwise.

    The file must not change meanwhile: a line that was right at first and then is not raises `ConflictError`,
    and the batches before it stay.
    """
    check_on_conflict(on_conflict)
    checked = check_file(file, keystore._limits, keystore._clock.wall_ms())
    return await store(keystore, checked, on_conflict=on_conflict, progress=progress)


def _check(ops: Iterator[Op], now_ms: int, keep: Callable[[Op], None] | None = None) -> tuple[list[str], int]:
    """Read all of `ops`; return the keys of those that live, and how many do not."""
    keys: list[str] = []
    expired = 0
    try:
        for op in ops:
            if _is_expired(op, now_ms):
                expired += 1
                continue
            keys.append(op.key)
            if keep is not None:
                keep(op)
    except InvalidImportError as error:
        raise InvalidImportError(f"{error}; nothing was written") from None
    return keys, expired


def _ops(lines: Iterable[bytes | str], limits: Limits) -> Iterator[Op]:
    reader = LineReader(limits)
    for line in lines:
        op = reader.feed(line)
        if op is not None:
            yield op
    reader.finish()


def _bounded_lines(file: BinaryIO, limits: Limits) -> Iterator[bytes]:
    """Yield the lines of `file`; one that is too long comes cut, just long enough to be refused."""
    most = max_line_bytes(limits) + 1
    try:
        while line := file.readline(most):
            yield line
    except OSError as error:
        raise translated(error, str(getattr(file, "name", "the import"))) from error


def _is_expired(op: Op, now_ms: int) -> bool:
    return op.expires_at_ms is not None and op.expires_at_ms <= now_ms


async def _awaited(ops: Iterator[Op]) -> AsyncGenerator[Op, None]:
    for op in ops:
        yield op


async def _pages(keys: Sequence[str]) -> AsyncGenerator[Sequence[str], None]:
    for begin in range(0, len(keys), KEYS_PAGE):
        yield keys[begin : begin + KEYS_PAGE]

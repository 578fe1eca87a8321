"""A keystore's log begins anew again and again while it is written without a pause and read: it does not grow on."""

from pathlib import Path

import anyio
import pytest

import prontodb
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.storage import connection as sqlite
from tests.managing import managed

PAGES = 50
"""After so many pages a commit carries the log into the keystore; 4,000 outside of this test."""
BOUND_BYTES = 2 * PAGES * (4_096 + 24)
WRITERS, SETS_EACH = 5, 100
VALUE_BYTES = 4_000
HOME = Address("agent", "prod")


async def largest_log(keystore: prontodb.Keystore, root: Path) -> int:
    """Write much from many tasks, with reads beside; return the size of the largest log there was."""
    log = Path(f"{Layout(str(root)).keystore_path(HOME)}-wal")
    largest = reads = 0

    async def write(task: int) -> None:
        nonlocal largest
        for number in range(SETS_EACH):
            await keystore.set(f"app.k{number % 10}", f"{task} {number} ".ljust(VALUE_BYTES, "."))
            largest = max(largest, log.stat().st_size)

    async def read() -> None:
        nonlocal reads
        while True:
            await keystore.get("app.k1")
            reads += len([entry async for entry in keystore.scan("app.")])
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as readers:
        readers.start_soon(read)
        readers.start_soon(read)
        async with anyio.create_task_group() as writers:
            for task in range(WRITERS):
                writers.start_soon(write, task)
        readers.cancel_scope.cancel()
    assert reads > 0
    return largest


@pytest.mark.plain("another connection reads the file without its secret")
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
async def test_the_log_stays_bounded_under_constant_writing_with_reads_beside(
    root: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(sqlite, "AUTOCHECKPOINT_PAGES", PAGES)
    assert WRITERS * SETS_EACH * VALUE_BYTES > 4 * BOUND_BYTES
    async with managed(root) as manager, manager.session(HOME.user, HOME.cursor, mode=mode) as keystore:
        assert 0 < await largest_log(keystore, root) <= BOUND_BYTES

        # The measure can tell: somebody who stays in one snapshot keeps the log from beginning anew.
        reader = sqlite.connect(Layout(str(root)).keystore_path(HOME), mode=sqlite.READ_ONLY)
        reader.execute("BEGIN DEFERRED").close()
        reader.execute("SELECT count(*) FROM kvstore").fetchall()
        assert await largest_log(keystore, root) > BOUND_BYTES
        reader.close()

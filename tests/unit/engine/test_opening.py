"""Opening an address that another process removes, or replaces, at this very moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prontodb.direct import lifecycle
from prontodb.engine.sqlite import opening, transactions
from prontodb.errors import AddressNotFoundError
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import Op
from prontodb.storage import connection as sqlite
from tests.managing import managed
from tests.unit.engine.conftest import new_store
from tests.unit.engine.store import HERE, NOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from prontodb.storage.connection import Connection


@pytest.fixture
def address(root: Path) -> Layout:
    """A root with an address that holds k."""
    store = new_store(root)
    store.apply(Op("k", "old"))
    store.close()
    return store.layout


def deleted_meanwhile(monkeypatch: pytest.MonkeyPatch, layout: Layout, *, again: bool) -> None:
    """Have the address deleted between our look at its files and SQLite's, and with `again` made anew, once."""
    connect: Callable[..., Connection] = sqlite.connect
    waiting = [True]

    def meanwhile(path: str, **options: Any) -> Connection:
        if waiting and path == layout.keystore_path(HERE):
            waiting.clear()
            others = lifecycle(layout, Limits(), ManualClock())
            others.delete(HERE)
            if again:
                others.create(HERE)
        return connect(path, **options)

    monkeypatch.setattr(sqlite, "connect", meanwhile)


@pytest.mark.parametrize("opened", ["reader", "writer"])
def test_an_address_deleted_while_it_is_opened_does_not_exist(
    address: Layout, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    deleted_meanwhile(monkeypatch, address, again=False)
    with pytest.raises(AddressNotFoundError):
        if opened == "reader":
            opening.open_reader(address, HERE)
        else:
            opening.open_writer(address, HERE, Limits())


def test_an_address_made_anew_while_it_is_opened_is_the_new_one(
    address: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_meanwhile(monkeypatch, address, again=True)
    found = opening.read(
        address, HERE, lambda connection: transactions.read_one(connection, "k", NOW), busy_timeout_ms=1_000
    )
    assert found is None


async def test_a_session_that_reads_an_address_deleted_while_it_opens_finds_what_is_there_then(
    address: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_meanwhile(monkeypatch, address, again=True)
    async with managed(Path(address.root)) as manager:
        async with manager.session(HERE.user, HERE.cursor, mode="read") as ks:
            assert await ks.get("k") is None
        deleted_meanwhile(monkeypatch, address, again=False)
        await manager._engine.release(HERE)
        with pytest.raises(AddressNotFoundError):
            async with manager.session(HERE.user, HERE.cursor, mode="read"):
                pass

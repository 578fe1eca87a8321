"""What is known of a keystore without opening it again: facts that hold as long as its files look the same.

They save work and decide nothing that matters: a full backup and every verification ignore them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, opening
from prontodb.engine.sqlite.snapshot import mark_of
from prontodb.model.history import Fact
from prontodb.storage.connection import one

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from typing import Protocol

    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.storage.connection import Connection

    class Notebook(Protocol):
        """Where facts are kept between runs. Its calls never raise: what is lost is found out again."""

        def facts(self) -> Mapping[Address, Fact]:
            """Return all that is known."""

        def keep_facts(self, facts: Mapping[Address, Fact | None]) -> None:
            """Keep facts; None forgets an address."""


_NEXT_EXPIRY = "SELECT min(ttl_expires_at) FROM kvstore WHERE ttl_expires_at IS NOT NULL"


class Knowledge:
    """What one run knows and learns of many keystores."""

    def __init__(self, notebook: Notebook | None) -> None:
        self._notebook = notebook
        self._known: Mapping[Address, Fact] = {} if notebook is None else notebook.facts()
        self._learned: dict[Address, Fact | None] = {}

    def of(self, address: Address, stamp: folders.Stamp | None) -> Fact | None:
        """Return what is known of an address whose files look like `stamp` now; None when they have changed."""
        fact = self._known.get(address)
        return fact if fact is not None and stamp is not None and fact.stamp == stamp.text else None

    def learn(self, address: Address, connection: Connection, stamp: folders.Stamp | None, now_ms: int) -> Fact:
        """Ask an open keystore whose files looked like `stamp` before it was opened."""
        mark, _ = mark_of(connection)
        expiry = one(connection, _NEXT_EXPIRY)[0]
        fact = Fact("" if stamp is None else stamp.text, mark, expiry if isinstance(expiry, int) else None)
        if stamp is not None and stamp.is_settled(now_ms):
            self._learned[address] = fact
        return fact

    def forget_all_but(self, addresses: Container[Address]) -> None:
        """Know nothing more of addresses that are gone."""
        self._learned |= {address: None for address in self._known if address not in addresses}

    def keep(self) -> None:
        """Write down what was learned, and forget addresses that were told to be forgotten."""
        if self._notebook is not None and self._learned:
            self._notebook.keep_facts(self._learned)
            self._learned = {}


def ask(layout: Layout, address: Address, knowledge: Knowledge, now_ms: int, *, busy_timeout_ms: int) -> Fact:
    """Open a keystore and learn where its history stands and when its next entry expires."""
    stamp = folders.stamp_of(layout, address)
    return opening.read(
        layout,
        address,
        lambda connection: knowledge.learn(address, connection, stamp, now_ms),
        busy_timeout_ms=busy_timeout_ms,
    )

"""The parts of a root, wired up and filled. Imports no test tool, so that many processes can start with it at once."""

from collections.abc import Mapping
from pathlib import Path

from prontodb.addresses import AddressBook
from prontodb.direct import OneShot, run
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.model.address import Address
from prontodb.model.clock import Clock, ManualClock
from prontodb.model.layout import Layout
from prontodb.registry.addresses import AddressRegistry
from tests import encrypted

encrypted.join()


class Parts:
    """The parts of one root, wired as the command line wires them; a new one has seen nothing of what went before."""

    def __init__(self, root: Path, clock: Clock | None = None, wait_s: float = 5.0) -> None:
        self.layout, self.clock = Layout(str(root)), clock or ManualClock()
        self.registry = AddressRegistry(self.layout, wait_s=wait_s, one_shot=True)
        self.lifecycle = Lifecycle(self.layout, self.clock, self.registry, wait_s=wait_s, one_shot=True)
        self.book = AddressBook(self.layout, self.lifecycle, self.registry, clock=self.clock, wait_s=wait_s)

    def listed(self) -> dict[str, str]:
        """The list of addresses as text, with their states."""
        return {str(row.address): row.state for row in self.book.list()}


def fill(root: Path, address: str, values: Mapping[str, str]) -> None:
    """Store `values` at an address, made when it does not exist."""
    with OneShot(str(root), Address.parse(address)) as keystore:
        for key, value in values.items():
            run(keystore.set(key, value))


def value(root: Path, address: str, key: str) -> str | None:
    """What is stored under a key; None at an address that does not exist, too."""
    with OneShot(str(root), Address.parse(address)) as keystore:
        found: str | None = run(keystore.get(key))
        return found

"""A keystore file of its own for each test, checked for damage when the test is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.direct import lifecycle
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.checking import keystore_faults
from tests.unit.engine.store import HERE, Store


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    """An empty keystore, open for writing."""
    opened = new_store(root)
    yield opened
    opened.close()
    assert keystore_faults(str(root), HERE) == []


def new_store(root: Path, address: Address = HERE) -> Store:
    """Create an address and open it."""
    layout = Layout(str(root))
    lifecycle(layout, Limits(), ManualClock()).create(address)
    return Store(layout, address)

"""Every engine in turn, on an empty root, with a wall clock that the test moves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prontodb.engine.protocol import Engine, Keyspace
from prontodb.model.address import Address
from tests.checking import root_faults
from tests.conformance.engines import CANNOT_WAIT, ENGINES, WallClock

HOME = Address("agent", "home")


@dataclass(slots=True)
class Subject:
    """The engine under test; `another` opens it once more on the same root, as another process would."""

    name: str
    root: str
    clock: WallClock
    opened: list[Engine] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        """The first opening."""
        return self.opened[0]

    def another(self) -> Engine:
        """Open the engine once more."""
        self.opened.append(ENGINES[self.name](self.root, self.clock))
        return self.opened[-1]

    def skip_unless_it_waits(self) -> None:
        """Skip what needs `wait`."""
        if self.name in CANNOT_WAIT:
            pytest.skip(f"{self.name} serves single commands and does not wait for changes")


@pytest.fixture(params=sorted(ENGINES))
async def subject(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Subject]:
    """An engine on an empty root; when the test is over nothing may be damaged or left over."""
    found = Subject(request.param, str(root), WallClock())
    found.another()
    yield found
    for engine in found.opened:
        await engine.close()
    assert root_faults(str(root)) == []


@pytest.fixture
async def keyspace(subject: Subject) -> Keyspace:
    """The keyspace of a new address."""
    await subject.engine.create(HOME)
    return await subject.engine.keyspace(HOME)


@pytest.fixture
def clock(subject: Subject) -> WallClock:
    """The clock by which the engine's entries expire."""
    return subject.clock

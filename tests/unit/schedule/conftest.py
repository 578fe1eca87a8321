"""The schedule's tests run on trio's virtual clock: a day takes milliseconds, and every moment is exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio.testing

from prontodb import log
from tests.unit.schedule.world import World


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def events() -> Iterator[list[tuple[str, dict[str, object]]]]:
    told: list[tuple[str, dict[str, object]]] = []
    log.use(lambda name, **fields: told.append((name, fields)))
    yield told
    log.disable()

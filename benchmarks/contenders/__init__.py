"""Those that are compared: each behind a small adapter that says honestly what it promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workload import Workload

DURABLE = "synced before it is acknowledged"
PROCESS_CRASH = "survives a crash of the process, not of the machine"


class Contender(Protocol):
    """Opened in a folder of its own by `opened`; `why_missing` says what to install when it cannot take part."""

    name: str
    promise: str

    @staticmethod
    def why_missing() -> str | None: ...
    async def open(self, folder: Path) -> None: ...
    async def fill(self, pairs: Sequence[tuple[str, str]]) -> None: ...
    async def close(self) -> None: ...


@asynccontextmanager
async def opened(kinds: Sequence[type[Any]], folder: Path, workload: Workload) -> AsyncIterator[dict[str, Contender]]:
    """Open each kind of contender that is installed, fill it with every key, and close them in the end."""
    async with AsyncExitStack() as stack:
        stores: dict[str, Contender] = {}
        for kind in kinds:
            if kind.why_missing() is not None:
                continue
            store: Contender = kind()
            place = folder / store.name.replace(" ", "-")
            place.mkdir(mode=0o700)
            await store.open(place)
            stack.push_async_callback(store.close)
            for batch in workload.batches():
                await store.fill(batch)
            stores[store.name] = store
        yield stores


def missing(kinds: Sequence[type[Any]]) -> list[str]:
    """Return a line for each contender that is not installed."""
    return [f"{kind.name}: {why}" for kind in kinds if (why := kind.why_missing()) is not None]

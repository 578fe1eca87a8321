"""The seam: the two protocols that every engine fulfils, and that everything above is written against.

`tests/conformance` runs any engine through what is promised here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prontodb.model.address import Address
    from prontodb.model.entry import Entry
    from prontodb.model.operation import Changes, Fence, Op, Position, Receipt


class Keyspace(Protocol):
    """One address's entries. Every method is one step: a snapshot, or all of its effect or none.

    Ranges are `lo <= key < hi` in byte order, `hi` None for no bound. Expired entries are never returned.
    """

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the live entries of `keys`, in their order, from one snapshot; None where there is none."""
        ...

    async def scan(self, lo: str, hi: str | None, limit: int, *, reverse: bool = False) -> list[Entry]:
        """Return up to `limit` entries in byte order; fewer than exist when large; empty only at the end."""
        ...

    async def keys(self, lo: str, hi: str | None, limit: int) -> list[str]:
        """Return up to `limit` keys in byte order, without reading values; empty only at the end."""
        ...

    async def count(self, lo: str, hi: str | None) -> int:
        """Return how many live entries the range holds."""
        ...

    async def apply(self, ops: Sequence[Op], fence: Fence) -> Receipt:
        """Apply all of `ops` in order or none; returns after the commit that holds them.

        Raises `RevisionConflictError`, `FencedError`, `BusyError`, `StorageFullError`, `OutcomeUnknownError`.
        """
        ...

    async def position(self) -> Position:
        """Return the present end of the history."""
        ...

    async def changes(self, since: Position, limit: int) -> Changes:
        """Return the latest state of each key that changed after `since`, deletions included.

        Raises `CompactedError` below the floor, or when the keystore was replaced since.
        """
        ...

    async def wait(self, since: Position, timeout_s: float) -> bool:
        """Return True once the history is past `since` (other processes' commits included), False at the timeout."""
        ...

    async def sweep(self, limit: int, fence: Fence, until_ms: int | None = None) -> int:
        """Delete up to `limit` entries that had expired at `until_ms`, now without one, journalled; return how many."""
        ...

    async def lifetimes(self) -> Mapping[str, int]:
        """Return the default lifetime, in milliseconds, of each namespace that has one."""
        ...

    async def set_lifetime(self, namespace: str, ttl_ms: int | None, fence: Fence) -> None:
        """Set (or with None drop) the default lifetime of a namespace, journalled."""
        ...


class Engine(Protocol):
    """Where keystores live: one keyspace per address, made, listed and dropped by address."""

    async def create(self, address: Address) -> bool:
        """Make an empty keystore; False when it exists already. A crash leaves a whole one or none."""
        ...

    async def drop(self, address: Address) -> bool:
        """Delete a keystore; False when there is none."""
        ...

    async def addresses(self, after: Address | None, limit: int) -> list[Address]:
        """Return up to `limit` addresses after `after`, in order."""
        ...

    async def keyspace(self, address: Address) -> Keyspace:
        """Return the keyspace of an existing address, else raise `AddressNotFoundError`."""
        ...

    async def close(self) -> None:
        """Close everything that is open; returns when no thread, descriptor or process is left."""
        ...

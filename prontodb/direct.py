"""One-shot use without an event loop: what the command line opens for a single operation on one address."""

from __future__ import annotations

import os

from prontodb.engine.sqlite.direct import DirectKeyspace, run
from prontodb.keystore import Keystore
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import RIGHTS, Fence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from prontodb.access import Caller
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.layout import Keys

__all__ = ["OneShot", "run"]


class OneShot:
    """A keystore for one command: `with OneShot(...) as keystore: run(keystore.get(key))`.

    Reading at an address that does not exist finds nothing and makes nothing; the first write makes the address. With
    the `fence` of a session that holds the address for us, writes take no lock and are refused once it has ended.
    `keys` brings what opens an encrypted address.
    `caller` is asked before every operation; None where there is nothing to ask.
    """

    def __init__(
        self,
        root: str,
        address: Address,
        *,
        limits: Limits | None = None,
        durability: str = "full",
        create: bool = True,
        unsafe_file_system: bool = False,
        fence: Fence | None = None,
        keys: Keys | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._gate = None if caller is None else caller.gate(address)
        fence = fence if fence is None or caller is None else caller.fence(fence.session, fence.epoch, gate=self._gate)
        self._fence, self._caller = fence, caller
        self._layout, self._address = Layout(root, keys), address
        self._limits, self._clock = limits or Limits(), Clock()
        self._unsafe = unsafe_file_system
        self._keyspace = DirectKeyspace(
            self._layout,
            address,
            self._limits,
            self._clock,
            lifecycle=self._lifecycle,
            durability=durability,
            create=create and (self._gate is None or self._gate.may_create),
            attached=fence is not None,
        )

    def _lifecycle(self) -> Lifecycle:
        return lifecycle(self._layout, self._limits, self._clock, unsafe_file_system=self._unsafe)

    def __enter__(self) -> Keystore:
        fence = self._fence
        if fence is None:
            name = f"cli-{os.getpid()}-{os.urandom(4).hex()}"
            fence = Fence(name) if self._caller is None else self._caller.fence(name, gate=self._gate)
        return Keystore(self._keyspace, self._address, fence, self._limits, self._clock, gate=self._gate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keyspace.close()

    def exists(self) -> bool:
        """True when the address has a keystore; raises `DeniedError` for a caller without any right there."""
        if self._gate is not None:
            self._gate.check_any(*RIGHTS)
        return self._keyspace.exists()

    def allow(self, right: str, keys: Sequence[str]) -> None:
        """Raise `DeniedError` unless the caller has a right to all of `keys`."""
        if self._gate is not None:
            self._gate.check_keys((right,), keys)


def lifecycle(layout: Layout, limits: Limits, clock: Clock, *, unsafe_file_system: bool = False) -> Lifecycle:
    """Return the address changes of a root, with locks taken the light way; imported only by what writes."""
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.registry.addresses import AddressRegistry

    registry = AddressRegistry(layout, wait_s=limits.wait_s, one_shot=True)
    return Lifecycle(
        layout, clock, registry, wait_s=limits.wait_s, one_shot=True, unsafe_file_system=unsafe_file_system
    )

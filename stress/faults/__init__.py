"""Faults that are made on purpose, one file each; `FAULTS` has them all by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .calls import FailingWrites, ReadOnly
from .clock import Clock
from .disk import FullDisk
from .kill import Kill
from .orders import Abandon, Cancel
from .removed import Locks, Registry
from .stop import Stop
from .takeover import Takeover

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fault import Fault

FAULTS: dict[str, Callable[[], Fault]] = {
    "kill": Kill,
    "stop": Stop,
    "cancel": Cancel,
    "abandon": Abandon,
    "takeover": Takeover,
    "full-disk": FullDisk,
    "failing-writes": FailingWrites,
    "read-only": ReadOnly,
    "clock": Clock,
    "locks": Locks,
    "registry": Registry,
}
"""What can be asked for, in the order in which people should read it."""

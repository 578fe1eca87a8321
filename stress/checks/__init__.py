"""The checkers, one file each; `CHECKS` has them all by name, in the order in which a report shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import backups, endings, errors, expiry, fences, holders, isolation, registry, soundness

if TYPE_CHECKING:
    from ..verdict import Check

CHECKS: dict[str, Check] = {
    isolation.CHECK: isolation.check,
    holders.CHECK: holders.check,
    fences.CHECK: fences.check,
    expiry.CHECK: expiry.check,
    registry.CHECK: registry.check,
    backups.CHECK: backups.check,
    soundness.CHECK: soundness.check,
    errors.CHECK: errors.check,
    endings.CHECK: endings.check,
}

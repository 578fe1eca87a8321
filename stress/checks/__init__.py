"""The checkers, one file each; `CHECKS` has them all by name, in the order in which a report shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import backups, endings, errors, expiry, fences, holders, isolation, registry, soundness

if TYPE_CHECKING:
    from ..verdict import Check

CHECKS: dict[str, Check] = {
    isolation.NAME: isolation.check,
    holders.NAME: holders.check,
    fences.NAME: fences.check,
    expiry.NAME: expiry.check,
    registry.NAME: registry.check,
    backups.NAME: backups.check,
    soundness.NAME: soundness.check,
    errors.NAME: errors.check,
    endings.NAME: endings.check,
}

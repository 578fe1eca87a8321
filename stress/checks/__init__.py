"""The checkers, one file each, pure; `CHECKS` has them all by name, in the order in which a report shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    acknowledged,
    backups,
    copies,
    counters,
    endings,
    errors,
    expiry,
    fences,
    holders,
    imports,
    isolation,
    lifecycle,
    registers,
    registry,
    soundness,
    transactions,
)

if TYPE_CHECKING:
    from ..verdict import Check

CHECKS: dict[str, Check] = {
    each.CHECK: each.check
    for each in (
        isolation,
        acknowledged,
        registers,
        counters,
        transactions,
        holders,
        fences,
        expiry,
        backups,
        lifecycle,
        copies,
        imports,
        registry,
        soundness,
        errors,
        endings,
    )
}

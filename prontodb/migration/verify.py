"""Verifying a migration: what an address holds against what was to arrive, and all rows against their fates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.engine.sqlite import intake
from prontodb.errors import CorruptError
from prontodb.migration.ledger import EXPIRED, MIGRATED, REPORTED, SUPERSEDED, UNDECIDED

if TYPE_CHECKING:
    from prontodb.engine.sqlite.digest import Digest
    from prontodb.migration.plan import Plan
    from prontodb.model.secret import Secret


def check_address(plan: Plan, slot: int, path: str, expected: Digest, secret: Secret | None, *, is_new: bool) -> None:
    """Read a staged keystore from end to end; `CorruptError` unless it holds what the plan says, and nothing else."""
    wanted, there = plan.ledger.of_slot(slot)
    if is_new and expected.entries != wanted - there:
        raise CorruptError(
            f"{expected.entries:,} entries were read for {wanted - there:,} planned ones; it was not put in"
        )
    intake.check(path, expected, secret)


def counts(plan: Plan) -> tuple[dict[int, int], int]:
    """Return how many rows have each fate, and how many were there already.

    `CorruptError` unless every row of the source has exactly one fate.
    """
    found, there = plan.ledger.fates()
    decided = sum(found.get(fate, 0) for fate in (MIGRATED, EXPIRED, SUPERSEDED, REPORTED))
    if found.get(UNDECIDED, 0) or decided != plan.rows:
        raise CorruptError(
            f"the source has {plan.rows:,} rows, and {decided:,} have a fate: this is a mistake of ours; "
            "believe nothing of it, and please report it"
        )
    return found, there

"""What an address has already: the same entry, something else under the same key, or a key that it deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.engine.sqlite import intake, opening, transactions
from prontodb.errors import AddressNotFoundError, LimitError
from prontodb.migration.ledger import REPORTED, SUPERSEDED, THERE
from prontodb.migration.reasons import Reason

if TYPE_CHECKING:
    from prontodb.migration.ledger import Held, Ledger
    from prontodb.migration.plan import Plan
    from prontodb.model.entry import Entry
    from prontodb.model.layout import Layout
    from prontodb.model.limits import Limits
    from prontodb.storage.connection import Connection

KEYS_A_STEP = 1_000
SESSION = "migrate"
"""Whom the journal names for what a migration writes."""


def meet(plan: Plan, slot: int, layout: Layout, limits: Limits) -> None:
    """Compare what an existing address is to have with what it has; the ledger tells the result."""
    address = plan.places.addresses[slot]
    try:
        opening.read(
            layout,
            address,
            lambda connection: compare(plan, slot, connection),
            busy_timeout_ms=round(limits.wait_s * 1_000),
        )
    except AddressNotFoundError:
        return  # deleted in this moment


def compare(plan: Plan, slot: int, connection: Connection) -> None:
    """Compare with an open keystore: what is there already is flagged, what is in the way is reported."""
    ledger, replace = plan.ledger, plan.options.on_conflict == "replace"
    with ledger.changing():
        ledger.forget_there(slot)
        has_gone = not replace and _note_gone(ledger, slot, connection)
        for page in ledger.pages(slot, KEYS_A_STEP):
            fates: list[tuple[int, int, str, int, str, int]] = []
            there: list[tuple[int, int, str, int]] = []
            for held, entry in zip(page, _read(connection, page, plan.now_ms), strict=True):
                if entry is None:
                    if has_gone and ledger.is_gone(slot, held.key):
                        fates.append((REPORTED, Reason.DELETED_HERE, "", slot, held.key, held.n))
                elif _is_same(held, entry):
                    there.append((THERE, slot, held.key, held.n))
                elif not replace:
                    fates.append((REPORTED, Reason.KEPT, _difference(held, entry), slot, held.key, held.n))
            ledger.decide(fates)
            if len(there) == len(page):
                ledger.flag_there(slot, page)
            else:
                ledger.flag(there)
        _compare_lifetimes(plan, slot, transactions.lifetimes(connection))


def _compare_lifetimes(plan: Plan, slot: int, present: dict[str, int]) -> None:
    fates: list[tuple[int, int, str, int]] = []
    for n, namespace, ttl_ms, _ in plan.ledger.lifetimes(slot):
        if present.get(namespace) == ttl_ms:
            fates.append((SUPERSEDED, 0, "", n))
        elif namespace in present and plan.options.on_conflict != "replace":
            fates.append((REPORTED, Reason.KEPT, "the namespace has another default lifetime here", n))
    plan.ledger.decide_lifetimes(fates)


def _note_gone(ledger: Ledger, slot: int, connection: Connection) -> bool:
    """Note the keys that an address had since a migration and has deleted; False when there are none."""
    found = False
    for key, is_set in intake.changes_since(connection, SESSION):
        if not is_set:
            ledger.note_gone(slot, key)
            found = True
        elif found:
            ledger.forget_gone(slot, key)
    return found


def _read(connection: Connection, page: list[Held], now_ms: int) -> list[Entry | None]:
    keys = [held.key for held in page]
    try:
        return transactions.read(connection, keys, now_ms)
    except LimitError:
        return [transactions.read_one(connection, key, now_ms) for key in keys]


def _is_same(held: Held, entry: Entry) -> bool:
    moments = (max(held.created, 0), max(held.updated, 0), None if held.expires < 0 else held.expires)
    return _has_value(held, entry) and moments == (entry.created_at_ms, entry.updated_at_ms, entry.expires_at_ms)


def _has_value(held: Held, entry: Entry) -> bool:
    return hash(entry.value.encode()) == held.digest


def _difference(held: Held, entry: Entry) -> str:
    return "the same value, with other times" if _has_value(held, entry) else "another value"

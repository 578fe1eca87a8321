"""Undoing restores: what they put aside, of which address, and which of it belongs to the last restore of all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prontodb.backup.create import checked_scope, in_scope
from prontodb.engine.sqlite import folders
from prontodb.errors import NotFoundError, ProntoError
from prontodb.log import event
from prontodb.model import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.layout import Layout
    from prontodb.registry.jobs import JobRegistry

_NOTE = "restored"


class Undoing:
    """The undo and redo of one root. Each address has a stack of its own; `notes` keep what the last restore did."""

    def __init__(self, layout: Layout, lifecycle: Lifecycle, notes: JobRegistry) -> None:
        self._layout, self._lifecycle, self._notes = layout, lifecycle, notes

    def able(self, user: str | None = None, cursor: str | None = None, *, redo: bool = False) -> list[Address]:
        """Return the addresses at which something can be undone, or done again: all in a scope.

        Without a user only those of the last restore: that have not been undone since, or have been.
        """
        scope = checked_scope(user, cursor)
        kept: dict[Address, list[str]] = {}
        for address, name in folders.all_kept(self._layout):
            kept.setdefault(address, []).append(name)
        if user is not None:
            able = (one for one, names in kept.items() if any(folders.is_undone(name) == redo for name in names))
            return sorted(address for address in able if in_scope(address, scope))
        last = self._last()
        mine = [(address, names) for address, names in kept.items() if str(address) in last]
        if redo:
            return sorted(
                address for address, names in mine
                if last[str(address)] not in names and any(folders.is_undone(name) for name in names)
            )  # fmt: skip
        return sorted(address for address, names in mine if _to_undo(names) == last[str(address)])

    def undo(self, address: Address, *, redo: bool = False) -> None:
        """Change an address with what its last restore (or with `redo` its last undo) put aside; else `NotFoundError`.

        Once more goes one restore further back.
        """
        if not self._lifecycle.undo_restore(address, redo=redo):
            what = "do again" if redo else "undo"
            raise NotFoundError(f"there is nothing to {what} at {address}: nothing is kept for it (see undo_days)")
        last, names = self._last(), folders.kept(self._layout, address)
        if redo and str(address) in last and not any(folders.is_undone(name) for name in names):
            # The last restore counts again, and what it put aside has another name.
            self.remember({**last, str(address): _to_undo(names)})

    def remember(self, kept: Mapping[str, str | None]) -> None:
        """Note what the last restore put aside, by address."""
        try:
            self._notes.note(_NOTE, json.dumps(kept))
        except ProntoError as error:
            event("registry.deferred", reason=str(error))

    def _last(self) -> dict[str, str | None]:
        try:
            found = strict_json.loads(self._notes.notes().get(_NOTE, "{}"))
        except (ProntoError, ValueError) as error:
            event("registry.deferred", reason=str(error))
            return {}
        return found if isinstance(found, dict) else {}


def _to_undo(names: list[str]) -> str | None:
    """Return which of the folders put aside of an address an undo brings back; None for none."""
    found = [name for name in names if not folders.is_undone(name)]
    return max(found, key=folders.put_aside_at_ms, default=None)

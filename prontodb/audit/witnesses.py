"""Who vouches for what: the anchors of the registry and of the backups, and which keystore belongs to which address.

A keystore is known by its incarnation, which is random and new at every creation, restore and migration; an address by
the newest anchor that somebody of ours left there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.audit.report import FOREIGN, Finding, Point
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prontodb.model.address import Address
    from prontodb.model.anchor import Anchor
    from prontodb.model.history import Mark

ACCEPT = "if that was meant, say so: prontodb audit accept {}"


class Witnesses:
    """All anchors of one root, by keystore and by address. `where_is` reads the incarnation at an address now."""

    def __init__(self, anchors: Iterable[Anchor], where_is: Callable[[Address], str | None]) -> None:
        self._where_is = where_is
        self._points: dict[str, dict[tuple[int, str, str | None], Point]] = {}
        self._newest: dict[Address, Anchor] = {}
        self._homes: dict[str, set[Address]] = {}
        for anchor in anchors:
            # In the order in which they were made: the last one of an address counts.
            self._newest[anchor.address] = anchor
            self.add(anchor.address, anchor.mark, anchor.by, anchor.at_ms)

    def add(
        self, address: Address, mark: Mark, source: str, at_ms: int, content: tuple[int, str] | None = None
    ) -> None:
        """Take what a backup, say, knows of a keystore that lay at an address; `content`: of how many entries, and
        their digest.
        """
        entries, digest = content or (None, None)
        points = self._points.setdefault(mark.incarnation, {})
        # Two that disagree about the entries both count.
        place = mark.revision, mark.chain, digest
        points.setdefault(place, Point(mark.revision, mark.chain, source, at_ms, entries, digest))
        self._homes.setdefault(mark.incarnation, set()).add(address)

    def points(self, incarnation: str) -> list[Point]:
        """Return all that is known of a keystore's history, wherever it lay then."""
        return list(self._points.get(incarnation, {}).values())

    def is_stranger(self, address: Address, incarnation: str) -> bool:
        """True when nobody knows a keystore, though backups know another one of its address.

        Without an anchor of the address that is no accusation: it may have been restored or made anew since.
        """
        if address in self._newest or incarnation in self._points:
            return False
        return any(address in homes for homes in self._homes.values())

    def homes_along(self, has: Callable[[Point], bool]) -> list[Address]:
        """Return the addresses of the keystores through whose places a history goes, whatever it is called now."""
        found: set[Address] = set()
        for incarnation, points in self._points.items():
            if any(has(point) for point in points.values()):
                found |= self._homes[incarnation]
        return sorted(found)

    def expected(self) -> dict[Address, Anchor]:
        """Return the newest anchor of each address that has any in the registry."""
        return dict(self._newest)

    def judge(self, address: Address, incarnation: str) -> Finding | None:
        """Say whether the keystore at an address is the one that belongs there; None when nothing speaks against it."""
        newest = self._newest.get(address)
        if newest is not None and newest.mark.incarnation == incarnation:
            return None
        owner = self._owner(address, incarnation)
        if owner is not None:
            return Finding(FOREIGN, None, None, f"the keystore of {owner} lies here: files were swapped or copied")
        if newest is None:
            return None
        what = (
            f"another keystore lies here than the anchor of {text_of(newest.at_ms)} ({newest.by}) knows: a swapped or "
            f"new file, or a restore that was killed before it was noted; {ACCEPT.format(address)}"
        )
        return Finding(FOREIGN, None, None, what)

    def _owner(self, address: Address, incarnation: str) -> Address | None:
        """Return another address that a keystore belongs to: one where it lay, and that is still there."""
        for home in sorted(self._homes.get(incarnation, ())):
            if home == address:
                continue
            newest, present = self._newest.get(home), self._where_is(home)
            if present is None:
                continue  # renamed, or deleted
            if newest is not None:
                belongs = newest.mark.incarnation == incarnation
            else:
                # Without the registry: a copy, or each lies where the other was.
                belongs = present == incarnation or address in self._homes.get(present, ())
            if belongs:
                return home
        return None

"""Changes of addresses that the anchors have still to follow: each a file, written before the change itself.

The registry's index may be locked when an address goes, moves or is replaced, and whoever does it may be killed in
between. The file stays then, and whoever looks next makes up for it. It says which keystore is meant, so that no other
is excused; and it lies in the registry, where nobody writes who has the keystores' folders alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prontodb.errors import InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model import strict_json
from prontodb.model.address import Address
from prontodb.model.anchor import RESTORED, Anchor
from prontodb.model.history import Mark
from prontodb.model.layout import DUES, REGISTRY
from prontodb.storage import reserve
from prontodb.storage.files import make_root, open_root
from prontodb.storage.process import ourselves, start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prontodb.model.layout import Layout

    WhereIs = Callable[[Address], str | None]
    """Reads the incarnation at an address now; None where there is none, '' where it cannot be read."""

DELETED, RENAMED, PLACED = "deleted", "renamed", "placed"
_BEGUN, _DONE = ".begun", ".done"
MAX_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Due:
    """One change. `mark`: of the keystore that goes, moves or comes; None where it could not be read."""

    what: str
    address: Address
    target: Address | None
    mark: Mark | None
    at_ms: int
    name: str = ""
    pid: int = 0
    started: int | None = None
    boot: str | None = None
    pid_namespace: str | None = None

    @property
    def is_done(self) -> bool:
        """True when whoever did it has said so."""
        return self.name.endswith(_DONE)

    def is_abandoned(self) -> bool:
        """True when whoever began it is gone, as far as that can be told."""
        us = ourselves()
        if self.boot != us.boot:
            return True
        return self.pid_namespace == us.pid_namespace and start_time(self.pid) != self.started

    def has_happened(self, where_is: WhereIs, anchors: Sequence[Anchor]) -> bool | None:
        """Say by what lies there, and what the anchors know of it, whether the change was made; None when both do not.

        What was put somewhere and swapped since has happened neither way: it counts again once it is back.
        """
        here, mine = where_is(self.address), None if self.mark is None else self.mark.incarnation
        if self.what == PLACED:
            known = [one.mark.incarnation for one in anchors if one.address == self.address]
            return True if here == mine else False if not known or here == known[-1] else None
        if self.is_done:
            return True
        if self.what == DELETED:
            return None if here == "" else here is None or (mine is not None and here != mine)
        there = None if self.target is None else where_is(self.target)
        if mine is None:
            return None if (here is None) == (there is None) else here is None
        return True if there == mine else False if here == mine else None

    def applied(self, anchors: Sequence[Anchor]) -> list[Anchor]:
        """Return what the anchors of all addresses are once the change is noted."""
        mine = None if self.mark is None else self.mark.incarnation
        own = [one for one in anchors if one.address == self.address]
        if self.what == PLACED:
            if self.mark is None or (own and own[-1].mark.incarnation == mine):
                return list(anchors)
            return [*anchors, Anchor(self.address, self.mark, self.at_ms, RESTORED)]
        old = [one for one in own if one.at_ms <= self.at_ms or one.mark.incarnation == mine]
        rest = [one for one in anchors if one not in old]
        if self.what == DELETED or self.target is None:
            return rest
        # What lay at the target before is gone; what sessions have left there since stays, behind what comes.
        there = [one for one in rest if one.address == self.target]
        since = [one for one in there if one.at_ms > self.at_ms or one.mark.incarnation == mine]
        moved = [replace(one, address=self.target) for one in old]
        return [one for one in rest if one.address != self.target] + moved + since


class Dues:
    """The files of one root. A change of which none can be written is not made: it would be accused for good."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[Address, str] = {}

    def begin(self, due: Due) -> None:
        """Write down a change that is about to be made; the caller holds the lock of the address.

        On a full disk in the room of the reserve. Raises what keeps it from being written, and leaves nothing behind.
        """
        us = ourselves()
        fields = {
            "what": due.what,
            "address": str(due.address),
            "target": None if due.target is None else str(due.target),
            "mark": None if due.mark is None else [due.mark.incarnation, due.mark.revision, due.mark.chain],
            "at": due.at_ms,
            "pid": us.pid,
            "started": us.started,
            "boot": us.boot,
            "pid_namespace": us.pid_namespace,
        }
        name = f"{max(due.at_ms, 0):013d}-{os.urandom(6).hex()}{_BEGUN}"

        def write() -> None:
            with make_root(self._layout.root, REGISTRY, DUES) as folder:
                folder.create(name, json.dumps(fields).encode() + b"\n")
                try:
                    folder.sync()
                except ProntoError:
                    folder.remove(name)
                    raise

        reserve.in_its_room(self._layout, write)
        self._open[due.address] = name

    def end(self, address: Address, *, noted: bool) -> None:
        """The change is made: what was written of it goes when the anchors follow it, else it stays, as done."""
        name = self._open.pop(address, None)
        if name is None:
            return
        try:
            with open_root(self._layout.root, REGISTRY, DUES) as folder:
                if noted:
                    folder.remove(name)
                else:
                    folder.rename(name, name.removesuffix(_BEGUN) + _DONE)
        except (FileNotFoundError, ProntoError) as error:
            event("registry.deferred", reason=str(error))

    def all(self) -> list[Due]:
        """Return what is due, the oldest first; what cannot be read as such is left out."""
        try:
            with open_root(self._layout.root, REGISTRY, DUES) as folder:
                found = []
                for name in sorted(folder.names()):
                    try:
                        due = _parsed(b"".join(folder.chunks(name)), name)
                    except (FileNotFoundError, ProntoError):
                        continue
                    if due is not None:
                        found.append(due)
                return found
        except (FileNotFoundError, ProntoError):
            return []

    def remove(self, dues: Iterable[Due]) -> None:
        """Forget what the anchors follow by now, or what never happened."""
        try:
            with open_root(self._layout.root, REGISTRY, DUES) as folder:
                for due in dues:
                    folder.remove(due.name)
        except (FileNotFoundError, ProntoError) as error:
            event("registry.deferred", reason=str(error))


def _parsed(data: bytes, name: str) -> Due | None:
    if len(data) > MAX_BYTES or not name.endswith((_BEGUN, _DONE)):
        return None
    try:
        fields = strict_json.loads(data)
        if not isinstance(fields, dict):
            return None
        target, mark = fields.get("target"), fields.get("mark")
        due = Due(
            str(fields.get("what")),
            Address.parse(str(fields.get("address"))),
            None if target is None else Address.parse(str(target)),
            None if mark is None else Mark(*mark),
            fields["at"],
            name,
            fields["pid"],
            fields.get("started"),
            fields.get("boot"),
            fields.get("pid_namespace"),
        )
    except (ValueError, KeyError, TypeError, InvalidAddressError):
        return None
    return due if _is_sound(due) else None


def _is_sound(due: Due) -> bool:
    numbers = type(due.at_ms) is int and type(due.pid) is int and isinstance(due.started, int | None)
    texts = isinstance(due.boot, str | None) and isinstance(due.pid_namespace, str | None)
    mark = due.mark
    marked = mark is None or (
        isinstance(mark.incarnation, str) and isinstance(mark.chain, str) and type(mark.revision) is int
    )
    known = due.what == DELETED or (due.what == RENAMED and due.target) or (due.what == PLACED and mark)
    return bool(numbers and texts and marked and known)

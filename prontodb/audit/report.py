"""What an audit found: of one address, and of all that were looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prontodb.model.address import Address

EDITED = "edited"
"""A record is not what was written there."""
DROPPED = "dropped"
"""A record in the middle is missing."""
REORDERED = "reordered"
"""A record stands where another was."""
CUT = "cut"
"""The last records are missing, or the whole file is an older copy of itself."""
REWRITTEN = "rewritten"
"""The records follow from each other, but lead elsewhere than an anchor says."""
PRUNED = "pruned"
"""What is said to be pruned does not fit what is left, or what an anchor says of it."""
ENTRY = "entry"
"""An entry is not what its record says, has none, or is missing."""
FOREIGN = "foreign"
"""Another keystore lies at the address."""
MISSING = "missing"
"""No keystore lies at an address that has anchors and was not deleted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong: the revisions `revision` to `until`, as far as it can be narrowed down."""

    kind: str
    revision: int | None
    until: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Point:
    """What some anchor says: where the chain of a keystore stood at a revision. `source` names it for people.

    A backup knows the entries, too: how many there were, and their digest (see `engine.sqlite.digest`).
    """

    revision: int
    chain: str
    source: str
    at_ms: int
    entries: int | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressAudit:
    """What the audit of one address found.

    Its journal goes from `floor` (what is older was pruned) to `revision`. `anchor` is the last one that holds: all
    records up to it are as they were then. `entries` were tested against their records; `unseen` are so old that their
    records are pruned. `keyed`: the chain is a MAC.
    """

    address: Address
    incarnation: str = ""
    revision: int = 0
    chain: str = ""
    floor: int = 0
    records: int = 0
    entries: int = 0
    unseen: int = 0
    keyed: bool = False
    content: Point | None = None
    """The backup that has exactly these entries: nothing was written since, and it vouches for the oldest, too."""
    outrun: bool = False
    """All anchors of it lie in the part that is said to be pruned: nothing outside of the file vouches for it."""
    unknown: bool = False
    """Backups know another keystore of the address, and nobody knows this one."""
    anchor: Point | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """True when nothing was found."""
        return not self.findings

    @property
    def is_vouched(self) -> bool:
        """False when nothing says that it is the right one but the file itself: then no anchor is left."""
        return not (self.outrun or self.unknown)

    @property
    def reaches_all(self) -> bool:
        """False when nothing can tell what became of entries that are older than the journal."""
        return self.floor == 0 or self.content is not None

    @property
    def since_anchor(self) -> int:
        """How many records the chain alone vouches for: those after the last anchor."""
        return self.revision - (self.floor if self.anchor is None else self.anchor.revision)

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-able fields."""
        more = {"address": str(self.address), "is_sound": self.is_sound, "since_anchor": self.since_anchor}
        return asdict(self) | more | {"reaches_all": self.reaches_all}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found at each address; `failed` are those that could not be read, with the reason."""

    addresses: tuple[AddressAudit, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """True when nothing was found, and everything could be looked at."""
        return not self.failed and all(one.is_sound for one in self.addresses)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change as the journal tells it: never a value, only its digest."""

    revision: int
    at_ms: int
    session: str
    action: str
    """'set', 'del' and 'expire' of an entry; 'lifetime' and 'history' of the keystore itself."""
    key: str
    digest: str | None
    expires_at_ms: int | None

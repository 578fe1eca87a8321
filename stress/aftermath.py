"""What lies there when all is over: read by the public API, by `doctor`, and from the bytes themselves."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one process of the fleet ended."""

    process: str
    code: int
    """Its exit code; negative: the signal."""
    was_meant: bool
    """True when a fault killed it, or it ended by itself with 0."""
    last_words: str = ""
    """The end of what it wrote to stderr."""


@dataclass(slots=True, kw_only=True)
class Aftermath:
    """All that was found after the last agent had ended and every fault was taken back."""

    contents: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    """Of each address that can be read: key to value and revision."""
    listed: dict[str, str] = field(default_factory=dict)
    """What the registry says: address to state."""
    folders: list[str] = field(default_factory=list)
    """The addresses that have a folder with a keystore in it."""
    sessions: list[str] = field(default_factory=list)
    """Sessions that are said to live. All their processes are dead."""
    problems: list[str] = field(default_factory=list)
    """What `doctor --deep` still finds after one `doctor --repair`."""
    examined: int = 0
    """How many addresses doctor looked at."""
    audit_problems: list[str] = field(default_factory=list)
    """What `audit verify` finds."""
    audited: int = 0
    """How many records it read."""
    backups: dict[str, str] = field(default_factory=dict)
    """Each listed backup that could not be verified or restored: id to what was wrong; '' when it was whole."""
    restored: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """Backup id to address to key to value, as restored elsewhere."""
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each address, in the raw bytes of all its files: how many distinct tokens of which agent."""
    endings: list[Ending] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Processes, and files of unfinished work, that are still there."""
    errors: list[str] = field(default_factory=list)
    """What could not be read, and why."""
    notes: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    """What a scenario itself looked up for its own checker."""

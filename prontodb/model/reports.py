"""What long operations return: frozen facts about what was done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What copying many keys did. With at most one batch it was all or nothing."""

    copied: int = 0
    """Entries written to the target."""
    kept: int = 0
    """Entries left as they were, because the target had the key (`on_conflict="keep"`)."""
    absent: int = 0
    """Keys asked for by name that had no live entry in the source."""
    expired: int = 0
    """Entries that expired after they were read and before they could be written."""
    batches: int = 0
    """Steps that wrote, each all or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did. With at most one batch it was all or nothing."""

    imported: int = 0
    """Entries written."""
    kept: int = 0
    """Entries left as they were, because the keystore had the key (`on_conflict="keep"`)."""
    expired: int = 0
    """Entries of the file whose moment of expiry has passed; they were left out."""
    batches: int = 0
    """Steps that wrote, each all or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapReport:
    """What reaping did: the ids of the dead sessions whose remains were cleared away."""

    sessions: tuple[str, ...] = ()

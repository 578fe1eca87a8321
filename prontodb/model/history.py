"""Places in the history of a keystore, and what is known of one without opening it again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the history of one keystore: which one it is, its revision, and the journal's chain up to there."""

    incarnation: str
    revision: int
    chain: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Of a keystore whose files look like `stamp`: where its history stands, and when its next entry expires."""

    stamp: str
    mark: Mark
    next_expiry_ms: int | None

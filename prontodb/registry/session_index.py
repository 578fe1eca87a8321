"""The file behind the sessions and the anchors: one, so that a session's end leaves its anchor in the same commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.model.layout import SESSION_REGISTRY_FILE
from prontodb.registry.index import Index

if TYPE_CHECKING:
    from prontodb.model.layout import Layout

APPLICATION_ID = 0x50725352  # "PrSR"
WITH_ANCHORS = 2
"""The format that has anchors."""

_SESSIONS = (
    "CREATE TABLE sessions (id TEXT PRIMARY KEY, user TEXT NOT NULL, cursor TEXT NOT NULL, mode TEXT NOT NULL, "
    "pid INTEGER NOT NULL, started INTEGER, boot TEXT, host TEXT NOT NULL, pid_namespace TEXT, program TEXT NOT NULL, "
    "labels TEXT NOT NULL, started_at INTEGER NOT NULL, last_seen_at INTEGER NOT NULL, epoch INTEGER) WITHOUT ROWID"
)
_ANCHORS = (
    "CREATE TABLE anchors (user TEXT NOT NULL, cursor TEXT NOT NULL, number INTEGER NOT NULL, "
    "incarnation TEXT NOT NULL, revision INTEGER NOT NULL, chain TEXT NOT NULL, at INTEGER NOT NULL, "
    "made_by TEXT NOT NULL, PRIMARY KEY (user, cursor, number)) WITHOUT ROWID"
)


def session_index(layout: Layout, *, wait_s: float, one_shot: bool) -> Index:
    """Return the index of one root."""
    return Index(
        layout,
        SESSION_REGISTRY_FILE,
        "the registry of sessions",
        application_id=APPLICATION_ID,
        schema=(_SESSIONS,),
        steps=((_ANCHORS,),),
        wait_s=wait_s,
        one_shot=one_shot,
    )

"""Pruning: what retention no longer wants goes, children before their parents, each from one instant on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.backup.manifest import Manifest
from prontodb.backup.retention import Kept, Policy, to_remove
from prontodb.model.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from prontodb.backup.container import Container
    from prontodb.model.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What pruning removed, or with `dry_run` would. `kept`: why each of the others stays.

    `refused`: why nothing may go at all. `second_place`: the same for the second place, where there is one.
    """

    removed: tuple[str, ...]
    kept: Mapping[str, tuple[str, ...]]
    refused: str | None
    freed_bytes: int
    dry_run: bool
    second_place: PruneReport | None = None
    not_pruned: str | None = None
    """Why nothing could be done in the second place; None when it could, or there is none."""


def as_kept(manifest: Manifest, damaged: frozenset[str]) -> Kept:
    """Return what retention must know of a backup."""
    return Kept(
        id=manifest.id,
        scope=manifest.scope,
        created_at_ms=manifest.created_at_ms,
        parent=manifest.parent,
        good=manifest.id not in damaged,
        # A keystore that contradicts itself is no reason to let its last sound state go.
        holds=frozenset(piece.address for piece in manifest.pieces if not piece.faults),
        failed=frozenset(address for address, _ in manifest.failed)
        | {piece.address for piece in manifest.pieces if piece.faults},
    )


def steps(
    container: Container,
    policy: Policy,
    clock: Clock,
    *,
    damaged: frozenset[str],
    dry_run: bool,
    ours: Callable[[Manifest], bool] = lambda _: True,
) -> Generator[Progress, None, PruneReport]:
    """Remove what the policy does not keep; yields after each. `damaged` are backups that a verification found so.

    Backups that are not `ours` are neither counted nor touched.

    Raises `BusyError` while somebody else writes in the container.
    """
    if dry_run:
        return (yield from _steps(container, policy, clock, damaged, ours, dry_run=True))
    with container.hold("prune backups", wait_s=0):
        return (yield from _steps(container, policy, clock, damaged, ours, dry_run=False))


def _steps(
    container: Container,
    policy: Policy,
    clock: Clock,
    damaged: frozenset[str],
    ours: Callable[[Manifest], bool],
    *,
    dry_run: bool,
) -> Generator[Progress, None, PruneReport]:
    listing = container.list()
    found = [one for one in listing.backups if ours(one)]
    sizes = {one.id: one.size_bytes for one in found}
    kept = [as_kept(one, damaged) for one in found]
    verdict = to_remove(kept, len(listing.unreadable), clock.wall_ms(), policy)
    freed = 0
    for done, backup in enumerate(verdict.remove, 1):
        if not dry_run:
            container.remove(backup)
        freed += sizes[backup]
        yield Progress(what=backup, done=done, total=len(verdict.remove), done_bytes=freed)
    return PruneReport(
        removed=verdict.remove, kept=verdict.keep, refused=verdict.refused, freed_bytes=freed, dry_run=dry_run
    )

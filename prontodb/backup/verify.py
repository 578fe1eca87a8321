"""Verifying backups: every file against its manifest, and states put together again in a scratch folder."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from prontodb.backup.chain import Chains, Link, put_together
from prontodb.backup.container import faults
from prontodb.engine.sqlite import inspection, snapshot
from prontodb.errors import BackupNotFoundError, CorruptError, ProntoError, SecretError, StorageFullError
from prontodb.log import event
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.progress import Progress, never

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from random import Random

    from prontodb.backup.container import Container, Listing
    from prontodb.backup.manifest import Manifest
    from prontodb.storage.files import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What verifying found. `problems`: the backup and what is wrong with it; none when everything is whole.

    `trials` states of addresses were put together and compared entry by entry.
    """

    backups: tuple[str, ...]
    files: int
    size_bytes: int
    trials: int
    tried: tuple[str, ...]
    """The backups of which every state was put together; of the others only the files were read."""
    problems: tuple[tuple[str, str], ...]
    untried: tuple[tuple[str, str], ...]
    """Addresses whose states could not be put together since nobody brought the secret, each with the reason."""
    seconds: float

    @property
    def is_whole(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    @property
    def damaged(self) -> frozenset[str]:
        """The backups with something wrong."""
        return frozenset(backup for backup, _ in self.problems)


class Verifying:
    """One verification. `only` names one backup, tried whole; None: all of them.

    Of all, some are tried: the newest of each scope, `suspects`, and one that `rng` picks.
    """

    def __init__(
        self,
        container: Container,
        listing: Listing,
        *,
        only: Manifest | None,
        rng: Random,
        suspects: frozenset[str] = frozenset(),
        stop: Callable[[], bool] = never,
    ) -> None:
        self._container, self._listing, self._rng, self._stop = container, listing, rng, stop
        self._untried: list[tuple[str, str]] = []
        self._chains = Chains.of(listing)
        self._only, self._suspects = only, suspects
        self._chosen: list[str] = []
        self._problems: list[tuple[str, str]] = []

    def steps(self) -> Generator[Progress, None, VerifyReport]:
        """Do it; yields after each file and each trial. Damage is a problem in the report, never an exception."""
        begun = perf_counter()
        backups = self._wanted()
        trials = self._trials(backups)
        total = sum(len(one.pieces) for one in backups) + len(trials)
        size = sum(one.size_bytes for one in backups)
        done = read = files = 0
        for manifest in backups:
            self._check_chains(manifest)
            for file_size in self._test(manifest):
                done, files, read = done + 1, files + 1, read + file_size
                yield Progress(what=manifest.id, done=done, total=total, done_bytes=read, total_bytes=size)
        tried = 0
        with self._container.scratch() if trials else nullcontext() as folder:
            for tip in trials:
                tried += folder is not None and self._try(folder, tip)
                done += 1
                yield Progress(
                    what=f"trial of {tip.piece.address}", done=done, total=total, done_bytes=read, total_bytes=size
                )
        return VerifyReport(
            backups=tuple(one.id for one in backups),
            files=files,
            size_bytes=read,
            trials=tried,
            tried=tuple(dict.fromkeys(self._chosen)),
            problems=tuple(dict.fromkeys(self._problems)),
            untried=tuple(dict.fromkeys(self._untried)),
            seconds=perf_counter() - begun,
        )

    def _wanted(self) -> list[Manifest]:
        if self._only is None:
            self._problems += [(broken.id, broken.reason) for broken in self._listing.unreadable]
            return list(self._listing.backups)
        try:
            return self._chains.line(self._only.id)
        except CorruptError as error:
            self._problems.append((self._only.id, str(error)))
            return [self._only]

    def _trials(self, backups: list[Manifest]) -> list[Link]:
        """Return whose states are put together: those of one backup, or of the newest of each scope and of one more."""
        if self._only is not None:
            self._chosen = [self._only.id]
            return self._tips(self._only)
        newest = {one.scope: one for one in self._listing.backups}
        older = [one for one in backups if one.id not in {new.id for new in newest.values()}]
        # Whatever was found damaged before is looked at as closely again.
        suspects = [one for one in older if one.id in self._suspects]
        chosen = [*newest.values(), *suspects, *([self._rng.choice(older)] if older else [])]
        self._chosen = [one.id for one in chosen]
        found = {(tip.backup, tip.piece.address): tip for one in chosen for tip in self._tips(one)}
        return list(found.values())

    def _tips(self, manifest: Manifest) -> list[Link]:
        try:
            return list(self._chains.tips(manifest.id).values())
        except CorruptError:
            return []  # said by `_check_chains`

    def _check_chains(self, manifest: Manifest) -> None:
        """See that what a backup builds on is there, and each of its pieces finds the one before it."""
        try:
            self._chains.line(manifest.id)
            for piece in manifest.pieces:
                self._chains.links(Link(manifest.id, piece))
        except CorruptError as error:
            self._problems.append((manifest.id, str(error)))

    def _test(self, manifest: Manifest) -> Generator[int, None, None]:
        found: list[str] = []
        try:
            with self._container.open(manifest.id) as folder:
                sizes = iter([piece.size_bytes for piece in manifest.pieces])
                for fault, is_file in faults(folder, manifest):
                    if fault is not None:
                        found.append(fault)
                    if is_file:
                        yield next(sizes)
        except BackupNotFoundError:
            return
        except ProntoError as error:
            found.append(str(error))
        if found and self._container.holds(manifest.id):  # else it is being pruned
            self._problems += [(manifest.id, fault) for fault in found]

    def _try(self, folder: Folder, tip: Link) -> bool:
        """Put one state together in the scratch folder; False when its backup was pruned at this moment."""
        if any(backup == tip.backup for backup, _ in self._problems):
            return False  # said already
        try:
            self._build(folder, tip)
        except BackupNotFoundError:
            return False
        except SecretError as error:
            # Its files are as they were written; what they hold, only who has the key can tell.
            self._untried.append((tip.piece.address, str(error)))
            return False
        except ProntoError as error:
            if self._stop() or isinstance(error, StorageFullError):
                raise
            self._problems.append((tip.backup, str(error)))
            event("backup.damaged", backup=tip.backup, address=tip.piece.address)
        finally:
            for name in folder.names():
                folder.remove(name)
        return True

    def _build(self, folder: Folder, tip: Link) -> None:
        links = self._chains.links(tip)
        put_together(self._container, links, folder, KEYSTORE_FILE, stop=self._stop)
        path = f"{folder.path}/{KEYSTORE_FILE}"
        copy = snapshot.open_copy(path, self._container.secret_of(links[0].piece))
        try:
            wrong = inspection.contradictions(copy, path)
        finally:
            copy.close()
        if len(wrong) > links[0].piece.faults:
            raise CorruptError(f"what it makes of {tip.piece.address} contradicts itself: {wrong[0]}")

"""Applying a plan: each address built beside its place, verified, then put in by one rename; or left as it was."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import folders, metadata, opening, snapshot
from prontodb.engine.sqlite.intake import Intake
from prontodb.engine.sqlite.writing import MAX_RECORDS
from prontodb.errors import ConflictError, ProntoError, QuotaExceededError
from prontodb.log import event
from prontodb.migration import verify
from prontodb.migration.meeting import SESSION, compare
from prontodb.migration.reasons import Reason
from prontodb.model.layout import KEYSTORE_FILE
from prontodb.model.progress import Progress
from prontodb.storage import connection as sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from prontodb.engine.sqlite.digest import Digest
    from prontodb.engine.sqlite.intake import Given
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.migration.plan import Plan
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

BATCH_CHARACTERS = 4 * 1024 * 1024
"""Characters of values put in at a time, unless a single one has more."""


class _NothingToDoError(Exception):
    """The address has it all already; never leaves this module."""


class _SinceThePlanError(ConflictError):
    """With `on_conflict='fail'`, the one error of an address that stops all."""


class Applying:
    """Applies one plan to one root; `steps` yields after each address."""

    def __init__(
        self,
        plan: Plan,
        lifecycle: Lifecycle,
        limits: Limits,
        clock: Clock,
        *,
        stop: Callable[[], bool],
    ) -> None:
        self._plan, self._lifecycle, self._limits, self._clock, self._stop = plan, lifecycle, limits, clock, stop
        self.written: list[Address] = []
        """The addresses that were made or changed."""
        self._entries = 0

    def steps(self) -> Generator[Progress, None, None]:
        """Do it. An address that cannot be written stays as it was, is told in the plan, and stops no other."""
        plan = self._plan
        slots = [slot for slot in range(len(plan.places.addresses)) if self._is_due(slot)]
        total = sum(plan.ledger.of_slot(slot)[0] for slot in slots)
        for slot in sorted(slots, key=lambda slot: plan.places.addresses[slot]):
            address = plan.places.addresses[slot]
            yield Progress(what=f"writing {address}", done=self._entries, total=max(total, self._entries))
            try:
                self._lifecycle.restore(address, partial(self._build, slot), "migrate", "migrated")
                self.written.append(address)
            except _NothingToDoError:
                pass
            except _SinceThePlanError:
                raise
            except (ProntoError, *sqlite.ERRORS) as error:
                # What SQLite says while a keystore is built is of that one; its file is in nobody's sight yet.
                path = self._lifecycle.layout.keystore_path(address)
                error = error if isinstance(error, ProntoError) else sqlite.translated(error, path)
                event("migration.failed", address=address, reason=str(error))
                plan.fail(slot, str(error))
        yield Progress(what="", done=total, total=total)

    def _is_due(self, slot: int) -> bool:
        """True for an address that is to get something that it did not have when the plan was made."""
        wanted, there = self._plan.ledger.of_slot(slot)
        return wanted > there or bool(self._plan.ledger.lifetimes(slot))

    def _build(self, slot: int, folder: Folder, secret: Secret | None) -> tuple[int, Mapping[str, str]]:
        """Fill the folder that will take the place of an address's; return when the address was created, its labels."""
        address = self._plan.places.addresses[slot]
        exists = self._lifecycle.exists(address)
        labels: dict[str, str] = {}
        created_at_ms = self._clock.wall_ms()
        if exists:
            snapshot.copy_whole(
                self._lifecycle.layout,
                address,
                folder,
                KEYSTORE_FILE,
                busy_timeout_ms=round(self._limits.wait_s * 1_000),
                stop=self._stop,
                look=lambda connection: compare(self._plan, slot, connection),
            )
            self._refuse_conflicts(address)
            if not self._is_due(slot):
                raise _NothingToDoError
            created_at_ms, labels = self._metadata_of(address, created_at_ms)
        else:
            folders.create_keystore(folder, secret)
        path = f"{folder.path}/{KEYSTORE_FILE}"
        limits = self._limits.at(address)
        self._fill(slot, path, limits, secret, is_new=not exists)
        snapshot.make_new(path, secret)
        folder.sync_file(KEYSTORE_FILE)
        _check_bytes(folder, limits)
        return created_at_ms, labels

    def _refuse_conflicts(self, address: Address) -> None:
        """With `on_conflict='fail'`: somebody has set one of the keys since the plan was made."""
        if self._plan.options.on_conflict != "fail":
            return
        for reported in self._plan.ledger.examples(Reason.KEPT, 1):
            raise _SinceThePlanError(
                f"a key of {address} was set since the plan was made; {len(self.written)} addresses were written before"
                f" that, {address} stays as it is (row {reported.row})"
            )

    def _metadata_of(self, address: Address, now_ms: int) -> tuple[int, dict[str, str]]:
        try:
            with opening.open_folder(self._lifecycle.layout, address) as folder:
                found = metadata.read(folder)
        except ProntoError:
            return now_ms, {}  # the keystore works without it, and the doctor tells of it
        return found.created_at_ms, dict(found.labels)

    def _fill(self, slot: int, path: str, limits: Limits, secret: Secret | None, *, is_new: bool) -> None:
        intake = Intake(path, SESSION, self._clock.wall_ms(), is_new=is_new, secret=secret)
        try:
            for _, namespace, lifetime_ms, _ in self._plan.ledger.lifetimes(slot):
                intake.put_lifetime(namespace, lifetime_ms)
            for batch in self._batches(slot):
                intake.put(batch)
                self._entries += len(batch)
            expected: Digest = intake.finish()
        finally:
            intake.close()
        verify.check_address(self._plan, slot, path, expected, secret, is_new=is_new)
        if limits.max_entries is not None and expected.entries > limits.max_entries:
            raise QuotaExceededError("max_entries", limits.max_entries)

    def _batches(self, slot: int) -> Iterator[list[Given]]:
        batch: list[Given] = []
        size = 0
        for key, value, created, updated, expires in self._plan.ledger.values(slot, self._plan.copies):
            batch.append((key, value.decode(), max(created, 0), max(updated, 0), None if expires < 0 else expires))
            size += len(value)
            if len(batch) >= MAX_RECORDS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _check_bytes(folder: Folder, limits: Limits) -> None:
    most, found = limits.max_keystore_bytes, folder.stat(KEYSTORE_FILE)
    if most is not None and found is not None and found.st_size > most:
        raise QuotaExceededError("max_keystore_bytes", most)

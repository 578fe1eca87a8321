"""Encrypting, decrypting and rekeying a whole address: written anew beside its place, then put in by rename.

A kill at any step leaves the old keystore with its secret or the new one with its own: metadata.json, which names the
secret, comes and goes with the file that it opens, and the key record holds both secrets from before the first step on.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from prontodb.engine.sqlite import belonging, ciphers, folders, metadata, opening, transcribing
from prontodb.engine.sqlite.lifecycle import Change, step
from prontodb.errors import AddressNotFoundError, ConflictError, ProntoError
from prontodb.log import event
from prontodb.model.layout import KEYSTORE_FILE, METADATA_FILE
from prontodb.model.progress import never

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from prontodb.engine.sqlite.digest import Digest
    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.progress import Progress
    from prontodb.model.secret import Secret

ENCRYPT, DECRYPT, REKEY = "encrypt", "decrypt", "rekey"
BUSY_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ResealReport:
    """What encrypting, decrypting or rekeying an address did. `encryption` names its secret now, None when plain.

    `dropped`: older secrets are forgotten, and backups made with them cannot be read any more. `forgotten`: how many
    contents that restores had put aside went, which no undo brings back.
    """

    address: Address
    encryption: str | None
    entries: int
    dropped: bool
    forgotten: int
    seconds: float


class Resealing:
    """One change of the secret of an address."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        clock: Clock,
        address: Address,
        what: str,
        *,
        drop_older: bool = False,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._lifecycle, self._layout, self._clock = lifecycle, lifecycle.layout, clock
        self._address, self._what, self._drop_older, self._stop = address, what, drop_older, stop
        self._forgotten = 0

    def steps(self) -> Generator[Progress, None, ResealReport]:
        """Do it. Refused while sessions are at the address.

        What restores put aside of it goes where it is plain, or would not open any more.
        """
        begun, address = perf_counter(), self._address
        if not self._lifecycle.exists(address):
            raise AddressNotFoundError(address)
        self._lifecycle.prepare_root()
        with self._lifecycle.hold(address, f"{self._what} {address}"):
            self._lifecycle.check_no_sessions(address)
            folders.remove_remains(self._layout, address)
            record, name, about = self._found()
            self._check(name)
            secret, is_new = self._new_secret(record)
            step(f"{self._what}.recorded")
            try:
                digest = yield from self._replaced(secret, record, about)
            except BaseException:
                if secret is not None and is_new:
                    belonging.take_back(self._layout, address, secret)
                raise
            with Change(made=True):
                folders.remove_remains(self._layout, address)
                step(f"{self._what}.emptied")
                dropped = self._drop_older and secret is not None
                if dropped and secret is not None:
                    ciphers.keys_of(self._layout).drop_older(secret)
        event("address.resealed", address=address, what=self._what, dropped=dropped)
        return ResealReport(
            address=address,
            encryption=None if secret is None else secret.name,
            entries=digest.entries,
            dropped=dropped,
            forgotten=self._forgotten,
            seconds=perf_counter() - begun,
        )

    def _found(self) -> tuple[str | None, str | None, tuple[int, Mapping[str, str]]]:
        with opening.open_folder(self._layout, self._address) as folder:
            try:
                found = metadata.read(folder)
                about: tuple[int, Mapping[str, str]] = found.created_at_ms, found.labels
            except ProntoError:
                about = self._clock.wall_ms(), {}  # a plain keystore works without it
            record = ciphers.record_in(self._layout, folder, self._address)
            return record, ciphers.name_in(self._layout, folder, self._address), about

    def _check(self, name: str | None) -> None:
        if self._what == ENCRYPT and name is not None:
            raise ConflictError(
                f"{self._address} is encrypted already; to give it a new secret: prontodb address rekey {self._address}"
            )
        if self._what != ENCRYPT and name is None:
            raise ConflictError(
                f"{self._address} is not encrypted; to encrypt it: prontodb address encrypt {self._address}"
            )

    def _new_secret(self, record: str | None) -> tuple[Secret | None, bool]:
        if self._what == DECRYPT:
            return None, False
        now_ms = self._clock.wall_ms()
        return ciphers.new_secret(self._layout, self._address, now_ms, record, forgetting=self._drop_older)

    def _replaced(
        self, secret: Secret | None, record: str | None, about: tuple[int, Mapping[str, str]]
    ) -> Generator[Progress, None, Digest]:
        """Write the keystore anew and put it in the place of the old one, which goes."""
        address = self._address
        # Each step may run in another thread.
        source, _ = opening.open_reader(self._layout, address, busy_timeout_ms=BUSY_TIMEOUT_MS, any_thread=True)
        staged = folders.stage_nothing(self._layout, address)
        try:
            try:
                digest = yield from transcribing.steps(source, staged.folder, KEYSTORE_FILE, secret, self._stop)
            finally:
                source.close()
            name = ciphers.plain_name(record) if secret is None else secret.name
            staged.folder.create(METADATA_FILE, metadata.image(*about, name))
            step(f"{self._what}.staged")
            with self._lifecycle.hold_creation(address.user, f"{self._what} {address}"):
                self._lifecycle.tell.placing(address, staged.folder, secret)
                if self._what == ENCRYPT or self._drop_older:
                    # Before the change: what was put aside is plain, or under a secret that is about to be forgotten.
                    self._forgotten = folders.forget_kept(self._layout, address)
                staged.replace(self._clock.wall_ms(), lambda: step(f"{self._what}.aside"), forget=True)
        except BaseException:
            if folders.exists(self._layout, address):
                staged.discard()
            else:
                staged.close()
                folders.remove_remains(self._layout, address)
            raise
        step(f"{self._what}.placed")
        self._lifecycle.tell.placed(address)
        return digest

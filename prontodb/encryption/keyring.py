"""The keyring of one root: brings the secret of each encrypted address, makes new ones, and destroys them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.encryption import records, sealing
from prontodb.encryption.records import MAX_RECORD_BYTES, Keys, Record
from prontodb.encryption.sources import PASSPHRASE, SANDBOX_KEY, RunKey, Stretch, encrypts_new_by, source_from
from prontodb.errors import CorruptError, ProntoError, SecretError, shown
from prontodb.model.layout import KEYS, KEYS_LOCK_FILE, Layout
from prontodb.model.secret import is_record_id, parsed_name
from prontodb.storage import lock
from prontodb.storage.files import make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prontodb.encryption.sources import KeySource
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

ENDING = ".json"
ASIDE = ".aside"
"""The end of the name of a record that an imported one took the place of, because it could not be read."""
SPARE = 100
"""Secrets that a full record takes all the same where older ones are about to be forgotten."""
HOW_TO_BRING = (
    "set PRONTODB_KEY_FILE, PRONTODB_KEY_COMMAND, PRONTODB_KEYRING or PRONTODB_PASSPHRASE, or prontodb.open(keys=...)"
)
_BACK = "bring it back: prontodb secret import FILE"


class DamagedRecordError(SecretError):
    """A key record is not as it was written; what it is for is untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did: how many records were sealed anew, how many had been, and what was wrong with the others."""

    done: int
    before: int
    damaged: tuple[str, ...] = ()


class Keyring:
    """Key records below one folder, and the source whose key they are sealed with; None when none was brought.

    `encrypts_new`: addresses that are made from now on are encrypted. `asked` asks somebody for a passphrase, where no
    source was brought and a record needs one. May be used from several threads.
    """

    def __init__(
        self,
        root: str,
        source: KeySource | None,
        *,
        encrypts_new: bool = False,
        asked: KeySource | None = None,
        wait_s: float = 5.0,
    ) -> None:
        self._root, self.source, self.encrypts_new, self._wait_s = root, source, encrypts_new, wait_s
        self._asked = asked
        self._opened: dict[str, tuple[str, Keys]] = {}

    def elsewhere(self, root: str) -> Keyring:
        """Return the keyring of another root, sealed with the same key."""
        return Keyring(root, self.source, encrypts_new=self.encrypts_new, asked=self._asked, wait_s=self._wait_s)

    # Looking

    def _names(self) -> list[str]:
        try:
            with open_root(self._root, KEYS) as folder:
                return folder.names()
        except FileNotFoundError:
            return []

    def ids(self) -> list[str]:
        """Return the ids of all records."""
        ids = [name.removesuffix(ENDING) for name in self._names() if name.endswith(ENDING)]
        return [record for record in ids if is_record_id(record)]

    def has(self, record: str) -> bool:
        """True when there is a file for a record, whatever it holds."""
        try:
            with open_root(self._root, KEYS) as folder:
                return folder.stat(record + ENDING) is not None
        except FileNotFoundError:
            return False

    def remains(self) -> list[str]:
        """Return the paths of what changes that were killed left of records."""
        return [f"{self._root}/{KEYS}/{name}" for name in self._names() if _is_remains(name)]

    def aside(self) -> list[str]:
        """Return the paths of records that imported ones took the place of."""
        return [f"{self._root}/{KEYS}/{name}" for name in self._names() if name.endswith(ASIDE)]

    def record(self, record: str) -> Record:
        """Return one record; `SecretError` when it is not there, `DamagedRecordError` when it is none."""
        try:
            with open_root(self._root, KEYS) as folder:
                return _read(folder, record)
        except FileNotFoundError:
            raise SecretError(
                f"key record {record} is gone, and without it nothing opens what it is for: it was destroyed with its "
                f"address, or is lost; {_BACK}"
            ) from None
        except CorruptError as error:
            raise DamagedRecordError(f"{error}; {_BACK}") from error

    def of_address(self, address: object) -> list[Record]:
        """Return the records that are an address's: those that say so."""
        found: list[Record] = []
        for record in self.ids():
            try:
                one = self.record(record)
            except ProntoError:
                continue  # gone at this moment, or not to be read, which is said where it is asked for
            if str(address) in one.addresses:
                found.append(one)
        return found

    def is_of(self, record: str, address: object) -> bool:
        """True when there is such a record, and it says that it is the address's."""
        try:
            return str(address) in self.record(record).addresses
        except SecretError:
            return False

    def is_damaged(self, record: str) -> bool:
        """True when there is such a record, and it cannot be read."""
        try:
            self.record(record)
        except DamagedRecordError:
            return True
        except ProntoError:
            pass
        return False

    def _source(self, what: str = "this") -> KeySource:
        if self.source is None:
            raise SecretError(f"{what} is encrypted and no key was brought; {HOW_TO_BRING}")
        return self.source

    def _source_for_new(self, address: object) -> KeySource:
        if self.source is None:
            raise SecretError(f"encrypting {address} needs a key, and no key was brought; {HOW_TO_BRING}")
        return self.source

    def keys(self, record: Record) -> Keys:
        """Return the keys of a record; opened once, as long as it stays the same."""
        mark = record.sealed.hex()
        known = self._opened.get(record.id)
        if known is None or known[0] != mark:
            source = self._asked if self.source is None and record.kind == PASSPHRASE else None
            known = self._opened[record.id] = (mark, record.opened(source or self._source(record.address)))
        return known[1]

    def secret(self, name: str, address: object = None) -> Secret:
        """Return the secret that metadata or a manifest names: RECORD-GENERATION.

        With `address`, only from a record of its own: whoever may write the metadata of one address must not come to
        the secret of another by naming it.
        """
        parsed = parsed_name(name)
        if parsed is None:
            raise CorruptError(f"{shown(name)} is not the name of a secret")
        record = self.record(parsed[0])
        if address is not None and str(address) not in record.addresses:
            raise SecretError(
                f"the metadata of {address} names {record}, which is not its own; if its folder was moved or copied by "
                f"hand: put it back as {record.address}, then 'prontodb address rename' or 'prontodb copy'; if only "
                "its metadata.json was: remove that, then 'prontodb doctor --repair'"
            )
        return self.keys(record).secret(parsed[1])

    def secrets_of(self, address: object) -> list[Secret]:
        """Return every secret that is an address's, the newest of each record first; `SecretError` without the key."""
        found = [self.keys(record) for record in self.of_address(address)]
        return [keys.secret(number) for keys in found for number in reversed(keys.generations)]

    def newest(self, record: str) -> Secret:
        """Return the newest secret in a record."""
        return self.keys(self.record(record)).secret()

    def lend(self, secret: Secret, address: object, keyring: Keyring) -> None:
        """Put a record that holds one secret, and none of its other generations, into another keyring."""
        record = self.record(secret.record)
        lent = self.keys(record).with_only(secret.generation)
        keyring._publish(records.sealed(lent, str(address), record.created_at_ms, keyring._source(), None))

    # Changing. Each holds one lock, so that none brings back what another destroyed, and is old or new after a crash.

    def _hold(self, purpose: str) -> lock.HeldLock:
        parts = Layout(self._root).keys_lock_parts()
        return lock.acquire(self._root, parts, KEYS_LOCK_FILE, purpose=purpose, wait_s=self._wait_s, one_shot=True)

    def make(self, address: object, now_ms: int) -> Secret:
        """Make a record for an address; return its secret."""
        sealing.check_available()
        keys, source = Keys.new(), self._source_for_new(address)
        with self._hold(f"make a key record for {address}"):
            self._publish(records.sealed(keys, str(address), now_ms, source, self._known_stretch()))
        return keys.secret()

    def add(self, record: str, *, forgetting: bool = False) -> Secret:
        """Add a generation to a record and return its secret; those before stay in it.

        `forgetting`: those before are about to be forgotten, so that a full record takes it all the same.
        """
        with self._hold(f"add a secret to {record}"):
            before = self.record(record)
            source = self._source_for_new(before.address)
            keys = self.keys(before).with_next(SPARE if forgetting else 0)
            self._publish(before.resealed(keys, source, before.stretch))
        return keys.secret()

    def drop_older(self, secret: Secret) -> None:
        """Forget all generations of a record but one: what they sealed, backups for one, nobody can read any more."""
        with self._hold(f"drop older secrets of {secret.record}"):
            before = self.record(secret.record)
            keys = self.keys(before).with_only(secret.generation)
            self._publish(before.resealed(keys, self._source(), before.stretch))

    def renaming(self, record: str, old: object, new: object) -> None:
        """Let two addresses in with a record: it is about to go from one to the other."""
        with self._hold(f"rename key record {record}"):
            self._publish(self.record(record).renamed(str(new), str(old)))

    def settle(self, record: str, address: object) -> None:
        """Say that a record is one address's and no other's."""
        with self._hold(f"rename key record {record}"):
            self._publish(self.record(record).renamed(str(address), None))

    def destroy(self, record: str) -> None:
        """Destroy a record and what is left of it: from then on nothing opens its keystore, nor any backup of it."""
        if not any(record in name for name in self._names()):
            return
        with self._hold(f"destroy key record {record}"), open_root(self._root, KEYS) as folder:
            # The record last: while it is there, whoever deletes its address once more finds what is left of it.
            for name in folder.names():
                if name.startswith((f"{record}.", f".{record}.")) and name != record + ENDING:
                    folder.remove(name)
            folder.remove(record + ENDING)
            folder.sync()
        self._opened.pop(record, None)

    def tidy(self) -> None:
        """Remove what changes that were killed left of records: each is old or new without it."""
        with self._hold("tidy keys"), open_root(self._root, KEYS) as folder:
            for name in folder.names():
                if _is_remains(name):
                    folder.remove(name)
            folder.sync()

    def rotate(self, source: KeySource) -> Rotation:
        """Seal every record that can be read with what another source brings.

        Nothing that they open is rewritten. After a crash some are sealed anew, and the next call does the others.
        Raises `SecretError` when the other source brings no key, also where there is no record to seal.
        """
        if source.kind != PASSPHRASE:
            source.wrapping_key(None)
        elif not self.ids():
            source.wrapping_key(Stretch.new())  # it is asked for below, where there is a record
        with self._hold("rotate keys"):
            wanted, damaged = self._readable()
            # All are opened before any is changed: else a second wrong one would be met half-way.
            late = [record for record in wanted if not record.is_sealed_by(source)]
            keys = [self.keys(record) for record in late]
            stretch = next((one.stretch for one in wanted if one not in late), None)
            for record, found in zip(late, keys, strict=True):
                anew = record.resealed(found, source, stretch)
                self._publish(anew)
                stretch = anew.stretch
        return Rotation(done=len(late), before=len(wanted) - len(late), damaged=tuple(damaged))

    def _readable(self) -> tuple[list[Record], list[str]]:
        found, damaged = [], []
        for record in self.ids():
            try:
                found.append(self.record(record))
            except ProntoError as error:
                damaged.append(str(error))
        return found, damaged

    def exported(self, record: Record, source: KeySource | None) -> bytes:
        """Return a record as a file to be kept elsewhere; sealed with another source's key when one is given."""
        keys = self.keys(record)  # what does not open is no safe copy
        return (record if source is None else record.resealed(keys, source, None)).encode()

    def imported(
        self, data: bytes, source: KeySource | None, address: object = None
    ) -> tuple[Record, bool, str | None]:
        """Take back a record that `exported` made, sealed with `source`'s key, if given; as `address`'s, if given.

        Returns the record, False when it was here already, and the path at which one is kept that was here and could
        not be read. A record that holds a key which this one has not is never replaced.
        """
        try:
            given = records.decode(data, "the file")
        except CorruptError as error:
            raise CorruptError(
                f"{str(error).replace('is no key record', 'is no exported key record')}; "
                "make one with: prontodb secret export ADDRESS"
            ) from error
        keys = given.opened(source or self._source())
        if address is not None:
            given = given.renamed(str(address), None)
        with self._hold(f"import key record {given.id}"):
            aside = None
            if self.has(given.id):
                try:
                    here = self.record(given.id)
                    mine = self.keys(here)
                except SecretError:
                    aside = self._put_aside(given.id)
                else:
                    if mine.holds(keys):
                        if address is not None:
                            here = here.renamed(str(address), None)
                            self._publish(here)
                        return here, False, None
                    if not keys.holds(mine):
                        raise SecretError(f"{here} is here with other keys; it stays as it is")
            anew = given.resealed(keys, self._source(), self._known_stretch())
            self._publish(anew)
            return anew, True, aside

    def _put_aside(self, record: str) -> str:
        name = f"{record}.{time.time_ns()}{ASIDE}"
        with open_root(self._root, KEYS) as folder:
            folder.rename(record + ENDING, name)
            return f"{folder.path}/{name}"

    def _known_stretch(self) -> Stretch | None:
        """Return how the passphrase was stretched already, so that it is done once for all records."""
        if self._source().kind != PASSPHRASE:
            return None
        for record in self.ids():
            try:
                found = self.record(record)
            except ProntoError:
                continue
            if found.stretch is not None and found.is_sealed_by(self._source()):
                return found.stretch
        return None

    def _publish(self, record: Record) -> None:
        data = record.encode()
        if len(data) > MAX_RECORD_BYTES:
            raise SecretError(f"{record} would be larger than a record can be; it stays as it is")
        with make_root(self._root, KEYS) as folder:
            folder.publish(record.id + ENDING, data)
        # A folder made just now must not be lost with what opens an address.
        with open_root(self._root) as above:
            above.sync()

    def __repr__(self) -> str:
        return f"<Keyring of {self._root}, source {self.source!r}>"


def _is_remains(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp") and is_record_id(name[1:].partition(".")[0])


def _read(folder: Folder, record: str) -> Record:
    name = record + ENDING
    place = shown(f"{folder.path}/{name}")
    found = folder.check_file(name)
    if found is None:
        raise FileNotFoundError(place)
    if found.st_size > MAX_RECORD_BYTES:
        raise CorruptError(f"{place} is over {MAX_RECORD_BYTES:,} bytes; it was not read")
    return records.decode(b"".join(folder.chunks(name)), place, record)


def keyring_of(
    layout: Layout,
    environment: Mapping[str, str],
    *,
    source: KeySource | None = None,
    encrypts_new: bool = False,
    asked: KeySource | None = None,
    wait_s: float = 5.0,
) -> Keyring:
    """Return the keyring of a root: with the source that was brought, else the one that the environment names.

    Inside of a sandboxed run, whose root is closed, with the one record that the run has laid out for its address.
    """
    encrypts_new = encrypts_new or encrypts_new_by(environment)
    if layout.sandbox is not None and (key := environment.get(SANDBOX_KEY)):
        return Keyring(layout.sandbox, RunKey(key), encrypts_new=encrypts_new, wait_s=wait_s)
    source = source or source_from(environment)
    return Keyring(layout.root, source, encrypts_new=encrypts_new, asked=asked, wait_s=wait_s)

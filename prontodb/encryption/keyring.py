"""The keyring of one root: brings the secret of each encrypted address, makes new ones, and destroys them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.encryption import records, sealing
from prontodb.encryption.records import Keys, Record
from prontodb.encryption.sources import PASSPHRASE, SANDBOX_KEY, RunKey, encrypts_new_by, source_from
from prontodb.errors import CorruptError, ProntoError, SecretError, shown
from prontodb.log import event
from prontodb.model.layout import KEYS, KEYS_LOCK_FILE, Layout
from prontodb.model.secret import is_record_id, parsed_name
from prontodb.storage import lock
from prontodb.storage.files import make_root, open_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prontodb.encryption.sources import KeySource, Stretch
    from prontodb.model.secret import Secret
    from prontodb.storage.files import Folder

ENDING = ".json"
MAX_RECORD_BYTES = 64 * 1024
HOW_TO_BRING = (
    "set PRONTODB_KEY_FILE, PRONTODB_KEY_COMMAND, PRONTODB_KEYRING or PRONTODB_PASSPHRASE, or prontodb.open(keys=...)"
)


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

    def ids(self) -> list[str]:
        """Return the ids of all records."""
        try:
            with open_root(self._root, KEYS) as folder:
                names = folder.names()
        except FileNotFoundError:
            return []
        ids = [name.removesuffix(ENDING) for name in names if name.endswith(ENDING)]
        return [record for record in ids if is_record_id(record)]

    def record(self, record: str) -> Record:
        """Return one record; `SecretError` when it is not there."""
        try:
            with open_root(self._root, KEYS) as folder:
                return _read(folder, record)
        except FileNotFoundError:
            raise SecretError(
                f"key record {record} is gone, and without it nothing opens what it is for: it was destroyed with its "
                f"address, or is lost; bring it back: prontodb secret import FILE"
            ) from None

    def of_address(self, address: object) -> list[Record]:
        """Return the records that say that they are an address's; of one that is encrypted it is one."""
        found: list[Record] = []
        for record in self.ids():
            try:
                one = self.record(record)
            except ProntoError:
                continue  # gone at this moment, or damaged, which is said of its own address
            if one.address == str(address):
                found.append(one)
        return found

    def of_path(self, folder: str) -> tuple[str, int] | None:
        """Return the record and newest generation of the address in a folder, found by what the records say."""
        found = self.of_address("/".join(folder.split("/")[-2:]))
        return (found[0].id, self.keys(found[0]).generations[-1]) if len(found) == 1 else None

    def is_of(self, record: str, address: object) -> bool:
        """True when there is such a record, and it says that it is the address's."""
        try:
            return self.record(record).address == str(address)
        except SecretError:
            return False

    def _source(self) -> KeySource:
        if self.source is None:
            raise SecretError(f"this is encrypted and no key was brought; {HOW_TO_BRING}")
        return self.source

    def keys(self, record: Record) -> Keys:
        """Return the keys of a record; opened once, as long as it stays the same."""
        mark = record.sealed.hex()
        known = self._opened.get(record.id)
        if known is None or known[0] != mark:
            source = self._asked if self.source is None and record.kind == PASSPHRASE else None
            known = self._opened[record.id] = (mark, record.opened(source or self._source()))
        return known[1]

    def secret(self, name: str) -> Secret:
        """Return the secret that metadata or a manifest names: RECORD-GENERATION."""
        parsed = parsed_name(name)
        if parsed is None:
            raise CorruptError(f"{shown(name)} is not the name of a secret")
        record, generation = parsed
        return self.keys(self.record(record)).secret(generation)

    def newest(self, record: str) -> Secret:
        """Return the newest secret in a record."""
        return self.keys(self.record(record)).secret()

    def lend(self, secret: Secret, keyring: Keyring) -> None:
        """Put a record that holds one secret, and none of its other generations, into another keyring."""
        record = self.record(secret.record)
        lent = self.keys(record).with_only(secret.generation)
        keyring._publish(records.sealed(lent, record.address, record.created_at_ms, keyring._source(), None))

    # Changing. Each holds one lock, and is old or new after a crash.

    def _hold(self, purpose: str) -> lock.HeldLock:
        parts = Layout(self._root).keys_lock_parts()
        return lock.acquire(self._root, parts, KEYS_LOCK_FILE, purpose=purpose, wait_s=self._wait_s, one_shot=True)

    def make(self, address: object, now_ms: int) -> Secret:
        """Make a record for an address; return its secret. No lock: nobody else knows its name."""
        sealing.check_available()
        keys, source = Keys.new(), self._source()
        self._publish(records.sealed(keys, str(address), now_ms, source, self._known_stretch()))
        return keys.secret()

    def add(self, record: str) -> Secret:
        """Add a generation to a record and return its secret; those before stay in it."""
        with self._hold(f"add a secret to {record}"):
            before = self.record(record)
            keys = self.keys(before).with_next()
            self._publish(self._sealed_again(before, keys))
        return keys.secret()

    def drop_older(self, secret: Secret) -> None:
        """Forget all generations of a record but one: what they sealed, backups for one, nobody can read any more."""
        with self._hold(f"drop older secrets of {secret.record}"):
            before = self.record(secret.record)
            self._publish(self._sealed_again(before, self.keys(before).with_only(secret.generation)))

    def _sealed_again(self, before: Record, keys: Keys) -> Record:
        return records.sealed(keys, before.address, before.created_at_ms, self._source(), before.stretch)

    def rename(self, record: str, address: object) -> None:
        """Say in a record that its address has another name; without one nothing is done."""
        try:
            with self._hold(f"rename key record {record}"):
                self._publish(self.record(record).renamed(str(address)))
        except SecretError as error:
            event("keys.not_renamed", record=record, reason=str(error))

    def destroy(self, record: str) -> None:
        """Destroy a record, if it is there: from then on nothing opens its keystore, nor any backup of it."""
        try:
            with open_root(self._root, KEYS) as folder:
                folder.remove(record + ENDING)
                folder.sync()
        except FileNotFoundError:
            pass
        self._opened.pop(record, None)

    def rotate(self, source: KeySource) -> tuple[int, int]:
        """Seal every record with what another source brings; return how many were, and how many had been already.

        Nothing that they open is rewritten. After a crash some are sealed anew, and the next call does the others.
        """
        done = 0
        with self._hold("rotate keys"):
            wanted = [self.record(record) for record in self.ids()]
            # All are opened before any is changed: else a second wrong one would be met half-way.
            late = [record for record in wanted if not record.is_sealed_by(source)]
            keys = [self.keys(record) for record in late]
            stretch = next((one.stretch for one in wanted if one not in late), None)
            before = len(wanted) - len(late)
            for record, found in zip(late, keys, strict=True):
                anew = records.sealed(found, record.address, record.created_at_ms, source, stretch)
                self._publish(anew)
                stretch = anew.stretch
                done += 1
        return done, before

    def exported(self, record: Record, source: KeySource | None) -> bytes:
        """Return a record as a file to be kept elsewhere; sealed with another source's key when one is given."""
        if source is None:
            self.keys(record)  # what does not open is no safe copy
            return record.encode()
        return records.sealed(self.keys(record), record.address, record.created_at_ms, source, None).encode()

    def imported(self, data: bytes, source: KeySource | None) -> tuple[Record, bool]:
        """Take back a record that `exported` made, sealed with `source`'s key if one is given; False: it was here.

        A record that is here and holds a key that this one has not is never replaced.
        """
        given = records.decode(data, "the file")
        keys = given.opened(source or self._source())
        with self._hold(f"import key record {given.id}"):
            if given.id in self.ids():
                here = self.record(given.id)
                mine = self.keys(here)
                if mine.holds(keys):
                    return here, False
                if not keys.holds(mine):
                    raise SecretError(f"{here} is here with other keys; it stays as it is")
            anew = records.sealed(keys, given.address, given.created_at_ms, self._source(), self._known_stretch())
            self._publish(anew)
            return anew, True

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
        with make_root(self._root, KEYS) as folder:
            folder.publish(record.id + ENDING, record.encode())
        # A folder made just now must not be lost with what opens an address.
        with open_root(self._root) as above:
            above.sync()

    def __repr__(self) -> str:
        return f"<Keyring of {self._root}, source {self.source!r}>"


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

"""Creating, renaming and deleting an address: locks, folder, registrar, in an order that heals after a crash.

Synchronous; one-shot commands call it directly, the async engine on a worker thread. Lock order everywhere:
addresses (sorted), then creation locks (sorted), then the registry's own.
"""

from __future__ import annotations

from prontodb.engine.sqlite import belonging, ciphers, fencing, folders, metadata, writing
from prontodb.engine.sqlite.telling import Telling
from prontodb.errors import (
    UNKNOWN_NOTE,
    AddressBusyError,
    AddressExistsError,
    AddressNotFoundError,
    BusyError,
    CorruptError,
    NewerFormatError,
    ProntoError,
    SecretError,
    outcome_is_unknown,
)
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.holder import Holder
from prontodb.model.layout import ADDRESS_LOCK_FILE, CREATE_LOCK_FILE, METADATA_FILE
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence
from prontodb.storage import holders, lock, reserve
from prontodb.storage.files import check_file_system, make_root, open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prontodb.engine.sqlite.context import Target
    from prontodb.engine.sqlite.telling import Registrar
    from prontodb.model.clock import Clock
    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret
    from prontodb.storage.connection import Connection
    from prontodb.storage.files import Folder


FAILPOINT: list[Callable[[str], None]] = []
"""Test hook: called with the name of each step of a lifecycle change. Empty, and free, in normal use."""


def step(name: str) -> None:
    """Tell the test hooks that a step of a change is done."""
    for hook in FAILPOINT:
        hook(name)


class Change:
    """A change under way: once `made` is true, what fails in the block says that the change may have happened."""

    __slots__ = ("made",)

    def __init__(self, *, made: bool = False) -> None:
        self.made = made

    def __enter__(self) -> Change:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self.made and isinstance(error, ProntoError) and not outcome_is_unknown(error):
            error.add_note(f"{UNKNOWN_NOTE}; it was done, and what was left to do after it was not")


class Held:
    """Several locks, released in reverse order."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: list[lock.HeldLock] = []

    def add(self, held: lock.HeldLock) -> None:
        self._locks.append(held)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        while self._locks:
            self._locks.pop().release()


class Lifecycle:
    """Address changes of one root. `one_shot`: take locks the light way of the command line."""

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        registrar: Registrar | None,
        *,
        wait_s: float,
        one_shot: bool,
        unsafe_file_system: bool = False,
    ) -> None:
        self.layout, self._clock = layout, clock
        self.tell = Telling(layout, clock, registrar, wait_s)
        self._wait_s, self._one_shot, self._unsafe = wait_s, one_shot, unsafe_file_system

    def prepare_root(self) -> None:
        """Make the root if it is missing; refuse one that is not ours or lies on a network file system."""
        make_root(self.layout.root).close()
        if not self._unsafe:
            check_file_system(self.layout.root)

    def hold(
        self,
        address: Address,
        purpose: str,
        wait_s: float | None = None,
        *,
        holder: Holder | None = None,
        tries: int = lock.TRIES,
        sealed: bool = False,
    ) -> lock.HeldLock:
        """Take the lock of an address; `AddressBusyError` names the holder at the deadline, and the way out.

        An exclusive session that died in it is fenced first: what it started may live on. `sealed`: also where nobody
        brought the secret for that.
        """
        try:
            return lock.acquire(
                self.layout.root,
                self.layout.lock_parts(address),
                ADDRESS_LOCK_FILE,
                purpose=purpose,
                wait_s=self._wait_s if wait_s is None else wait_s,
                one_shot=self._one_shot,
                holder=holder,
                tries=tries,
                succeed=lambda held: self._fence(address, held, sealed=sealed),
            )
        except BusyError as error:
            raise self._busy(address, error) from error

    def _busy(self, address: Address, error: BusyError) -> AddressBusyError:
        holder = error.holder
        if not isinstance(holder, Holder):
            return AddressBusyError(address, str(error))
        if holder.session is None:
            hint = f"it should not take long, try again; if pid {holder.process.pid} is stopped, continue or kill it"
            return AddressBusyError(address, f"held by {holder}; {hint}", (holder,))
        found = holders.Found(holder.session, holder, live=True)
        return AddressBusyError(address, holders.way_out([found]), (holder,))

    def _fence(self, address: Address, held: lock.HeldLock, *, sealed: bool) -> None:
        """Raise the epoch of an address, if it has a keystore that can be used."""

        def raise_epoch() -> None:
            fencing.at(
                self.layout,
                address,
                Limits(wait_s=self._wait_s),
                self._clock,
                lambda connection, target, now_ms: fencing.take_over(connection, target, held.identity, now_ms),
            )

        try:
            reserve.in_its_room(self.layout, raise_epoch)
        except (AddressNotFoundError, CorruptError, NewerFormatError):
            pass  # nothing that could be written to
        except SecretError:
            if not sealed:
                raise
        if held.previous is not None:
            event("session.reaped", address=address, session=held.previous.session, pid=held.previous.process.pid)

    def check_no_sessions(self, address: Address) -> None:
        """Raise `AddressBusyError` with the list of live shared sessions, dead ones cleared away.

        The caller holds the lock of the address, which no exclusive session can hold then.
        """
        try:
            with open_root(self.layout.root, *self.layout.lock_parts(address)) as folder:
                live, dead = holders.clear(folder)
        except FileNotFoundError:
            return
        for found in dead:
            event("session.reaped", address=address, session=found.session)
        if live:
            raise AddressBusyError(
                address, holders.way_out(live), tuple(found.holder for found in live if found.holder is not None)
            )

    def hold_creation(self, user: str, purpose: str, wait_s: float | None = None) -> lock.HeldLock:
        """Take the lock under which addresses of a user come and go."""
        return lock.acquire(
            self.layout.root,
            self.layout.creation_lock_parts(user),
            CREATE_LOCK_FILE,
            purpose=purpose,
            wait_s=self._wait_s if wait_s is None else wait_s,
            one_shot=self._one_shot,
        )

    def hold_all(self, purpose: str, *addresses: Address, wait_s: float | None = None, sealed: bool = False) -> Held:
        """Take every lock under which these addresses come and go; leaving the block frees them."""
        held = Held()
        try:
            for address in sorted(set(addresses)):
                held.add(self.hold(address, purpose, wait_s, sealed=sealed))
            for user in sorted({address.user.casefold() for address in addresses}):
                held.add(self.hold_creation(user, purpose, wait_s))
        except BaseException:
            held.__exit__()
            raise
        return held

    def exists(self, address: Address) -> bool:
        """True when the address has a folder."""
        return folders.exists(self.layout, address)

    def create(self, address: Address, *, encrypted: bool | None = None) -> bool:
        """Make an empty keystore; False when the address exists. After a crash it is whole or not there.

        `encrypted` None: as the root's keys say of new addresses.
        """
        if folders.exists(self.layout, address):
            return False
        self.prepare_root()
        with self.hold(address, f"create {address}"):
            return self.create_held(address, encrypted=encrypted)

    def create_held(self, address: Address, *, encrypted: bool | None = None) -> bool:
        """`create` for a caller who holds the lock of the address already."""
        with self.hold_creation(address.user, f"create {address}"):
            self._finish_off(address)
            if folders.exists(self.layout, address):
                return False
            self._build(address, None, encrypted)
            return True

    def create_filled(
        self, address: Address, fill: Callable[[str, Secret | None], None], *, encrypted: bool | None = None
    ) -> None:
        """Make a new address whose keystore `fill(folder, secret)` writes into before anybody can see it."""
        self.prepare_root()
        with self.hold_all(f"create {address}", address):
            self._finish_off(address)
            if folders.exists(self.layout, address):
                raise AddressExistsError(f"address {address} exists already")
            self._build(address, fill, encrypted)

    def _finish_off(self, address: Address) -> None:
        """Finish what a crash left of an address that is about to be made: a deletion has its end in the registry."""
        trashed = folders.is_trashed(self.layout, address)
        folders.remove_remains(self.layout, address)
        if trashed and not folders.exists(self.layout, address):
            self.tell.deleted(address)

    def _build(
        self, address: Address, fill: Callable[[str, Secret | None], None] | None, encrypted: bool | None
    ) -> None:
        """Stage, publish and register an address, all under its locks: a row must not outlive a deletion."""
        folders.check_no_twin(self.layout, address)
        at_ms = self._clock.wall_ms()
        sealed = ciphers.encrypts_new(self.layout) if encrypted is None else encrypted
        secret = ciphers.keys_of(self.layout).make(address, at_ms) if sealed else None
        try:
            staged = folders.stage(self.layout, address, at_ms, secret)
            step("create.staged")
            try:
                if fill is not None:
                    fill(staged.folder.path, secret)
                staged.publish()
            except BaseException:
                staged.discard()
                folders.remove_empty_user(self.layout, address.user)
                raise
        except BaseException:
            if secret is not None:
                belonging.take_back(self.layout, address, secret)
            raise
        step("create.published")
        self.tell.created(address, at_ms)
        event("address.created", address=address)
        step("create.registered")
        reserve.keep(self.layout)

    def delete(self, address: Address) -> bool:
        """Delete an address and its keystore; False when there is none. After a crash it is whole or gone."""
        if not folders.exists(self.layout, address) and not self._remains_of(address):
            return False
        self.prepare_root()
        with self.hold_all(f"delete {address}", address, sealed=True):
            self.check_no_sessions(address)
            # Old contents that lost their place are the address, too: back with them, then away with all.
            folders.remove_remains(self.layout, address)
            records = belonging.records_of(self.layout, address)  # or nothing is deleted
            found = folders.exists(self.layout, address)
            if found:
                self.tell.deleting(address)
            with Change() as change:
                try:
                    # Before the address itself: what a restore put aside would else take its place again.
                    folders.forget_kept(self.layout, address)
                    step("delete.marked")
                    self._shred(address, records)
                except ProntoError:
                    # Without its key record it is gone as well: its mark stays, and whoever looks next ends it.
                    change.made = any(not ciphers.keys_of(self.layout).has(record) for record in records)
                    if not change.made:
                        self._stays(address)
                    raise
                step("delete.shredded")
                change.made = bool(records)
                folders.to_trash(self.layout, address)
                change.made = True
                step("delete.moved")
                self.tell.deleted(address)
                step("delete.forgotten")
                folders.remove_remains(self.layout, address)
                step("delete.emptied")
                folders.remove_empty_user(self.layout, address.user)
            if found:
                event("address.deleted", address=address)
                reserve.keep(self.layout)  # where it was spent on this, there is room for it now
            return found

    def _stays(self, address: Address) -> None:
        """Take back that an address goes: what marks it as going must not outlive that."""
        if self.exists(address):
            self.tell.stays(address)

    def _shred(self, address: Address, records: list[str]) -> None:
        """Destroy the key records of an address: what is encrypted is gone with them, backups as well."""
        for record in records:
            ciphers.keys_of(self.layout).destroy(record)
            event("address.shredded", address=address, record=record)

    def shred_missing(self, address: Address) -> None:
        """Destroy the key records of an address that has no folder; the caller holds its locks.

        Not those that another address is to be opened with: its folder may have been moved by hand.
        """
        records = belonging.records_of(self.layout, address)
        self._shred(address, [one for one in records if not belonging.namers(self.layout, one)])

    def settle_record(self, record: str, addresses: tuple[str, ...]) -> str:
        """End what a rename that was killed began: the key record is the address's that uses it; return which."""
        known = [Address.parse(name) for name in addresses]
        with self.hold_all(f"settle key record {record}", *known, wait_s=0, sealed=True):
            # The first is the new name. Where neither uses it, it stays for the backups of the address under that.
            owner = next((one for one in known if belonging.uses(self.layout, one, record)), known[0])
            ciphers.keys_of(self.layout).settle(record, owner)
            return str(owner)

    def finish_deletion(self, address: Address) -> None:
        """Take a deletion to its end that was killed after the key record went; the caller holds the locks."""
        folders.to_trash(self.layout, address)
        folders.remove_remains(self.layout, address)
        folders.remove_empty_user(self.layout, address.user)

    def _remains_of(self, address: Address) -> bool:
        return bool(folders.remains_of(self.layout, address))

    def rename(self, old: Address, new: Address) -> None:
        """Give an address another name; its keystore and history stay as they are."""
        if old == new:
            return
        if not folders.exists(self.layout, old) and not self._remains_of(old):
            raise AddressNotFoundError(old)
        self.prepare_root()
        with self.hold_all(f"rename {old} to {new}", old, new):
            self.check_no_sessions(old)
            folders.remove_remains(self.layout, old)
            folders.remove_remains(self.layout, new)
            if not folders.exists(self.layout, old):
                raise AddressNotFoundError(old)
            if folders.exists(self.layout, new):
                raise AddressExistsError(f"address {new} exists already; delete it or choose another name")
            folders.check_no_twin(self.layout, new, old)
            records = belonging.records_of(self.layout, old)
            self.tell.renaming(old, new)
            step("rename.marked")
            try:
                for record in records:
                    ciphers.keys_of(self.layout).renaming(record, old, new)
                step("rename.recorded")
                folders.forget_kept(self.layout, old)
            except ProntoError:
                self._stays(old)
                raise
            folders.move(self.layout, old, new)
            with Change(made=True):
                step("rename.moved")
                belonging.settle(self.layout, new, records)
                self.tell.renamed(old, new)
                event("address.renamed", address=old, new=new)
                step("rename.registered")
                folders.remove_empty_user(self.layout, old.user)

    def keep_history(self, address: Address, keep: bool) -> None:
        """Say whether the journal of an address keeps the values of what is set from now on: for time travel."""
        self.prepare_root()
        with self.hold(address, f"{'keep' if keep else 'drop'} the history of {address}") as held:

            def work(connection: Connection, target: Target, now_ms: int) -> None:
                target.lock = held.identity
                writing.set_history(connection, target, keep, Fence("history"), now_ms)

            fencing.at(self.layout, address, Limits(wait_s=self._wait_s), self._clock, work)
        event("address.history", address=address, kept=keep)

    def restore(
        self,
        address: Address,
        build: Callable[[Folder, Secret | None], tuple[int, Mapping[str, str]]],
        purpose: str = "restore",
        done: str = "restored",
        *,
        like: str | None = None,
    ) -> str | None:
        """Put another keystore in the place of an address's, or make the address; return what keeps the old one.

        `build` puts a keystore, which the secret opens, into the folder, which nobody sees yet, and returns when the
        address was created and its labels. Refused while sessions are at the address. After a crash at any step the
        old contents are in their place, or the new ones. `purpose` and `done` say what it is for, to whoever waits and
        in the log; `like` names the secret of what is put in (see `ciphers.secret_for_restore`).
        """
        self.prepare_root()
        with self.hold(address, f"{purpose} {address}"):
            self.check_no_sessions(address)
            folders.remove_remains(self.layout, address)
            staged = folders.stage_nothing(self.layout, address)
            step("restore.begun")
            new: Secret | None = None
            try:
                secret, name, is_new = self._secret_for_restore(address, like)
                new = secret if is_new else None
                created_at_ms, labels = build(staged.folder, secret)
                staged.folder.create(METADATA_FILE, metadata.image(created_at_ms, labels, name))
                step("restore.staged")
                with self.hold_creation(address.user, f"{purpose} {address}"):
                    if not folders.exists(self.layout, address):
                        folders.check_no_twin(self.layout, address)
                    self.tell.placing(address, staged.folder, secret)
                    old = staged.replace(self._clock.wall_ms(), lambda: step("restore.aside"))
            except BaseException:
                if folders.exists(self.layout, address):
                    staged.discard()
                else:
                    # Put back what lost its place, if that is what happened; else this is a new address's remains.
                    staged.close()
                    folders.remove_remains(self.layout, address)
                    folders.remove_empty_user(self.layout, address.user)
                if new is not None:
                    belonging.take_back(self.layout, address, new)
                raise
            step("restore.placed")
            self.tell.created(address, created_at_ms)
            self.tell.placed(address)
            event(f"address.{done}", address=address, kept=old)
            step("restore.registered")
            return old

    def _secret_for_restore(self, address: Address, like: str | None) -> tuple[Secret | None, str | None, bool]:
        now_ms = self._clock.wall_ms()
        try:
            folder = open_root(self.layout.root, *self.layout.address_parts(address))
        except FileNotFoundError:
            return ciphers.secret_for_restore(self.layout, address, None, now_ms, like)
        with folder:
            return ciphers.secret_for_restore(self.layout, address, folder, now_ms, like)

    def undo_restore(self, address: Address, *, redo: bool = False) -> bool:
        """Change an address with what its last restore put aside, or with `redo` its last undo; False without one.

        Once more goes one restore further back. Refused while sessions are at the address.
        """
        if not any(folders.is_undone(name) == redo for name in folders.kept(self.layout, address)):
            return False
        self.prepare_root()
        with self.hold(address, f"undo the restore of {address}"):
            self.check_no_sessions(address)
            killed = folders.lost_place_to_restore(self.layout, address)
            folders.remove_remains(self.layout, address)
            if killed and not redo:
                return True  # between its renames: to put the address back was to undo it
            staged = folders.take_kept(self.layout, address, redo=redo)
            if staged is None:
                return False
            try:
                self.tell.placing_kept(address, staged.folder)
                staged.replace(self._clock.wall_ms(), lambda: step("undo.aside"), undone=not redo)
            finally:
                staged.close()
            step("undo.placed")
            self.tell.created(address, folders.created_at_ms(self.layout, address))
            self.tell.placed(address)
            event("address.restore_undone", address=address, redo=redo)
            return True

    def forget_kept(self, address: Address, until_ms: int | None) -> int:
        """Remove what restores of an address put aside until a moment; `BusyError` while somebody is at it."""
        with self.hold(address, f"forget what was put aside of {address}", wait_s=0):
            folders.remove_remains(self.layout, address)
            return folders.forget_kept(self.layout, address, until_ms)

    def heal(self, address: Address, wait_s: float | None = None) -> list[str]:
        """Finish what crashed creations, deletions or restores of this address left; return what was done."""
        with self.hold_all(f"heal {address}", address, wait_s=wait_s):
            trashed = folders.is_trashed(self.layout, address)
            done = folders.remove_remains(self.layout, address)
            if trashed and not folders.exists(self.layout, address):
                # A power cut may take back what the registry knew of the deletion; the trash is its record too.
                self.tell.deleted(address)
            folders.remove_empty_user(self.layout, address.user)
            return done

    def leftovers(self) -> Iterator[Address]:
        """Yield each address that a crash left something of, once."""
        seen: set[Address] = set()
        for address, _ in folders.remains(self.layout):
            if address not in seen:
                seen.add(address)
                yield address

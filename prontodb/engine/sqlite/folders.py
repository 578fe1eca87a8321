"""The folders of addresses: published by one rename, deleted by one rename, healed by their names.

`.new-CURSOR@ID` is one in the making, `.trash-CURSOR@ID` one on its way out, `.old-CURSOR@ID` what a restore
put aside. Whoever holds the lock of the address may finish or remove what a crash left. Callers hold the
locks; nothing here takes one.
"""

from __future__ import annotations

import os
import stat

from prontodb.engine.sqlite import metadata, schema
from prontodb.errors import AddressExistsError, InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.layout import (
    ADDRESSES,
    KEYS,
    KEYSTORE_FILE,
    METADATA_FILE,
    OLD_PREFIX,
    STAGED_PREFIX,
    TRASH_PREFIX,
)
from prontodb.storage.files import Folder, make_root, open_root, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prontodb.model.layout import Layout
    from prontodb.model.secret import Secret

_TEMPLATE: list[bytes] = []  # the empty keystore's bytes, made once per process


def _template(folder: Folder) -> bytes:
    if not _TEMPLATE:
        name = "template.db"
        folder.create(name, b"")
        schema.build_template(folder, name)
        _TEMPLATE.append(b"".join(folder.chunks(name)))  # unpublished and closed: no connection can be on it
        folder.remove(name)
    return _TEMPLATE[0]


def create_keystore(folder: Folder, secret: Secret | None = None) -> None:
    """Write an empty keystore into a folder that nobody else sees; with a secret one that only that opens."""
    if secret is None:
        folder.create(KEYSTORE_FILE, schema.image_for_new_keystore(_template(folder)))
    else:
        folder.create(KEYSTORE_FILE, b"")
        schema.build_encrypted(f"{folder.path}/{KEYSTORE_FILE}", secret)


def exists(layout: Layout, address: Address) -> bool:
    """True when the folder of the address is there (whatever is in it)."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            return user.stat(address.cursor) is not None
    except FileNotFoundError:
        return False


def check_no_twin(layout: Layout, address: Address, old: Address | None = None) -> None:
    """Refuse an address that differs only in case from another: some file systems hold just one of them.

    `old` is the address that is about to get this name: it is no twin of its own. The caller holds the
    creation lock of the user, so nobody is just about to use a user's folder that is empty.
    """
    try:
        with open_root(layout.root, ADDRESSES) as top:
            for name in _twins(top, address.user):
                if not _remove_if_empty(top, name) and not _holds_only(top, name, old):
                    raise AddressExistsError(f"user {address.user} differs only in case from {name}; use that name")
            if top.stat(address.user) is None:
                return
            with top.child(address.user) as user:
                for name in _twins(user, address.cursor):
                    if old is None or (address.user, name) != (old.user, old.cursor):
                        twin = f"{address.user}/{name}"
                        raise AddressExistsError(f"address {address} differs only in case from {twin}; use that")
    except FileNotFoundError:
        return


def _twins(folder: Folder, name: str) -> list[str]:
    folded = name.casefold()
    return [other for other in folder.names() if other != name and other.casefold() == folded]


def _holds_only(top: Folder, user: str, address: Address | None) -> bool:
    if address is None or address.user != user:
        return False
    with top.child(user) as folder:
        return all(name == address.cursor or name.startswith(".") for name in folder.names())


def _remove_if_empty(top: Folder, user: str) -> bool:
    """Remove the folder of a user who has no address; it would keep every twin of the name away."""
    try:
        os.rmdir(user, dir_fd=top.fd)
    except OSError:
        return False
    top.sync()
    return True


class Staged:
    """A new address folder in the making: complete and on disk, but under a name that nobody reads."""

    __slots__ = ("address", "folder", "name", "user")

    def __init__(self, user: Folder, folder: Folder, name: str, address: Address) -> None:
        self.user, self.folder, self.name, self.address = user, folder, name, address

    def publish(self) -> None:
        """Give the folder its name; from this instant the address exists."""
        self.folder.sync()
        if self.user.stat(self.address.cursor) is not None:
            raise AddressExistsError(f"address {self.address} exists already")
        self.user.rename(self.name, self.address.cursor)
        self.close()

    def replace(
        self, now_ms: int, between: Callable[[], None], *, undone: bool = False, forget: bool = False
    ) -> str | None:
        """Give the folder its name and keep what had it until now; return under which name, None when nothing had it.

        `undone`: what goes out came in by a restore that is undone now. `forget`: once this is in its place, what goes
        out is to be removed (`remove_remains`), and nobody may bring it back.

        A crash in between leaves the old contents to be put back (`remove_remains`).
        """
        self.folder.sync()
        cursor, old = self.address.cursor, None
        if self.user.stat(cursor) is not None:
            ending = _FORGOTTEN if forget else _UNDONE if undone else ""
            old = _name_for_old(self.user, self.address, now_ms) + ending
            self.user.rename(cursor, old)
            between()
        self.user.rename(self.name, cursor)
        self.close()
        return old

    def discard(self) -> None:
        """Remove what was staged."""
        self.folder.close()
        self.user.remove_tree(self.name)
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        self.folder.close()
        self.user.close()


def stage(layout: Layout, address: Address, created_at_ms: int, secret: Secret | None = None) -> Staged:
    """Build a complete, empty keystore beside its place. The caller publishes or discards it."""
    staged = stage_nothing(layout, address)
    try:
        create_keystore(staged.folder, secret)
        name = None if secret is None else secret.name
        staged.folder.create(METADATA_FILE, metadata.image(created_at_ms, encryption=name))
    except BaseException:
        staged.discard()
        raise
    return staged


def stage_nothing(layout: Layout, address: Address) -> Staged:
    """Make an empty folder beside the place of an address, for the caller to fill, and publish or discard."""
    user = make_root(layout.root, *layout.user_parts(address.user))
    # Whoever made the folders above may have been killed before syncing their names; what is acknowledged here must
    # not hang from a name that a power cut takes away.
    for parts in ((), (ADDRESSES,)):
        with open_root(layout.root, *parts) as above:
            above.sync()
    try:
        name = f"{STAGED_PREFIX}{address.cursor}@{os.urandom(6).hex()}"
        return Staged(user, user.make(name), name, address)
    except BaseException:
        user.close()
        raise


def created_at_ms(layout: Layout, address: Address) -> int | None:
    """Return when an address was created, as its folder says; None when it does not."""
    try:
        with open_root(layout.root, *layout.address_parts(address)) as folder:
            return metadata.read(folder).created_at_ms
    except (FileNotFoundError, ProntoError):
        return None


def to_trash(layout: Layout, address: Address) -> str | None:
    """Take an address away by one rename; return its name in the trash, None when there is none."""
    try:
        user = open_root(layout.root, *layout.user_parts(address.user))
    except FileNotFoundError:
        return None
    with user:
        if user.stat(address.cursor) is None:
            return None
        name = f"{TRASH_PREFIX}{address.cursor}@{os.urandom(6).hex()}"
        user.rename(address.cursor, name)
        return name


def remove_remains(layout: Layout, address: Address) -> list[str]:
    """Remove what crashed creations and deletions of this address left; put back what lost its place.

    Returns what was done, a line each.
    """
    done: list[str] = []
    try:
        user = open_root(layout.root, *layout.user_parts(address.user))
    except FileNotFoundError:
        return done
    with user:
        for name in user.names():
            if name.startswith((STAGED_PREFIX, TRASH_PREFIX)) and owner(address.user, name) == address:
                user.remove_tree(name)
                done.append(f"removed {address.user}/{name}, which a crash left")
        if user.stat(address.cursor) is None and (aside := _aside(user, address)):
            # A restore was killed between its two renames: what it put aside last is whole, nothing else is.
            user.rename(aside[-1], address.cursor)
            done.append(f"put {address.user}/{aside[-1]} back in its place as {address}")
        for name in _aside(user, address):
            if name.endswith(_FORGOTTEN):
                _to_trash(user, address, name)
                done.append(f"removed {address.user}/{name}, which was replaced")
    return done


def remove_plain_remains(layout: Layout, address: Address) -> None:
    """Remove what a crash left of an address that may be encrypted: the whole of it, in the clear, is what may be left.

    For whoever has just taken the address's lock. Never raises: what cannot be removed is told of by the doctor. Costs
    one look at a name below a root that has no secrets.
    """
    if os.path.lexists(layout.path(KEYS)):
        try:
            remove_remains(layout, address)
        except ProntoError as error:
            event("address.not_healed", address=address, reason=str(error))


# What a restore put aside

_UNDONE, _FORGOTTEN = "u", "x"


def _aside(user: Folder, address: Address) -> list[str]:
    """Return all folders of an address that were put aside, the last one last."""
    return sorted(
        (name for name in user.names() if name.startswith(OLD_PREFIX) and owner(address.user, name) == address),
        key=put_aside_at_ms,
    )


def _kept(user: Folder, address: Address) -> list[str]:
    """Return the folders that restores of an address put aside and may bring back, the last one last."""
    return [name for name in _aside(user, address) if not name.endswith(_FORGOTTEN)]


def _to_trash(user: Folder, address: Address, name: str) -> None:
    # From one instant on it is not there: an undo must never find a part of it.
    trash = f"{TRASH_PREFIX}{address.cursor}@{os.urandom(6).hex()}"
    user.rename(name, trash)
    user.remove_tree(trash)


def put_aside_at_ms(name: str) -> int:
    """Return when a restore put a folder aside, by its name; 0 when it does not say."""
    moment = name.rpartition("@")[2].partition("-")[0]
    return int(moment) if moment.isascii() and moment.isdigit() and len(moment) < 19 else 0


def _name_for_old(user: Folder, address: Address, now_ms: int) -> str:
    # The last one put aside must have the highest name, also when the clock was set back in between.
    last_ms = max((put_aside_at_ms(name) for name in _aside(user, address)), default=0)
    return f"{OLD_PREFIX}{address.cursor}@{max(now_ms, last_ms + 1):013d}-{os.urandom(3).hex()}"


def kept(layout: Layout, address: Address) -> list[str]:
    """Return the folders that restores of an address put aside and keep for an undo, the last one last."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            return _kept(user, address)
    except FileNotFoundError:
        return []


def lost_place_to_restore(layout: Layout, address: Address) -> bool:
    """True when the folder of an address is not in its place, since a restore was killed between its two renames."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            aside = [] if user.stat(address.cursor) is not None else _aside(user, address)
    except FileNotFoundError:
        return False
    return bool(aside) and not aside[-1].endswith((_UNDONE, _FORGOTTEN))


def all_kept(layout: Layout) -> list[tuple[Address, str]]:
    """Return everything that restores and undos have put aside: the address, and the name of its folder."""
    found: list[tuple[Address, str]] = []
    for user, _, names in _users(layout, []):
        for name in names:
            address = owner(user, name) if name.startswith(OLD_PREFIX) and not name.endswith(_FORGOTTEN) else None
            if address is not None:
                found.append((address, name))
    return found


def is_undone(name: str) -> bool:
    """True for contents that an undo put aside, which a redo brings back."""
    return name.endswith(_UNDONE)


def take_kept(layout: Layout, address: Address, *, redo: bool = False) -> Staged | None:
    """Return what the last restore of an address put aside, ready to take its place again; None when there is none.

    `redo`: what the last undo put aside.
    """
    try:
        user = open_root(layout.root, *layout.user_parts(address.user))
    except FileNotFoundError:
        return None
    names = [name for name in _kept(user, address) if is_undone(name) == redo]
    if not names:
        user.close()
        return None
    try:
        return Staged(user, user.child(names[-1]), names[-1], address)
    except BaseException:
        user.close()
        raise


def forget_kept(layout: Layout, address: Address, until_ms: int | None = None) -> int:
    """Remove what restores of an address put aside until a moment, None for all; return how many folders.

    The caller holds the lock of the address, which is in its place.
    """
    try:
        user = open_root(layout.root, *layout.user_parts(address.user))
    except FileNotFoundError:
        return 0
    with user:
        names = [name for name in _kept(user, address) if until_ms is None or put_aside_at_ms(name) <= until_ms]
        for name in names:
            _to_trash(user, address, name)
        return len(names)


def move(layout: Layout, old: Address, new: Address) -> None:
    """Rename the folder of an address."""
    with (
        open_root(layout.root, *layout.user_parts(old.user)) as source,
        make_root(layout.root, *layout.user_parts(new.user)) as target,
    ):
        if target.stat(new.cursor) is not None:
            raise AddressExistsError(f"address {new} exists already")
        source.rename(old.cursor, new.cursor, target)


def remove_empty_user(layout: Layout, user: str) -> None:
    """Remove the folder of a user whose last address went; the caller holds the creation lock of the user."""
    try:
        with open_root(layout.root, ADDRESSES) as top:
            _remove_if_empty(top, user)
    except FileNotFoundError:
        return


def owner(user: str, name: str) -> Address | None:
    """Return the address that a folder called `name` is the remains of; None when it is no such folder."""
    prefix = next((prefix for prefix in (STAGED_PREFIX, OLD_PREFIX, TRASH_PREFIX) if name.startswith(prefix)), None)
    if prefix is None:
        return None
    cursor, at, _ = name[len(prefix) :].rpartition("@")
    try:
        return Address(user, cursor) if at else None
    except InvalidAddressError:
        return None


def remains(layout: Layout) -> list[tuple[Address, str]]:
    """Return what crashes left below `addresses/`: the address each belongs to, and its folder name.

    The old contents that a restore keeps for undo are no remains while the address is in its place.
    """
    return [found for user, _, names in _users(layout, []) for found in _remains_among(user, names)]


def remains_of(layout: Layout, address: Address) -> list[str]:
    """Return the names of the folders that crashes left of one address; no other user's folder is looked into."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            names = _folder_names(user)
    except FileNotFoundError:
        return []
    return [name for whose, name in _remains_among(address.user, names) if whose == address]


def _remains_among(user: str, names: list[str]) -> Iterator[tuple[Address, str]]:
    for name in names:
        address = owner(user, name)
        is_kept = name.startswith(OLD_PREFIX) and not name.endswith(_FORGOTTEN)
        if address is not None and not (is_kept and address.cursor in names):
            yield address, name


def is_trashed(layout: Layout, address: Address) -> bool:
    """True when a deletion of this address took its folder and did not get to remove it."""
    return any(name.startswith(TRASH_PREFIX) for name in remains_of(layout, address))


def listed(layout: Layout) -> list[Address]:
    """Return every address that has a folder, in order. Names that cannot be an address are left out."""
    return sorted(address for user, _, names in _users(layout, []) for address in _addresses(user, names))


def measured(layout: Layout, closed: list[tuple[str, str]]) -> dict[Address, int | None]:
    """Return every address that has a folder, with the bytes of its keystore and WAL by lstat.

    None where the keystore is missing or empty. Users whose folder cannot be opened are named in `closed`,
    with the reason; they never hide the others.
    """
    found: dict[Address, int | None] = {}
    for user, folder, names in _users(layout, closed):
        for address in _addresses(user, names):
            found[address] = _size_bytes(folder, address.cursor)
    return found


class Stamp:
    """What a keystore's files look like from outside: as long as it stays the same, so does what they hold.

    `text` is to be compared; `is_settled(now_ms)` says whether the last change is old enough for that: within one
    tick of the file system's clock a second change could leave no trace.
    """

    __slots__ = ("_changed_ns", "text")

    SETTLED_MS = 2_000

    def __init__(self, keystore: os.stat_result, wal: os.stat_result | None) -> None:
        # One that only read may have left an empty log behind.
        log = "" if wal is None or not wal.st_size else f" {wal.st_size} {wal.st_mtime_ns}"
        self.text = f"{keystore.st_dev} {keystore.st_ino} {keystore.st_size} {keystore.st_mtime_ns}{log}"
        self._changed_ns = max(keystore.st_mtime_ns, wal.st_mtime_ns if wal is not None and log else 0)

    def is_settled(self, now_ms: int) -> bool:
        """True once the last change is long past. Never for one that the clock says is still to come."""
        return now_ms - self._changed_ns // 1_000_000 > self.SETTLED_MS


def stamps(layout: Layout, closed: list[tuple[str, str]]) -> Iterator[tuple[Address, Stamp | None]]:
    """Yield every address that has a folder, in no order that matters, with its stamp; None without a keystore.

    Users whose folder cannot be opened are named in `closed`, with the reason.
    """
    for user, folder, names in _users(layout, closed):
        for address in _addresses(user, names):
            files = _files(folder, address.cursor)
            yield address, None if files is None else Stamp(*files)


def stamp_of(layout: Layout, address: Address) -> Stamp | None:
    """Return the stamp of one address; None when it has no keystore."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            files = _files(user, address.cursor)
    except FileNotFoundError:
        return None
    return None if files is None else Stamp(*files)


def size_bytes(layout: Layout, address: Address) -> int | None:
    """Return the bytes of one keystore with its WAL; None when it is missing or empty."""
    try:
        with open_root(layout.root, *layout.user_parts(address.user)) as user:
            found = user.stat(address.cursor)
            return _size_bytes(user, address.cursor) if found is not None and stat.S_ISDIR(found.st_mode) else None
    except FileNotFoundError:
        return None


def _size_bytes(user: Folder, cursor: str) -> int | None:
    files = _files(user, cursor)
    if files is None:
        return None
    keystore, wal = files
    return keystore.st_size + (0 if wal is None else wal.st_size)


def _files(user: Folder, cursor: str) -> tuple[os.stat_result, os.stat_result | None] | None:
    """Return lstat of a keystore and of its WAL; None when it is missing or empty."""
    try:
        keystore = user.stat(f"{cursor}/{KEYSTORE_FILE}")
        wal = user.stat(f"{cursor}/{KEYSTORE_FILE}-wal")
    except ProntoError:
        return None
    if keystore is None or not stat.S_ISREG(keystore.st_mode) or keystore.st_size == 0:
        return None
    return keystore, wal


def _addresses(user: str, names: list[str]) -> Iterator[Address]:
    for cursor in names:
        try:
            yield Address(user, cursor)
        except InvalidAddressError:
            continue


def _users(layout: Layout, closed: list[tuple[str, str]]) -> Iterator[tuple[str, Folder, list[str]]]:
    """Yield each user with the open folder and the names of the folders in it; links are not followed."""
    try:
        top = open_root(layout.root, ADDRESSES)
    except FileNotFoundError:
        return
    with top:
        for name in _folder_names(top):
            try:
                Address(name)
                folder = top.child(name)
            except (InvalidAddressError, FileNotFoundError):
                continue  # a stranger, or its last address went in this instant
            except ProntoError as error:
                closed.append((name, str(error)))
                continue
            with folder:
                yield name, folder, _folder_names(folder)


def _folder_names(folder: Folder) -> list[str]:
    try:
        with os.scandir(folder.fd) as found:
            return sorted(item.name for item in found if item.is_dir(follow_symlinks=False))
    except OSError as error:
        raise translated(error, folder.path) from error

"""The door to files and folders: walked without following links, created private, published by one rename."""

from __future__ import annotations

import errno
import os
import stat
import sys

from prontodb.errors import (
    UNKNOWN_NOTE,
    CorruptError,
    ProntoError,
    ReadOnlyError,
    StorageFullError,
    UnavailableError,
    UnsafeFileSystemError,
    UnsafePathError,
    shown,
)
from prontodb.model.layout import ADDRESSES, BACKUPS_LOCK_FILE, REGISTRY
from prontodb.storage.permissions import (
    CLOSED_TO_OTHERS,
    FILE_MODE,
    FOLDER_MODE,
    OTHERS_ANY,
    check_ours,
    command,
    make_folder,
    moved_away,
    unlinked,
    way_in,
)

__all__ = ["CLOSED_TO_OTHERS", "FILE_MODE", "FOLDER_MODE"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OURS = frozenset({ADDRESSES, REGISTRY, BACKUPS_LOCK_FILE})
"""One of these stands in every folder that is ours from the top."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS})

# WAL needs shared memory between all users of a file, and flock must be seen by them all: neither holds over a network.
NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "ncpfs",
    "coda", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph-fuse", "fuse.juicefs",
})  # fmt: skip


def translated(error: OSError, path: str) -> ProntoError:
    """Return our own error for one of the operating system's, with the path and what to do."""
    what = os.strerror(error.errno) if error.errno else str(error)
    place = shown(path)
    if error.errno in _FULL:
        return StorageFullError(f"cannot write {place}: {what}; free some space and try again")
    if error.errno in _READ_ONLY:
        return ReadOnlyError(f"cannot write {place}: {what}; reading still works")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return UnsafePathError(
            f"{place} is not a folder of ours (a link or another kind of file); it was not followed; "
            f"move it away with: {moved_away(path)}"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EBADF):
        from prontodb.storage import confined

        if confined.is_kept_out(path):
            return confined.sandboxed(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return UnavailableError(f"no permission for {place}; {way_in(path)}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UnavailableError(f"cannot open {place}: {what}; raise 'ulimit -n' or lower max_open_keystores")
    return UnavailableError(f"cannot use {place}: {what}")


def _entered(path: str, flags: int, name: str, dir_fd: int | None = None) -> Folder:
    """Open a folder; one that a sandbox lets us pass and not list, only to go through."""
    try:
        return Folder(os.open(name, flags, dir_fd=dir_fd), path)
    except PermissionError as refused:
        from prontodb.storage.confined import passage

        return Folder(passage(name, flags, dir_fd, refused), path, is_passage=True)


class Folder:
    """An open folder below a root: all work inside goes by its descriptor, so no later swap of a path redirects it.

    `is_passage`: a sandbox lets us through to what lies below, and nothing more.
    """

    __slots__ = ("fd", "is_passage", "path")

    def __init__(self, fd: int, path: str, *, is_passage: bool = False) -> None:
        self.fd, self.path, self.is_passage = fd, path, is_passage

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def child(self, name: str) -> Folder:
        """Open the folder `name` inside; FileNotFoundError when it does not exist."""
        path = f"{self.path}/{name}"
        try:
            folder = _entered(path, _OPEN_FOLDER, name, self.fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise translated(error, path) from error
        try:
            check_ours(os.fstat(folder.fd), path, folder.fd)
        except BaseException:
            folder.close()
            raise
        return folder

    def make(self, name: str, *, durable: bool = True) -> Folder:
        """Open the folder `name` inside, created when missing, private from its first moment."""
        path = f"{self.path}/{name}"
        created = True
        try:
            make_folder(name, dir_fd=self.fd)
        except FileExistsError:
            created = False
        except OSError as error:
            raise translated(error, path) from error
        if created and durable:
            self.sync()
        return self.child(name)

    def names(self) -> list[str]:
        """Return the names inside, sorted."""
        if self.is_passage:
            from prontodb.storage.confined import sandboxed

            raise sandboxed(self.path)
        try:
            return sorted(os.listdir(self.fd))
        except OSError as error:
            raise translated(error, self.path) from error

    def stat(self, name: str) -> os.stat_result | None:
        """Return lstat of `name`, or None when it does not exist."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise translated(error, f"{self.path}/{name}") from error

    def check_file(self, name: str) -> os.stat_result | None:
        """Return lstat of `name` after the checks every file of ours must pass; None when it does not exist."""
        found = self.stat(name)
        if found is None:
            return None
        path = f"{self.path}/{name}"
        if not stat.S_ISREG(found.st_mode):
            raise UnsafePathError(
                f"{shown(path)} is {kind(found)}, not a regular file; it was not opened; "
                f"move it away with: {moved_away(path)}"
            )
        if found.st_nlink > 1:
            raise UnsafePathError(
                f"{shown(path)} has {found.st_nlink} names (hard links); it was not opened; "
                f"give it a file of its own with: {unlinked(path)}"
            )
        check_ours(found, path, self.fd, name)
        return found

    def create(self, name: str, data: bytes) -> None:
        """Create the file `name` with `data`, private and fsynced; it must not exist."""
        with NewFile(self, name) as file:
            file.write(data)

    def sync_file(self, name: str) -> None:
        """Make what the file `name` holds survive a power cut; one that no connection is open on."""
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise translated(error, f"{self.path}/{name}") from error

    def chunks(self, name: str, size: int = 1024 * 1024) -> Iterator[bytes]:
        """Yield the bytes of the file `name`, checked as every file of ours; FileNotFoundError when there is none."""
        if self.check_file(name) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}/{name}")
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self.fd)
            try:
                while chunk := os.read(fd, size):
                    yield chunk
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise translated(error, f"{self.path}/{name}") from error

    def publish(self, name: str, data: bytes) -> None:
        """Make `name` hold `data`: after a crash at any instant it is the old file or the new one, never a part.

        The caller holds the lock that publishers of `name` share.
        """
        for left in self.names():
            if left.startswith(f".{name}.") and left.endswith(".tmp"):
                self.remove(left)  # by a crash: nobody else publishes now
        staged = f".{name}.{os.urandom(6).hex()}.tmp"
        try:
            self.create(staged, data)
            self.rename(staged, name)
        except BaseException:
            self.remove(staged)
            raise

    def rename(self, old: str, new: str, target: Folder | None = None) -> None:
        """Rename inside this folder, or into `target`, and sync what changed.

        When that sync fails, the new name is there and may be lost with the power: the error says that it is unknown.
        """
        into = target or self
        try:
            os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=into.fd)
        except OSError as error:
            raise translated(error, f"{into.path}/{new}") from error
        try:
            into.sync()
            if into is not self:
                self.sync()
        except ProntoError as error:
            error.add_note(f"{UNKNOWN_NOTE}; it was done, and a power cut may take it back")
            raise

    def remove(self, name: str) -> None:
        """Remove the file `name` if it is there."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise translated(error, f"{self.path}/{name}") from error

    def remove_tree(self, name: str) -> None:
        """Remove the folder `name` and what is in it, following no link; what is gone already is no error.

        Takes two descriptors however deep the tree is: a folder that lies deeper, with something in it, moves up first.
        """
        if self._remove_if_empty(name):
            return
        try:
            with self._opened_to_empty(name) as tree:
                waiting = tree.names()
                while waiting:
                    inner = waiting.pop()
                    if not tree._remove_if_empty(inner):
                        waiting += tree._emptied(inner)
                        tree._remove_emptied(inner)
        except FileNotFoundError:
            return
        self._remove_emptied(name)

    def _remove_if_empty(self, name: str) -> bool:
        """Remove a file, link or empty folder; False for a folder with something in it."""
        found = self.stat(name)
        if found is None:
            return True
        if not stat.S_ISDIR(found.st_mode):
            self.remove(name)
            return True
        try:
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise translated(error, f"{self.path}/{name}") from error
        return True

    def _remove_emptied(self, name: str) -> None:
        if not self._remove_if_empty(name):
            raise UnavailableError(f"{shown(f'{self.path}/{name}')} was filled again while it was removed; try again")

    def _opened_to_empty(self, name: str) -> Folder:
        """Open a folder that need not pass the checks of one that is used, whatever its mode."""
        path = f"{self.path}/{name}"
        try:
            try:
                return Folder(os.open(name, _OPEN_FOLDER, dir_fd=self.fd), path)
            except PermissionError as refused:
                from prontodb.storage.confined import forced

                return Folder(forced(name, _OPEN_FOLDER, self.fd, refused), path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise translated(error, path) from error

    def _emptied(self, name: str) -> list[str]:
        """Empty the folder `name`; return what its folders, those with something in them, are called here now."""
        moved: list[str] = []
        try:
            with self._opened_to_empty(name) as folder:
                # All else first: on a full disk, its room lets the folders move.
                for inner in [inner for inner in folder.names() if not folder._remove_if_empty(inner)]:
                    here = os.urandom(8).hex()
                    os.rename(inner, here, src_dir_fd=folder.fd, dst_dir_fd=self.fd)
                    moved.append(here)
        except FileNotFoundError:
            return moved  # somebody else is removing it, too
        except OSError as error:
            raise translated(error, f"{self.path}/{name}") from error
        return moved

    def sync(self) -> None:
        """Make names created, renamed or removed in this folder survive a power cut."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise translated(error, self.path) from error


class NewFile:
    """A file in the making, private from its first moment; leaving the block syncs it, or after an error removes it."""

    __slots__ = ("_fd", "_folder", "_name", "size_bytes")

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._fd, self.size_bytes = folder, name, -1, 0

    def __enter__(self) -> NewFile:
        kind = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self._name, kind, FILE_MODE, dir_fd=self._folder.fd)
            os.fchmod(self._fd, FILE_MODE)
        except OSError as error:
            if self._fd >= 0:
                os.close(self._fd)
            raise self._failed(error) from error
        return self

    def write(self, data: bytes) -> None:
        """Add `data` at the end."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._failed(error) from error
        self.size_bytes += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = False
        try:
            if kind is None:
                os.fsync(self._fd)
                whole = True
        except OSError as failure:
            raise self._failed(failure) from failure
        finally:
            os.close(self._fd)
            if not whole:
                self._folder.remove(self._name)

    def _failed(self, error: OSError) -> ProntoError:
        return translated(error, f"{self._folder.path}/{self._name}")


def kind(found: os.stat_result) -> str:
    """Return what kind of file this is, for a message."""
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    )
    return next((name for test, name in kinds if test(found.st_mode)), "something else")


def _refuse_somebody_elses(folder: Folder, found: os.stat_result) -> None:
    """Refuse a folder open to others that holds other things than ours: using it as a root would close it to them."""
    if found.st_mode & OTHERS_ANY and found.st_uid == os.geteuid():
        names = folder.names()
        if names and not _OURS.intersection(names):
            raise UnsafePathError(
                f"{shown(folder.path)} holds other things and is open to others; name a folder of its own as the root, "
                f"or close it first with: {command('chmod go-rwx', folder.path)}"
            )


def open_root(root: str, *parts: str) -> Folder:
    """Open the folder `parts` below `root`, each step checked; FileNotFoundError when one does not exist."""
    try:
        folder = _entered(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, root)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translated(error, root) from error
    try:
        found = os.fstat(folder.fd)
        _refuse_somebody_elses(folder, found)
        check_ours(found, root, folder.fd)
        for part in parts:
            inner = folder.child(part)
            folder.close()
            folder = inner
    except BaseException:
        folder.close()
        raise
    return folder


def make_root(root: str, *parts: str, durable: bool = True) -> Folder:
    """Like `open_root`, and creates what is missing: the root and its parents too, all of them 0700."""
    _make_missing(root)
    folder = open_root(root)
    try:
        for part in parts:
            inner = folder.make(part, durable=durable)
            folder.close()
            folder = inner
    except BaseException:
        folder.close()
        raise
    return folder


def _make_missing(path: str) -> None:
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        above = os.path.dirname(path)
        if above in ("", path):
            break
        path = above
    for folder in reversed(missing):
        try:
            make_folder(folder)
            _sync_folder(os.path.dirname(folder) or ".")
        except FileExistsError:
            if not os.path.isdir(folder):
                raise UnsafePathError(f"{shown(folder)} is in the way: it is not a folder") from None
        except OSError as error:
            raise translated(error, folder) from error


def _sync_folder(path: str) -> None:
    """Make the names in a folder that need not be ours survive a power cut, or a new root would be lost whole."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # we may write there and yet not read: then nothing more can be done
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def resolved(root: str) -> str:
    """Return the root with links resolved: the one place where a link is followed, since the user named it."""
    return os.path.realpath(root)


def identity(path: str) -> tuple[int, int] | None:
    """Return (device, inode) of a path without following a link; None when it does not exist."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def file_system(path: str) -> str | None:
    """Return the type of the file system that holds `path`, such as 'ext4'; None where the system does not say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            rows = [line.split(" ") for line in mounts]
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = [row[row.index("-") + 1] for row in rows if row[2] == wanted]
    return found[-1] if found else _by_mount_point(os.path.realpath(path), rows)


def _by_mount_point(path: str, rows: list[list[str]]) -> str | None:
    """Overlay and btrfs report devices that mountinfo does not list: the longest mount point above `path` decides."""
    best, kind = -1, None
    for row in rows:
        point = row[4].encode("latin-1", "replace").decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), row[row.index("-") + 1]
    return kind


def check_file_system(path: str) -> None:
    """Refuse a root on a network file system for writing."""
    kind = file_system(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UnsafeFileSystemError(
            f"{shown(path)} lies on {kind}, a network file system, where SQLite's locks are not safe; "
            "move the root to a local disk, or set unsafe_file_system to true if you alone ever use it"
        )


MAX_JSON_BYTES = 1024 * 1024


def read_json(folder: Folder, name: str) -> object:
    """Return the JSON value in the file `name`, or None when there is no such file.

    At most 1 MiB; duplicate fields, NaN and nesting without end are refused with `CorruptError`.
    """
    data = read_bytes(folder, name)
    if data is None:
        return None
    from prontodb.model import strict_json

    try:
        return strict_json.loads(data)
    except ValueError as error:
        raise CorruptError(f"{shown(f'{folder.path}/{name}')} is not valid JSON: {error}") from error


def read_bytes(folder: Folder, name: str) -> bytes | None:
    """Return what a small file holds, at most 1 MiB, or None when there is no such file."""
    if folder.check_file(name) is None:
        return None
    path = f"{folder.path}/{name}"
    try:
        fd = os.open(name, _OPEN_FILE, dir_fd=folder.fd)
        with open(fd, "rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise translated(error, path) from error
    if len(data) > MAX_JSON_BYTES:
        raise CorruptError(f"{shown(path)} is over {MAX_JSON_BYTES:,} bytes; it was not read")
    return data

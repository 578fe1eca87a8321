"""What a hostile command tries against other addresses: each function does one deed, or is stopped by an OSError.

Run as a program inside of `prontodb run`, with and without a sandbox; prints for each deed how it ended, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

SECRET = b"top-secret-of-another"
_libc = ctypes.CDLL(None, use_errno=True)


class Scene:
    """Where a deed is done: each has a victim of its own."""

    def __init__(self, root: str, deed: str, bystander: int) -> None:
        self.root, self.bystander, self.run = Path(root), bystander, os.getppid()
        self.victim = self.root / "addresses/victim" / deed
        self.keystore = self.victim / "keystore.db"
        self.own = self.root / "addresses/me/here"


def checked(data: bytes) -> None:
    assert SECRET in data, "the deed was done and found nothing"


def called(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(path: object, flags: int = os.O_RDONLY, dir_fd: int | None = None) -> bytes:
    fd = os.open(str(path), flags, dir_fd=dir_fd)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


# Reading


def read_keystore(scene: Scene) -> None:
    checked(opened(scene.keystore))


def read_log(scene: Scene) -> None:
    checked(opened(f"{scene.keystore}-wal"))


def read_metadata(scene: Scene) -> None:
    opened(scene.victim / "metadata.json")


def read_by_mmap(scene: Scene) -> None:
    with open(scene.keystore, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        checked(mapped[:])


def read_as_database(scene: Scene) -> None:
    from sqlcipher3 import dbapi2

    try:
        found = (
            dbapi2.connect(f"file:{scene.keystore}?mode=ro", uri=True).execute("SELECT value FROM kvstore").fetchall()
        )
    except dbapi2.OperationalError as error:
        raise PermissionError(13, str(error)) from error
    checked(str(found).encode())


def write_as_database(scene: Scene) -> None:
    from sqlcipher3 import dbapi2

    try:
        connection = dbapi2.connect(str(scene.keystore))
        connection.execute("UPDATE kvstore SET value = 'mine'")
        connection.commit()
    except dbapi2.OperationalError as error:
        raise PermissionError(13, str(error)) from error


def read_through_open_folder(scene: Scene) -> None:
    folder = os.open(scene.root / "addresses", os.O_PATH)
    checked(opened(f"victim/{scene.victim.name}/keystore.db", dir_fd=folder))


def read_from_inside(scene: Scene) -> None:
    os.chdir(scene.victim)
    checked(opened("keystore.db"))


def reopen_path_descriptor(scene: Scene) -> None:
    fd = os.open(scene.keystore, os.O_PATH)
    checked(opened(f"/proc/self/fd/{fd}"))


def read_through_symlink(scene: Scene) -> None:
    os.symlink(scene.keystore, scene.own / "symlink")
    checked(opened(scene.own / "symlink"))


def read_through_hard_link(scene: Scene) -> None:
    os.link(scene.keystore, scene.own / "link")
    checked(opened(scene.own / "link"))


def link_to_temporary(scene: Scene) -> None:
    # A place that is open to the command with all rights, and no other file system.
    os.link(scene.keystore, Path(os.environ.get("TMPDIR") or scene.root.parent) / "link")


def read_by_handle(scene: Scene) -> None:
    class Handle(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128))

    handle, mount = Handle(128), ctypes.c_int()
    called(_libc.name_to_handle_at(-100, os.fsencode(scene.keystore), ctypes.byref(handle), ctypes.byref(mount), 0))
    fd = called(_libc.open_by_handle_at(os.open(str(scene.own), os.O_RDONLY), ctypes.byref(handle), os.O_RDONLY))
    checked(os.read(fd, 1 << 20))


def list_addresses(scene: Scene) -> None:
    assert "victim" in os.listdir(scene.root / "addresses")


def list_root(scene: Scene) -> None:
    assert "registry" in os.listdir(scene.root)


def list_registry(scene: Scene) -> None:
    os.listdir(scene.root / "registry")


def list_locks(scene: Scene) -> None:
    os.listdir(scene.root / "registry/locks")


def list_backups(scene: Scene) -> None:
    os.listdir(scene.root / "backups")


def list_keys(scene: Scene) -> None:
    os.listdir(scene.root / "keys")


def read_secret(scene: Scene) -> None:
    checked(opened(scene.root / "keys/k.json"))


def read_backup(scene: Scene) -> None:
    checked(opened(scene.root / "backups/full/b/victim.db"))


def read_registry(scene: Scene) -> None:
    opened(scene.root / "registry/address_registry.db")


def read_other_sandbox(scene: Scene) -> None:
    checked(opened(scene.root / "sandboxes/run-other/secret"))


# Changing


def overwrite(scene: Scene) -> None:
    with open(scene.keystore, "r+b") as file:
        file.write(b"gone")


def truncate(scene: Scene) -> None:
    os.truncate(scene.keystore, 0)


def truncate_by_opening(scene: Scene) -> None:
    os.close(os.open(scene.keystore, os.O_WRONLY | os.O_TRUNC))


def truncate_by_descriptor(scene: Scene) -> None:
    os.ftruncate(os.open(scene.keystore, os.O_WRONLY), 0)


def unlink(scene: Scene) -> None:
    os.unlink(scene.keystore)


def remove_folder(scene: Scene) -> None:
    os.rmdir(scene.victim / "empty")


def rename_address(scene: Scene) -> None:
    os.rename(scene.victim, f"{scene.victim}-taken")


def rename_own_address(scene: Scene) -> None:
    os.rename(scene.own, scene.own.parent / "elsewhere")
    os.rename(scene.own.parent / "elsewhere", scene.own)


def rename_into_own(scene: Scene) -> None:
    os.rename(scene.keystore, scene.own / "taken")


def rename_out_of_own(scene: Scene) -> None:
    (scene.own / "planted").touch()
    os.rename(scene.own / "planted", scene.victim / "planted")


def exchange(scene: Scene) -> None:
    (scene.own / "planted").touch()
    own, other = os.fsencode(scene.own / "planted"), os.fsencode(scene.keystore)
    called(_libc.renameat2(-100, own, -100, other, 2))  # RENAME_EXCHANGE


def create_address(scene: Scene) -> None:
    os.mkdir(scene.root / "addresses/made")


def create_lock(scene: Scene) -> None:
    os.close(os.open(scene.root / "registry/locks/made", os.O_CREAT | os.O_WRONLY))


def create_in_victim(scene: Scene) -> None:
    os.mkfifo(scene.victim / "pipe")


def write_settings(scene: Scene) -> None:
    (scene.root / "registry/global_config.json").write_text('{"format": 1}')


def rename_root(scene: Scene) -> None:
    os.rename(scene.root, f"{scene.root}-taken")
    os.rename(f"{scene.root}-taken", scene.root)


# Through other processes


def read_through_own_root(scene: Scene) -> None:
    checked(opened(f"/proc/self/root{scene.keystore}"))


def read_through_root_of_run(scene: Scene) -> None:
    checked(opened(f"/proc/{scene.run}/root{scene.keystore}"))


def read_through_cwd_of_bystander(scene: Scene) -> None:
    checked(opened(f"/proc/{scene.bystander}/cwd/open"))


def read_descriptor_of_bystander(scene: Scene) -> None:
    for name in os.listdir(f"/proc/{scene.bystander}/fd"):
        if os.readlink(f"/proc/{scene.bystander}/fd/{name}").endswith("/open"):
            checked(opened(f"/proc/{scene.bystander}/fd/{name}"))
            return
    raise AssertionError("the bystander has nothing open")


def take_descriptor_of_bystander(scene: Scene) -> None:
    handle = os.pidfd_open(scene.bystander)
    for number in range(3, 20):
        fd = _libc.syscall(438, handle, number, 0)  # pidfd_getfd
        if fd >= 0 and os.readlink(f"/proc/self/fd/{fd}").endswith("/open"):
            checked(os.pread(fd, 1 << 20, 0))
            return
        if fd < 0 and ctypes.get_errno() != 9:  # EBADF: no such descriptor there
            called(fd)
    raise AssertionError("the bystander has nothing open")


def list_descriptors_of_run(scene: Scene) -> None:
    os.listdir(f"/proc/{scene.run}/fd")


def read_environment_of_run(scene: Scene) -> None:
    assert opened(f"/proc/{scene.run}/environ")


def read_memory_of_run(scene: Scene) -> None:
    _memory(scene.run)


def read_memory_of_bystander(scene: Scene) -> None:
    _memory(scene.bystander)


def _memory(pid: int) -> None:
    first = opened(f"/proc/{pid}/maps").split(b"-")[0]
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    assert os.pread(fd, 4, int(first, 16))


def trace_bystander(scene: Scene) -> None:
    called(_libc.ptrace(0x4206, scene.bystander, None, None))  # PTRACE_SEIZE


def signal_run(scene: Scene) -> None:
    os.kill(scene.run, signal.SIGCONT)


def signal_bystander(scene: Scene) -> None:
    os.kill(scene.bystander, signal.SIGCONT)


def connect_to_abstract_socket(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(f"\0prontodb-hostile-{scene.bystander}")


def gain_privileges(scene: Scene) -> None:
    if b"NoNewPrivs:\t1" in opened("/proc/self/status"):
        raise PermissionError(1, "no program gives new rights")


# With the rights of root, or with those of a user namespace


def mount_elsewhere(scene: Scene) -> None:
    called(_libc.unshare(0x00020000))  # CLONE_NEWNS
    _mounted(scene)


def mount_in_user_namespace(scene: Scene) -> None:
    called(_libc.unshare(0x10000000 | 0x00020000))  # CLONE_NEWUSER
    _mounted(scene)


def _mounted(scene: Scene) -> None:
    called(_libc.mount(None, b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
    called(_libc.mount(os.fsencode(scene.victim), os.fsencode(scene.own / "under"), None, 4096, None))
    checked(opened(scene.own / "under/keystore.db"))


def clone_tree(scene: Scene) -> None:
    fd = called(_libc.syscall(428, -100, os.fsencode(scene.victim), 1))  # open_tree, OPEN_TREE_CLONE
    checked(opened("keystore.db", dir_fd=fd))


def change_root(scene: Scene) -> None:
    os.chroot(scene.victim)
    checked(opened("/keystore.db"))


def read_disk(scene: Scene) -> None:
    device = os.stat(scene.keystore).st_dev
    name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    assert opened(f"/dev/{name}")


def make_disk(scene: Scene) -> None:
    os.mknod(scene.own / "disk", stat.S_IFBLK | 0o600, os.stat(scene.keystore).st_dev)


DEEDS: tuple[Callable[[Scene], None], ...] = (
    read_keystore, read_log, read_metadata, read_by_mmap, read_as_database, write_as_database,
    read_through_open_folder, read_from_inside, reopen_path_descriptor, read_through_symlink, read_through_hard_link,
    link_to_temporary, list_addresses, list_root, list_registry, list_locks, list_backups, list_keys, read_secret,
    read_backup, read_registry, read_other_sandbox, overwrite, truncate, truncate_by_opening, truncate_by_descriptor,
    unlink, remove_folder, rename_address, rename_own_address, rename_into_own, rename_out_of_own, exchange,
    create_address, create_lock, create_in_victim, write_settings, rename_root, read_through_own_root,
    read_through_root_of_run, read_through_cwd_of_bystander, read_descriptor_of_bystander,
    take_descriptor_of_bystander, read_environment_of_run, read_memory_of_run,
    read_memory_of_bystander, trace_bystander, signal_run, signal_bystander, connect_to_abstract_socket,
    gain_privileges, mount_in_user_namespace,
)  # fmt: skip
OF_ROOT: tuple[Callable[[Scene], None], ...] = (
    read_by_handle, mount_elsewhere, clone_tree, change_root, read_disk, make_disk,
)  # fmt: skip


# What Landlock does not stop, as the documents say


def look_at_metadata(scene: Scene) -> None:
    assert os.stat(scene.keystore).st_size > 0


def change_modes(scene: Scene) -> None:
    os.chmod(scene.victim, 0o500)


def change_times(scene: Scene) -> None:
    os.utime(scene.keystore, (0, 0))


def change_owner(scene: Scene) -> None:
    os.chown(scene.keystore, os.geteuid(), os.getegid())  # to whom else, the kernel asks of root alone


def watch_names(scene: Scene) -> None:
    called(_libc.inotify_add_watch(_libc.inotify_init(), os.fsencode(scene.root / "addresses"), 0x100))


def ask_a_helper(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(scene.root.parent / "helper"))
        _, fds, _, _ = socket.recv_fds(asking, 1, 1)
    checked(os.pread(fds[0], 1 << 20, 0))


NOT_STOPPED: tuple[Callable[[Scene], None], ...] = (
    look_at_metadata, list_descriptors_of_run, change_modes, change_times, change_owner,
    watch_names, ask_a_helper,
)  # fmt: skip


def ended(deed: Callable[[Scene], None], scene: Scene) -> str:
    """Do a deed in a process of its own; return "done", the name of the error, or what went wrong with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            deed(scene)
            text = "done"
        except OSError as error:
            text = f"errno {error.errno}"
        except BaseException:  # noqa: BLE001 - the other process has to hear of it
            text = traceback.format_exc()
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def main() -> None:
    root, bystander = sys.argv[1], int(sys.argv[2])
    deeds = {deed.__name__: deed for deed in (*DEEDS, *OF_ROOT, *NOT_STOPPED)}
    print(json.dumps({name: ended(deed, Scene(root, name, bystander)) for name, deed in deeds.items()}))


if __name__ == "__main__":
    main()

"""Files and folders: private from their first moment, no link followed, published whole, JSON that cannot hurt."""

import errno
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.errors import (
    CorruptError,
    ProntoError,
    ReadOnlyError,
    StorageFullError,
    UnavailableError,
    UnsafeFileSystemError,
    UnsafePathError,
)
from prontodb.storage import files
from prontodb.storage.files import MAX_JSON_BYTES, Folder, make_root, open_root, read_json


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    """The open root."""
    with open_root(str(root)) as opened:
        yield opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Every umask that people set, and the worst."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_folders_and_files_are_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    with make_root(str(tmp_path / "a" / "root"), "b", "c") as inner:
        inner.create("file", b"x")
        inner.publish("published", b"y")
    for path in ("a", "a/root", "a/root/b", "a/root/b/c"):
        assert mode(tmp_path / path) == 0o700, path
    for path in ("file", "published"):
        assert mode(tmp_path / "a/root/b/c" / path) == 0o600, path


def test_files_are_never_open_to_others_not_even_for_a_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The mode is part of the call that creates, so no umask and no kill in between can widen it.
    seen: list[int] = []
    real = os.fchmod

    def look_first(fd: int, wanted: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        real(fd, wanted)

    monkeypatch.setattr(os, "fchmod", look_first)
    before = os.umask(0)
    try:
        with open_root(str(root)) as folder:
            folder.create("file", b"x")
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_root_is_made_with_its_parents_and_opened_again(tmp_path: Path) -> None:
    path = str(tmp_path / "x" / "y")
    with pytest.raises(FileNotFoundError):
        open_root(path)
    make_root(path).close()
    with make_root(path, "sub"), open_root(path, "sub") as again:
        assert again.names() == []
    with pytest.raises(FileNotFoundError):
        open_root(path, "sub", "none")


# What lies in the way

PLANTED = ("link to a folder", "link to nothing", "link to a file", "pipe", "socket", "file", "device")


def plant(kind: str, path: Path, outside: Path) -> None:
    """Put something where a folder or file of ours should be."""
    if kind == "link to a folder":
        (outside / "folder").mkdir(exist_ok=True)
        path.symlink_to(outside / "folder")
    elif kind == "link to nothing":
        path.symlink_to(outside / "nothing")
    elif kind == "link to a file":
        (outside / "secret").write_text("secret")
        path.symlink_to(outside / "secret")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            with socket.socket(socket.AF_UNIX) as unbound:
                unbound.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "device":
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root can make a device")
    else:
        path.write_bytes(b"{}")
        path.chmod(0o600)


@pytest.mark.parametrize("kind", PLANTED)
def test_nothing_but_a_folder_is_walked_through(root: Path, tmp_path: Path, kind: str) -> None:
    plant(kind, root / "a", tmp_path)
    for walk in (open_root, make_root):
        with pytest.raises(UnsafePathError, match="a'"):
            walk(str(root), "a", "b")
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "folder" / "b").exists()


@pytest.mark.parametrize("kind", [kind for kind in PLANTED if kind != "file"])
def test_nothing_but_a_regular_file_is_read_and_nothing_makes_us_wait(
    root: Path, tmp_path: Path, folder: Folder, kind: str
) -> None:
    plant(kind, root / "x.json", tmp_path)
    with pytest.raises(UnsafePathError, match=r"x\.json"):
        folder.check_file("x.json")
    with pytest.raises(UnsafePathError):
        read_json(folder, "x.json")
    with pytest.raises(ProntoError):
        folder.create("x.json", b"")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "pipe", "socket", "file", "device"])
def test_publishing_replaces_what_lies_there_and_follows_no_link(
    root: Path, tmp_path: Path, folder: Folder, kind: str
) -> None:
    plant(kind, root / "x", tmp_path)
    folder.publish("x", b"new")
    assert (root / "x").read_bytes() == b"new"
    assert mode(root / "x") == 0o600
    assert not (root / "x").is_symlink()
    if kind == "link to a file":
        assert (tmp_path / "secret").read_text() == "secret"


def test_a_file_with_a_second_name_is_refused(root: Path, tmp_path: Path, folder: Folder) -> None:
    folder.create("x", b"")
    os.link(root / "x", tmp_path / "other")
    with pytest.raises(UnsafePathError, match="2 names"):
        folder.check_file("x")


def test_what_others_can_write_is_refused_with_the_command_that_closes_it(root: Path, folder: Folder) -> None:
    folder.make("sub").close()
    folder.create("x", b"")
    for name in ("sub", "x"):
        (root / name).chmod(0o777)
    for attempt in (lambda: folder.child("sub"), lambda: folder.check_file("x")):
        with pytest.raises(UnsafePathError, match="chmod -R go-rwx"):
            attempt()


def test_what_others_can_read_is_closed_and_reported(root: Path, folder: Folder) -> None:
    files.CLOSED_TO_OTHERS.clear()
    folder.make("sub").close()
    folder.create("x", b"")
    (root / "sub").chmod(0o755)
    (root / "x").chmod(0o644)
    folder.child("sub").close()
    folder.check_file("x")
    assert (mode(root / "sub"), mode(root / "x")) == (0o700, 0o600)
    assert [f"{root}/sub", f"{root}/x"] == files.CLOSED_TO_OTHERS
    files.CLOSED_TO_OTHERS.clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_what_belongs_to_somebody_else_is_refused(root: Path, folder: Folder) -> None:
    folder.make("sub").close()
    folder.create("x", b"")
    for name in ("sub", "x"):
        os.chown(root / name, 12_345, 12_345)
    for attempt in (lambda: folder.child("sub"), lambda: folder.check_file("x")):
        with pytest.raises(UnsafePathError, match="uid 12345"):
            attempt()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_without_permission_is_unavailable_with_its_path(root: Path) -> None:
    # The checkout itself may be closed to others, so the program stands alone.
    program = (
        "import os, sys; from prontodb.storage.files import open_root; from prontodb.errors import UnavailableError\n"
        "os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
        "try: open_root(sys.argv[1])\n"
        "except UnavailableError as error: print(error)"
    )
    root.parent.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"no permission for '{root}'"[:60] in done.stdout


# Publishing


def test_publishing_leaves_the_old_file_when_it_fails(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.publish("x", b"old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError):
        folder.publish("x", b"new")
    assert (root / "x").read_bytes() == b"old"
    assert folder.names() == ["x"]


def test_what_a_killed_publisher_left_goes_with_the_next_publishing(root: Path, folder: Folder) -> None:
    folder.create(".x.0123456789ab.tmp", b"half")
    folder.create(".xy.0123456789ab.tmp", b"not of x")
    folder.publish("x", b"new")
    assert folder.names() == [".xy.0123456789ab.tmp", "x"]


def test_large_contents_are_written_whole(root: Path, folder: Folder) -> None:
    data = os.urandom(3_000_000)
    folder.publish("x", data)
    assert (root / "x").read_bytes() == data


def test_removing_a_tree_follows_no_link(root: Path, tmp_path: Path, folder: Folder) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("kept")
    with folder.make("tree") as tree, tree.make("deep") as deep:
        deep.create("x", b"")
        os.symlink(keep, "link", dir_fd=deep.fd)
        os.mkfifo("pipe", dir_fd=tree.fd)
    folder.remove_tree("tree")
    folder.remove_tree("tree")
    os.symlink(keep, "link", dir_fd=folder.fd)
    folder.remove_tree("link")
    assert folder.names() == []
    assert (keep / "file").read_text() == "kept"


def nest(folder: int, depth: int) -> None:
    """Make `depth` folders, one in another, with a file in each: no path could name the deepest."""
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder))
        os.mkdir("deeper", 0o700, dir_fd=folder)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


@pytest.mark.parametrize("depth", [1, 2, 1_500])
def test_a_tree_of_any_depth_goes_with_few_descriptors(root: Path, folder: Folder, depth: int) -> None:
    folder.make("tree").close()
    nest(os.open(root / "tree", os.O_RDONLY), depth)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 8, hard))
    try:
        folder.remove_tree("tree")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert folder.names() == []
    assert len(os.listdir("/proc/self/fd")) == open_now


def test_a_tree_with_many_branches_goes_whole(folder: Folder) -> None:
    with folder.make("tree") as tree:
        for a in range(5):
            with tree.make(f"a{a}") as one:
                for b in range(5):
                    with one.make(f"b{b}") as two:
                        two.create("x", b"")
                        two.make("empty").close()
    folder.remove_tree("tree")
    assert folder.names() == []


def test_a_tree_that_fills_again_while_it_goes_is_an_error_of_ours(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.make("tree").close()
    nest(os.open(root / "tree", os.O_RDONLY), 3)
    real = os.unlink

    def with_a_newcomer(path: str, *, dir_fd: int) -> None:
        real(path, dir_fd=dir_fd)
        os.mkdir("newcomer", dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", with_a_newcomer)
    with pytest.raises(UnavailableError):
        folder.remove_tree("tree")


def test_what_takes_the_place_of_a_folder_while_the_tree_goes_is_kept(
    root: Path, tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("kept")
    folder.make("tree").close()
    nest(os.open(root / "tree", os.O_RDONLY), 2)
    real = os.rmdir

    def swapped(path: str, *, dir_fd: int) -> None:
        # The folder moves out, and a link to another one takes its place, in the worst moment.
        if path == "deeper" and not (tmp_path / "moved").exists():
            os.rename("deeper", tmp_path / "moved", src_dir_fd=dir_fd)
            os.symlink(keep, "deeper", dir_fd=dir_fd)
            raise OSError(errno.ENOTEMPTY, "as it was a moment ago")
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", swapped)
    with pytest.raises(UnsafePathError):
        folder.remove_tree("tree")
    assert (keep / "file").read_text() == "kept"
    assert (tmp_path / "moved" / "file").exists()


def test_parents_of_a_root_are_made_at_any_depth(tmp_path: Path) -> None:
    path = str(tmp_path) + "/d" * 200
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(250)  # a path may be deeper than any stack
    try:
        make_root(path).close()
        with pytest.raises(UnavailableError):
            make_root(path + "/d" * 5_000)
    finally:
        sys.setrecursionlimit(before)
    assert os.path.isdir(path)
    # pytest's own way to remove its folders recurses.
    with open_root(str(tmp_path)) as folder:
        folder.remove_tree("d")


def test_descriptors_are_closed_whatever_happens(root: Path, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (root / "a").mkdir(mode=0o700)
    (root / "b").symlink_to(tmp_path)
    for parts in (("a",), ("a", "none"), ("b",), ("b", "c")):
        for walk in (open_root, make_root):
            try:
                walk(str(root), *parts).close()
            except (ProntoError, FileNotFoundError):
                pass
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EFBIG, StorageFullError),
        (errno.EROFS, ReadOnlyError),
        (errno.ELOOP, UnsafePathError),
        (errno.ENOTDIR, UnsafePathError),
        (errno.EACCES, UnavailableError),
        (errno.EMFILE, UnavailableError),
        (errno.EIO, UnavailableError),
        (errno.ENAMETOOLONG, UnavailableError),
    ],
)
def test_every_error_of_the_system_becomes_one_of_ours(number: int, expected: type[ProntoError]) -> None:
    error = files.translated(OSError(number, "x"), "/a\nb")
    assert type(error) is expected
    assert str(error).isprintable()


# JSON


@pytest.mark.parametrize(
    ("text", "expected"), [("{}", {}), ('{"a": [1, null, "ä"]}', {"a": [1, None, "ä"]}), (' "text"\n', "text")]
)
def test_json_is_read(folder: Folder, text: str, expected: object) -> None:
    folder.create("x.json", text.encode())
    assert read_json(folder, "x.json") == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"[" + b"9" * 5_000 + b"]",
        b'"' + b"x" * MAX_JSON_BYTES + b'"',
        b"\x00",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_hostile_json_is_damaged_and_nothing_worse(folder: Folder, data: bytes) -> None:
    folder.create("x.json", data)
    with pytest.raises(CorruptError, match=r"x\.json") as caught:
        read_json(folder, "x.json")
    assert len(str(caught.value)) < 1_000


def test_a_missing_file_is_none_and_a_folder_in_its_place_is_refused(folder: Folder) -> None:
    assert read_json(folder, "x.json") is None
    folder.make("x.json").close()
    with pytest.raises(UnsafePathError):
        read_json(folder, "x.json")


def test_json_as_large_as_allowed_is_read(folder: Folder) -> None:
    text = json.dumps("x" * (MAX_JSON_BYTES - 2))
    folder.create("x.json", text.encode())
    assert read_json(folder, "x.json") == "x" * (MAX_JSON_BYTES - 2)


# File systems


def test_the_file_system_of_a_path_is_known(root: Path) -> None:
    assert files.file_system(str(root))
    files.check_file_system(str(root))


def test_a_network_file_system_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "file_system", lambda _: "nfs4")
    with pytest.raises(UnsafeFileSystemError, match="nfs4"):
        files.check_file_system(str(root))

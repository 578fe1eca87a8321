"""What a sandbox leaves open: nothing that holds the root, by whatever mount."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from prontodb.errors import InvalidInputError
from prontodb.storage.guard import Guard, _elsewhere

ROOT = "/srv/data/root"
HERE = "21 1 8:1 / / rw - ext4 /dev/sda rw"


@pytest.mark.parametrize(
    ("mounts", "closed"),
    [
        ([HERE], set()),
        ([HERE, "22 21 8:2 / /mnt rw - ext4 /dev/sdb rw"], set()),
        ([HERE, "22 21 8:1 / /all rw - ext4 /dev/sda rw"], {"/all/srv/data/root"}),
        ([HERE, "22 21 8:1 /srv/data /b rw - ext4 /dev/sda rw"], {"/b/root"}),
        ([HERE, "22 21 8:1 /srv/data/root /b rw - ext4 /dev/sda rw"], {"/b"}),
        ([HERE, "22 21 8:1 /srv/data/root/keys /k rw - ext4 /dev/sda rw"], {"/k"}),
        ([HERE, r"22 21 8:1 /srv /a\040b rw - ext4 /dev/sda rw"], {"/a b/data/root"}),
        ([HERE, "22 21 8:1 /srv/other /o rw - ext4 /dev/sda rw"], set()),
        (
            [HERE, "22 21 8:3 / /srv/data rw - ext4 /dev/sdc rw", "23 21 8:3 /root /r rw - ext4 /dev/sdc rw"],
            {"/r"},
        ),
        (
            [HERE, "22 21 8:3 / /srv/data/root/keys rw - ext4 /dev/sdc rw", "23 21 8:3 / /r rw - ext4 /dev/sdc rw"],
            {"/r"},
        ),
    ],
)
def test_every_mount_that_shows_the_root_is_closed(mounts: list[str], closed: set[str]) -> None:
    assert _elsewhere(ROOT, mounts) == closed


def test_the_root_of_everything_has_nothing_beside_it() -> None:
    with pytest.raises(InvalidInputError, match="the root is / itself"):
        Guard("/", [])


def test_a_path_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "beside"
    root.mkdir()
    beside.mkdir()
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "up").symlink_to(tmp_path)
    guard = Guard(str(root), [])
    assert guard.check(str(beside), "it") == str(beside)
    for name in ("root", "link", "up/root", "up", ".", "beside/.."):
        with pytest.raises(InvalidInputError, match="which stays closed"):
            guard.check(f"{tmp_path}/{name}", "it")


def test_the_key_file_is_closed_by_whatever_name_and_what_lies_beside_it_is_not(tmp_path: Path) -> None:
    root, secrets = tmp_path / "data" / "root", tmp_path / "secrets"
    root.mkdir(parents=True)
    secrets.mkdir()
    key = secrets / "key"
    key.touch()
    (secrets / "note").touch()
    (secrets / "twin").hardlink_to(key)
    (tmp_path / "link").symlink_to(key)
    guard = Guard(str(root), [], key_file=str(tmp_path / "link"))
    assert guard.check(str(secrets / "note"), "it") == str(secrets / "note")
    for closed in (key, secrets / "twin", tmp_path / "link", secrets):
        with pytest.raises(InvalidInputError, match=r"the key file .*, which stays closed"):
            guard.check(str(closed), "it")
    with pytest.raises(InvalidInputError, match=r"holds the (root|key file)"):
        guard.check(str(tmp_path), "it")
    assert Guard(str(root), [], key_file=str(secrets / "none")).check(str(secrets), "it") == str(secrets)


@pytest.mark.skipif(os.geteuid() != 0, reason="making a device takes root")
def test_a_disk_is_not_allowed_whatever_it_is_called(tmp_path: Path) -> None:
    disk = tmp_path / "data"
    try:
        os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    except PermissionError:
        pytest.skip("no device may be made here")
    (tmp_path / "root").mkdir()
    guard = Guard(str(tmp_path / "root"))
    with pytest.raises(InvalidInputError, match="shows disks or memory as they are"):
        guard.check(str(disk), "--allow-read")
    assert guard.check("/dev/null", "--allow-read") == "/dev/null"
    (tmp_path / "memories").touch()  # called like a device that shows memory, and none
    assert guard.check(str(tmp_path / "memories"), "--allow-read") == str(tmp_path / "memories")

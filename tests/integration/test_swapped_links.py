"""A hostile process swaps what lies below the root with links to a victim outside while we work: none is followed.

It runs as the same user, whom nothing stops from harming the root; but what is outside must stay as it is, and must
never be taken for an answer.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.addresses import AddressReport
from prontodb.direct import OneShot, run
from prontodb.errors import ProntoError
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from prontodb.registry import configuration
from prontodb.registry.sessions import SessionRegistry
from prontodb.storage import files, survey
from prontodb.storage.permissions import make_folder, set_mode
from tests.managing import PATIENCE_S
from tests.parts import Parts, fill, value
from tests.unit.cli.harness import Cli

ROUNDS = 40
EXCHANGE = 2

# Swaps two names for ever; the kernel never shows a moment without either.
SWAP = """
import ctypes, os, sys
swap = ctypes.CDLL(None, use_errno=True).renameat2
here, there = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
if swap(-100, here, -100, there, 2) != 0:
    print(os.strerror(ctypes.get_errno()), flush=True)
    sys.exit(1)
print("swapping", flush=True)
while True:
    swap(-100, here, -100, there, 2)
"""


@contextmanager
def swapping(path: Path, victim: Path) -> Iterator[None]:
    """Have another process swap `path` with a link to `victim`, over and over; at the end all is as it was."""
    link = path.parent.parent / f"{path.name}.link"
    link.symlink_to(victim)
    with subprocess.Popen([sys.executable, "-c", SWAP, path, link], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "swapping":
                pytest.skip(f"this file system cannot swap names: {said}")
            yield
        finally:
            process.kill()
            process.wait(PATIENCE_S)
    if path.is_symlink():
        assert ctypes.CDLL(None).renameat2(-100, os.fsencode(path), -100, os.fsencode(link), EXCHANGE) == 0
    link.unlink()


def witness(victim: Path) -> dict[str, tuple[int, bytes]]:
    """What is outside: the mode and the bytes of every file that was there."""
    paths = [victim] if victim.is_file() else [victim, *sorted(victim.rglob("*"))]
    return {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in paths}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Another root of the same user, open to others as ours must not be, with a secret at the same address."""
    root = tmp_path / "outside"
    fill(root, "a", {"k": "SECRET"})
    Cli(root).ok("--user", "a", "run", "--", "true")
    (root / "registry/global_config.json").write_text('{"format": 1, "settings": {"max_value_bytes": 1}}')
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture
def filled(root: Path) -> Path:
    fill(root, "a", {"k": "ours"})
    Cli(root).ok("--user", "a", "run", "--", "true")
    (root / "registry/global_config.json").write_text('{"format": 1}')
    (root / "registry/global_config.json").chmod(0o600)
    return root


HERE = "addresses/a/_default"
LOCKS = "registry/locks/a@_default"


@pytest.mark.parametrize(
    "path",
    [
        f"{HERE}/keystore.db",
        f"{HERE}/metadata.json",
        f"{LOCKS}/address.lock",
        "registry/global_config.json",
        "registry/address_registry.db",
        "registry/active_sessions.db",
    ],
)
def test_a_file_that_is_swapped_for_a_link_is_never_followed(filled: Path, outside: Path, path: str) -> None:
    before, names = witness(outside), {str(found) for found in outside.rglob("*")}
    parts = Parts(filled, wait_s=0.05)
    refused = 0
    with swapping(filled / path, outside / path):
        for number in range(ROUNDS):
            refused += use(filled, parts, number)
    # What lies beside the victim stays the same, too: SQLite must make no log and no index there.
    assert {str(found) for found in outside.rglob("*")} == names
    assert witness(outside) == before
    assert value(filled, "a", "k") is not None
    assert refused > 0, "the swaps were never met"


@pytest.mark.parametrize("path", ["addresses", "addresses/a", HERE, "registry", "registry/locks", LOCKS])
def test_a_folder_that_is_swapped_for_a_link_leads_to_nothing_outside(filled: Path, outside: Path, path: str) -> None:
    before = witness(outside)
    parts = Parts(filled, wait_s=0.05)
    refused = 0
    with swapping(filled / path, outside / path):
        for number in range(ROUNDS):
            refused += use(filled, parts, number)
    after = witness(outside)
    assert {name: after[name] for name in before if name in after} == before
    assert refused > 0, "the swaps were never met"


def use(root: Path, parts: Parts, number: int) -> int:
    """Read and write in every way; return how often that was refused. Nothing that is the victim's comes back."""
    refused = 0

    def tried(work: Callable[[], object]) -> object:
        nonlocal refused
        try:
            return work()
        except ProntoError:
            refused += 1
        return None

    def read() -> object:
        with OneShot(str(root), Address("a"), limits=Limits(wait_s=0.05)) as keystore:
            return run(keystore.get("k"))

    def write() -> None:
        limits = Limits(wait_s=0.05)
        with OneShot(str(root), Address("a"), limits=limits, durability="relaxed", create=False) as keystore:
            run(keystore.set("k", f"ours {number}"))

    for _ in range(4):
        answer = tried(read)
        assert answer is None or (isinstance(answer, str) and answer.startswith("ours")), answer
    tried(write)
    settings = tried(lambda: configuration.load(parts.layout)[0])
    assert getattr(settings, "max_value_bytes", 16 * 1024 * 1024) == 16 * 1024 * 1024
    report = tried(lambda: parts.book.describe(Address("a")))
    assert report is None or isinstance(report, AddressReport)
    refused += report is not None and report.metadata_problem is not None
    tried(parts.registry.rows)
    tried(SessionRegistry(parts.layout, wait_s=0.05, one_shot=True).rows)
    return refused


def test_a_mode_is_set_on_what_was_looked_at_and_on_nothing_that_took_its_name(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "path"
    victim.touch(mode=0o644)
    victim.chmod(0o644)
    path.touch(mode=0o644)
    looked_at = path.lstat()
    path.unlink()
    path.symlink_to(victim)
    assert not set_mode(str(path), looked_at, 0o600)
    path.unlink()
    os.link(victim, path)
    assert not set_mode(str(path), looked_at, 0o600)
    assert victim.stat().st_mode & 0o777 == 0o644


def test_the_doctor_closes_what_it_looked_at_alone(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    (root / "open").mkdir(mode=0o755)
    (found,) = [found for found in survey.survey(str(root)) if found.parts == ("open",)]
    (root / "open").rmdir()
    (root / "open").symlink_to(victim)
    with pytest.raises(ProntoError, match="replaced"):
        survey.close_to_others(str(root), found)
    assert victim.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_replaced_in_the_moment_it_is_made_gives_its_mode_to_nothing_else(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    real = os.mkdir

    def mkdir(name: str, mode: int, *, dir_fd: int | None = None) -> None:
        real(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink(victim, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with files.open_root(str(root)) as folder:
        make_folder("new", dir_fd=folder.fd)
    assert victim.stat().st_mode & 0o777 == 0o755
    shutil.rmtree(victim)

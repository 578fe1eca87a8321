"""Every kind of thing below a root, in every wrong state: refused with a command that mends it, or closed and told.

What lies outside is never touched, nothing makes us wait, and once the command was run the root works again.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from prontodb.storage import files
from tests.roots import as_root
from tests.sealed import key_file
from tests.unit.cli.harness import Cli, Outcome

STRANGER = 12_345
WAIT_S = 60
"""Nothing here takes a second; a command that waits for a pipe becomes a failure."""

GET = ("--user", "a", "get", "k")
SET = ("--user", "a", "set", "k", "2")
LIST = ("address", "list")
SESSIONS = ("session", "list")
JOBS = ("jobs", "history")
BACKUPS = ("backup", "list")
VERIFY = ("backup", "verify")
SETTINGS = ("settings", "show")
SEALED = ("--user", "sealed", "get", "k")

HERE = "addresses/a/_default"
LOCKS = "registry/locks/a@_default"


@dataclass(frozen=True)
class Place:
    """Something below a root: where, whether a folder, and the command that meets it.

    `copes`: the command does without the thing and goes on, and says so.
    """

    path: str
    is_folder: bool
    argv: tuple[str, ...]
    copes: bool = False


PLACES = [
    Place("", True, GET),
    Place("addresses", True, GET),
    Place("addresses/a", True, GET),
    Place(HERE, True, GET),
    Place(f"{HERE}/keystore.db", False, GET),
    Place(f"{HERE}/keystore.db-wal", False, GET),
    Place(f"{HERE}/keystore.db-shm", False, GET),
    Place(f"{HERE}/metadata.json", False, GET),
    Place("registry", True, SETTINGS),
    Place("registry/global_config.json", False, GET),
    Place("registry/address_registry.db", False, LIST, copes=True),
    Place("registry/active_sessions.db", False, SESSIONS, copes=True),
    Place("registry/jobs.db", False, JOBS),
    Place("registry/locks", True, SET),
    Place(LOCKS, True, SET),
    Place(f"{LOCKS}/address.lock", False, SET),
    Place("keys", True, SEALED),
    Place("keys/RECORD", False, SEALED),
    Place("backups", True, BACKUPS),
    Place("backups/full", True, BACKUPS, copes=True),
    Place("backups/full/ID", True, VERIFY, copes=True),
    Place("backups/full/ID/manifest.json", False, VERIFY, copes=True),
    Place("backups/full/ID/FILE", False, VERIFY, copes=True),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that has everything, with a log beside the keystore as a killed writer leaves it."""
    root = tmp_path_factory.mktemp("model") / "a root"
    key_file(root.parent)
    cli = with_key(root, root)
    cli.ok("--user", "a", "set", "k", "1")
    cli.ok("address", "create", "sealed", "--encrypt")
    cli.ok("--user", "sealed", "set", "k", "1")
    cli.ok("backup", "create")
    cli.ok("jobs", "once", "sweep")
    cli.ok("--user", "a", "run", "--", "true")
    (root / "registry/global_config.json").write_text('{"format": 1}')
    (root / "registry/global_config.json").chmod(0o600)
    return root


@pytest.fixture
def cli(model: Path, tmp_path: Path) -> Cli:
    """The command line on a copy of the model, in a folder whose name needs quoting."""
    root = tmp_path / "it's a root"
    shutil.copytree(model, root, symlinks=True)
    files.CLOSED_TO_OTHERS.clear()
    return with_key(root, model)


def with_key(root: Path, model: Path) -> Cli:
    return Cli(root, {"PRONTODB_KEY_FILE": str(model.parent / "key")})


def path_of(root: Path, place: Place) -> Path:
    backup = next((root / "backups/full").iterdir()).name
    folder = root / "backups/full" / backup
    file = next(path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
    record = next(path for path in sorted((root / "keys").iterdir()) if path.is_file()).name
    return root / place.path.replace("RECORD", record).replace("ID/FILE", f"ID/{file.relative_to(folder)}").replace(
        "/ID", f"/{backup}"
    )


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(WAIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(cli: Cli, place: Place) -> Outcome:
    with in_time():
        done = cli(*place.argv)
    assert done.code in (0, 1, 2), done  # 2: nothing is there any more, once it was moved away
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    return done


def ready(path: Path, place: Place) -> None:
    """See that there is something to spoil: SQLite's own files come and go."""
    if place.path.endswith(("-wal", "-shm")):
        # An empty log and an index of zeros are what a reader leaves behind; SQLite makes both anew.
        for ending in ("-wal", "-shm"):
            beside = path.with_name(f"keystore.db{ending}")
            beside.touch(mode=0o600)
            beside.chmod(0o600)
    assert path.exists()


def refused(cli: Cli, place: Place, path: Path) -> str:
    """What is said of the place, on stderr or in the output; some commands do without it."""
    done = run(cli, place)
    said = done.err + done.text
    assert place.copes or done.code == 1, done
    assert str(path.name) in said, done
    return said


def mended(said: str, path: Path) -> None:
    """Run the command that the message names, as the operator would: pasted into a shell."""
    found = re.search(r"with: (?P<command>(?:chmod|mv|cp) .*?)(?:\n|$)|give it over: (?P<own>chown .*?)(?:\n|$)", said)
    if found is None:
        return
    command = found["command"] or found["own"]
    subprocess.run(["bash", "-c", command.partition("; ")[0]], check=True)


def name(place: Place) -> str:
    return place.path or "root"


@pytest.mark.parametrize("place", PLACES, ids=name)
@pytest.mark.parametrize("mode", [0o020, 0o002], ids=["group", "others"])
def test_what_others_can_write_is_refused_until_the_command_in_the_message_was_run(
    cli: Cli, place: Place, mode: int
) -> None:
    path = path_of(cli.root, place)
    ready(path, place)
    was = stat.S_IMODE(path.stat().st_mode)
    path.chmod(was | mode)
    said = refused(cli, place, path)
    assert "can be written by others" in said
    assert "chmod -R go-rwx" in said
    mended(said, path)
    assert stat.S_IMODE(path.stat().st_mode) == was
    assert run(cli, place).code == 0


@pytest.mark.parametrize("place", PLACES, ids=name)
def test_what_others_can_read_is_closed_and_told_once(cli: Cli, place: Place) -> None:
    path = path_of(cli.root, place)
    ready(path, place)
    was = stat.S_IMODE(path.stat().st_mode)
    path.chmod(was | 0o044)
    first = run(cli, place)
    assert first.code == 0
    assert first.err.count("others could read") == 1, first.err
    assert path.name in first.err
    assert stat.S_IMODE(path.stat().st_mode) == was
    assert "others could read" not in run(cli, place).err


@as_root
@pytest.mark.parametrize("place", PLACES, ids=name)
def test_what_belongs_to_somebody_else_is_refused_until_it_was_given_over(cli: Cli, place: Place) -> None:
    path = path_of(cli.root, place)
    ready(path, place)
    os.chown(path, STRANGER, STRANGER)
    said = refused(cli, place, path)
    assert f"uid {STRANGER}" in said
    assert "chown -R 0" in said
    assert path.lstat().st_uid == STRANGER
    mended(said, path)
    assert path.lstat().st_uid == 0
    assert run(cli, place).code == 0


def a_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "victim")


def a_hard_link(path: Path, outside: Path) -> None:
    os.link(outside / "victim", path)


def a_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path, 0o600)


def a_socket(path: Path, outside: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as unbound:
            unbound.bind(path.name)
    finally:
        os.chdir(here)


def the_other_kind(path: Path, outside: Path) -> None:
    if (outside / "victim").is_dir():
        path.touch(mode=0o600)
    else:
        path.mkdir(mode=0o700)


@pytest.mark.parametrize("plant", [a_link, a_hard_link, a_pipe, a_socket, the_other_kind])
@pytest.mark.parametrize("place", PLACES[1:], ids=name)  # the root itself may be reached by a link
def test_what_is_of_another_kind_is_neither_followed_nor_waited_for_and_nothing_outside_changes(
    cli: Cli, place: Place, plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    if place.is_folder and plant is a_hard_link:
        pytest.skip("a folder has one name")
    path, outside = path_of(cli.root, place), tmp_path / "outside"
    ready(path, place)
    outside.mkdir()
    # The victim is what was there: whoever follows a link would find it right, and use it.
    shutil.move(path, outside / "victim")
    for folder, names, inner in os.walk(outside):
        for one in (*names, *inner):
            Path(folder, one).chmod(0o755)
    if plant is a_hard_link:
        (outside / "victim").chmod(0o600)
    before = witness(outside)
    plant(path, outside)
    said = refused(cli, place, path)
    assert witness(outside) == before
    assert os.path.lexists(path)
    assert "others could read" not in said
    mended(said, path)
    assert witness(outside)[1:] == before[1:] or plant is a_hard_link
    assert "move it away" not in run(cli, place).err


def witness(outside: Path) -> list[tuple[str, int, bytes]]:
    """Everything outside: names, modes, contents."""
    found = []
    for folder, names, inner in sorted(os.walk(outside)):
        found += [(f"{folder}/{one}", os.lstat(f"{folder}/{one}").st_mode, b"") for one in sorted(names)]
        found += [
            (f"{folder}/{one}", os.lstat(f"{folder}/{one}").st_mode, Path(folder, one).read_bytes())
            for one in sorted(inner)
        ]
    return found

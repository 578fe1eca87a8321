"""Two ordinary users of one machine: neither reads, lists, writes, locks or even learns the names of the other."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.roots import as_root, give, python, reachable_root
from tests.unit.cli.harness import TIMEOUT_S, command, environment

ALICE, BOB = 20_001, 20_002

# Everything is imported by being used, while we still may read the interpreter; then the rights go.
TRY = """
import json, os, sys
import contextlib, fcntl
from prontodb.direct import OneShot, run
from prontodb.errors import ProntoError
from prontodb.model.address import Address
from tests.roots import reachable_root
from tests.unit.cli.harness import Cli

def cli(root, *argv):
    done = Cli(root)(*argv)
    return [done.code, done.text + done.err]

COMMANDS = [("set", "k", "1"), ("get", "k"), ("keys",), ("address", "list"), ("session", "list"), ("export",),
            ("backup", "create"), ("backup", "list"), ("jobs", "once", "sweep"), ("doctor",), ("settings", "show"),
            ("doctor", "--repair"), ("address", "delete", "secret_agent/plan", "--yes")]
with reachable_root() as scratch:
    for argv in COMMANDS:
        cli(scratch, "--user", "secret_agent", "--cursor", "plan", *argv)
    with contextlib.suppress(ProntoError):
        OneShot("/proc/1/root/nowhere", Address("a")).exists()

def library(root, work):
    with OneShot(str(root), Address("secret_agent", "plan")) as keystore:
        return run(work(keystore))

def lock(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

def said(work):
    try:
        return "done: " + repr(work())
    except (ProntoError, OSError) as error:
        return type(error).__name__
"""

BY_BOB = """
become()
root = sys.argv[1]
here = root + "/addresses/secret_agent/plan"
calls = {
    "list the root": lambda: os.listdir(root),
    "list addresses": lambda: os.listdir(root + "/addresses"),
    "guess a name": lambda: os.stat(here),
    "read": lambda: open(here + "/keystore.db", "rb").read(),
    "write": lambda: open(here + "/keystore.db", "r+b"),
    "lock": lambda: lock(root + "/registry/locks/secret_agent@plan/address.lock"),
    "plant": lambda: os.mkdir(root + "/addresses/bob"),
    "open up": lambda: os.chmod(root, 0o777),
    "enter": lambda: os.chdir(root),
    "swap": lambda: os.rename(root, root + ".bob"),
    "get": lambda: library(root, lambda keystore: keystore.get("k")),
    "set": lambda: library(root, lambda keystore: keystore.set("k", "bob")),
}
report = {name: said(work) for name, work in calls.items()}
report["cli"] = [cli(root, "--user", "secret_agent", "--cursor", "plan", *argv) for argv in COMMANDS]
report["names"] = [cli(root, *argv) for argv in COMMANDS[3:10]]
print(json.dumps(report))
"""

BY_ALICE = """
become()
print(json.dumps([cli(sys.argv[1], *argv) for argv in json.loads(sys.argv[2])]))
"""


def by(user: int, root: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Run commands as a user."""
    done = python(TRY + BY_ALICE, root, json.dumps(commands), user=user)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [(code, text) for code, text in json.loads(done.stdout)]


WRITE = ["--user", "secret_agent", "--cursor", "plan", "set", "k", "hush"]
READ = ["--user", "secret_agent", "--cursor", "plan", "get", "k"]


@as_root
def test_another_user_can_neither_read_list_write_lock_nor_learn_a_name() -> None:
    with reachable_root() as root:
        # A folder for all, as /tmp is: only who owns a thing may rename or remove it.
        root.parent.chmod(0o1777)
        give(root, ALICE)
        assert by(ALICE, root, WRITE, READ) == [(0, ""), (0, "hush")]
        before = tree(root)
        done = python(TRY + BY_BOB, root, user=BOB)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        report = json.loads(done.stdout)
        assert tree(root) == before
        assert by(ALICE, root, READ) == [(0, "hush")]
    command_line, names = report.pop("cli"), report.pop("names")
    assert {name: text for name, text in report.items() if text not in ("PermissionError", "UnavailableError")} == {}
    for code, text in command_line:
        assert code == 1, text
        assert "hush" not in text
        assert "Traceback" not in text
    # Without being told the names, nothing that is said has one.
    assert [text for _, text in names if "secret" in text or "plan" in text] == []


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a root: owner, mode, contents."""
    found = {}
    for folder, names, inner in os.walk(root):
        for one in (*names, *inner):
            path = Path(folder, one)
            status = path.lstat()
            found[str(path)] = (status.st_uid, status.st_mode, path.read_bytes() if path.is_file() else b"")
    return found


@as_root
def test_a_root_that_somebody_else_made_first_is_no_trap() -> None:
    with reachable_root() as root:
        root.parent.chmod(0o1777)
        os.chown(root, BOB, BOB)
        root.chmod(0o777)
        link = root.parent / "link"
        link.symlink_to(root)
        os.lchown(link, BOB, BOB)
        for place in (root, link):
            ((code, text),) = by(ALICE, place, WRITE)
            assert code == 1
            assert f"belongs to uid {BOB}, not to us (uid {ALICE})" in text
        assert os.listdir(root) == []


@as_root
def test_what_root_has_made_says_how_it_is_given_to_its_user_and_then_works() -> None:
    with reachable_root() as root:
        by_root = python(TRY + "print(cli(sys.argv[1], *json.loads(sys.argv[2])))", root, json.dumps(WRITE))
        assert by_root.stdout == "[0, '']\n", by_root
        os.chmod(root, 0o711)
        os.chown(root, ALICE, ALICE)
        ((code, text),) = by(ALICE, root, READ)
        assert code == 1
        command = re.search(r"have root give it over: (chown -R .*)", text)
        assert command is not None, text
        subprocess.run(["bash", "-c", command[1]], check=True)
        for _ in range(3):
            # Each part that is still root's is named in its turn.
            ((code, text),) = by(ALICE, root, WRITE)
            if code == 0:
                break
            command = re.search(r"have root give it over: (chown -R .*)", text)
            assert command is not None, text
            subprocess.run(["bash", "-c", command[1]], check=True)
        assert by(ALICE, root, WRITE, READ)[-1] == (0, "hush")


@as_root
def test_root_that_may_neither_give_nor_take_files_is_told_so_in_one_line(root: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("there is no setpriv")
    bound = [setpriv, "--bounding-set=-chown,-fowner"]

    def bounded(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*bound, *command(*words)], env=environment(root), capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return done.returncode, done.stdout, done.stderr

    assert bounded("set", "k", "v") == (0, "", "")
    keystore = root / "addresses/_default/_default/keystore.db"
    os.chown(keystore, ALICE, -1)
    for words in (("get", "k"), ("set", "k", "w"), ("run", "--", "true")):
        code, out, err = bounded(*words)
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert f"belongs to uid {ALICE}" in err
        assert "chown -R 0" in err
    os.chown(keystore, 0, -1)
    assert bounded("get", "k") == (0, "v", "")


@as_root
@pytest.mark.parametrize(
    "below", ["addresses", "addresses/secret_agent/plan", "addresses/secret_agent/plan/keystore.db", "registry"]
)
def test_an_owner_who_took_all_rights_from_himself_is_told_how_to_give_them_back(below: str) -> None:
    with reachable_root() as root:
        give(root, ALICE)
        assert by(ALICE, root, WRITE) == [(0, "")]
        path = root / below
        was = path.stat().st_mode & 0o777
        path.chmod(0)
        for command in (WRITE, READ, ["backup", "create"]):
            ((code, text),) = by(ALICE, root, command)
            if code == 0:
                assert (command, below) == (READ, "registry"), text
                continue
            assert code == 1
            assert f"chmod {was:o} {path}" in text
            assert "run as its owner" not in text
        subprocess.run(["bash", "-c", f"chmod {was:o} {path}"], check=True)
        assert by(ALICE, root, READ) == [(0, "hush")]


@as_root
def test_a_home_that_does_not_exist_and_cannot_be_made_says_how_another_root_is_named() -> None:
    ((code, text),) = by(ALICE, Path("/nonexistent/.prontodb"), WRITE)
    assert code == 1
    assert "'/nonexistent" in text
    assert "name another folder as the root, with --root or PRONTODB_HOME" in text
    assert "run as" not in text

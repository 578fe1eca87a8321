"""Hostile commands against the sandbox: each deed is done without it, and refused by the kernel within."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from prontodb.errors import UnavailableError
from prontodb.storage import landlock
from tests import hostile
from tests.managing import PATIENCE_S
from tests.parts import fill
from tests.roots import CHECKOUT, NOBODY, as_root, give, python, reachable_root

try:
    landlock.check()
    _REASON = ""
except UnavailableError as reason:
    _REASON = str(reason)
pytestmark = pytest.mark.skipif(bool(_REASON), reason=_REASON or "a sandbox is possible")

NAMES = [deed.__name__ for deed in hostile.DEEDS]
OF_ROOT = [deed.__name__ for deed in hostile.OF_ROOT]
REFUSALS = {f"errno {number}" for number in (errno.EACCES, errno.EPERM, errno.EXDEV, errno.ENOENT)}
SIGNALS = {"signal_run", "signal_bystander", "connect_to_abstract_socket"}

BYSTANDER = """
import os, socket, sys, threading
folder = sys.argv[1]
os.chdir(folder)
kept = os.open("open", os.O_RDWR)
abstract = socket.socket(socket.AF_UNIX)
abstract.bind(f"\\0prontodb-hostile-{os.getpid()}")
abstract.listen()
helper = socket.socket(socket.AF_UNIX)
helper.bind(sys.argv[2])
helper.listen()
def serve():
    while True:
        asking, _ = helper.accept()
        with asking:
            socket.send_fds(asking, [b"x"], [kept])
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def prepared(above: Path) -> Path:
    """A root with an address of ours, and with a victim for each deed."""
    root = above / "root"
    fill(root, "me/here", {"k": "mine"})
    fill(root, "victim/base", {"k": hostile.SECRET.decode()})
    base = root / "addresses/victim/base"
    for deed in (*hostile.DEEDS, *hostile.OF_ROOT, *hostile.NOT_STOPPED):
        victim = base.parent / deed.__name__
        shutil.copytree(base, victim)
        (victim / "empty").mkdir()
    (base.parent / "read_log/keystore.db-wal").write_bytes(hostile.SECRET)
    (base.parent / "base/open").write_bytes(hostile.SECRET)
    for name in ("keys/k.json", "backups/full/b/victim.db", "sandboxes/run-other/secret"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(hostile.SECRET)
    (root / "addresses/me/here/under").mkdir()
    for folder, names, files in os.walk(root):
        for name in names:
            os.chmod(f"{folder}/{name}", 0o700)
        for name in files:
            os.chmod(f"{folder}/{name}", 0o600)
    return root


def outside(root: Path) -> dict[str, bytes]:
    """All that lies in a root but at our own address and in the registry of sessions, which the run writes itself."""
    found = {}
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if inside.is_relative_to("addresses/me/here") or inside.is_relative_to("sandboxes"):
            continue
        # A mode that a deed has changed is not what this is about.
        if inside.parts[0] != "registry" or inside.name == "global_config.json":
            found[str(inside)] = path.read_bytes() if path.is_file() else b""
    return found


@contextmanager
def deeds_done(*options: str) -> Iterator[tuple[dict[str, str], dict[str, bytes], Path]]:
    """Let a command do its worst in a run; yield how each deed ended, what lay outside before, and the root."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PRONTODB_")}
    environment |= {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    with reachable_root() as empty:
        above = empty.parent
        empty.rmdir()
        root = prepared(above)
        watching = [sys.executable, "-c", BYSTANDER, str(root / "addresses/victim/base"), str(above / "helper")]
        with subprocess.Popen(
            watching, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"
        ) as bystander:
            assert bystander.stdout is not None
            assert bystander.stdin is not None
            assert bystander.stdout.readline() == "ready\n"
            before = outside(root)
            command = [sys.executable, "-m", "tests.hostile", str(root), str(bystander.pid)]
            prontodb = [sys.executable, "-m", "prontodb", "--user", "me", "--cursor", "here", "--root", str(root)]
            done = subprocess.run(
                [*prontodb, "run", *options, "--", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S * 3,
                cwd=CHECKOUT,
            )
            bystander.stdin.close()
            bystander.wait(PATIENCE_S)
        assert (done.returncode, done.stderr) == (0, ""), done
        yield json.loads(done.stdout), before, root


AS_USER = """
import ctypes, json, os, socket, sys, threading
from tests import hostile
from tests.integration.test_sandbox import BYSTANDER
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.session.sandbox import Sandbox, Wish
import sqlcipher3.dbapi2, mmap
root, helper, sandboxed = sys.argv[1:4]
become()
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as if started by this user
ready, stay = os.pipe(), os.pipe()
bystander = os.fork()
if bystander == 0:
    sys.argv[1:] = [root + "/addresses/victim/base", helper]
    os.close(stay[1]); os.dup2(stay[0], 0); os.dup2(ready[1], 1)
    sys.stdin, sys.stdout = open(0), open(1, "w")
    exec(BYSTANDER)
    os._exit(0)
assert os.read(ready[0], 6) == b"ready\\n"
os.chdir("/")
sandbox = Sandbox(Layout(root), Address("me", "here"), Wish()) if sandboxed == "yes" else None
child = os.fork()
if child == 0:
    if sandbox is not None:
        os.environ.update(sandbox.environment())
        sandbox.enter()
    sys.argv[1:] = [root, str(bystander)]
    hostile.main()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
os.close(stay[1])
os.waitpid(bystander, 0)
"""


@cache
def deeds_of_user(sandboxed: str) -> dict[str, str]:
    """How each deed of an ordinary user ended: the same calls, in a fork, since the interpreter may be root's alone."""
    with reachable_root() as empty:
        above = empty.parent
        empty.rmdir()
        root = prepared(above)
        give(root, NOBODY)
        os.chown(above, NOBODY, NOBODY)
        before = outside(root)
        done = python(AS_USER, root, above / "helper", sandboxed, user=NOBODY)
        assert (done.returncode, done.stderr) == (0, ""), done
        if sandboxed == "yes":
            assert outside(root) == before
        ended: dict[str, str] = json.loads(done.stdout)
        return ended


@cache
def deeds(*options: str) -> dict[str, str]:
    """How each deed ended; of a sandboxed command, after a look at whether all outside is as it was."""
    with deeds_done(*options) as (ended, before, root):
        if options:
            assert outside(root) == before
        return ended


def check(name: str, free: str, within: str) -> None:
    if free in REFUSALS:
        pytest.skip(f"this machine refuses it to everybody: {free}")
    assert free == "done", f"without a sandbox: {free}"
    if name in SIGNALS and landlock.check() < landlock.SIGNALS_ABI:
        pytest.skip("this kernel cannot keep signals and abstract sockets in")
    assert within in REFUSALS, f"in a sandbox: {within}"


@pytest.mark.parametrize("name", [*NAMES, *OF_ROOT])
@pytest.mark.parametrize("option", ["--sandbox", "--strict"])
def test_a_hostile_deed_is_done_without_a_sandbox_and_refused_within(name: str, option: str) -> None:
    check(name, deeds()[name], deeds(option)[name])


@as_root
@pytest.mark.parametrize("name", NAMES)
def test_the_same_holds_for_an_ordinary_user(name: str) -> None:
    check(name, deeds_of_user("no")[name], deeds_of_user("yes")[name])


@pytest.mark.parametrize("name", [deed.__name__ for deed in hostile.NOT_STOPPED])
def test_what_the_documents_say_is_not_stopped_is_not(name: str) -> None:
    assert (deeds()[name], deeds("--sandbox")[name]) == ("done", "done")

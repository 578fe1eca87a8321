"""A full tour under a umask that takes nothing away, and one that takes everything: each file is ours from birth."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import tracing
from tests.old_sources import old_root

TOUR = """
import os, sys
from tests.unit.cli import harness
os.umask(int(sys.argv[2], 8))
real = os.umask
os.umask = lambda mask: int(sys.argv[2], 8)  # the command line's own umask is a second line of defence only
cli = harness.Cli(__import__("pathlib").Path(sys.argv[1] + "/root"))
lines = None
for argv in (
    ("address", "create", "a/prod"), ("--user", "a", "set", "k", "1"), ("address", "history", "a", "on"),
    ("--user", "a", "run", "--", "true"), ("backup", "create"), ("--user", "a", "set", "k", "2"), ("backup", "create"),
    ("restore", "--user", "a", "--cursor", "_default", "--yes"), ("copy", "k", "l", "--user", "a", "--to-user", "b"),
    ("backup", "create", "--output", sys.argv[1] + "/second"), ("migrate", sys.argv[3]), ("jobs", "once", "sweep"),
    ("jobs", "once", "compact"), ("jobs", "once", "verify"), ("doctor", "--deep", "--repair"), ("session", "list"),
    ("address", "rename", "a/prod", "a/other"), ("address", "delete", "a/other", "--yes"), ("backup", "list"),
    ("--user", "b", "export"),
):
    done = cli(*argv)
    assert done.code == 0, (argv, done)
"""

# O_CREAT and mkdir with their modes, as strace prints them.
BIRTH = re.compile(
    r'(?P<call>open|openat|mkdir|mkdirat)\((?:[^"]*)"(?P<path>[^"]*)"(?P<rest>.*)\) += (?P<result>-?\d+)'
)
MODE = re.compile(r"(?:O_CREAT|O_TMPFILE)[^,]*, (?P<mode>0[0-7]*)")


@pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace()))
def test_everything_that_a_tour_makes_is_made_private(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["-f", "-qq", "-o", str(log), "-e", "trace=open,openat,mkdir,mkdirat"]
    done = toured(tmp_path, "000", "strace", *options)
    assert done.returncode == 0, done.stderr
    born = [
        found for line in log.read_text().splitlines() if (found := BIRTH.search(line)) and int(found["result"]) >= 0
    ]
    folders = {found["path"]: found["rest"].strip(", ") for found in born if found["call"].startswith("mkdir")}
    files: dict[str, str] = {}
    for found in born:
        mode, name = MODE.search(found["rest"]), Path(found["path"]).name
        # SQLite asks for the target of VACUUM INTO as if it made it; it lies there by then, made by us.
        if mode and ("O_EXCL" in found["rest"] or name not in files):
            files[name] = mode["mode"]
    # The interpreter's own temporary folders are asked for as 0700, too.
    assert {path: mode for path, mode in folders.items() if mode != "0700"} == {}
    assert {path: mode for path, mode in files.items() if int(mode, 8) & 0o177} == {}
    names = {Path(path).name for path in (*folders, *files)}
    assert {"addresses", "registry", "locks", "backups", "keystore.db-wal", "keystore.db-shm", "address.lock"} <= names
    assert len(files) > 30


@pytest.mark.parametrize("umask", ["000", "777"])
def test_after_a_tour_everything_is_ours_alone_under_any_umask(tmp_path: Path, umask: str) -> None:
    done = toured(tmp_path, umask)
    assert done.returncode == 0, done.stderr
    wrong: dict[str, int] = {}
    for top in (tmp_path / "root", tmp_path / "second"):
        for folder, names, inner in os.walk(top):
            wrong |= {f"{folder}/{name}": mode for name in names if (mode := mode_of(folder, name)) != 0o700}
            wrong |= {f"{folder}/{name}": mode for name in inner if (mode := mode_of(folder, name)) != 0o600}
        assert mode_of(tmp_path, top.name) == 0o700
    assert wrong == {}


def mode_of(folder: object, name: str) -> int:
    return stat.S_IMODE(os.lstat(f"{folder}/{name}").st_mode)


def toured(tmp_path: Path, umask: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the tour under a umask."""
    source = old_root(tmp_path)
    return subprocess.run(
        [*command, sys.executable, "-c", TOUR, str(tmp_path), umask, str(source)],
        capture_output=True,
        text=True,
        env=tracing.environment(),
        timeout=120,
    )

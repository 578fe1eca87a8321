"""Hostile arguments and surroundings, planted files, strange umasks."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.harness import (
    CHECKOUT,
    TIMEOUT_S,
    Cli,
    Outcome,
    command,
    environment,
    one_line,
    spawn,
    tree,
)

OUTSIDE = b"must stay as it is"


def test_arguments_that_are_not_utf_8_are_refused_early(root: Path) -> None:
    for argv in (["set", b"\xff", "v"], ["set", "k", b"a\xffb"], [b"\xff"], ["--user", b"\xe9", "keys"]):
        outcome = spawn(root, *argv)
        assert (outcome.code, outcome.out) == (1, b"")
        assert "is not valid UTF-8" in one_line(outcome.err)
    assert tree(root) == {}


@pytest.mark.parametrize("variable", ["PRONTODB_HOME", "PRONTODB_USER", "PRONTODB_CURSOR"])
def test_variables_that_are_not_utf_8_are_refused(root: Path, variable: str) -> None:
    env = {**{name.encode(): value.encode() for name, value in environment(root).items()}}
    env[variable.encode()] = b"/tmp/\xff" if variable == "PRONTODB_HOME" else b"\xff"
    outcome = spawn(root, "set", "k", "v", env=env)  # type: ignore[arg-type]
    assert (outcome.code, outcome.out) == (1, b"")
    assert one_line(outcome.err)
    assert tree(root) == {}


def test_no_home_at_all_is_said(root: Path) -> None:
    outcome = spawn(root, "set", "k", "v", env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"})
    assert (outcome.code, "PRONTODB_HOME" in one_line(outcome.err)) == (1, True)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_everything_is_private_under_any_umask(tmp_path: Path, mask: int) -> None:
    root = tmp_path / "new" / "root"
    assert spawn(root, "set", "k", "v", umask=mask).code == 0
    assert spawn(root, "get", "k", umask=mask).out == b"v"
    assert spawn(root, "create-cache", "k", "5m", "--user", "b", umask=mask).code == 0
    found = tree(tmp_path / "new")
    assert any(path.endswith("keystore.db-wal") for path in found)
    assert any(path.endswith("address_registry.db") for path in found)
    for path, (mode, _) in found.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path


def test_what_others_could_read_is_closed_and_reported(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v")
    path = root / "addresses" / "_default" / "_default" / "keystore.db"
    path.chmod(0o644)
    outcome = cli.ok("get", "k")
    assert outcome.text == "v"
    assert f"others could read '{path}'" in outcome.err or "others could read" in outcome.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cli.ok("get", "k").err == ""


def test_what_others_can_write_is_refused_with_the_command_that_closes_it(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v")
    path = root / "addresses" / "_default" / "_default"
    path.chmod(0o770)
    for argv in (("get", "k"), ("set", "k", "new")):
        assert "chmod -R go-rwx" in cli.fails(*argv)
    path.chmod(0o700)
    assert cli.ok("get", "k").text == "v"


KEYSTORE = "addresses/_default/_default/keystore.db"
PLACES = [
    "addresses",
    "addresses/_default",
    "addresses/_default/_default",
    KEYSTORE,
    KEYSTORE + "-wal",
    KEYSTORE + "-shm",
    "registry",
    "registry/global_config.json",
    "registry/address_registry.db",
    "registry/locks",
    "registry/locks/_default@_default",
    "registry/locks/_default@_default/address.lock",
]


def plant_link(path: Path, outside: Path) -> None:
    """A link to something outside of the same kind, so that following it would work."""
    path.symlink_to(outside / "copy" / path.name)


def plant_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path, 0o600)


def plant_device(path: Path, outside: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero


def plant_second_name(path: Path, outside: Path) -> None:
    os.link(outside / "file", path)


PLANTED = [
    *((plant, place) for place in PLACES for plant in (plant_link, plant_pipe)),
    *((plant, place) for place in PLACES if "." in place for plant in (plant_device, plant_second_name)),
]


@pytest.mark.parametrize(("plant", "place"), PLANTED)
def test_what_is_planted_below_the_root_is_neither_followed_nor_waited_for(
    root: Path, tmp_path: Path, plant: Callable[[Path, Path], None], place: str
) -> None:
    Cli(root).ok("set", "k", "v")
    Cli(root).ok("get", "k")
    (root / "registry" / "global_config.json").write_text('{"format": 1, "settings": {}}')
    (root / "registry" / "global_config.json").chmod(0o600)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(OUTSIDE)
    target = root / place
    (outside / "copy").mkdir()
    shutil.move(target, outside / "copy" / target.name)
    try:
        plant(target, outside)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = contents(outside)
    read, wrote, listed = several(root, ["get", "k"], ["set", "k", "new"], ["address", "list"])
    assert contents(outside) == before
    for outcome in (read, wrote, listed):
        assert outcome.code in (0, 1), outcome
        assert "internal error" not in outcome.err
        for line in outcome.err.splitlines(keepends=True):
            one_line(line)
    if place.startswith("addresses"):
        # Whoever plants something at an address itself stops that address, not more.
        assert (read.code, wrote.code) == (1, 1)
    if place.startswith(("registry/locks", "registry/address")):
        assert read.out == b"v"  # reading needs neither locks nor index


SEVERAL = """
import json, sys
from tests.unit.cli.harness import Cli
from pathlib import Path
cli = Cli(Path(sys.argv[1]))
for argv in json.loads(sys.argv[2]):
    outcome = cli(*argv)
    print(json.dumps([outcome.code, outcome.text, outcome.err]))
"""


def several(root: Path, *commands: list[str]) -> list[Outcome]:
    """Run commands one after the other in a process of their own, which can be left if one hangs."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, str(root), json.dumps(commands)],
        env=environment(root),
        cwd=CHECKOUT,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return [Outcome(code, text.encode(), err) for code, text, err in map(json.loads, done.stdout.splitlines())]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        # The planted second name counts as a name of the file, its contents must stay.
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, data)
    return found


def test_a_damaged_address_stops_no_other(root: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "one", "--user", "a")
    cli.ok("set", "k", "two", "--user", "b")
    path = root / "addresses" / "a" / "_default" / "keystore.db"
    for damage in (b"", b"garbage" * 1000, path.read_bytes()[:5000]):
        path.write_bytes(damage)
        cli.fails("get", "k", "--user", "a")
        cli.fails("set", "k", "v", "--user", "a")
        assert path.read_bytes() == damage
        assert cli.ok("get", "k", "--user", "b").text == "two"
        cli.ok("set", "k", "two", "--user", "b")
        cli("address", "check", "a")
        assert cli.ok("address", "list").lines == ["a/_default", "b/_default"]


def test_the_exit_codes_of_processes(root: Path) -> None:
    assert spawn(root, "set", "app.config.theme", "dark").code == 0
    assert spawn(root, "get", "app.config.theme").out == b"dark"
    assert spawn(root, "get", "nope").code == 2
    assert spawn(root, "cas", "app.config.theme", "light", "blue").code == 1
    assert spawn(root, "del", "nope").code == 0
    assert spawn(root).code == 1
    done = subprocess.run([*command(), "--version"], capture_output=True, env=environment(root), timeout=60)
    assert done.stdout.startswith(b"prontodb ")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_command_at_one_address_touches_no_file_of_another(root: Path, tmp_path: Path) -> None:
    cli = Cli(root)
    cli.ok("set", "k", "v", "--user", "stranger", "--cursor", "unlike")
    trace = tmp_path / "trace"
    for argv in (
        ("set", "k", "v"), ("get", "k"), ("incr", "n"), ("keys",), ("scan",), ("ttl", "k"), ("touch", "k"),
        ("copy", "k", "l"), ("del", "l"), ("create-cache", "ns", "5m"), ("export",), ("watch", "--timeout", "0.01"),
    ):  # fmt: skip
        done = subprocess.run(
            # %file: every call that names a path; -y shows where a descriptor it goes by leads.
            [
                "strace",
                "-f",
                "-y",
                "-e",
                "trace=%file,flock",
                "-o",
                str(trace),
                *command(*argv, "--user", "mine"),
            ],
            env=environment(root),
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done
        text = trace.read_text(errors="replace")
        assert "keystore.db" in text
        named = [line for line in text.splitlines() if "stranger" in line or "unlike" in line]
        assert named == [], argv

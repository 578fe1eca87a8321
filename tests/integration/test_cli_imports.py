"""What a one-shot command loads: nothing that it does not use."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.harness import TIMEOUT_S, Cli, environment

LISTED = """
import sys
sys.path[:0] = {path!r}
from prontodb.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(" ".join(sorted(sys.modules)))
sys.exit(code)
"""

HEAVY = {
    "aiosqlite", "anyio", "argparse", "asyncio", "contextlib", "dataclasses", "enum", "filelock", "inspect", "json",
    "logging", "pathlib", "re", "secrets", "signal", "socket", "ssl", "structlog", "subprocess", "tempfile",
    "threading", "typing", "uuid",
}  # fmt: skip
"""What the path of a read must not load; each costs more than reading the value does."""


@pytest.fixture
def filled(root: Path) -> Path:
    Cli(root).ok("set", "app.config.theme", "dark")
    return root


def loaded(root: Path, *argv: str) -> set[str]:
    """The modules that a command leaves in its process."""
    done = subprocess.run(
        # Without site: what it loads, for the environment of these tests perhaps, is not ours.
        [sys.executable, "-S", "-c", LISTED.format(path=sys.path), *argv],
        env=environment(root),
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode in (0, 2), done
    return set(done.stderr.decode().splitlines()[-1].split())


@pytest.mark.parametrize(
    "argv",
    [
        ("get", "app.config.theme"),
        ("get", "--user", "_default", "-p", "app", "-n", "config", "theme", "--quiet"),
        ("get", "nope", "-q"),
        ("get", "nope", "--user", "nobody", "-q"),
        ("keys",),
        ("scan",),
        ("ttl", "app.config.theme"),
    ],
)
def test_a_read_loads_nothing_heavy(filled: Path, argv: tuple[str, ...]) -> None:
    assert loaded(filled, *argv) & HEAVY == set()


def test_a_write_loads_no_event_loop(filled: Path) -> None:
    for argv in (("set", "k", "v"), ("incr", "n"), ("del", "k"), ("copy", "app.config.theme", "l")):
        assert loaded(filled, *argv) & {"aiosqlite", "anyio", "asyncio", "filelock", "structlog"} == set(), argv


def test_only_the_chosen_commands_module_is_loaded(filled: Path) -> None:
    ours = {name for name in loaded(filled, "get", "k", "-q") if name.startswith("prontodb.cli.")}
    wanted = ("commands", "data", "environment", "main", "output", "parsing", "secrets")
    assert ours == {f"prontodb.cli.{name}" for name in wanted}


def test_a_read_asks_no_rules_where_there_are_none(filled: Path) -> None:
    asking = {"prontodb.access", "prontodb.model.access", "prontodb.tokens", "prontodb.registry.grants", "hmac"}
    assert loaded(filled, "get", "app.config.theme") & asking == set()
    Cli(filled).ok("access", "add", "*", "*", "read,write,admin")
    assert "prontodb.access" in loaded(filled, "get", "app.config.theme")

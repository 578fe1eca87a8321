"""An address whose change can be noted nowhere in the registry stays as it is: it would be called missing for good."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prontodb.doctor import examine
from prontodb.errors import SecretError
from prontodb.model.clock import Clock
from prontodb.model.layout import DUES, Layout
from prontodb.model.limits import Limits
from tests.crash import tracing
from tests.integration.test_audit_dues import due, locked
from tests.parts import fill, value
from tests.unit.cli.harness import TIMEOUT_S, Cli, command, environment

needs_strace = pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace()))

ONE, NEW = "agent/test", "agent/new"
CHANGES = {"rename": ("address", "rename", ONE, NEW), "delete": ("address", "delete", ONE, "--yes")}
by_change = pytest.mark.parametrize("change", CHANGES)


@pytest.fixture
def cli(root: Path) -> Cli:
    """A root with one address and no index of sessions: no anchor has to follow a change."""
    fill(root, ONE, {"k": "v"})
    return Cli(root)


def complaints(root: Path) -> list[str]:
    """What the doctor says once it has repaired what it can."""
    examine(Layout(str(root)), Limits(wait_s=5), Clock(), repair=True)
    return [finding.what for finding in examine(Layout(str(root)), Limits(wait_s=5), Clock()).findings]


@by_change
def test_a_change_that_the_locked_index_does_not_take_is_written_down_beside_it(
    root: Path, cli: Cli, change: str
) -> None:
    with locked(root, "address_registry.db"):
        cli.ok(*CHANGES[change])
        assert len(due(root)) == 1
    assert [row["address"] for row in cli.ok("address", "list", "--json").json] == ([NEW] if change == "rename" else [])
    assert (due(root), complaints(root)) == ([], [])


@by_change
def test_a_change_that_can_be_noted_nowhere_is_refused_and_says_where(root: Path, cli: Cli, change: str) -> None:
    (root / "registry" / DUES).write_text("in the way")
    with locked(root, "address_registry.db"):
        assert f"registry/{DUES}'" in cli.fails(*CHANGES[change])
        assert value(root, ONE, "k") == "v"
    cli.ok(*CHANGES[change])  # the index alone will do
    (root / "registry" / DUES).unlink()
    assert complaints(root) == []


@needs_strace
@pytest.mark.crash
@by_change
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_disk_that_takes_nothing_any_more_leaves_no_address_missing(
    root: Path, cli: Cli, change: str, number: int
) -> None:
    failing = ("-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={number}+")
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", *failing, *command(*CHANGES[change])],
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    try:
        there = value(root, ONE, "k") == "v"
    except SecretError:
        there = False  # its key record is gone
    if there:
        assert done.returncode == 1, done
    elif done.returncode:
        assert "outcome unknown" in done.stderr, done
    assert complaints(root) == []

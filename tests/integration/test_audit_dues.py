"""Anchors follow what is done to addresses, though the registry was locked or the process killed in between."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.doctor import examine
from prontodb.model.address import Address
from prontodb.model.anchor import Anchor
from prontodb.model.clock import Clock
from prontodb.model.layout import DUES, Layout
from prontodb.model.limits import Limits
from prontodb.registry.anchors import AnchorRegistry
from prontodb.storage import connection as sqlite
from tests.audits import ADDRESS, accusations, file_of, recorded, swapped
from tests.managing import managed
from tests.parts import Parts, fill
from tests.roots import python
from tests.sealed import key_file
from tests.unit.cli.harness import Cli

NEW, OTHER = "agent/new", "agent/other"


@pytest.fixture
def cli(root: Path) -> Cli:
    return Cli(root)


@pytest.fixture
async def kept(root: Path, cli: Cli) -> Path:
    """Two addresses with anchors, and a backup of both."""
    await recorded(root)
    await recorded(root, address=OTHER)
    cli.ok("backup", "create")
    await recorded(root, changes=2)
    return root


def hurried(root: Path) -> None:
    """Have nobody wait for long."""
    file = root / "registry" / "global_config.json"
    file.write_text(json.dumps({"format": 1, "settings": {"wait_s": 0.1}}))
    file.chmod(0o600)


@contextmanager
def locked(root: Path, index: str = "active_sessions.db") -> Iterator[None]:
    """Somebody writes to the index of sessions and anchors, or to another, and does not come to an end."""
    hurried(root)
    connection = sqlite.connect(str(root / "registry" / index))
    connection.execute("BEGIN IMMEDIATE").close()
    try:
        yield
    finally:
        connection.execute("ROLLBACK").close()
        connection.close()


def anchors(root: Path, address: str = ADDRESS) -> list[Anchor]:
    found = AnchorRegistry(Layout(str(root)), wait_s=1, one_shot=True).all()
    return [one for one in found if str(one.address) == address]


def due(root: Path) -> list[str]:
    folder = root / "registry" / DUES
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def renamed(cli: Cli) -> None:
    cli.ok("address", "rename", ADDRESS, NEW)


def deleted(cli: Cli) -> None:
    cli.ok("address", "delete", ADDRESS, "--yes")


def restored(cli: Cli) -> None:
    cli.ok("restore", "--user", "agent", "--cursor", "test", "--yes")


def undone(cli: Cli) -> None:
    cli.ok("restore", "--undo", "--user", "agent", "--cursor", "test", "--yes")


# While the registry is locked


async def test_what_was_deleted_while_the_index_was_locked_is_not_there_to_be_deleted_again(root: Path) -> None:
    await recorded(root)
    with locked(root, "address_registry.db"):
        async with managed(root) as manager:
            assert await manager.delete(ADDRESS)
    async with managed(root) as manager:
        assert not await manager.delete(ADDRESS)
        assert await manager.addresses() == []


@pytest.mark.parametrize("change", [renamed, deleted])
async def test_what_went_while_the_index_was_locked_is_not_called_missing(
    kept: Path, cli: Cli, change: Callable[[Cli], None]
) -> None:
    with locked(kept, "address_registry.db"):
        change(cli)
        assert accusations(kept) == []
    there = [OTHER] if change is deleted else [NEW, OTHER]
    assert [(row["address"], row["state"]) for row in cli.ok("address", "list", "--json").json] == [
        (address, "active") for address in there
    ]
    assert due(kept) == []
    assert accusations(kept) == []
    assert {str(one.address) for one in AnchorRegistry(Layout(str(kept)), wait_s=1, one_shot=True).all()} == {*there}


@pytest.mark.parametrize("change", [renamed, deleted, restored, undone])
async def test_what_is_done_while_the_registry_is_locked_is_made_up_for_and_accuses_nobody(
    kept: Path, cli: Cli, change: Callable[[Cli], None]
) -> None:
    if change is undone:
        restored(cli)
    with locked(kept):
        change(cli)
        assert len(due(kept)) == 1
        # Not even now, when nothing can be noted.
        assert accusations(kept) == []
        assert len(due(kept)) == 1
    assert accusations(kept) == []
    assert due(kept) == []
    if change is deleted:
        assert anchors(kept) == []
    if change is renamed:
        assert (anchors(kept), [one.mark.revision for one in anchors(kept, NEW)]) == ([], [5, 7])
    fill(kept, ADDRESS, {"made": "anew, or written again"})
    await recorded(kept)
    assert accusations(kept) == []


async def test_one_change_after_the_other_is_made_up_for_in_their_order(kept: Path, cli: Cli) -> None:
    with locked(kept):
        restored(cli)
        renamed(cli)
        fill(kept, ADDRESS, {"another": "keystore"})
        cli.ok("address", "rename", ADDRESS, "agent/third")
        cli.ok("address", "rename", NEW, ADDRESS)
        assert accusations(kept) == []
    assert accusations(kept) == []
    assert due(kept) == []
    await recorded(kept)
    assert accusations(kept) == []


# After a kill

KILL = """
import os, signal, sys
if sys.argv[2]:
    os.environ["PRONTODB_KEY_FILE"] = sys.argv[2]
from prontodb.cli.main import main
from prontodb.engine.sqlite import lifecycle

def kill(name):
    if name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

os.umask(0o077)
lifecycle.FAILPOINT.append(kill)
main(sys.argv[3:])
"""

TEST = ("--user", "agent", "--cursor", "test")
KILLS: dict[str, tuple[str, ...]] = {
    "rename.marked": ("address", "rename", ADDRESS, NEW),
    "rename.moved": ("address", "rename", ADDRESS, NEW),
    "restore.staged": ("restore", *TEST, "--yes"),
    "restore.aside": ("restore", *TEST, "--yes"),
    "restore.placed": ("restore", *TEST, "--yes"),
    "undo.aside": ("restore", "--undo", *TEST, "--yes"),
    "undo.placed": ("restore", "--undo", *TEST, "--yes"),
    "delete.marked": ("address", "delete", ADDRESS, "--yes"),
    "delete.moved": ("address", "delete", ADDRESS, "--yes"),
    "encrypt.placed": ("address", "encrypt", ADDRESS),
}


def killed(root: Path, step: str) -> Cli:
    """Kill a command at a step; return one that opens what it left."""
    key = str(key_file(root.parent)) if step.startswith("encrypt") else ""
    assert python(KILL, step, key, "--root", str(root), *KILLS[step]).returncode == -signal.SIGKILL
    return Cli(root, {"PRONTODB_KEY_FILE": key} if key else None)


@pytest.mark.crash
@pytest.mark.parametrize(
    ("step", "healer"),
    [
        *((step, "verify") for step in KILLS),
        *((s, h) for s in ("rename.moved", "restore.placed") for h in ("doctor", "list")),
    ],
)
async def test_after_a_kill_at_any_step_nobody_is_accused_and_nothing_is_left_to_note(
    kept: Path, cli: Cli, step: str, healer: str
) -> None:
    if step.startswith("undo"):
        restored(cli)
    cli = killed(kept, step)
    if healer == "doctor":
        cli("doctor", "--repair", "--quiet")
        assert due(kept) == []
    elif healer == "list":
        cli.ok("address", "list")
        assert due(kept) == []
    outcome = cli("audit", "verify")
    assert (outcome.code, outcome.lines) == (0, []), outcome
    assert due(kept) == []


@pytest.mark.crash
@pytest.mark.parametrize("step", ["rename.moved", "restore.placed", "delete.moved"])
async def test_what_was_killed_excuses_no_swap_before_or_after_it_was_made_up_for(
    kept: Path, cli: Cli, step: str
) -> None:
    place = NEW if step == "rename.moved" else ADDRESS
    killed(kept, step)
    if step == "delete.moved":
        fill(kept, ADDRESS, {"made": "anew"})
        await recorded(kept)
    swapped(kept, place, OTHER)
    # The verification makes up for what was killed, and sees the swap all the same.
    for _ in range(2):
        text = cli("audit", "verify").text
        assert f"{OTHER}: " in text
        assert f"{place}: " in text
    swapped(kept, place, OTHER)
    assert cli("audit", "verify").lines == []
    swapped(kept, place, OTHER)
    assert f"{OTHER}: " in cli("audit", "verify").text


@pytest.mark.crash
async def test_what_a_killed_renaming_left_behind_accuses_nobody_once_its_target_is_gone(kept: Path, cli: Cli) -> None:
    killed(kept, "rename.moved")
    cli.ok("address", "delete", NEW, "--yes")
    assert cli("audit", "verify").lines == []
    assert anchors(kept) == anchors(kept, NEW) == []


@pytest.mark.crash
async def test_a_deletion_that_was_killed_before_it_began_excuses_nobody_who_takes_the_folder_later(
    kept: Path, cli: Cli
) -> None:
    killed(kept, "delete.marked")
    assert cli("audit", "verify").lines == []
    shutil.rmtree(file_of(kept).parent)
    assert f"{ADDRESS}: no keystore lies here" in cli("audit", "verify").text


@pytest.mark.crash
async def test_the_doctor_names_what_is_to_be_noted(kept: Path) -> None:
    killed(kept, "restore.placed")
    report = examine(Layout(str(kept)), Limits(wait_s=5), Clock())
    [found] = [one for one in report.findings if "have still to follow" in one.what]
    assert (found.what.split(" have")[0], found.fix) == (f"the anchors of {ADDRESS}", "prontodb doctor --repair")


async def test_rubbish_among_what_is_due_stops_nobody(kept: Path, cli: Cli) -> None:
    folder = kept / "registry" / DUES
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, data in {
        "a.begun": b"\xff",
        "b.done": b"[" * 4_000,
        "c.done": b'{"what": "deleted", "address": "agent/test", "at": "soon", "pid": 1}',
        "d.done": b'{"what": "renamed", "address": "agent/test", "at": 1, "pid": 1}',
        "e.done": b'{"what": "placed", "address": "agent/test", "at": 1, "pid": 1, "mark": [1, 2]}',
        "f.done": b" " * 100_000,
    }.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    renamed(cli)
    assert accusations(kept) == []
    assert Parts(kept).lifecycle.exists(Address.parse(NEW))

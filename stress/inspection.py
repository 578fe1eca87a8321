"""Looks at what lies there when all is over; `Aftermath` is what comes of it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import anyio

import prontodb
from prontodb import errors

from .aftermath import Aftermath
from .history import BACKUP, backup_made

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prontodb import SessionManager

    from .history import History

    Also = Callable[[SessionManager, History, Aftermath], Awaitable[None]]

RUN_MARK = "PRONTODB_STRESS_RUN"
"""The environment variable by which a run's processes are found again; children inherit it."""
TRIED_BACKUPS = 6
"""How many of a run's backups are restored elsewhere; all of them are verified."""
GONE_AGAIN_S = 0.05
_TOKEN = re.compile(rb"token:(agent\d+):([\w:-]+);")
_UNFINISHED = re.compile(r"\.(?:tmp|new|trash)")


async def inspect(
    root: Path, place: Path, history: History, *, mark: str, also: Also, say: Callable[[str], None]
) -> Aftermath:
    """Look at a root when no agent is left. `place` is a folder for what is restored on trial, `also` looks, too."""
    aftermath = Aftermath()
    say("processes and files")
    aftermath.leftovers += [f"process {name}" for name in processes_of(mark)]
    async with prontodb.open(root) as manager:
        say("doctor")
        await manager.doctor(repair=True)
        report = await manager.doctor(deep=True)
        aftermath.problems += [f"{finding.level}: {finding.what}" for finding in report.findings]
        aftermath.sessions += [f"{one.id} at {one.address}" for one in await manager.sessions()]
        await also(manager, history, aftermath)
        await _addresses(manager, aftermath)
        say("contents")
        await _contents(manager, aftermath)
        say("audit")
        await _audit(manager, aftermath)
        say("backups")
        await _backups(manager, place, history, aftermath)
    say("raw bytes")
    _tokens(root, aftermath)
    aftermath.leftovers += [
        f"file {path.relative_to(root)}" for path in (root / "addresses").rglob(".*") if _UNFINISHED.match(path.name)
    ]
    return aftermath


async def _addresses(manager: SessionManager, aftermath: Aftermath) -> None:
    aftermath.listed = {str(row.address): row.state for row in await manager.addresses()}
    aftermath.examined = len(aftermath.listed)
    folders = (Path(manager.root) / "addresses").glob("*/*/keystore.db")
    # Names that begin with a dot are unfinished or put aside.
    aftermath.folders = sorted(
        f"{path.parts[-3]}/{path.parts[-2]}" for path in folders if not path.parts[-2].startswith(".")
    )


async def _contents(manager: SessionManager, aftermath: Aftermath) -> None:
    began_ns = time.monotonic_ns()
    for address in aftermath.folders:
        user, _, cursor = address.partition("/")
        try:
            async with manager.session(user, cursor, mode="read") as keystore:
                found = {entry.key: (entry.value, entry.revision) async for entry in keystore.scan()}
        except errors.ProntoError as error:
            aftermath.errors.append(f"{address}: {error}")
        else:
            aftermath.contents[address] = found
    aftermath.facts["read_ns"] = [began_ns, time.monotonic_ns()]


async def _audit(manager: SessionManager, aftermath: Aftermath) -> None:
    audit = await manager.verify_audit()
    aftermath.audited = sum(one.records for one in audit.addresses)
    aftermath.audit_problems += [f"{address}: {reason}" for address, reason in audit.failed]
    aftermath.audit_problems += [
        f"{one.address}: {finding}" for one in audit.addresses if not one.is_sound for finding in one.findings
    ]


async def _backups(manager: SessionManager, place: Path, history: History, aftermath: Aftermath) -> None:
    listing = await manager.backups()
    aftermath.backups = {manifest.id: "" for manifest in listing.backups}
    aftermath.backups |= {broken.id: broken.reason for broken in listing.unreadable}
    if not aftermath.backups:
        return
    verified = await manager.verify()
    aftermath.backups |= dict(verified.problems)
    named = [name for name, _ in map(backup_made, history.of(BACKUP)) if name is not None]
    made = [name for name in named if name in aftermath.backups]
    tried = made if len(made) <= TRIED_BACKUPS else Random(len(made)).sample(made, TRIED_BACKUPS)
    for backup in tried:
        into = place / backup
        try:
            report = await manager.restore(backup, into=into)
            if report.failed:
                aftermath.backups[backup] = "not restored: " + "; ".join(map(" ".join, report.failed))
            aftermath.restored[backup] = await _restored(into)
        except errors.ProntoError as error:
            aftermath.backups[backup] = str(error)
    if len(tried) < len(made):
        aftermath.notes.append(f"restored {len(tried)} of {len(made)} backups, drawn by chance; verified all")


async def _restored(root: Path) -> dict[str, dict[str, str]]:
    async with prontodb.open(root) as manager:
        found: dict[str, dict[str, str]] = {}
        for row in await manager.addresses():
            async with manager.session(row.address.user, row.address.cursor, mode="read") as keystore:
                found[str(row.address)] = {entry.key: entry.value async for entry in keystore.scan()}
    return found


def _tokens(root: Path, aftermath: Aftermath) -> None:
    """Search the bytes of every file of every address for the agents' tokens, deleted and replaced ones included."""
    for address in aftermath.folders:
        seen: dict[str, set[bytes]] = {}
        for path in sorted((root / "addresses" / address).iterdir()):
            for agent, rest in _TOKEN.findall(path.read_bytes()):
                seen.setdefault(agent.decode(), set()).add(rest)
        aftermath.tokens[address] = {agent: len(found) for agent, found in seen.items()}


def processes_of(mark: str) -> list[str]:
    """Return the processes (pid and command) that carry a run's mark in their environment. Linux only; else none."""
    if sys.platform != "linux":
        return []
    wanted, found = f"{RUN_MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{folder.name} {command[:80]}")
        except OSError:
            continue  # it ended in this instant, or is somebody else's
    return found


async def until_gone(mark: str, patience_s: float) -> None:
    """Wait until no process of a run is left, or for so long."""
    with anyio.move_on_after(patience_s):
        while processes_of(mark):  # noqa: ASYNC110 - the kernel tells nobody but their parent that they ended
            await anyio.sleep(GONE_AGAIN_S)

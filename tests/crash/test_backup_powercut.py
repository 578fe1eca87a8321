"""Power cuts during backups and restores: what was acknowledged is whole, the rest whole or not there."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prontodb.backup.container import Container
from prontodb.engine.sqlite import folders
from prontodb.errors import ProntoError
from prontodb.model.layout import Layout
from tests.checking import keystore_faults
from tests.crash import powercut, tracing
from tests.crash.backup_worker import HOME, do, finish, work_of
from tests.crash.powercut import Disk, Event
from tests.parts import value

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

SEED = 20_261_122
MODES = (powercut.LOST, powercut.KEPT, powercut.JOURNALLED, powercut.SCATTERED)
IMAGES = 150
"""How many are judged, spread over all instants; the one after each acknowledgement among them."""

PROGRAM = """
import os, sys
from prontodb.direct import OneShot, run
from tests.crash.backup_worker import HOME, do, finish, work_of
root = sys.argv[1]
def say(*words):
    os.write(1, " ".join(words).encode() + b"\\n")
work = work_of(root)
say("soon", "1")
with OneShot(root, HOME) as keystore:
    run(keystore.set_many({"n": "1", "big": "x" * 9_000}))
say("holds", "1")
say("backup", finish(work.backup()).id)
say("soon", "2")
with OneShot(root, HOME) as keystore:
    run(keystore.set_many({"n": "2", "big": "y" * 9_000}))
say("holds", "2")
say("backup", finish(work.backup()).id)
say("soon", "1")
finish(work.restoring(work.backups().backups[0].id).steps())
say("holds", "1")
say("backup", finish(work.backup(full=True)).id)
say("soon", "2")
do(root, "undo")
say("holds", "2")
"""
"""On a root that does not exist: backups, a restore and its undo, each acknowledged."""


@dataclass(slots=True)
class Said:
    """What the program had said when the power went: what agent/home may hold, and the backups that must be there."""

    holds: set[str | None] = field(default_factory=lambda: {None})
    backups: list[str] = field(default_factory=list)

    def hear(self, line: bytes) -> None:
        """Take an acknowledgement, or with `soon` that something else is about to be true."""
        word, what = line.decode().split()
        match word:
            case "backup":
                self.backups.append(what)
            case "soon":
                self.holds = {*self.holds, what}
            case "holds":
                self.holds = {what}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The folder in which the root was made, and all that happened in it."""
    above = tmp_path_factory.mktemp("recorded")
    base = above / "disk"
    base.mkdir(mode=0o700)
    command = [sys.executable, "-c", PROGRAM, str(base / "root")]
    return base, powercut.record(command, base, above / "log")


def instants(events: list[Event]) -> dict[int, set[str]]:
    """Before which events the power goes, and in which modes; after an acknowledgement all is lost that may be."""
    found = {number + 1: {powercut.LOST} for number, event in enumerate(events) if event.kind == "ack"}
    telling = [number for number, event in enumerate(events) if event.kind in ("sync", "move", "drop", "folder")]
    every = [(number, mode) for number in telling for mode in MODES]
    for number, mode in random.Random(SEED).sample(every, IMAGES - len(found)):
        found.setdefault(number, set()).add(mode)
    return found


def images(tmp_path: Path, base: Path, events: list[Event]) -> Iterator[tuple[str, Said, Path]]:
    """Lay out image after image: where the power went, what had been said by then, and the root."""
    chance, disk, said, wanted = random.Random(SEED), Disk(base), Said(), instants(events)
    for number, event in enumerate([*events, Event("end")]):
        for mode in sorted(wanted.get(number, ())):
            place = tmp_path / "image"
            disk.lay(place, mode, chance)
            yield f"{mode} before event {number} ({event.kind} {event.path[len(str(base)) :]})", said, place / "root"
            shutil.rmtree(place)
        if event.kind == "ack":
            said.hear(event.data)
        else:
            disk.follow(event)


def judged(root: Path, said: Said) -> list[str]:
    """What is wrong with the root that the power cut left."""
    faults = []
    listing = Container.of_root(Layout(str(root))).list()
    faults += [f"{broken.id} is listed: {broken.reason}" for broken in listing.unreadable]
    listed = [one.id for one in listing.backups]
    faults += [f"{backup} was acknowledged, and is not there" for backup in said.backups if backup not in listed]
    work = work_of(root)
    for backup in listed:
        faults += [f"{name}: {problem}" for name, problem in finish(work.verify(backup)).problems]
    if root.exists():
        held = value(root, str(HOME), "n")
        if held not in said.holds:
            faults.append(f"{HOME} holds {held}, not one of {said.holds}")
        for address in folders.listed(Layout(str(root))):
            faults += [f"{address}: {fault}" for fault in keystore_faults(str(root), address)]
    return faults


def test_what_was_acknowledged_is_whole_and_the_rest_whole_or_not_there(
    recorded: tuple[Path, list[Event]], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    base, events = recorded
    assert sum(event.kind == "ack" for event in events) == 11
    faults, tried = [], 0
    for where, said, root in images(tmp_path, base, events):
        tried += 1
        try:
            damage = judged(root, said)
            if root.exists() and tried % 8 == 0:
                damage += next_backup(root)
        except ProntoError as error:
            damage = [repr(error)]
        faults += [f"{where}: {fault}" for fault in damage]
    assert tried > 100
    assert not faults, f"{len(faults)} faults in {tried} images\n" + "\n".join(faults[:12])


def next_backup(root: Path) -> list[str]:
    """What is wrong with the backup after the power came back."""
    do(root, "full")
    left = [path.name for path in (root / "backups").rglob(".t*")]
    return [f"left over: {name}" for name in left] + [
        f"the next one is damaged: {problem}" for problem in finish(work_of(root).verify()).problems
    ]

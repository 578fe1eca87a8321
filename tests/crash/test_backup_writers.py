"""Writers that never stop, killed now and then, while increment follows increment: each backup is one instant."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prontodb.backup.chain import Chains
from prontodb.engine.sqlite.digest import digest_of
from prontodb.engine.sqlite.opening import open_reader
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from tests.checking import connection_faults, contents
from tests.crash.backup_worker import finish, work_of
from tests.managing import environment, program, waited_for

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = 20_261_123
WRITERS, BACKUPS, RING = 8, 14, 16
SHARED = ("shared/one", "shared/two")

WRITER = """
import os, sys, time
from prontodb.direct import OneShot, run
from prontodb.errors import BusyError
from prontodb.model.address import Address
root, number, tally = sys.argv[1], int(sys.argv[2]), os.open(sys.argv[3], os.O_RDWR)
def slot(kind):
    return (2 * number + kind) * 8
def note(kind, value):
    os.pwrite(tally, value.to_bytes(8, "big"), slot(kind))
i = int.from_bytes(os.pread(tally, 8, slot(0)), "big")
with (
    OneShot(root, Address("writer", f"w{number}"), durability="relaxed") as own,
    OneShot(root, Address("shared", "one" if number % 2 else "two"), durability="relaxed") as shared,
):
    while True:
        i += 1
        note(0, i)  # it begins
        run(own.set_many({"a": str(i), "b": str(i), f"ring{i % 16}": str(i), "text": f"{i} " * (i % 200)}))
        if i % 7 == 0:
            run(own.delete("text"))
        run(shared.set_many({f"w{number}.a": str(i), f"w{number}.b": str(i)}))
        run(shared.increment(f"w{number}.count"))
        note(1, i)  # all of it is acknowledged
        time.sleep(0.001)
"""
"""Writes the same number under several keys in one change, over and over, at its own address and at a shared one."""


class Tally:
    """How far each writer has begun, and how far it was told that its writes are done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(2 * WRITERS * 8))

    def _column(self, kind: int) -> list[int]:
        data = self.path.read_bytes()
        return [int.from_bytes(data[at : at + 8], "big") for at in range(kind * 8, len(data), 16)]

    @property
    def begun(self) -> list[int]:
        return self._column(0)

    @property
    def acknowledged(self) -> list[int]:
        return self._column(1)


@dataclass(slots=True)
class Taken:
    """A backup, and what was acknowledged before it began and begun when it had ended."""

    id: str
    before: list[int]
    after: list[int]


@dataclass
class Writers:
    """Processes that write until they are killed."""

    root: Path
    tally: Tally
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(program(WRITER, self.root, number, self.tally.path), env=environment())

    def kill(self, number: int) -> None:
        self.running[number].send_signal(signal.SIGKILL)
        assert self.running[number].wait(20) == -signal.SIGKILL, "it had ended by itself"


@contextmanager
def writing(root: Path, tally: Tally) -> Iterator[Writers]:
    """All writers at work, for as long as the block runs."""
    writers = Writers(root, tally)
    try:
        writers.running = [writers.start(number) for number in range(WRITERS)]
        assert waited_for(lambda: min(tally.acknowledged) > 5)
        yield writers
    finally:
        for process in writers.running:
            process.kill()
            process.wait()


def taken_under_load(root: Path, tally: Tally, chance: random.Random) -> list[Taken]:
    """Back up again and again while all write; one of them is killed now and then, and another takes its place."""
    found = []
    with writing(root, tally) as writers:
        for round_ in range(BACKUPS):
            before = tally.acknowledged
            report = finish(work_of(root).backup(full=round_ == BACKUPS // 2))
            assert report.failed == ()
            assert report.id is not None
            found.append(Taken(report.id, before, tally.begun))
            assert report.segments >= (0 if report.kind == "full" else 2), "chains are what this is about"
            if round_ % 3 == 1:
                number = chance.randrange(WRITERS)
                writers.kill(number)
                writers.running[number] = writers.start(number)
            seen = tally.acknowledged
            assert waited_for(lambda seen=seen: sum(tally.acknowledged) > sum(seen) + WRITERS)  # type: ignore[misc]
    return found


def test_every_backup_made_under_load_is_one_instant_of_each_address(root: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    tally = Tally(tmp_path / "tally")
    taken = taken_under_load(root, tally, random.Random(SEED))
    verified = finish(work_of(root).verify())
    assert verified.problems == ()
    faults = []
    for one in taken:
        into = tmp_path / one.id
        restored = finish(work_of(root).restoring(one.id, into=str(into)).steps())
        assert len(restored.restored) == WRITERS + len(SHARED)
        faults += [f"{one.id}: {fault}" for fault in judged(root, into, one)]
    assert faults == []


def judged(root: Path, into: Path, taken: Taken) -> Iterator[str]:
    """What is wrong with one backup, restored into a root of its own."""
    tips = Chains.of(work_of(root).backups()).tips(taken.id)
    for name, tip in tips.items():
        connection, _ = open_reader(Layout(str(into)), Address.parse(name))
        try:
            for fault in connection_faults(connection):
                yield f"{name}: {fault}"
            if digest_of(connection) != tip.piece.content:
                yield f"{name}: its digest is not that of the manifest"
            held = contents(connection)
        finally:
            connection.close()
        told = own_faults(held, name, taken) if name.startswith("writer/") else shared_faults(held, taken)
        yield from (f"{name}: {fault} in {json.dumps(held)[:300]}" for fault in told)


def own_faults(held: dict[str, str], name: str, taken: Taken) -> Iterator[str]:
    number, at = int(name.removeprefix("writer/w")), int(held["a"])
    if not taken.before[number] <= at <= taken.after[number]:
        yield f"{at} is not from {taken.before[number]} to {taken.after[number]}"
    ring = {key: int(value) for key, value in held.items() if key.startswith("ring")}
    if held["b"] != held["a"] or ring[f"ring{at % RING}"] != at or max(ring.values()) != at:
        yield "one change is there by half"
    if any(int(key.removeprefix("ring")) != value % RING for key, value in ring.items()):
        yield "a value is under another key"
    if "text" in held and held["text"] != f"{at} " * (at % 200):
        yield "an older value stayed"


def shared_faults(held: dict[str, str], taken: Taken) -> Iterator[str]:
    for number in range(WRITERS):
        if f"w{number}.a" not in held:
            continue
        at = int(held[f"w{number}.a"])
        if held[f"w{number}.b"] != held[f"w{number}.a"]:
            yield f"one change of writer {number} is there by half"
        if not taken.before[number] <= at <= taken.after[number]:
            yield f"writer {number}: {at} is not from {taken.before[number]} to {taken.after[number]}"
        # Each kill may cost one count that was begun and not made.
        if not at - BACKUPS <= int(held[f"w{number}.count"]) <= at:
            yield f"writer {number} counted {held[f'w{number}.count']} at {at}"
    if sum(f"w{number}.a" in held for number in range(WRITERS)) != WRITERS // 2:
        yield "a writer is missing"

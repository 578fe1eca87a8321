"""Power cuts at every instant: what was acknowledged survives, what was in progress is whole or not there."""

import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prontodb.direct import OneShot, run
from prontodb.errors import ProntoError
from tests.checking import keystore_faults
from tests.crash import powercut, tracing, worker
from tests.crash.powercut import Disk, Event

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(tracing.why_no_strace() is not None, reason=str(tracing.why_no_strace())),
]

SEED = 20_240_608
MODES = (powercut.LOST, powercut.KEPT, powercut.JOURNALLED, powercut.SCATTERED)
STEP = 3
"""Between syncs and acknowledgements, every third instant is tried, in one mode."""


def recorded(tmp_path: Path, durability: str) -> tuple[Path, list[Event]]:
    """The base folder (the durable parent of a root that does not exist yet) and what the worker did in it."""
    base = tmp_path / "disk"
    base.mkdir(mode=0o700)
    command = [sys.executable, tracing.WORKER, str(base / "root"), durability]
    return base, powercut.record(command, base, tmp_path / "log")


def images(
    tmp_path: Path, base: Path, events: list[Event], modes: Sequence[str] = MODES
) -> Iterator[tuple[str, int, Path]]:
    """Lay out image after image: where the power went, how many steps were acknowledged by then, and the root."""
    chance = random.Random(SEED)
    disk, acknowledged = Disk(base), 0
    for number, event in enumerate(events):
        weighty = event.kind in ("sync", "ack", "move")
        for mode in modes if weighty else modes[-1 - number % 2 :][:1] if number % STEP == 0 else ():
            place = tmp_path / "image"
            disk.lay(place, mode, chance)
            yield (
                f"before event {number} ({event.kind} {event.path[len(str(base)) :]}), {mode}",
                acknowledged,
                place / "root",
            )
            shutil.rmtree(place)
        disk.follow(event)
        if event.kind == "ack" and event.data.strip().isdigit():
            acknowledged = int(event.data)


def test_acknowledged_steps_survive_a_power_cut_at_any_instant(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    base, events = recorded(tmp_path, "full")
    faults, tried = [], 0
    for where, acknowledged, root in images(tmp_path, base, events):
        tried += 1
        try:
            found = worker.observe(str(root))
            damage = [fault for address in found.addresses for fault in keystore_faults(str(root), address)]
            if found not in worker.possible(acknowledged):
                damage.append(f"{acknowledged} steps were acknowledged, found {worker.shortened(found)}")
            if tried % 16 == 0:
                damage += next_command(root)
        except ProntoError as error:
            damage = [repr(error)]
        faults += [f"{where}: {fault}" for fault in damage]
    assert tried > 300
    assert not faults, f"{len(faults)} faults in {tried} images\n" + "\n".join(faults[:12])


def test_relaxed_durability_loses_the_last_steps_at_most_and_damages_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    base, events = recorded(tmp_path, "relaxed")
    faults = []
    for where, acknowledged, root in images(tmp_path, base, events, (powercut.LOST, powercut.SCATTERED)):
        try:
            found = worker.observe(str(root))
            damage = [fault for address in found.addresses for fault in keystore_faults(str(root), address)]
        except ProntoError as error:
            faults.append(f"{where}: {error!r}")
            continue
        # What happened to whole addresses and published files is as durable as ever.
        before = worker.possible(acknowledged, beginning=0)
        now = worker.possible(acknowledged)
        if set(found.addresses) not in [set(state.addresses) for state in now]:
            damage.append(f"addresses {sorted(map(str, found.addresses))} after {acknowledged} steps")
        if found.config not in [state.config for state in now]:
            damage.append(f"the published file is not the acknowledged one after {acknowledged} steps")
        for address, entries in found.addresses.items():
            origin = worker.AWAY if address == worker.MOVED else address
            if entries not in [s.addresses.get(a) for s in before for a in (address, origin)]:
                damage.append(f"{address} holds what it never held: {entries}")
        faults += [f"{where}: {fault}" for fault in damage]
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:12])


def next_command(root: Path) -> list[str]:
    """What is wrong with the command after the power came back."""
    with OneShot(str(root), worker.HOME) as keystore:
        run(keystore.set("next", "command"))
        return [] if run(keystore.get("next")) == "command" else ["the next command did nothing"]


def test_the_replayer_loses_what_was_not_synced_and_keeps_what_was(tmp_path: Path) -> None:
    """The judge itself is judged: a program that forgets a sync must be found out."""
    base = tmp_path / "disk"
    base.mkdir()
    program = """
import os, sys
e = os.open(sys.argv[1], os.O_RDONLY)
os.mkdir("a", dir_fd=e)
d = os.open("a", os.O_RDONLY, dir_fd=e)
f = os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=d)
os.write(f, b"one")
os.fsync(f)
os.write(1, b"1")
os.fsync(d)
os.rename("x", "y", src_dir_fd=d, dst_dir_fd=d)
os.write(1, b"2")
os.fsync(e)
os.write(1, b"3")
os.fsync(d)
os.rename("a", "b", src_dir_fd=e, dst_dir_fd=e)
g = os.dup(f)
os.lseek(g, 1, 0)
os.write(f, b"!")
os.write(1, b"4")
"""
    events = powercut.record([sys.executable, "-c", program, str(base)], base, tmp_path / "log")
    disk, found = Disk(base), {}
    for event in events:
        if event.kind == "ack":
            found[event.data] = {mode: laid(disk, tmp_path, mode) for mode in (powercut.LOST, powercut.KEPT)}
        disk.follow(event)
    assert found == {
        b"1": {"lost": {}, "kept": {"a/x": b"one"}},
        b"2": {"lost": {}, "kept": {"a/y": b"one"}},
        b"3": {"lost": {"a/x": b"one"}, "kept": {"a/y": b"one"}},
        b"4": {"lost": {"a/y": b"one"}, "kept": {"b/y": b"o!e"}},
    }


def laid(disk: Disk, tmp_path: Path, mode: str) -> dict[str, bytes]:
    """The files of an image with what they hold."""
    place = tmp_path / "image"
    disk.lay(place, mode, random.Random(SEED))
    found = {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}
    shutil.rmtree(place)
    return found

"""Judging what a victim left: its state, whether the next commands heal it, and what lies on the disk afterwards."""

import random
from collections.abc import Sequence
from pathlib import Path

from prontodb.direct import OneShot, lifecycle, run
from prontodb.doctor import examine
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests import encrypted
from tests.audits import accusations
from tests.checking import root_faults
from tests.crash import worker
from tests.crash.tracing import Call


def sampled(calls: Sequence[Call], name: str, most: int, seed: int) -> list[Call]:
    """The calls of that name: all of them, or `most` by chance, the first and the last among them."""
    mine = [call for call in calls if call.name == name]
    if len(mine) <= most:
        return mine
    between = random.Random(seed).sample(mine[1:-1], most - 2)
    return [mine[0], *sorted(between, key=lambda call: call.number), mine[-1]]


def judged(root: Path, acknowledged: int) -> list[str]:
    """What is wrong with a root whose user died after `acknowledged` steps, now and after the next commands."""
    if encrypted.is_on():
        # A key record that was half made, and an address whose key went before the rest of it, are the doctor's.
        examine(Layout(str(root)), Limits(), Clock(), repair=True)
    found = worker.observe(str(root))
    faults = []
    if found not in worker.possible(acknowledged):
        faults.append(f"after {acknowledged} acknowledged steps the root holds {worker.shortened(found)}")
    for address in (worker.HOME, worker.AWAY, worker.MOVED):
        with OneShot(str(root), address) as keystore:
            run(keystore.set("next", "command"))
            if run(keystore.get("next")) != "command":
                faults.append(f"the next command at {address} did nothing")
    worker.publish("{}").act(str(root), "full")
    heal(root)
    # Neither a change without its record nor a record without its change, and nobody accused for a crash.
    return faults + accusations(root) + root_faults(str(root))


def heal(root: Path) -> None:
    """What a doctor does for addresses: finish whatever a crash left."""
    life = lifecycle(Layout(str(root)), Limits(), Clock())
    for address in list(life.leftovers()):
        life.heal(address)

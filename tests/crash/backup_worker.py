"""The victim of the backup tests: one long work on one root, which ends or waits where it is told.

`python tests/crash/backup_worker.py ROOT ACT [STEP kill|wait]`
"""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

from prontodb.backup import container
from prontodb.direct import lifecycle
from prontodb.engine.sqlite import lifecycle as lives
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.settings import Settings
from prontodb.registry.jobs import JobRegistry
from prontodb.work import Work
from tests import encrypted

encrypted.join()

HOME = Address("agent", "home")

T = TypeVar("T")


def work_of(root: str | Path) -> Work:
    """The long works of a root, as the command line wires them."""
    layout, clock = Layout(str(root)), Clock()
    registry = JobRegistry(layout, wait_s=5, one_shot=True)
    return Work(layout, Settings(), clock, lifecycle(layout, Limits(), clock), registry)


def finish(steps: Generator[Any, None, T]) -> T:
    """Do a long work to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def do(root: str | Path, act: str) -> None:
    """Do one thing on a root; what a restore needs is its newest backup."""
    work = work_of(root)
    match act:
        case "full" | "incremental":
            finish(work.backup(full=act == "full"))
        case "prune":
            finish(work.prune())
        case "restore":
            newest = work.backups().backups[-1].id
            finish(work.restoring(newest, user=HOME.user, cursor=HOME.cursor).steps())
        case "undo":
            work.undo_restore(HOME)
        case "delete":
            lifecycle(Layout(str(root)), Limits(), Clock()).delete(HOME)
        case _:
            raise AssertionError(act)


def main(root: str, act: str, step: str = "", way: str = "kill") -> None:
    """Do it; at `step`, kill this process, or say so and wait for a line."""

    def hook(name: str) -> None:
        if name != step:
            return
        if way == "kill":
            os.kill(os.getpid(), 9)
        print("there", flush=True)
        sys.stdin.readline()

    lives.FAILPOINT.append(hook)
    container.FAILPOINT.append(hook)
    do(root, act)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

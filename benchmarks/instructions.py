"""How many instructions an operation takes, counted by callgrind: `python -m benchmarks.instructions [NAME...]`.

Instructions do not depend on what else the machine does, so that a change of a few percent shows which no clock would
show here. Each operation runs in a process of its own under valgrind, a few times and many times; what the two counts
differ by is the operations' alone. System calls count as nothing: what waits for the disk costs no instructions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contenders import Contender, Measured
from benchmarks.contenders.pronto import Pronto, ProntoShared
from benchmarks.contenders.sqlite import Raw
from benchmarks.rounds import batches, gets, sets
from benchmarks.workload import Workload
from prontodb.engine.sqlite import open_keystore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.measure import Round

KEYS = 2_000
FEW, MANY = 1_000, 5_000
DEADLINE_S = 900
COUNTED = re.compile(r"Collected : (\d+)")
OPERATIONS: dict[str, tuple[type[Contender], Round]] = {
    "get-hot": (Pronto, gets(1, hot=True)),
    "get-not-cached": (ProntoShared, gets(1)),
    "get-raw": (Raw, gets(1)),
    "set-x100": (Pronto, sets(100)),
    "set-x1": (Pronto, sets(1)),
    "set-raw-x100": (Raw, batches(100)),
    "set-raw-x1": (Raw, sets(1)),
}


@asynccontextmanager
async def _open(kind: type[Contender], folder: Path) -> AsyncIterator[Measured]:
    measured = Measured(kind(), Workload(KEYS))
    await measured.store.open(folder)
    try:
        for batch in measured.workload.batches():
            await measured.store.fill(batch)
        yield measured
    finally:
        await measured.store.close()


async def _work(name: str, ops: int, folder: Path) -> None:
    # Under valgrind everything takes fifty times as long; here no read counts as a slow one.
    open_keystore.SLOW_READ_S = float("inf")
    kind, run = OPERATIONS[name]
    async with _open(kind, folder) as measured:
        # What is done once, as filling a cache, is done in both runs.
        await run(measured, KEYS * 2)
        await run(measured, ops)


def counted(name: str, ops: int) -> int:
    """Return the instructions of a process that does so many operations, its start and end included."""
    with tempfile.TemporaryDirectory(prefix="prontodb-instructions-") as folder:
        counter = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out")
        done = subprocess.run(
            [*counter, sys.executable, "-m", __spec__.name, "--work", name, str(ops), folder],
            # Dictionaries of strings lie the same way in each run.
            env=os.environ | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    found = COUNTED.search(done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"{name} could not be counted: {done.stderr[-2_000:]}")
    return int(found[1])


def main(argv: Sequence[str]) -> int:
    """Print the instructions per operation of each that is asked for, all without any."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(OPERATIONS)}")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work:
        name, ops, folder = args.work
        asyncio.run(_work(name, int(ops), Path(folder)))
        return 0
    if unknown := [name for name in args.names if name not in OPERATIONS]:
        parser.error(f"no operation {', '.join(unknown)}; there are: {', '.join(OPERATIONS)}")
    if shutil.which("valgrind") is None:
        parser.error("this needs valgrind (apt-get install valgrind)")
    for name in args.names or OPERATIONS:
        each = (counted(name, MANY) - counted(name, FEW)) / (MANY - FEW)
        print(f"{name:16} {each:10,.0f} instructions an operation", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

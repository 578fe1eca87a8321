"""Many processes that begin their work at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.children import child

READY = "ready\n"
DEADLINE_S = 60
CHECKOUT = Path(__file__).parents[1]


def fleet(module: str, processes: int, *arguments: str) -> list[Any]:
    """Run `python -m module ARGUMENTS... NUMBER` so many times at once; return what each printed, as JSON, at its end.

    Each is ready when it calls `wait_for_start`, and goes on when all are.
    """
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                child(
                    [sys.executable, "-m", module, *arguments, str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=CHECKOUT,
                )
            )
            for number in range(processes)
        ]
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != READY:
                raise RuntimeError(f"a worker of {module} did not start ({' '.join(arguments)})")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.communicate(timeout=DEADLINE_S)[0]) for worker in workers]


def wait_for_start() -> None:
    """Say that this process is ready, then wait until all are; ends it when whoever started it is gone."""
    print(READY, end="", flush=True)
    if not sys.stdin.readline():
        sys.exit(1)

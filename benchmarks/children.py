"""Programs that a scenario starts: each in a process group of its own, and none outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def child(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program as `subprocess.Popen` does; what still runs of it and its own children at the end is killed.

    A terminal's Ctrl-C goes to the group in the foreground: it reaches us alone, and we say what becomes of the rest.
    """
    with subprocess.Popen(command, process_group=0, **how) as process:
        try:
            yield process
        finally:
            # Not waited for yet: until then nobody else can have its number.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


def run(command: Sequence[str], *, timeout: float, **how: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as `subprocess.run` does with the standard input closed."""
    with child(command, stdin=subprocess.DEVNULL, **how) as process:
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

"""Processes by their descriptors: a signal reaches the process that was meant, never one that has its pid since."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def process_of(pid: int) -> Iterator[int | None]:
    """Open a descriptor of a process; None when it has ended."""
    try:
        found = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield found
    finally:
        os.close(found)


def send(process: int | None, number: signal.Signals) -> bool:
    """Send a signal; False when the process has ended."""
    if process is None:
        return False
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a process stopped while the block runs; it goes on afterwards, however the block ends."""
    with process_of(pid) as process:
        try:
            send(process, signal.SIGSTOP)
            yield
        finally:
            with suppress(OSError):
                send(process, signal.SIGCONT)

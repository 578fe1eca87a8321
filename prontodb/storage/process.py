"""Processes: which one we are, and whether another one is still the one that a record names."""

from __future__ import annotations

import os
import signal
import sys

from prontodb.errors import UnavailableError
from prontodb.model.holder import Process

PROC = "/proc"

_ours: list[Process] = []


def ourselves() -> Process:
    """Return this process. Found out once; again after a fork."""
    pid = os.getpid()
    if not _ours or _ours[0].pid != pid:
        _ours[:] = [Process(pid, start_time(pid), _boot(), os.uname().nodename[:100], _namespace(), _program())]
    return _ours[0]


def _program() -> str:
    """Return the name of our program: arguments are nobody's business."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    if name == "__main__.py":  # started by `python -m`
        name = os.path.basename(folder)
    if name in ("", "-c", "-m"):
        name = os.path.basename(sys.executable)
    # What is no text would make the record unreadable.
    return name.encode("utf-8", "replace").decode()[:100]


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None when it cannot be told or it is gone."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as file:
            # The program's name stands in parentheses and may hold anything, parentheses and spaces too.
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot() -> str | None:
    try:
        with open(f"{PROC}/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return os.readlink(f"{PROC}/self/ns/pid")
    except OSError:
        return None


def lock_owner(path: str, byte: int) -> Process | None:
    """Return the process that alone holds a byte of a file; None when nobody does, or none can be told."""
    return next(iter(lock_owners(path, byte, byte, "WRITE")), None)


def lock_owners(path: str, first: int, last: int, *kinds: str) -> list[Process]:
    """Return the processes that hold record locks on some of the bytes of a file; none where that cannot be told.

    `kinds`: WRITE for who holds it alone, READ for who shares it.
    """
    try:
        found = os.stat(path)
        with open(f"{PROC}/locks") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    owners: dict[int, Process] = {}
    for line in lines:
        fields = line.split()
        # "1: POSIX ADVISORY WRITE 4711 fe:00:1234 120 120"; one that waits has "->" after its number.
        if len(fields) != 8 or fields[3] not in kinds or fields[5] != place:
            continue
        pid, begin, end = int(fields[4]), int(fields[6]), 2**63 if fields[7] == "EOF" else int(fields[7])
        if begin <= last and first <= end and pid > 0:
            owners.setdefault(pid, Process(pid, start_time(pid), program=_name_of(pid)))
    return list(owners.values())


def is_open_here(identity: tuple[int, int]) -> bool:
    """True when this process has a file open, given as device and inode; False where that cannot be told."""
    try:
        numbers = os.listdir(f"{PROC}/self/fd")
    except OSError:
        return False
    for number in numbers:
        try:
            found = os.stat(f"{PROC}/self/fd/{number}")
        except OSError:
            continue  # the descriptor of the listing itself
        if (found.st_dev, found.st_ino) == identity:
            return True
    return False


def _name_of(pid: int) -> str:
    try:
        with open(f"{PROC}/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def why_not_signal(process: Process) -> str | None:
    """Return why the process of a record cannot be told from others here, or None when it is surely that one."""
    here = ourselves()
    if process.host != here.host or process.boot != here.boot:
        return "it ran on another machine, or before a restart"
    if process.pid_namespace != here.pid_namespace:
        return "it is in another pid namespace (a container); end it there"
    if process.started is None:
        return "its record does not say when it started"
    return None


def kill(process: Process) -> bool:
    """Kill the very process a record names; False when it is gone already. Raises when that cannot be made sure.

    Held by a pidfd while its start time is compared, so that a reused pid is never hit.
    """
    if (reason := why_not_signal(process)) is not None:
        raise UnavailableError(f"{process} was not killed: {reason}")
    if not hasattr(os, "pidfd_open"):
        raise UnavailableError(f"{process} was not killed: this system has no pidfd; kill it yourself")
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise UnavailableError(f"{process} was not killed: {os.strerror(error.errno or 0)}") from error
    try:
        if start_time(process.pid) != process.started:
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise UnavailableError(f"{process} was not killed: it belongs to another user") from error
    finally:
        os.close(fd)
    return True


def leave_no_core() -> bool:
    """Have no core file written of this process from here on; False when that was so already.

    Processes started from now on inherit it, and may raise it again.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft == 0:
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    return True


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit on open files to the hard one, and return what it is now."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            # Some systems name a hard limit that they do not grant; the soft one serves.
            return soft
    return soft if soft != resource.RLIM_INFINITY else 1_048_576

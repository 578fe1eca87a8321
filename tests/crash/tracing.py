"""Running the victim under strace: counting its system calls, killing it at one of them, or making one of them fail."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
WORKER = str(CHECKOUT / "tests" / "crash" / "worker.py")

WRITING = (
    "pwrite64,write,fdatasync,fsync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,openat,mkdir,mkdirat,"
    "fchmod,chmod,fchmodat"
)


@cache
def why_no_strace() -> str | None:
    """Why this machine cannot run strace; None when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace cannot trace here: {tried.stderr.strip()[-200:]}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a victim: how it ended, how many steps it acknowledged, what it said.

    `error` is the type of the error that a step failed with, `again` how reading and writing went after that.
    """

    returncode: int
    acknowledged: int
    stderr: str
    error: str = ""
    again: str = ""


def environment() -> dict[str, str]:
    """Our own environment, in which the victim finds the checkout and writes nothing beside its root."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


def traced(root: Path, *options: str, command: Sequence[str] | None = None, durability: str = "full") -> Result:
    """Run the victim (or `command`) on `root` under strace with `options`."""
    victim = command or [sys.executable, WORKER, str(root), durability]
    done = subprocess.run(
        ["strace", "-f", "-qq", *options, *victim],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    return result_of(done)


def result_of(done: subprocess.CompletedProcess[str]) -> Result:
    """Read what a victim has printed."""
    numbers = [line for line in done.stdout.split("\n") if line.isdigit()]
    words = dict(line.split() for line in done.stdout.split("\n") if " " in line)
    acknowledged = int(numbers[-1]) if numbers else 0
    return Result(done.returncode, acknowledged, done.stderr, words.get("error", ""), words.get("again", ""))


@dataclass(frozen=True, slots=True)
class Call:
    """One system call of the victim: the how-manieth of its name it was, and what strace printed."""

    name: str
    number: int
    text: str


_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")


def calls(log: Path, root: Path) -> list[Call]:
    """The calls in a strace log (taken with -y) that concern `root`, each with the number that `when=` counts."""
    seen: dict[str, int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        matched = _LINE.match(line)
        if matched is None:
            continue
        name, text = matched.groups()
        seen[name] = seen.get(name, 0) + 1
        # SQLite zero-fills its shared memory bytewise; it is no storage, and a kill there is like one just before.
        if str(root) in text and "-shm" not in text:
            found.append(Call(name, seen[name], text))
    return found


def count(root: Path, log: Path) -> list[Call]:
    """Run the victim once to its end and return its writing calls below `root`."""
    # The filter in the kernel makes this several times faster, but disables injection.
    done = traced(root, "--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={WRITING}")
    assert done.returncode == 0, done.stderr
    return calls(log, root)

"""`clock`: the wall clock of all agents jumps and comes back, by libfaketime; the monotonic clocks do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from .base import SimpleFault, some_time_s

if TYPE_CHECKING:
    from random import Random

    from .fault import Field

LEAST_S, MOST_S = 0.2, 2.0
DEADLINE_S = 20.0
LIBRARY_VARIABLE = "PRONTODB_STRESS_FAKETIME"
"""Names the library where it lies in none of the usual places."""
# The one for programs with threads before the other one.
_NAMES = ("libfaketimeMT.so.1", "libfaketime.so.1")
_FOLDERS = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime", "/usr/lib64")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the library puts it
_ITS_FILES = re.compile(r"(?:faketime_shm|sem\.faketime_sem)_(\d+)")

HOUR_S, DAY_S, YEAR_S = 3_600, 86_400, 31_557_600
JUMPS = {
    "an hour ahead": HOUR_S,
    "an hour back": -HOUR_S,
    "a day ahead": DAY_S,
    "a day back": -DAY_S,
    "ten years ahead": 10 * YEAR_S,
}
TO_1970 = "back to 1970"

# Python 3.11 and later sleep by clock_nanosleep until a moment, which libfaketime 0.9.10 refuses (EINVAL) when it is to
# leave the monotonic clock alone. Sleeping by select is as good.
SITE = '''"""Sleeps in a way that libfaketime leaves alone; found by every Python that the stress agents start."""
import select, time

def _sleep(seconds, /):
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    until = time.monotonic() + seconds
    while seconds > 0:
        select.select((), (), (), seconds)
        seconds = until - time.monotonic()

time.sleep = _sleep
'''

TRY = """
import os, sys, threading, time
def clocks():
    return time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
before = clocks()
with open(sys.argv[1], "w") as file: file.write("+86400")
after = clocks()
time.sleep(0.01)
threading.Event().wait(0.01)
with open(sys.argv[1]) as file: mtime = os.fstat(file.fileno()).st_mtime
jumped = [round((now - then) / 86400) for now, then in zip(after, before)]
print(jumped, round((mtime - before[0]) / 86400))
"""
TRIED = "[1, 0, 0] 0"


class Clock(SimpleFault):
    """The wall clock of every agent jumps, and comes back. Nothing may be deleted for it, and no deadline moves.

    Agents see what it says: an entry with a lifetime is not returned while the clock says that it has expired, and one
    that is lent meanwhile expires by that clock.
    """

    name = "clock"

    def __init__(self) -> None:
        self._offset: Path | None = None
        self._there: frozenset[str] = frozenset()

    def why_not(self) -> str | None:
        """Return why this machine cannot make it, or None."""
        return _why_no_faketime()

    def prepare(self, root: Path, place: Path) -> dict[str, str]:
        """Write the file that all agents read the offset from; return what makes them read it."""
        library = _library()
        assert library is not None, "asked before, by why_not"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place / "sitecustomize.py").write_text(SITE, encoding="utf-8")
        self._offset = place / "offset"
        self._there = _its_files()
        self._set(0)
        return _environment(library, place, self._offset)

    def finish(self) -> None:
        """Set the clock right, and remove what the library leaves of processes that were killed."""
        if self._offset is not None:
            self._set(0)
        for name in _its_files() - self._there:
            if not Path(f"/proc/{name.rpartition('_')[2]}").exists():
                (_SHARED_MEMORY / name).unlink(missing_ok=True)

    async def make(self, ground: Field, chance: Random) -> None:
        """Let the clock jump for a while."""
        if self._offset is None or not ground.agents():
            return
        jump = chance.choice((*JUMPS, TO_1970))
        offset_s = JUMPS.get(jump, DAY_S - int(time.time()))
        for_s = some_time_s(ground, chance, MOST_S, LEAST_S)
        text = f"the wall clock jumps {jump} ({offset_s:+} s) for {for_s:.2f} s"
        async with ground.announce(self.name, "all agents", text, lasts=True):
            try:
                self._set(offset_s)
                await anyio.sleep(for_s)
            finally:
                self._set(0)

    def _set(self, offset_s: int) -> None:
        assert self._offset is not None
        # Beside, then renamed: nobody reads half of a number.
        beside = self._offset.with_suffix(".new")
        beside.write_text(f"{offset_s:+}\n", encoding="ascii")
        beside.rename(self._offset)


def _environment(library: Path, place: Path, offset: Path) -> dict[str, str]:
    before = {name: [value] if (value := os.environ.get(name)) else [] for name in ("PYTHONPATH", "LD_PRELOAD")}
    return {
        "LD_PRELOAD": " ".join([str(library), *before["LD_PRELOAD"]]),
        "PYTHONPATH": os.pathsep.join([str(place), *before["PYTHONPATH"]]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",  # a jump is seen at the next look at the clock
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # and CLOCK_BOOTTIME with it
        # Else waits of threads by the monotonic clock, which the interpreter's own lock makes, last far too long.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",  # files keep the times that the kernel gave them
        "FAKE_UTIME": "0",
    }


def _library() -> Path | None:
    if named := os.environ.get(LIBRARY_VARIABLE):
        return Path(named) if Path(named).is_file() else None
    places = (path / name for name in _NAMES for folder in _FOLDERS for path in sorted(Path("/").glob(folder[1:])))
    return next((place for place in places if place.is_file()), None)


def _its_files() -> frozenset[str]:
    """Shared memory of every process that the library was ever loaded into and that did not end in order."""
    try:
        return frozenset(name for name in os.listdir(_SHARED_MEMORY) if _ITS_FILES.fullmatch(name))
    except OSError:
        return frozenset()


@cache
def _why_no_faketime() -> str | None:
    """Try it on a child: the wall clock must jump, and no other, and it must be able to sleep."""
    import tempfile

    if _library() is None:
        return f"libfaketime is not installed (or name its library in {LIBRARY_VARIABLE})"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        environment = os.environ | Clock().prepare(place, place)
        done = subprocess.run(
            [sys.executable, "-c", TRY, str(place / "offset")],
            env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
    said = (done.stdout + done.stderr).strip()
    return None if said == TRIED else f"libfaketime does not do here what is asked of it: {said[-200:]}"

"""The tests as lanes side by side, since tests wait as often as they work; in a lane, pytest runs follow one another.

A reader of the log sees failing tests at once, where each lane is every half minute, and a run's whole report at its
end. Whoever stops it (Ctrl-C, a timeout) is told what each lane was at, and no process of a test is left behind.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

HEARTBEAT_S = 30.0
LOOK_S = 0.5  # how often it is asked whether a pytest ended: a process that outlives it may keep its pipe open
ENDING_S = 10.0  # for an interrupted pytest to say what failed so far; CI kills us 30 s after its signal
NOTHING_COLLECTED = 5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_VERDICT = re.compile(r"(\S.*?::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*\[ *(\d+)%\]\s*")
_HEADING = re.compile(r"=+ (ERRORS|FAILURES|warnings summary|slowest|short test summary|.* in [\d.]+s).*=+|!+ .* !+")

Process = tuple[int, int]  # its id, and when it started: ids are given out again


class _Stopped(BaseException):
    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class _Run:
    """One pytest under way, and what is known of it from its output."""

    def __init__(self, lane: str, title: str, args: Sequence[str], place: Path, cwd: Path) -> None:
        self.lane, self.title, self.place = lane, title, place
        self._unfinished = b""  # the line that has no end yet: pytest names a test when it begins
        self._report: list[str] | None = None  # the lines from the first heading on
        self._percent, self._test = 0, ""
        self._started_at = self._test_at = time.monotonic()
        own = ["-p", "no:cacheprovider", f"--basetemp={place}"]
        # In a session of its own: its children are found by it, and a signal to us is ours to hand on.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "--verbose", *own, *args],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = self.process.stdout
        os.set_blocking(self.output.fileno(), False)

    def hear(self) -> bool:
        """Take in what there is to read; False when there will be no more."""
        while True:
            try:
                data = os.read(self.output.fileno(), 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"))
            self._look_ahead()

    def _take(self, line: str) -> None:
        if self._report is None and _HEADING.fullmatch(line):
            self._report = []
        if self._report is not None:
            self._report.append(line)
        elif found := _VERDICT.fullmatch(line):
            self._percent = int(found[3])
            if found[2] in ("FAILED", "ERROR"):
                _say(f"[{self.title}] {found[1]} {found[2]}")
        elif line.strip():
            _say(f"[{self.title}] {line}")

    def _look_ahead(self) -> None:
        text = self._unfinished.decode(errors="replace")
        if self._report is None and "::" in text:
            found = _VERDICT.fullmatch(text)
            test = found[1] if found else text.strip()
            if test != self._test:
                self._test, self._test_at = test, time.monotonic()

    def where(self) -> str:
        """Say in one line which test it is at."""
        at = f"{self._test} ({time.monotonic() - self._test_at:.0f} s)" if self._test else "collecting"
        return f"[{self.title}] {self._percent:3}%  {at}"

    def report(self) -> str:
        """Print the report of a run that ended; return its outcome in one line."""
        self.hear()
        if self._unfinished:
            self._take(self._unfinished.decode(errors="replace"))
        self.output.close()
        code = self.process.wait()
        said = [line for line in self._report or () if line.strip()] or ["it ended before it had anything to report"]
        _say(f"[{self.title}] its report:", *said)
        ending = "it found no tests" if code == NOTHING_COLLECTED else said[-1].strip("= ")
        verdict = "ok" if code == 0 else f"FAILED (exit {code})"
        return f"[{self.title}] {verdict} in {time.monotonic() - self._started_at:.0f} s: {ending}"


def run_lanes(lanes: Mapping[str, Sequence[Sequence[str]]], cwd: Path, heartbeat_s: float = HEARTBEAT_S) -> bool:
    """Run each lane's lists of pytest arguments; True when all of all passed. A signal raises `SystemExit`."""
    place = Path(tempfile.mkdtemp(prefix="prontodb-check-"))
    running: list[_Run] = []
    before = {signum: signal.signal(signum, _stop) for signum in SIGNALS}
    try:
        passed = _drive(lanes, running, place, cwd, heartbeat_s)
    except _Stopped as stopped:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)  # a second one would leave processes behind
        _say(f"stopped by {signal.Signals(stopped.signum).name}, in the middle of", *(run.where() for run in running))
        _end(running)
        shutil.rmtree(place, ignore_errors=True)
        raise SystemExit(128 + stopped.signum) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if passed:
        shutil.rmtree(place, ignore_errors=True)
    else:
        _say(f"what the tests left lies in {place}")
    return passed


def _stop(signum: int, _: FrameType | None) -> None:
    raise _Stopped(signum)


def _drive(
    lanes: Mapping[str, Sequence[Sequence[str]]], running: list[_Run], place: Path, cwd: Path, heartbeat_s: float
) -> bool:
    started = {name: _runs(name, all_args, place, cwd) for name, all_args in lanes.items()}
    outcomes: list[str] = []
    removing: list[threading.Thread] = []
    passed = True
    running += [next(runs) for runs in started.values()]
    beat_at = time.monotonic() + heartbeat_s
    while running:
        _wait(running, min(LOOK_S, heartbeat_s))
        for run in [run for run in running if run.process.poll() is not None]:
            running.remove(run)
            outcomes.append(run.report())
            # A red run does not keep the next one from being made: all that fails is wanted at once.
            if run.process.returncode == 0:
                # Beside what still runs: there are enough files for half a minute.
                removing.append(threading.Thread(target=shutil.rmtree, args=(run.place, True)))
                removing[-1].start()
            else:
                passed = False
            running += [following for following in [next(started[run.lane], None)] if following is not None]
        if time.monotonic() >= beat_at:
            beat_at = time.monotonic() + heartbeat_s
            _say(*(run.where() for run in running))
    _say(*sorted(outcomes))
    for thread in removing:
        thread.join()
    return passed


def _runs(lane: str, all_args: Sequence[Sequence[str]], place: Path, cwd: Path) -> Iterator[_Run]:
    for number, args in enumerate(all_args, 1):
        title = lane if len(all_args) == 1 else f"{lane} {number}/{len(all_args)}"
        _say(f"[{title}] pytest {' '.join(args)}")
        yield _Run(lane, title, args, place / f"{lane}-{number}", cwd)


def _wait(running: list[_Run], wait_s: float) -> None:
    """Wait for output of any, or for so long, and take in what there is."""
    with selectors.DefaultSelector() as selector:
        for run in running:
            selector.register(run.output, selectors.EVENT_READ)
        ready = selector.select(wait_s)
    heard = [run.hear() for run in running]
    if ready and not all(heard):
        time.sleep(LOOK_S / 10)  # an output that came to its end is ready for ever


def _end(running: list[_Run]) -> None:
    """Let each pytest say what failed so far; kill what is left of them and of all that they started."""
    sessions = {run.process.pid for run in running}
    started = _started_by(sessions)
    for run in running:
        run.process.send_signal(signal.SIGINT)
    until = time.monotonic() + ENDING_S
    while any(run.process.poll() is None for run in running) and time.monotonic() < until:
        _wait(running, LOOK_S)
    # What began a session of its own is no more known as theirs once its parent is gone; hence the look before.
    alive = _table()
    for pid, _ in {one for one in started if one in alive} | _started_by(sessions):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _say(*(run.report() for run in running))


def _table() -> dict[Process, tuple[int, int]]:
    """Return every process there is, with its parent and its session."""
    found: dict[Process, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended in this instant
        found[int(folder.name), int(fields[19])] = int(fields[1]), int(fields[3])
    return found


def _started_by(sessions: set[int]) -> set[Process]:
    """Return the processes of these sessions, and all that descend from one of them."""
    table = _table()
    found = {process for process, (_, session) in table.items() if session in sessions}
    while more := {process for process, (parent, _) in table.items() if parent in {pid for pid, _ in found}} - found:
        found |= more
    return found


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)

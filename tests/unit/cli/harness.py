"""Run the command line in this process, or as one of its own, and look at what it left on disk."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prontodb import log
from prontodb.cli.main import main
from prontodb.engine.sqlite import opening, quotas
from prontodb.storage import files

CHECKOUT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60
"""Far beyond what any command takes; a hang becomes a failure."""

_VARIABLES = (
    "PRONTODB_HOME", "PRONTODB_USER", "PRONTODB_CURSOR", "PRONTODB_PRINCIPAL", "PRONTODB_TOKEN", "XDG_DATA_HOME",
    "NO_COLOR",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, stdout as bytes, stderr as text."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")[:-1]

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Pipe(io.TextIOWrapper):
    """A stdin, stdout or stderr in memory, which is no terminal."""

    def __init__(self, data: bytes = b"") -> None:
        self.held = io.BytesIO(data)
        super().__init__(self.held, encoding="utf-8", errors="backslashreplace", write_through=True)


class Cli:
    """The command line on one root, in this process."""

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.environment = {"PRONTODB_HOME": str(root), **(environment or {})}

    def __call__(self, *argv: str, stdin: bytes | None = None) -> Outcome:
        """Run one command; without `stdin` nothing may be read."""
        streams = (Pipe(stdin or b"") if stdin is not None else None, Pipe(), Pipe())
        before = (sys.stdin, sys.stdout, sys.stderr)
        variables = {name: os.environ.pop(name, None) for name in {*_VARIABLES, *self.environment}}
        mask, on_term = os.umask(0o077), signal.getsignal(signal.SIGTERM)
        os.environ.update(self.environment)
        sys.stdin, sys.stdout, sys.stderr = streams
        for told in (files.CLOSED_TO_OTHERS, opening.LOST_LOGS, quotas.NEAR):
            told.clear()  # a command is a process of its own, and tells of nothing that this one did before
        try:
            code = main(argv)
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            for name, value in variables.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            os.umask(mask)
            signal.signal(signal.SIGTERM, on_term)
            log.disable()
        return Outcome(code, streams[1].held.getvalue(), streams[2].held.getvalue().decode())

    def ok(self, *argv: str, stdin: bytes | None = None) -> Outcome:
        """Run a command that must succeed."""
        outcome = self(*argv, stdin=stdin)
        assert outcome.code == 0, outcome
        return outcome

    def fails(self, *argv: str, stdin: bytes | None = None) -> str:
        """Run a command that must fail: exit 1, nothing on stdout, one line on stderr, which is returned."""
        outcome = self(*argv, stdin=stdin)
        assert (outcome.code, outcome.out) == (1, b""), outcome
        return one_line(outcome.err)


def one_line(err: str) -> str:
    """Return what an error line says."""
    assert err.startswith("prontodb: "), err
    assert err.endswith("\n")
    assert err[:-1].isprintable(), err
    return err.removeprefix("prontodb: ")[:-1]


def environment(root: Path, **more: str) -> dict[str, str]:
    """The surroundings of a command in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    return {**kept, "PYTHONPATH": str(CHECKOUT), "PRONTODB_HOME": str(root), **more}


def command(*argv: str) -> list[str]:
    """The words that start the command line as a process of its own."""
    return [sys.executable, "-m", "prontodb", *argv]


def spawn(
    root: Path, *argv: str | bytes, stdin: bytes = b"", env: Mapping[str, str] | None = None, **options: Any
) -> Outcome:
    """Run one command as a process of its own."""
    done = subprocess.run(
        [*command(), *argv],
        input=stdin,
        capture_output=True,
        env=env or environment(root),
        timeout=TIMEOUT_S,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode(errors="backslashreplace"))


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every path below a root, its mode and size; what a command that changes nothing leaves as it was."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            size = status.st_size if not os.path.isdir(path) else 0
            found[os.path.relpath(path, root)] = (status.st_mode, size)
    return found

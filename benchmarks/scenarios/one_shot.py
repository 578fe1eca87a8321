"""What does a one-shot `prontodb get` cost, beside starting Python at all?"""

from __future__ import annotations

import compileall
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import prontodb
from benchmarks import children
from benchmarks.measure import Goal, Race, Target
from benchmarks.scenarios.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from benchmarks.measure import Plan

GET, PASS, SQLITE = "prontodb get", "python -c pass", "python, importing sqlcipher3"
KEY, VALUE = "app.config.theme", "dark"
DEADLINE_S = 30
PACKAGE = Path(prontodb.__file__).parent
# What the script that an installer makes does, for checkouts where there is none.
SCRIPT = "import sys; from prontodb.cli.main import main; sys.exit(main())"


class Command:
    """A program that is started anew for each operation."""

    promise = None

    def __init__(self, arguments: list[str], environment: dict[str, str], expected: str) -> None:
        self._arguments, self._environment, self._expected = arguments, environment, expected

    def run(self) -> None:
        """Start it and wait for its end; raises unless it says what it should."""
        done = children.run(
            self._arguments,
            env=self._environment,
            stdout=PIPE,
            timeout=DEADLINE_S,
        )
        done.check_returncode()
        if done.stdout.decode() != self._expected:
            raise RuntimeError(f"{self._arguments[0]} printed something else than expected")


def command_line() -> list[str]:
    """Return what starts ProntoDB: the installed script beside this interpreter, else the same by hand."""
    script = Path(sys.executable).with_name("prontodb")
    return [str(script)] if script.is_file() else [sys.executable, "-c", SCRIPT]


@asynccontextmanager
async def arena(folder: Path, _plan: Plan) -> AsyncIterator[Mapping[str, Command]]:
    """Store one entry, and see to it that nobody has to compile anything."""
    root = folder / "root"
    async with prontodb.open(root) as manager, manager.session("agent1", "prod") as keystore:
        await keystore.set(KEY, VALUE)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PRONTODB_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (str(PACKAGE.parent), environment.get("PYTHONPATH", "")) if path
    )
    compileall.compile_dir(str(PACKAGE), quiet=2)
    get = [*command_line(), "--root", str(root), "--user", "agent1", "--cursor", "prod", "get", KEY]
    yield {
        GET: Command(get, environment, VALUE),
        PASS: Command([sys.executable, "-c", "pass"], environment, ""),
        SQLITE: Command([sys.executable, "-c", "from sqlcipher3 import dbapi2"], environment, ""),
    }


async def _start(command: Command, ops: int) -> int:
    for _ in range(ops):
        command.run()
    return ops


RACE = Race(
    name="one-shot `prontodb get`",
    ops=3,
    runners=dict.fromkeys((GET, PASS, SQLITE), _start),
    goals=(
        Goal(subject=GET, other=PASS, by="time", target=Target(relation="<=", limit=3)),
        Goal(subject=GET, other=SQLITE, by="time"),
    ),
)

SCENARIO = Scenario(
    name="one-shot",
    question="What does a one-shot `prontodb get` cost, beside starting Python at all?",
    arena=arena,
    races=lambda _plan: (RACE,),
)

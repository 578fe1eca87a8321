"""Make one of the checkout's environments, `.venv` or `.venv-bench`, or reuse it, and print the path of its Python."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "ops" / "constraints.txt"
DEV, BENCH = "dev", "bench"
VENVS = {DEV: ROOT / ".venv", BENCH: ROOT / ".venv-bench"}
# What is installed of us: for the gate, and for benchmarks, which also run under pytest-benchmark.
OURS = {
    DEV: ("--group", "dev", "--editable", ".[encryption,keyring]"),
    BENCH: ("--group", "test", "--editable", ".[encryption]"),
}


def python_of(venv: Path) -> Path:
    return venv / "bin" / "python"


def stamp_of(venv: Path) -> Path:
    return venv / "stamp"  # written last: without it an environment is half made


def wanted_stamp(project: dict[str, Any]) -> str:
    """What an environment depends on, so that editing a lint rule does not rebuild it."""
    parts = [
        # A moved checkout or another interpreter breaks a virtual environment.
        str(ROOT),
        sys.version,
        os.path.realpath(sys.executable),
        CONSTRAINTS.read_text(),
        *(json.dumps(project[table], sort_keys=True) for table in ("build-system", "project", "dependency-groups")),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_ready(venv: Path, stamp: str) -> bool:
    return python_of(venv).exists() and stamp_of(venv).exists() and stamp_of(venv).read_text() == stamp


def run(*command: str, lock: int) -> tuple[bool, str]:
    """Run a program; return whether it went well, and what it said."""
    # The child holds the lock too: if we are killed, the next set-up waits until it has stopped writing.
    done = subprocess.run(
        command,
        cwd=ROOT,
        pass_fds=(lock,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout


def build(name: str, peers: list[str], lock: int) -> None:
    """Make an environment anew; a peer that does not install is left out, and said."""

    def must(*command: str) -> None:
        is_done, said = run(*command, lock=lock)
        # What it said matters only when it failed.
        if not is_done:
            sys.exit(f"{said}\nsetup: failed, see above; with the cause removed, run the same command again")

    venv = VENVS[name]
    print(f"setup: making {venv} with Python {sys.version.split()[0]}, once; a minute or so", file=sys.stderr)
    must(sys.executable, "-m", "venv", "--clear", str(venv))
    pip = (str(python_of(venv)), "-m", "pip", "--no-input", "install", "--constraint", str(CONSTRAINTS))
    # The pip that comes with Python 3.11 and 3.12 knows neither --group nor --build-constraint.
    must(*pip, "--upgrade", "pip")
    must(*pip, "--build-constraint", str(CONSTRAINTS), *OURS[name])
    # Each on its own: one without a wheel for this machine must not keep the others out.
    for peer in peers:
        is_done, said = run(*pip, peer, lock=lock)
        if not is_done:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            print(f"setup: {peer} did not install and is missing: {last}", file=sys.stderr)
            print(f"setup: to try again, remove {venv}", file=sys.stderr)


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else DEV
    venv = VENVS[name]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    stamp = wanted_stamp(project)
    # Of two set-ups at once the second waits here and finds the work done; any death frees the lock.
    with venv.with_name(venv.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready(venv, stamp):
            build(name, project["dependency-groups"]["bench"] if name == BENCH else [], lock.fileno())
            stamp_of(venv).write_text(stamp)
    print(python_of(venv))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Make the checkout's `.venv`, or reuse it, and print the path of its Python."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "stamp"  # written last: without it an environment is half made
CONSTRAINTS = ROOT / "ops" / "constraints.txt"


def wanted_stamp() -> str:
    """What the environment depends on, so that editing a lint rule does not rebuild it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [
        # A moved checkout or another interpreter breaks a virtual environment.
        str(ROOT),
        sys.version,
        os.path.realpath(sys.executable),
        CONSTRAINTS.read_text(),
        *(json.dumps(project[table], sort_keys=True) for table in ("build-system", "project", "dependency-groups")),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_ready(stamp: str) -> bool:
    return VENV_PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp


def build(stamp: str, lock: int) -> None:
    def run(*command: str) -> None:
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
        # What it said matters only when it failed.
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\nsetup: failed, see above; with the cause removed, run the same command again")

    print(f"setup: making {VENV} with Python {sys.version.split()[0]}, once; a minute or so", file=sys.stderr)
    run(sys.executable, "-m", "venv", "--clear", str(VENV))
    pip = (str(VENV_PYTHON), "-m", "pip", "--no-input", "install", "--constraint", str(CONSTRAINTS))
    # The pip that comes with Python 3.11 and 3.12 knows neither --group nor --build-constraint.
    run(*pip, "--upgrade", "pip")
    run(*pip, "--build-constraint", str(CONSTRAINTS), "--group", "dev", "--editable", ".[encryption,keyring]")
    STAMP.write_text(stamp)


def main() -> None:
    stamp = wanted_stamp()
    # Of two set-ups at once the second waits here and finds the work done; any death frees the lock.
    with (ROOT / ".venv.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready(stamp):
            build(stamp, lock.fileno())
    print(VENV_PYTHON)


if __name__ == "__main__":
    main()

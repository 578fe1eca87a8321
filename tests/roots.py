"""A root as tests use it: killed half-way, and used by other processes and other users."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.engine.sqlite import lifecycle as lifecycle_module
from prontodb.model.address import Address
from prontodb.model.limits import Limits
from tests.parts import Parts, fill

CHECKOUT = Path(__file__).resolve().parent.parent
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


class KilledError(BaseException):
    """Stands for a kill: nothing in ProntoDB catches it to go on."""


@contextmanager
def killed_at(step: str) -> Iterator[None]:
    """End the block at a step of a lifecycle change, as a kill would: locks fall, and nothing is tidied up."""

    def hook(name: str) -> None:
        if name == step:
            raise KilledError(step)

    lifecycle_module.FAILPOINT.append(hook)
    try:
        with pytest.raises(KilledError):
            yield
    finally:
        lifecycle_module.FAILPOINT.remove(hook)


def python(program: str, *args: object, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in another process; as another `user`, it sheds its rights when it calls `become()`."""
    return subprocess.run(
        [sys.executable, "-c", _preamble(user) + program, *map(str, args)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def together(program: str, argument_lists: list[tuple[object, ...]]) -> list[str]:
    """Run a program in many processes that start their work at the same moment; return what each printed.

    The program says `print("ready", flush=True); input()` where its work begins.
    """
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, args)],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for args in argument_lists
    ]
    for process in running:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "ready\n", first + process.stdout.read()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0].strip() for process in running]


def _preamble(user: int | None) -> str:
    """All is imported before the rights go, by being used: checkout and interpreter may be readable by us alone."""
    if user is None:
        return ""
    return (
        "import os, json, sys, tests.roots, prontodb.doctor\n"
        "tests.roots.warm_up()\n"
        "def become():\n"
        f"    os.setgroups([]); os.setresgid({user}, {user}, {user}); os.setresuid({user}, {user}, {user})\n"
    )


@contextmanager
def reachable_root() -> Iterator[Path]:
    """An empty root that other users can get to, which pytest's own folders do not allow."""
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o711)
        root = Path(above) / "root"
        root.mkdir(mode=0o700)
        yield root


def give(root: Path, user: int) -> None:
    """Give a root and all that is in it to another user."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            os.chown(os.path.join(folder, name), user, user, follow_symlinks=False)
    os.chown(root, user, user)


def warm_up() -> None:
    """Use everything once."""
    from prontodb.doctor import examine

    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        (root / "registry" / "global_config.json").write_text("{")
        parts = Parts(root)
        parts.book.describe(Address("agent1", "prod"))
        examine(parts.layout, Limits(), parts.clock, deep=True, repair=True)

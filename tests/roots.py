"""A root and its parts as tests use them: wired up, filled, killed half-way, and used by other processes and users."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from prontodb.addresses import AddressBook
from prontodb.direct import OneShot, run
from prontodb.engine.sqlite import lifecycle as lifecycle_module
from prontodb.engine.sqlite.lifecycle import Lifecycle
from prontodb.model.address import Address
from prontodb.model.clock import Clock, ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.registry.addresses import AddressRegistry

CHECKOUT = Path(__file__).resolve().parent.parent
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")


class Parts:
    """The parts of one root, wired as the command line wires them; a new one has seen nothing of what went before."""

    def __init__(self, root: Path, clock: Clock | None = None, wait_s: float = 5.0) -> None:
        self.layout, self.clock = Layout(str(root)), clock or ManualClock()
        self.registry = AddressRegistry(self.layout, wait_s=wait_s, one_shot=True)
        self.lifecycle = Lifecycle(self.layout, self.clock, self.registry, wait_s=wait_s, one_shot=True)
        self.book = AddressBook(self.layout, self.lifecycle, self.registry, clock=self.clock, wait_s=wait_s)

    def listed(self) -> dict[str, str]:
        """The list of addresses as text, with their states."""
        return {str(row.address): row.state for row in self.book.list()}


def fill(root: Path, address: str, values: Mapping[str, str]) -> None:
    """Store `values` at an address, made when it does not exist."""
    with OneShot(str(root), Address.parse(address)) as keystore:
        for key, value in values.items():
            run(keystore.set(key, value))


def value(root: Path, address: str, key: str) -> str | None:
    """What is stored under a key; None at an address that does not exist, too."""
    with OneShot(str(root), Address.parse(address)) as keystore:
        found: str | None = run(keystore.get(key))
        return found


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

"""The package as users meet it: light to import, complete, typed, and at home where the environment says."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import json
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import prontodb
from prontodb import errors
from tests.managing import PATIENCE_S, environment, program, ran

HEAVY = ("asyncio", "anyio", "aiosqlite", "filelock", "structlog", "sqlcipher3", "dataclasses", "typing", "json")

IMPORTED = """
import sys
before = set(sys.modules)
import prontodb
print(*sorted(set(sys.modules) - before))
"""

USED = """
import sys, prontodb
prontodb.Address("a"), prontodb.Settings(), prontodb.Entry, prontodb.Change, prontodb.errors, prontodb.Keystore
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_importing_the_package_imports_nothing_else() -> None:
    # `__future__` is the language's own; the interpreter's start, with its site packages, is not ours.
    assert ran(IMPORTED).split() == ["__future__", "prontodb"]


def test_using_the_values_imports_nothing_that_waits() -> None:
    assert ran(USED, *HEAVY[:6]).split() == []


def test_everything_that_is_promised_is_there() -> None:
    for name in prontodb.__all__:
        assert getattr(prontodb, name) is not None
        assert name in dir(prontodb)
    assert prontodb.open is prontodb.open
    assert prontodb.Address("a", "b") == prontodb.Address("a", "b")


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        prontodb.nothing  # noqa: B018 - looking is the point
    assert not hasattr(prontodb, "__wrapped__")
    with pytest.raises(ImportError):
        exec("from prontodb import nothing")


def test_the_version_is_that_of_the_package() -> None:
    assert prontodb.__version__.count(".") == 2
    try:
        installed = importlib.metadata.version("prontodb")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("prontodb runs from the checkout and is not installed")
    assert prontodb.__version__ == installed


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(prontodb.__file__).parent / "py.typed").is_file()


def public_methods() -> Iterator[tuple[str, object]]:
    for kind in (prontodb.Keystore, prontodb.SessionManager):
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}", member
    yield "open", prontodb.open


def test_every_public_method_says_what_it_does() -> None:
    silent = [name for name, member in public_methods() if not inspect.getdoc(member)]
    assert silent == []


# Where the root is

WHERE = """
import asyncio, prontodb
async def main():
    async with prontodb.open() as manager:
        print(manager.root)
asyncio.run(main())
"""


def where(**surroundings: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in environment().items() if name not in ("PRONTODB_HOME", "XDG_DATA_HOME")}
    return subprocess.run(
        program(WHERE), env={**plain, **surroundings}, capture_output=True, text=True, timeout=PATIENCE_S
    )


def test_without_a_root_the_environment_says_where_it_is(tmp_path: Path) -> None:
    home, data, own = (str(tmp_path / name) for name in ("home", "data", "own"))
    assert where(HOME=home, XDG_DATA_HOME=data, PRONTODB_HOME=own).stdout == f"{own}\n"
    assert where(HOME=home, XDG_DATA_HOME=data, PRONTODB_HOME="").stdout == f"{data}/prontodb\n"
    assert where(HOME=home).stdout == f"{home}/.local/share/prontodb\n"
    assert (Path(home) / ".local/share/prontodb").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", ["relative/path", "/x/${HOME}", "~/prontodb"])
def test_a_root_that_the_environment_cannot_mean_is_refused(tmp_path: Path, home: str) -> None:
    done = where(PRONTODB_HOME=home)
    assert done.returncode == 1
    assert "InvalidInputError" in done.stderr
    assert "PRONTODB_HOME" in done.stderr


# Errors

EXAMPLES: list[errors.ProntoError] = [
    errors.LimitError("max_key_bytes", 10, 11),
    errors.AddressNotFoundError(prontodb.Address("a")),
    errors.RevisionConflictError("k", 1, 2),
    errors.AddressBusyError(prontodb.Address("a"), "pid 5"),
    errors.NewerFormatError("x", 2, 1),
    errors.QuotaExceededError("max_entries", 5),
    errors.ClosedError("closed"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_sent_to_another_process(error: errors.ProntoError) -> None:
    """A worker of a process pool that cannot send its error takes the whole pool down."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), error.copy()):
        assert type(again) is type(error)
        assert again is not error
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_values_can_be_sent_to_another_process() -> None:
    for value in (prontodb.Address("a", "b"), prontodb.Settings(lanes=3), prontodb.Entry("k", "v", 1, 2, None, 3)):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.deepcopy(value) == value
        assert json.dumps(str(value))

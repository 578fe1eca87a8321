"""The machine below a root: versions, file system, space, descriptors; read first, then judged by pure functions."""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from prontodb.doctor.findings import error, warning
from prontodb.model.limits import MIB
from prontodb.storage import landlock, survey
from prontodb.storage.connection import LIBRARY_VERSION
from prontodb.storage.files import NETWORK_FILE_SYSTEMS, file_system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prontodb.doctor.findings import Problem

# A reset of the WAL could lose commits: since WAL came, until it was found.
WAL_RESET_BUG = ((3, 7, 0), (3, 51, 2))
FULL_BYTES = 1 * MIB
LOW_BYTES = 64 * MIB
FEW_DESCRIPTORS = 1_024
"""Fewer than this do not hold the default of 256 open keystores beside what an application opens."""

_PACKAGES = ("aiosqlite", "anyio", "filelock", "sqlcipher3", "structlog")


def facts(root: str, *, exists: bool) -> dict[str, object]:
    """Return what this machine has: versions, and where the root lies."""
    found: dict[str, object] = {
        # By name: as an import, the public face would tie this floor to all those above it.
        "prontodb": import_module("prontodb").__version__,
        "python": platform.python_version(),
        "sqlite": LIBRARY_VERSION,
        **{name: _version(name) for name in _PACKAGES},
        "sandbox": landlock.described(),
        "descriptor_limit": survey.descriptor_limit(),
        "root": root,
    }
    if exists:
        found |= {"file_system": file_system(root), "free_bytes": survey.free_bytes(root)}
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def problems(found: dict[str, object], *, unsafe_file_system: bool) -> Iterator[Problem]:
    """Judge the facts; `unsafe_file_system` is the setting that allows a network file system."""
    yield from judge_library(str(found["sqlite"]))
    yield from judge_descriptors(found["descriptor_limit"])
    if "free_bytes" in found:
        yield from judge_file_system(found["file_system"], allowed=unsafe_file_system)
        yield from judge_space(found["free_bytes"])


def judge_library(version: str) -> Iterator[Problem]:
    """Warn of an SQLite library that can lose commits."""
    first, last = WAL_RESET_BUG
    if first <= tuple(int(part) for part in version.split(".")[:3]) <= last:
        yield warning(
            f"SQLite {version} has the WAL-reset bug of 3.7.0 to 3.51.2 and can lose commits",
            "pip install --upgrade sqlcipher3",
        )


def judge_file_system(kind: object, *, allowed: bool) -> Iterator[Problem]:
    """Name a file system where SQLite's locks are not safe, or where nobody knows."""
    fix = "move the root to a local disk"
    if kind in NETWORK_FILE_SYSTEMS:
        what = f"the root lies on {kind}, a network file system, where SQLite's locks and WAL are not safe"
        yield warning(f"{what}; a setting allows it", fix) if allowed else error(what, fix)
    elif isinstance(kind, str) and kind.startswith("fuse"):
        yield warning(f"the root lies on {kind}; whether locks and WAL are safe there is its author's secret", fix)


def judge_space(free: object) -> Iterator[Problem]:
    """Name a disk that is full or nearly so."""
    if isinstance(free, int) and free < LOW_BYTES:
        what = f"{free:,} bytes are left on the root's disk"
        fix = "make room; 'prontodb doctor --repair' works on a full disk too"
        yield error(what, fix) if free < FULL_BYTES else warning(what, fix)


def judge_descriptors(limit: object) -> Iterator[Problem]:
    """Name a limit that does not hold the default number of open keystores."""
    if isinstance(limit, int) and limit < FEW_DESCRIPTORS:
        yield warning(
            f"a process may open only {limit} files, which is few for many keystores",
            f"ulimit -n {FEW_DESCRIPTORS * 4}, or lower max_open_keystores",
        )

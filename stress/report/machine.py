"""What a run was made on: machine, versions, file system, tools. No names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlcipher3 import dbapi2

import prontodb

PACKAGES = ("aiosqlite", "anyio", "filelock", "sqlcipher3")
_FAKETIME = "faketime/libfaketime.so.1"


def machine(root: Path) -> dict[str, Any]:
    """Return the facts of the machine, and of the file system that `root` is on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(root),
        "load": [round(load, 2) for load in os.getloadavg()],
        "strace": shutil.which("strace") is not None,
        "libfaketime": _has_faketime(),
    }


def versions() -> dict[str, str]:
    """Return the versions of all that takes part."""
    found = {
        "prontodb": prontodb.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": dbapi2.sqlite_version,
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, or 'unknown'."""
    place = folder.resolve()
    depth, found = -1, "unknown"
    for line in _lines(Path("/proc/self/mounts")):
        _, where, kind, *_ = line.split()
        mount = Path(where.encode().decode("unicode_escape", "replace"))
        # Mounts further down come later and hide those above them.
        if place.is_relative_to(mount) and len(mount.parts) >= depth:
            depth, found = len(mount.parts), kind
    return found


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_bytes() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1_024
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _has_faketime() -> bool:
    folders = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))
    return shutil.which("faketime") is not None or any(
        [*folder.glob(_FAKETIME), *folder.glob(f"*/{_FAKETIME}")] for folder in folders
    )

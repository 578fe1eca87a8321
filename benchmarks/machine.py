"""What the figures were measured on: machine, versions, file system. No names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import prontodb
from prontodb.storage.connection import LIBRARY_VERSION

PACKAGES = (
    "agentfs-sdk",
    "aiosqlite",
    "anyio",
    "diskcache",
    "langgraph-checkpoint-sqlite",
    "lmdb",
    "py-key-value-aio",
    "pyturso",
    "redis",
    "rocksdict",
    "sqlcipher3",
    "sqlitedict",
)
REDIS_SERVER = "redis-server"
IN_MEMORY = ("tmpfs", "ramfs")


def describe(folder: Path) -> dict[str, object]:
    """Return the facts, as they stand in the JSON."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": file_system(folder),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "prontodb": prontodb.__version__,
        "sqlite": LIBRARY_VERSION,
        "packages": {
            name: version
            for name, version in (*((name, _version(name)) for name in PACKAGES), (REDIS_SERVER, _redis_version()))
            if version is not None
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _redis_version() -> str | None:
    try:
        done = subprocess.run([REDIS_SERVER, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    found = re.search(r"v=(\S+)", done.stdout.decode())
    return found and found[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, or 'unknown'."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    place = folder.resolve()
    found = ("", "unknown")
    for line in lines:
        _, where, kind, *_ = line.split()
        # Mounts further down come later and hide those above them.
        if place.is_relative_to(where) and len(where) >= len(found[0]):
            found = (where, kind)
    return found[1]

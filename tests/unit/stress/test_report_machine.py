"""The report says what it was made on, and nothing that tells whose machine it is."""

import getpass
import json
import platform
from pathlib import Path

from sqlcipher3 import dbapi2

import prontodb
from stress.report.machine import file_system, machine, versions


def test_the_machine_is_described_without_names_or_folders(tmp_path: Path) -> None:
    facts = machine(tmp_path)
    assert facts.keys() == {
        "processor",
        "cores",
        "memory_bytes",
        "kernel",
        "file_system",
        "load",
        "strace",
        "libfaketime",
    }
    told = json.dumps(facts)
    assert str(tmp_path) not in told
    assert f'"{platform.node()}"' not in told
    assert f'"{getpass.getuser()}"' not in told


def test_the_versions_are_those_that_run() -> None:
    found = versions()
    assert found["prontodb"] == prontodb.__version__
    assert found["sqlite"] == dbapi2.sqlite_version
    assert platform.python_version() in found["python"]


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/")) != "proc"

"""The service files and the container file: what they start exists, and what they name is there."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from prontodb.cli.commands import COMMANDS
from prontodb.cli.help import syntax_of
from prontodb.cli.parsing import Args, Line, match
from stress.faults import FAULTS

CHECKOUT = Path(__file__).parents[2]
UNITS = sorted((CHECKOUT / "ops" / "systemd").glob("prontodb-jobs*.service"))
NIGHTLY = CHECKOUT / "ops" / "systemd" / "prontodb-stress.service"
DOCKERFILE = CHECKOUT / "ops" / "docker" / "Dockerfile"


def understood(words: list[str]) -> Args:
    line = Line(words)
    name = line.command()
    assert name in COMMANDS
    return match(name, syntax_of(name), line)


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def test_there_is_a_unit_for_the_system_and_one_for_a_person() -> None:
    assert [path.name for path in UNITS] == ["prontodb-jobs.service", "prontodb-jobs.user.service"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_the_daemon_and_waits_for_its_word(path: Path) -> None:
    service = unit(path)["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "prontodb"
    assert understood(words).command == "jobs run"
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    # How the daemon ends when it is told to: else systemd would call that a failure.
    assert service["SuccessExitStatus"].split() == ["143", "130"]
    assert service["UMask"] == "0077"


def test_the_nightly_stress_run_is_one_that_the_harness_understands() -> None:
    from stress.command import plan_of

    service = unit(NIGHTLY)["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "prontodb"
    plan = plan_of(understood(words).words("ACTION"))
    assert plan.scenarios == ("soak",)
    assert plan.faults == tuple(FAULTS)
    assert service["Type"] == "oneshot"
    # What a failed run found must outlast the unit's own temporary folder.
    assert f"TMPDIR={service['WorkingDirectory']}" in service["Environment"].split()
    timer = unit(NIGHTLY.with_suffix(".timer"))
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert timer["Timer"]["OnCalendar"]


def test_the_system_service_may_do_no_more_than_it_must() -> None:
    service = unit(UNITS[0])["Service"]
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    for name in ("NoNewPrivileges", "PrivateNetwork", "PrivateDevices", "MemoryDenyWriteExecute", "RestrictNamespaces"):
        assert service[name] == "yes"
    # Without this one systemd's own socket could not be reached.
    assert service["RestrictAddressFamilies"] == "AF_UNIX"
    assert service["Environment"] == f"PRONTODB_HOME=/var/lib/{service['StateDirectory']}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_word_of_a_unit(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "prontodb-jobs.service"
    # The program need not be installed for the words to be right.
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(encoding="utf-8")))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert "Unknown" not in done.stderr


def test_the_container_file_copies_what_is_there_and_starts_the_daemon() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    copied = [word for first, *words in lines if first == "COPY" and "--from=build" not in words for word in words[:-1]]
    assert [word for word in copied if not (CHECKOUT / word).exists()] == []
    starts = {first: json.loads(" ".join(rest)) for first, *rest in lines if first in ("ENTRYPOINT", "CMD")}
    assert starts["ENTRYPOINT"] == ["prontodb"]
    assert understood(starts["CMD"]).command == "jobs run"
    assert ["USER", "prontodb"] in lines


def test_the_commands_in_the_container_file_are_understood() -> None:
    for line in re.findall(r"(?m)^#   docker run .* prontodb(.*)$", DOCKERFILE.read_text(encoding="utf-8")):
        if line.strip():
            understood(shlex.split(line))

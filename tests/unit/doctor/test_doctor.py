"""The doctor: each finding is planted and found, a clean root has none, and repair heals what it may and no more."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prontodb.cli.commands import COMMANDS
from prontodb.doctor import Finding, examine
from prontodb.doctor.findings import Problem
from prontodb.doctor.keystores import Keystores
from prontodb.doctor.visit import Visit
from prontodb.errors import StorageFullError
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.storage import connection as sqlite
from tests.parts import Parts, value
from tests.roots import killed_at
from tests.unit.doctor.visiting import found, keystore, only, tree_of, visit

ONE = Address("agent1", "prod")


# A root that is well


@pytest.mark.parametrize("deep", [False, True])
def test_a_clean_root_yields_nothing_and_stays_as_it_is(filled: Path, deep: bool) -> None:
    before = tree_of(filled)
    report = visit(filled, deep=deep)
    assert (report.findings, report.repaired, report.level) == ((), (), "ok")
    assert tree_of(filled) == before


def test_a_root_that_does_not_exist_yields_nothing_and_is_not_made(tmp_path: Path) -> None:
    assert found(tmp_path / "nothing") == []
    assert visit(tmp_path / "nothing", repair=True).findings == ()
    assert list(tmp_path.iterdir()) == []


def test_the_report_has_the_facts_as_json(filled: Path) -> None:
    report = json.loads(json.dumps(visit(filled).as_dict()))
    facts = report["facts"]
    assert report["level"] == "ok"
    assert facts["root"] == str(filled)
    assert facts["sqlite"] == sqlite.LIBRARY_VERSION
    assert facts["addresses"] == 2
    assert facts["keystore_bytes"] >= 2 * 4_096
    assert {"prontodb", "python", "aiosqlite", "filelock", "sqlcipher3", "file_system", "free_bytes"} <= set(facts)


def test_progress_names_each_step_and_each_keystore(filled: Path) -> None:
    lines: list[str] = []
    examine(Layout(str(filled)), Limits(), Clock(), progress=lines.append)
    assert lines[0] == "machine"
    assert lines[-2:] == ["keystore agent1/prod", "keystore agent2/test"]


def test_repairing_a_clean_root_makes_the_reserve_once_and_nothing_else(filled: Path) -> None:
    reserve = filled / "registry" / ".reserve"
    reserve.unlink()  # made with the first address; older roots have none
    before = tree_of(filled)
    done = visit(filled, repair=True).repaired
    assert len(done) == 1
    assert "reserve" in done[0]
    assert (reserve.stat().st_size, stat.S_IMODE(reserve.stat().st_mode)) == (1_048_576, 0o600)
    assert reserve.stat().st_blocks * 512 >= 1_048_576
    assert visit(filled, repair=True).repaired == ()
    reserve.unlink()
    assert tree_of(filled) == before


# What crashes left


@pytest.mark.parametrize("name", [".new-prod@a1", ".trash-prod@a1", ".trash-gone@a1"])
def test_what_a_crash_left_is_named_and_removed(filled: Path, name: str) -> None:
    left = filled / "addresses" / "agent1" / name
    left.mkdir(mode=0o755)
    (left / "keystore.db").touch()
    finding = only(found(filled))
    assert (finding.level, finding.fix) == ("warning", "prontodb doctor --repair")
    assert name in finding.what
    report = visit(filled, repair=True)
    assert (report.findings, len(report.repaired)) == ((), 1)
    assert not left.exists()


def test_old_contents_without_a_successor_are_put_back(filled: Path) -> None:
    folder = keystore(filled).parent
    folder.rename(folder.with_name(".old-prod@a1"))
    assert any(".old-prod@a1" in finding.what for finding in found(filled))
    report = visit(filled, repair=True)
    assert report.findings == ()
    assert value(filled, "agent1/prod", "app.config.theme") == "dark"


def test_old_contents_kept_for_undo_are_no_finding(filled: Path) -> None:
    shutil.copytree(keystore(filled).parent, keystore(filled).parent.with_name(".old-prod@a1"))
    assert found(filled) == []


def test_a_creation_that_is_going_on_is_not_taken_for_a_leftover(filled: Path) -> None:
    parts = Parts(filled)
    (filled / "addresses" / "agent1" / ".new-busy@a1").mkdir(mode=0o700)
    with parts.lifecycle.hold(Address("agent1", "busy"), "create"):
        assert found(filled) == []
        assert visit(filled, repair=True).findings == ()
    assert len(found(filled)) == 1


# The registry


def registry_file(root: Path) -> Path:
    return root / "registry" / "address_registry.db"


def test_a_lost_registry_is_rebuilt_with_the_same_list(filled: Path) -> None:
    before = Parts(filled).book.list()
    shutil.rmtree(filled / "registry")
    finding = only(found(filled))
    assert "agent1/prod is not in the registry; agent2/test is not in the registry" in finding.what
    assert visit(filled, repair=True).findings == ()
    assert [row.address for row in Parts(filled).registry.rows()] == [row.address for row in before]
    assert Parts(filled).book.list() == before


def test_a_damaged_registry_is_rebuilt_and_the_damaged_one_kept_aside(filled: Path) -> None:
    registry_file(filled).write_bytes(b"garbage" * 1_000)
    finding = only(found(filled))
    assert (finding.level, finding.fix) == ("error", "prontodb doctor --repair")
    assert registry_file(filled).read_bytes() == b"garbage" * 1_000
    assert visit(filled, repair=True).findings == ()
    after = only(found(filled))
    assert (after.level, "set aside" in after.what) == ("warning", True)
    next((filled / "registry").glob("*.aside-*")).unlink()
    assert found(filled) == []


RECORD_TOO = pytest.mark.plain("of an encrypted address its key record is named, too")


@pytest.mark.parametrize(
    "step",
    [
        "delete.marked",
        pytest.param("rename.marked", marks=RECORD_TOO),
        pytest.param("rename.moved", marks=RECORD_TOO),
        "create.published",
    ],
)
def test_a_registry_that_a_crash_left_behind_is_mended(filled: Path, step: str) -> None:
    lifecycle = Parts(filled).lifecycle
    changes: dict[str, Callable[[], object]] = {
        "delete": lambda: lifecycle.delete(ONE),
        "rename": lambda: lifecycle.rename(ONE, Address("agent3")),
        "create": lambda: lifecycle.create(Address("agent4")),
    }
    with killed_at(step):
        changes[step.partition(".")[0]]()
    assert "disagrees" in only(found(filled)).what
    report = visit(filled, repair=True)
    assert report.findings == ()
    assert found(filled) == []
    assert len(Parts(filled).listed()) == (3 if step == "create.published" else 2)


def test_a_missing_address_is_named_and_never_dropped(filled: Path) -> None:
    shutil.rmtree(keystore(filled).parent)
    finding = only(visit(filled, repair=True).findings)
    assert "agent1/prod is missing" in finding.what
    assert "prontodb address delete agent1/prod --yes" in finding.fix
    assert Parts(filled).listed()["agent1/prod"] == "missing"


def test_a_registry_of_a_newer_format_is_left_untouched(filled: Path) -> None:
    connection = sqlite.connect(str(registry_file(filled)))
    connection.execute("PRAGMA user_version=9").close()
    connection.close()
    before = registry_file(filled).read_bytes()
    assert only(visit(filled, repair=True).findings).fix == "use a newer ProntoDB"
    assert registry_file(filled).read_bytes() == before


def test_a_locked_registry_is_a_finding_and_the_keystores_are_looked_at(filled: Path) -> None:
    Parts(filled).registry.remove(ONE)
    keystore(filled).write_bytes(b"garbage" * 1_000)
    holder = sqlite.connect(str(registry_file(filled)))
    try:
        holder.execute("BEGIN IMMEDIATE").close()
        findings = visit(filled, repair=True).findings
    finally:
        holder.close()
    assert any("not repaired" in finding.what and "locked" in finding.what for finding in findings)
    assert any(finding.what.startswith("agent1/prod: ") for finding in findings)


@pytest.mark.plain("an encrypted address that was copied by hand is refused")
def test_addresses_that_differ_only_in_case_are_named(filled: Path) -> None:
    shutil.copytree(filled / "addresses" / "agent1", filled / "addresses" / "Agent1")
    Parts(filled).book.list()
    finding = only(found(filled))
    assert "differ only in case" in finding.what


# Settings


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("{", "error"),
        ("[]", "error"),
        ('{"format": 99, "settings": {}}', "error"),
        ('{"format": 1, "settings": {"wait_s": -1}}', "error"),
        ('{"format": 1, "settings": {"nonsense": 1}}', "warning"),
    ],
)
def test_a_settings_file_that_is_not_right_is_named(filled: Path, text: str, level: str) -> None:
    path = filled / "registry" / "global_config.json"
    path.touch(mode=0o600)
    path.write_text(text)
    finding = only(visit(filled, repair=True).findings)
    assert finding.level == level
    assert str(path) in finding.fix
    assert path.read_text() == text


# Keystores


def garbage(file: Path) -> None:
    file.write_bytes(b"\x07" * 40_000)


def truncated(file: Path) -> None:
    os.truncate(file, 10_000)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def with_a_journal_beside(file: Path) -> None:
    file.with_name(file.name + "-journal").touch(mode=0o600)


@pytest.mark.parametrize("damage", [garbage, truncated, emptied, Path.unlink, with_a_journal_beside])
def test_a_damaged_keystore_is_named_never_touched_and_stops_no_other(
    filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(keystore(filled))
    garbage(filled / "addresses" / "agent2" / "test" / "keystore.db")
    before = {path: path.read_bytes() for path in filled.rglob("*") if path.is_file() and "prod" in str(path)}
    findings = visit(filled, repair=True).findings
    assert [finding.what.partition(": ")[0] for finding in findings] == ["agent1/prod", "agent2/test"]
    assert findings[0].level == "error"
    assert str(keystore(filled).parent) in findings[0].fix
    kept = {path: path.read_bytes() for path in filled.rglob("*") if path.is_file() and "prod" in str(path)}
    assert {path: kept[path] for path in before} == before


def test_every_command_that_a_finding_names_exists(filled: Path) -> None:
    garbage(keystore(filled))
    shutil.rmtree(filled / "addresses" / "agent2" / "test")
    (filled / "addresses" / "agent3" / ".new-x@a1").mkdir(parents=True, mode=0o700)
    named = {
        command
        for finding in found(filled)
        for command in re.findall(r"prontodb (?:--user \S+ --cursor \S+ )?([a-z]+(?: [a-z]+\b(?!/))?)", finding.fix)
    }
    assert named - {"address create"} == {"restore", "export", "address delete", "import", "doctor"}
    if not (filled / "keys").exists():
        assert "address create" not in named
    assert named <= set(COMMANDS)


def test_the_way_back_that_a_finding_tells_leads_back(filled: Path, tmp_path: Path) -> None:
    connection = sqlite.connect(str(keystore(filled)))
    connection.execute("UPDATE meta SET epoch = 'abc'").close()
    connection.close()
    done = pasted(filled, told_by(only(found(filled))), tmp_path)
    assert done.returncode == 0, done.stderr
    assert value(filled, "agent1/prod", "app.config.theme") == "dark"
    assert found(filled, deep=True) == []


def test_a_way_back_that_cannot_save_what_is_there_deletes_nothing(filled: Path, tmp_path: Path) -> None:
    garbage(keystore(filled))
    before = keystore(filled).read_bytes()
    done = pasted(filled, told_by(only(found(filled))), tmp_path)
    assert done.returncode != 0
    assert keystore(filled).read_bytes() == before


def told_by(finding: Finding) -> str:
    told = finding.fix.partition("what it holds: ")[2]
    assert " && prontodb address delete agent1/prod --yes && " in told
    return told


def pasted(root: Path, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what a finding says as somebody who pastes it into a shell, with the name of a file put in."""
    program = folder / "prontodb"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m prontodb "$@"\n')
    program.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PRONTODB_HOME": str(root), "PYTHONPATH": os.getcwd()}
    command = command.replace("FILE", shlex.quote(str(folder / "saved")))
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("step", ["_mode", "_wal"])
def test_an_address_that_goes_while_it_is_looked_at_is_no_finding(
    filled: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(Keystores, step)

    def gone_meanwhile(self: Keystores, address: Address) -> Iterator[Problem]:
        if address == ONE:
            Parts(filled).lifecycle.delete(ONE)
        yield from real(self, address)

    monkeypatch.setattr(Keystores, step, gone_meanwhile)
    report = visit(filled)
    assert (report.findings, report.level) == ((), "ok")


def test_a_changed_entry_is_found_by_a_deep_look(filled: Path) -> None:
    connection = sqlite.connect(str(keystore(filled)))
    connection.execute("UPDATE kvstore SET value = 'DARK'").close()
    connection.close()
    assert found(filled) == []
    finding = only(found(filled, deep=True))
    assert "agent1/prod: entry 'app.config.theme' is damaged" in finding.what
    assert "DARK" not in finding.what + finding.fix


def test_a_keystore_out_of_wal_mode_is_put_back(filled: Path) -> None:
    connection = sqlite.connect(str(keystore(filled)))
    connection.execute("PRAGMA journal_mode=DELETE").close()
    connection.close()
    findings = found(filled)
    assert {finding.fix for finding in findings} >= {"prontodb doctor --repair"}
    assert all("WAL mode" in finding.what for finding in findings)
    report = visit(filled, repair=True)
    assert report.findings == ()
    assert any("back into WAL mode" in done for done in report.repaired)
    assert value(filled, "agent1/prod", "app.config.theme") == "dark"


def test_a_wal_that_grew_past_its_bound_is_carried_into_its_keystore(filled: Path) -> None:
    wal = keystore(filled).with_name("keystore.db-wal")
    wal.touch(mode=0o600)
    os.truncate(wal, 65 * 1024 * 1024)
    finding = only(found(filled))
    assert (finding.level, finding.fix) == ("warning", "prontodb doctor --repair")
    report = visit(filled, repair=True)
    assert report.findings == ()
    assert not wal.exists() or wal.stat().st_size == 0
    assert value(filled, "agent1/prod", "app.config.theme") == "dark"


# Limits of the report


def test_a_repair_without_room_and_without_a_reserve_stays_a_finding(filled: Path) -> None:
    def heal() -> str:
        raise StorageFullError("no space left")

    ward = Visit(Layout(str(filled)), Limits(), repair=True, progress=lambda _line: None)
    ward.take([Problem(Finding("error", "it is broken", "make room"), heal)])
    assert ward.report({}).findings == (Finding("error", "it is broken (not repaired: no space left)", "make room"),)


def test_a_step_that_cannot_be_done_is_a_finding_and_the_report_is_bounded(filled: Path) -> None:
    def many() -> Iterator[Problem]:
        for number in range(5_000):
            yield Problem(Finding("warning", f"number {number}", "nothing"))
        raise StorageFullError("no space left")

    ward = Visit(Layout(str(filled)), Limits(), repair=False, progress=lambda _line: None)
    ward.take(many())
    findings = ward.report({}).findings
    assert len(findings) == 1_001
    assert "more than 1,000 findings" in findings[-1].what

"""The doctor: each finding is planted and found, a clean root has none, and repair heals what it may and no more."""

import json
import os
import shlex
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prontodb.doctor import DoctorReport, Finding, examine, machine
from prontodb.doctor.findings import Problem
from prontodb.errors import StorageFullError
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.storage import connection as sqlite
from tests.checking import root_faults
from tests.parts import Parts, fill, value
from tests.roots import NOBODY, as_root, give, killed_at, python, reachable_root

ONE = Address("agent1", "prod")


def visit(root: Path, *, repair: bool = False, deep: bool = False) -> DoctorReport:
    return examine(Layout(str(root)), Limits(wait_s=0.2), Clock(), repair=repair, deep=deep)


def found(root: Path, *, deep: bool = False) -> list[Finding]:
    return list(visit(root, deep=deep).findings)


def only(findings: list[Finding] | tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@pytest.fixture
def filled(root: Path) -> Path:
    """A root with two addresses, both well."""
    fill(root, "agent1/prod", {"app.config.theme": "dark"})
    fill(root, "agent2/test", {"app.config.theme": "light"})
    return root


def keystore(root: Path) -> Path:
    return root / "addresses" / "agent1" / "prod" / "keystore.db"


def tree_of(root: Path) -> dict[str, tuple[int, int]]:
    """Every path with its mode and size: what a look must leave as it is."""
    below = [path for path in root.rglob("*") if path.name not in ("keystore.db-shm", "keystore.db-wal")]
    return {str(path): (path.lstat().st_mode, path.lstat().st_size) for path in below}


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
    before = tree_of(filled)
    done = visit(filled, repair=True).repaired
    assert len(done) == 1
    assert "reserve" in done[0]
    reserve = filled / "registry" / ".reserve"
    assert (reserve.stat().st_size, stat.S_IMODE(reserve.stat().st_mode)) == (1_048_576, 0o600)
    assert reserve.stat().st_blocks * 512 >= 1_048_576
    assert visit(filled, repair=True).repaired == ()
    reserve.unlink()
    assert tree_of(filled) == before


# The machine


@pytest.mark.parametrize(
    ("version", "warned"),
    [("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.51.2", True), ("3.51.3", False), ("3.53.4", False)],
)
def test_an_sqlite_library_that_loses_commits_is_named(version: str, warned: bool) -> None:
    assert [problem.finding.level for problem in machine.judge_library(version)] == ["warning"] * warned


@pytest.mark.parametrize(
    ("kind", "allowed", "levels"),
    [
        ("ext4", False, []),
        ("overlay", False, []),
        (None, False, []),
        ("nfs4", False, ["error"]),
        ("cifs", True, ["warning"]),
        ("fuse.sshfs", False, ["error"]),
        ("fuse.mystery", False, ["warning"]),
    ],
)
def test_a_file_system_is_judged_by_its_type(kind: str | None, allowed: bool, levels: list[str]) -> None:
    problems = list(machine.judge_file_system(kind, allowed=allowed))
    assert [problem.finding.level for problem in problems] == levels


@pytest.mark.parametrize(("free", "levels"), [(0, ["error"]), (2**21, ["warning"]), (2**40, [])])
def test_a_disk_that_is_nearly_full_is_named(free: int, levels: list[str]) -> None:
    assert [problem.finding.level for problem in machine.judge_space(free)] == levels


@pytest.mark.parametrize(("limit", "levels"), [(None, []), (256, ["warning"]), (1_048_576, [])])
def test_a_low_descriptor_limit_is_named(limit: int | None, levels: list[str]) -> None:
    assert [problem.finding.level for problem in machine.judge_descriptors(limit)] == levels


# Kinds, owners, modes


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def a_socket(path: Path) -> None:
    # A socket's path must be short, so it is bound by a relative name.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


PLACES = ("here", "addresses/here", "addresses/agent1/here", "addresses/agent1/prod/here", "registry/here")


@pytest.mark.parametrize("plant", [a_link, a_link_to_nothing, a_pipe, a_socket])
@pytest.mark.parametrize("place", PLACES)
def test_links_pipes_and_sockets_are_named_anywhere_and_left_alone(
    filled: Path, place: str, plant: Callable[[Path], None]
) -> None:
    plant(filled / place)
    finding = only(visit(filled, repair=True).findings)
    assert finding.level == "error"
    assert str(filled / place) in finding.what
    assert finding.fix == f"rm -- {shlex.quote(str(filled / place))}"
    assert os.path.lexists(filled / place)


def test_a_link_for_a_folder_of_ours_is_named_and_what_lies_behind_it_is_not_looked_at(
    filled: Path, tmp_path: Path
) -> None:
    (filled / "addresses").rename(tmp_path / "addresses")
    (filled / "addresses").symlink_to(tmp_path / "addresses")
    (tmp_path / "addresses" / "stranger").touch()
    findings = found(filled)
    assert any("symbolic link" in finding.what for finding in findings)
    assert not any("stranger" in finding.what for finding in findings)


def test_a_file_with_two_names_is_named_once(filled: Path, tmp_path: Path) -> None:
    os.link(keystore(filled), tmp_path / "second")
    finding = only(found(filled))
    assert (finding.level, "2 names" in finding.what) == ("error", True)


@pytest.mark.parametrize("place", [".", "addresses", "addresses/agent1/prod", "addresses/agent1/prod/keystore.db"])
@pytest.mark.parametrize(("mode", "level"), [(0o755, "warning"), (0o770, "error"), (0o602, "error")])
def test_what_is_open_to_others_is_named_and_closed(filled: Path, place: str, mode: int, level: str) -> None:
    path = filled / place
    if path.is_dir():
        mode |= 0o700
    path.chmod(mode)
    finding = only(found(filled))
    assert (finding.level, finding.fix) == (level, "prontodb doctor --repair")
    path.chmod(mode)  # an open that looks may have closed it
    report = visit(filled, repair=True)
    assert report.findings == ()
    assert report.repaired[0].startswith("closed ")
    assert stat.S_IMODE(path.stat().st_mode) == mode & 0o700


def test_a_whole_root_that_was_copied_open_is_closed_in_one_go(filled: Path) -> None:
    for path in (filled, *filled.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    assert visit(filled).level == "error"
    assert visit(filled, repair=True).findings == ()
    shutil.rmtree(filled / "registry" / ".reserve", ignore_errors=True)
    assert [fault for fault in root_faults(str(filled)) if "mode" in fault] == []
    assert value(filled, "agent1/prod", "app.config.theme") == "dark"


@as_root
def test_what_belongs_to_somebody_else_is_named_and_left_alone(filled: Path) -> None:
    os.chown(keystore(filled), NOBODY, NOBODY)
    finding = only(visit(filled, repair=True).findings)
    assert f"belongs to uid {NOBODY}" in finding.what
    assert finding.fix == f"chown -R 0 {shlex.quote(str(keystore(filled)))}"
    assert keystore(filled).stat().st_uid == NOBODY


@as_root
def test_a_root_that_belongs_to_somebody_else_is_one_finding(filled: Path) -> None:
    give(filled, NOBODY)
    assert "belongs to uid" in only(visit(filled, repair=True).findings).what


EXAMINE_AS_NOBODY = """
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
become()
report = prontodb.doctor.examine(Layout(sys.argv[1]), Limits(wait_s=0.2), Clock(), repair=sys.argv[2] == "True")
print(json.dumps([[f.level, f.what, f.fix] for f in report.findings]))
"""


def found_as_nobody(root: Path, *, repair: bool = False) -> list[Finding]:
    done = python(EXAMINE_AS_NOBODY, root, repair, user=NOBODY)
    assert done.returncode == 0, done.stderr
    return [Finding(*fields) for fields in json.loads(done.stdout)]


@as_root
def test_what_its_owner_cannot_read_is_named_and_hides_nothing_else() -> None:
    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        fill(root, "agent2/test", {"k": "v"})
        give(root, NOBODY)
        assert found_as_nobody(root) == []
        os.chmod(root / "addresses" / "agent1" / "prod", 0o000)
        (root / "addresses" / "agent2" / "test" / "keystore.db").write_bytes(b"garbage" * 1_000)
        for repair in (False, True):
            closed, damaged = sorted(found_as_nobody(root, repair=repair), key=lambda finding: finding.what)[:2]
            assert "cannot be read by its owner" in closed.what
            assert closed.fix == f"chmod u+rwX {root / 'addresses' / 'agent1' / 'prod'}"
            assert damaged.what.startswith("agent2/test: ")


@as_root
def test_a_root_that_cannot_be_written_is_examined_and_says_what_it_could_not_repair() -> None:
    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        give(root, NOBODY)
        for path in (*root.rglob("*"), root):
            path.chmod(0o500 if path.is_dir() else 0o400)
        assert found_as_nobody(root) == []
        assert "reserve" in only(found_as_nobody(root, repair=True)).what


# Strangers and leftovers


@pytest.mark.parametrize(
    "place",
    [
        "notes.txt",
        "folder/",
        "addresses/notes.txt",
        "addresses/not a name/",
        "addresses/.hidden/",
        "addresses/agent1/notes.txt",
        "addresses/agent1/.hidden/",
        "addresses/agent1/.old-../",
        "addresses/agent1/con/",
        "addresses/agent1/prod/notes.txt",
        "addresses/agent1/prod/folder/",
        "registry/locks/notes.txt",
    ],
)
def test_a_stranger_is_named_and_left_alone(filled: Path, place: str) -> None:
    path = filled / place
    if place.endswith("/"):
        path.mkdir(mode=0o700)
        (path / "inner").touch(mode=0o600)
    else:
        path.touch(mode=0o600)
    finding = only(visit(filled, repair=True).findings)
    assert (finding.level, "nothing of ours" in finding.what) == ("warning", True)
    assert path.exists()


def test_names_are_escaped_for_the_eye_and_quoted_for_the_shell(filled: Path) -> None:
    (filled / "a b\n\x1b[2Jc").touch(mode=0o600)
    finding = only(found(filled))
    assert "\n" not in finding.what
    assert "\x1b" not in finding.what
    assert f"'{filled}/a b" in finding.fix


def test_a_file_staged_long_ago_is_removed_and_a_new_one_is_left_to_whoever_stages_it(filled: Path) -> None:
    for folder in (filled / "registry", keystore(filled).parent):
        for name in (".some.json.0123456789ab.tmp", ".x.db.0123456789ab.tmp-wal"):
            (folder / name).touch(mode=0o600)
    assert found(filled) == []
    for path in filled.rglob("*.tmp*"):
        os.utime(path, (1, 1))
    assert len(found(filled)) == 4
    report = visit(filled, repair=True)
    assert (report.findings, len(report.repaired)) == ((), 5)
    assert list(filled.rglob("*.tmp*")) == []


@pytest.mark.parametrize("name", [".new-prod@a1", ".trash-prod@a1", ".trash-gone@a1"])
def test_what_a_crash_left_is_named_and_removed(filled: Path, name: str) -> None:
    left = filled / "addresses" / "agent1" / name
    left.mkdir(mode=0o755)
    (left / "keystore.db").touch()
    finding = only(found(filled))
    assert (finding.level, finding.fix) == ("warning", "prontodb doctor --repair")
    assert name in finding.what
    report = visit(filled, repair=True)
    assert (report.findings, len(report.repaired)) == ((), 2)
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


@pytest.mark.parametrize("step", ["delete.marked", "rename.marked", "rename.moved", "create.published"])
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
    (filled / "addresses" / "agent2" / "test" / "metadata.json").write_text("{")
    before = {path: path.read_bytes() for path in filled.rglob("*") if path.is_file() and "prod" in str(path)}
    findings = visit(filled, repair=True).findings
    assert [finding.what.partition(": ")[0] for finding in findings] == ["agent1/prod", "agent2/test"]
    assert findings[0].level == "error"
    assert "prontodb restore REF --user agent1 --cursor prod" in findings[0].fix
    kept = {path: path.read_bytes() for path in filled.rglob("*") if path.is_file() and "prod" in str(path)}
    assert {path: kept[path] for path in before} == before


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


# Repair on a full disk, and limits of the report


def test_a_repair_without_room_uses_the_reserve_and_makes_it_again(filled: Path) -> None:
    from prontodb import doctor

    visit(filled, repair=True)
    reserve = filled / "registry" / ".reserve"
    seen: list[bool] = []

    def heal() -> str:
        seen.append(reserve.exists())
        if reserve.exists():
            raise StorageFullError("no space left")
        return "healed in the room of the reserve"

    ward = doctor._Visit(Layout(str(filled)), Limits(), repair=True, progress=lambda _line: None)
    ward.take([Problem(Finding("error", "full", "make room"), heal)])
    ward.keep_reserve()
    report = ward.report({})
    assert seen == [True, False]
    assert report.findings == ()
    assert report.repaired[0] == "healed in the room of the reserve"
    assert reserve.stat().st_size == 1_048_576


def test_a_repair_without_room_and_without_a_reserve_stays_a_finding(filled: Path) -> None:
    from prontodb import doctor

    def heal() -> str:
        raise StorageFullError("no space left")

    ward = doctor._Visit(Layout(str(filled)), Limits(), repair=True, progress=lambda _line: None)
    ward.take([Problem(Finding("error", "it is broken", "make room"), heal)])
    assert ward.report({}).findings == (Finding("error", "it is broken (not repaired: no space left)", "make room"),)


def test_a_step_that_cannot_be_done_is_a_finding_and_the_report_is_bounded(filled: Path) -> None:
    from prontodb import doctor

    def many() -> Iterator[Problem]:
        for number in range(5_000):
            yield Problem(Finding("warning", f"number {number}", "nothing"))
        raise StorageFullError("no space left")

    ward = doctor._Visit(Layout(str(filled)), Limits(), repair=False, progress=lambda _line: None)
    ward.take(many())
    findings = ward.report({}).findings
    assert len(findings) == 1_001
    assert "more than 1,000 findings" in findings[-1].what

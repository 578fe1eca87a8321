"""Files and folders as the doctor judges them: kinds, owners, modes, strangers, what was staged and forgotten."""

import json
import os
import shlex
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb.doctor import Finding
from tests.checking import root_faults
from tests.parts import fill, value
from tests.roots import NOBODY, as_root, give, python, reachable_root
from tests.unit.doctor.visiting import found, keystore, only, visit

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


@pytest.mark.plain("whom it runs as cannot read the key")
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


@pytest.mark.plain("whom it runs as cannot read the key")
@as_root
def test_a_root_that_cannot_be_written_is_examined_and_says_what_it_could_not_repair() -> None:
    with reachable_root() as root:
        fill(root, "agent1/prod", {"k": "v"})
        give(root, NOBODY)
        for path in (*root.rglob("*"), root):
            path.chmod(0o500 if path.is_dir() else 0o400)
        assert found_as_nobody(root) == []
        assert "reserve" in only(found_as_nobody(root, repair=True)).what


# Strangers


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
        path.mkdir()
        (path / "inner").touch()
    else:
        path.touch()
    path.chmod(0o777)
    finding = only(visit(filled, repair=True).findings)
    assert (finding.level, "nothing of ours" in finding.what) == ("warning", True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


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
    assert (report.findings, len(report.repaired)) == ((), 4)
    assert list(filled.rglob("*.tmp*")) == []

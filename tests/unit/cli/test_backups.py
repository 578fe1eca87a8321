"""backup create, list, show, verify, prune and upstream's forms: data on stdout, talk on stderr, errors in a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from prontodb.cli.commands import COMMANDS
from prontodb.direct import lifecycle
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.unit.cli.harness import Cli, one_line, tree

ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


def put(cli: Cli, address: str, value: str = "v", key: str = "k") -> None:
    user, _, cursor = address.partition("/")
    cli.ok("--user", user, "--cursor", cursor, "set", key, value, "-q")


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """Two users, three addresses."""
    for address in ("ann/home", "ann/work", "bob/home"):
        put(cli, address)
    return cli


def made(cli: Cli, *options: str) -> str:
    """Make a backup; its id."""
    (found,) = cli.ok("backup", "create", "-q", *options).lines
    return found


def path_of(cli: Cli, backup: str) -> Path:
    (found,) = cli.root.glob(f"backups/*/{backup}")
    return found


def config(cli: Cli, **fields: object) -> None:
    path = cli.root / "registry/global_config.json"
    path.write_text(json.dumps({"format": 1} | fields))
    path.chmod(0o600)


# Making


@pytest.mark.parametrize("words", [("backup",), ("backup", "create")])
def test_the_id_is_data_and_the_rest_is_talk(words: tuple[str, ...], filled: Cli) -> None:
    outcome = filled.ok(*words)
    assert ID.fullmatch(outcome.lines[0])
    assert "full backup of all addresses: 3 whole" in one_line(outcome.err)
    outcome = filled.ok(*words)
    assert outcome.out == b"", "nothing has changed"
    assert "nothing of all addresses has changed since" in one_line(outcome.err)
    put(filled, "ann/home", "w")
    outcome = filled.ok(*words)
    assert "incremental backup of all addresses: 0 whole, 1 by what changed, 2 unchanged" in one_line(outcome.err)
    assert filled.ok(*words, "--full", "-q").err == ""
    assert "3 whole" in filled.ok(*words, "--full").err


def test_json_is_one_object_with_everything(filled: Cli) -> None:
    (first,) = filled.ok("backup", "--json", "-q").json
    assert (first["kind"], first["addresses"], first["snapshots"], first["failed"]) == ("full", 3, 3, [])
    assert first["path"] == str(path_of(filled, first["id"]))
    (again,) = filled.ok("backup", "--json", "-q").json
    assert (again["id"], again["parent"], again["unchanged"]) == (None, first["id"], 3)


def test_an_empty_root_has_nothing_to_back_up_and_is_not_made(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "none")
    outcome = cli.ok("backup")
    assert (outcome.out, one_line(outcome.err)) == (b"", "there is no address to back up")
    assert cli.ok("backup", "list").out == b""


def test_user_and_cursor_narrow_it_and_the_environment_does_not(filled: Cli) -> None:
    (of_user,) = filled.ok("backup", "--user", "ann", "--json", "-q").json
    assert (of_user["scope"], of_user["addresses"]) == ("ann", 2)
    (of_one,) = filled.ok("backup", "--user", "ann", "--cursor", "home", "--json", "-q").json
    assert (of_one["scope"], of_one["addresses"]) == ("ann/home", 1)
    narrowed = Cli(filled.root, {"PRONTODB_USER": "bob", "PRONTODB_CURSOR": "home"})
    (of_all,) = narrowed.ok("backup", "--json", "-q").json
    assert (of_all["scope"], of_all["addresses"]) == ("", 3)


def test_another_folder_takes_it_and_can_be_asked_everything(filled: Cli, tmp_path: Path) -> None:
    place = tmp_path / "disk" / "prontodb"
    found = made(filled, "--output", str(place))
    assert (place / found / "manifest.json").exists()
    assert not (filled.root / "backups").exists()
    assert filled.ok("backup", "list", str(place)).lines[0].startswith(found)
    for reference in (str(place), str(place / found)):
        assert len(filled.ok("backup", "show", reference).lines) == 3
        assert filled.ok("backup", "verify", reference).out == b""
    assert filled.ok("backup", "list").out == b""
    filled.ok("backup", "--output", str(tmp_path / "other"))


def test_an_address_that_cannot_be_read_is_named_and_the_others_are_backed_up(filled: Cli) -> None:
    (filled.root / "addresses/ann/work/keystore.db").write_bytes(b"garbage" * 1_000)
    outcome = filled("backup", "-q")
    assert outcome.code == 1
    assert ID.fullmatch(outcome.lines[0])
    assert "ann/work could not be backed up" in one_line(outcome.err)
    (fields,) = filled.ok("backup", "list", "--json").json
    assert list(fields["failed"]) == ["ann/work"]
    assert "ann/work could not be read" in filled.ok("backup", "show", fields["id"]).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--full", "--incremental"), "--full and --incremental do not go together"),
        (("--cursor", "home"), "--cursor goes with --user"),
        (("--user", "zoe"), "zoe"),
        (("--user", "ann", "--cursor", "none"), "ann/none"),
        (("--user", "../x"), "x"),
        (("--user", "ann", "--cursor", ".."), "cursor"),
        (("--output", ""), "path"),
        (("word",), "one word too many"),
        (("--yes",), "no option of backup create"),
    ],
)
def test_what_cannot_be_backed_up_is_one_line_and_makes_nothing(words: tuple[str, ...], said: str, filled: Cli) -> None:
    before = tree(filled.root)
    assert said in filled.fails("backup", "create", *words)
    assert not [path for path in tree(filled.root).keys() - before if "T" in path.rpartition("/")[2]]
    assert not list(filled.root.rglob("manifest.json"))


def test_a_folder_with_other_things_in_it_is_refused(filled: Cli, tmp_path: Path) -> None:
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    (place / "diary.txt").write_text("dear")
    assert "other things than backups" in filled.fails("backup", "--output", str(place))
    assert [path.name for path in place.iterdir()] == ["diary.txt"]
    assert "diary.txt" in filled.fails("backup", "--output", str(place / "diary.txt"))


# Upstream's forms


def test_upstreams_forms_create_list_and_restore(filled: Cli, tmp_path: Path) -> None:
    (found,) = filled.ok("backup", "--output", str(tmp_path / "b"), "-q").lines
    (here,) = filled.ok("backup", "--incremental", "-q").lines
    assert filled.ok("backup", "--list").lines[0].startswith(here)
    put(filled, "ann/home", "new")
    assert sorted(filled.ok("backup", "--restore", here, "-q").lines) == ["ann/home", "ann/work", "bob/home"]
    assert filled.ok("--user", "ann", "--cursor", "home", "get", "k").text == "v"
    filled.ok("backup", "--restore", str(tmp_path / "b" / found), "--user", "bob")


@pytest.mark.parametrize(
    "words", [("--list", "--restore", "x"), ("--list", "--output", "/x"), ("--restore", "x", "--output", "/x")]
)
def test_upstreams_forms_do_not_mix(words: tuple[str, ...], filled: Cli) -> None:
    assert "do not go together" in filled.fails("backup", *words)
    assert not (filled.root / "backups").exists()


@pytest.mark.parametrize("words", [("backup", "--restore", ""), ("restore", "", "--yes"), ("backup", "show", "")])
def test_an_empty_reference_as_of_an_unset_variable_is_refused(words: tuple[str, ...], filled: Cli) -> None:
    made(filled)
    put(filled, "ann/home", "new")
    filled.fails(*words)
    assert filled.ok("--user", "ann", "--cursor", "home", "get", "k").text == "new"


# Listing, showing


def test_the_list_is_columns_of_data_and_tells_of_verifications(filled: Cli) -> None:
    first = made(filled)
    put(filled, "ann/home", "w")
    second = made(filled)
    rows = [line.split("\t") for line in filled.ok("backup", "list").lines]
    assert [(row[0], row[1], row[2], row[4], row[6]) for row in rows] == [
        (first, "full", "*", "3", "-"), (second, "incremental", "*", "1", "-"),
    ]  # fmt: skip
    filled.ok("backup", "verify")
    rows = [line.split("\t") for line in filled.ok("backup", "list").lines]
    assert [row[6].split()[0] for row in rows] == ["whole", "whole"]
    found = filled.ok("backup", "list", "--json").json
    assert [(one["id"], one["parent"], one["addresses"], one["unchanged"], one["problems"]) for one in found] == [
        (first, None, 3, 0, []), (second, first, 1, 2, []),
    ]  # fmt: skip
    assert all(one["verified_at_ms"] for one in found)
    assert filled.ok("backup", "list", "-q").err == ""


def test_one_backup_is_shown_by_as_much_of_its_id_as_is_its_alone(filled: Cli) -> None:
    first = made(filled)
    put(filled, "ann/home", "w")
    lifecycle(Layout(str(filled.root)), Limits(), Clock()).delete(Address("bob", "home"))
    second = made(filled)
    lines = [line.split("\t") for line in filled.ok("backup", "show", second).lines]
    assert [(line[0], line[1], line[6]) for line in lines] == [("ann/home", "segment", first)]
    outcome = filled.ok("backup", "show", second[:-1])
    assert f"builds on {first}" in outcome.err
    assert "bob/home was gone" in outcome.err
    (fields,) = filled.ok("backup", "show", first, "--json").json
    assert {piece["address"] for piece in fields["pieces"]} == {"ann/home", "ann/work", "bob/home"}
    assert "begins the names of 2 backups" in filled.fails("backup", "show", "20")


@pytest.mark.parametrize(
    "reference", ["nothing", "20991231T000000Z-00000000", "../..", "/nowhere", "/etc", "x" * 5_000]
)
@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_backup_that_is_none_is_one_line(command: str, reference: str, filled: Cli) -> None:
    made(filled)
    assert len(filled.fails("backup", command, reference)) < 6_000


def damaged_place(cli: Cli, place: Path) -> str:
    found = made(cli, "--output", str(place))
    (place / found / "manifest.json").write_text("{}")
    return found


def test_a_backup_whose_manifest_cannot_be_read_is_told_of_wherever_it_is_met(filled: Cli, tmp_path: Path) -> None:
    place = tmp_path / "b"
    found = damaged_place(filled, place)
    outcome = filled("backup", "list", str(place))
    assert (outcome.code, outcome.out) == (1, b"")
    assert f"backup {found} cannot be used" in outcome.err
    assert filled("backup", "verify", str(place)).code == 1
    assert f"{found} cannot be used" in filled.fails("backup", "show", str(place / found))
    assert "Traceback" not in filled("restore", str(place), "--yes").err


def test_a_folder_of_nothing_but_unreadable_backups_shows_why(filled: Cli, tmp_path: Path) -> None:
    damaged_place(filled, tmp_path / "b")
    assert "internal error" not in filled.fails("backup", "show", str(tmp_path / "b"))


# Verifying


def test_a_flipped_byte_is_a_line_on_stdout_and_exit_1(filled: Cli) -> None:
    found = made(filled)
    assert filled.ok("backup", "verify", found).err.endswith("all whole\n")
    path = path_of(filled, found) / "ann@home.db"
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    for words in ((), (found,)):
        outcome = filled("backup", "verify", *words)
        assert outcome.code == 1
        assert outcome.lines
        assert all(line.startswith(f"{found}: ") for line in outcome.lines)
        assert "ann@home.db" in outcome.text
        assert outcome.err.endswith("damaged\n")
    (fields,) = filled("backup", "verify", "--json", "-q").json
    assert fields["whole"] is False
    assert fields["problems"][0][0] == found
    assert filled("backup", "verify", "-q").err == ""
    assert filled.ok("backup", "list").lines[0].split("\t")[6] == "damaged"


def test_without_backups_there_is_nothing_to_verify(filled: Cli) -> None:
    outcome = filled.ok("backup", "verify")
    assert outcome.out == b""
    assert "0 backups" in outcome.err


# Pruning


def pruned_root(cli: Cli) -> list[str]:
    config(cli, backups={"retention": {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}})
    return [made(cli, "--full") for _ in range(3)]


def test_a_dry_run_says_what_would_go_and_the_run_removes_that(filled: Cli) -> None:
    ids = sorted(pruned_root(filled), key=lambda one: json.loads(
        (path_of(filled, one) / "manifest.json").read_text())["created_at_ms"])  # fmt: skip
    before = tree(filled.root / "backups/full")
    dry = filled.ok("backup", "prune", "--dry-run")
    assert sorted(dry.lines) == sorted(ids[:2])
    assert f"{ids[2]} stays: last 1" in dry.err
    assert "2 of 3 backups" in dry.err
    assert tree(filled.root / "backups/full") == before
    outcome = filled.ok("backup", "prune")
    assert outcome.lines == dry.lines
    assert "2 of 3 backups" in one_line(outcome.err)
    assert [line.split("\t")[0] for line in filled.ok("backup", "list").lines] == ids[2:]
    again = filled.ok("backup", "prune", "--json", "-q")
    assert (again.json[0]["removed"], again.err) == ([], "")


def test_with_a_manifest_that_cannot_be_read_nothing_goes(filled: Cli) -> None:
    ids = pruned_root(filled)
    (path_of(filled, ids[0]) / "manifest.json").write_text("{}")
    for options in ((), ("--dry-run",)):
        outcome = filled("backup", "prune", "-q", *options)
        assert (outcome.code, outcome.out) == (1, b"")
        assert "a manifest cannot be read; 'prontodb backup list' shows it" in one_line(outcome.err)
    assert len(list(filled.root.glob("backups/full/*"))) == 3


def test_a_wrong_retention_is_refused_with_the_field(filled: Cli) -> None:
    config(filled, backups={"retention": {"keep_last": "x"}})
    assert "backups.retention.keep_last" in filled.fails("backup", "prune")


def test_each_command_says_what_it_is_for(cli: Cli) -> None:
    names = [name for name in COMMANDS if name.split()[0] in ("backup", "restore", "jobs")]
    assert len(names) >= 13
    for name in names:
        assert name in cli.ok(*name.split(), "--help").text
        assert cli.fails(*name.split(), "--nonsense").startswith("'--nonsense' is no option of")

"""The edge: whatever comes ends as one line and an exit code."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prontodb.cli import data
from prontodb.errors import StorageFullError
from tests.unit.cli.harness import Cli, one_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageFullError("no space left"), "no space left"),
        (MemoryError(), "out of memory; nothing more was done"),
        (RecursionError("secret"), "internal error (RecursionError); run it again with --debug"),
        (ValueError("secret"), "internal error (ValueError); run it again with --debug"),
        (PermissionError(13, "x", "/a\nb"), "Permission denied: '/a\\nb'"),
    ],
)
def test_every_error_is_one_line_and_shows_no_value(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(data, "do_get", fail)
    line = cli.fails("get", "k")
    assert line.startswith(said)
    assert "secret" not in line
    debugged = cli("get", "k", "--debug")
    assert debugged.code == 1
    assert "Traceback" in debugged.err


WORDS = [
    "get", "set", "del", "incr", "cas", "keys", "scan", "ls", "projects", "namespaces", "nss", "ttl",
    "persist", "touch", "create-cache", "copy", "address", "cursor", "list", "show", "create", "rename",
    "delete", "check", "active", "export", "import", "settings", "version", "help", "inspect", "k", "a.b.c",
    "a..b", "", "5", "-5", "5m", "a/b", "..", "--", "-", "--json", "--quiet", "--user", "--cursor=x",
    "--prefix", "-p", "-n", "--ns-delim", "--raw", "--stdin", "--ttl", "--absent", "--to-user",
    "--overwrite", "--on-conflict", "keep", "--deep", "--yes", "--user=", "--help", "\x1b[2J", "\n", "é",
    "x" * 2000, "🎉", "\udcff",
]  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS), max_size=7), st.one_of(st.none(), st.binary(max_size=20)))
def test_whatever_is_typed_ends_as_it_should(cli: Cli, argv: list[str], stdin: bytes | None) -> None:
    outcome = cli(*argv, stdin=stdin)
    assert outcome.code in (0, 1, 2)
    assert "internal error" not in outcome.err
    for line in outcome.err.splitlines(keepends=True):
        one_line(line)
    if outcome.code == 1:
        assert outcome.err


def test_an_interrupt_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "do_get", interrupt)
    assert cli("get", "k").code == 130


def test_quiet_silences_notes_and_never_errors(cli: Cli) -> None:
    assert cli("get", "k", "-q").err == ""
    assert cli("get", "k").err != ""
    assert one_line(cli("get", "a..b", "-q").err)


def test_events_go_to_stderr_on_request_and_hold_no_value(cli: Cli) -> None:
    cli.ok("set", "k", "secret")
    outcome = cli.ok("watch", "--timeout", "0.01", "--log", "json", "-q")
    assert outcome.out == b""
    events = [json.loads(line) for line in outcome.err.splitlines()]
    assert "keystore.opened" in [event["event"] for event in events]
    assert "secret" not in outcome.err
    # For that command only.
    assert cli.ok("watch", "--timeout", "0.01", "-q").err == ""


def test_an_empty_variable_is_unset(cli: Cli, tmp_path: Path) -> None:
    cli.environment.update(PRONTODB_USER="", PRONTODB_CURSOR="", PRONTODB_HOME="", XDG_DATA_HOME=str(tmp_path))
    cli.ok("set", "k", "v")
    assert (tmp_path / "prontodb" / "addresses" / "_default" / "_default" / "keystore.db").is_file()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PRONTODB_HOME", "relative"),
        ("PRONTODB_HOME", "${HOME}/x"),
        ("XDG_DATA_HOME", "relative"),
        ("PRONTODB_USER", ".."),
        ("PRONTODB_USER", "a/b"),
        ("PRONTODB_CURSOR", "${CURSOR}"),
        ("PRONTODB_CURSOR", "a\nb"),
    ],
)
def test_a_hostile_variable_is_refused_by_its_name(cli: Cli, variable: str, value: str) -> None:
    if variable == "XDG_DATA_HOME":
        cli.environment["PRONTODB_HOME"] = ""
    cli.environment[variable] = value
    assert variable in cli.fails("set", "k", "v")


def test_a_folder_of_other_things_is_not_taken_over(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    (folder / "file").write_text("mine")
    for argv in (("get", "k"), ("set", "k", "v")):
        assert "holds other things and is open to others" in cli.fails(*argv, "--root", str(folder))
    assert folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_an_empty_folder_may_become_a_root(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir(mode=0o755)
    assert "closed" in cli.ok("set", "k", "v", "--root", str(folder)).err
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_root_may_end_with_a_slash(cli: Cli) -> None:
    cli.ok("set", "k", "v", "--root", f"{cli.root}//")
    assert cli.ok("get", "k").text == "v"


def test_the_options_of_one_call_are_gone_with_it(cli: Cli) -> None:
    cli.ok("set", "k", "v", "--user", "a", "--quiet")
    assert cli.ok("cursor", "active").text == "_default/_default\n"
    assert cli("get", "k").err != ""

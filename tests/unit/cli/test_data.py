"""set, get, del, incr, cas."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.cli.harness import Cli, one_line, tree

VALUES = [
    "",
    "v",
    "two words",
    "last newline\n",
    "\n",
    "\r\n",
    "tab\tand\x00nul",
    "\x1b[31mred\x1b[0m",
    "é ß 漢字 🎉 e\u0301",
    "\ufeffbom",
    "\u2028\u2029\x85\x9b",
    "-v",
    "--",
    "${x} $(y) `z` \\n 'q' \"d\"",
    "x" * 100_000,
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_byte_for_byte(cli: Cli, value: str) -> None:
    if "\x00" not in value:
        cli.ok("set", "k", "--", value)
        assert cli.ok("get", "k").out == value.encode()
    cli.ok("set", "piped", stdin=value.encode())
    assert cli.ok("get", "piped").out == value.encode()
    assert cli.ok("get", "piped", "--json").json[0]["value"] == value
    [line] = cli.ok("scan", "--prefix", "piped", "--json").json
    assert line["value"] == value


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_comes_back(cli: Cli, value: str) -> None:
    cli.ok("set", "k", stdin=value.encode())
    assert cli.ok("get", "k").out == value.encode()
    # And a line of scan is a line: what could end it or steer a terminal is escaped, reversibly.
    shown = cli.ok("scan").text
    assert shown.startswith("k=")
    assert shown.count("\n") == 1
    assert shown[2:-1].splitlines() in ([], [shown[2:-1]])


def test_no_value_is_ever_read_from_stdin_when_one_was_given(cli: Cli) -> None:
    cli.ok("set", "k", "", stdin=b"piped")
    assert cli.ok("get", "k").out == b""


def test_a_miss_is_exit_2_with_an_empty_stdout_and_a_note(cli: Cli) -> None:
    cli.ok("set", "other", "v")
    for argv, note in (
        (("get", "k"), "no key 'k' at _default/_default"),
        (("get", "k", "--json"), "no key 'k' at _default/_default"),
        (("get", "k", "--user", "nobody"), "no address nobody/_default"),
    ):
        outcome = cli(*argv)
        assert (outcome.code, outcome.out) == (2, b"")
        assert one_line(outcome.err) == note
        assert cli(*argv, "--quiet").err == ""


def test_an_expired_key_is_a_miss(cli: Cli) -> None:
    cli.ok("set", "k", "v", "--ttl", "1ms")
    # Nothing to wait for but the clock: ask until it is gone, as any caller would.
    while (outcome := cli("get", "k")).code == 0:
        pass
    assert (outcome.code, outcome.out) == (2, b"")


def test_reading_makes_nothing(cli: Cli) -> None:
    for argv in (
        ("get", "k"), ("keys",), ("scan",), ("ls",), ("projects",), ("namespaces",), ("nss",), ("ttl", "k"),
        ("persist", "k"), ("touch", "k"), ("copy", "k", "l"), ("del", "k"), ("delete", "k", "l"), ("export",),
        ("cas", "k", "old", "new"), ("cursor", "active"), ("settings", "show"), ("version",),
    ):  # fmt: skip
        cli(*argv, "--user", "nobody")
        assert tree(cli.root) == {}, argv


def test_paths_that_leave_out_defaults_name_one_entry(cli: Cli) -> None:
    cli.ok("set", "default.default.k", "one")
    cli.ok("set", "-p", "default", "-n", "config", "k", "two")
    cli.ok("set", "-p", "app", "-n", "config", "k", "three")
    cli.ok("set", "app/config/x", "--ns-delim", "/", "four")
    assert cli.ok("get", "k").text == cli.ok("get", "default.k").text == "one"
    assert cli.ok("get", "config.k").text == cli.ok("get", "default.config.k").text == "two"
    assert cli.ok("get", "app.config.k").text == "three"
    assert cli.ok("get", "app.config.x").text == "four"
    assert cli.ok("keys").lines == ["app.config.k", "app.config.x", "config.k", "k"]


def test_raw_takes_any_library_key(cli: Cli) -> None:
    for key in ("a..b", ".", "default.k", " ", "-x", "k=v", "漢.字"):
        cli.ok("set", "--raw", "--", key, key)
        assert cli.ok("get", "--raw", "--", key).text == key
    assert cli("get", "k").code == 2
    assert "leave -p and -n out" in cli.fails("get", "--raw", "-p", "app", "k")


def test_addresses_do_not_see_each_other(cli: Cli) -> None:
    cli.ok("--user", "agent1", "--cursor", "prod", "set", "k", "one")
    cli.ok("set", "k", "two", "--user=agent2")
    assert cli.ok("get", "k", "--cursor", "prod", "--user", "agent1").text == "one"
    assert cli.ok("get", "--user", "agent2", "k").text == "two"
    # An option affects its own command only.
    assert cli("get", "k").code == 2


def test_del_deletes_several_and_misses_none(cli: Cli) -> None:
    for key in "abc":
        cli.ok("set", key, key)
    assert cli.ok("del", "a", "c", "nope").err == ""
    assert cli.ok("keys").lines == ["b"]
    assert one_line(cli.ok("delete", "a").err) == "nothing to delete: no key 'a' at _default/_default"


def test_incr_counts_from_nothing_up_and_down(cli: Cli) -> None:
    assert cli.ok("incr", "n").text == "1\n"
    assert cli.ok("incr", "n", "41").text == "42\n"
    assert cli.ok("incr", "n", "-50").text == "-8\n"
    assert cli.ok("incr", "n", "+8", "--json").json == [{"key": "n", "value": 0}]


@pytest.mark.parametrize("by", ["x", "1.5", "", "--", "1e3", "٣", "1_000", "99999999999999999999", "-"])
def test_incr_by_what_is_no_number_is_refused(cli: Cli, by: str) -> None:
    assert "whole number" in cli.fails("incr", "n", "--", by)
    assert tree(cli.root) == {}


def test_incr_of_what_is_no_number_is_refused_and_shows_no_value(cli: Cli) -> None:
    cli.ok("set", "n", "secret")
    said = cli.fails("incr", "n")
    assert "is not a whole number" in said
    assert "secret" not in said


def test_cas_writes_only_over_what_it_expects(cli: Cli) -> None:
    cli.ok("cas", "k", "--absent", "one")
    assert cli.fails("cas", "k", "--absent", "two") == "key 'k' exists already; nothing was written"
    assert "does not hold the expected value" in cli.fails("cas", "k", "two", "three")
    cli.ok("cas", "k", "one", "two", "--ttl", "1h")
    assert cli.ok("get", "k").text == "two"
    assert cli.ok("ttl", "k").text == "3600\n"
    for argv in (("cas", "k", "v"), ("cas", "k", "a", "b", "--absent")):
        assert "PATH EXPECTED VALUE, or PATH --absent VALUE" in cli.fails(*argv)


def test_json_tells_all_that_is_known_of_an_entry(cli: Cli) -> None:
    cli.ok("set", "app.config.k", "v", "--ttl", "1h")
    [entry] = cli.ok("get", "app.config.k", "--json").json
    assert list(entry) == ["key", "value", "revision", "created_at", "updated_at", "expires_at"]
    assert (entry["key"], entry["value"], entry["revision"]) == ("app.config.k", "v", 1)
    assert entry["expires_at"].endswith("+00:00")


def test_json_holds_no_character_that_steers_a_terminal_or_ends_a_line(cli: Cli) -> None:
    value = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]))
    cli.ok("set", "k", stdin=value.encode())
    text = cli.ok("get", "k", "--json").text
    assert json.loads(text)["value"] == value
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or ord(c) in (0x2028, 0x2029) for c in text[:-1])


BAD_INPUT = [
    (("set", "", "v"), "empty part"),
    (("set", "a..b", "v"), "empty part"),
    (("set", ".a", "v"), "empty part"),
    (("set", "a\nb", "v"), "control character"),
    (("set", "x" * 1025, "v"), "max_key_bytes is 1,024"),
    (("set", "é" * 513, "v"), "max_key_bytes is 1,024"),
    (("set", "k", "v", "--ttl", "0"), "above zero"),
    (("set", "k", "v", "--ttl=-5"), "not a duration"),
    (("set", "k", "v", "--ttl", "soon"), "not a duration"),
    (("set", "k", "v", "--ttl", "9e9"), "not a duration"),
    (("set", "k", "v", "--ttl", "inf"), "not a duration"),
    (("set", "k", "v", "--ttl", "101000d"), "100 years"),
    (("set", "k", "v", "--ttl", ""), "not a duration"),
    (("set", "k", "v", "--user", ""), "is not a name"),
    (("set", "k", "v", "--user", "../x"), "is not a name"),
    (("set", "k", "v", "--user", "a/b"), "is not a name"),
    (("set", "k", "v", "--user", ".."), "is not a name"),
    (("set", "k", "v", "--user", "-x"), "needs a value"),
    (("set", "k", "v", "--user=-x"), "is not a name"),
    (("set", "k", "v", "--user", "x" * 65), "is not a name"),
    (("set", "k", "v", "--user", "con"), "Windows"),
    (("set", "k", "v", "--user", "_mine"), "begins with '_'"),
    (("set", "k", "v", "--cursor", "a\x1b[31mb"), "is not a name"),
    (("set", "k", "v", "--cursor", "é"), "is not a name"),
    (("set", "k", "v", "--root", "relative"), "relative"),
    (("set", "k", "v", "--root", ""), "relative"),
    (("set", "k", "v", "--root", "/tmp/${HOME}/x"), "unexpanded"),
    (("set", "k", "v", "--root", "~/x"), "relative"),
    (("set", "k", "v", "--ns-delim", ""), "delimiter"),
    (("set", "k", "v", "-p", "a.b"), "one part each"),
    (("set", "k", "v", "-n", ""), "empty part"),
    (("set", "k", "v", "--log", "xml"), "text or json"),
    (("incr", "a..b"), "empty part"),
    (("cas", "a..b", "--absent", "v"), "empty part"),
    (("create-cache", "a..b", "5m"), "empty part"),
    (("create-cache", "a", "0"), "above zero"),
    (("copy", "k"), "needs DST"),
    (("copy", "k", "l", "--to-user", "a/b"), "is not a name"),
    (("address", "create", "a/b/c"), "is not a name"),
    (("address", "create", ""), "is not a name"),
    (("address", "delete", "a"), "needs an answer"),
    (("address", "delete", "a", "--yes"), "does not exist"),
    (("address", "rename", "a", "b"), "does not exist"),
    (("watch", "--count", "0"), "above 0"),
    (("watch", "--timeout", "nan"), "above 0"),
    (("watch", "--since", "x"), "not a position"),
    (("watch",), "does not exist"),
    (("nonsense",), "no command"),
    ((), "a command is missing"),
]


@pytest.mark.parametrize(("argv", "reason"), BAD_INPUT, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_exit_1_and_nothing_made(cli: Cli, argv: tuple[str, ...], reason: str) -> None:
    assert reason in cli.fails(*argv)
    assert tree(cli.root) == {}


def test_a_line_of_error_shows_no_control_characters_whatever_was_typed(cli: Cli) -> None:
    for argv in (("set", "a\x1b]0;x\x07b", "v"), ("x\ny",), ("get", "--\x1b[2J"), ("--user", "a\r\nb", "keys")):
        assert "\\" in cli.fails(*argv)


def test_what_fails_leaves_what_was_stored(cli: Cli, root: Path) -> None:
    cli.ok("set", "k", "v")
    cli.ok("get", "k")  # a reader leaves an empty -wal and -shm
    before = tree(root)
    cli.fails("set", "k", "new", "--ttl", "never again")
    cli.fails("set", "a..b", "new")
    cli.fails("incr", "k")
    assert cli.ok("get", "k").text == "v"
    assert tree(root) == before

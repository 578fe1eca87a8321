"""keys, scan, ls, projects, namespaces, nss."""

import pytest

from tests.unit.cli.harness import Cli, one_line

KEYS = ["app.config.size", "app.config.theme", "app.stats.n", "b.x.y.deep", "config.k", "k", "key2", "web.default.z"]


@pytest.fixture
def filled(cli: Cli) -> Cli:
    for key in KEYS:
        cli.ok("set", "--raw", key, f"of {key}")
    return cli


def test_keys_prints_whole_keys_sorted(filled: Cli) -> None:
    assert filled.ok("keys").lines == KEYS
    assert filled.ok("keys", "--prefix", "app.c").lines == ["app.config.size", "app.config.theme"]
    assert filled.ok("keys", "--json").json == KEYS


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        (("app.config",), ["size", "theme"]),
        (("app.config", "th"), ["theme"]),
        (("app.config", "--prefix", "th"), ["theme"]),
        (("-p", "app", "-n", "config"), ["size", "theme"]),
        (("-p", "app", "-n", "config", "--prefix", "s"), ["size"]),
        (("-p", "web"), ["z"]),
        (("-n", "config"), ["k"]),
        (("config",), ["k"]),
        (("default.config",), ["k"]),
        (("default",), ["k", "key2"]),
        (("default.default",), ["k", "key2"]),
        (("default", "key"), ["key2"]),
        (("b.x.y",), ["deep"]),
        (("b.x",), []),
        (("app",), []),
        (("app/config", "--ns-delim", "/"), ["size", "theme"]),
    ],
)
def test_a_scope_prints_the_bare_keys_of_exactly_that_namespace(
    filled: Cli, scope: tuple[str, ...], found: list[str]
) -> None:
    assert filled.ok("keys", *scope).lines == found
    assert [line.partition("=")[0] for line in filled.ok("ls", *scope).lines] == found


def test_a_prefix_is_literal_text(cli: Cli) -> None:
    for key in ("a%b", "a_b", "a*b", "axb", "A%B"):
        cli.ok("set", key, "v")
    for prefix, found in (("a%", ["a%b"]), ("a_", ["a_b"]), ("a*", ["a*b"]), ("A", ["A%B"]), ("%", [])):
        assert cli.ok("keys", "--prefix", prefix).lines == found


def test_scan_and_ls_print_key_and_value(filled: Cli) -> None:
    assert filled.ok("scan").lines == [f"{key}=of {key}" for key in KEYS]
    assert filled.ok("ls", "app.stats").lines == ["n=of app.stats.n"]
    assert [entry["key"] for entry in filled.ok("ls", "app.stats", "--json").json] == ["app.stats.n"]


def test_a_line_of_scan_is_an_entry_whatever_its_value_holds(cli: Cli) -> None:
    cli.ok("set", "k", stdin=b"one\ntwo\r\t\\n \x1b[2J \x00 \xe2\x80\xa8")
    assert cli.ok("scan").text == "k=one\\ntwo\\r\\t\\\\n \\x1b[2J \\x00 \\u2028\n"


def test_projects_and_namespaces_spell_out_what_keys_leave_out(filled: Cli) -> None:
    assert filled.ok("projects").lines == ["app", "b", "default", "web"]
    assert filled.ok("nss").lines == [
        "app.config", "app.stats", "b.x.y", "default.config", "default.default", "web.default",
    ]  # fmt: skip
    assert filled.ok("namespaces").lines == ["config", "default"]
    assert filled.ok("namespaces", "-p", "default").lines == ["config", "default"]
    assert filled.ok("namespaces", "-p", "app").lines == ["config", "stats"]
    assert filled.ok("namespaces", "-p", "nope").lines == []
    assert filled.ok("nss", "--json").json == filled.ok("nss").lines


def test_every_namespace_printed_can_be_asked_for(filled: Cli) -> None:
    found = [key for namespace in filled.ok("nss").lines for key in filled.ok("keys", namespace, "--json").json]
    assert sorted(found) == KEYS


def test_a_namespace_that_only_raw_can_store_is_reached_as_the_help_of_nss_says(cli: Cli) -> None:
    keys = ["-a.b.k", "a..k", "default..k", "default.default.k", "default.x.k"]
    for key in keys:
        cli.ok("set", "--raw", "--", key, "v")
    assert cli.ok("nss").lines == ["-a.b", "a.", "default.", "default.default", "default.x"]
    assert cli.ok("keys", "--", "-a.b").lines == ["k"]
    for scope in ("a.", "default."):
        # There is no --raw here that an error could recommend.
        assert cli.fails("keys", scope).endswith("has an empty part; write project.namespace")
    for namespace, key in (("a.", "a..k"), ("default.", "default..k"), ("default.x", "default.x.k")):
        assert key in cli.ok("keys", "--prefix", namespace + ".").lines


def test_an_address_that_does_not_exist_holds_nothing(cli: Cli) -> None:
    for command in ("keys", "scan", "ls", "projects", "namespaces", "nss"):
        outcome = cli.ok(command, "--user", "nobody")
        assert outcome.out == b""
        assert one_line(outcome.err) == "no address nobody/_default; nothing is stored there"


@pytest.mark.parametrize(
    "argv",
    [
        ("keys", "a..b"),
        ("keys", "a", "b", "--prefix", "c"),
        ("keys", "a", "b", "-p", "c"),
        ("keys", "a\nb"),
        ("keys", "--prefix", "a\nb"),
        ("keys", "-p", "a.b"),
        ("namespaces", "-p", "a.b"),
        ("namespaces", "-p", ""),
        ("projects", "x"),
    ],
)
def test_a_scope_that_means_nothing_is_refused(cli: Cli, argv: tuple[str, ...]) -> None:
    cli.fails(*argv)


def test_expired_entries_are_listed_nowhere(cli: Cli) -> None:
    cli.ok("set", "a.b.c", "v", "--ttl", "1ms")
    while cli("get", "a.b.c").code == 0:
        pass
    for command in ("keys", "scan", "projects", "nss"):
        assert cli.ok(command).out == b""

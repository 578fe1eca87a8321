"""ttl, persist, touch, create-cache."""

import pytest

from tests.unit.cli.harness import Cli


def test_ttl_prints_whole_seconds_or_never(cli: Cli) -> None:
    cli.ok("set", "short", "v", "--ttl", "90")
    cli.ok("set", "long", "v")
    assert cli.ok("ttl", "short").text == "90\n"
    assert cli.ok("ttl", "long").text == "never\n"
    [short] = cli.ok("ttl", "short", "--json").json
    assert 80 < short["ttl_s"] <= 90
    assert cli.ok("ttl", "long", "--json").json == [{"key": "long", "ttl_s": None}]


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("15m", 900), ("24h", 86_400), ("1.5s", 2), ("2w", 1_209_600)]
)
def test_every_spelling_of_a_lifetime_is_understood(cli: Cli, given: str, seconds: int) -> None:
    cli.ok("set", "k", "v", f"--ttl={given}")
    assert seconds - 5 < int(cli.ok("ttl", "k").text) <= seconds


def test_persist_and_touch_change_the_lifetime_alone(cli: Cli) -> None:
    cli.ok("set", "k", "v", "--ttl", "90")
    cli.ok("touch", "k", "--ttl", "1h")
    assert cli.ok("ttl", "k").text == "3600\n"
    cli.ok("persist", "k")
    assert cli.ok("ttl", "k").text == "never\n"
    cli.ok("touch", "k", "--ttl", "never")
    assert cli.ok("get", "k").text == "v"


def test_what_is_absent_is_a_miss(cli: Cli) -> None:
    cli.ok("set", "other", "v")
    for argv in (("ttl", "k"), ("persist", "k"), ("touch", "k"), ("touch", "k", "--ttl", "5"), ("copy", "k", "l")):
        for user in ("_default", "nobody"):
            outcome = cli(*argv, "--user", user)
            assert (outcome.code, outcome.out) == (2, b""), argv
            assert outcome.err.startswith("prontodb: no ")
    assert cli.ok("address", "list").lines == ["_default/_default"]


@pytest.mark.parametrize(("scope", "path"), [("app.cache", "app.cache.k"), ("default", "k"), ("", "k"), ("ns", "ns.k")])
def test_a_cache_gives_its_namespace_a_default_lifetime(cli: Cli, scope: str, path: str) -> None:
    cli.ok("set", path, "before")
    cli.ok("create-cache", scope, "10m")
    assert cli.ok("ttl", path).text == "never\n"
    cli.ok("set", path, "after")
    assert cli.ok("ttl", path).text == "600\n"
    cli.ok("set", path, "kept", "--ttl", "never")
    assert cli.ok("ttl", path).text == "never\n"
    cli.ok("set", "other.ns.k", "v")
    assert cli.ok("ttl", "other.ns.k").text == "never\n"
    cli.ok("create-cache", scope, "never")
    cli.ok("set", path, "again")
    assert cli.ok("ttl", path).text == "never\n"

"""copy: one entry, or many."""

import pytest

from tests.unit.cli.harness import Cli, one_line, tree


@pytest.fixture
def filled(cli: Cli) -> Cli:
    cli.ok("set", "app.a.k", "one", "--ttl", "1h")
    cli.ok("set", "app.b.k", "two")
    cli.ok("set", "other", "three")
    return cli


def test_an_entry_is_copied_with_its_expiry(filled: Cli) -> None:
    filled.ok("copy", "app.a.k", "new")
    assert filled.ok("get", "new").text == "one"
    assert 3500 < int(filled.ok("ttl", "new").text) <= 3600
    assert filled.ok("get", "app.a.k").text == "one"


def test_an_entry_is_copied_to_another_address(filled: Cli) -> None:
    filled.ok("copy", "app.a.k", "--to-user", "agent2")
    filled.ok("copy", "app.b.k", "app.c.k", "--to-user", "agent2", "--to-cursor", "prod")
    assert filled.ok("get", "app.a.k", "--user", "agent2").text == "one"
    assert filled.ok("get", "app.c.k", "--user", "agent2", "--cursor", "prod").text == "two"
    assert filled.ok("keys").lines == ["app.a.k", "app.b.k", "other"]


def test_a_copy_writes_over_nothing_unless_told(filled: Cli) -> None:
    said = filled.fails("copy", "app.a.k", "other")
    assert said == "key 'other' exists already at _default/_default; nothing was copied (--overwrite writes over it)"
    assert filled.ok("get", "other").text == "three"
    filled.ok("copy", "app.a.k", "other", "--overwrite")
    assert filled.ok("get", "other").text == "one"


def test_an_absent_source_is_a_miss_and_makes_no_target(filled: Cli) -> None:
    before = tree(filled.root).keys()
    outcome = filled("copy", "nope", "--to-user", "agent2")
    assert (outcome.code, one_line(outcome.err)) == (2, "no key 'nope' at _default/_default")
    outcome = filled("copy", "nope", "--to-user", "agent2", "--user", "nobody")
    assert (outcome.code, one_line(outcome.err)) == (2, "no address nobody/_default")
    outcome = filled("copy", "--prefix", "", "--to-user", "agent2", "--user", "nobody")
    assert (outcome.code, one_line(outcome.err)) == (2, "no address nobody/_default")
    assert {path for path in tree(filled.root).keys() - before if "keystore.db-" not in path} == set()


def test_a_prefix_is_copied_to_another_address(filled: Cli) -> None:
    [report] = filled.ok("copy", "--prefix", "app.", "--to-user", "b", "--json").json
    assert report["copied"] == 2
    assert filled.ok("keys", "--user", "b").lines == ["app.a.k", "app.b.k"]
    assert filled.fails("copy", "--prefix", "", "--to-user", "b") == (
        "key 'app.a.k' exists already at b/_default; nothing was copied "
        "(--on-conflict keep leaves such keys, --on-conflict replace writes over them)"
    )
    assert filled.ok("keys", "--user", "b").lines == ["app.a.k", "app.b.k"]
    [report] = filled.ok("copy", "--prefix", "", "--to-user", "b", "--on-conflict", "keep", "--json").json
    assert (report["copied"], report["kept"]) == (1, 2)


@pytest.mark.parametrize(
    "argv",
    [
        ("copy",),
        ("copy", "app.a.k"),
        ("copy", "app.a.k", "app.a.k"),
        ("copy", "app.a.k", "x", "--prefix", "y"),
        ("copy", "app.a.k", "x", "--on-conflict", "keep"),
        ("copy", "--prefix", ""),
        ("copy", "--prefix", "", "--to-user", "b", "--on-conflict", "burn"),
    ],
)
def test_a_copy_that_means_nothing_is_refused(filled: Cli, argv: tuple[str, ...]) -> None:
    filled.fails(*argv)

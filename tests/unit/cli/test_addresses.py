"""address and cursor."""

import pytest

from tests.unit.cli.harness import Cli, one_line, tree


def test_an_address_lives_its_whole_life(cli: Cli) -> None:
    cli.ok("address", "create", "agent1/prod")
    cli.ok("set", "k", "v", "--user", "agent1", "--cursor", "prod")
    assert one_line(cli.ok("address", "create", "agent1/prod").err) == "address agent1/prod exists already"
    cli.ok("address", "rename", "agent1/prod", "agent1/old")
    assert cli.ok("address", "list").lines == ["agent1/old"]
    assert cli.ok("get", "k", "--user", "agent1", "--cursor", "old").text == "v"
    cli.ok("address", "check", "agent1/old", "--deep")
    cli.ok("address", "delete", "agent1/old", "--yes")
    assert cli.ok("address", "list").lines == []


def test_the_list_is_sorted_and_tells_more_as_json(cli: Cli) -> None:
    for user, cursor in (("b", "x"), ("a", "_default"), ("a", "B"), ("_global", "y")):
        cli.ok("set", "k", "v", "--user", user, "--cursor", cursor)
    assert cli.ok("address", "list").lines == ["_global/y", "a/B", "a/_default", "b/x"]
    rows = cli.ok("address", "list", "--json").json
    assert [(row["address"], row["state"]) for row in rows][1] == ("a/B", "active")


def test_show_describes_one_address(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    cli.ok("create-cache", "app.cache", "10m")
    [facts] = cli.ok("address", "show", "--json").json
    assert (facts["address"], facts["entries"], facts["format"]) == ("_default/_default", 1, 1)
    lines = cli.ok("address", "show", "_default").lines
    assert "entries: 1" in lines
    assert "lifetimes_ms: app.cache=600000" in lines


def test_a_cursor_list_is_of_one_user(cli: Cli) -> None:
    for user, cursor in (("a", "one"), ("a", "two"), ("b", "three"), ("ab", "four")):
        cli.ok("address", "create", f"{user}/{cursor}")
    assert cli.ok("cursor", "list", "--user", "a").lines == ["one", "two"]
    assert [row["address"] for row in cli.ok("cursor", "list", "--user", "a", "--json").json] == ["a/one", "a/two"]
    assert cli.ok("cursor", "list", "--user", "nobody").lines == []


def test_the_active_cursor_follows_options_and_environment(cli: Cli) -> None:
    assert cli.ok("cursor", "active").text == "_default/_default\n"
    cli.environment.update(PRONTODB_USER="agent1", PRONTODB_CURSOR="prod")
    assert cli.ok("cursor", "active").text == "agent1/prod\n"
    assert cli.ok("cursor", "active", "--user", "b").text == "b/prod\n"
    assert cli.ok("cursor", "active", "--json").json == [{"user": "agent1", "cursor": "prod"}]
    cli.environment.update(PRONTODB_USER="", PRONTODB_CURSOR="")
    assert cli.ok("cursor", "active").text == "_default/_default\n"


def test_deleting_needs_yes_where_nobody_can_answer(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    before = tree(cli.root)
    for stdin in (None, b"y\n"):
        assert "was not deleted" in cli.fails("address", "delete", "_default", stdin=stdin)
    assert tree(cli.root) == before


def test_what_does_not_exist_cannot_be_shown_renamed_checked_or_deleted(cli: Cli) -> None:
    cli.ok("set", "k", "v")
    for argv in (("show", "x"), ("check", "x"), ("rename", "x", "y"), ("delete", "x", "--yes")):
        assert "address x/_default does not exist" in cli.fails("address", *argv)
    assert cli.ok("address", "list").lines == ["_default/_default"]


def test_a_rename_or_creation_never_takes_a_name_that_is_in_use(cli: Cli) -> None:
    cli.ok("set", "k", "one", "--user", "a")
    cli.ok("set", "k", "two", "--user", "b")
    assert "exists already" in cli.fails("address", "rename", "a", "b")
    assert "differs only in case" in cli.fails("address", "create", "A")
    assert cli.ok("get", "k", "--user", "b").text == "two"


@pytest.mark.parametrize("word", ["a/b/c", "..", "a/..", "/etc", "a/", "", "con/x", "_mine", "a\nb"])
def test_a_word_that_is_no_address_is_refused(cli: Cli, word: str) -> None:
    for action in ("create", "delete", "show", "check"):
        cli.fails("address", action, word)
    assert tree(cli.root) == {}


def test_an_address_is_given_once(cli: Cli) -> None:
    assert "give the address once" in cli.fails("address", "show", "a", "--user", "b")

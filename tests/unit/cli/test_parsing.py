"""Taking a command line apart."""

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prontodb.cli.commands import COMMANDS, FAMILIES
from prontodb.cli.help import syntax_of
from prontodb.cli.parsing import GLOBAL, OPTIONS, Args, Line, UsageError, match


def parsed(*argv: str) -> Args:
    line = Line(argv)
    name = line.command()
    return match(name, syntax_of(name), line)


@pytest.mark.parametrize(
    "argv",
    [
        ("set", "k", "v", "--ttl", "5", "--user", "a"),
        ("--user", "a", "set", "k", "v", "--ttl", "5"),
        ("--user=a", "--ttl=5", "set", "k", "v"),
        ("set", "--ttl", "5", "k", "--user=a", "v"),
        ("--ttl", "5", "--user", "a", "--", "set", "k", "v"),
    ],
)
def test_options_stand_anywhere(argv: tuple[str, ...]) -> None:
    args = parsed(*argv)
    assert args.command == "set"
    assert (args.word("PATH"), args.maybe("VALUE")) == ("k", "v")
    assert (args.text("--ttl"), args.text("--user")) == ("5", "a")


@pytest.mark.parametrize("value", ["--", "-v", "--ttl", "--help", "help", "-", "", "-h"])
def test_after_two_dashes_everything_is_a_word(value: str) -> None:
    args = parsed("set", "k", "--", value)
    assert args.maybe("VALUE") == value
    assert parsed("set", "--", "k", value).maybe("VALUE") == value


@pytest.mark.parametrize("value", ["-5", "-0.5", "-.5", "-"])
def test_a_negative_number_and_a_lone_dash_are_words(value: str) -> None:
    assert parsed("set", "k", value).maybe("VALUE") == value


def test_an_options_value_may_begin_with_a_dash_after_an_equals_sign() -> None:
    assert parsed("keys", "--prefix=--x").text("--prefix") == "--x"
    assert parsed("keys", "--prefix=").text("--prefix") == ""


def test_an_option_without_its_value_is_refused() -> None:
    for argv in (("keys", "--prefix"), ("keys", "--prefix", "--json"), ("--user", "--", "keys")):
        with pytest.raises(UsageError, match="needs a value"):
            parsed(*argv)


def test_a_switch_takes_no_value() -> None:
    with pytest.raises(UsageError, match="--json takes no value"):
        parsed("keys", "--json=yes")


def test_the_last_of_two_equal_options_counts() -> None:
    assert parsed("--user", "a", "keys", "--user", "b").text("--user") == "b"


def test_short_options_are_long_ones() -> None:
    args = parsed("get", "-p", "app", "-n=config", "theme", "-q")
    assert (args.text("--project"), args.text("--namespace")) == ("app", "config")
    assert args.flag("--quiet")


def test_options_are_never_abbreviated() -> None:
    with pytest.raises(UsageError, match="'--us' is no option of keys; did you mean --user"):
        parsed("keys", "--us", "a")


def test_an_option_of_another_command_is_refused() -> None:
    with pytest.raises(UsageError, match="--ttl is no option of get"):
        parsed("get", "k", "--ttl", "5")


def test_an_unknown_command_gets_near_matches() -> None:
    with pytest.raises(UsageError, match="'gte' is no command; did you mean get"):
        parsed("gte", "k")
    with pytest.raises(UsageError, match="'lst' is no action of address; did you mean list"):
        parsed("address", "lst")
    with pytest.raises(UsageError, match="address needs one of: list, show"):
        parsed("address")


def test_what_follows_stress_is_left_to_the_harness() -> None:
    args = parsed("--root", "/r", "stress", "run", "isolation", "--agents", "3", "--json", "--", "-x")
    assert args.words("ACTION") == ["run", "isolation", "--agents", "3", "--json", "--", "-x"]
    assert args.text("--root") == "/r"
    assert not args.flag("--json")


def test_missing_and_surplus_words_are_named() -> None:
    with pytest.raises(UsageError, match="get needs PATH; see 'prontodb help get'"):
        parsed("get")
    with pytest.raises(UsageError, match="'world' is one word too many: set takes PATH"):
        parsed("set", "k", "hello", "world")


def test_words_that_may_be_left_out_take_what_the_others_leave() -> None:
    short, long = parsed("cas", "k", "new"), parsed("cas", "k", "old", "new")
    assert (short.maybe("EXPECTED"), short.word("VALUE")) == (None, "new")
    assert (long.maybe("EXPECTED"), long.word("VALUE")) == ("old", "new")
    assert parsed("del", "a", "b", "c").words("PATH") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "argv", [("set", "help"), ("set", "--help"), ("-h", "set"), ("set", "k", "v", "-h"), ("set", "help", "-q")]
)
def test_every_way_to_ask_for_help_is_understood(argv: tuple[str, ...]) -> None:
    line = Line(argv)
    assert line.command() == "set"
    assert "--help" in line.options


@pytest.mark.parametrize("argv", [("get", "--", "help"), ("set", "help", "v"), ("set", "help", "--stdin")])
def test_help_can_be_a_key(argv: tuple[str, ...]) -> None:
    line = Line(argv)
    line.command()
    assert "--help" not in line.options
    assert "help" in line.words


def test_every_command_has_syntax_handler_and_help() -> None:
    for name, (module, handler, summary, _) in COMMANDS.items():
        syntax = syntax_of(name)
        assert callable(getattr(__import__(f"prontodb.cli.{module}", fromlist=("SYNTAX",)), handler))
        assert summary
        assert syntax.about
        assert syntax.examples, name
        assert syntax.options <= set(OPTIONS) - GLOBAL


def test_every_example_is_a_line_that_its_command_understands() -> None:
    lines = [example for name in COMMANDS for example, _ in syntax_of(name).examples]
    # What the shell does around a command is not for us; a line may hold several of ours.
    commands = [found for line in lines for found in re.findall(r"\bprontodb ([^|&<>)]+)", line)]
    assert len(commands) >= len(lines)
    for command in commands:
        parsed(*shlex.split(command))


def test_only_backup_is_a_family_and_a_command() -> None:
    # As upstream wrote it: `backup --output DIR`, `backup --list`.
    assert FAMILIES & set(COMMANDS) == {"backup"}
    assert parsed("backup", "--list").command == "backup"
    with pytest.raises(UsageError, match="'creat' is no action of backup; did you mean create"):
        parsed("backup", "creat")


_WORDS = st.one_of(
    st.sampled_from([*OPTIONS, *COMMANDS, *FAMILIES, "--", "-", "-p", "-x", "--x=y", "=", "", "--user=", "help"]),
    st.text(max_size=5),
)


@given(st.lists(_WORDS, max_size=6))
def test_any_line_is_understood_or_refused_with_a_reason(argv: list[str]) -> None:
    try:
        line = Line(argv)
        name = line.command()
        if name and name not in FAMILIES:
            match(name, syntax_of(name), line)
        reason = None
    except UsageError as error:
        reason = str(error)
    assert reason is None or "; see 'prontodb help" in reason

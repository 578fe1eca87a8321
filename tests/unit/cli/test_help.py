"""help, inspect, version, settings."""

import ast
import platform
import re

import pytest

from prontodb import __version__
from prontodb.cli.commands import COMMANDS, FAMILIES
from prontodb.cli.parsing import OPTIONS
from tests.unit.cli.harness import CHECKOUT, Cli, one_line, tree


def test_the_overview_names_every_command_and_the_exit_codes(cli: Cli) -> None:
    for argv in (("help",), ("--help",), ("-h",)):
        text = cli.ok(*argv).text
        for name in COMMANDS:
            assert f"\n  {name} " in text
        assert "0 done, 1 error, 2 no such key" in text
        assert "\x1b" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(cli: Cli, name: str) -> None:
    words = name.split()
    text = cli.ok("help", *words).text
    assert text.startswith(f"usage: prontodb {name}")
    assert "\nExamples:\n  " in text
    if name != "help":
        for argv in ((*words, "--help"), (*words, "-h"), ("--help", *words), (*words, "help")):
            assert cli.ok(*argv).text == text
    assert tree(cli.root) == {}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_explains_all_its_actions(cli: Cli, family: str) -> None:
    text = cli.ok("help", family).text
    usages = [line for line in text.splitlines() if line.startswith("usage: ")]
    names = [name for name in COMMANDS if name == family or name.startswith(family + " ")]
    assert all(line.startswith(f"usage: prontodb {name}") for line, name in zip(usages, names, strict=True))
    assert cli.ok(family, "--help").text == cli.ok(family, "help").text == text


def test_help_for_what_does_not_exist_gets_near_matches(cli: Cli) -> None:
    assert "did you mean get" in cli.fails("help", "gte")
    assert "did you mean list" in cli.fails("help", "address", "lits")


def test_inspect_lists_commands_for_people_and_programs(cli: Cli) -> None:
    assert [line.split("  ")[0] for line in cli.ok("inspect").lines] == list(COMMANDS)
    rows = {row["name"]: row for row in cli.ok("inspect", "--json").json}
    assert list(rows) == list(COMMANDS)
    assert rows["set"]["usage"].startswith("prontodb set PATH [VALUE]")
    assert "--ttl" in rows["set"]["options"]


def test_version_names_everything_involved(cli: Cli) -> None:
    [versions] = cli.ok("version", "--json").json
    assert versions["prontodb"] == __version__
    assert versions["python"] == platform.python_version()
    assert set(versions) == {"prontodb", "python", "sqlite", "format", "sandbox"}
    assert cli.ok("--version").lines == [f"{name} {value}" for name, value in versions.items()]


def write_settings(cli: Cli, text: str) -> None:
    (cli.root / "registry").mkdir(mode=0o700, exist_ok=True)
    path = cli.root / "registry" / "global_config.json"
    path.write_text(text)
    path.chmod(0o600)


def test_settings_are_shown_with_what_differs(cli: Cli) -> None:
    write_settings(cli, '{"format": 1, "settings": {"max_value_bytes": 10, "nonsense": 1}}')
    outcome = cli.ok("settings", "show")
    assert "max_value_bytes=10" in outcome.lines
    assert "max_value_bytes differs from its default, 16777216" in outcome.err
    assert "'nonsense' does not exist" in outcome.err
    rows = {row["name"]: row for row in cli.ok("settings", "show", "--json").json}
    assert (rows["max_value_bytes"]["value"], rows["max_value_bytes"]["default"]) == (10, 16777216)


def test_settings_limit_what_commands_do(cli: Cli) -> None:
    write_settings(cli, '{"format": 1, "settings": {"max_value_bytes": 10, "max_key_bytes": 16}}')
    cli.ok("set", "k", "0123456789")
    assert "max_value_bytes is 10" in cli.fails("set", "k", "0123456789x")
    assert "max_key_bytes is 16" in cli.fails("set", "k" * 17, "v")
    assert "max_key_bytes is 16" in cli.fails("get", "k" * 17)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1, "settings": {"max_value_bytes": "10"}}', '{"format": 99}',
     '{"format": 1, "format": 1}', '{"format": 1, "settings": {"wait_s": NaN}}', "[" * 100_000, "x" * 2_000_000],
)  # fmt: skip
def test_a_wrong_settings_file_stops_every_command(cli: Cli, text: str) -> None:
    write_settings(cli, text)
    before = tree(cli.root)
    assert "global_config.json" in cli.fails("settings", "check")
    for argv in (("set", "k", "v"), ("get", "k"), ("keys",), ("address", "list")):
        assert "global_config.json" in cli.fails(*argv)
    assert tree(cli.root) == before


def test_right_settings_are_called_right(cli: Cli) -> None:
    assert one_line(cli.ok("settings", "check").err) == "the settings are right"
    assert cli.ok("settings", "check", "-q").err == ""


def test_every_command_and_option_that_any_text_names_exists() -> None:
    unknown = []
    for path in sorted((CHECKOUT / "prontodb" / "cli").glob("*.py")):
        if path.name == "stressing.py":
            continue  # it shows the harness's own options
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z-]*[a-z]", node.value):
                unknown += [] if option in OPTIONS else [option]
            # Options of every command may stand before it.
            for first, second in re.findall(r"\bprontodb (?:--\w+ \S+ )*([a-z][a-z-]*)(?: ([a-z]+))?", node.value):
                name = f"{first} {second}".strip() if first in FAMILIES else first
                unknown += [] if name in COMMANDS else [name]
    assert unknown == []


def test_the_reference_names_every_command() -> None:
    text = (CHECKOUT / "ops" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if not re.search(rf"`{name}\b", text)] == []

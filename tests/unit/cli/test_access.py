"""access: the rules at the command line, and every command that asks them."""

import os
import sys
from pathlib import Path

import pytest

from prontodb.cli.commands import COMMANDS
from tests.unit.cli.harness import Cli, environment, spawn, tree

OPERATOR = ("--principal", "operator")
AGENT = ("--principal", "agent")


@pytest.fixture
def ruled(cli: Cli) -> Cli:
    """A root where agent may read and write a. at agent/prod, and nothing else."""
    cli.ok("--user", "agent", "--cursor", "prod", "set", "a.n", "1")
    cli.ok("--user", "agent", "--cursor", "prod", "set", "b.n", "1")
    cli.ok("access", "add", "operator", "*", "read,write,admin")
    cli.ok(*OPERATOR, "access", "add", "agent", "agent/prod", "read,write", "--prefix", "a.")
    return cli


def test_rules_are_listed_added_and_removed(ruled: Cli) -> None:
    assert ruled.ok("access", "list").lines == [
        "operator */* read,write,admin",
        "agent agent/prod read,write --prefix 'a.'",
    ]
    [_, agent] = ruled.ok("access", "list", "--json").json
    assert agent == {"principal": "agent", "addresses": "agent/prod", "prefix": "a.", "rights": ["read", "write"]}
    assert "there already" in ruled.ok(*OPERATOR, "access", "add", "operator", "*", "admin,read,write").err
    ruled.ok(*OPERATOR, "access", "remove", "agent", "agent/prod", "read,write", "--prefix", "a.")
    assert "no such grant" in ruled.fails(*OPERATOR, "access", "remove", "agent", "agent/prod", "read")
    assert "--yes" in ruled.fails(*OPERATOR, "access", "remove", "operator", "*", "read,write,admin")
    done = ruled.ok(*OPERATOR, "access", "remove", "operator", "*", "read,write,admin", "--yes")
    assert "open to everybody" in done.err
    assert ruled.ok("access", "list").lines == []


def test_the_first_grant_is_refused_with_the_command_that_would_be_right(cli: Cli) -> None:
    message = cli.fails("access", "add", "agent", "agent/*", "read")
    assert "prontodb access add NAME '*' read,write,admin" in message
    assert cli.ok("access", "list").lines == []


@pytest.mark.parametrize(
    "words",
    [("a b", "*", "read"), ("a", "a/**", "read"), ("a", "a", "read"), ("a", "*", "own"), ("a", "*", ""),
     ("_x", "*", "read")],
)  # fmt: skip
def test_a_grant_that_makes_no_sense_is_refused(cli: Cli, words: tuple[str, ...]) -> None:
    cli.fails("access", "add", *words)
    assert tree(cli.root) == {}


WHERE = ("--user", "agent", "--cursor", "prod")

DENIED: dict[str, tuple[str, ...]] = {
    "set": (*WHERE, "set", "b.k", "v"),
    "get": (*WHERE, "get", "b.n"),
    "del": (*WHERE, "del", "a.n", "b.n"),
    "delete": (*WHERE, "delete", "b.n"),
    "incr": (*WHERE, "incr", "b.n"),
    "cas": (*WHERE, "cas", "b.n", "1", "2"),
    "copy": (*WHERE, "copy", "b.n", "a.stolen"),
    "keys": (*WHERE, "keys"),
    "scan": (*WHERE, "scan", "--prefix", "b."),
    "ls": (*WHERE, "ls"),
    "projects": (*WHERE, "projects"),
    "namespaces": (*WHERE, "namespaces"),
    "nss": (*WHERE, "nss"),
    "watch": (*WHERE, "watch", "b.", "--timeout", "0.1"),
    "ttl": (*WHERE, "ttl", "b.n"),
    "persist": (*WHERE, "persist", "b.n"),
    "touch": (*WHERE, "touch", "b.n"),
    "create-cache": (*WHERE, "create-cache", "b", "5m"),
    "address show": ("address", "show", "agent/prod"),
    "address create": ("address", "create", "agent/new"),
    "address rename": ("address", "rename", "agent/prod", "agent/new"),
    "address delete": ("address", "delete", "agent/prod", "--yes"),
    "address history": ("address", "history", "agent/prod", "on"),
    "address check": ("address", "check", "agent/prod"),
    "address encrypt": ("address", "encrypt", "agent/prod"),
    "address decrypt": ("address", "decrypt", "agent/prod"),
    "address rekey": ("address", "rekey", "agent/prod"),
    "run": ("--user", "other", "run", "--", "true"),
    "audit verify": ("audit", "verify"),
    "audit show": (*WHERE, "audit", "show"),
    "audit anchors": ("audit", "anchors"),
    "audit accept": ("audit", "accept", "agent/prod", "--yes"),
    "backup": ("backup",),
    "backup create": (*WHERE, "backup", "create"),
    "backup list": ("backup", "list"),
    "backup show": ("backup", "show", "x"),
    "backup verify": ("backup", "verify"),
    "backup prune": ("backup", "prune"),
    "restore": (*WHERE, "restore", "--yes"),
    "jobs list": ("jobs", "list"),
    "jobs once": ("jobs", "once", "sweep"),
    "jobs pause": ("jobs", "pause"),
    "jobs resume": ("jobs", "resume"),
    "jobs history": ("jobs", "history"),
    "export": (*WHERE, "export", "b."),
    "import": (*WHERE, "import"),
    "migrate": ("migrate", "/nothing/there"),
    "doctor": ("doctor",),
    "access add": ("access", "add", "agent", "agent/prod", "admin"),
    "access remove": ("access", "remove", "operator", "*", "read,write,admin"),
    "secret import": ("secret", "import", "/nothing/there"),
    "secret rotate": ("secret", "rotate", "--with-key-file", "/nothing/there"),
    "token mint": ("token", "mint", "agent/prod", "--by", "agent"),
    "token revoke": ("token", "revoke", "agent/prod"),
}
NOTED = ("registry/locks", "registry/denied.log")
UNGUARDED = {
    "address list", "cursor list", "session list", "session show", "session end",  # show what the caller may know of
    "cursor active", "jobs run", "settings show", "settings check", "version", "inspect", "help",
    "secret make", "secret list", "secret export",  # make what is no root's; show what the caller may know of
    "access list", "access explain", "token narrow", "token show",  # tell of rules and tokens alone
    "stress",  # in roots of its own
}  # fmt: skip
STDIN = b'{"key": "b.k", "value": "v"}\n'


def test_every_command_is_guarded_or_said_not_to_be() -> None:
    assert DENIED.keys() | UNGUARDED == COMMANDS.keys()
    assert not DENIED.keys() & UNGUARDED


@pytest.mark.parametrize("name", DENIED)
def test_a_command_that_is_denied_does_nothing(ruled: Cli, name: str) -> None:
    stdin = STDIN if name == "import" else None
    before = {path: seen for path, seen in tree(ruled.root).items() if not path.startswith(NOTED)}
    for who, said in ((AGENT, "principal 'agent' may not"), ((), "a caller without a principal may not")):
        message = ruled.fails(*who, *DENIED[name], stdin=stdin)
        assert message.startswith(said), message
    after = {path: seen for path, seen in tree(ruled.root).items() if not path.startswith(NOTED)}
    assert after == before


@pytest.mark.parametrize("name", [name for name, words in DENIED.items() if words[:4] == WHERE])
def test_what_is_denied_is_said_alike_of_an_address_that_is_not_there(ruled: Cli, name: str) -> None:
    ruled.ok(*OPERATOR, "access", "add", "agent", "agent/none", "read,write", "--prefix", "a.")
    stdin = STDIN if name == "import" else None
    words = DENIED[name][4:]
    said = [
        ruled.fails(*AGENT, "--user", "agent", "--cursor", cursor, *words, stdin=stdin).replace(cursor, "CURSOR")
        for cursor in ("prod", "none")
    ]
    assert said[0] == said[1]


def test_who_has_the_right_does_it(ruled: Cli) -> None:
    ruled.ok(*AGENT, *WHERE, "set", "a.k", "v")
    assert ruled.ok(*AGENT, *WHERE, "get", "a.k").out == b"v"
    assert ruled.ok(*AGENT, *WHERE, "incr", "a.n").lines == ["2"]
    assert ruled.ok(*AGENT, *WHERE, "keys", "--prefix", "a.").lines == ["a.k", "a.n"]
    assert len(ruled.ok(*AGENT, *WHERE, "export", "a.").lines) == 4
    ruled.ok(*AGENT, *WHERE, "del", "a.k")
    ruled.ok(*OPERATOR, "backup", "create")
    ruled.ok(*OPERATOR, "address", "rename", "agent/prod", "agent/old")
    ruled.ok(*OPERATOR, "doctor")


def test_lists_show_what_the_caller_has_a_right_to(ruled: Cli) -> None:
    ruled.ok(*OPERATOR, "--user", "other", "set", "k", "v")
    assert ruled.ok(*OPERATOR, "address", "list").lines == ["agent/prod", "other/_default"]
    assert ruled.ok(*AGENT, "address", "list").lines == ["agent/prod"]
    assert ruled.ok(*AGENT, "--user", "other", "cursor", "list").lines == []
    assert ruled.ok("address", "list").lines == []
    missing = "s-" + "0" * 20
    assert "has ended or never was" in ruled.fails(*AGENT, "session", "show", missing)
    assert "has ended or never was" in ruled.fails(*AGENT, "session", "end", missing)


def test_an_address_is_not_made_under_a_prefix(ruled: Cli) -> None:
    ruled.ok(*OPERATOR, "access", "add", "agent", "agent/*", "write", "--prefix", "a.")
    assert "does not exist" in ruled.fails(*AGENT, "--user", "agent", "--cursor", "new", "set", "a.k", "v")
    ruled.ok(*OPERATOR, "access", "add", "agent", "agent/*", "write")
    ruled.ok(*AGENT, "--user", "agent", "--cursor", "new", "set", "a.k", "v")


# Explaining


def test_a_decision_is_explained(ruled: Cli) -> None:
    assert ruled.ok("access", "explain", "--as", "agent", "set", "agent/prod", "a.x").lines == [
        "allowed",
        "write: yes",
        "  agent: read,write at agent/prod, keys that begin with 'a.': allows it",
    ]
    denied = ruled("access", "explain", "--as", "agent", "incr", "agent/prod", "b.x", "--json")
    assert denied.code == 1
    [found] = denied.json
    assert (found["allowed"], found["address"], found["key"]) == (False, "agent/prod", "b.x")
    assert [right["right"] for right in found["rights"]] == ["read", "write"]
    assert ruled(*AGENT, "access", "explain", "scan", "agent/prod").lines[0] == "denied"
    assert ruled(*OPERATOR, "access", "explain", "backup", "*").lines[0] == "allowed"
    assert "no grant is for everybody" in ruled("access", "explain", "read", "agent/prod", "a.x").text


def test_an_explanation_agrees_with_what_happens(ruled: Cli) -> None:
    for who in ("agent", "operator", "nobody"):
        for key in ("a.n", "b.n"):
            for words in (("get", key), ("set", key, "5"), ("incr", key)):
                explained = ruled("access", "explain", "--as", who, words[0], "agent/prod", key).code
                assert ruled("--principal", who, *WHERE, *words).code == explained, (who, words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fly", "agent/prod"), "no operation"),
        (("get", "agent/prod"), "name it"),
        (("backup", "agent/prod", "k"), "leave the key out"),
        (("get", "agent/prod/x", "k"), "name"),
        (("get", "agent/prod", "k", "--as", "a/b"), "principal"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(ruled: Cli, words: tuple[str, ...], said: str) -> None:
    assert said in ruled.fails("access", "explain", *words)


def test_without_rules_everything_is_allowed_and_the_reason_said(cli: Cli) -> None:
    assert "no grant yet" in cli.ok("access", "explain", "set", "agent/prod", "k").text
    assert tree(cli.root) == {}


# Who asks


def test_the_environment_names_the_principal(ruled: Cli) -> None:
    as_agent = Cli(ruled.root, {"PRONTODB_PRINCIPAL": "agent"})
    assert as_agent.ok(*WHERE, "get", "a.n").out == b"1"
    assert as_agent.ok(*OPERATOR, *WHERE, "get", "b.n").out == b"1"
    assert "from PRONTODB_PRINCIPAL" in Cli(ruled.root, {"PRONTODB_PRINCIPAL": "a b"}).fails(*WHERE, "get", "a.n")


ATTACHED = """
import os, subprocess, sys
prontodb = [sys.executable, "-m", "prontodb"]
print(os.environ.get("PRONTODB_PRINCIPAL"))
print(*(subprocess.run([*prontodb, "set", key, "v"]).returncode for key in ("a.k", "b.k")))
"""


def test_a_run_hands_its_principal_on(ruled: Cli) -> None:
    done = spawn(ruled.root, *AGENT, *WHERE, "run", "--", sys.executable, "-c", ATTACHED, env=environment(ruled.root))
    assert done.lines == ["agent", "0 1"], done
    assert ruled.ok(*OPERATOR, *WHERE, "get", "a.k").out == b"v"


def test_a_run_at_an_address_that_may_not_be_made_makes_none(ruled: Cli) -> None:
    ruled.ok(*OPERATOR, "access", "add", "agent", "agent/*", "write", "--prefix", "a.")
    assert "does not exist" in ruled.fails(*AGENT, "--user", "agent", "--cursor", "new", "run", "--", "true")
    assert not os.path.exists(ruled.root / "addresses" / "agent" / "new")


def test_a_wrong_section_is_named_by_the_check_of_settings(cli: Cli) -> None:
    cli.ok("access", "add", "operator", "*", "read,write,admin")
    cli.ok("settings", "check")
    file = Path(cli.root) / "registry" / "global_config.json"
    file.write_text(file.read_text().replace('"write"', '"rite"'))
    assert "access.grants[0]" in cli.fails("settings", "check")

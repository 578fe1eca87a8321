"""token: minted, narrowed, shown and revoked at the command line, and never in an argument."""

import os
import sys

import pytest

from prontodb.cli.help import syntax_of
from tests.access import authors
from tests.unit.cli.harness import Cli, environment, one_line, spawn, tree

WHERE = ("--user", "agent", "--cursor", "prod")


@pytest.fixture
def token(cli: Cli) -> str:
    cli.ok(*WHERE, "set", "a.n", "1")
    cli.ok(*WHERE, "set", "b.n", "1")
    return minted(cli)


def minted(cli: Cli, *options: str) -> str:
    [line] = cli.ok("token", "mint", "agent/prod", "--rights", "read,write", "--by", "operator", *options).lines
    return line


def holder(cli: Cli, token: str) -> Cli:
    return Cli(cli.root, {"PRONTODB_TOKEN": token})


def test_a_token_opens_what_it_was_minted_for(cli: Cli, token: str) -> None:
    theirs = holder(cli, token)
    assert theirs.ok(*WHERE, "incr", "a.n").lines == ["2"]
    assert "may not read" in theirs.fails("--user", "agent", "--cursor", "test", "get", "a.n")
    for words in (
        ("address", "create", "agent/x"), ("backup",), ("doctor",), ("token", "mint", "agent/prod", "--by", "x"),
        ("access", "add", "x", "*", "admin"), ("token", "revoke", "agent/prod"),
    ):  # fmt: skip
        assert "token" in theirs.fails(*words)
    assert theirs.ok("address", "list").lines == ["agent/prod"]


@pytest.mark.parametrize("how", ["environment", "file", "stdin"])
def test_a_token_is_narrowed_offline_from_wherever_it_comes(cli: Cli, token: str, how: str) -> None:
    away = Cli(cli.root.parent / "elsewhere", {"PRONTODB_TOKEN": token} if how == "environment" else None)
    words = ["token", "narrow", "--prefix", "a.", "--rights", "read", "--expires", "5m", "--by", "planner"]
    if how == "file":
        file = cli.root.parent / "token"
        file.write_text(token + "\n")
        words += ["--token-file", str(file)]
    [lesser] = away.ok(*words, stdin=token.encode() if how == "stdin" else None).lines
    assert tree(away.root) == {}
    theirs = holder(cli, lesser)
    assert theirs.ok(*WHERE, "get", "a.n").out == b"1"
    assert "token of operator>planner may not read" in theirs.fails(*WHERE, "get", "b.n")
    assert "may not write" in theirs.fails(*WHERE, "set", "a.n", "2")
    assert "is not within the token's" in theirs.fails("token", "narrow", "--prefix", "b.")


def test_programs_get_a_token_together_with_what_it_says(cli: Cli, token: str) -> None:
    [made] = cli.ok("token", "mint", "agent/prod", "--by", "operator", "--json").json
    assert (made["address"], made["rights"], made["by"]) == ("agent/prod", ["read"], "operator")
    assert holder(cli, made["token"]).ok(*WHERE, "get", "a.n").out == b"1"
    [lesser] = holder(cli, token).ok("token", "narrow", "--prefix", "a.", "--by", "planner", "--json").json
    assert (lesser["prefix"], lesser["by"]) == ("a.", "operator>planner")
    assert lesser["expires"] == holder(cli, lesser["token"]).ok("token", "show", "--json").json[0]["expires"]


def test_a_token_says_what_it_allows_and_whether_it_is_valid(cli: Cli, token: str) -> None:
    [shown] = holder(cli, minted(cli, "--prefix", "a.")).ok("token", "show", "--json").json
    assert {name: shown[name] for name in ("address", "prefix", "rights", "by", "valid", "reason")} == {
        "address": "agent/prod", "prefix": "a.", "rights": ["read", "write"], "by": "operator", "valid": True,
        "reason": None,
    }  # fmt: skip
    assert "valid: yes" in holder(cli, token).ok("token", "show").lines
    cli.ok("token", "revoke", "agent/prod")
    revoked = holder(cli, token)("token", "show")
    assert revoked.code == 1
    assert "reason: the tokens of this address were revoked" in revoked.lines
    assert "revoked" in holder(cli, token).fails(*WHERE, "get", "a.n")
    elsewhere = Cli(cli.root.parent / "elsewhere", {"PRONTODB_TOKEN": token})("token", "show")
    assert (elsewhere.code, "valid: no" in elsewhere.lines) == (1, True)


def test_a_token_is_never_an_argument_and_never_shown(cli: Cli, token: str) -> None:
    for name in ("token narrow", "token show", "token mint", "token revoke"):
        assert not {"TOKEN", "[TOKEN]"} & set(syntax_of(name).words)
    spoilt = token[:-6] + "AAAAAA"
    for words in ((*WHERE, "get", "a.n"), ("token", "show"), ("token", "narrow", "--by", "x"), (*WHERE, "watch")):
        outcome = holder(cli, spoilt)(*words, "--log", "json")
        assert spoilt[20:60] not in outcome.err + ("" if words[1] == "narrow" else outcome.text)
    message = holder(cli, "not a token at all").fails(*WHERE, "get", "a.n")
    assert "not a token at all" not in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("token", "mint", "agent/prod"), "--by NAME"),
        (("token", "mint", "agent/none", "--by", "x"), "does not exist"),
        (("token", "mint", "agent/prod", "--by", "x>y"), "is not a name"),
        (("token", "mint", "agent/prod", "--by", "x", "--rights", "all"), "no right"),
        (("token", "mint", "agent/prod", "--by", "x", "--expires", "0"), "above zero"),
        (("token", "mint", "agent/prod", "--by", "x", "--prefix", "a.", "--rights", "admin"), "whole addresses"),
        (("token", "narrow"), "nothing was said"),
        (("token", "narrow", "--token-file", "/nothing/there"), "cannot be read: "),
        (("get", "a.n", "--token-file", "/dev/null"), "it is no regular file"),
        (("get", "a.n", "--token-file", "/"), "cannot be read: "),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, token: str, words: tuple[str, ...], said: str) -> None:
    assert said in cli.fails(*words, stdin=token.encode())


def test_a_token_file_is_a_file_and_is_never_waited_for(cli: Cli) -> None:
    fifo, empty = cli.root.parent / "fifo", cli.root.parent / "empty"
    os.mkfifo(fifo)
    empty.touch()
    for file, said in ((fifo, "it is no regular file; pipe it in and name it '-'"), (empty, "holds no token")):
        done = spawn(cli.root, *WHERE, "get", "a.n", "--token-file", str(file))
        assert (done.code, said in one_line(done.err)) == (1, True), done


def test_a_run_hands_its_token_on(cli: Cli, token: str) -> None:
    file = cli.root.parent / "token"
    file.write_text(token)
    program = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'prontodb', 'incr', 'a.n']))"
    words = (*WHERE, "--token-file", str(file), "run", "--", sys.executable, "-c", program)
    assert spawn(cli.root, *words, env=environment(cli.root)).lines == ["2"]
    cli.ok("token", "revoke", "agent/prod")
    assert "revoked" in spawn(cli.root, *words, env=environment(cli.root)).err
    assert cli.ok(*WHERE, "get", "a.n").out == b"2"


ATTACHED = """
import asyncio, os, prontodb
async def main():
    async with prontodb.open() as manager, manager.session("agent", "prod") as ks:
        assert os.environ["PRONTODB_SESSION"].startswith(ks.session_id)
        await ks.set("a.k", "v")
        try:
            await ks.set("b.k", "v")
        except prontodb.errors.DeniedError as error:
            print(error.principal, error.key)
asyncio.run(main())
"""


def test_a_session_attached_to_a_run_goes_by_the_token(cli: Cli, token: str) -> None:
    file = cli.root.parent / "token"
    file.write_text(holder(cli, token).ok("token", "narrow", "--prefix", "a.", "--by", "planner").text)
    words = (*WHERE, "--token-file", str(file), "run", "--", sys.executable, "-c", ATTACHED)
    assert spawn(cli.root, *words, env=environment(cli.root)).lines == ["operator>planner b.k"]
    assert authors(cli.root, "agent/prod")[-1].endswith(" via operator>planner")


def test_a_watch_goes_by_the_token(cli: Cli, token: str) -> None:
    theirs = holder(cli, minted(cli, "--prefix", "a."))
    assert "may not read" in theirs.fails(*WHERE, "watch", "--timeout", "0.1")
    done = theirs(*WHERE, "watch", "a.", "--timeout", "0.1")
    assert (done.code, "may not" in done.err) == (0, False)


@pytest.mark.parametrize("words", [("mint", "agent/prod", "--by", "operator"), ("narrow",)])
def test_a_lifetime_that_no_token_can_have_is_refused_with_what_is_right_for_a_token(
    cli: Cli, token: str, words: tuple[str, ...]
) -> None:
    given = token.encode() if words == ("narrow",) else None
    for lifetime, way_out in (("0", "prontodb token revoke ADDRESS"), ("99999w", "a new one can be minted any time")):
        outcome = cli("token", *words, "--expires", lifetime, stdin=given)
        assert outcome.code != 0
        assert way_out in outcome.err
        assert "entry" not in outcome.err
        assert "ttl" not in outcome.err

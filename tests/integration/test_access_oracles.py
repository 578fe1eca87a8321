"""Who is denied learns nothing: the same line and exit code whether an address, key or record is there or not."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from prontodb.cli.commands import COMMANDS
from prontodb.errors import DeniedError
from prontodb.keystore import Keystore
from prontodb.manager import SessionManager
from prontodb.model.access import Grant
from prontodb.model.operations import OF_HANDLE, OF_MANAGER
from tests.access import no_principal, opened, rule
from tests.integration.test_access import CALLS
from tests.parts import fill
from tests.unit.cli.harness import Cli

__all__ = ["no_principal"]  # the fixture, which every test here uses too

THERE, NOT_THERE = "team/there", "team/nowhere"
NO_RECORD = "0123456789abcdef"
KEY_THERE, KEY_NOT_THERE = "a.there", "a.nowhere"


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root where somebody else has an address with a key, and the caller rights to an address of their own.

    One for all: what is denied changes nothing.
    """
    root = tmp_path_factory.mktemp("ruled") / "root"
    root.mkdir(mode=0o700)
    rule(root, Grant("agent", "agent/*", "", "read,write,admin"))
    fill(root, THERE, {KEY_THERE: "1"})
    fill(root, "agent/own", {"k": "1", "a.there": "1"})
    return root


# The command line. ADDRESS, USER, CURSOR and KEY stand for what is there or not.

AT = ("--user", "USER", "--cursor", "CURSOR")
TO = ("--to-user", "USER", "--to-cursor", "CURSOR")
DENIED: dict[str, list[tuple[str, ...]]] = {
    "set": [(*AT, "set", "KEY", "v"), (*AT, "set", "KEY", "v", "--ttl", "5")],
    "get": [(*AT, "get", "KEY"), (*AT, "get", "KEY", "--json")],
    "del": [(*AT, "del", "KEY")],
    "delete": [(*AT, "delete", "KEY", "KEY.more")],
    "incr": [(*AT, "incr", "KEY")],
    "cas": [(*AT, "cas", "KEY", "1", "2")],
    "copy": [
        (*AT, "copy", "KEY", "--to-user", "agent", "--to-cursor", "own"),
        ("--user", "agent", "--cursor", "own", "copy", "KEY", "k", *TO),
        ("--user", "agent", "--cursor", "own", "copy", "k", "KEY", *TO),
        (*AT, "copy", "--prefix", "KEY", "--to-user", "agent", "--to-cursor", "own"),
        ("--user", "agent", "--cursor", "own", "copy", "--prefix", "KEY", *TO),
        ("--user", "agent", "--cursor", "nowhere", "copy", "--prefix", "KEY", *TO),
        ("--user", "agent", "--cursor", "nowhere", "copy", "k", *TO),
    ],
    "keys": [(*AT, "keys"), (*AT, "keys", "a")],
    "scan": [(*AT, "scan"), (*AT, "scan", "a")],
    "ls": [(*AT, "ls")],
    "projects": [(*AT, "projects")],
    "namespaces": [(*AT, "namespaces", "-p", "a")],
    "nss": [(*AT, "nss")],
    "watch": [(*AT, "watch", "--timeout", "0.1"), (*AT, "watch", "a", "--timeout", "0.1")],
    "ttl": [(*AT, "ttl", "KEY")],
    "persist": [(*AT, "persist", "KEY")],
    "touch": [(*AT, "touch", "KEY", "--ttl", "60")],
    "create-cache": [(*AT, "create-cache", "a", "60")],
    "address show": [("address", "show", "ADDRESS")],
    "address create": [("address", "create", "ADDRESS")],
    "address rename": [
        ("address", "rename", "ADDRESS", "agent/new"),
        ("address", "rename", "agent/own", "ADDRESS"),
        ("address", "rename", "agent/nowhere", "ADDRESS"),
    ],
    "address delete": [("address", "delete", "ADDRESS", "--yes"), ("address", "delete", "ADDRESS")],
    "address encrypt": [("address", "encrypt", "ADDRESS")],
    "address decrypt": [("address", "decrypt", "ADDRESS")],
    "address rekey": [("address", "rekey", "ADDRESS")],
    "address history": [("address", "history", "ADDRESS", "on")],
    "address check": [("address", "check", "ADDRESS")],
    "run": [(*AT, "run", "--", "true"), (*AT, "run", "--sandbox", "--", "true")],
    "backup": [("backup", *AT)],
    "backup create": [("backup", "create", *AT), ("backup", "create", "--user", "USER")],
    "backup show": [("backup", "show", "ADDRESS")],
    "backup verify": [("backup", "verify", "ADDRESS")],
    "backup list": [("backup", "list")],
    "backup prune": [("backup", "prune")],
    "restore": [
        ("restore", *AT, "--yes"),
        ("restore", *AT, "--undo", "--yes"),
        ("restore", *AT, "--redo", "--yes"),
        ("restore", *AT, "--as", "agent/own", "--yes"),
        ("restore", "--user", "agent", "--cursor", "own", "--as", "ADDRESS", "--yes"),
    ],
    "jobs list": [("jobs", "list")],
    "jobs once": [("jobs", "once", "sweep")],
    "jobs pause": [("jobs", "pause")],
    "jobs resume": [("jobs", "resume")],
    "jobs history": [("jobs", "history")],
    "export": [(*AT, "export"), (*AT, "export", "--prefix", "KEY")],
    "import": [(*AT, "import", "LINES"), (*AT, "import", "LINES", "--on-conflict", "replace")],
    "migrate": [("migrate", "ADDRESS")],
    "access add": [("access", "add", "agent", "ADDRESS", "read")],
    "access remove": [
        ("access", "remove", "agent", "ADDRESS", "read"),
        ("access", "remove", "operator", "*", "admin"),
    ],
    "token mint": [
        ("token", "mint", "ADDRESS"),
        ("token", "mint", "ADDRESS", "--by", "x"),
        ("token", "mint", "ADDRESS", "--rights", "admin"),
    ],
    "token revoke": [("token", "revoke", "ADDRESS")],
    "secret export": [("secret", "export", "ADDRESS"), ("secret", "export", NO_RECORD)],
    "secret import": [("secret", "import", "ADDRESS")],
    "secret rotate": [("secret", "rotate", "--with-key-file", "/nowhere")],
    "audit verify": [("audit", "verify", "ADDRESS"), ("audit", "verify")],
    "audit show": [
        ("audit", "show", "ADDRESS"),
        ("audit", "show", "ADDRESS", "--key", "KEY"),
        ("audit", "show", "--denied"),
    ],
    "audit anchors": [("audit", "anchors", "ADDRESS")],
    "audit accept": [("audit", "accept", "ADDRESS", "--yes"), ("audit", "accept", "ADDRESS")],
    "doctor": [("doctor",), ("doctor", "--repair")],
}  # fmt: skip
OPEN = {
    "address list", "cursor list", "cursor active", "session list", "session show", "session end", "access list",
    "access explain", "token narrow", "token show", "secret list", "secret make", "settings show", "settings check",
    "version", "inspect", "help", "jobs run", "stress",
}  # fmt: skip
"""What is not denied as such: it tells only of what the caller has a right to, of rules and settings, or of nothing.

Scheduled jobs are the root's own; the harness works in roots of its own.
"""


def test_every_command_is_tried_or_open() -> None:
    assert DENIED.keys() | OPEN == COMMANDS.keys()
    assert not DENIED.keys() & OPEN


@pytest.mark.parametrize("words", [words for each in DENIED.values() for words in each], ids=" ".join)
def test_a_denied_command_says_the_same_of_what_is_there_and_what_is_not(
    ruled: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = set()
    cli = Cli(ruled, {"PRONTODB_PRINCIPAL": "agent"})
    for address in (THERE, NOT_THERE):
        for key in (KEY_THERE, KEY_NOT_THERE):
            lines = tmp_path / "lines"
            lines.write_text(f'{{"key": "{key}", "value": "2"}}\n')
            user, _, cursor = address.partition("/")
            named = {"ADDRESS": address, "USER": user, "CURSOR": cursor, "KEY": key, "LINES": str(lines)}
            outcome = cli(*(named.get(word, word).replace("KEY.", f"{key}.") for word in words), stdin=b"")
            assert "may not" in outcome.err, (words, outcome)
            told = outcome.err.replace(address, "ADDRESS").replace(key, "KEY")
            said.add((outcome.code, outcome.out, told))
    assert len(said) == 1, said
    assert next(iter(said))[0] == 1
    assert sorted(os.listdir(ruled / "addresses" / "team")) == ["there"]


def test_who_may_not_have_a_key_record_is_not_told_whether_it_exists(root: Path, tmp_path: Path) -> None:
    cli = Cli(root, {"PRONTODB_KEY_FILE": str(tmp_path / "key"), "PRONTODB_PRINCIPAL": "operator"})
    cli.ok("secret", "make", str(tmp_path / "key"))
    cli.ok("address", "create", "team/sealed", "--encrypt")
    [record] = (line["id"] for line in cli.ok("secret", "list", "--json").json)
    rule(root, Grant("lead", "team/*", "", "admin"))
    words = ("secret", "export")
    agent = Cli(root, cli.environment | {"PRONTODB_PRINCIPAL": "agent"})
    assert agent.fails(*words, record) == agent.fails(*words, NO_RECORD)
    assert agent.fails(*words, "team/sealed") == agent.fails(*words, "team/none").replace("none", "sealed")
    lead = Cli(root, cli.environment | {"PRONTODB_PRINCIPAL": "lead"})
    assert lead.ok(*words, record).out
    assert lead.ok(*words, "team/sealed").out
    assert "no key record is of" in lead.fails(*words, "team/none")


# The library

ManagerCall = Callable[[SessionManager, str], Awaitable[object]]


async def exported(manager: SessionManager, address: str) -> None:
    async for _ in manager.export(address):
        pass


async def in_session(manager: SessionManager, address: str, mode: str) -> None:
    user, _, cursor = address.partition("/")
    async with manager.session(user, cursor, mode=mode, wait=0):
        pass


def at(address: str) -> dict[str, Any]:
    user, _, cursor = address.partition("/")
    return {"user": user, "cursor": cursor}


OF_ONE: dict[str, list[ManagerCall]] = {
    "session": [
        lambda manager, address: in_session(manager, address, "exclusive"),
        lambda manager, address: in_session(manager, address, "shared"),
        lambda manager, address: in_session(manager, address, "read"),
    ],
    "create": [lambda manager, address: manager.create(address)],
    "rename": [
        lambda manager, address: manager.rename(address, "agent/new"),
        lambda manager, address: manager.rename("agent/own", address),
        lambda manager, address: manager.rename("agent/nowhere", address),
    ],
    "delete": [lambda manager, address: manager.delete(address)],
    "encrypt": [lambda manager, address: manager.encrypt(address)],
    "decrypt": [lambda manager, address: manager.decrypt(address)],
    "rekey": [lambda manager, address: manager.rekey(address)],
    "keep_history": [lambda manager, address: manager.keep_history(address)],
    "describe": [lambda manager, address: manager.describe(address)],
    "copy": [
        lambda manager, address: manager.copy(address, "agent/own"),
        lambda manager, address: manager.copy(address, "agent/own", keys=[]),
        lambda manager, address: manager.copy(address, "agent/own", keys=[KEY_THERE]),
        lambda manager, address: manager.copy("agent/own", address),
        lambda manager, address: manager.copy("agent/own", address, keys=[]),
        lambda manager, address: manager.copy("agent/own", address, keys=[], on_conflict="replace"),
        lambda manager, address: manager.copy("agent/nowhere", address, prefix="a."),
    ],
    "export": [exported],
    "import_lines": [
        lambda manager, address: manager.import_lines(address, ['{"key": "a.there", "value": "2"}']),
        lambda manager, address: manager.import_lines(
            address, ['{"key": "a.there", "value": "2"}'], on_conflict="replace"
        ),
    ],
    "backup": [
        lambda manager, address: manager.backup(**at(address)),
        lambda manager, address: manager.backup(user=at(address)["user"]),
    ],
    "verify_audit": [lambda manager, address: manager.verify_audit(address)],
    "audit": [lambda manager, address: manager.audit(address)],
    "restore": [
        lambda manager, address: manager.restore(**at(address)),
        lambda manager, address: manager.restore(**at(address), to="agent/own"),
        lambda manager, address: manager.restore(user="agent", cursor="own", to=address),
    ],
    "undo_restore": [
        lambda manager, address: manager.undo_restore(address),
        lambda manager, address: manager.undo_restore(address, redo=True),
    ],
    "mint_token": [lambda manager, address: manager.access.mint(address, by="agent")],
    "revoke_tokens": [lambda manager, address: manager.access.revoke(address)],
}
OF_ROOT: dict[str, ManagerCall] = {
    "backups": lambda manager, _: manager.backups(),
    "verify": lambda manager, address: manager.verify(address),
    "jobs": lambda manager, _: manager.jobs(),
    "job_runs": lambda manager, _: manager.job_runs(),
    "doctor": lambda manager, _: manager.doctor(),
    "sweep": lambda manager, _: manager.sweep(),
    "prune": lambda manager, _: manager.prune(),
    "compact": lambda manager, _: manager.compact(),
    "reap": lambda manager, _: manager.reap(),
    "migrate": lambda manager, address: manager.migrate(f"/nowhere/{address}"),
    "run_job": lambda manager, address: manager.run_job(address),
    "pause_jobs": lambda manager, address: manager.pause_jobs(address),
    "resume_jobs": lambda manager, address: manager.resume_jobs(address),
}


def test_every_method_of_a_manager_is_tried() -> None:
    # A session that the caller may not know of is none: its own tests say so.
    assert OF_ONE.keys() | OF_ROOT.keys() == (OF_MANAGER.keys() | {"session", "copy"}) - {"end_session"}


async def denial_of(call: Awaitable[object]) -> str:
    with pytest.raises(DeniedError) as caught:
        await call
    return str(caught.value)


async def test_a_denied_method_says_the_same_of_what_is_there_and_what_is_not(ruled: Path) -> None:
    async with opened(ruled, "agent") as manager:
        calls = [(name, call) for name, several in OF_ONE.items() for call in several] + list(OF_ROOT.items())
        for name, call in calls:
            said = {(await denial_of(call(manager, one))).replace(one, "ADDRESS") for one in (THERE, NOT_THERE)}
            assert len(said) == 1, (name, said)
    assert sorted(os.listdir(ruled / "addresses" / "team")) == ["there"]


async def test_a_denied_method_of_a_handle_says_the_same_of_a_key_that_is_there_and_one_that_is_not(root: Path) -> None:
    fill(root, THERE, {KEY_THERE: "1", "b.k": "1"})
    rule(root, Grant("agent", THERE, "b.", "read,write"))
    async with opened(root, "agent") as manager, manager.session(**at(THERE)) as ks:
        for name, call in CALLS.items():
            said = {(await denial_of(call(ks, key))).replace(key, "KEY") for key in (KEY_THERE, KEY_NOT_THERE)}
            assert len(said) == 1, (name, said)
        for key in (KEY_THERE, KEY_NOT_THERE):
            async with ks.transaction() as tx:
                with pytest.raises(DeniedError):
                    await tx.get(key)
            with pytest.raises(DeniedError):
                await ks.set(key, "v", expect=0)


def test_the_calls_are_all_there_are() -> None:
    assert CALLS.keys() == OF_HANDLE.keys()
    assert all(inspect.isfunction(getattr(Keystore, name)) for name in CALLS)

"""The log of denied calls says of every denial who it was, where, and what for, whoever it was that refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prontodb.errors import DeniedError
from prontodb.model.access import Grant
from tests import encrypted
from tests.access import no_principal, opened, rule
from tests.parts import fill
from tests.unit.cli.harness import Cli

__all__ = ["no_principal"]  # the fixture, which every test here uses too


def key_told() -> str | None:
    """The key as the log has it; of an encrypted address it has none."""
    return None if encrypted.is_on() else "'k'"


def logged(root: Path) -> list[tuple[Any, ...]]:
    """Return who, where, what and the key of each line, and remove the log."""
    path = root / "registry" / "denied.log"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    assert {line["error"] for line in lines} == {"DeniedError"}
    return [tuple(line.get(name) for name in ("principal", "address", "operation", "key")) for line in lines]


@pytest.fixture
def ruled(root: Path) -> Path:
    fill(root, "agent/prod", {"k": "1"})
    rule(root, Grant("agent", "agent/prod", "own.", "read,write"))
    return root


async def test_a_denial_in_a_program_is_logged_with_who_where_and_what_for(ruled: Path) -> None:
    async with opened(ruled, "operator") as manager:
        token = await manager.access.mint("agent/prod", rights="read,write")
    for principal, shown in (("agent", None), (None, token)):
        async with opened(ruled, principal, token=shown) as manager:
            for call in (
                manager.access.add("x", "team/*", "read"),
                manager.access.remove("operator", "*", "read,write,admin"),
                manager.access.mint("agent/prod", by="x"),
                manager.create("team/new"),
                manager.backup(),
            ):
                with pytest.raises(DeniedError):
                    await call
        who = principal or "operator"
        assert logged(ruled) == [
            (who, "team/*", "admin", None),
            (who, "*/*", "admin", None),
            (who, "agent/prod", "admin", None),
            (who, "team/new", "admin", None),
            (who, "*/*", "read", None),
        ]


async def test_a_write_by_a_revoked_token_is_logged_once_with_whose_it_was(ruled: Path) -> None:
    async with opened(ruled, "operator") as manager:
        token = await manager.access.mint("agent/prod", rights="read,write")
        async with manager.session("agent", "prod", token=token) as ks:
            await manager.access.revoke("agent/prod")
            with pytest.raises(DeniedError, match=r"^the token of operator may not write") as caught:
                await ks.set("k", "2")
    assert caught.value.principal == "operator"
    assert logged(ruled) == [("operator", "agent/prod", "write", key_told())]


def test_a_denial_at_the_command_line_is_logged_with_who_where_and_what_for(ruled: Path) -> None:
    [token] = Cli(ruled, {"PRONTODB_PRINCIPAL": "operator"}).ok("token", "mint", "agent/prod").lines
    for told, who in (({"PRONTODB_PRINCIPAL": "agent"}, "agent"), ({"PRONTODB_TOKEN": token}, "operator")):
        cli = Cli(ruled, told)
        cli.fails("access", "add", "x", "team/*", "read")
        cli.fails("token", "mint", "agent/prod", "--by", "x")
        cli.fails("--user", "agent", "--cursor", "prod", "set", "k", "v")
        cli.fails("backup")
        assert logged(ruled) == [
            (who, "team/*", "access add", None),
            (who, "agent/prod", "token mint", None),
            (who, "agent/prod", "set", key_told()),
            (who, "*/*", "backup", None),
        ]

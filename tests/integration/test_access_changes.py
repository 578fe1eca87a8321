"""Access rules that change while handles are open, and who it is that asks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio
import pytest

from prontodb import access as access_module
from prontodb.errors import ConflictError, DeniedError, InvalidAddressError, InvalidSettingsError
from prontodb.model.access import Grant
from prontodb.model.layout import Layout
from prontodb.registry import grants
from tests.access import OPERATOR, authors, no_principal, opened, rule
from tests.managing import until
from tests.parts import fill
from tests.unit.cli.harness import Cli

__all__ = ["no_principal"]  # the fixture, which every test here uses too


# Rules that change while handles are open


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rules be looked at before every question, as they are once a second otherwise."""
    monkeypatch.setattr(access_module, "LOOK_S", 0.0)


async def test_a_grant_removed_ends_what_an_open_handle_may_do(root: Path, at_once: None) -> None:
    mine = Grant("agent", "agent/*", "", "read,write")
    rule(root, mine)
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "1")
        assert await ks.get("k") == "1"
        grants.remove(Layout(str(root)), mine, principal="operator", wait_s=5)
        for call in (ks.get("k"), ks.set("k", "2"), ks.count()):
            with pytest.raises(DeniedError):
                await call
        rule(root, mine)
        assert await ks.get("k") == "1"


async def test_the_first_grant_closes_handles_that_were_open_before(root: Path) -> None:
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "1")
        rule(root)

        def is_guarded() -> bool:
            return ks._gate is not None

        await until(is_guarded)
        with pytest.raises(DeniedError):
            await ks.get("k")
        async with opened(root, "operator") as operator:
            await operator.access.add("agent", "agent/*", ["read"])
        async with opened(root, "operator") as operator:
            await operator.access.remove("agent", "agent/*", "read")
            await operator.access.remove("operator", "*", "read,write,admin", last=True)
        await until(lambda: ks._gate is None)
        assert await ks.get("k") == "1"


async def test_rules_that_come_while_a_session_waits_to_open_are_not_missed(root: Path) -> None:
    async with opened(root) as first, opened(root, "agent") as manager:
        access = manager.access._guard.access
        refused = []

        async def waiting() -> None:
            async with manager.session("agent", "prod", wait=60) as ks:
                with pytest.raises(DeniedError):
                    await ks.get("k")
                refused.append(True)

        async with anyio.create_task_group() as tasks, first.session("agent", "prod"):
            tasks.start_soon(waiting)
            await anyio.wait_all_tasks_blocked()
            rule(root)
            await until(lambda: access._followed > 0)
        assert refused == [True]


async def test_what_waits_for_changes_ends_with_the_right_to_see_them(root: Path) -> None:
    mine = Grant("agent", "agent/*", "", "read,write")
    rule(root, mine)
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        ended = []
        watch = ks.watch()
        await watch.start()

        async def follow() -> None:
            with pytest.raises(DeniedError):
                await anext(watch)
            ended.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            grants.remove(Layout(str(root)), mine, principal="operator", wait_s=5)
            await until(lambda: bool(ended))


async def test_a_file_that_cannot_be_read_any_more_allows_nothing(root: Path, at_once: None) -> None:
    rule(root, Grant("agent", "agent/*", "", "read,write"))
    file = root / "registry" / "global_config.json"
    sound = file.read_text()
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "1")
        slips = (('"read"', '"reed"'), ('"format": 1', '"format": 9'), ('"access"', '"acess"'))
        for spoilt in ("{", *(sound.replace(right, wrong) for right, wrong in slips)):
            file.write_text(spoilt)
            with pytest.raises(DeniedError, match="access rules cannot be read"):
                await ks.get("k")
            with pytest.raises(DeniedError, match="access rules cannot be read"):
                await manager.create("agent/new")
            assert await manager.addresses() == []
            file.write_text(sound)
            assert await ks.get("k") == "1"


async def test_without_rules_a_broken_file_ends_nobody_but_a_wrong_section_does(root: Path, at_once: None) -> None:
    fill(root, "agent/prod", {"k": "1"})
    file = root / "registry" / "global_config.json"
    file.touch(mode=0o600)
    file.write_text('{"format": 1}')
    async with opened(root) as manager, manager.session("agent", "prod") as ks:
        file.write_text("{")
        manager.access._guard.access.look()
        assert await ks.get("k") == "1"
        file.write_text('{"format": 1, "access": {"grants": 5}}')
        await until(lambda: ks._gate is not None)
        with pytest.raises(DeniedError, match=r"access\.grants"):
            await ks.get("k")
        file.write_text('{"format": 1, "Access": {"grants": []}}')
        with pytest.raises(DeniedError, match="'access' is meant"):
            await manager.create("agent/new")


async def test_a_manager_does_not_open_over_rules_that_are_wrong(root: Path) -> None:
    (root / "registry").mkdir(parents=True, mode=0o700)
    file = root / "registry" / "global_config.json"
    file.touch(mode=0o600)
    for section, said in (("access", r"access\.grants\[0\]"), ("acess", "'access' is meant")):
        file.write_text(json.dumps({"format": 1, section: {"grants": [{"principal": "a"}]}}))
        with pytest.raises(InvalidSettingsError, match=said):
            async with opened(root):
                pass
        for words in (("set", "k", "v"), ("settings", "check"), ("access", "list"), ("doctor", "-q")):
            assert re.search(said, Cli(root)(*words).err), words


# Who asks


async def test_the_environment_names_the_principal(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(root)
    monkeypatch.setenv("PRONTODB_PRINCIPAL", "operator")
    async with opened(root) as manager:
        await manager.create("agent/prod")
    async with opened(root, "agent") as manager:
        with pytest.raises(DeniedError, match="principal 'agent'"):
            await manager.create("agent/prod")
    monkeypatch.setenv("PRONTODB_PRINCIPAL", "")
    async with opened(root) as manager:
        with pytest.raises(DeniedError, match="without a principal"):
            await manager.create("agent/prod")
    monkeypatch.setenv("PRONTODB_PRINCIPAL", "a/b")
    with pytest.raises(InvalidAddressError, match="principal"):
        async with opened(root):
            pass


async def test_the_journal_names_the_principal_where_there_are_rules(root: Path) -> None:
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "1")
        before = ks.session_id
    rule(root, Grant("agent", "agent/*", "", "read,write"))
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "2")
        after = ks.session_id
        await manager.copy(ks, "agent/new")
    assert authors(root, "agent/prod") == [before, f"{after} as agent"]
    assert authors(root, "agent/new") == ["copy as agent"]


async def test_rules_are_changed_through_the_manager(root: Path) -> None:
    async with opened(root, "operator") as manager:
        assert await manager.access.list() == []
        with pytest.raises(ConflictError):
            await manager.access.add("agent", "agent/*", "read")
        assert await manager.access.add("operator", "*", ["read", "write", "admin"])
        assert await manager.access.add("agent", "agent/*", "read", prefix="a.")
        assert await manager.access.list() == [OPERATOR, Grant("agent", "agent/*", "a.", "read")]
        assert await manager.access.remove("agent", "agent/*", "read", prefix="a.")
    async with opened(root, "agent") as manager:
        with pytest.raises(DeniedError):
            await manager.access.add("agent", "agent/*", "read")

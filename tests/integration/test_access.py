"""Access rules as handles and managers keep them: every method and every right."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import prontodb
from prontodb import denials, log
from prontodb.errors import (
    AddressNotFoundError,
    ClosedError,
    DeniedError,
    InvalidInputError,
    SessionNotFoundError,
)
from prontodb.keystore import Keystore
from prontodb.manager import SessionManager
from prontodb.model.access import ADMIN, READ, RIGHTS, WRITE, Grant
from prontodb.model.operations import ADDRESS, KEY, OF_HANDLE, OF_MANAGER, PREFIX, ROOT
from tests.access import no_principal, opened, rule
from tests.parts import fill, value

__all__ = ["no_principal"]  # the fixture, which every test here uses too


@pytest.fixture
def denied() -> Iterator[list[DeniedError]]:
    found: list[DeniedError] = []
    denials.DENIED.append(found.append)
    yield found
    denials.DENIED.remove(found.append)


# Handles

Call = Callable[[Keystore, str], Awaitable[object]]


async def scanned(keystore: Keystore, prefix: str) -> list[object]:
    return [entry async for entry in keystore.scan(prefix)]


async def watched(keystore: Keystore, prefix: str) -> None:
    await keystore.watch(prefix).start()


CALLS: dict[str, Call] = {
    "get": lambda ks, key: ks.get(key),
    "entry": lambda ks, key: ks.entry(key),
    "exists": lambda ks, key: ks.exists(key),
    "get_many": lambda ks, key: ks.get_many(["a.ok", key]),
    "ttl": lambda ks, key: ks.ttl(key),
    "wait_for": lambda ks, key: ks.wait_for(key, lambda _: True, timeout=0),
    "scan": scanned,
    "list_keys": lambda ks, prefix: ks.list_keys(prefix),
    "count": lambda ks, prefix: ks.count(prefix),
    "namespaces": lambda ks, prefix: ks.namespaces(prefix.rstrip(".").partition(".")[0]),
    "watch": watched,
    "projects": lambda ks, _: ks.projects(),
    "namespace_ttls": lambda ks, _: ks.namespace_ttls(),
    "set": lambda ks, key: ks.set(key, "v"),
    "set_many": lambda ks, key: ks.set_many({"a.ok": "v", key: "v"}),
    "delete": lambda ks, key: ks.delete(key),
    "delete_many": lambda ks, key: ks.delete_many(["a.ok", key]),
    "clear": lambda ks, prefix: ks.clear(prefix),
    "set_namespace_ttl": lambda ks, prefix: ks.set_namespace_ttl(prefix.rstrip("."), 60),
    "compare_and_set": lambda ks, key: ks.compare_and_set(key, "1", "2"),
    "increment": lambda ks, key: ks.increment(key),
    "touch": lambda ks, key: ks.touch(key, 60),
    "persist": lambda ks, key: ks.persist(key),
}
WITHOUT_A_RIGHT = {"address", "session_id", "epoch", "cache", "closed", "close", "transaction"}
"""What tells nothing of entries; a transaction asks for each of its own reads and writes."""


def test_every_method_of_a_handle_stands_in_the_table() -> None:
    public = {name for name in vars(Keystore) if not name.startswith("_")}
    assert public == OF_HANDLE.keys() | WITHOUT_A_RIGHT == CALLS.keys() | WITHOUT_A_RIGHT


def test_every_method_of_a_manager_stands_in_the_table() -> None:
    public = {name for name in vars(SessionManager) if not name.startswith("_")}
    unguarded = {"root", "settings", "access", "session", "sessions", "addresses", "copy"}
    assert public == (OF_MANAGER.keys() - {"mint_token", "revoke_tokens"}) | unguarded


@pytest.mark.parametrize("given", [(), *((right,) for right in RIGHTS), (READ, WRITE)], ids=",".join)
async def test_a_handle_does_what_the_rights_to_a_key_or_prefix_allow(root: Path, given: tuple[str, ...]) -> None:
    whole = set(given) == {ADMIN}
    more = [Grant("agent", "agent/prod", "" if whole else "a.", given)] if given else []
    # The session itself needs some right, which is for a key that no call is about.
    rule(root, *more, Grant("agent", "agent/prod", "zz", "read,write"))
    fill(root, "agent/prod", {"a.ok": "1", "a.n": "1", "b.n": "1"})
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        for name, call in CALLS.items():
            needed, of = OF_HANDLE[name]
            allowed = set(needed) <= set(given) and of != ADDRESS
            inside, outside = ("a.n", "b.n") if of == KEY else ("a.", "b.")
            if allowed:
                await call(ks, inside)
                if name == "delete":
                    await ks.set("a.n", "1")
            else:
                with pytest.raises(DeniedError) as caught:
                    await call(ks, inside)
                assert caught.value.right in needed
                assert caught.value.address == "agent/prod"
            for beyond in (outside, "" if of == PREFIX else outside):
                if name == "namespaces" and not beyond:
                    continue
                with pytest.raises(DeniedError):
                    await call(ks, beyond)
            if {READ, WRITE} <= set(given):
                await ks.set_many({"a.ok": "1", "a.n": "1"})
    assert value(root, "agent/prod", "b.n") == "1"


async def test_a_cached_answer_is_asked_about_too(root: Path) -> None:
    rule(root, Grant("agent", "agent/*", "a.", "read,write"), Grant("agent", "agent/*", "w.", "write"))
    fill(root, "agent/prod", {"a.k": "1"})
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        assert [await ks.get("a.k") for _ in range(3)] == ["1", "1", "1"]
        assert ks.cache is not None
        assert ks.cache.hits == 2
        await ks.set("w.k", "1")
        with pytest.raises(DeniedError):
            await ks.get("w.k")


async def test_a_write_that_depends_on_what_is_there_reads(root: Path) -> None:
    rule(root, Grant("agent", "agent/*", "", "write"))
    fill(root, "agent/prod", {"k": "secret"})
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        await ks.set("k", "new")
        with pytest.raises(DeniedError) as caught:
            await ks.set("k", "newer", expect=0)
        assert caught.value.right == READ
    assert value(root, "agent/prod", "k") == "new"


async def test_a_transaction_is_asked_about_where_each_call_stands(root: Path) -> None:
    rule(root, Grant("agent", "agent/*", "r.", "read"), Grant("agent", "agent/*", "w.", "write"))
    fill(root, "agent/prod", {"r.k": "1"})
    async with (
        opened(root, "agent") as manager,
        manager.session("agent", "prod", mode="shared") as ks,
        ks.transaction() as tx,
    ):
        assert await tx.get("r.k") == "1"
        with pytest.raises(DeniedError):
            tx.set("r.k", "2")
        with pytest.raises(DeniedError):
            tx.delete("r.k")
        with pytest.raises(DeniedError):
            await tx.get("w.k")
        tx.set("w.k", "2")
    assert value(root, "agent/prod", "w.k") == "2"


async def test_a_scan_is_denied_rather_than_shortened(root: Path) -> None:
    rule(root, Grant("agent", "agent/*", "a.", "read"), Grant("agent", "agent/*", "b.", "read"))
    fill(root, "agent/prod", {"a.k": "1", "b.k": "1", "c.k": "1"})
    async with opened(root, "agent") as manager, manager.session("agent", "prod", mode="read") as ks:
        assert await ks.list_keys("a.") == ["a.k"]
        with pytest.raises(DeniedError) as caught:
            await ks.list_keys("")
        assert (caught.value.key, caught.value.is_prefix) == (None, True)


@pytest.mark.parametrize("call", [name for name, (_, of) in OF_HANDLE.items() if of == KEY])
async def test_a_denial_is_the_same_whether_the_key_is_there_or_not(root: Path, call: str) -> None:
    rule(root, Grant("agent", "agent/*", "a.", "read,write"))
    fill(root, "agent/prod", {"x.present": "1"})
    said = []
    async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
        for key in ("x.present", "x.missing"):
            with pytest.raises(DeniedError) as caught:
                await CALLS[call](ks, key)
            said.append(str(caught.value).replace(key, "KEY"))
    assert len(set(said)) == 1


# Sessions and addresses


async def test_a_session_takes_a_right_at_the_address(root: Path) -> None:
    rule(root, Grant("reader", "agent/*", "a.", "read"), Grant("writer", "agent/*", "a.", "write"))
    fill(root, "agent/prod", {"a.k": "1"})
    for principal, mode, allowed in (
        ("reader", "read", True),
        ("reader", "shared", False),
        ("reader", "exclusive", False),
        ("writer", "shared", True),
        ("writer", "exclusive", True),
        ("writer", "read", False),
        ("nobody", "read", False),
        (None, "exclusive", False),
    ):
        async with opened(root, principal) as manager:
            if allowed:
                async with manager.session("agent", "prod", mode=mode):
                    continue
            for cursor in ("prod", "missing"):
                with pytest.raises(DeniedError) as caught:
                    async with manager.session("agent", cursor, mode=mode):
                        pass
                assert caught.value.address == f"agent/{cursor}"


async def test_an_address_is_made_by_who_may_write_all_of_it_or_administers_it(root: Path) -> None:
    rule(
        root,
        Grant("part", "agent/*", "a.", "read,write"),
        Grant("whole", "agent/*", "", "write"),
        Grant("maker", "agent/*", "", "admin"),
        Grant("maker", "agent/*", "a.", "write"),
    )
    async with opened(root, "part") as manager:
        with pytest.raises(AddressNotFoundError):
            async with manager.session("agent", "one"):
                pass
        with pytest.raises(DeniedError):
            await manager.create("agent/one")
    for principal in ("whole", "maker"):
        async with opened(root, principal) as manager, manager.session("agent", principal) as ks:
            await ks.set("a.k", "1")


MANAGER_CALLS: dict[str, Callable[[SessionManager, str], Awaitable[object]]] = {
    "create": lambda m, a: m.create(a),
    "rename": lambda m, a: m.rename(a, a + "x"),
    "delete": lambda m, a: m.delete(a),
    "keep_history": lambda m, a: m.keep_history(a),
    "undo_restore": lambda m, a: m.undo_restore(a),
    "describe": lambda m, a: m.describe(a),
    "encrypt": lambda m, a: m.encrypt(a),
    "decrypt": lambda m, a: m.decrypt(a),
    "rekey": lambda m, a: m.rekey(a),
    "audit": lambda m, a: m.audit(a),
    "verify_audit": lambda m, a: m.verify_audit(a),
    "backup": lambda m, a: m.backup(user=a.split("/")[0], cursor=a.split("/")[1]),
    "restore": lambda m, a: m.restore(user=a.split("/")[0], cursor=a.split("/")[1]),
    "import_lines": lambda m, a: m.import_lines(a, ['{"key": "b.k", "value": "v"}']),
    "mint_token": lambda m, a: m.access.mint(a, by="x"),
    "revoke_tokens": lambda m, a: m.access.revoke(a),
    "backups": lambda m, _: m.backups(),
    "verify": lambda m, _: m.verify(),
    "jobs": lambda m, _: m.jobs(),
    "job_runs": lambda m, _: m.job_runs(),
    "doctor": lambda m, _: m.doctor(),
    "sweep": lambda m, _: m.sweep(),
    "prune": lambda m, _: m.prune(),
    "compact": lambda m, _: m.compact(),
    "reap": lambda m, _: m.reap(),
    "migrate": lambda m, _: m.migrate("/nothing/there"),
    "run_job": lambda m, _: m.run_job("sweep"),
    "pause_jobs": lambda m, _: m.pause_jobs(),
    "resume_jobs": lambda m, _: m.resume_jobs(),
}


async def exported(manager: SessionManager, address: str) -> list[str]:
    return [line async for line in manager.export(address, "b.")]


MANAGER_CALLS["export"] = exported


def test_every_method_of_a_manager_is_tried() -> None:
    assert MANAGER_CALLS.keys() == OF_MANAGER.keys() - {"end_session"}


@pytest.mark.parametrize("name", MANAGER_CALLS)
async def test_a_manager_denies_before_it_looks(root: Path, name: str, denied: list[DeniedError]) -> None:
    """One who has every right but the one needed, at addresses that are there and that are not."""
    needed, of = OF_MANAGER[name]
    others = [right for right in RIGHTS if right not in needed]
    rule(root, *([Grant("agent", "*", "", others)] if others else []), Grant("agent", "*", "a.", "read,write"))
    fill(root, "agent/prod", {"b.k": "1"})
    said = []
    async with opened(root, "agent") as manager:
        for address in ("agent/prod", "agent/none"):
            with pytest.raises(DeniedError) as caught:
                await MANAGER_CALLS[name](manager, address)
            assert caught.value.right in needed
            assert denied[-1] is caught.value
            said.append(str(caught.value).replace(address, "ADDRESS"))
    assert len(set(said)) == 1
    assert of != ROOT or "all addresses" in said[0]
    assert value(root, "agent/prod", "b.k") == "1"


NEEDS_MORE = ("undo_restore", "migrate", "encrypt", "decrypt", "rekey")
"""A restore before it, an old database, a key."""


@pytest.mark.parametrize("name", [name for name in MANAGER_CALLS if name not in NEEDS_MORE])
async def test_a_manager_does_it_for_who_has_the_right(root: Path, name: str) -> None:
    needed, of = OF_MANAGER[name]
    pattern = "*" if of == ROOT else "agent/*"
    rule(root, Grant("agent", pattern, "", needed))
    fill(root, "agent/prod", {"a.k": "1"})
    async with opened(root, "operator") as operator:
        await operator.backup(user="agent", cursor="prod")
    async with opened(root, "agent") as manager:
        await MANAGER_CALLS[name](manager, "agent/prod")


async def test_lists_show_what_the_caller_has_any_right_to(root: Path) -> None:
    rule(root, Grant("agent", "agent/*", "a.", "read"), Grant("nobody", "none/none", "", "read"))
    for address in ("agent/prod", "agent/test", "other/prod"):
        fill(root, address, {"k": "1"})
    async with opened(root, "operator") as operator, operator.session("other", "prod") as theirs:
        async with opened(root, "agent") as manager:
            assert [str(row.address) for row in await manager.addresses()] == ["agent/prod", "agent/test"]
            assert await manager.sessions() == []
            # A session at an address that the caller knows nothing of is none.
            for session in (theirs.session_id, "s-" + "0" * 20):
                with pytest.raises(SessionNotFoundError):
                    await manager.end_session(session)
        async with opened(root, "nobody") as manager:
            assert await manager.addresses() == []
        assert [session.id for session in await operator.sessions()] == [theirs.session_id]
        async with operator.session("agent", "prod") as agents, opened(root, "agent") as manager:
            assert [session.id for session in await manager.sessions()] == [agents.session_id]
            with pytest.raises(DeniedError):
                await manager.end_session(agents.session_id)


async def test_a_copy_by_handle_asks_for_whoever_opened_the_manager_too(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rule(root, Grant("agent", "agent/*", "", "read,write,admin"))
    fill(root, "agent/prod", {"k": "1"})
    fill(root, "team/prod", {"k": "theirs"})
    fill(other, "team/prod", {"k": "elsewhere"})
    async with opened(root, "operator") as operator, opened(root, "agent") as agent, opened(other) as stranger:
        token = await operator.access.mint("team/prod", rights="read,write")
        async with agent.session("team", "prod", mode="shared", token=token) as lent, agent.session("agent") as own:
            # By the token it may be read; by the rules of the manager that copies it may not.
            for source, target in ((lent, own), (own, lent), (lent, "agent/new"), ("agent/prod", lent)):
                with pytest.raises(DeniedError, match="agent"):
                    await agent.copy(source, target)
            assert (await agent.copy("agent/prod", own)).copied == 1
            with pytest.raises(InvalidInputError, match="another manager"):
                await operator.copy(own, "agent/new")
        for manager in (operator, stranger):
            async with manager.session("team", "prod") as theirs:
                for source, target in ((theirs, "agent/new"), ("agent/prod", theirs)):
                    with pytest.raises(InvalidInputError, match="is of another manager"):
                        await agent.copy(source, target)
        for source, target in ((own, "agent/new"), ("agent/prod", own), (theirs, "agent/new")):
            with pytest.raises(ClosedError):
                await agent.copy(source, target)
        assert [str(row.address) for row in await agent.addresses()] == ["agent/_default", "agent/prod"]
    assert value(root, "team/prod", "k") == "theirs"


async def test_restore_and_copy_need_the_rights_of_both_sides(root: Path, tmp_path: Path) -> None:
    rule(
        root,
        Grant("agent", "agent/*", "", "read,write,admin"),
        Grant("agent", "shared/*", "pub.", "read,write"),
    )
    fill(root, "agent/prod", {"k": "1"})
    fill(root, "shared/one", {"pub.k": "1", "private": "2"})
    async with opened(root, "operator") as operator:
        await operator.backup()
    async with opened(root, "agent") as manager:
        assert (await manager.copy("shared/one", "agent/new", prefix="pub.")).copied == 1
        assert (await manager.copy("shared/one", "agent/prod", keys=["pub.k"])).copied == 1
        for refused in (
            manager.copy("shared/one", "agent/prod"),
            manager.copy("shared/one", "agent/prod", keys=["pub.k", "private"]),
            manager.copy("shared/none", "agent/prod", keys=["private"]),
            manager.copy("agent/prod", "shared/one", prefix="k"),
            manager.copy("agent/prod", "shared/none", prefix="k"),
            manager.restore(),
            manager.restore(user="shared", cursor="one", to="agent/stolen"),
            manager.restore(user="agent", cursor="prod", to="shared/two"),
            manager.restore(user="shared", into=tmp_path / "elsewhere"),
            manager.backup(),
            manager.backup(user="shared", cursor="one"),
        ):
            with pytest.raises(DeniedError):
                await refused
        with pytest.raises(AddressNotFoundError):
            await manager.copy("shared/one", "shared/none", prefix="pub.")
        assert [str(one.target) for one in (await manager.restore(user="agent", cursor="prod")).restored] == [
            "agent/prod"
        ]
        await manager.undo_restore("agent/prod")
        rule(tmp_path / "guarded")
        with pytest.raises(DeniedError):
            await manager.restore(user="agent", cursor="prod", into=tmp_path / "guarded")
        await manager.restore(user="agent", cursor="prod", into=tmp_path / "elsewhere")
    assert value(tmp_path / "elsewhere", "agent/prod", "k") == "1"


# Telling of denials


async def test_a_denial_is_logged_and_told_without_what_it_is_about(root: Path, denied: list[DeniedError]) -> None:
    rule(root, Grant("agent", "agent/*", "a.", "read,write"))
    events: list[tuple[str, dict[str, object]]] = []
    log.use(lambda name, **fields: events.append((name, fields)))

    def broken(_: DeniedError) -> None:
        raise OSError("a value that must not be told")

    denials.DENIED.insert(0, broken)
    try:
        async with opened(root, "operator") as operator:
            await operator.create("agent/prod")
        async with opened(root, "agent") as manager, manager.session("agent", "prod") as ks:
            with pytest.raises(DeniedError) as caught:
                await ks.set("x\u202e.k", "a secret value")
    finally:
        denials.DENIED.remove(broken)
        log.disable()
    assert denied == [caught.value]
    told = [fields for name, fields in events if name == "access.denied"]
    assert told == [
        {
            "principal": "agent",
            "by_token": False,
            "right": WRITE,
            "address": "agent/prod",
            "key": "'x\\u202e.k'",
            "reason": None,
            "root": str(root),
        }
    ]
    assert ("access.hook_failed", {"reason": "OSError"}) in events
    assert "secret value" not in repr(events)


def test_the_public_face_takes_a_principal_and_a_token() -> None:
    for function in (prontodb.open, prontodb.blocking.open):
        assert {"principal", "token"} <= inspect.signature(function).parameters.keys()

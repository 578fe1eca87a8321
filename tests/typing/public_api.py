"""The public API's types as users see them: checked by mypy, never run."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import assert_type

import prontodb
from prontodb import Address, Change, Entry, Keystore, SessionManager, Settings, blocking
from prontodb.errors import ProntoError, RevisionConflictError
from prontodb.model.reports import CopyReport, ImportReport


async def opening() -> None:
    """A root as text, as a path, or where the environment says."""
    opened: AbstractAsyncContextManager[SessionManager] = prontodb.open()
    assert hasattr(opened, "__aenter__")
    async with prontodb.open(Path("/data"), settings=Settings(durability="relaxed", lanes=2)) as manager:
        assert_type(manager, SessionManager)
        assert_type(manager.root, str)
        assert_type(manager.settings, Settings)
    async with prontodb.open("/data") as manager, manager.session("agent", "prod") as ks:
        assert_type(ks, Keystore)
        assert_type(ks.address, Address)
        assert_type(ks.session_id, str)
    prontodb.open(5)  # type: ignore[arg-type]
    prontodb.open(settings={"lanes": 2})  # type: ignore[arg-type]


async def reading(ks: Keystore) -> None:
    """A miss is None, so it must be looked at."""
    assert_type(await ks.get("k"), str | None)
    assert_type(await ks.entry("k"), Entry | None)
    assert_type(await ks.exists("k"), bool)
    assert_type(await ks.get_many(["a", "b"]), dict[str, str | None])
    assert_type(await ks.list_keys("p"), list[str])
    assert_type(await ks.count(), int)
    assert_type(await ks.ttl("k"), float | None)
    assert_type(await ks.namespaces(), list[str])
    assert_type(await ks.projects(), list[str])
    assert_type(await ks.namespace_ttls(), dict[str, float])
    assert_type([entry.value async for entry in ks.scan("p")], list[str])
    (await ks.get("k")).upper()  # type: ignore[union-attr]
    await ks.get(b"k")  # type: ignore[arg-type]
    await ks.get_many(5)  # type: ignore[arg-type]


async def writing(ks: Keystore) -> None:
    """Strings in; lifetimes as seconds or text."""
    assert_type(await ks.set("k", "v"), int)
    assert_type(await ks.set("k", "v", ttl=90), int)
    assert_type(await ks.set("k", "v", ttl="15m", expect=0), int)
    assert_type(await ks.set_many({"a": "1"}, ttl=0.5), int)
    assert_type(await ks.delete("k"), bool)
    assert_type(await ks.delete_many({"a", "b"}), int)
    assert_type(await ks.clear("p"), int)
    assert_type(await ks.compare_and_set("k", None, "v"), bool)
    assert_type(await ks.increment("n", 5), int)
    assert_type(await ks.touch("k", "never"), bool)
    assert_type(await ks.persist("k"), bool)
    await ks.set_namespace_ttl("ns", None)
    await ks.set("k", 5)  # type: ignore[arg-type]
    await ks.set("k", None)  # type: ignore[arg-type]
    await ks.set("k", "v", 60)  # type: ignore[call-arg]
    await ks.set_many([("a", "1")])  # type: ignore[arg-type]
    await ks.increment("n", 1.5)  # type: ignore[arg-type]


async def following(ks: Keystore) -> None:
    """Changes, waits and transactions."""
    async with ks.transaction() as tx:
        assert_type(await tx.get("k"), str | None)
        assert_type(await tx.exists("k"), bool)
        tx.set("k", "v", ttl="1h")
        tx.delete("k")
    watch = ks.watch("p", since=None)
    assert_type(watch.position, str | None)
    async for change in watch:
        assert_type(change, Change)
        assert_type(change.entry, Entry | None)
    assert_type(await ks.wait_for("k", lambda value: value == "done", timeout=5), str | None)


async def managing(manager: SessionManager) -> None:
    """Addresses as values or text."""
    assert_type(await manager.create("agent/prod"), bool)
    assert_type(await manager.delete(Address("agent", "prod")), bool)
    assert_type([row.state for row in await manager.addresses()], list[str])
    assert_type((await manager.describe("agent/prod")).entries, int)
    assert_type(await manager.copy("a/b", Address("c"), prefix="p", on_conflict="keep"), CopyReport)
    assert_type([line async for line in manager.export("a/b")], list[str])
    assert_type(await manager.import_lines("a/b", [b"{}", "{}"]), ImportReport)
    await manager.create(5)  # type: ignore[arg-type]


def values(entry: Entry, error: RevisionConflictError) -> None:
    """Facts, not to be changed."""
    assert_type(entry.revision, int)
    assert_type(entry.expires_at_ms, int | None)
    assert_type(error.found, int)
    caught: ProntoError = error
    assert isinstance(caught, prontodb.errors.ConflictError)


async def sessions(manager: SessionManager) -> None:
    """Modes and waits; who is there."""
    async with manager.session("a", mode="shared", wait=0, labels={"task": "x"}) as ks:
        assert_type(ks.epoch, int | None)
        assert_type(ks.closed, bool)
        assert_type([found.mode for found in await manager.sessions()], list[str])
        await manager.copy(ks, "b/c")
    assert_type((await manager.end_session("s-1", force=True)).id, str)
    manager.session("a", wait="1")  # type: ignore[arg-type]


async def jobs(manager: SessionManager) -> None:
    """Every job by hand; reports are frozen values."""
    assert_type((await manager.sweep(trust_clock=True)).entries, int)
    assert_type((await manager.backup(full=True, user="a", output="/b", progress=print)).id, str | None)
    assert_type([one.id for one in (await manager.backups()).backups], list[str])
    assert_type((await manager.verify("20261121T")).is_whole, bool)
    assert_type((await manager.prune(dry_run=True)).removed, tuple[str, ...])
    assert_type((await manager.compact()).freed_bytes, int)
    assert_type((await manager.reap()).sessions, tuple[str, ...])
    assert_type([one.is_sound for one in (await manager.verify_audit("a/b")).addresses], list[bool])
    assert_type([one.key for one in await manager.audit("a/b", key="k", since=5, limit=10)], list[str])
    restored = await manager.restore(user="a", cursor="b", to="c/d", at="2026-11-21", into="/other")
    assert_type(restored.restored[0].target, Address)
    assert_type(await manager.undo_restore("a/b"), None)
    assert_type([row.next_at_ms for row in await manager.jobs()], list[int | None])
    await manager.backup(full="yes")  # type: ignore[arg-type]


def blocking_face() -> None:
    """The same names, without await."""
    with blocking.open("/data", settings=Settings()) as manager, manager.session("agent", mode="read") as ks:
        assert_type(manager, blocking.SessionManager)
        assert_type(ks, blocking.Keystore)
        assert_type(ks.get("k"), str | None)
        assert_type(ks.set("k", "v", ttl="15m"), int)
        assert_type([entry.value for entry in ks.scan("p")], list[str])
        assert_type(manager.copy(ks, "b/c"), CopyReport)
        with ks.transaction() as tx:
            assert_type(tx.get("k"), str | None)
            tx.set("k", "v")
        for change in ks.watch():
            assert_type(change, Change)
        ks.get(5)  # type: ignore[arg-type]

"""The manager: opening a root, its addresses, copies, export and import, and what it refuses."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

import prontodb
from prontodb.composition import open_manager
from prontodb.errors import (
    AddressBusyError,
    AddressExistsError,
    AddressNotFoundError,
    InvalidAddressError,
    InvalidInputError,
    InvalidKeyError,
    InvalidSettingsError,
    QuotaExceededError,
    RevisionConflictError,
)
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.holder import Holder
from prontodb.model.settings import Settings
from tests.checking import files_below, root_faults
from tests.managing import managed, ran

FOREVER = float("inf")


async def stored(manager: SessionManager, address: str) -> dict[str, str]:
    where = Address.parse(address)
    async with manager.session(where.user, where.cursor, create=False) as ks:
        return {entry.key: entry.value async for entry in ks.scan()}


async def fill(manager: SessionManager, address: str, count: int = 3, **entries: str) -> None:
    where = Address.parse(address)
    async with manager.session(where.user, where.cursor) as ks:
        values = {f"k{n:04}": str(n) for n in range(count)} | entries
        names = list(values)
        for begin in range(0, len(names), 1_000):
            await ks.set_many({name: values[name] for name in names[begin : begin + 1_000]})


# Opening


async def test_a_root_is_made_when_it_is_missing_and_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with managed(tmp_path / "new" / "root") as manager:
            await fill(manager, "agent/test")
            assert manager.root == str((tmp_path / "new" / "root").resolve())
            modes = {path: stat.S_IMODE(found.st_mode) for path, found in files_below(manager.root)}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o700, 0o600}
    assert modes["addresses/agent/test/keystore.db"] == 0o600
    assert root_faults(str(tmp_path / "new" / "root")) == []


async def test_settings_come_from_the_root_unless_they_are_given(root: Path) -> None:
    (root / "registry").mkdir(mode=0o700)
    config = root / "registry" / "global_config.json"
    config.touch(mode=0o600)
    config.write_text('{"format": 1, "settings": {"max_batch_ops": 7}}')
    async with open_manager(root) as manager:
        assert manager.settings.max_batch_ops == 7
    async with open_manager(root, settings=Settings(max_batch_ops=8)) as manager:
        assert manager.settings.max_batch_ops == 8


@pytest.mark.parametrize(
    "root_given", [5, 1.5, object(), ["/tmp"], b"/tmp/x", "", "relative/path", "/a/${HOME}/b", "/a\x00b"], ids=repr
)
async def test_what_is_no_root_is_refused(root_given: Any) -> None:
    with pytest.raises(InvalidInputError):
        async with open_manager(root_given):
            pass


@pytest.mark.parametrize("settings", [{}, {"lanes": 2}, "full", 5], ids=repr)
async def test_what_are_no_settings_is_refused(root: Path, settings: Any) -> None:
    with pytest.raises(InvalidSettingsError):
        async with open_manager(root, settings=settings):
            pass


async def test_two_managers_of_one_process_share_a_root(root: Path) -> None:
    async with (
        managed(root) as one,
        managed(root) as two,
        one.session("agent", "test", mode="shared") as first,
        two.session("agent", "test", mode="shared") as second,
    ):
        async with anyio.create_task_group() as tasks:
            for ks in (first, second):
                for _ in range(50):
                    tasks.start_soon(ks.increment, "n")
        assert await first.get("n") == await second.get("n") == "100"


# Sessions


async def test_sessions_at_one_address_share_it_and_others_do_not(root: Path) -> None:
    async with (
        managed(root) as manager,
        manager.session("agent", "test", mode="shared") as one,
        manager.session("agent", "test", mode="shared") as two,
        manager.session("agent", "prod") as prod,
        manager.session("other", "test") as other,
        manager.session() as default,
    ):
        await one.set("a", "1")
        assert await two.get("a") == "1"
        assert one.session_id != two.session_id
        for ks in (prod, other, default):
            assert await ks.get("a") is None
        assert str(default.address) == "_default/_default"


async def test_each_change_names_its_session(root: Path) -> None:
    async with (
        managed(root) as manager,
        manager.session("agent", "test", mode="shared") as one,
        manager.session("agent", "test", mode="shared") as two,
    ):
        await one.set("a", "1")
        await two.set("a", "2")
        names = await one._keyspace._engine.beside(lambda: _journal_sessions(root))  # type: ignore[attr-defined]
        assert names == [one.session_id, two.session_id]


def _journal_sessions(root: Path) -> list[str]:
    from prontodb.storage import connection as sqlite

    connection = sqlite.connect(str(root / "addresses/agent/test/keystore.db"), mode=sqlite.READ_ONLY)
    try:
        return [session for (session,) in sqlite.rows(connection, "SELECT session FROM journal ORDER BY rev")]
    finally:
        connection.close()


async def test_a_session_may_ask_for_an_address_that_exists(root: Path) -> None:
    async with managed(root) as manager:
        with pytest.raises(AddressNotFoundError):
            async with manager.session("agent", "test", create=False):
                pass
        assert await manager.addresses() == []
        await manager.create("agent/test")
        async with manager.session("agent", "test", create=False) as ks:
            await ks.set("a", "1")


@pytest.mark.parametrize(
    "user", ["", "a/b", "..", ".", "-x", "_mine", "con", "a" * 65, "ä", "a\x00", None, 5, b"a"], ids=repr
)
async def test_what_is_no_name_is_refused_and_nothing_is_made(root: Path, user: Any) -> None:
    async with managed(root) as manager:
        for names in ((user, "x"), ("x", user)):
            with pytest.raises(InvalidAddressError):
                async with manager.session(*names):
                    pass
    assert not (root / "addresses").exists()


async def test_a_twin_that_differs_in_case_is_refused(root: Path) -> None:
    async with managed(root) as manager:
        await manager.create("agent/test")
        for twin in ("Agent/other", "agent/TEST"):
            with pytest.raises(AddressExistsError, match="case"):
                await manager.create(twin)


# Addresses


async def test_addresses_are_made_listed_described_renamed_and_deleted(root: Path) -> None:
    clock = ManualClock()
    async with managed(root, clock=clock) as manager:
        assert await manager.create("agent/test")
        assert not await manager.create(Address("agent", "test"))
        await fill(manager, "agent/test")
        async with manager.session("agent", "test") as ks:
            await ks.set("soon", "gone", ttl=1)
            clock.advance(2)
        report = await manager.describe("agent/test")
        assert (report.entries, report.expired, report.revision) == (3, 1, 4)
        (row,) = await manager.addresses()
        assert (str(row.address), row.state, row.created_at_ms) == ("agent/test", "active", 1_700_000_000_000)
        await manager.rename("agent/test", "agent/new")
        assert await stored(manager, "agent/new") == {"k0000": "0", "k0001": "1", "k0002": "2"}
        with pytest.raises(AddressNotFoundError):
            await manager.describe("agent/test")
        assert await manager.delete("agent/new")
        assert not await manager.delete("agent/new")
        assert await manager.addresses() == []
    assert root_faults(str(root)) == []


async def test_an_address_in_use_is_neither_deleted_nor_renamed(root: Path) -> None:
    async with managed(root, wait_s=0.01) as manager:
        async with manager.session("agent", "test", mode="shared") as ks:
            await ks.set("a", "1")
            async with manager.session("agent", "test", mode="shared") as other:
                with pytest.raises(AddressBusyError) as caught:
                    await manager.delete("agent/test")
                assert {holder.session for holder in caught.value.holders if isinstance(holder, Holder)} == {
                    ks.session_id,
                    other.session_id,
                }
            with pytest.raises(AddressBusyError, match=ks.session_id):
                await manager.rename("agent/test", "agent/new")
            assert await ks.get("a") == "1"
        await manager.rename("agent/test", "agent/new")
        assert await manager.delete("agent/new")


async def test_an_address_can_be_deleted_and_made_again_and_again(root: Path) -> None:
    async with managed(root) as manager:
        for number in range(5):
            async with manager.session("agent", "test") as ks:
                assert await ks.get("a") is None
                await ks.set("a", str(number))
            assert await manager.delete("agent/test")


@pytest.mark.parametrize("address", ["", "a/b/c", "../x", 5, None, b"a/b", ("a", "b")], ids=repr)
async def test_what_is_no_address_is_refused_everywhere(root: Path, address: Any) -> None:
    async with managed(root) as manager:
        await manager.create("agent/test")
        calls = [
            manager.create(address),
            manager.delete(address),
            manager.rename(address, "agent/new"),
            manager.rename("agent/test", address),
            manager.describe(address),
            manager.copy(address, "agent/new"),
            manager.copy("agent/test", address),
            manager.import_lines(address, []),
        ]
        for call in calls:
            with pytest.raises(InvalidInputError):
                await call
        with pytest.raises(InvalidInputError):
            async for _ in manager.export(address):
                pass
        assert [str(row.address) for row in await manager.addresses()] == ["agent/test"]


async def test_a_damaged_address_stops_no_other(root: Path) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/good")
        await fill(manager, "agent/bad")
    (root / "addresses/agent/bad/keystore.db").write_bytes(b"no database at all" * 1_000)
    async with managed(root) as manager:
        with pytest.raises(prontodb.errors.CorruptError):
            async with manager.session("agent", "bad"):
                pass
        assert len(await stored(manager, "agent/good")) == 3
        assert len(await manager.addresses()) == 2


# Copies


async def test_a_whole_address_is_copied_with_its_lifetimes(root: Path) -> None:
    clock = ManualClock()
    async with managed(root, clock=clock) as manager:
        await fill(manager, "agent/test", 2_500)
        async with manager.session("agent", "test") as ks:
            await ks.set("lives", "60 s", ttl=60)
            await ks.set("expired", "gone", ttl=1)
            clock.advance(10)
        report = await manager.copy("agent/test", "agent/copy")
        assert (report.copied, report.kept, report.absent) == (2_501, 0, 0)
        assert await stored(manager, "agent/copy") == await stored(manager, "agent/test")
        async with manager.session("agent", "copy") as copy:
            assert await copy.ttl("lives") == 50
            assert await copy.ttl("k0000") == FOREVER
    assert root_faults(str(root)) == []


async def test_keys_or_a_prefix_are_copied_alone(root: Path) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/test", 0, **{"a.x": "1", "a.y": "2", "b": "3"})
        for target in ("agent/new", "agent/new"):  # made by the first, met by the second
            await manager.copy("agent/test", target, prefix="a.", on_conflict="replace")
            assert await stored(manager, target) == {"a.x": "1", "a.y": "2"}
        for target in ("agent/keys", "agent/keys"):
            report = await manager.copy("agent/test", target, keys=["b", "a.x", "no", "b"], on_conflict="replace")
            assert (report.copied, report.absent) == (2, 1)
            assert await stored(manager, target) == {"a.x": "1", "b": "3"}


async def test_a_copy_never_overwrites_unless_told(root: Path) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/test", 3)
        await fill(manager, "agent/copy", 0, k0001="mine")
        with pytest.raises(RevisionConflictError):
            await manager.copy("agent/test", "agent/copy")
        assert await stored(manager, "agent/copy") == {"k0001": "mine"}
        report = await manager.copy("agent/test", "agent/copy", on_conflict="keep")
        assert (report.copied, report.kept) == (2, 1)
        assert await stored(manager, "agent/copy") == {"k0000": "0", "k0001": "mine", "k0002": "2"}
        await manager.copy("agent/test", "agent/copy", on_conflict="replace")
        assert (await stored(manager, "agent/copy"))["k0001"] == "1"


@pytest.mark.parametrize("target", ["agent/new", "agent/there"])
async def test_a_wrong_copy_is_refused_alike_whether_the_target_exists_or_not(root: Path, target: str) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/test", 3, a="1", b="2")
        await manager.create("agent/there")
        wrong: list[tuple[type[Exception], dict[str, Any]]] = [
            (InvalidInputError, {"keys": "ab"}),
            (InvalidInputError, {"keys": b"ab"}),
            (InvalidInputError, {"keys": 5}),
            (InvalidInputError, {"keys": ["a"], "prefix": "b"}),
            (InvalidKeyError, {"keys": ["a", 5]}),
            (InvalidKeyError, {"keys": ["a", ""]}),
            (InvalidKeyError, {"prefix": 5}),
            (InvalidKeyError, {"prefix": "a\n"}),
            (InvalidInputError, {"on_conflict": "overwrite"}),
            (InvalidInputError, {"on_conflict": None}),
        ]
        for kind, options in wrong:
            with pytest.raises(kind):
                await manager.copy("agent/test", target, **options)
        assert await stored(manager, "agent/there") == {}
        assert [str(row.address) for row in await manager.addresses()] == ["agent/test", "agent/there"]


async def test_an_address_is_not_copied_onto_itself_nor_from_nowhere(root: Path) -> None:
    async with managed(root) as manager:
        await manager.create("agent/test")
        with pytest.raises(InvalidInputError):
            await manager.copy("agent/test", "agent/test")
        with pytest.raises(AddressNotFoundError):
            await manager.copy("agent/no", "agent/new")
        with pytest.raises(AddressExistsError):
            await manager.copy("agent/test", "agent/TEST")
        assert len(await manager.addresses()) == 1


async def test_a_copy_that_breaks_a_quota_leaves_no_new_address(root: Path) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/test", 20)
    async with managed(root, max_entries=10, max_page=8) as manager:
        with pytest.raises(QuotaExceededError):
            await manager.copy("agent/test", "agent/new")
        assert [str(row.address) for row in await manager.addresses()] == ["agent/test"]
    assert root_faults(str(root)) == []


# Export and import


async def test_what_is_exported_can_be_imported_elsewhere(root: Path) -> None:
    clock = ManualClock()
    async with managed(root, clock=clock) as manager:
        await fill(manager, "agent/test", 1_200, odd="ä\x00\n€", empty="")
        async with manager.session("agent", "test") as ks:
            await ks.set("lives", "60 s", ttl=60)
        lines = [line async for line in manager.export("agent/test")]
        report = await manager.import_lines("agent/new", lines)
        assert report.imported == 1_203
        assert await stored(manager, "agent/new") == await stored(manager, "agent/test")
        async with manager.session("agent", "new") as ks:
            assert await ks.ttl("lives") == 60
        assert len([line async for line in manager.export("agent/test", "k00")]) == len(lines) - 1_103


async def test_a_wrong_import_makes_no_address(root: Path) -> None:
    async with managed(root) as manager:
        for lines in ([b'{"key": 5}'], ["no json"], [b"\xff\xfe"]):
            with pytest.raises(prontodb.errors.InvalidImportError):
                await manager.import_lines("agent/new", lines)
        with pytest.raises(InvalidInputError):
            await manager.import_lines("agent/new", [], on_conflict="maybe")
        assert await manager.addresses() == []
        with pytest.raises(AddressNotFoundError):
            [line async for line in manager.export("agent/no")]


# Limits and doctor


async def test_quotas_are_enforced_and_deleting_always_works(root: Path) -> None:
    async with managed(root, max_entries=3) as manager, manager.session("agent", "test") as ks:
        await ks.set_many({"a": "1", "b": "2", "c": "3"})
        with pytest.raises(QuotaExceededError) as caught:
            await ks.set("d", "4")
        assert (caught.value.quota, caught.value.allowed) == ("max_entries", 3)
        await ks.set("a", "over the same key")
        assert await ks.delete("b")
        await ks.set("d", "4")
    async with managed(root, max_value_bytes=10, max_batch_bytes=2_000) as manager:
        with pytest.raises(prontodb.errors.InvalidImportError, match="max_value_bytes"):
            await manager.import_lines("agent/x", [b'{"key":"a","value":"' + b"v" * 11 + b'"}'])


async def test_the_doctor_finds_a_used_root_well(root: Path) -> None:
    async with managed(root) as manager:
        await fill(manager, "agent/test")
        report = await manager.doctor(deep=True)
    assert [finding for finding in report.findings if finding.level == "error"] == []


USER_PROGRAM = """
import asyncio, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1]) as manager, manager.session("agent") as ks:
        print(await ks.increment("n"))
asyncio.run(main())
"""


def test_a_program_of_a_user_runs_without_a_warning_and_ends(root: Path) -> None:
    assert [ran(USER_PROGRAM, root) for _ in range(2)] == ["1\n", "2\n"]

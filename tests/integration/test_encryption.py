"""Encrypted addresses from their making to their end: nothing plain anywhere, and no kill loses anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite import folders
from prontodb.engine.sqlite.resealing import DECRYPT, ENCRYPT, REKEY, Resealing
from prontodb.errors import (
    AddressBusyError,
    AddressNotFoundError,
    ConflictError,
    CorruptError,
    ProntoError,
    SecretError,
)
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from tests.backups import finished
from tests.managing import environment
from tests.parts import Parts
from tests.roots import CHECKOUT, killed_at
from tests.sealed import VALUE, fill, key_file, layout, managed, planted, values

PROD = "agent1/prod"
STEPS = ("recorded", "staged", "aside", "placed", "emptied")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


async def encryption(manager: SessionManager, address: str = PROD) -> str | None:
    return (await manager.describe(address)).encryption


# Nothing plain


def test_the_command_line_shows_nothing_and_leaves_nothing(root: Path, key: Path, tmp_path: Path) -> None:
    def ran(*words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "prontodb",
            "--root",
            str(root),
            "--user",
            "agent1",
            "--log",
            "json",
            "--debug",
        ]
        known = environment() | {"PRONTODB_KEY_FILE": str(key), "PRONTODB_ENCRYPT": "1"}
        return subprocess.run([*command, *words], input=given, env=known, cwd=CHECKOUT, capture_output=True, text=True)

    stored = ran("set", "planted.key", "--stdin", given=VALUE)
    assert stored.returncode == 0, stored.stderr
    assert VALUE not in stored.stderr
    assert ran("get", "planted.key").stdout == VALUE
    assert ran("backup", "create", "--full").returncode == 0
    assert planted(root) == []
    core = ran("run", "--", sys.executable, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])")
    assert core.returncode == 0, core.stderr
    assert VALUE not in core.stderr


# Encrypt, decrypt, rekey


async def test_an_address_is_encrypted_rekeyed_and_plain_again_with_all_it_holds(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
        async with manager.session("agent1", "prod") as ks:
            await ks.set_namespace_ttl("n", "2h")
            await ks.set("n.k", "v", ttl="1h")
            before = {entry.key: entry async for entry in ks.scan()}
        assert await encryption(manager) is None
        names = []
        for change in (manager.encrypt, manager.rekey, manager.rekey, manager.decrypt, manager.encrypt):
            report = await change(PROD)
            assert report.entries == len(before)
            async with manager.session("agent1", "prod") as ks:
                assert {entry.key: entry async for entry in ks.scan()} == before
                assert await ks.namespace_ttls() == {"n": 7_200}
            names.append(report.encryption)
            assert bool(planted(root)) == (report.encryption is None)
            audit = await manager.verify_audit(PROD)
            assert audit.is_sound, audit
        record = str(names[0]).partition("-")[0]
        assert names == [f"{record}-1", f"{record}-2", f"{record}-3", None, f"{record}-4"]
        assert (await manager.doctor(deep=True)).findings == ()


async def test_what_cannot_be_changed_is_said_and_nothing_is(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
        with pytest.raises(ConflictError, match="is not encrypted; to encrypt it: prontodb address encrypt"):
            await manager.rekey(PROD)
        with pytest.raises(ConflictError, match="is not encrypted"):
            await manager.decrypt(PROD)
        with pytest.raises(AddressNotFoundError):
            await manager.encrypt("nobody/here")
        await manager.encrypt(PROD)
        with pytest.raises(ConflictError, match="encrypted already; to give it a new secret"):
            await manager.encrypt(PROD)
        async with manager.session("agent1", "prod"):
            with pytest.raises(AddressBusyError):
                await manager.rekey(PROD)
    async with managed(root, None) as manager:
        with pytest.raises(SecretError, match="no key was brought"):
            await manager.create("agent2/prod", encrypted=True)
        assert [str(row.address) for row in await manager.addresses()] == [PROD]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("what", [ENCRYPT, DECRYPT, REKEY])
async def test_a_kill_at_any_step_leaves_the_old_keystore_or_the_new_one(
    root: Path, key: Path, what: str, step: str
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=what != ENCRYPT)
        await fill(manager, PROD)
        await manager.backup(full=True)
        await manager.restore(user="agent1", cursor="prod")  # so that something is put aside
        before, held = await encryption(manager), await values(manager, PROD)
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    with killed_at(f"{what}.{step}"):
        finished(Resealing(parts.lifecycle, parts.clock, Address.parse(PROD), what).steps())
    async with managed(root, KeyFile(key)) as manager:
        assert await values(manager, PROD) == held
        is_new = step in ("placed", "emptied")
        assert (await encryption(manager) != before) == is_new
        assert (await manager.doctor(deep=True, repair=True)).findings == ()
        if what == ENCRYPT and is_new:
            assert planted(root / "addresses") == []
        if what == DECRYPT and is_new:
            await manager.encrypt(PROD)
        elif not is_new:
            finished(Resealing(parts.lifecycle, parts.clock, Address.parse(PROD), what).steps())
        assert await values(manager, PROD) == held
        assert (await manager.verify()).is_whole
    *kept, last = sorted(path.name for path in (root / "addresses/agent1").iterdir())
    assert last == "prod"
    # What the restore put aside stays where its secret does; nothing else is left.
    assert kept == folders.kept(Layout(str(root)), Address.parse(PROD))
    assert len(kept) == (0 if what == ENCRYPT or (what == DECRYPT and is_new) else 1)


def test_every_step_has_a_name_that_the_test_above_knows(root: Path, key: Path) -> None:
    from prontodb.engine.sqlite import lifecycle

    seen: list[str] = []
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    parts.lifecycle.create(Address.parse(PROD), encrypted=True)
    lifecycle.FAILPOINT.append(seen.append)
    try:
        finished(Resealing(parts.lifecycle, parts.clock, Address.parse(PROD), REKEY).steps())
    finally:
        lifecycle.FAILPOINT.remove(seen.append)
    assert tuple(seen) == tuple(f"rekey.{step}" for step in STEPS)


# Wrong, missing and lost keys


async def test_a_wrong_or_missing_key_changes_nothing_and_stops_no_other_address(
    root: Path, tmp_path: Path, key: Path
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
    async with managed(root, None) as manager:
        await fill(manager, "agent2/plain")
    before = {path: path.read_bytes() for path in (root / "addresses/agent1/prod").iterdir()}
    for source, said in ((None, "no key was brought"), (KeyFile(key_file(tmp_path, "other")), "wrong key or damaged")):
        async with managed(root, source) as manager:
            with pytest.raises(SecretError, match=said):
                async with manager.session("agent1", "prod"):
                    pass
            for refused in (manager.describe(PROD), manager.rekey(PROD), manager.copy(PROD, "agent3/x")):
                with pytest.raises(SecretError, match=said):
                    await refused
            assert (await values(manager, "agent2/plain"))["planted.key.1"] == f"{VALUE}1"
            report = await manager.backup(full=True)
            assert [name for name, _ in report.failed] == [PROD]
            (finding,) = (await manager.doctor()).findings
            assert said in finding.what
            assert [str(row.address) for row in await manager.addresses()] == [PROD, "agent2/plain"]
    assert {path: path.read_bytes() for path in (root / "addresses/agent1/prod").iterdir()} == before


async def test_a_lost_record_is_named_and_an_export_brings_all_back(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
    (record,) = (root / "keys").glob("*.json")
    kept = record.read_bytes()
    record.unlink()
    async with managed(root, KeyFile(key)) as manager:
        with pytest.raises(SecretError, match=r"is gone.*secret import FILE"):
            await values(manager, PROD)
        (finding,) = (await manager.doctor()).findings
        assert "its key record is gone" in finding.what
    Keyring(str(root), KeyFile(key)).imported(kept, None)
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20


async def test_an_address_opens_though_its_metadata_is_lost(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
        await manager.rekey(PROD)
    (root / "addresses/agent1/prod/metadata.json").unlink()
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20


async def test_a_flipped_bit_is_noticed_whatever_it_hits(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
    path = root / "addresses/agent1/prod/keystore.db"
    whole = path.read_bytes()
    for at in range(20, len(whole), len(whole) // 12):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = Parts(root)
        found.book._layout = layout(root, key)
        assert found.book.check(Address.parse(PROD), deep=True), at
    path.write_bytes(whole)
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20


# The end


async def test_deleting_destroys_the_key_first_and_no_backup_opens_any_more(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
        await manager.backup(full=True)
        (record,) = (root / "keys").glob("*.json")
        assert await manager.delete(PROD)
        assert not record.exists()
        with pytest.raises(SecretError, match="destroyed with its address"):
            await manager.restore(user="agent1", cursor="prod")
        report = await manager.verify()
        assert report.is_whole  # the files are as they were written
        assert [address for address, _ in report.untried] == [PROD]
        await fill(manager, PROD)  # the name is free again


@pytest.mark.parametrize("step", ["delete.marked", "delete.shredded", "delete.moved", "delete.forgotten"])
async def test_a_killed_deletion_is_finished_once_the_key_is_gone(root: Path, key: Path, step: str) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    with killed_at(step):
        parts.lifecycle.delete(Address.parse(PROD))
    async with managed(root, KeyFile(key)) as manager:
        assert [str(row.address) for row in await manager.addresses()] == ([PROD] if step == "delete.marked" else [])
        assert (await manager.doctor(repair=True)).findings == ()


# Backups across all of it


async def test_backups_of_every_secret_restore_until_it_is_dropped(root: Path, tmp_path: Path, key: Path) -> None:
    clock = ManualClock()
    ids: list[str] = []
    async with managed(root, KeyFile(key), clock) as manager:
        await fill(manager, PROD, mark="plain")
        for what in (None, manager.encrypt, manager.rekey, manager.decrypt, manager.encrypt):
            if what is not None:
                await what(PROD)
                await fill(manager, PROD, mark=f"-{len(ids)}-")
            clock.advance(1)
            report = await manager.backup()
            clock.advance(1)
            await fill(manager, PROD, 3, mark=f"-{len(ids)}-late-")
            later = await manager.backup()
            assert report.id is not None
            assert later.id is not None
            assert later.segments == 1
            ids += [report.id, later.id]
        assert (await manager.verify()).is_whole
        for number, backup in enumerate(ids):
            await manager.restore(backup, user="agent1", cursor="prod")
            mark = "late" if number % 2 else "plain" if number == 0 else "-"
            assert mark in (await values(manager, PROD))["planted.key.1"]
            assert await encryption(manager), "what is encrypted stays so"
            clock.advance(1)
        await manager.restore(ids[3], user="agent1", cursor="prod", into=tmp_path / "other")
        await manager.rekey(PROD, drop_older=True)
        with pytest.raises(SecretError, match="was dropped"):
            await manager.restore(ids[3], user="agent1", cursor="prod")
        await manager.restore(ids[0], user="agent1", cursor="prod")
    async with managed(tmp_path / "other", KeyFile(key)) as manager:
        assert "late" in (await values(manager, PROD))["planted.key.1"]


async def test_a_segment_opens_for_its_own_address_alone(root: Path, key: Path) -> None:
    clock = ManualClock()
    async with managed(root, KeyFile(key), clock) as manager:
        for name in ("agent1/a", "agent1/b"):
            await manager.create(name, encrypted=True)
            await fill(manager, name)
        await manager.backup(full=True)
        clock.advance(1)
        for name in ("agent1/a", "agent1/b"):
            await fill(manager, name, 3, "new")
        report = await manager.backup()
        folder = Path(str(report.path))
        files = sorted(folder.glob("*.zst"))
        assert len(files) == 2
        shutil.copy(files[0], files[1])
        found = await manager.verify(report.id)
        assert [backup for backup, _ in found.problems] == [report.id]
        with pytest.raises(CorruptError):
            await manager.restore(report.id, user="agent1", cursor="b")


async def test_undo_brings_nothing_plain_back_into_an_encrypted_address(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
        await manager.backup(full=True)
        await manager.restore(user="agent1", cursor="prod")
        await manager.encrypt(PROD)
        with pytest.raises(ProntoError, match="nothing to undo"):
            await manager.undo_restore(PROD)
        assert planted(root / "addresses") == []


async def changed_and_restored(manager: SessionManager) -> None:
    """Encrypted, backed up, changed, and restored: the change is what an undo brings back."""
    await manager.create(PROD, encrypted=True)
    await fill(manager, PROD)
    await manager.backup(full=True)
    await fill(manager, PROD, mark="later")
    await manager.restore(user="agent1", cursor="prod")


@pytest.mark.parametrize("what", ["rekey", "decrypt"])
async def test_an_undo_reaches_behind_a_new_secret(root: Path, key: Path, what: str) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await changed_and_restored(manager)
        report = await (manager.rekey(PROD) if what == "rekey" else manager.decrypt(PROD))
        assert report.forgotten == 0
        restored = await values(manager, PROD)
        await manager.undo_restore(PROD)
        undone = await values(manager, PROD)
        assert undone == {name: text.replace(VALUE, f"{VALUE}later") for name, text in restored.items()} != restored
        assert (await manager.describe(PROD)).encryption is not None
        await manager.undo_restore(PROD, redo=True)
        assert await values(manager, PROD) == restored


async def test_what_a_forgotten_secret_opened_is_no_longer_kept(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await changed_and_restored(manager)
        assert (await manager.rekey(PROD, drop_older=True)).forgotten == 1
        with pytest.raises(ProntoError, match="nothing to undo"):
            await manager.undo_restore(PROD)


async def test_an_undo_after_a_killed_rekey_undoes_the_restore(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await changed_and_restored(manager)
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    # Killed between its two renames: the last one put aside is what the rekey was to replace.
    here = root / "addresses" / PROD
    here.rename(here.with_name(".old-prod@9999999999999-abcdefx"))
    assert parts.lifecycle.undo_restore(Address.parse(PROD))
    async with managed(root, KeyFile(key)) as manager:
        assert all(text.startswith(f"{VALUE}later") for text in (await values(manager, PROD)).values())


async def test_a_copy_of_an_encrypted_address_is_encrypted_under_a_secret_of_its_own(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
        await manager.copy(PROD, "agent2/copy")
        await manager.rename("agent2/copy", "agent3/moved")
        ours, theirs = await encryption(manager), await encryption(manager, "agent3/moved")
        assert ours is not None
        assert theirs is not None
        assert ours.partition("-")[0] != theirs.partition("-")[0]
        assert await manager.delete(PROD)
        assert len(await values(manager, "agent3/moved")) == 20
        (record,) = [Keyring(str(root), None).record(name) for name in Keyring(str(root), None).ids()]
        assert record.address == "agent3/moved"


async def test_what_replaces_a_keystore_right_after_a_session_is_no_swap(root: Path, key: Path) -> None:
    """The anchor of a session is written a moment after its end: not any more where another keystore lies by then."""
    async with managed(root, KeyFile(key)) as manager:
        for change in ("encrypt", "rename", "delete"):
            await fill(manager, PROD, mark=change)
            if change == "encrypt":
                await manager.encrypt(PROD)
            elif change == "rename":
                await manager.rename(PROD, "agent2/moved")
            else:
                await manager.delete(PROD)
                await manager.create(PROD)
    async with managed(root, KeyFile(key)) as manager:
        report = await manager.verify_audit()
        assert report.is_sound, report

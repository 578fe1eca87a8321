"""Whose key record is whose: no address opens, destroys or leaves behind another's, and no kill confuses two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb.encryption.keyring import Keyring
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite.resealing import ENCRYPT, Resealing
from prontodb.errors import BusyError, ProntoError, SecretError
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from prontodb.storage import lock
from tests.backups import finished
from tests.parts import Parts
from tests.roots import killed_at
from tests.sealed import fill, key_file, keyring, layout, managed, values
from tests.unit.cli.harness import Cli

PROD, OTHER = "agent1/prod", "agent1/other"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


@pytest.fixture
def cli(root: Path, key: Path) -> Cli:
    return Cli(root, {"PRONTODB_KEY_FILE": str(key)})


def parts_of(root: Path, key: Path) -> Parts:
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    return parts


def folder_of(root: Path, address: str) -> Path:
    return root / "addresses" / address


def named(root: Path, address: str) -> str:
    return str(json.loads((folder_of(root, address) / "metadata.json").read_text())["encryption"])


def say(root: Path, address: str, name: object) -> None:
    path = folder_of(root, address) / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encryption": name}))


async def two(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        for address in (PROD, OTHER):
            await manager.create(address, encrypted=True)
            await fill(manager, address)
        await manager.backup(full=True)


def records(root: Path) -> dict[str, list[str]]:
    """The records there are, and whose they are."""
    ring = Keyring(str(root), None)
    return {name: list(ring.record(name).addresses) for name in ring.ids()}


# Another's record


@pytest.mark.parametrize("command", ["get", "rekey", "decrypt", "lend", "export", "copy"])
async def test_naming_another_address_in_the_metadata_opens_nothing(
    root: Path, key: Path, cli: Cli, command: str
) -> None:
    await two(root, key)
    for name in ("keystore.db", "metadata.json"):
        shutil.copy(folder_of(root, OTHER) / name, folder_of(root, PROD) / name)
    words = {
        "get": ("--user", "agent1", "--cursor", "prod", "get", "planted.key.1"),
        "rekey": ("address", "rekey", PROD),
        "decrypt": ("address", "decrypt", PROD),
        "lend": ("--user", "agent1", "--cursor", "prod", "run", "--sandbox", "--", "true"),
        "export": ("--user", "agent1", "--cursor", "prod", "export", "planted.key"),
        "copy": ("--user", "agent1", "--cursor", "prod", "copy", "--prefix", "", "--to-user", "agent3"),
    }[command]
    outcome = cli(*words)
    assert outcome.code == 1
    assert f"of {OTHER}" in outcome.err or "is not encrypted" in outcome.err
    assert b"planted" not in outcome.out
    assert list(records(root).values()).count([OTHER]) == 1
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, OTHER)) == 20


async def test_deleting_an_address_destroys_no_record_of_another(root: Path, key: Path, cli: Cli) -> None:
    await two(root, key)
    copied = "agent1/copied"
    shutil.copytree(folder_of(root, PROD), folder_of(root, copied))
    say(root, OTHER, named(root, PROD))
    for address in (copied, OTHER):
        outcome = cli.ok("address", "delete", address, "--yes")
        assert ("no key record here says that it is its" in outcome.err) == (address == copied)
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20
        assert (await manager.restore(user="agent1", cursor="prod")).restored
    assert list(records(root).values()) == [[PROD]]


async def test_renaming_an_address_takes_no_record_of_another_along(root: Path, key: Path) -> None:
    await two(root, key)
    say(root, OTHER, named(root, PROD))
    parts_of(root, key).lifecycle.rename(Address.parse(OTHER), Address.parse("agent2/moved"))
    assert sorted(map(str, records(root).values())) == [str(["agent1/prod"]), str(["agent2/moved"])]
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20


async def test_a_folder_that_was_copied_or_moved_by_hand_says_what_to_do(root: Path, key: Path, cli: Cli) -> None:
    await two(root, key)
    folder_of(root, PROD).rename(folder_of(root, "agent1/moved"))
    outcome = cli("--user", "agent1", "--cursor", "moved", "get", "planted.key.1")
    assert outcome.code == 1
    assert f"put it back as {PROD}, then 'prontodb address rename'" in outcome.err
    report = cli("doctor")
    assert "agent1/moved was not looked at" in (report.text + report.err)
    stays = cli.ok("address", "delete", PROD, "--yes")  # what is said of an address that is missing
    assert "stays: another address names it" in stays.err
    folder_of(root, "agent1/moved").rename(folder_of(root, PROD))
    cli.ok("address", "rename", PROD, "agent1/moved")
    assert cli.ok("--user", "agent1", "--cursor", "moved", "get", "planted.key.1").text.strip() == "a planted value1"


# Deletion destroys all that is its own


@pytest.mark.parametrize("metadata", ["missing", "null", "nonsense", "foreign"])
async def test_a_deletion_destroys_the_record_whatever_the_metadata_say(root: Path, key: Path, metadata: str) -> None:
    await two(root, key)
    if metadata == "missing":
        (folder_of(root, PROD) / "metadata.json").unlink()
    else:
        say(root, PROD, {"null": None, "nonsense": "nonsense", "foreign": named(root, OTHER)}[metadata])
    outcome = Cli(root).ok("address", "delete", PROD, "--yes")  # which needs no key
    assert "is destroyed: nothing can read backups of it any more" in outcome.err
    assert list(records(root).values()) == [[OTHER]]


async def test_a_deletion_destroys_every_record_that_killed_changes_left(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
    ring = keyring(root, key)
    for number in range(3):
        ring.make(PROD, number)
    async with managed(root, KeyFile(key)) as manager:
        assert await manager.delete(PROD)
    assert records(root) == {}


async def test_a_deletion_that_cannot_destroy_the_record_deletes_nothing(root: Path, key: Path) -> None:
    await two(root, key)
    parts = parts_of(root, key)
    parts.lifecycle.layout = Layout(str(root), Keyring(str(root), KeyFile(key), wait_s=0))
    parts_of_lock = Layout(str(root)).keys_lock_parts()
    with (
        lock.acquire(str(root), parts_of_lock, "keys.lock", purpose="test", wait_s=0, one_shot=True),
        pytest.raises(BusyError),
    ):
        parts.lifecycle.delete(Address.parse(PROD))
    shutil.rmtree(root / "keys")  # must not look as if a deletion had been killed after its key went
    async with managed(root, KeyFile(key)) as manager:
        assert PROD in [str(row.address) for row in await manager.addresses()]
    assert (folder_of(root, PROD) / "keystore.db").exists()


async def test_the_record_of_an_address_whose_folder_was_removed_by_hand_goes_with_it(
    root: Path, key: Path, cli: Cli
) -> None:
    await two(root, key)
    shutil.rmtree(folder_of(root, PROD))
    assert "is destroyed" in cli.ok("address", "delete", PROD, "--yes").err
    assert list(records(root).values()) == [[OTHER]]


# Renames and kills


@pytest.mark.parametrize("step", ["rename.recorded", "rename.marked", "rename.moved", "rename.registered"])
@pytest.mark.parametrize("then", ["use", "delete", "rename", "doctor"])
async def test_a_killed_rename_leaves_the_record_with_its_address(root: Path, key: Path, step: str, then: str) -> None:
    await two(root, key)
    new = "agent2/moved"
    with killed_at(step):
        parts_of(root, key).lifecycle.rename(Address.parse(PROD), Address.parse(new))
    here = PROD if step in ("rename.recorded", "rename.marked") else new
    there = new if here == PROD else PROD
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(there)  # a plain one under the other name: it must neither get nor destroy the record
        await manager.delete(there)
        assert len(await values(manager, here)) == 20
        if then == "delete":
            assert await manager.delete(here)
            assert [name for names in records(root).values() for name in names] == [OTHER]
        elif then == "rename":
            await manager.rename(here, "agent3/last")
            assert len(await values(manager, "agent3/last")) == 20
            assert sorted(map(str, records(root).values())) == [str([OTHER]), str(["agent3/last"])]
        elif then == "doctor":
            assert (await manager.doctor(repair=True)).findings == ()
            assert sorted(map(str, records(root).values())) == sorted((str([OTHER]), str([here])))
            assert len(await values(manager, here)) == 20


async def test_a_rename_that_may_not_change_the_record_does_nothing(root: Path, key: Path) -> None:
    await two(root, key)
    parts = parts_of(root, key)
    parts.lifecycle.layout = Layout(str(root), Keyring(str(root), KeyFile(key), wait_s=0))
    where = Layout(str(root)).keys_lock_parts()
    with (
        lock.acquire(str(root), where, "keys.lock", purpose="test", wait_s=0, one_shot=True),
        pytest.raises(BusyError),
    ):
        parts.lifecycle.rename(Address.parse(PROD), Address.parse("agent2/moved"))
    assert folder_of(root, PROD).exists()
    assert not folder_of(root, "agent2/moved").exists()


# Lost metadata


@pytest.mark.parametrize("what", ["missing", "nonsense"])
@pytest.mark.parametrize("state", ["encrypted", "decrypted", "killed", "several"])
async def test_a_keystore_without_its_metadata_is_opened_by_what_is_its(
    root: Path, key: Path, what: str, state: str
) -> None:
    await two(root, key)
    async with managed(root, KeyFile(key)) as manager:
        if state == "decrypted":
            await manager.decrypt(PROD)
    ring = keyring(root, key)
    if state == "killed":
        ring.add(named(root, PROD).partition("-")[0])  # a rekey that came no further
    if state == "several":
        ring.make(PROD, 1)
    if what == "missing":
        (folder_of(root, PROD) / "metadata.json").unlink()
    else:
        say(root, PROD, "nonsense")
    async with managed(root, KeyFile(key)) as manager:
        assert len(await values(manager, PROD)) == 20
    if state == "decrypted":
        async with managed(root, None) as manager:
            assert len(await values(manager, PROD)) == 20


async def test_a_lost_folder_of_records_is_named_as_what_is_lost(root: Path, key: Path, cli: Cli) -> None:
    await two(root, key)
    (root / "keys").rename(root.parent / "lost")
    for words in (("--user", "agent1", "--cursor", "prod", "get", "planted.key.1"), ("address", "rekey", PROD)):
        outcome = cli(*words)
        assert outcome.code == 1
        assert "is gone" in outcome.err
        assert "prontodb secret import FILE" in outcome.err
    report = cli("doctor")
    assert "its key record is gone" in report.text + report.err


# Damaged records


async def test_a_damaged_record_is_what_is_damaged_and_an_import_mends_it(root: Path, key: Path, cli: Cli) -> None:
    await two(root, key)
    safe = root.parent / "safe.json"
    cli.ok("secret", "export", PROD, "--output", str(safe))
    record = named(root, PROD).partition("-")[0]
    path = root / "keys" / f"{record}.json"
    path.write_bytes(path.read_bytes()[:40])
    report = cli("doctor")
    told = report.text + report.err
    assert "is no key record" in told
    assert "secret import" in told
    assert "address delete" not in told
    assert "restore" not in told
    outcome = cli.ok("secret", "import", str(safe))
    assert "is kept as" in outcome.err
    assert cli.ok("--user", "agent1", "--cursor", "prod", "get", "planted.key.1").text.strip() == "a planted value1"
    (aside,) = (root / "keys").glob("*.aside")
    assert str(aside) in (cli("doctor").text + cli("doctor").err)
    cli.ok("address", "delete", PROD, "--yes")
    assert not aside.exists()


async def test_an_export_from_before_a_rename_can_be_brought_back(root: Path, key: Path, cli: Cli) -> None:
    await two(root, key)
    safe = root.parent / "safe.json"
    cli.ok("secret", "export", PROD, "--output", str(safe))
    cli.ok("address", "rename", PROD, "agent2/moved")
    shutil.rmtree(root / "keys")
    outcome = cli.ok("secret", "import", str(safe))
    assert f"prontodb secret import {safe} --for agent2/moved" in outcome.err
    assert cli("--user", "agent2", "--cursor", "moved", "get", "planted.key.1").code == 1
    cli.ok("secret", "import", str(safe), "--for", "agent2/moved")
    assert cli.ok("--user", "agent2", "--cursor", "moved", "get", "planted.key.1").text.strip() == "a planted value1"


# No records left behind


async def test_what_fails_leaves_no_record_behind(root: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await two(root, key)
    before = records(root)

    def failing(*_: object) -> None:
        raise SecretError("not today")

    async with managed(root, KeyFile(key)) as manager:
        await manager.rekey(PROD, drop_older=True)
        for _ in range(3):
            with pytest.raises(SecretError, match="was dropped"):
                await manager.restore(user="agent1", cursor="prod", to="agent9/new")
        await manager.create("agent8/plain")
        monkeypatch.setattr("prontodb.engine.sqlite.transcribing.steps", failing)
        for _ in range(2):
            with pytest.raises(SecretError, match="not today"):
                await manager.encrypt("agent8/plain")
    assert records(root) == before


async def test_a_killed_encrypt_is_gone_on_with_in_the_same_record(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
    parts = parts_of(root, key)
    for step in ("encrypt.recorded", "encrypt.staged"):
        with killed_at(step):
            finished(Resealing(parts.lifecycle, parts.clock, Address.parse(PROD), ENCRYPT).steps())
    assert len(records(root)) == 1
    async with managed(root, KeyFile(key)) as manager:
        await manager.encrypt(PROD)
        assert len(records(root)) == 1
        assert len(await values(manager, PROD)) == 20


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"{")], ids=["gone", "damaged"])
async def test_an_address_whose_record_is_lost_takes_a_backup_that_can_be_read(
    root: Path, key: Path, lose: Callable[[Path], object]
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
        await manager.backup(full=True)
        await manager.encrypt(PROD)
        lose(root / "keys" / f"{named(root, PROD).partition('-')[0]}.json")
        with pytest.raises(ProntoError):
            await values(manager, PROD)
        await manager.restore(user="agent1", cursor="prod")
        assert len(await values(manager, PROD)) == 20
        assert (await manager.describe(PROD)).encryption is not None, "what is encrypted stays so"

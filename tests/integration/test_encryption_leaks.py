"""What an encrypted address must not tell those who have no key: not by trying, not in a log, not in a core file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prontodb.backup.manifest import MANIFEST_FILE
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite.digest import COLUMNS, Digest, digest_of, row_hash
from prontodb.engine.sqlite.increment import Reading
from prontodb.engine.sqlite.opening import open_reader
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.storage.connection import digest_key, rows
from tests.sealed import fill, key_file, layout, managed, values

PROD = "agent1/prod"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path)


# What a manifest tells


async def pieces(manager: SessionManager, root: Path, *, full: bool) -> list[dict[str, object]]:
    made = await manager.backup(full=full)
    assert made.path is not None
    found: list[dict[str, object]] = json.loads((Path(made.path) / MANIFEST_FILE).read_bytes())["pieces"]
    return found


def unkeyed(root: Path, key: Path) -> Digest:
    """The digest as anybody could compute it who guesses the entries."""
    connection, _ = open_reader(layout(root, key), Address.parse(PROD), busy_timeout_ms=1_000)
    try:
        return Digest().changed((), [row_hash(row, b"") for row in rows(connection, f"SELECT {COLUMNS} FROM kvstore")])
    finally:
        connection.close()


@pytest.mark.parametrize("encrypted", [True, False])
async def test_a_manifest_of_an_encrypted_address_confirms_no_guess_of_what_it_holds(
    root: Path, key: Path, encrypted: bool
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=encrypted)
        async with manager.session("agent1", "prod") as ks:
            await ks.set("pin", "4711")
        (full,) = await pieces(manager, root, full=True)
        first = unkeyed(root, key)
        async with manager.session("agent1", "prod") as ks:
            await ks.set("pin.other", "0815")
        (more,) = await pieces(manager, root, full=False)
        second = unkeyed(root, key)
        assert more["kind"] == "segment"
        assert (full["digest"] == first.hex) is (more["digest"] == second.hex) is not encrypted
        # Digests are sums: the difference of two would be the hash of the one entry that came.
        told = int(str(more["digest"]), 16) - int(str(full["digest"]), 16)
        assert (told % 2**256 == (second.total - first.total) % 2**256) is not encrypted
        assert (await manager.verify()).problems == ()
        await manager.restore(user="agent1", cursor="prod")
        assert await values(manager, PROD) == {"pin": "4711", "pin.other": "0815"}


async def test_backups_go_on_through_encrypt_rekey_and_decrypt_with_the_digest_of_each_time(
    root: Path, key: Path
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
        digests, kinds, ids = [], [], []
        for change in (None, manager.encrypt, manager.rekey, manager.decrypt):
            if change is not None:
                await change(PROD)
            for count in (1, 2):
                (piece,) = await pieces(manager, root, full=False)
                digests.append(piece["digest"])
                kinds.append(piece["kind"])
                ids.append((await manager.backups()).backups[-1].id)
                await fill(manager, PROD, count)
        assert kinds == ["snapshot", "segment"] * 4  # what is written anew under another secret begins anew
        assert len(set(digests)) == len(digests)
        for backup in ids:
            assert (await manager.verify(backup)).problems == ()
            assert (await manager.verify(backup)).untried == ()


async def test_two_addresses_with_the_same_entries_have_digests_of_their_own(root: Path, key: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
        await manager.copy(PROD, "agent2/copy")
    found = []
    for name in (PROD, "agent2/copy"):
        connection, _ = open_reader(layout(root, key), Address.parse(name), busy_timeout_ms=1_000)
        try:
            assert len(digest_key(connection)) == 32
            found.append(digest_of(connection))
            Reading(connection, None)
        finally:
            connection.close()
    assert found[0].entries == found[1].entries == 20
    assert found[0].total != found[1].total

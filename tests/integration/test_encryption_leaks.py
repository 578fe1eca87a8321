"""What an encrypted address must not tell those who have no key: not by trying, not in a log, not in a core file."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from prontodb.audit.denied import DENIED_FILE, DeniedLog
from prontodb.backup.manifest import MANIFEST_FILE
from prontodb.composition import open_manager
from prontodb.encryption.sources import KeyFile
from prontodb.engine.sqlite.digest import COLUMNS, Digest, digest_of, row_hash
from prontodb.engine.sqlite.increment import Reading
from prontodb.engine.sqlite.opening import open_reader
from prontodb.engine.sqlite.resealing import ENCRYPT, Resealing
from prontodb.errors import QuotaExceededError
from prontodb.manager import SessionManager
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.settings import Settings
from prontodb.storage.connection import digest_key, rows
from tests.backups import finished
from tests.parts import Parts
from tests.roots import killed_at, python
from tests.sealed import fill, key_file, layout, managed, planted, values
from tests.unit.cli.harness import Cli

PROD = "agent1/prod"

pytestmark = pytest.mark.plain("these encrypt by themselves what they mean to")


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


# What the log of denied calls tells


async def test_the_log_of_denials_names_no_key_of_an_encrypted_address(root: Path, key: Path) -> None:
    (root.parent / "keys").mkdir()
    wrong = key_file(root.parent / "keys")
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await manager.create("agent1/open", encrypted=False)
    cli = Cli(root, {"PRONTODB_KEY_FILE": str(wrong)})
    assert cli("--user", "agent1", "--cursor", "prod", "set", "app.planted", "1").code == 1
    assert cli("--user", "agent1", "--cursor", "new", "set", "app.planted", "1").code == 0
    async with (
        open_manager(str(root), settings=Settings(max_entries=1), keys=KeyFile(key)) as manager,
        manager.session("agent1", "prod") as ks,
    ):
        await ks.set("one", "1")
        with pytest.raises(QuotaExceededError):
            await ks.set("app.planted", "1")
    log = DeniedLog(layout(root, key), Clock())
    log.record(address="agent1/prod", key="app.planted", error="DeniedError")
    log.record(address="agent1/gone", key="app.planted", error="DeniedError")
    log.record(address="*/*", key="app.planted", error="DeniedError")
    assert [line["error"] for line in log.lines(9)] == ["SecretError", "QuotaExceededError", *["DeniedError"] * 3]
    assert b"planted" not in (root / "registry" / DENIED_FILE).read_bytes()
    log.record(address="agent1/open", key="app.told", error="DeniedError")
    assert log.lines(1)[0]["key"] == "app.told"


# What a process leaves behind

DYING = """
import resource, sys
import anyio
import prontodb
from prontodb.encryption.sources import KeyFile

soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

async def main():
    source = KeyFile(sys.argv[2]) if sys.argv[2] else None
    async with prontodb.open(sys.argv[1], keys=source, keep_core_files=sys.argv[3] == "keep"):
        print(resource.getrlimit(resource.RLIMIT_CORE)[0] == 0)

anyio.run(main)
"""


@pytest.mark.parametrize(("has_key", "keep", "leaves_none"), [(1, "no", True), (1, "keep", False), (0, "no", False)])
def test_a_process_that_was_brought_a_key_leaves_no_core_file_unless_it_is_to(
    root: Path, key: Path, has_key: int, keep: str, *, leaves_none: bool
) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no core file may be written here at all")
    done = python(DYING, root, key if has_key else "", keep)
    assert (done.stdout.strip(), done.stderr) == (str(leaves_none), "")


# What is tried of a backup without the key


async def test_verifying_without_the_right_key_says_what_was_not_tried(root: Path, key: Path, tmp_path: Path) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await manager.create(PROD, encrypted=True)
        await fill(manager, PROD)
        await fill(manager, "agent2/open")
        await manager.backup(full=True)
    (tmp_path / "other").mkdir()
    right, none = Cli(root, {"PRONTODB_KEY_FILE": str(key)}), Cli(root, {"PRONTODB_KEY_FILE": ""})
    wrong = Cli(root, {"PRONTODB_KEY_FILE": str(key_file(tmp_path / "other"))})
    assert ": all whole\n" in right("backup", "verify").err
    outcome = none("backup", "verify")
    assert outcome.code == 0  # all that could be tested is whole
    assert outcome.text.startswith("agent1/prod was not tried: ")
    assert "the files are whole, but of 1 encrypted address nothing was tried, for want of a key\n" in outcome.err
    outcome = wrong("backup", "verify")
    assert outcome.code == 1  # to be tried it was meant
    assert "wrong key" in outcome.text
    assert "nothing was tried: the key that was brought does not open it\n" in outcome.err
    assert not any("all whole" in one("backup", "verify").err for one in (none, wrong))
    async with managed(root, KeyFile(key)) as manager:
        await manager.delete(PROD)
    outcome = right("backup", "verify")
    assert outcome.code == 0  # destroyed on purpose, along with its address
    assert "agent1/prod was not tried" in outcome.text


# What a kill leaves


@pytest.mark.parametrize("way", ["session", "shared", "command", "backup", "doctor"])
async def test_the_plain_copy_that_a_killed_encrypt_left_goes_with_the_next_use(
    root: Path, key: Path, way: str
) -> None:
    async with managed(root, KeyFile(key)) as manager:
        await fill(manager, PROD)
    parts = Parts(root)
    parts.lifecycle.layout = layout(root, key)
    with killed_at("encrypt.placed"):
        finished(Resealing(parts.lifecycle, parts.clock, Address.parse(PROD), ENCRYPT).steps())
    assert planted(root) != []
    cli = Cli(root, {"PRONTODB_KEY_FILE": str(key)})
    if way == "command":
        cli.ok("--user", "agent1", "--cursor", "prod", "set", "k", "v")
    async with managed(root, KeyFile(key)) as manager:
        if way in ("session", "shared"):
            async with manager.session("agent1", "prod", mode="exclusive" if way == "session" else "shared"):
                pass
        elif way == "backup":
            await manager.backup()
        elif way == "doctor":
            await manager.doctor(repair=True)
        assert planted(root) == []
        assert len(await values(manager, PROD)) == 20 + (way == "command")

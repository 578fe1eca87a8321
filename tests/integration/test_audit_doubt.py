"""`audit verify` and those who know how it works: what slips past it, and what it must not accuse."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from prontodb.audit import denied
from prontodb.audit.report import ENTRY, AuditReport
from prontodb.audits import Audits
from prontodb.direct import OneShot, run
from prontodb.model.address import Address
from prontodb.model.anchor import VERIFIED, Anchor
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.progress import Progress
from prontodb.registry.anchors import AnchorRegistry
from tests.audits import ADDRESS, accusations, file_of, looked, recorded, swapped, tampered
from tests.parts import Parts, fill
from tests.roots import python
from tests.unit.cli.harness import Cli

OTHER = "agent/zzz"


@pytest.fixture
def cli(root: Path) -> Cli:
    return Cli(root)


@pytest.fixture
async def kept(root: Path) -> Path:
    """Five changes in five rows, and an anchor at the end of the session."""
    await recorded(root)
    return root


def anchors(root: Path) -> list[Anchor]:
    return AnchorRegistry(Layout(str(root)), wait_s=1, one_shot=True).all()


def findings(cli: Cli) -> list[tuple[str, int | None]]:
    [audit] = cli("audit", "verify", ADDRESS, "--json").json
    return [(found["kind"], found["revision"]) for found in audit["findings"]]


# What slipped past


async def test_an_entry_whose_key_became_bytes_is_named(kept: Path, cli: Cli) -> None:
    tampered(kept, "UPDATE kvstore SET namespace_key = CAST(namespace_key AS BLOB) WHERE rev = 2")
    assert cli("get", "--raw", "key1", "--user", "agent", "--cursor", "test").code == 2  # nobody can find it
    assert (ENTRY, 2) in findings(cli)


@pytest.mark.parametrize("revision", [0, -5])
async def test_an_entry_of_no_revision_is_not_taken_for_one_older_than_the_journal(
    kept: Path, cli: Cli, revision: int
) -> None:
    tampered(
        kept,
        "UPDATE meta SET floor = 2, floor_chain = (SELECT chain FROM journal WHERE rev = 2)",
        "DELETE FROM journal WHERE rev <= 2",
    )
    assert findings(cli) == []
    tampered(kept, ("INSERT INTO kvstore VALUES (99, 'forged', 'x', 1, 1, NULL, ?, 0)", (revision,)))
    assert findings(cli) == [(ENTRY, revision)]


@pytest.mark.plain("it edits the bytes of the file itself")
async def test_a_damaged_index_is_named_though_every_entry_is_as_its_record_says(kept: Path, cli: Cli) -> None:
    tampered(kept)
    [(page,)] = looked(kept, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_kvstore_1'")
    data = bytearray(file_of(kept).read_bytes())
    begin, end = (page - 1) * 4096, page * 4096
    assert data[begin:end].count(b"key3") == 1
    data[begin:end] = data[begin:end].replace(b"key3", b"kez3")
    file_of(kept).write_bytes(data)
    outcome = cli("audit", "verify", ADDRESS)
    assert outcome.code == 1
    assert "SQLite's own check: " in outcome.text


async def test_a_floor_moved_past_all_anchors_is_told_each_time_and_leaves_no_anchor_of_its_own(
    kept: Path, cli: Cli
) -> None:
    fill(kept, ADDRESS, {"later": "1", "last": "2"})
    before = anchors(kept)
    tampered(
        kept,
        "UPDATE meta SET floor = 6, floor_chain = (SELECT chain FROM journal WHERE rev = 6)",
        "DELETE FROM journal WHERE rev <= 6",
        "DELETE FROM kvstore WHERE rev = 3",
    )
    for _ in range(2):
        outcome = cli.ok("audit", "verify", ADDRESS)
        assert "its anchors lie in the part that is said to be pruned" in outcome.err
        assert "prontodb audit accept agent/test" in outcome.err
    assert anchors(kept) == before
    # Who knows better says so, and then it goes on from there.
    cli.ok("audit", "accept", ADDRESS, "--yes")
    assert "its anchors lie" not in cli.ok("audit", "verify", ADDRESS).err


# What only the file says


async def test_a_checksum_edited_by_hand_is_named_with_and_without_its_record(kept: Path, cli: Cli) -> None:
    tampered(kept, "UPDATE kvstore SET checksum = checksum + 1 WHERE rev = 2")
    assert findings(cli) == [(ENTRY, 2)]
    tampered(
        kept,
        "UPDATE meta SET floor = 2, floor_chain = (SELECT chain FROM journal WHERE rev = 2)",
        "DELETE FROM journal WHERE rev <= 2",
    )
    assert findings(cli) == [(ENTRY, 2)]


@pytest.mark.parametrize(
    ("edit", "revision"),
    [
        ("UPDATE meta SET history = 1", 7),
        ("DELETE FROM namespace_ttl WHERE namespace = 'p.n'", 8),
        ("UPDATE namespace_ttl SET ttl_ms = 5", 8),
        ("INSERT INTO namespace_ttl VALUES ('other', 5)", None),
        ("UPDATE meta SET token_epoch = -1", None),
        ("UPDATE meta SET audit = 7", None),
        ("UPDATE meta SET audit = 0", None),
    ],
)
async def test_what_the_keystore_says_of_itself_is_held_against_its_records(
    kept: Path, cli: Cli, edit: str, revision: int | None
) -> None:
    cli.ok("address", "history", ADDRESS, "on")
    cli.ok("address", "history", ADDRESS, "off")
    cli.ok("create-cache", "p.n", "15m", "--user", "agent", "--cursor", "test")
    assert findings(cli) == []
    tampered(kept, edit)
    assert findings(cli) == [(ENTRY, revision)]


async def test_settings_whose_records_are_pruned_accuse_nobody(kept: Path, cli: Cli) -> None:
    cli.ok("address", "history", ADDRESS, "on")
    cli.ok("create-cache", "p.n", "15m", "--user", "agent", "--cursor", "test")
    fill(kept, ADDRESS, {"last": "1"})
    tampered(
        kept,
        "UPDATE meta SET floor = 7, floor_chain = (SELECT chain FROM journal WHERE rev = 7)",
        "DELETE FROM journal WHERE rev <= 7",
    )
    assert findings(cli) == []


@pytest.mark.plain("it puts the file of another address there, which another secret opens")
async def test_without_anchors_a_keystore_that_no_backup_knows_is_told_and_gets_no_anchor(kept: Path, cli: Cli) -> None:
    await recorded(kept, address=OTHER)
    cli.ok("backup", "create")
    shutil.rmtree(kept / "registry")
    swapped(kept, ADDRESS, OTHER)
    for address in (ADDRESS, OTHER):
        tampered(kept, "UPDATE meta SET incarnation = randomblob(16)", address=address)
    for _ in range(2):
        said = cli.ok("audit", "verify").err
        assert f"(its history is that of {OTHER})" in said
        assert f"(its history is that of {ADDRESS})" in said
        assert f"prontodb audit accept {ADDRESS}" in said
    assert anchors(kept) == []
    # As what was restored or made anew and lost its anchors looks the same, who knows says so.
    for address in (ADDRESS, OTHER):
        cli.ok("audit", "accept", address, "--yes")
    assert "another keystore" not in cli.ok("audit", "verify").err


# What others do meanwhile


def round_of(root: Path) -> Iterator[Progress]:
    return Audits(Layout(str(root)), Clock(), 1.0, lambda: ()).verify()


def end_of(work: Iterator[Progress]) -> AuditReport:
    while True:
        try:
            next(work)
        except StopIteration as end:
            report: AuditReport = end.value
            return report


async def test_what_is_restored_or_deleted_during_a_round_is_not_accused(root: Path, cli: Cli) -> None:
    for address in (ADDRESS, "agent/yyy", OTHER):
        await recorded(root, address=address)
    cli.ok("backup", "create")
    work = round_of(root)
    assert next(work).what.startswith(ADDRESS)
    cli.ok("restore", "--user", "agent", "--cursor", "zzz", "--yes")
    cli.ok("address", "delete", "agent/yyy", "--yes")
    report = end_of(work)
    assert report.is_sound, report
    assert [str(one.address) for one in report.addresses] == [ADDRESS, OTHER]


async def test_no_anchor_is_left_of_a_keystore_that_was_replaced_once_it_had_been_looked_at(
    root: Path, cli: Cli
) -> None:
    await recorded(root)
    await recorded(root, address=OTHER)
    cli.ok("backup", "create")
    fill(root, ADDRESS, {"after": "the anchor"})
    work = round_of(root)
    while not next(work).what.startswith(OTHER):
        continue
    cli.ok("restore", "--user", "agent", "--cursor", "test", "--yes")
    assert end_of(work).is_sound
    assert [one.by for one in anchors(root) if str(one.address) == ADDRESS][-1] != VERIFIED
    assert accusations(root) == []


DELETE = """
import os, signal, sys
from prontodb.engine.sqlite import lifecycle
from prontodb.model.address import Address
from tests.parts import Parts
lifecycle.FAILPOINT.append(lambda name: name == "delete.moved" and os.kill(os.getpid(), signal.SIGKILL))
Parts(sys.argv[1]).lifecycle.delete(Address.parse(sys.argv[2]))
"""


@pytest.mark.crash
@pytest.mark.parametrize("filled", [False, True])
async def test_an_address_made_anew_after_a_killed_deletion_is_not_accused(kept: Path, filled: bool) -> None:
    assert python(DELETE, kept, ADDRESS).returncode == -signal.SIGKILL
    parts = Parts(kept)
    if filled:
        parts.lifecycle.create_filled(Address.parse(ADDRESS), lambda *_: None)
    else:
        parts.lifecycle.create(Address.parse(ADDRESS))
    assert anchors(kept) == []
    assert accusations(kept) == []
    with OneShot(str(kept), Address.parse(ADDRESS)) as keystore:
        run(keystore.set("a", "1"))
    assert parts.listed() == {ADDRESS: "active"}


# What hostile files hold


def written(root: Path, *lines: bytes) -> None:
    file = root / "registry" / denied.DENIED_FILE
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    file.chmod(0o600)


async def test_text_that_no_encoding_carries_is_shown_as_its_escape(kept: Path, cli: Cli) -> None:
    written(kept, b'{"at_ms": 1, "operation": "get", "key": "half \\ud800", "error": "E"}')
    for words in (("audit", "show", "--denied"), ("audit", "show", "--denied", "--json")):
        assert b"\\ud800" in cli.ok(*words).out


async def test_lines_nested_without_end_or_with_a_field_twice_are_no_denials(kept: Path, cli: Cli) -> None:
    sound = {"at_ms": 1, "error": "DeniedError"}
    written(
        kept,
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"at_ms": 1, "error": "A", "error": "B"}',
        json.dumps(sound).encode(),
    )
    assert cli.ok("audit", "show", "--denied", "--json").json == [sound]

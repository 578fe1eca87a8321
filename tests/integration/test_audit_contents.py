"""`audit verify` beyond the journal: entries whose records are pruned, and a last line that says what it knows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from prontodb.audit.report import ENTRY
from prontodb.engine.sqlite import ciphers
from prontodb.engine.sqlite.transactions import checksum
from prontodb.model.address import Address
from prontodb.storage import connection as sqlite
from prontodb.storage.files import open_root
from tests import sealed
from tests.audits import ADDRESS, file_of
from tests.unit.cli.harness import Cli

WELL = "all as they were written"
AT = ("--user", "agent", "--cursor", "test")
PRUNE_ALL = (
    "UPDATE meta SET (floor, floor_chain) = (SELECT rev, chain FROM journal ORDER BY rev DESC LIMIT 1)",
    "DELETE FROM journal",
)


class Hands:
    """Somebody who can write the files of a root, and has its key where there is one."""

    def __init__(self, root: Path, key: Path | None) -> None:
        self.root, self._key = root, key

    def open(self) -> sqlite.Connection:
        if self._key is None:
            return sqlite.connect(str(file_of(self.root)))
        where, layout = Address.parse(ADDRESS), sealed.layout(self.root, self._key)
        with open_root(layout.root, *layout.address_parts(where)) as folder:
            return sqlite.connect(str(file_of(self.root)), secret=ciphers.secret_in(layout, folder, where))

    def do(self, *statements: str) -> None:
        connection = self.open()
        for statement in statements:
            if statement == FORGE:
                [(created_at, updated_at, rev)] = sqlite.rows(connection, ROW)
                summed = checksum("key2", b"forged", updated_at, None, rev) + created_at
                connection.execute(FORGE, (summed,)).close()
            else:
                connection.execute(statement).close()
        connection.close()


ROW = "SELECT created_at, updated_at, rev FROM kvstore WHERE namespace_key = 'key2'"
FORGE = "UPDATE kvstore SET value = 'forged', checksum = ? WHERE namespace_key = 'key2'"
DROP = "DELETE FROM kvstore WHERE namespace_key = 'key4'"


BY_HAND = pytest.param("encrypted", marks=pytest.mark.plain("encrypts by itself, and has keys of its own"))


@pytest.fixture(params=["plain", BY_HAND])
def hands(request: pytest.FixtureRequest, root: Path) -> Hands:
    return Hands(root, sealed.key_file(root.parent) if request.param == "encrypted" else None)


@pytest.fixture
def cli(root: Path, hands: Hands) -> Cli:
    """Six changes at an address, and the anchor that a run leaves."""
    key = hands._key
    found = Cli(root, {} if key is None else {"PRONTODB_KEY_FILE": str(key)})
    for number in range(5):
        found.ok("set", f"key{number}", f"value {number}", *AT)
    if key is not None:
        found.ok("address", "encrypt", ADDRESS)
    found.ok("set", "key5", "value 5", *AT)
    found.ok("audit", "accept", ADDRESS, "--yes")
    return found


def ending(cli: Cli) -> str:
    """What the line says that tells how it ended."""
    [line] = [line for line in cli("audit", "verify").err.split("\n") if " address" in line and " in " in line]
    return line.split(": ", 2)[2]


def audit(cli: Cli) -> dict[str, Any]:
    [found] = cli("audit", "verify", ADDRESS, "--json").json
    return dict(found)


# A backup of this very revision


def test_a_history_pruned_by_hand_and_forged_entries_are_found_by_the_backup_of_that_revision(
    cli: Cli, hands: Hands
) -> None:
    cli.ok("backup", "create")
    hands.do(*PRUNE_ALL, FORGE, DROP)
    outcome = cli("audit", "verify")
    assert outcome.code == 1
    assert "the entries are not those that backup 2" in outcome.text
    assert "6 entries then, 5 now" in outcome.text
    assert WELL not in outcome.err


@pytest.mark.parametrize("edit", [FORGE, DROP, "UPDATE kvstore SET namespace_key = CAST(namespace_key AS BLOB)"])
def test_each_edit_of_what_is_older_than_the_journal_is_found(cli: Cli, hands: Hands, edit: str) -> None:
    cli.ok("backup", "create")
    hands.do(*PRUNE_ALL, edit)
    assert sorted({found["kind"] for found in audit(cli)["findings"]}) == [ENTRY]


def test_entries_older_than_the_journal_that_a_backup_has_just_so_are_vouched_for(cli: Cli, hands: Hands) -> None:
    cli.ok("backup", "create")
    hands.do(*PRUNE_ALL)
    found = audit(cli)
    assert (found["findings"], found["unseen"], found["reaches_all"]) == ([], 6, True)
    assert found["content"]["source"].startswith("backup 2")
    assert ending(cli) == WELL


def test_a_backup_taken_after_the_forging_does_not_hide_what_an_older_one_knows(cli: Cli, hands: Hands) -> None:
    cli.ok("backup", "create")
    hands.do(*PRUNE_ALL, FORGE)
    cli.ok("backup", "create", "--full")
    assert [found["kind"] for found in audit(cli)["findings"]] == [ENTRY]


def test_what_is_written_swept_restored_and_backed_up_since_is_accused_of_nothing(cli: Cli, root: Path) -> None:
    cli.ok("backup", "create")
    cli.ok("set", "key1", "anew", *AT)
    cli.ok("set", "short", "lived", "--ttl", "1ms", *AT)
    assert audit(cli)["findings"] == []
    cli.ok("backup", "create", "--incremental")
    assert audit(cli)["content"] is not None
    cli.ok("jobs", "once", "sweep")
    assert audit(cli)["findings"] == []
    file = root / "registry" / "global_config.json"
    file.write_text(json.dumps({"format": 1, "settings": {"journal_records": 0}}))
    file.chmod(0o600)
    cli.ok("backup", "create", "--incremental")
    cli.ok("jobs", "once", "compact")
    found = audit(cli)
    assert (found["findings"], found["reaches_all"], found["floor"]) == ([], True, found["revision"])
    cli.ok("restore", *AT, "--yes")
    assert audit(cli)["findings"] == []


# What the last line says, and what there is of an address that is not there


def test_without_such_a_backup_the_last_line_says_what_nothing_vouches_for(cli: Cli, hands: Hands) -> None:
    hands.do(*PRUNE_ALL, FORGE, DROP)
    assert audit(cli)["reaches_all"] is False
    said = ending(cli)
    assert WELL not in said
    assert "as far back as the journal reaches" in said
    assert "nothing vouches for 5 entries of before, nor that no other is missing" in said


def test_where_nothing_is_left_at_all_the_last_line_does_not_say_that_all_is_well(cli: Cli, hands: Hands) -> None:
    hands.do(*PRUNE_ALL, "DELETE FROM kvstore")
    assert "nothing vouches for 0 entries of before, nor that no other is missing" in ending(cli)


@pytest.mark.parametrize("hands", ["plain"], indirect=True)
def test_what_could_not_be_looked_at_is_counted_in_the_last_line_and_is_not_well(
    cli: Cli, hands: Hands, root: Path
) -> None:
    assert ending(cli) == WELL
    other = file_of(root, "agent/other")
    cli.ok("set", "k", "v", "--user", "agent", "--cursor", "other")
    other.write_bytes(b"no keystore" * 1_000)
    outcome = cli("audit", "verify")
    assert outcome.code == 1
    assert "agent/other could not be looked at: " in outcome.err
    assert ending(cli) == "1 address could not be looked at; the others are as they were written"
    other.unlink()
    os.mkfifo(other, 0o600)
    assert ending(cli) == "1 address could not be looked at; the others are as they were written"
    assert "1 address could not be looked at" in cli("audit", "verify", "agent/other").err
    assert WELL not in cli("audit", "verify", "agent/other").err


@pytest.mark.parametrize("hands", [BY_HAND], indirect=True)
def test_without_the_key_the_last_line_does_not_say_that_all_is_well(cli: Cli, hands: Hands, root: Path) -> None:
    outcome = Cli(root)("audit", "verify")
    assert outcome.code == 1
    assert ending(Cli(root)) == "1 address could not be looked at"


def test_anchors_are_shown_of_what_is_gone_and_what_never_was_does_not_exist(cli: Cli) -> None:
    for words in (("audit", "anchors"), ("audit", "show"), ("audit", "verify")):
        user = ("--user", "nope", "--cursor", "nope") if words == ("audit", "show") else ("nope/nope",)
        assert "address nope/nope does not exist" in cli.fails(*words, *user)
    cli.ok("backup", "create")
    cli.ok("address", "delete", ADDRESS, "--yes")
    assert "backup 2" in cli.ok("audit", "anchors", ADDRESS).text
    cli.ok("address", "create", "agent/new")
    assert cli.ok("audit", "anchors", "agent/new").text == ""

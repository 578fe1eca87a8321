"""Keystores that another hand wrote into, with types and numbers that we never store: named, and never in the way."""

from pathlib import Path

import pytest

from prontodb.errors import CorruptError
from prontodb.model.address import Address
from prontodb.storage import connection as sqlite
from tests.parts import Parts, fill
from tests.unit.doctor.visiting import keystore, visit

ONE, OTHER = Address("agent1", "prod"), Address("agent2", "test")

BIG = 2**63 - 1
FAR = 10**17  # milliseconds: the year 3,170,843

# Of the keystore as a whole: each look finds these.
OF_ALL = [
    "UPDATE meta SET incarnation = 'abc'",
    "UPDATE meta SET incarnation = 5",
    "UPDATE meta SET floor = 'abc'",
    f"UPDATE meta SET floor = {BIG}",
    "UPDATE meta SET floor = -3",
    "UPDATE meta SET floor = 0.5",
    "UPDATE meta SET floor = 2",
    "UPDATE meta SET floor_chain = 'abc'",
    "UPDATE meta SET epoch = 'abc'",
    f"UPDATE meta SET epoch = {BIG}",
    "UPDATE meta SET epoch = -1",
    "UPDATE meta SET token_epoch = 'abc'",
    "UPDATE meta SET history = 'abc'",
    "UPDATE meta SET history = 2",
    "UPDATE meta SET audit = x'01'",
    "UPDATE meta SET lock_device = 'abc'",
    "UPDATE meta SET lock_inode = 1.5",
    "DELETE FROM meta",
    "INSERT INTO namespace_ttl VALUES ('a', 'abc')",
    "INSERT INTO namespace_ttl VALUES ('a', -5)",
    "INSERT INTO namespace_ttl VALUES ('a', 0)",
    f"INSERT INTO namespace_ttl VALUES ('a', {BIG})",
    "INSERT INTO namespace_ttl VALUES (x'ff00', 5)",
    "INSERT INTO namespace_ttl VALUES (CAST(x'ff' AS TEXT), 5)",
    "INSERT INTO revoked VALUES ('x', 'y')",
    "INSERT INTO revoked VALUES (x'00', 5)",
    "INSERT INTO revoked VALUES (CAST(x'ff' AS TEXT), 5)",
    "UPDATE kvstore SET rev = 'abc'",
]
# Of one row: a deep look finds these.
OF_A_ROW = [
    "UPDATE journal SET rev = -rev",
    f"UPDATE journal SET rev = {BIG}",
    "UPDATE journal SET chain = 'abc'",
    "UPDATE journal SET first_rev = 'abc'",
    "UPDATE journal SET first_rev = 1.5",
    "UPDATE journal SET at = 'abc'",
    f"UPDATE journal SET at = {FAR}",
    "UPDATE journal SET session = x'ff00'",
    "UPDATE journal SET session = CAST(x'ff' AS TEXT)",
    "UPDATE journal SET records = x'ff'",
    "UPDATE journal SET records = '{\"a\": 1}'",
    "UPDATE journal SET records = '[[1, 2], [3]]'",
    "UPDATE journal SET records = '[1]'",
    f"UPDATE kvstore SET id = {BIG}",
    "UPDATE kvstore SET namespace_key = x'6b'",
    "UPDATE kvstore SET namespace_key = CAST(x'6bff' AS TEXT)",
    "UPDATE kvstore SET namespace_key = ''",
    "UPDATE kvstore SET value = x'00ff'",
    "UPDATE kvstore SET value = CAST(x'ff' AS TEXT)",
    "UPDATE kvstore SET rev = rev + 0.5",
    "UPDATE kvstore SET rev = -1",
    "UPDATE kvstore SET updated_at = 'abc'",
    "UPDATE kvstore SET ttl_expires_at = 'abc'",
    f"UPDATE kvstore SET ttl_expires_at = {BIG}",
    "UPDATE kvstore SET checksum = 'abc'",
    f"UPDATE kvstore SET checksum = {BIG}",
    # The checksum is right:
    f"UPDATE kvstore SET checksum = checksum - created_at + {FAR}, created_at = {FAR}",
    f"UPDATE kvstore SET checksum = checksum - created_at - {FAR}, created_at = -{FAR}",
]


def forge(root: Path, statement: str) -> None:
    """Write into the keystore of agent1/prod as no transaction of ours does."""
    connection = sqlite.connect(str(keystore(root)))
    connection.execute(statement).close()
    connection.close()


@pytest.mark.parametrize("statement", OF_ALL + OF_A_ROW)
def test_a_forged_keystore_is_named_and_the_next_one_is_looked_at(root: Path, statement: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    fill(root, "agent2/test", {"k": "v"})
    (root / "addresses" / "agent2" / "test" / "keystore.db").write_bytes(b"\x07" * 40_000)
    forge(root, statement)
    for deep in (False, True):
        findings = visit(root, deep=deep, repair=deep).findings
        named = [finding.what for finding in findings]
        assert {finding.level for finding in findings} == {"error"}
        assert named[-1].startswith("agent2/test: "), named
        assert all(what.startswith("agent1/prod: ") for what in named[:-1]), named
        assert named[:-1] or not (deep or statement in OF_ALL), named
        assert bool(named[:-1]) == bool(Parts(root).book.check(ONE, deep=deep))


@pytest.mark.parametrize("statement", OF_ALL + OF_A_ROW)
def test_a_forged_keystore_is_described_or_refused_as_damaged(root: Path, statement: str) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    forge(root, statement)
    try:
        report = Parts(root).book.describe(ONE)
    except CorruptError:
        return
    numbers = (report.entries, report.expired, report.revision, report.floor, report.epoch, report.journal_rows)
    assert [type(number) for number in numbers] == [int] * 6
    assert isinstance(report.journal_oldest_at_ms, int)


def test_what_is_wrong_is_said_with_table_row_and_column(root: Path) -> None:
    fill(root, "agent1/prod", {"k": "v"})
    forge(root, "UPDATE meta SET epoch = 'abc'")
    forge(root, "INSERT INTO namespace_ttl VALUES ('a.b', -5)")
    forge(root, "UPDATE kvstore SET rev = 1.5")
    assert {
        "table meta: epoch is not a whole number from 0 to 4611686018427387904",
        "table namespace_ttl, row 'a.b': ttl_ms is not a whole number from 1 to 3153600000000",
        "table kvstore, row 'k': rev is not a whole number from 1 to 4611686018427387904",
    } <= set(Parts(root).book.check(ONE, deep=True))

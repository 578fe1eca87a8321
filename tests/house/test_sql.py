"""SQL stands where SQLite is spoken, and keeps to the forms that proved safe."""

import re

from tests.house.source import sources, texts

SPEAKERS = ("prontodb/engine/sqlite/", "prontodb/migration/", "prontodb/registry/", "prontodb/storage/")

# Our SQL has its keywords in capitals: that tells a statement from a sentence.
STATEMENT = re.compile(
    r"\s*(SELECT|INSERT (OR \w+ )?INTO|REPLACE INTO|UPDATE|DELETE FROM|CREATE|DROP|ALTER|PRAGMA|VACUUM|ATTACH"
    r"|DETACH|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|WITH \w+ AS)\b"
)
PATTERN_MATCH = re.compile(r"\b(LIKE|GLOB)\b")
# A statement, not a sentence that starts with this word: nothing follows but the mode and the end.
BEGIN = re.compile(r"(?:^|;)\s*BEGIN\b(?:\s+(?P<mode>\w+))?(?:\s+TRANSACTION)?\s*(?:;|$)", re.IGNORECASE)


def test_sql_is_written_only_where_sqlite_is_spoken() -> None:
    elsewhere = [
        f"{source.at(node)}: {text.strip()[:60]}"
        for source in sources("prontodb/", but=SPEAKERS)
        for node, text in texts(source.tree)
        if STATEMENT.match(text)
    ]
    assert elsewhere == []


def test_prefixes_are_ranges_and_never_patterns() -> None:
    # Users' text in LIKE or GLOB means what its wildcards mean, and LIKE folds case.
    matching = [
        f"{source.at(node)}: {text.strip()[:60]}"
        for source in sources(*SPEAKERS)
        for node, text in texts(source.tree)
        if PATTERN_MATCH.search(text)
    ]
    assert matching == []


def test_a_transaction_says_whether_it_writes() -> None:
    # A plain BEGIN that reads and then writes fails at once as SQLITE_BUSY_SNAPSHOT, whatever the timeout:
    # writers say IMMEDIATE. A snapshot for reading says DEFERRED, so that nobody takes it for forgetting.
    unclear = [
        f"{source.at(node)}: {text.strip()}"
        for source in sources("prontodb/", "tests/", "stress/")
        for node, text in texts(source.tree)
        for begin in BEGIN.finditer(text)
        if (begin["mode"] or "").upper() not in {"IMMEDIATE", "DEFERRED"}
    ]
    assert unclear == []

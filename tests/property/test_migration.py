"""Migrations against a plain model: random old tables, and each row with the fate and value that the rules give it."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prontodb.model.address import Address
from tests.checking import keystore_faults
from tests.migrating import NOW_MS, counts, entries, migrated
from tests.old_sources import T0, fingerprint, rust, shared

NOW = NOW_MS // 1_000
TIMES = st.sampled_from([0, T0, T0 + 1, T0 + 1, T0 + 2, NOW, NOW + 1])
EXPIRIES = st.sampled_from([None, None, None, T0, NOW, NOW + 1, NOW + 10**9, 0, -1])
VALUES = st.sampled_from(["", "1", "2", "text", "ä\x00\n", "x" * 3_000, "ключ"])
OWNERS = st.sampled_from(["alice.work", "alice.home", "bob.work", "default.default", "default.work"])
NAMES = st.sampled_from(["ns.a", "ns.b", "default.a", "a", "p.ns.a", "p.ns.b.c", "default.ns.a", "ns.", "ü.a", ""])
PARTS = st.sampled_from(["default", "p", "q", "a.b", "__", ""])
KEYS = st.sampled_from(["k", "l", "k__c", "a.b", "ü"])
CONTEXTS = st.sampled_from([None, None, "c", "d"])

SHARED_ROWS = st.lists(st.tuples(OWNERS, NAMES, VALUES, TIMES), max_size=25)
RUST_ROWS = st.lists(st.tuples(PARTS, PARTS, KEYS, VALUES, CONTEXTS, TIMES, EXPIRIES), max_size=25)


def newest(rows: list[tuple[int, int, Any]]) -> Any:
    """Of (time, number, row), the row that was written last."""
    return max(rows, key=lambda row: row[:2])[2]


def model(
    rows: Sequence[tuple[str, str, str, int, str, int, int | None]],
) -> tuple[dict[str, dict[str, Any]], list[int]]:
    """Return what each address holds, and how many rows are migrated, expired, superseded and reported.

    `rows`: address, key, identity, time, value, number, expiry; an empty key stands for a row that has none.
    """
    fates = [0, 0, 0, sum(not row[1] for row in rows)]
    groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        if row[1]:
            groups[row[0], row[1]].append(row)
    held: dict[str, dict[str, Any]] = defaultdict(dict)
    for (address, key), found in groups.items():
        if len({row[2] for row in found}) > 1:
            fates[3] += len(found)
            continue
        last = newest([(row[3], row[5], row) for row in found])
        fates[2] += len(found) - 1
        expires = last[6] if last[6] is not None and last[6] > 0 else None
        if expires is not None and expires <= NOW:
            fates[1] += 1
            continue
        fates[0] += 1
        held[address][key] = (last[4], last[3] * 1_000, None if expires is None else expires * 1_000)
    return held, fates


def shared_model(rows: list[tuple[str, str, str, int]]) -> tuple[dict[str, dict[str, Any]], list[int]]:
    found = []
    for number, (owner, name, value, time) in enumerate(rows):
        user, cursor = ("_default" if part == "default" else part for part in owner.split("."))
        parts = name.split(".")
        key, identity = name, ""
        if "" in parts or len(parts) < 2:
            key = ""
        elif len(parts) <= 3 and parts[0] == "default":
            kept = parts[1:]
            while len(kept) > 1 and kept[0] == "default":
                kept = kept[1:]
            key, identity = ".".join(kept), name if len(parts) == 3 else ""
        found.append((f"{user}/{cursor}", key, identity, time, value, number, None))
    return model(found)


def rust_model(rows: list[tuple[Any, ...]]) -> tuple[dict[str, dict[str, Any]], list[int]]:
    found = []
    for number, (project, namespace, key, value, context, time, expires) in enumerate(rows):
        name = key if context is None else f"{key}__{context}"
        dotted = any("." in part for part in (project, namespace, name))
        path = [project, namespace, name]
        if not dotted and project == "default":
            path = [name] if namespace == "default" else [namespace, name]
        whole = project and namespace
        identity = f"{project}|{namespace}|{key}|{context}" if dotted or "__" in key else ""
        found.append(("_default/_default", ".".join(path) if whole else "", identity, time, value, number, expires))
    return model(found)


def compare(path: Path, source: Path, expected: tuple[dict[str, dict[str, Any]], list[int]]) -> None:
    """Migrate and compare with the model; twice, and the second time nothing changes."""
    root = path / "root"
    root.mkdir(mode=0o700)
    before = fingerprint(source)
    held, fates = expected
    report = migrated(root, source)
    assert list(counts(report)) == fates
    for address, wanted in held.items():
        found = {
            key: (entry.value, entry.updated_at_ms, entry.expires_at_ms)
            for key, entry in entries(root, address).items()
        }
        # What has expired by the machine's clock, and not by the migration's, cannot be read any more.
        assert found == {key: row for key, row in wanted.items() if row[2] is None or row[2] > (NOW + 2) * 1_000}
        assert keystore_faults(str(root), Address.parse(address)) == []
    again = migrated(root, source)
    assert (list(counts(again)), again.written, again.there) == (fates, (), fates[0])
    assert fingerprint(source) == before


@pytest.mark.slow
@settings(max_examples=60)
@given(SHARED_ROWS)
def test_a_shared_table_becomes_what_the_rules_say(rows: list[tuple[str, str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        source = shared(path / "old.db", [(f"{owner}.{name}", value, time, time) for owner, name, value, time in rows])
        compare(path, source, shared_model(rows))


@pytest.mark.slow
@settings(max_examples=60)
@given(RUST_ROWS)
def test_the_rust_tables_become_what_the_rules_say(rows: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # Two rows with one context that is not NULL cannot both be there.
        unique = {(*row[:3], row[4]) if row[4] is not None else (number,): row for number, row in enumerate(rows)}
        kept = [rows[number] for number in sorted(rows.index(row) for row in unique.values())]
        source = rust(path / "main" / "pronto.main.prdb", kept)
        compare(path, source, rust_model(kept))

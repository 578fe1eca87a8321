"""Every old row has one fate: the table of ambiguities, case by case, for both formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prontodb.migration.plan import Options
from tests.migrating import NOW_MS, counts, entries, migrated, planned, reasons, values
from tests.old_sources import NAMESPACES, RUST, SHARED, T0, database, rust, shared

LATER, SOON = T0 + 5, T0 + 10**9  # of two moments the later one; one that is still to come
LATER_TEXT = "2023-11-14 22:13:25"
E_ACUTE, E_COMPOSED = "e\u0301", "\u00e9"


def one(root: Path, path: Path, rows: list[tuple[Any, ...]], **options: Any) -> tuple[Any, dict[str, int]]:
    report = migrated(root, shared(path, rows), **options)
    return report, reasons(report)


# The shared table

MIGRATED = [
    pytest.param("alice.work.ns.k", "alice/work", "ns.k", id="four parts"),
    pytest.param("alice.work.app.config.theme", "alice/work", "app.config.theme", id="more parts: the rest is the key"),
    pytest.param("alice.work.a.b.c.d.e", "alice/work", "a.b.c.d.e", id="many more"),
    pytest.param("default.work.ns.k", "_default/work", "ns.k", id="the default user"),
    pytest.param("alice.default.ns.k", "alice/_default", "ns.k", id="the default cursor"),
    pytest.param(
        "default.default.default.k", "_default/_default", "k", id="the default namespace, as paths leave it out"
    ),
    pytest.param("alice.work.default.ns.k", "alice/work", "ns.k", id="the default project"),
    pytest.param("alice.work.ns.ключ", "alice/work", "ns.ключ", id="a key beyond ASCII"),
    pytest.param("alice.work.ns.a b/c:d", "alice/work", "ns.a b/c:d", id="a key with other characters"),
    pytest.param("Alice.work.ns.k", "Alice/work", "ns.k", id="capitals"),
    pytest.param("a-1_x.w-2.ns.k", "a-1_x/w-2", "ns.k", id="a name with a dash"),
    pytest.param("alice.work.ns." + "k" * 1_021, "alice/work", "ns." + "k" * 1_021, id="the longest key"),
]


@pytest.mark.parametrize(("old", "address", "key"), MIGRATED)
def test_an_address_becomes_user_cursor_and_key(root: Path, tmp_path: Path, old: str, address: str, key: str) -> None:
    report, _ = one(root, tmp_path / "any name.sqlite", [(old, "v")])
    assert counts(report) == (1, 0, 0, 0)
    assert values(root, address) == {key: "v"}
    entry = entries(root, address)[key]
    assert (entry.created_at_ms, entry.updated_at_ms, entry.expires_at_ms) == (T0 * 1_000, T0 * 1_000, None)


REPORTED = [
    pytest.param("k", "few_parts", id="one part"),
    pytest.param("alice.work.k", "few_parts", id="three parts"),
    pytest.param("alice/work/ns/k", "few_parts", id="another delimiter"),
    pytest.param("", "empty_part", id="nothing"),
    pytest.param("alice..ns.k", "empty_part", id="an empty cursor"),
    pytest.param(".work.ns.k", "empty_part", id="an empty user"),
    pytest.param("alice.work.ns.", "empty_part", id="an empty key"),
    pytest.param("alice.work.ns.k.", "empty_part", id="a dot at the end"),
    pytest.param("al ice.work.ns.k", "no_address", id="a blank in the user"),
    pytest.param("../../etc.work.ns.k", "empty_part", id="a way out, by dots"),
    pytest.param("a/b.work.ns.k", "no_address", id="a slash in the user"),
    pytest.param("alice.wo\nrk.ns.k", "no_address", id="a line end in the cursor"),
    pytest.param("CON.work.ns.k", "no_address", id="a device of Windows"),
    pytest.param("_global.work.ns.k", "no_address", id="a name that is ours"),
    pytest.param("_default.work.ns.k", "no_address", id="our own name of the default"),
    pytest.param("-rf.work.ns.k", "no_address", id="a dash first"),
    pytest.param("x" * 65 + ".work.ns.k", "no_address", id="too long a user"),
    pytest.param(f"jos{E_COMPOSED}.work.ns.k", "no_address", id="a user beyond ASCII"),
    pytest.param("alice.work.ns.k\x00", "bad_key", id="a NUL in the key"),
    pytest.param("alice.work.ns.\x1b[2J", "bad_key", id="a control character in the key"),
    pytest.param("alice.work.ns." + "k" * 1_022, "bad_key", id="too long a key"),
    pytest.param(b"alice.work.ns.\xff", "not_text", id="an address that is a BLOB"),
    pytest.param(b"alice.work.ns.k", "not_text", id="a BLOB, though it reads like text"),
]


@pytest.mark.parametrize(("old", "reason"), REPORTED)
def test_what_has_no_clear_address_is_reported_with_its_id(
    root: Path, tmp_path: Path, old: object, reason: str
) -> None:
    report, found = one(root, tmp_path / "old.db", [("alice.w.ns.sound", "1"), (old, "v"), ("alice.w.ns.also", "2")])
    assert counts(report) == (2, 0, 0, 1)
    assert found == {reason: 1}
    example = report.reasons[0].examples[0]
    assert (example.database, example.table, example.row) == ("old.db", "kvstore", 2)
    assert values(root, "alice/w") == {"ns.sound": "1", "ns.also": "2"}
    assert not report.is_complete


def test_text_that_is_not_utf8_is_reported_and_stops_no_other_row(root: Path, tmp_path: Path) -> None:
    with database(tmp_path / "old.db", SHARED) as connection:
        connection.execute("INSERT INTO kvstore VALUES (1, CAST(x'ff2e622e632e64' AS TEXT), 'v', 0, 0)").close()
        connection.execute("INSERT INTO kvstore VALUES (2, 'a.b.c.d', CAST(x'c328' AS TEXT), 0, 0)").close()
        connection.execute("INSERT INTO kvstore VALUES (3, 'a.b.c.e', 'v', 0, 0)").close()
    report = migrated(root, tmp_path / "old.db")
    assert reasons(report) == {"not_utf8": 1, "value_not_utf8": 1}
    assert values(root, "a/b") == {"c.e": "v"}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("", ""),
        ("a\x00b", "a\x00b"),
        ("line\nline\r\n", "line\nline\r\n"),
        ("ünïcödé 🚀", "ünïcödé 🚀"),
        (E_ACUTE, E_ACUTE),
        (b"bytes that are text \xc3\xa9", "bytes that are text é"),
        ("007", "007"),
        ("1e3", "1e3"),
        (" blanks ", " blanks "),
    ],
)
def test_a_value_comes_over_to_the_byte(root: Path, tmp_path: Path, stored: object, expected: str) -> None:
    migrated(root, shared(tmp_path / "old.db", [("a.b.c.d", stored)]))
    assert values(root, "a/b") == {"c.d": expected}


def test_numbers_in_a_column_without_type_come_over_as_their_digits_or_are_reported(root: Path, tmp_path: Path) -> None:
    loose = "CREATE TABLE kvstore (id INTEGER PRIMARY KEY, address, value, created_at, updated_at)"
    with database(tmp_path / "old.db", loose) as connection:
        for number, stored in enumerate((42, -7, 1.5, None, b"\xff"), 1):
            connection.execute(
                "INSERT INTO kvstore VALUES (?, ?, ?, 0, 0)", (number, f"a.b.c.{number}", stored)
            ).close()
    report = migrated(root, tmp_path / "old.db")
    assert values(root, "a/b") == {"c.1": "42", "c.2": "-7"}
    assert reasons(report) == {"value_not_text": 2, "value_not_utf8": 1}


def test_a_value_over_the_limit_is_reported(root: Path, tmp_path: Path) -> None:
    from tests.migrating import work_at

    work = work_at(root, max_value_bytes=1_024)
    report = migrated(
        root, shared(tmp_path / "old.db", [("a.b.c.d", "x" * 1_025), ("a.b.c.e", "x" * 1_024)]), work=work
    )
    assert reasons(report) == {"value_too_large": 1}
    assert list(values(root, "a/b")) == ["c.e"]


@pytest.mark.parametrize("rubbish", [None, "", "yesterday", -1, 10**15, "0000-00-00", b"\xff", 1e300])
def test_rubbish_times_are_kept_as_unknown_and_lose_no_value(root: Path, tmp_path: Path, rubbish: object) -> None:
    report, _ = one(root, tmp_path / "old.db", [("a.b.c.d", "v", rubbish, rubbish)])
    assert counts(report) == (1, 0, 0, 0)
    entry = entries(root, "a/b")["c.d"]
    assert (entry.value, entry.created_at_ms, entry.updated_at_ms) == ("v", 0, 0)
    assert any("kept as unknown" in text for text, _ in report.flags)


def test_the_newest_row_of_a_key_counts_and_the_old_get_showed_the_oldest(root: Path, tmp_path: Path) -> None:
    rows = [
        ("a.b.c.d", "oldest", "2023-11-14 22:13:20", "2023-11-14 22:13:20"),
        ("a.b.c.d", "newest", "2023-11-14 22:13:20", "2023-11-14 22:13:30"),
        ("a.b.c.d", "between", "2023-11-14 22:13:20", "2023-11-14 22:13:25"),
        ("a.b.c.same", "1", "2023-11-14 22:13:20", "2023-11-14 22:13:20"),
        ("a.b.c.same", "1", "2023-11-14 22:13:20", "2023-11-14 22:13:25"),
    ]
    report, _ = one(root, tmp_path / "old.db", rows)
    assert counts(report) == (2, 0, 3, 0)
    assert values(root, "a/b") == {"c.d": "newest", "c.same": "1"}
    assert entries(root, "a/b")["c.d"].updated_at_ms == (T0 + 10) * 1_000
    assert report.shown_otherwise == 1, "of a key whose rows are all the same, nobody saw anything else"
    shown = report.shown[0]
    assert (shown.key, shown.row_shown, shown.row_newest, shown.newest_expired) == ("c.d", 1, 2, False)
    assert shown.newest_written_at == "2023-11-14T22:13:30Z"


def test_of_rows_with_equal_times_the_last_one_counts(root: Path, tmp_path: Path) -> None:
    report, _ = one(root, tmp_path / "old.db", [("a.b.c.d", "1"), ("a.b.c.d", "2"), ("a.b.c.d", "3")])
    assert counts(report) == (1, 0, 2, 0)
    assert values(root, "a/b") == {"c.d": "3"}


def test_where_a_row_has_no_readable_time_the_last_row_counts(root: Path, tmp_path: Path) -> None:
    rows = [
        ("a.b.c.d", "dated late", LATER_TEXT, LATER_TEXT),
        ("a.b.c.d", "undated", "rubbish", "rubbish"),
        ("a.b.c.d", "last", "2023-11-14 22:13:20", "2023-11-14 22:13:20"),
    ]
    report, _ = one(root, tmp_path / "old.db", rows)
    assert values(root, "a/b") == {"c.d": "last"}
    assert any("the last row counts" in text for text, _ in report.flags)


def test_keys_that_differ_in_case_or_composition_are_different_keys(root: Path, tmp_path: Path) -> None:
    rows = [("a.b.c.Key", "1"), ("a.b.c.key", "2"), (f"a.b.c.{E_ACUTE}", "3"), (f"a.b.c.{E_COMPOSED}", "4")]
    report, _ = one(root, tmp_path / "old.db", rows)
    assert counts(report) == (4, 0, 0, 0)
    assert values(root, "a/b") == {"c.Key": "1", "c.key": "2", f"c.{E_ACUTE}": "3", f"c.{E_COMPOSED}": "4"}


def test_users_and_cursors_that_differ_only_in_case_are_all_reported(root: Path, tmp_path: Path) -> None:
    rows = [("Alice.x.c.d", "1"), ("alice.y.c.d", "2"), ("bob.W.c.d", "3"), ("bob.w.c.d", "4"), ("carl.w.c.d", "5")]
    report, found = one(root, tmp_path / "old.db", rows)
    assert found == {"twin_address": 4}
    assert values(root, "carl/w") == {"c.d": "5"}
    assert {one.old for one in report.places if one.address is None} == {"Alice.x", "alice.y", "bob.W", "bob.w"}


def test_a_map_says_which_twin_is_which(root: Path, tmp_path: Path) -> None:
    rows = [("Alice.x.c.d", "1"), ("alice.x.c.d", "2")]
    report, _ = one(root, tmp_path / "old.db", rows, mapping={"Alice.x": "alice-capital/x"})
    assert counts(report) == (2, 0, 0, 0)
    assert (values(root, "alice-capital/x"), values(root, "alice/x")) == ({"c.d": "1"}, {"c.d": "2"})


def test_an_address_that_differs_in_case_from_one_in_the_root_is_reported(root: Path, tmp_path: Path) -> None:
    migrated(root, shared(tmp_path / "first.db", [("alice.x.c.d", "1")]))
    _, found = one(root, tmp_path / "old.db", [("Alice.x.c.d", "2"), ("alice.X.c.d", "3"), ("bob.x.c.d", "4")])
    assert found == {"twin_address": 2}
    assert (values(root, "alice/x"), values(root, "bob/x")) == ({"c.d": "1"}, {"c.d": "4"})


def test_names_that_differ_only_in_composition_say_so(root: Path, tmp_path: Path) -> None:
    rows = [(f"jos{E_ACUTE}.w.c.d", "1"), (f"jos{E_COMPOSED}.w.c.d", "2")]
    report, found = one(root, tmp_path / "old.db", rows)
    assert found == {"no_address": 2}
    assert all("Unicode composition" in place.reason for place in report.places)
    mapping = {f"jos{E_ACUTE}.w": "jose/one", f"jos{E_COMPOSED}.w": "jose/two"}
    assert counts(migrated(root, tmp_path / "old.db", mapping=mapping)) == (2, 0, 0, 0)


def test_two_old_keys_that_become_one_are_both_reported(root: Path, tmp_path: Path) -> None:
    rows = [("a.b.ns.k", "1"), ("a.b.default.ns.k", "2"), ("a.b.ns.other", "3")]
    _, found = one(root, tmp_path / "old.db", rows)
    assert found == {"twin_key": 2}
    assert values(root, "a/b") == {"ns.other": "3"}


def test_another_delimiter_is_told(root: Path, tmp_path: Path) -> None:
    rows = [("alice:work:ns:k", "1"), ("alice:work:ns:a.b", "2"), ("al.ice:w:ns:k", "3"), ("alice.work.ns.k", "4")]
    _, found = one(root, tmp_path / "old.db", rows, delimiter=":")
    assert found == {"dot_in_part": 1, "few_parts": 1}
    assert values(root, "alice/work") == {"ns.k": "1"}
    assert values(root, "al.ice/w") == {"ns.k": "3"}


def test_default_and_the_map_may_lead_several_places_to_one_address(root: Path, tmp_path: Path) -> None:
    rows = [("x.y.c.d", "1"), ("x.z.c.e", "2"), ("x.z.c.both", "3", LATER_TEXT, LATER_TEXT), ("x.y.c.both", "4")]
    report, _ = one(root, tmp_path / "old.db", rows, mapping={"x.y": "t/all", "x.z": "t/all"})
    assert counts(report) == (2, 0, 0, 2), "that two owners' keys are one now makes neither of them older"
    assert reasons(report) == {"twin_key": 2}
    assert values(root, "t/all") == {"c.d": "1", "c.e": "2"}


# The Rust program's tables


def rust_report(
    root: Path, path: Path, rows: list[tuple[Any, ...]], namespaces: Any = ()
) -> tuple[Any, dict[str, int]]:
    report = migrated(root, rust(path / "main" / "pronto.main.prdb", rows, namespaces))
    return report, reasons(report)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("p", "ns", "k"), "p.ns.k"),
        (("default", "ns", "k"), "ns.k"),
        (("default", "default", "k"), "k"),
        (("p", "default", "k"), "p.default.k"),
        (("default", "default", "default"), "default"),
        (("p", "ns", "a.b"), "p.ns.a.b"),
        (("default", "ns", "a.b"), "default.ns.a.b"),
        (("p", "n.s", "k"), "p.n.s.k"),
        (("p", "ns", "k__c"), "p.ns.k__c"),
    ],
)
def test_project_namespace_and_key_become_one_key(root: Path, tmp_path: Path, parts: tuple[str, ...], key: str) -> None:
    report, _ = rust_report(root, tmp_path, [(*parts, "v")])
    assert counts(report) == (1, 0, 0, 0)
    assert values(root, "_default/_default") == {key: "v"}


def test_a_context_is_the_end_of_the_key_as_it_was_typed(root: Path, tmp_path: Path) -> None:
    rows = [("p", "ns", "k", "plain"), ("p", "ns", "k", "one", "c1"), ("p", "ns", "k", "two", "c2")]
    rust_report(root, tmp_path, rows)
    assert values(root, "_default/_default") == {"p.ns.k": "plain", "p.ns.k__c1": "one", "p.ns.k__c2": "two"}


def test_parts_that_can_be_read_in_two_ways_are_reported_only_where_both_are_there(root: Path, tmp_path: Path) -> None:
    rows = [
        ("p", "ns", "k", "context", "c"), ("p", "ns", "k__c", "no context"),
        ("a.b", "c", "d", "1"), ("a", "b.c", "d", "2"),
        ("a.b", "c", "alone", "3"),
    ]  # fmt: skip
    _, found = rust_report(root, tmp_path, rows)
    assert found == {"twin_key": 4}
    assert values(root, "_default/_default") == {"a.b.c.alone": "3"}


def test_rows_with_null_contexts_were_never_replaced(root: Path, tmp_path: Path) -> None:
    rows = [
        ("p", "n", "k", "1", None, T0), ("p", "n", "k", "3", None, LATER), ("p", "n", "k", "2", None, T0 + 1),
        ("p", "n", "k", "4", None, LATER),
    ]  # fmt: skip
    report, _ = rust_report(root, tmp_path, rows)
    assert counts(report) == (1, 0, 3, 0)
    assert values(root, "_default/_default") == {"p.n.k": "4"}, "the newest, then the last"


def test_an_expired_newest_row_is_not_followed_by_an_older_one(root: Path, tmp_path: Path) -> None:
    rows = [
        ("p", "n", "gone", "old", None, T0, None), ("p", "n", "gone", "new", None, LATER, LATER + 1),
        ("p", "n", "alive", "old", None, T0, T0 + 1), ("p", "n", "alive", "new", None, LATER, SOON),
        ("p", "n", "dead", "alone", None, T0, T0 + 1),
    ]  # fmt: skip
    report, _ = rust_report(root, tmp_path, rows)
    assert counts(report) == (1, 2, 2, 0)
    assert values(root, "_default/_default") == {"p.n.alive": "new"}
    assert entries(root, "_default/_default")["p.n.alive"].expires_at_ms == SOON * 1_000
    shown = {(one.key, one.newest_expired) for one in report.shown}
    assert shown == {("p.n.gone", True)}, "the old get showed the older one"


def test_the_moment_of_expiry_itself_is_expired(root: Path, tmp_path: Path) -> None:
    rows = [("p", "n", "now", "v", None, T0, NOW_MS // 1_000), ("p", "n", "next", "v", None, T0, NOW_MS // 1_000 + 1)]
    report, _ = rust_report(root, tmp_path, rows)
    assert counts(report)[:2] == (1, 1)


@pytest.mark.parametrize("rubbish", [0, -1, "never", 10**15, b"\xff", 2**62])
def test_an_expiry_that_cannot_be_read_loses_no_value(root: Path, tmp_path: Path, rubbish: object) -> None:
    report, _ = rust_report(root, tmp_path, [("p", "n", "k", "v", None, T0, rubbish)])
    assert counts(report) == (1, 0, 0, 0)
    assert entries(root, "_default/_default")["p.n.k"].expires_at_ms is None
    assert any("expiry could not be read" in text for text, _ in report.flags)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", "n", "k", "v"), "empty_part"),
        (("p", "", "k", "v"), "empty_part"),
        (("p", "n", "", "v"), "empty_part"),
        (("p", "n", "k", "v", ""), "empty_part"),
        ((b"p", "n", "k", "v"), "not_text"),
        (("p", "n", b"k", "v"), "not_text"),
        (("p", "n", "k", "v", b"c"), "not_text"),
        (("p", "n", "k\n", "v"), "bad_key"),
        (("p", "n", "k" * 1_024, "v"), "bad_key"),
        (("p", "n", "k", b"\xff"), "value_not_utf8"),
    ],
)
def test_what_is_no_key_in_the_rust_tables_is_reported(
    root: Path, tmp_path: Path, row: tuple[object, ...], reason: str
) -> None:
    _, found = rust_report(root, tmp_path, [("p", "n", "sound", "1"), row])
    assert found == {reason: 1}
    assert values(root, "_default/_default") == {"p.n.sound": "1"}


def test_default_lifetimes_are_carried_over_also_without_rows(root: Path, tmp_path: Path) -> None:
    namespaces = [
        ("p", "cache", 1, 60), ("default", "cache", 1, 120), ("default", "default", 1, 30), ("p", "plain", 0, None),
        ("p", "off", 0, 60), ("p", "broken", 1, None), ("p", "minus", 1, -5), ("", "x", 1, 60),
    ]  # fmt: skip
    report, _ = rust_report(root, tmp_path, [], namespaces)
    assert report.namespaces == 3
    assert {old for old, _ in report.namespaces_reported} == {"p.broken", "p.minus", ".x"}
    from prontodb.direct import OneShot, run
    from prontodb.model.address import Address

    with OneShot(str(root), Address()) as keystore:
        assert run(keystore.namespace_ttls()) == {"p.cache": 60.0, "cache": 120.0, "": 30.0}


def test_both_formats_in_one_file_are_both_read(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "main" / "pronto.main.prdb"
    with database(path, SHARED, RUST, NAMESPACES) as connection:
        connection.execute("INSERT INTO kvstore VALUES (1, 'alice.w.ns.k', '1', 0, 0)").close()
        connection.execute("INSERT INTO kv VALUES ('p', 'ns', 'k', NULL, '2', 0, 0, NULL)").close()
    report = migrated(root, path)
    assert counts(report) == (2, 0, 0, 0)
    assert (values(root, "alice/w"), values(root, "_default/_default")) == ({"ns.k": "1"}, {"p.ns.k": "2"})


def test_a_plan_writes_nothing(root: Path, tmp_path: Path) -> None:
    source = shared(tmp_path / "old.db", [("a.b.c.d", "v")])
    report = planned(root, source)
    assert counts(report) == (1, 0, 0, 0)
    assert report.dry_run
    assert list(root.iterdir()) == []


def test_rubbish_owners_without_end_are_counted_together(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prontodb.migration import places

    monkeypatch.setattr(places, "MAX_PLACES", 5)
    rows = [(f"no {n % 30}.x.y.z", "v") for n in range(60)] + [("a.b.c.d", "1"), ("a.b.c.d", "2"), ("a.b.c.e", "3")]
    report, found = one(root, tmp_path / "old.db", rows)
    assert found == {"no_address": 60}
    assert [place.read for place in report.places if place.old == "(all others)"] == [50]
    assert len(report.places) == 7, "and no owner behind the rubbish is taken for several"
    assert values(root, "a/b") == {"c.d": "2", "c.e": "3"}
    rows = [(f"a{n}.x.y.z", "v") for n in range(6)]
    with pytest.raises(ValueError, match="the most addresses in one migration"):
        migrated(root, shared(tmp_path / "many.db", rows))
    assert values(root, "a0/x") == {}


def test_options_that_cannot_be_are_refused() -> None:
    for options in ({"on_conflict": "maybe"}, {"delimiter": ""}, {"delimiter": "\n"}, {"delimiter": "123456789"}):
        with pytest.raises(ValueError, match=r"on_conflict is|delimiter"):
            Options(**options)  # type: ignore[arg-type]

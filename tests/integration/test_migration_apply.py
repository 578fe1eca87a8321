"""Applying a plan: whole addresses, verified; what is there stays; twice changes nothing; killed, it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from prontodb.doctor import examine
from prontodb.engine.sqlite import digest, intake
from prontodb.engine.sqlite import lifecycle as lifecycle_module
from prontodb.engine.sqlite.opening import open_reader
from prontodb.errors import ConflictError, CorruptError, InvalidInputError, NewerFormatError
from prontodb.migration import saved
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from tests.backups import finished
from tests.checking import keystore_faults
from tests.migrating import (
    NOW_MS,
    chosen,
    counts,
    entries,
    migrated,
    planned,
    read_lines,
    reasons,
    values,
    work_at,
)
from tests.old_sources import T0, fingerprint, rust, shared
from tests.parts import Parts, fill, value
from tests.roots import killed_at

ROWS = [
    ("alice.work.ns.a", "1"), ("alice.work.ns.a", "2", "2023-11-14 22:13:20", "2023-11-14 22:13:25"),
    ("alice.work.ns.b", "3"), ("bob.home.ns.a", "4"), ("carl.x.ns.a", "5"), ("bad", "6"),
]  # fmt: skip
ADDRESSES = ("alice/work", "bob/home", "carl/x")
EXPECTED = {"alice/work": {"ns.a": "2", "ns.b": "3"}, "bob/home": {"ns.a": "4"}, "carl/x": {"ns.a": "5"}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return shared(tmp_path / "old.db", ROWS)


def contents(root: Path, *addresses: str) -> dict[str, dict[str, str]]:
    return {address: values(root, address) for address in addresses or ADDRESSES}


def state(root: Path) -> dict[str, Any]:
    """All that a root holds at the addresses, revisions and moments included."""
    return {address: entries(root, address) for address in ADDRESSES}


def files_of(root: Path) -> dict[str, tuple[object, ...]]:
    """What the files are that a migration would put in; readers leave empty logs beside them."""
    found = fingerprint(root / "addresses")
    return {name: what for name, what in found.items() if name.endswith((".json", ".db"))}


def whole(root: Path) -> list[str]:
    """What is wrong anywhere in a root."""
    faults = [fault for address in ADDRESSES for fault in keystore_faults(str(root), Address.parse(address))]
    report = examine(Layout(str(root)), Limits(), ManualClock(NOW_MS), deep=True, repair=False)
    return faults + [finding.what for finding in report.findings if finding.level == "error"]


def test_addresses_are_made_whole_and_sound(root: Path, source: Path) -> None:
    report = migrated(root, source)
    assert contents(root) == EXPECTED
    assert sorted(report.written) == sorted(ADDRESSES)
    assert whole(root) == []
    assert Parts(root).listed().keys() == EXPECTED.keys(), "the registry knows them"


def test_a_second_run_changes_nothing(root: Path, source: Path) -> None:
    first = migrated(root, source)
    before, disk = state(root), files_of(root)
    again = migrated(root, source)
    assert counts(again) == counts(first)
    assert (again.there, again.written) == (4, ())
    assert state(root) == before
    assert files_of(root) == disk


def test_what_is_there_already_stays_and_is_reported(root: Path, source: Path) -> None:
    fill(root, "alice/work", {"ns.a": "mine", "own": "x"})
    report = migrated(root, source)
    assert reasons(report) == {"kept": 1, "few_parts": 1}
    assert values(root, "alice/work") == {"ns.a": "mine", "ns.b": "3", "own": "x"}
    (kept,) = (one for one in report.reasons if one.reason == "kept")
    assert [(one.row, one.detail) for one in kept.examples] == [(2, "another value")]
    assert whole(root) == []


def test_the_same_value_with_other_times_is_kept_and_told_so(root: Path, source: Path) -> None:
    fill(root, "bob/home", {"ns.a": "4"})
    report = migrated(root, source)
    (kept,) = (one for one in report.reasons if one.reason == "kept")
    assert kept.examples[0].detail == "the same value, with other times"


def test_replace_writes_over_what_is_there(root: Path, source: Path) -> None:
    fill(root, "alice/work", {"ns.a": "mine", "own": "x"})
    revision = entries(root, "alice/work")["own"].revision
    report = migrated(root, source, on_conflict="replace")
    assert reasons(report) == {"few_parts": 1}
    assert values(root, "alice/work") == {"ns.a": "2", "ns.b": "3", "own": "x"}
    found = entries(root, "alice/work")
    assert found["ns.a"].updated_at_ms == (T0 + 5) * 1_000
    assert found["ns.a"].revision > revision, "a change like any other, for whoever compares and sets"
    assert whole(root) == []


def test_fail_writes_nothing_at_all(root: Path, source: Path) -> None:
    fill(root, "carl/x", {"ns.a": "mine"})
    before = state(root)
    with pytest.raises(ConflictError, match=r"ns\.a.*carl/x"):
        migrated(root, source, on_conflict="fail")
    assert state(root) == before
    assert list((root / "addresses").iterdir()) == [root / "addresses" / "carl"]
    # The same entry, exactly, is no conflict.
    migrated(root, source, on_conflict="replace")
    assert migrated(root, source, on_conflict="fail").there == 4


def test_fail_stops_at_an_address_that_was_written_to_since_the_plan(root: Path, source: Path) -> None:
    fill(root, "bob/home", {"own": "x"})
    with work_at(root).migration(str(source), chosen({"on_conflict": "fail"})) as migration:
        finished(migration.planning())
        fill(root, "bob/home", {"ns.a": "set meanwhile"})
        with pytest.raises(ConflictError, match="since the plan was made"):
            finished(migration.applying())
    assert values(root, "bob/home") == {"own": "x", "ns.a": "set meanwhile"}


def test_what_was_set_since_the_plan_is_kept(root: Path, source: Path) -> None:
    fill(root, "bob/home", {"own": "x"})
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        fill(root, "bob/home", {"ns.a": "set meanwhile"})
        fill(root, "carl/x", {"other": "made meanwhile"})
        report = finished(migration.applying())
    assert reasons(report) == {"kept": 1, "few_parts": 1}
    assert values(root, "bob/home") == {"own": "x", "ns.a": "set meanwhile"}
    assert values(root, "carl/x") == {"other": "made meanwhile", "ns.a": "5"}


def test_what_an_address_deleted_is_not_brought_back_by_a_second_run(root: Path, source: Path) -> None:
    from prontodb.direct import OneShot, run

    migrated(root, source)
    with OneShot(str(root), Address("alice", "work")) as keystore:
        run(keystore.delete("ns.a"))
        run(keystore.delete("ns.b"))
        run(keystore.set("ns.b", "again"))
        run(keystore.delete("ns.b"))
        run(keystore.set("ns.b", "3"))
    report = migrated(root, source)
    assert reasons(report) == {"deleted_here": 1, "kept": 1, "few_parts": 1}
    assert values(root, "alice/work") == {"ns.b": "3"}
    assert migrated(root, source, on_conflict="replace").written == ("alice/work",)
    assert values(root, "alice/work") == EXPECTED["alice/work"]


def test_an_expired_entry_in_the_way_is_none(root: Path, source: Path) -> None:
    from prontodb.direct import OneShot, run

    with OneShot(str(root), Address("carl", "x")) as keystore:
        run(keystore.set("ns.a", "short", ttl=0.001))
    clock = ManualClock(4_000_000_000_000)
    report = migrated(root, source, work=work_at(root, clock))
    assert values(root, "carl/x") == {"ns.a": "5"}
    assert reasons(report) == {"few_parts": 1}


def test_lifetimes_of_an_address_stay_unless_told_otherwise(root: Path, tmp_path: Path) -> None:
    from prontodb.direct import OneShot, run

    namespaces = [("p", "mine", 1, 60), ("p", "same", 1, 90), ("p", "new", 1, 120)]
    source = rust(tmp_path / "main" / "pronto.main.prdb", [], namespaces)
    with OneShot(str(root), Address()) as keystore:
        run(keystore.set_namespace_ttl("p.mine", 5))
        run(keystore.set_namespace_ttl("p.same", 90))
    report = migrated(root, source)
    assert [old for old, _ in report.namespaces_reported] == ["p.mine"]
    with OneShot(str(root), Address()) as keystore:
        assert run(keystore.namespace_ttls()) == {"p.mine": 5.0, "p.same": 90.0, "p.new": 120.0}
    migrated(root, source, on_conflict="replace")
    with OneShot(str(root), Address()) as keystore:
        assert run(keystore.namespace_ttls())["p.mine"] == 60.0


def test_labels_and_the_day_of_creation_stay(root: Path, source: Path) -> None:
    from prontodb.engine.sqlite import metadata

    fill(root, "alice/work", {"own": "x"})
    path = root / "addresses" / "alice" / "work" / "metadata.json"
    path.write_bytes(metadata.image(12_345, {"team": "blue"}))
    migrated(root, source)
    fields = json.loads(path.read_text())
    assert (fields["created_at"], fields["labels"]) == (12_345, {"team": "blue"})


def test_a_migration_can_be_undone_like_a_restore(root: Path, source: Path) -> None:
    fill(root, "alice/work", {"ns.b": "mine"})
    migrated(root, source, on_conflict="replace")
    work_at(root).undo_restore(Address("alice", "work"))
    assert values(root, "alice/work") == {"ns.b": "mine"}


def test_quotas_hold_for_migrated_entries(root: Path, source: Path) -> None:
    report = migrated(root, source, work=work_at(root, max_entries=1))
    assert [address for address, _ in report.failed] == ["alice/work"]
    assert contents(root) == {**EXPECTED, "alice/work": {}}


def test_the_history_of_a_migrated_address_tells_of_the_migration(root: Path, source: Path) -> None:
    migrated(root, source)
    connection, _ = open_reader(Layout(str(root)), Address("alice", "work"), busy_timeout_ms=5_000)
    try:
        assert list(intake.changes_since(connection, "migrate")) == [("ns.a", True), ("ns.b", True)]
    finally:
        connection.close()


def test_backups_and_history_go_on_after_a_migration(root: Path, tmp_path: Path, source: Path) -> None:
    work = work_at(root)
    fill(root, "alice/work", {"own": "x"})
    work._lifecycle.keep_history(Address("alice", "work"), True)
    finished(work.backup())
    migrated(root, source)
    finished(work.backup())
    assert finished(work.verify()).is_whole
    fill(root, "alice/work", {"ns.a": "after"})
    finished(work.restoring(user="alice", cursor="work").steps())
    assert values(root, "alice/work") == {**EXPECTED["alice/work"], "own": "x"}
    assert entries(root, "alice/work")["ns.a"].updated_at_ms == (T0 + 5) * 1_000
    assert whole(root) == []


def test_a_damaged_address_in_the_root_stops_no_other(root: Path, source: Path) -> None:
    fill(root, "alice/work", {"own": "x"})
    path = root / "addresses" / "alice" / "work" / "keystore.db"
    path.write_bytes(b"x" * 8_192)
    for report in (planned(root, source), migrated(root, source)):
        assert [address for address, _ in report.failed] == ["alice/work"]
        assert reasons(report) == {"failed": 2, "few_parts": 1}
    assert path.read_bytes() == b"x" * 8_192
    assert contents(root, "bob/home", "carl/x") == {name: EXPECTED[name] for name in ("bob/home", "carl/x")}


# What cannot be trusted is not put in


def test_a_staged_keystore_that_differs_from_the_plan_is_not_put_in(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, "alice/work", {"own": "x"})
    real = digest.Digest.changed

    def wrong(self: digest.Digest, gone: Any, come: Any) -> digest.Digest:
        return real(self, gone, [hash_ + 1 for hash_ in come])

    monkeypatch.setattr(digest.Digest, "changed", wrong)
    report = migrated(root, source)
    assert len(report.failed) == 3
    assert all("that are not" in reason for _, reason in report.failed)
    assert contents(root) == {"alice/work": {"own": "x"}, "bob/home": {}, "carl/x": {}}


def test_a_lost_row_is_noticed_before_an_address_is_put_in(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prontodb.migration.ledger import Ledger

    real = Ledger.values

    def without_the_first(self: Ledger, slot: int, copies: Any) -> Iterator[Any]:
        found = real(self, slot, copies)
        next(found)
        yield from found

    monkeypatch.setattr(Ledger, "values", without_the_first)
    report = migrated(root, source)
    assert len(report.failed) == 3
    assert contents(root) == {"alice/work": {}, "bob/home": {}, "carl/x": {}}


def test_counts_that_do_not_add_up_are_never_reported(
    root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prontodb.migration.ledger import Ledger

    monkeypatch.setattr(Ledger, "fates", lambda _: ({3: 3}, 0))
    with pytest.raises(CorruptError, match="mistake of ours"):
        migrated(root, source)


# Killed at any step


STEPS = ("restore.begun", "restore.staged", "restore.aside", "restore.placed", "restore.registered")


@contextmanager
def killed_at_address(step: str, number: int) -> Iterator[None]:
    """Kill at a step of the `number`th address."""
    seen: list[str] = []

    def count(name: str) -> None:
        if name == step:
            seen.append(name)
            if len(seen) < number:
                return
            raise _KilledError

    lifecycle_module.FAILPOINT.append(count)
    try:
        with pytest.raises(_KilledError):
            yield
    finally:
        lifecycle_module.FAILPOINT.remove(count)


class _KilledError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [1, 2])
def test_killed_at_any_step_whole_addresses_are_left_and_a_second_run_does_the_rest(
    root: Path, source: Path, step: str, number: int
) -> None:
    for address in ADDRESSES:
        fill(root, address, {"own": address})
    undisturbed = {address: {**EXPECTED[address], "own": address} for address in ADDRESSES}
    with killed_at_address(step, number):
        migrated(root, source)
    for address in ADDRESSES:
        healed = Parts(root).lifecycle
        healed.heal(Address.parse(address))
        assert values(root, address) in ({"own": address}, undisturbed[address])
    report = migrated(root, source)
    assert contents(root) == undisturbed
    assert counts(report) == (4, 0, 1, 1)
    assert whole(root) == []


@pytest.mark.parametrize("step", [step for step in STEPS if step != "restore.aside"])
def test_killed_while_an_address_is_made_it_is_whole_or_not_there(root: Path, source: Path, step: str) -> None:
    with killed_at(step):
        migrated(root, source)
    assert values(root, "alice/work") in ({}, EXPECTED["alice/work"])
    migrated(root, source)
    assert contents(root) == EXPECTED
    assert whole(root) == []


# The plan as data


def test_a_saved_plan_is_applied_later(root: Path, tmp_path: Path, source: Path) -> None:
    path, options = tmp_path / "plan.json", {"mapping": {"carl.x": "karl/x"}}
    with work_at(root).migration(str(source), chosen(options)) as migration:
        finished(migration.planning())
        migration.write_plan(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    fields = json.loads(path.read_text())
    assert fields["places"] == {"alice.work": "alice/work", "bob.home": "bob/home", "carl.x": "karl/x"}
    assert fields["counts"]["read"] == 6
    plan = saved.read(path.read_bytes(), "plan.json")
    with work_at(root).migration(plan.source, plan.options, plan=plan) as migration:
        finished(migration.planning())
        finished(migration.applying())
    assert contents(root, "alice/work", "karl/x") == {
        "alice/work": EXPECTED["alice/work"],
        "karl/x": EXPECTED["carl/x"],
    }


def test_a_saved_plan_is_of_one_source_and_one_root_as_they_were(root: Path, tmp_path: Path, source: Path) -> None:
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        migration.write_plan(str(tmp_path / "plan.json"))
    data = (tmp_path / "plan.json").read_bytes()
    plan = saved.read(data, "plan.json")
    fill(root, "Bob/home", {"k": "v"})  # since then a twin has come
    with (
        work_at(root).migration(plan.source, plan.options, plan=plan) as migration,
        pytest.raises(ConflictError, match="would go to None now"),
    ):
        finished(migration.planning())
    source.unlink()
    shared(source, [*ROWS, ("alice.work.ns.c", "new")])
    with (
        work_at(root).migration(plan.source, plan.options, plan=plan) as migration,
        pytest.raises(ConflictError, match="is not as it was"),
    ):
        finished(migration.planning())


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"prontodb_migration_plan": 1}', '{"prontodb_migration_plan": "x"}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no plan of a migration"):
        saved.read(text.encode(), "p.json")


def test_fields_of_another_kind_in_a_plan_are_refused(root: Path, tmp_path: Path, source: Path) -> None:
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        migration.write_plan(str(tmp_path / "plan.json"))
    fields = json.loads((tmp_path / "plan.json").read_text())
    for name in ("source", "options", "files", "places"):
        for wrong in (None, 5, ["x"], {"x": 5}):
            broken = json.dumps({**fields, name: wrong}).encode()
            with pytest.raises(InvalidInputError):
                saved.read(broken, "plan.json")
    with pytest.raises(NewerFormatError):
        saved.read(json.dumps({**fields, "prontodb_migration_plan": 2}).encode(), "plan.json")


def test_the_report_file_names_every_reported_row(root: Path, tmp_path: Path) -> None:
    rows = [("bad", "x")] * 3 + [("a.b.c.d", "secret value")] + [("worse", "y")] * 4
    source, path = shared(tmp_path / "old.db", rows), tmp_path / "report.jsonl"
    with work_at(root).migration(str(source), chosen({})) as migration:
        finished(migration.planning())
        report = finished(migration.applying())
        migration.write_report(str(path), report)
        migration.write_report(str(path), report)  # in the place of the first one
    summary, *lines = read_lines(path)
    assert (summary["kind"], summary["read"], summary["reported"]) == ("summary", 8, 7)
    assert sorted(line["row"] for line in lines) == [1, 2, 3, 5, 6, 7, 8]
    assert {line["reason"] for line in lines} == {"few_parts"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret" not in path.read_text(), "a report names rows; values it never shows"


def test_a_plan_tells_of_conflicts_before_anything_is_done(root: Path, source: Path) -> None:
    fill(root, "alice/work", {"ns.a": "mine"})
    assert reasons(planned(root, source)) == {"kept": 1, "few_parts": 1}
    assert value(root, "alice/work", "ns.a") == "mine"

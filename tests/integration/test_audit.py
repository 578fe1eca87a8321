"""`audit verify` against every edit of a recorded file: the first bad record is named, and nothing sound is accused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prontodb.audit.report import CUT, DROPPED, EDITED, ENTRY, FOREIGN, MISSING, PRUNED, REORDERED, REWRITTEN
from prontodb.storage import connection as sqlite
from tests.audits import ADDRESS, checksum, copied, file_of, forged, looked, recorded, swapped, tampered
from tests.managing import managed
from tests.parts import fill
from tests.unit.cli.harness import Cli, Outcome

ROWS = 5


@pytest.fixture
def cli(root: Path) -> Cli:
    return Cli(root)


@pytest.fixture
async def kept(root: Path) -> Path:
    """Five changes in five rows, and an anchor at the end of the session."""
    await recorded(root, changes=ROWS)
    return root


def verified(cli: Cli, address: str = ADDRESS) -> tuple[int, list[tuple[str, int | None]]]:
    """The exit code, and kind and revision of what was found."""
    outcome = cli("audit", "verify", address, "--json")
    [audit] = outcome.json
    return outcome.code, [(found["kind"], found["revision"]) for found in audit["findings"]]


def sound(cli: Cli, *address: str) -> Outcome:
    outcome = cli("audit", "verify", *address)
    assert (outcome.code, outcome.lines) == (0, []), outcome
    return outcome


async def test_what_was_recorded_is_sound_up_to_its_last_anchor(kept: Path, cli: Cli) -> None:
    [audit] = cli.ok("audit", "verify", ADDRESS, "--json").json
    assert (audit["records"], audit["entries"], audit["since_anchor"]) == (ROWS, ROWS, 0)
    assert audit["anchor"]["revision"] == ROWS
    fill(kept, ADDRESS, {"later": "x"})  # a command leaves no anchor
    outcome = sound(cli, ADDRESS)
    assert "1 record since the last anchors: chained without a key" in outcome.err
    # But this verification did.
    assert cli.ok("audit", "verify", ADDRESS, "--json").json[0]["since_anchor"] == 0


# Edits of the journal

EDITS = {
    "first_rev": "first_rev - 1",
    "at": "at + 1",
    "session": "session || 'x'",
    "records": "replace(records, 'key', 'kez')",
    "chain": "randomblob(16)",
}


@pytest.mark.parametrize("column", EDITS)
async def test_every_column_of_every_row_is_covered(kept: Path, cli: Cli, column: str, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    copied(kept, clean)
    for revision in range(1, ROWS + 1):
        tampered(kept, f"UPDATE journal SET {column} = {EDITS[column]} WHERE rev = {revision}")
        assert verified(cli) == (1, [(EDITED, revision)])
        shutil.copyfile(clean, file_of(kept))
    sound(cli, ADDRESS)


@pytest.mark.parametrize("value", ["x''", "'text'", "1.5", "x'00ff'", "CAST(x'ff' AS TEXT)", "zeroblob(3000000)"])
@pytest.mark.parametrize("column", EDITS)
async def test_a_column_of_another_type_is_an_edit_and_no_crash(kept: Path, cli: Cli, column: str, value: str) -> None:
    tampered(kept, f"UPDATE journal SET {column} = {value} WHERE rev = 3")
    assert verified(cli) == (1, [(EDITED, 3)])


async def test_every_dropped_row_is_named(kept: Path, cli: Cli, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    copied(kept, clean)
    for revision in range(1, ROWS + 1):
        tampered(kept, f"DELETE FROM journal WHERE rev = {revision}")
        assert verified(cli) == (1, [(CUT if revision == ROWS else DROPPED, revision)])
        shutil.copyfile(clean, file_of(kept))


async def test_any_two_rows_that_change_places_are_named(kept: Path, cli: Cli, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    copied(kept, clean)
    for one in range(1, ROWS):
        for other in range(one + 1, ROWS + 1):
            for columns in ("at, session, records, chain", "at, session, records"):
                names = columns.split(", ")
                [row] = looked(kept, f"SELECT {columns} FROM journal WHERE rev = {one}")
                change = ", ".join(f"{name} = (SELECT {name} FROM journal WHERE rev = {other})" for name in names)
                tampered(
                    kept,
                    f"UPDATE journal SET {change} WHERE rev = {one}",
                    (f"UPDATE journal SET {', '.join(f'{n} = ?' for n in names)} WHERE rev = {other}", tuple(row)),
                )
                assert verified(cli) == (1, [(REORDERED, one)]), (one, other, columns)
                shutil.copyfile(clean, file_of(kept))


async def test_a_cut_tail_is_noticed_back_to_the_last_anchor(kept: Path, cli: Cli, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    copied(kept, clean)
    for left in range(ROWS):
        # With the entries that it tells of: as if it had never been written.
        tampered(kept, f"DELETE FROM journal WHERE rev > {left}", f"DELETE FROM kvstore WHERE rev > {left}")
        assert verified(cli) == (1, [(CUT, left + 1)])
        shutil.copyfile(clean, file_of(kept))
    fill(kept, ADDRESS, {"a": "1", "b": "2"})
    tampered(kept, "DELETE FROM journal WHERE rev > 6", "DELETE FROM kvstore WHERE rev > 6")
    outcome = sound(cli, ADDRESS)  # past the last anchor nobody can tell, and that is said
    assert "could be cut off" in outcome.err


async def test_a_chain_computed_anew_is_caught_by_the_anchor_and_narrowed_down_by_the_one_before(
    root: Path, cli: Cli
) -> None:
    await recorded(root, sessions=3, changes=2)
    forged(root, 4, '[["del","key0"]]')
    code, [found] = verified(cli)
    assert (code, found) == (1, (REWRITTEN, 3))
    assert "records 3 to 4" in cli("audit", "verify", ADDRESS).text


async def test_records_forged_past_the_last_anchor_are_what_a_key_is_for(kept: Path, cli: Cli) -> None:
    fill(kept, ADDRESS, {"key0": "mine"})
    [(text,)] = looked(kept, "SELECT records FROM journal WHERE rev = 6")
    digest = json.loads(text)[0][2]
    forged(kept, 6, json.dumps([["set", "key0", "0" * len(digest), None]]))
    # Without it only the entry contradicts.
    assert verified(cli) == (1, [(ENTRY, 6)])


# Edits of entries


async def test_an_entry_edited_with_its_checksum_set_right_is_named(kept: Path, cli: Cli) -> None:
    [(key, created, updated, expires, rev)] = looked(
        kept, "SELECT namespace_key, created_at, updated_at, ttl_expires_at, rev FROM kvstore WHERE rev = 3"
    )
    total = checksum(key, "forged", created, updated, expires, rev)
    tampered(kept, ("UPDATE kvstore SET value = 'forged', checksum = ? WHERE rev = 3", (total,)))
    assert cli.ok("get", "--raw", key, "--user", "agent", "--cursor", "test").out == b"forged"  # the store believes it
    assert verified(cli) == (1, [(ENTRY, 3)])


ENTRY_EDITS: dict[str, tuple[str, int | None]] = {
    "UPDATE kvstore SET ttl_expires_at = 99999999999999 WHERE rev = 2": ("expiry", 2),
    "UPDATE kvstore SET rev = 9 WHERE rev = 4": ("revision", 4),
    "UPDATE kvstore SET value = x'00ff' WHERE rev = 2": ("value of another type", 2),
    "DELETE FROM kvstore WHERE rev = 5": ("deleted", 5),
    "UPDATE kvstore SET namespace_key = 'other' WHERE rev = 1": ("renamed", 1),
    "INSERT INTO kvstore VALUES (99, 'new', 'x', 1, 1, NULL, 6, 0)": ("added", 6),
    "UPDATE kvstore SET rev = 'x' WHERE rev = 3": ("no revision", 3),
}


@pytest.mark.parametrize("edit", ENTRY_EDITS)
async def test_every_edit_of_an_entry_is_named_by_its_record(kept: Path, cli: Cli, edit: str) -> None:
    tampered(kept, edit)
    code, found = verified(cli)
    assert code == 1
    assert found[0] == (ENTRY, ENTRY_EDITS[edit][1])


async def test_an_old_entry_put_back_in_place_of_a_newer_one_is_named(root: Path, cli: Cli) -> None:
    await recorded(root, changes=2)
    [row] = looked(root, "SELECT * FROM kvstore WHERE namespace_key = 'key0'")
    await recorded(root, changes=2)
    tampered(root, "DELETE FROM kvstore WHERE namespace_key = 'key0'")
    tampered(root, ("INSERT INTO kvstore VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(row)))
    assert verified(cli) == (1, [(ENTRY, 3)])


async def test_a_deleted_entry_brought_back_is_named(kept: Path, cli: Cli) -> None:
    [row] = looked(kept, "SELECT * FROM kvstore WHERE namespace_key = 'key0'")
    cli.ok("del", "--raw", "key0", "--user", "agent", "--cursor", "test")
    tampered(kept, ("INSERT INTO kvstore VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(row)))
    assert verified(cli) == (1, [(ENTRY, 1)])


# Swapped files


async def test_swapped_files_are_named_with_their_owners(root: Path, cli: Cli) -> None:
    await recorded(root, address="agent/one")
    await recorded(root, address="agent/two")
    swapped(root, "agent/one", "agent/two")
    outcome = cli("audit", "verify")
    assert outcome.code == 1
    assert "agent/one: the keystore of agent/two lies here" in outcome.text
    assert "agent/two: the keystore of agent/one lies here" in outcome.text


async def test_an_older_copy_of_the_same_file_is_a_cut_tail_and_stays_one_after_new_writes(
    kept: Path, cli: Cli, tmp_path: Path
) -> None:
    copied(kept, tmp_path / "old")
    await recorded(kept, changes=3)
    shutil.copyfile(tmp_path / "old", file_of(kept))
    assert verified(cli) == (1, [(CUT, ROWS + 1)])
    fill(kept, ADDRESS, {f"n{n}": "x" for n in range(4)})
    assert verified(cli) == (1, [(REWRITTEN, ROWS + 1)])


async def test_a_fresh_file_in_the_place_of_a_keystore_is_foreign_until_it_is_accepted(
    kept: Path, cli: Cli, tmp_path: Path
) -> None:
    fill(tmp_path / "elsewhere", ADDRESS, {"a": "1"})
    shutil.copyfile(file_of(tmp_path / "elsewhere"), file_of(kept))
    assert verified(cli) == (1, [(FOREIGN, None)])
    assert "prontodb audit accept agent/test" in cli("audit", "verify", ADDRESS).text
    assert "needs an answer of y" in cli.fails("audit", "accept", ADDRESS)
    cli.ok("audit", "accept", ADDRESS, "--yes")
    sound(cli, ADDRESS)


async def test_an_edited_incarnation_is_another_keystore(kept: Path, cli: Cli) -> None:
    tampered(kept, "UPDATE meta SET incarnation = randomblob(16)")
    assert verified(cli) == (1, [(FOREIGN, None)])


async def test_a_keystore_that_vanished_is_missing_and_one_that_was_renamed_by_hand_is_not(
    kept: Path, cli: Cli
) -> None:
    folder = file_of(kept).parent
    folder.rename(folder.with_name("moved"))
    # Its keystore is there under another name.
    assert cli("audit", "verify").lines == []
    shutil.rmtree(folder.with_name("moved"))
    outcome = cli("audit", "verify", "--json")
    # Under the other name, too, it was seen.
    found = {one["address"]: one["findings"][0]["kind"] for one in outcome.json}
    assert (outcome.code, found) == (1, {"agent/moved": MISSING, ADDRESS: MISSING})
    for address in found:
        cli.ok("audit", "accept", address, "--yes")
    sound(cli)


# The floor, the anchors, the registry

FLOORS = {
    "UPDATE meta SET floor = 2": (PRUNED, 1),
    "UPDATE meta SET floor_chain = randomblob(16)": (EDITED, 1),
    "DELETE FROM journal WHERE rev <= 2": (DROPPED, 1),
}


@pytest.mark.parametrize("edit", FLOORS)
async def test_a_floor_that_does_not_fit_is_noticed(kept: Path, cli: Cli, edit: str) -> None:
    tampered(kept, edit)
    assert verified(cli) == (1, [FLOORS[edit]])


async def test_everything_pruned_by_hand_up_to_the_anchor_must_lead_to_it(kept: Path, cli: Cli) -> None:
    tampered(kept, "DELETE FROM journal", "UPDATE meta SET floor = 5, floor_chain = randomblob(16)")
    assert verified(cli) == (1, [(PRUNED, None)])


async def test_a_file_pruned_as_we_prune_is_sound_and_says_how_far_back_it_reaches(kept: Path, cli: Cli) -> None:
    tampered(
        kept,
        "UPDATE meta SET floor = 2, floor_chain = (SELECT chain FROM journal WHERE rev = 2)",
        "DELETE FROM journal WHERE rev <= 2",
    )
    outcome = sound(cli, ADDRESS)
    assert "records up to 2 are pruned" in outcome.err
    assert "2 entries are older than the journal" in outcome.err


async def test_edited_anchors_are_noticed_as_long_as_the_backups_or_others_know_better(root: Path, cli: Cli) -> None:
    await recorded(root, sessions=2)
    connection = sqlite.connect(str(root / "registry" / "active_sessions.db"))
    connection.execute("UPDATE anchors SET chain = '00' WHERE number = 2").close()
    connection.close()
    assert verified(cli) == (1, [(REWRITTEN, 6)])


async def test_without_the_registry_the_backups_vouch_and_nothing_sound_is_accused(kept: Path, cli: Cli) -> None:
    cli.ok("backup", "create")
    await recorded(kept)
    shutil.rmtree(kept / "registry")
    outcome = cli("audit", "verify", ADDRESS, "--json")
    assert outcome.code == 0
    assert "no anchor is in the registry" in outcome.err
    assert outcome.json[0]["anchor"]["source"].startswith("backup 20")
    shutil.rmtree(kept / "registry")
    tampered(kept, "DELETE FROM journal WHERE rev > 4", "DELETE FROM kvstore")
    assert verified(cli) == (1, [(CUT, 5)])


async def test_swapped_files_are_noticed_by_the_backups_alone(root: Path, cli: Cli) -> None:
    await recorded(root, address="agent/one")
    await recorded(root, address="agent/two")
    cli.ok("backup", "create")
    swapped(root, "agent/one", "agent/two")
    shutil.rmtree(root / "registry")
    outcome = cli("audit", "verify")
    assert outcome.code == 1
    assert "agent/one: the keystore of agent/two lies here" in outcome.text


# What we do ourselves keeps it sound


async def renamed(root: Path, cli: Cli) -> None:
    cli.ok("address", "rename", ADDRESS, "agent/new")
    cli.ok("address", "rename", "agent/new", ADDRESS)


async def restored(root: Path, cli: Cli) -> None:
    cli.ok("backup", "create")
    await recorded(root, changes=2)
    cli.ok("restore", "--yes")


async def restored_and_undone(root: Path, cli: Cli) -> None:
    await restored(root, cli)
    sound(cli)
    cli.ok("restore", "--undo", "--yes")


async def made_anew(root: Path, cli: Cli) -> None:
    cli.ok("address", "delete", ADDRESS, "--yes")
    fill(root, ADDRESS, {"a": "1"})


async def given_to_another_and_made_anew(root: Path, cli: Cli) -> None:
    cli.ok("address", "rename", ADDRESS, "agent/new")
    fill(root, ADDRESS, {"a": "1"})
    await recorded(root)


async def swept(root: Path, cli: Cli) -> None:
    async with managed(root) as manager:
        async with manager.session("agent", "test") as keystore:
            await keystore.set("short", "x", ttl=0.001)
            await keystore.set("key1", "again", ttl=3_600)
        await manager.sweep(trust_clock=True)


async def with_history(root: Path, cli: Cli) -> None:
    cli.ok("address", "history", ADDRESS, "on")
    cli.ok("create-cache", "p.n", "15m", "--user", "agent", "--cursor", "test")
    await recorded(root)


OURS: tuple[Callable[[Path, Cli], object], ...] = (
    renamed,
    restored,
    restored_and_undone,
    made_anew,
    given_to_another_and_made_anew,
    swept,
    with_history,
)


@pytest.mark.parametrize("work", OURS, ids=lambda work: work.__name__)
async def test_what_we_do_ourselves_is_never_accused(kept: Path, cli: Cli, work: Callable[[Path, Cli], object]) -> None:
    await work(kept, cli)  # type: ignore[misc]
    sound(cli)
    fill(kept, ADDRESS, {"after": "x"})
    await recorded(kept)
    sound(cli)

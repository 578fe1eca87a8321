"""A suite written by others tampers with our files, and looks whether we notice: `agmi-check`, all of its edits."""

from __future__ import annotations

import agmi.check
import pytest

from tests.integrity.adapters import JournalFile, KeystoreFile, KeystoreTail, RootAlone, WholeRoot

EDITS = 9
REPORTED, ACCEPTED = "REPORTED", "ACCEPTED"


def verdicts(adapter: KeystoreFile) -> dict[str, str]:
    found = agmi.check.run(adapter)
    assert len(found) == EDITS
    return {row["attack"]: row["verdict"] for row in found}


@pytest.mark.parametrize("adapter", [KeystoreFile, KeystoreTail, JournalFile, WholeRoot])
def test_every_edit_of_the_suite_is_reported(adapter: type[KeystoreFile]) -> None:
    assert set(verdicts(adapter()).values()) == {REPORTED}


def test_who_rolls_back_all_that_could_vouch_for_anything_is_not_noticed() -> None:
    # What a second place for backups, or a copy of the anchors on another machine, is for.
    found = verdicts(RootAlone())
    assert found.pop("snapshot_rollback") == ACCEPTED
    assert set(found.values()) == {REPORTED}

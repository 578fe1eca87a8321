"""On a full disk addresses go, move and come back: noted in the room of the reserve, or refused, nothing changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from prontodb.model.layout import Layout
from prontodb.registry.anchors import AnchorRegistry
from tests.audits import ADDRESS, accusations, recorded
from tests.integration.test_healing import on_a_small_disk
from tests.roots import as_root
from tests.unit.cli.harness import Cli

CHANGED = """
import json, os, sys
from tests.unit.cli.harness import Cli

place, way, *words = sys.argv[1:]
root, filler = os.path.join(place, "root"), os.path.join(place, "filler")
reserve, due = os.path.join(root, "registry", ".reserve"), os.path.join(root, "registry", "due")
cli, at = Cli(root), ("--user", "agent", "--cursor", "test")
cli.ok("set", "k", "old", *at)
cli.ok("backup", "create")
cli.ok("restore", *at, "--yes")
cli.ok("set", "k", "new", *at)
cli.ok("audit", "accept", "agent/test", "--yes")
if way == "without the reserve":
    os.remove(reserve)
file = os.open(filler, os.O_WRONLY | os.O_CREAT)
try:
    while os.write(file, bytes(4096)):
        continue
except OSError:
    os.close(file)
done = cli(*words)
user = os.path.join(root, "addresses", "agent")
kept = [name for name in os.listdir(user) if name.startswith(".")] if done.code else []
report = {
    "code": done.code, "err": done.err, "kept": len(kept), "reserve": os.path.exists(reserve),
    "read": cli("get", "k", "--raw", *at).text, "due": os.listdir(due) if os.path.exists(due) else [],
    "states": [row["state"] for row in cli("address", "list", "--json").json],
}
os.remove(filler)
report["verified"] = cli("audit", "verify").text
report["doctor"] = cli("doctor", "--json").json[0]["findings"]
report["again"] = cli(*words).code
report["verified again"] = cli("audit", "verify").text
print(json.dumps(report))
"""

DELETE = ("address", "delete", ADDRESS, "--yes")
RENAME = ("address", "rename", ADDRESS, "agent/moved")
UNDO = ("restore", "--undo", "--user", "agent", "--cursor", "test", "--yes")


def changed(place: Path, way: str, *words: str) -> dict[str, Any]:
    found = on_a_small_disk(place, CHANGED, way, *words)
    assert isinstance(found, dict)
    return found


@as_root
@pytest.mark.parametrize("words", [DELETE, RENAME, UNDO], ids=["delete", "rename", "undo"])
def test_on_a_full_disk_a_change_is_noted_in_the_room_of_the_reserve_and_accuses_nobody(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    found = changed(tmp_path, "with the reserve", *words)
    assert (found["code"], found["due"]) == (0, [])
    assert found["verified"] == ""
    assert found["read"] == ("old" if words is UNDO else "")
    assert not any("missing" in finding["what"] for finding in found["doctor"])
    if words is DELETE:
        assert found["reserve"], "there is room for it again"


@as_root
@pytest.mark.parametrize("words", [DELETE, RENAME, UNDO], ids=["delete", "rename", "undo"])
def test_without_the_reserve_it_is_refused_before_anything_changes(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = changed(tmp_path, "without the reserve", *words)
    assert found["code"] != 0
    assert "No space left on device; free some space" in found["err"]
    assert (found["read"], found["states"], found["kept"], found["due"]) == ("new", ["active"], 1, [])
    assert (found["verified"], found["again"], found["verified again"]) == ("", 0, "")


REVOKED = """
import json, os, sys
from tests.unit.cli.harness import Cli

place, way = sys.argv[1:]
root, filler = os.path.join(place, "root"), os.path.join(place, "filler")
reserve = os.path.join(root, "registry", ".reserve")
cli, at = Cli(root), ("--user", "agent", "--cursor", "test")
cli.ok("set", "k", "v", *at)
token = cli.ok("token", "mint", "agent/test", "--by", "operator").lines[0]
if way == "without the reserve":
    os.remove(reserve)
file = os.open(filler, os.O_WRONLY | os.O_CREAT)
try:
    while os.write(file, bytes(4096)):
        continue
except OSError:
    os.close(file)
refused = cli("set", "k", "w", *at).code
done = cli("token", "revoke", "agent/test")
shown = cli("token", "show", "--json", stdin=token.encode()).json[0]
os.remove(filler)
cli.ok("set", "k", "w", *at)
print(json.dumps({"refused": refused, "code": done.code, "err": done.err, "valid": shown["valid"]}))
"""


@as_root
def test_a_token_is_revoked_on_a_full_disk_in_the_room_of_the_reserve(tmp_path: Path) -> None:
    found = on_a_small_disk(tmp_path, REVOKED, "with the reserve")
    assert found["refused"] != 0
    assert (found["code"], found["valid"]) == (0, False), found["err"]


@as_root
def test_without_the_reserve_a_token_is_said_not_to_be_revoked(tmp_path: Path) -> None:
    found = on_a_small_disk(tmp_path, REVOKED, "without the reserve")
    assert (found["code"] != 0, found["valid"]) == (True, True)
    assert "No space left on device; free some space" in found["err"]


# What was not noted all the same


def anchored(root: Path) -> bool:
    return any(str(one.address) == ADDRESS for one in AnchorRegistry(Layout(str(root)), wait_s=1, one_shot=True).all())


@pytest.mark.parametrize("registry", ["with its row", "without its row"])
async def test_deleting_what_is_gone_and_has_anchors_clears_the_finding(root: Path, registry: str) -> None:
    cli = Cli(root)
    await recorded(root)
    shutil.rmtree(root / "addresses" / "agent")
    if registry == "without its row":
        (root / "registry" / "address_registry.db").unlink()
    assert len(accusations(root)) == 1
    cli.ok("address", "delete", ADDRESS, "--yes")
    assert accusations(root) == []
    assert not anchored(root)
    assert cli.ok("address", "list").text == ""
    assert not any(ADDRESS in finding["what"] for finding in cli("doctor", "--repair", "--json").json[0]["findings"])
    assert cli.ok("address", "list").text == ""
    # Now there is nothing left to delete.
    assert "does not exist" in cli("address", "delete", ADDRESS, "--yes").err


async def test_an_address_that_was_never_there_cannot_be_deleted(root: Path) -> None:
    await recorded(root)
    assert "does not exist" in Cli(root)("address", "delete", "agent/never", "--yes").err
    assert anchored(root)

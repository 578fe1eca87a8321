"""Quotas of addresses on every way that writes: sessions, one-shot commands, copies, imports, restores, processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prontodb import log
from prontodb.composition import open_manager
from prontodb.engine.sqlite import quotas
from prontodb.errors import QuotaExceededError
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.quotas import Quota
from prontodb.storage import files
from tests.managing import managed
from tests.parts import value
from tests.roots import together
from tests.unit.cli.harness import Cli, environment
from tests.unit.engine.store import Store


@pytest.fixture(autouse=True)
def untold() -> None:
    """This process has nothing to tell of yet."""
    quotas.NEAR.clear()
    files.CLOSED_TO_OTHERS.clear()


def ruled(root: Path, *rules: dict[str, Any]) -> Path:
    """Write a settings file with quotas."""
    folder = root / "registry"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "global_config.json"
    file.write_text(json.dumps({"format": 1, "quotas": rules}))
    file.chmod(0o600)
    return file


def entries(count: int) -> dict[str, str]:
    return {f"k{n}": "1" for n in range(count)}


async def test_a_session_and_a_copy_into_a_new_address_obey_the_rule_of_their_address(root: Path) -> None:
    rules = [Quota("small*/*", max_entries=3), Quota("slow/*", writes_per_second=2)]
    async with managed(root, quotas=rules) as manager:
        async with manager.session("large") as ks:
            await ks.set_many(entries(10))
        async with manager.session("small1") as ks:
            await ks.set_many(entries(3))
            with pytest.raises(QuotaExceededError, match="max_entries of 3"):
                await ks.set("more", "1")
            await ks.delete("k0")
            await ks.set("more", "1")
        for target in ("small2/new", "small1/_default"):
            with pytest.raises(QuotaExceededError):
                await manager.copy("large/_default", target, on_conflict="replace")
        assert "small2/new" not in [str(row.address) for row in await manager.addresses()]
        with pytest.raises(QuotaExceededError):
            await manager.import_lines("small3/x", [line async for line in manager.export("large/_default")])
        # Built beside its place and put in whole, a new address is one act; after that it has its rate.
        assert (await manager.copy("large/_default", "slow/new")).copied == 10
        report = await manager.describe("small1/_default")
        assert report.quotas == {"max_entries": {"allowed": 3, "used": 3, "near": True}}


async def test_the_rate_of_a_session_goes_by_its_clock_and_transactions_count_whole(root: Path) -> None:
    clock = ManualClock()
    async with (
        managed(root, clock=clock, quotas=[Quota("*/*", writes_per_second=3)]) as manager,
        manager.session("agent") as ks,
    ):
        await ks.set_many({"a": "1", "b": "1"})
        with pytest.raises(QuotaExceededError) as caught:
            async with ks.transaction() as tx:
                tx.set("c", "1")
                tx.set("d", "1")
        assert caught.value.retry_after_s == 1
        assert await ks.get("c") is None
        await ks.delete("a")
        clock.advance(1)
        await ks.increment("n")


async def test_a_restore_brings_back_what_was_there_whatever_the_quotas_say_by_now(root: Path) -> None:
    async with managed(root) as manager, manager.session("agent") as ks:
        await ks.set_many(entries(10))
        await manager.backup()
    async with managed(root, quotas=[Quota("*/*", max_entries=5, writes_per_second=1)]) as manager:
        await manager.restore(user="agent", cursor="_default")
        async with manager.session("agent") as ks:
            assert await ks.count() == 10
            with pytest.raises(QuotaExceededError):
                await ks.set("more", "1")
            assert await ks.delete("k0")


async def test_a_changed_file_is_obeyed_by_whoever_opens_next(root: Path) -> None:
    ruled(root, {"addresses": "*/*", "max_entries": 1})
    async with open_manager(str(root)) as manager, manager.session("a") as ks:
        await ks.set("k", "1")
        ruled(root, {"addresses": "*/*", "max_entries": 2})
        with pytest.raises(QuotaExceededError):
            await ks.set("l", "1")
    async with open_manager(str(root)) as manager, manager.session("a") as ks:
        await ks.set("l", "1")


async def test_a_nearly_full_address_is_an_event_of_its_session_once(root: Path) -> None:
    events: list[dict[str, Any]] = []
    log.use(lambda name, **fields: events.append(fields) if name == "quota.near" else None)
    try:
        async with managed(root, quotas=[Quota("*/*", max_entries=5)]) as manager, manager.session("a") as ks:
            for key in "abcdd":
                await ks.set(key, "1")
    finally:
        log.disable()
    assert events == [{"address": Address("a"), "quota": "max_entries", "used": 4, "allowed": 5}]


def test_the_command_line_notes_refuses_and_shows_what_is_used(root: Path) -> None:
    cli = Cli(root)
    ruled(root, {"addresses": "a/*", "max_entries": 5}, {"addresses": "a/slow", "writes_per_second": 1})
    for key in "abc":
        assert cli.ok("--user", "a", "set", key, "1").err == ""
    assert "a/_default uses 4 of 5 (max_entries)" in cli.ok("--user", "a", "set", "d", "1").err
    cli.ok("--user", "a", "set", "e", "1")
    assert cli.fails("--user", "a", "set", "f", "1").startswith("max_entries of 5 is reached at this address; delete")
    assert "quotas: max_entries=5 of 5 (near)" in cli.ok("address", "show", "a/_default").lines
    assert cli.ok("address", "show", "a/_default", "--json").json[0]["quotas"]["max_entries"]["used"] == 5
    warnings = [line for line in cli("doctor").lines if line.startswith("warning: a/_default uses 5 of 5")]
    assert len(warnings) == 1
    assert "quotas[0]=a/* max_entries=5" in cli.ok("settings", "show").lines
    assert cli.ok("settings", "check").err == "prontodb: the settings are right\n"
    lines = cli.ok("--user", "a", "export").out
    cli.ok("--user", "a", "--cursor", "x", "set", "other", "1")
    assert "max_entries" in cli.fails("--user", "a", "--cursor", "x", "import", stdin=lines)
    cli.ok("--user", "a", "del", "a")
    cli.ok("--user", "a", "set", "f", "1")


@pytest.mark.parametrize(
    ("rule", "field"),
    [({"addresses": "a", "max_entries": 1}, "addresses"), ({"addresses": "a/*", "entries": 1}, "'entries'")],
)
def test_a_wrong_rule_stops_every_command_with_the_field_named(root: Path, rule: dict[str, Any], field: str) -> None:
    ruled(root, rule)
    cli = Cli(root)
    for argv in (("settings", "check"), ("set", "k", "1"), ("get", "k")):
        message = cli.fails(*argv)
        assert "global_config.json" in message
        assert "quotas[0]" in message
        assert field in message


def test_an_address_full_of_its_own_history_can_be_emptied_and_the_error_says_what_gives_room(root: Path) -> None:
    cli = Cli(root)
    agent = ("--user", "a")
    cli.ok("address", "create", "a")
    cli.ok("address", "history", "a", "on")
    file = ruled(root, {"addresses": "a/*", "max_keystore_bytes": 200_000})
    for n in range(100):
        done = cli(*agent, "set", f"k{n % 3}", f"{n}" + "x" * 5_000)
        if done.code:
            break
    assert 5 < n < 99
    message = cli.fails(*agent, "set", "k0", "y" * 5_000)
    for way in ("delete something", "prontodb jobs once compact", "journal_days", "journal_records", "raise"):
        assert way in message
    for key in ("k0", "k1", "k2"):
        cli.ok(*agent, "del", key)
    assert cli.ok(*agent, "export").json[-1]["count"] == 0
    # All that is left is its history: pruned as far as the settings allow, it gives room.
    assert cli(*agent, "set", "k0", "y" * 50_000).code == 1
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"settings": {"journal_records": 1}}))
    cli.ok("jobs", "once", "compact")
    cli.ok(*agent, "set", "k0", "y" * 50_000)


WRITER = """
import sys
from prontodb.direct import OneShot, run
from prontodb.errors import QuotaExceededError
from prontodb.model.address import Address
from prontodb.model.limits import Limits
print("ready", flush=True); input()
acknowledged = refused = 0
with OneShot(sys.argv[1], Address("a"), limits=Limits(writes_per_second=7, wait_s=30), durability="relaxed") as ks:
    while refused < 40:
        try:
            run(ks.set(f"{sys.argv[2]}-{acknowledged}", "1"))
            acknowledged += 1
        except QuotaExceededError as error:
            assert 0 < error.retry_after_s <= 2
            refused += 1
print(acknowledged)
"""


def test_two_processes_together_write_no_more_in_any_second_than_their_address_may(root: Path) -> None:
    Cli(root).ok("address", "create", "a")
    counts = [int(text) for text in together(WRITER, [(root, "one"), (root, "two")])]
    store = Store(Layout(str(root)), Address("a"), Limits())
    rows = store.rows("SELECT at, rev - first_rev + 1 FROM journal ORDER BY at")
    store.close()
    assert sum(n for _, n in rows) == sum(counts) >= 7
    assert max(sum(n for other, n in rows if at <= other < at + 1_000) for at, _ in rows) <= 7


FULL = """
import json, os, sys
from prontodb.cli.main import main
os.umask(0o077)
root = sys.argv[1] + "/root"
def run(*argv):
    return main(["--root", root, "--user", "a", *argv])
for n in range(20):
    assert run("set", f"k{n}", "x" * 5000, *(("--ttl", "1") if n > 14 else ())) == 0
assert run("doctor", "--repair", "--quiet") == 0
with open(root + "/registry/global_config.json", "w") as file:
    json.dump({"format": 1, "quotas": [{"addresses": "*/*", "max_entries": 20, "writes_per_second": 1}]}, file)
with open(sys.argv[1] + "/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
print("full", file=sys.stderr)
assert run("set", "more", "1") == 1
assert run("export") == 0
assert run("del", "k0") == 0
assert run("get", "k0") == 2
assert run("jobs", "once", "sweep") == 0
assert run("get", "k1") == 0
"""


def test_a_full_quota_on_a_full_disk_still_lets_one_export_delete_and_sweep(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system of its own")
    script = 'mount -t tmpfs -o size=6m,mode=700 tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
    )
    if "mount:" in done.stderr:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    assert done.returncode == 0, done
    assert "full\nprontodb: " in done.stderr


def test_an_address_without_a_rule_is_as_free_as_before(root: Path) -> None:
    ruled(root, {"addresses": "b/*", "max_entries": 1})
    cli = Cli(root)
    for key in "abc":
        cli.ok("--user", "a", "set", key, "1")
    assert value(root, "a", "c") == "1"

"""Sweeping many addresses: exactly what has expired goes, wherever nobody holds it, and nobody is kept waiting."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from prontodb import upkeep as upkeep_of_manager
from prontodb.engine.sqlite import upkeep
from prontodb.jobs import sweep as sweeping
from prontodb.jobs.sweep import SweepReport
from prontodb.model.address import Address
from prontodb.model.clock import Clock, ManualClock
from prontodb.model.settings import Settings
from prontodb.work import Work
from tests.backups import Root, finished
from tests.checking import keystore_faults
from tests.managing import PATIENCE_S, Child, environment, managed, program
from tests.roots import as_root, together
from tests.sessions import holder
from tests.unit.stores import done

HERE = "agent/test"


@pytest.fixture
def made(root: Path) -> Iterator[Root]:
    found = Root(root)
    yield found
    found.close()


def swept(made: Root, **options: Any) -> SweepReport:
    return finished(made.work.sweep(**options))


def keys(made: Root, address: str = HERE) -> list[str]:
    """Every key that has a row, expired or not."""
    return [row[0] for row in made.state(address)["entries"]]


def fill(made: Root, address: str = HERE, short: int = 3) -> None:
    """Entries that expire in 5 s, and one in 500 s, and one never."""
    keystore = made.at(address)
    for number in range(short):
        done(keystore.set(f"short{number}", "x", ttl=5))
    done(keystore.set("long", "x", ttl=500))
    done(keystore.set("ever", "x"))


def test_only_what_has_expired_goes_and_a_second_sweep_finds_nothing(made: Root) -> None:
    for address in (HERE, "agent/other", "z/z"):
        fill(made, address)
    assert swept(made) == SweepReport(addresses=3)
    made.clock.advance(4.999)
    assert swept(made).entries == 0
    made.clock.advance(0.001)
    assert swept(made) == SweepReport(addresses=3, swept=3, entries=9)
    assert keys(made) == keys(made, "z/z") == ["ever", "long"]
    assert swept(made) == SweepReport(addresses=3)
    made.clock.advance(600)
    assert swept(made).entries == 3
    assert keys(made) == ["ever"]
    journal = made.state(HERE)["journal"]
    assert {row[3] for row in journal[-2:]} == {"sweep"}, "the journal says who took them away"


def test_an_empty_root_and_one_without_expiring_entries_are_swept_too(made: Root) -> None:
    assert swept(made) == SweepReport()
    done(made.at(HERE).set("ever", "x"))
    assert swept(made) == SweepReport(addresses=1)


def test_more_than_one_step_takes_all_of_it(made: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "CHUNK", 2)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0)
    fill(made, short=7)
    made.clock.advance(5)
    assert swept(made).entries == 7
    assert keys(made) == ["ever", "long"]


def test_an_address_that_another_process_holds_is_counted_and_left_alone(made: Root) -> None:
    fill(made)
    fill(made, "agent/other")
    made.clock.advance(5)
    with holder(made.path) as child:
        assert child.line().startswith("s-")
        assert swept(made) == SweepReport(addresses=1, swept=1, entries=3, held=1)
        assert len(keys(made)) == 5
        child.process.send_signal(signal.SIGKILL)
        child.process.wait()
    assert swept(made).entries == 3, "a dead holder holds nothing"
    assert keys(made) == ["ever", "long"]


def test_beside_shared_sessions_it_sweeps_and_what_they_renew_meanwhile_stays(
    made: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "CHUNK", 1)
    fill(made, short=6)
    made.clock.advance(5)
    with holder(made.path, "shared") as child:
        assert child.line().startswith("s-")
        rounds: list[int] = []

        def renew_before_the_third_step() -> bool:
            rounds.append(1)
            if len(rounds) == 3:
                for key in sorted(set(keys(made)) & {f"short{n}" for n in range(6)})[-2:]:
                    child.tell(f"ks.set({key!r}, 'renewed', ttl=3600)")
                    assert child.line().isdigit()
            return False

        report = swept(made, stop=renew_before_the_third_step)
    assert (report.entries, report.held, report.failed) == (4, 0, ())
    left = {row[0]: row[1] for row in made.state(HERE)["entries"]}
    assert sorted(left.values()) == ["renewed", "renewed", "x", "x"]
    assert keystore_faults(str(made.path), Address.parse(HERE)) == []


WRITER = """
import sys
from pathlib import Path
from prontodb.direct import OneShot, run
from prontodb.model.address import Address
from prontodb.model.limits import Limits
print("ready", flush=True)
sys.stdin.readline()
with OneShot(sys.argv[1], Address("agent", "test"), limits=Limits(wait_s=30)) as keystore:
    run(keystore.set("between", "1"))
Path(sys.argv[2]).touch()
print("written", flush=True)
"""
"""Writes once, as a command does, when it is told to, and leaves a file that says so."""


def test_between_two_steps_a_command_that_writes_gets_its_turn(
    made: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "CHUNK", 1)
    fill(made, short=100)
    made.close()
    made.clock.advance(5)
    written = tmp_path / "written"
    told: list[bool] = []
    with Child(WRITER, made.path, written) as child:
        assert child.line() == "ready"

        def stop() -> bool:
            if not told:
                child.tell("go")
                told.append(True)
            return written.exists()

        report = swept(made, stop=stop)
        assert child.line() == "written"
    assert 0 < report.entries < 100, "it had to wait until the whole address was swept"


def test_a_round_ends_although_entries_expire_faster_than_it_sweeps(
    made: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "CHUNK", 1)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0)
    fill(made, short=5)
    made.clock.advance(6)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        assert len(asked) < 50, "it never ends"
        made.clock.advance(6)  # so that these have expired by the next step
        for number in range(2):
            done(made.at(HERE).set(f"meanwhile{len(asked)}.{number}", "x", ttl=1))
        return False

    assert swept(made, stop=stop).entries == 5
    assert swept(made).entries > 5, "the next round takes the others"


async def test_what_a_session_holds_is_swept_although_more_expires_all_the_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_of_manager, "CHUNK", 1)
    clock = ManualClock()
    async with managed(root, clock=clock) as manager, manager.session("agent", "test") as ks:
        await ks.set_many({f"k{number}": "x" for number in range(5)}, ttl=5)
        clock.advance(6)
        ended = anyio.Event()

        async def write() -> None:
            number = 0
            while not ended.is_set():
                number += 1
                await ks.set_many({f"more{number}.{each}": "x" for each in range(5)}, ttl=0.001)
                clock.advance(0.002)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            with anyio.fail_after(PATIENCE_S):
                await manager.sweep(trust_clock=True)
            ended.set()
        assert await ks.count() == 0


async def test_what_this_process_holds_exclusively_is_swept_through_its_session(root: Path) -> None:
    clock = ManualClock()
    async with managed(root, clock=clock) as manager:
        async with manager.session("agent", "test") as ks, manager.session("agent", "shared", mode="shared") as other:
            for keystore in (ks, other):
                await keystore.set_many({"a": "1", "b": "1"}, ttl=5)
                await keystore.set("c", "1")
            clock.advance(4)
            await ks.set("b", "2", ttl=5)
            clock.advance(1)
            report = await manager.sweep()
            assert (report.addresses, report.entries, report.held, report.failed) == (2, 3, 0, ())
            assert [await ks.get(key) for key in "abc"] == [None, "2", "1"]
            assert (await manager.sweep()).entries == 0
            position = await ks.count()
        assert position == 2


SWEEP = """
import sys
from prontodb.model.clock import Clock
from tests.crash.backup_worker import finish, work_of
work = work_of(sys.argv[1])
print("ready", flush=True)
input()
report = finish(work.sweep())
print(report.entries, len(report.failed), report.skipped)
"""


def test_many_processes_at_once_take_each_entry_once_and_fail_nowhere(made: Root) -> None:
    for number in range(30):
        fill(made, f"agent/c{number}", short=2)
    # Their clock is the machine's, and ours stands years before it: all that can expire has.
    said = [line.split() for line in together(SWEEP, [(made.path,)] * 4)]
    assert sum(int(entries) for entries, _, _ in said) == 30 * 3
    assert {(failed, skipped) for _, failed, skipped in said} == {("0", "None")}
    assert all(keys(made, f"agent/c{number}") == ["ever"] for number in range(30))


# Hints: what is not due is not even opened


def aged(made: Root, address: str = HERE) -> Path:
    """The keystore's file, changed an hour ago by its looks; the machine's clock is the root's from now on."""
    made.close()
    path = made.path / "addresses" / address / "keystore.db"
    for file in path.parent.iterdir():
        os.utime(file, ns=(0, (Clock().wall_ms() - 3_600_000) * 1_000_000))
    return path


def scribbled(path: Path) -> None:
    """Damage a file so that it looks the same from outside: whoever opens it finds out, nobody else."""
    found = path.stat()
    with path.open("r+b") as file:
        file.write(b"garbage" * 100)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def by_machine_time(root: Path) -> Root:
    made = Root(root)
    made.clock.set_wall_ms(Clock().wall_ms())
    made.work.check_clock(trust_clock=True)
    return made


def test_an_address_whose_next_expiry_lies_ahead_is_not_opened_until_then(root: Path) -> None:
    made = by_machine_time(root)
    fill(made)
    path = aged(made)
    assert swept(made) == SweepReport(addresses=1)
    scribbled(path)
    assert swept(made) == SweepReport(addresses=1), "it was opened"
    made.clock.advance(5)
    assert [address for address, _ in swept(made).failed] == [HERE], "due, and not looked at"


def test_what_changed_since_is_noticed_by_its_looks(root: Path) -> None:
    made = by_machine_time(root)
    done(made.at(HERE).set("long", "x", ttl=500))
    aged(made)
    assert swept(made) == SweepReport(addresses=1)
    again = by_machine_time(root)
    done(again.at(HERE).set("short", "x", ttl=5))
    made.clock.advance(6)
    assert swept(made).entries == 1
    again.close()


def test_a_file_that_changed_a_moment_ago_is_looked_at_again_however_it_looks(root: Path) -> None:
    made = by_machine_time(root)
    fill(made)
    made.close()
    path = made.path / "addresses" / HERE / "keystore.db"
    now_ns = Clock().wall_ms() * 1_000_000
    for file in path.parent.iterdir():
        os.utime(file, ns=(now_ns, now_ns))
    assert swept(made) == SweepReport(addresses=1)
    scribbled(path)
    assert [address for address, _ in swept(made).failed] == [HERE]


# The clock


def test_after_the_clock_was_set_nothing_is_swept_until_it_is_right_or_trusted(made: Root) -> None:
    fill(made)
    assert swept(made).skipped is None
    true_ms = made.clock.wall_ms()
    for wrong_ms in (true_ms + 3_600_000, true_ms + 10**12, true_ms - 10**12):
        made.clock.set_wall_ms(wrong_ms)
        report = swept(made)
        assert report == SweepReport(skipped=report.skipped)
        assert "the wall clock was set" in str(report.skipped)
    assert len(keys(made)) == 5, "promise 19"
    made.clock.set_wall_ms(true_ms)
    assert swept(made).skipped is None
    assert len(keys(made)) == 5
    made.clock.set_wall_ms(true_ms + 3_600_000)
    assert swept(made, trust_clock=True).entries == 4
    assert swept(made).skipped is None, "trusted once, it is the clock from then on"
    made.clock.advance(60)
    assert swept(made).skipped is None


def test_the_next_process_doubts_as_the_one_before(made: Root) -> None:
    fill(made)
    swept(made)
    another = Root(made.path)
    another.clock.advance(60)
    another.clock.set_wall_ms(another.clock.wall_ms() + 86_400_000)
    assert swept(another).skipped is not None
    (made.path / "registry/jobs.db").unlink()
    assert swept(another).skipped is not None, "it remembers by itself"


def test_a_clock_that_is_set_before_the_first_sweep_is_doubted_by_who_was_there_before(made: Root) -> None:
    fill(made)
    true_ms = made.clock.wall_ms()
    made.clock.set_wall_ms(true_ms + 86_400_000)
    assert swept(made).skipped is not None
    assert len(keys(made)) == 5, "promise 19"
    another = Root(made.path)
    another.clock.set_wall_ms(true_ms + 86_400_000)
    assert swept(another).skipped is not None, "and has noted it for those who were not"
    made.clock.set_wall_ms(true_ms)
    assert swept(made).skipped is None
    assert len(keys(made)) == 5


def test_a_run_compares_with_the_clock_that_it_began_by(made: Root) -> None:
    begun = made.clock.wall_ms(), made.clock.boottime_s()
    made.clock.advance(60)
    made.clock.set_wall_ms(made.clock.wall_ms() + 86_400_000)
    late = Work(made.layout, Settings(), made.clock, made.lifecycle, made.jobs)
    assert late.check_clock(begun=begun) is not None
    assert late.check_clock(trust_clock=True, begun=begun) is None
    assert late.check_clock(begun=begun) is None, "trusted once"


def test_a_root_without_any_note_is_swept_by_the_clock_as_it_is(made: Root) -> None:
    """The limit of promise 19: neither after a boot nor where nobody was there before is there a clock to compare."""
    fill(made)
    another = Root(made.path)
    another.clock.set_wall_ms(another.clock.wall_ms() + 86_400_000)
    another.work = Work(another.layout, Settings(), another.clock, another.lifecycle, another.jobs)
    assert swept(another).entries == 4


# Faults


def test_a_damaged_address_is_named_and_keeps_nobody_from_the_next(made: Root) -> None:
    for address in ("a/a", HERE, "z/z"):
        fill(made, address)
    made.close()
    (made.path / "addresses" / HERE / "keystore.db").write_bytes(b"garbage" * 1_000)
    made.clock.advance(5)
    report = swept(made)
    assert (report.addresses, report.swept, report.entries) == (2, 2, 6)
    ((address, reason),) = report.failed
    assert address == HERE
    assert reason


def test_an_index_that_is_garbage_costs_its_hints_and_nothing_else(made: Root) -> None:
    fill(made)
    swept(made)
    made.clock.advance(5)
    (made.path / "registry/jobs.db").write_bytes(b"garbage" * 1_000)
    assert swept(made).entries == 3


FULL_DISK = """
import os, sys
from pathlib import Path
from prontodb.model.address import Address
from prontodb.model.layout import Layout
from tests.checking import keystore_faults
from tests.crash.backup_worker import finish, work_of
from tests.unit.stores import Stores, done
root = sys.argv[1] + "/root"
os.mkdir(root, 0o700)
stores = Stores(root)
keystore = stores.at("agent/test")
for number in range(40):
    done(keystore.set(f"k{number}", "x" * 2_000, ttl=5))
done(keystore.set("ever", "y"))
stores.close()
assert os.path.exists(root + "/registry/.reserve")
filler = os.open(sys.argv[1] + "/filler", os.O_WRONLY | os.O_CREAT)
try:
    while os.write(filler, bytes(4096)):
        continue
except OSError:
    os.close(filler)
assert os.statvfs(sys.argv[1]).f_bavail == 0
report = finish(work_of(root).sweep())
assert (report.entries, report.failed) == (40, ()), report
assert keystore_faults(root, Address("agent", "test")) == []
os.remove(sys.argv[1] + "/filler")
finish(work_of(root).sweep())
print("fine")
"""


@as_root
def test_on_a_full_disk_it_sweeps_in_the_room_of_the_reserve(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=4m,mode=700 none "{tmp_path}" && exec "$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, *program(FULL_DISK, tmp_path)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if ran.returncode != 0 and ("unshare" in ran.stderr or "mount" in ran.stderr):
        pytest.skip("no mount namespaces here")
    assert (ran.stdout, ran.stderr) == ("fine\n", "")

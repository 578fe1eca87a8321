"""Jobs inside applications: processes that take turns at one root, are killed, and find every beat run once."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from prontodb.composition import open_manager
from prontodb.errors import CorruptError, InvalidSettingsError
from prontodb.jobs.plan import JOBS
from prontodb.jobs.trust import Reference
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.registry.jobs import JobRegistry, Run
from prontodb.schedule import clockwork
from prontodb.storage.process import ourselves
from tests.backups import state_at
from tests.managing import LOCK_HOLDER, Child, managed, ran, until, waited_for
from tests.parts import fill

pytestmark = pytest.mark.slow

APPLICATION = """
import asyncio, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1], jobs=True) as manager:
        print("open", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
asyncio.run(main())
"""


def settled(root: Path, text: str | None = None, **jobs: object) -> None:
    """Write the settings file; only the jobs named run."""
    others = {name: {"enabled": False} for name in JOBS if name not in jobs}
    path = root / "registry/global_config.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    staged = path.with_name("staged.tmp")
    staged.write_text(text or json.dumps({"format": 1, "jobs": others | jobs}))
    staged.chmod(0o600)
    staged.rename(path)


def runs(root: Path, job: str = "sweep") -> list[Run]:
    """The runs of a job, the oldest first; none while the index cannot be read."""
    try:
        return JobRegistry(Layout(str(root)), wait_s=1, one_shot=True).runs(job, 1_000)[::-1]
    except CorruptError:
        return []


def finished(root: Path, job: str = "sweep") -> int:
    return sum(run.outcome == "done" for run in runs(root, job))


EVERY_SECOND = {"every": 1, "jitter": 0}


def test_one_process_runs_the_jobs_and_when_it_is_killed_another_goes_on_in_phase(root: Path) -> None:
    settled(root, sweep=EVERY_SECOND)
    with Child(APPLICATION, root) as first, Child(APPLICATION, root) as second:
        assert [first.line(), second.line()] == ["open", "open"]
        assert waited_for(lambda: finished(root) >= 2)
        (one,) = {run.runner for run in runs(root)}
        children = {str(child.process.pid): child for child in (first, second)}
        (killed,) = [pid for pid in children if f"pid {pid} " in one]
        children[killed].process.send_signal(signal.SIGKILL)
        begun = len(runs(root))
        assert waited_for(lambda: len(runs(root)) >= begun + 2), "nobody took over"
        found = runs(root)
    assert {f"pid {pid} " in found[-1].runner for pid in children if pid != killed} == {True}
    beats = [run.beat_at_ms for run in found if run.attempt == 1]
    assert len(set(beats)) == len(beats), "a beat ran twice"
    for before, after in pairwise(found):
        passed_ms = after.beat_at_ms - before.beat_at_ms
        assert abs(passed_ms - 1_000 * (after.missed + 1)) <= 5, "out of phase, or beats that nobody counted"


def test_who_leaves_in_order_lets_the_next_one_in_and_ends_what_it_began(root: Path) -> None:
    settled(root, sweep=EVERY_SECOND)
    with Child(APPLICATION, root) as first:
        assert first.line() == "open"
        assert waited_for(lambda: finished(root) >= 1)
        with Child(APPLICATION, root) as second:
            assert second.line() == "open"
            first.end()
            pid = second.process.pid
            assert waited_for(lambda: any(f"pid {pid} " in run.runner and run.outcome == "done" for run in runs(root)))
            second.end()
    assert {run.outcome for run in runs(root)} <= {"done", "cancelled"}


async def test_every_job_runs_on_a_real_root_and_leaves_its_report(root: Path) -> None:
    fill(root, "agent/test", {"k": "v"})
    settled(root, None, **{name: {"every": 3_600, "jitter": 0} for name in JOBS})
    async with open_manager(str(root), jobs=True) as manager:
        await until(lambda: all(runs(root, name) and runs(root, name)[-1].outcome for name in JOBS))
        rows = await manager.jobs()
    last = {row.name: row.last for row in rows if row.last is not None}
    assert list(last) == list(JOBS)
    for name, run in last.items():
        # All began at once here: what found another at the backups comes again later.
        busy = "is in use by" in str(run.error) and name in ("backup-incremental", "backup-full", "prune")
        assert run.outcome == "done" or busy, run


async def test_the_settings_file_is_read_again_and_a_wrong_one_leaves_the_old_schedule(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prontodb.jobs.runner.LOOK_S", 0.05)
    settled(root, sweep=EVERY_SECOND)
    async with open_manager(str(root), jobs=True):
        await until(lambda: finished(root) >= 1)
        settled(root, sweep=EVERY_SECOND, reap=EVERY_SECOND)
        await until(lambda: finished(root, "reap") >= 1)
        settled(root, '{"format": 1, "jobs": {"sweep": {"every": "never"}}}')
        before = finished(root), finished(root, "reap")
        await until(lambda: finished(root) > before[0] + 1 and finished(root, "reap") > before[1] + 1)
        with pytest.raises(InvalidSettingsError, match=r"jobs\.sweep\.every"):
            async with open_manager(str(root), jobs=True):
                raise AssertionError("it opened")


PAUSE = """
import asyncio, sys, prontodb
async def main():
    async with prontodb.open(sys.argv[1]) as manager:
        await getattr(manager, sys.argv[2])("sweep")
asyncio.run(main())
"""


async def test_another_process_pauses_and_resumes_a_job(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clockwork, "SLICE_S", 0.2)
    settled(root, sweep=EVERY_SECOND, reap=EVERY_SECOND)
    async with open_manager(str(root), jobs=True):
        await until(lambda: finished(root) >= 1)
        await anyio.to_thread.run_sync(ran, PAUSE, root, "pause_jobs")
        paused, reaped = len(runs(root)), finished(root, "reap")
        await until(lambda: finished(root, "reap") >= reaped + 2)
        assert len(runs(root)) <= paused + 1, "one may have begun while it was paused"
        await anyio.to_thread.run_sync(ran, PAUSE, root, "resume_jobs")
        before = len(runs(root))
        await until(lambda: len(runs(root)) > before)


async def test_an_index_that_another_process_has_locked_keeps_no_job_from_its_work(root: Path) -> None:
    # Entries of a clock that stood years before: expired, whoever looks.
    from tests.backups import Root
    from tests.unit.stores import done

    settled(root, sweep=EVERY_SECOND)
    stores = Root(root)
    async with open_manager(str(root), jobs=True):
        await until(lambda: finished(root) >= 1)
        with Child(LOCK_HOLDER, root / "registry/jobs.db") as child:
            child.tell("BEGIN IMMEDIATE")
            assert child.line() == "done"
            done(stores.at("agent/test").set("short", "x", ttl=5))
            await until(lambda: not stores.state("agent/test")["entries"])
        count = len(runs(root))
        await until(lambda: len(runs(root)) > count)
    stores.close()


@pytest.mark.parametrize("content", [b"garbage" * 2_000, b""])
async def test_with_an_index_that_is_garbage_the_jobs_start_and_a_new_one_is_made(content: bytes, root: Path) -> None:
    settled(root, sweep=EVERY_SECOND)
    (root / "registry/jobs.db").write_bytes(content)
    (root / "registry/jobs.db").chmod(0o600)
    async with open_manager(str(root), jobs=True) as manager:
        await until(lambda: finished(root) >= 1)
        assert (await manager.job_runs("sweep"))[-1].outcome == "done"


async def test_a_job_run_by_hand_is_recorded_and_its_failure_raised(root: Path) -> None:
    from prontodb.errors import UnavailableError

    fill(root, "agent/test", {"k": "v"})
    async with managed(root) as manager:
        ended = await manager.run_job("backup-full")
        assert ended.outcome == "done"
        (root / "addresses/agent/test/keystore.db").write_bytes(b"garbage" * 1_000)
        with pytest.raises(UnavailableError, match="agent/test"):
            await manager.run_job("backup-full")
        assert [run.outcome for run in await manager.job_runs()] == ["failed", "done"]
        (row,) = [row for row in await manager.jobs() if row.name == "backup-full"]
        assert row.last is not None
        assert "agent/test" in str(row.last.error)


def test_leaving_the_block_ends_the_jobs_whatever_they_do(root: Path) -> None:
    program = """
import asyncio, sys, threading, prontodb
async def main():
    async with prontodb.open(sys.argv[1], jobs=True) as manager:
        while not await manager.job_runs():
            await asyncio.sleep(0.005)
    print(threading.active_count())
asyncio.run(main())
"""
    for number in range(6):
        fill(root, f"agent/c{number}", {"k": "v"})
    settled(root, None, **{"backup-full": EVERY_SECOND, "verify": EVERY_SECOND, "sweep": EVERY_SECOND})
    assert ran(program, root).strip() in ("1", "2")
    assert {run.outcome for run in runs(root)} <= {"done", "cancelled", "skipped"}
    assert list(root.rglob(".tmp-*")) == []


async def test_what_our_own_session_holds_is_swept_by_us_without_jobs_but_not_by_a_clock_in_doubt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr("prontodb.upkeep.OWN_SWEEP_S", 0.01)
    monkeypatch.setattr("prontodb.upkeep.event", lambda name, **_: events.append(name))
    index = JobRegistry(Layout(str(root)), wait_s=1, one_shot=True)
    clock = Clock()

    def left() -> int:
        return len(state_at(root, "agent/test")["entries"])

    def note(wall_ms: int) -> None:
        index.note("clock", Reference(ourselves().boot or "", wall_ms, clock.boottime_s()).encode())

    async with open_manager(str(root)) as manager, manager.session("agent", "test") as ks:
        await ks.set("first", "v", ttl=0.001)
        await until(lambda: left() == 0)
        # As if the clock had been set forward by an hour since it was noted.
        note(clock.wall_ms() - 3_600_000)
        await until(lambda: "sweep.skipped" in events)
        await ks.set("second", "v", ttl=0.001)
        seen = events.count("sweep.skipped")
        await until(lambda: events.count("sweep.skipped") >= seen + 3)
        assert left() == 1
        note(clock.wall_ms())
        await until(lambda: left() == 0)

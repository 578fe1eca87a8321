"""The runner: one at a time by its lock, schedules read again, failures tried again, whatever happens to its files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import pytest

from prontodb.errors import BusyError, CorruptError, InvalidSettingsError, UnavailableError
from prontodb.jobs import plan, runner
from prontodb.jobs.runner import Runner, as_fields, failures_in_a_row
from prontodb.jobs.sweep import SweepReport
from prontodb.model.clock import Clock
from prontodb.model.layout import JOBS_LOCK_FILE, Layout
from prontodb.registry.jobs import JobRegistry, Run
from prontodb.schedule import clockwork
from prontodb.schedule.clockwork import Skipped
from tests.managing import until

T = TypeVar("T")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and try again within milliseconds: what is waited for here is order, not time."""
    monkeypatch.setattr(runner, "LOOK_S", 0.01)
    monkeypatch.setattr(clockwork, "BACK_OFF_S", 0.02)
    monkeypatch.setattr(clockwork, "SLICE_S", 0.05)


async def beside(work: Callable[[], T], *, brief: bool = False) -> T:
    """Threads are the engine's affair; here work is done where it stands."""
    await anyio.lowlevel.checkpoint()
    return work()


def settled(root: Path, text: str | None = None, **jobs: Any) -> None:
    """Write the settings file: only the jobs named run, at once and without jitter."""
    others = {name: {"enabled": False} for name in plan.JOBS if name not in jobs}
    path = root / "registry/global_config.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    staged = path.with_name("staged.tmp")
    staged.write_text(text or json.dumps({"format": 1, "jobs": others | jobs}))
    staged.chmod(0o600)
    staged.rename(path)


@dataclass
class Station:
    """A process that would run jobs: its runner, and how often each job ran here."""

    root: Path
    ran: dict[str, int] = field(default_factory=dict)
    failing: list[Exception] = field(default_factory=list)
    blocking: bool = False

    def __post_init__(self) -> None:
        layout = Layout(str(self.root))
        self.registry = JobRegistry(layout, wait_s=0.2, one_shot=True)
        jobs = {name: self.job(name) for name in plan.JOBS}
        self.runner = Runner(layout, self.registry, Clock(), Random(1), beside, jobs)

    def job(self, name: str) -> Callable[[], Any]:
        async def run() -> SweepReport:
            self.ran[name] = self.ran.get(name, 0) + 1
            if self.failing:
                raise self.failing.pop()
            if self.blocking:
                await anyio.sleep_forever()
            return SweepReport(entries=7)

        return run

    def outcomes(self, name: str = "sweep") -> list[str | None]:
        return [run.outcome for run in reversed(self.registry.runs(name, 100))]


EVERY = {"every": 3_600, "jitter": 0}


@asynccontextmanager
async def running(station: Station) -> AsyncIterator[None]:
    """The runner at work for as long as the block runs."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(station.runner.run)
            yield
            tasks.cancel_scope.cancel()


async def test_one_runs_the_jobs_and_the_next_takes_over_when_it_is_gone(root: Path) -> None:
    settled(root, sweep=EVERY, prune=EVERY)
    first, second = Station(root), Station(root)
    async with anyio.create_task_group() as tasks:
        async with running(first):
            await until(lambda: first.ran == {"sweep": 1, "prune": 1})
            assert first.runner.is_runner.is_set()
            tasks.start_soon(second.runner.run)
            await anyio.sleep(0.05)
            assert not second.runner.is_runner.is_set()
        with anyio.fail_after(30):
            await second.runner.is_runner.wait()
        assert second.ran == {}, "their beats have run"
        tasks.cancel_scope.cancel()
    assert first.outcomes() == ["done"]
    assert first.registry.runs("sweep", 1)[0].report == {
        "addresses": 0, "swept": 0, "entries": 7, "held": 0, "failed": [], "skipped": None,
    }  # fmt: skip


async def test_a_runner_whose_lock_was_taken_away_stops_and_takes_it_anew(root: Path) -> None:
    settled(root, sweep=EVERY)
    station = Station(root)
    async with running(station):
        await until(lambda: station.ran == {"sweep": 1})
        layout = Layout(str(root))
        path = Path(layout.path(*layout.jobs_lock_parts(), JOBS_LOCK_FILE))
        path.unlink()
        await until(path.exists)
        await anyio.sleep(0.05)
        assert station.ran == {"sweep": 1}, "whoever it is now, the beat has run"


async def test_a_settings_file_that_changes_is_read_again_and_a_wrong_one_is_refused(root: Path) -> None:
    settled(root, sweep=EVERY)
    station = Station(root)
    async with running(station):
        await until(lambda: station.ran == {"sweep": 1})
        settled(root, sweep=EVERY, prune=EVERY)
        await until(lambda: station.ran == {"sweep": 1, "prune": 1})
        for wrong in ('{"format": 1, "jobs": {"reap": {"every": "x"}}}', "{", '{"format": 99}', "[]"):
            settled(root, wrong)
            await anyio.sleep(0.05)
        settled(root, reap=EVERY, sweep=EVERY)
        await until(lambda: station.ran == {"sweep": 1, "prune": 1, "reap": 1})


def test_a_wrong_settings_file_is_refused_before_anything_runs(root: Path) -> None:
    settled(root, '{"format": 1, "jobs": {"sweep": {"every": "x"}}}')
    with pytest.raises(InvalidSettingsError, match=r"jobs\.sweep\.every"):
        Station(root)
    settled(root, "{")
    with pytest.raises(CorruptError):
        Station(root)


async def test_a_failing_job_is_tried_again_shown_and_no_reason_to_stop(root: Path) -> None:
    settled(root, sweep=EVERY, prune=EVERY)
    station = Station(root, failing=[ValueError("a secret value"), UnavailableError("the disk is away")])
    async with running(station):
        await until(lambda: station.outcomes("sweep")[-1:] == ["done"] and station.outcomes("prune")[-1:] == ["done"])
    runs = station.registry.runs(limit=100)
    errors = {run.error for run in runs if run.outcome == "failed"}
    assert errors == {"the disk is away", "ValueError"}, "of what is not ours the text may hold a value"
    retried = [run for run in runs if run.attempt == 2]
    assert retried
    assert {run.beat_at_ms for run in retried} <= {run.beat_at_ms for run in runs if run.attempt == 1}


async def test_a_run_that_was_cut_short_comes_again_for_the_same_beat(root: Path) -> None:
    settled(root, sweep=EVERY)
    first = Station(root, blocking=True)
    async with running(first):
        await until(lambda: first.ran == {"sweep": 1})
    assert first.outcomes() == ["cancelled"]
    second = Station(root)
    async with running(second):
        await until(lambda: second.outcomes() == ["cancelled", "done"])
    new, old = second.registry.runs("sweep")
    assert new.beat_at_ms == old.beat_at_ms


async def test_a_run_whose_process_died_is_buried_and_comes_again(root: Path) -> None:
    settled(root, sweep=EVERY)
    station = Station(root)
    now_ms = Clock().wall_ms()
    station.registry.begin("sweep", now_ms, now_ms, missed=0, attempt=1, runner="dead")
    async with running(station):
        await until(lambda: station.outcomes() == ["died", "done"])


async def test_a_skipped_run_is_no_failure_and_not_tried_again(root: Path) -> None:
    settled(root, sweep=EVERY, prune=EVERY)
    station = Station(root, failing=[Skipped("nothing to do"), Skipped("nothing to do")])
    async with running(station):
        await until(lambda: station.outcomes("sweep") + station.outcomes("prune") == ["skipped"] * 2)
        await anyio.sleep(0.1)
    assert station.ran == {"sweep": 1, "prune": 1}


@pytest.mark.parametrize("harm", ["garbage", "removed", "empty"])
async def test_whatever_happens_to_their_index_the_jobs_go_on(harm: str, root: Path) -> None:
    settled(root, sweep={"every": 1, "jitter": 0})
    station = Station(root)
    async with running(station):
        await until(lambda: station.outcomes() == ["done"])
        path = root / "registry/jobs.db"
        for ending in ("-wal", "-shm") if harm == "removed" else ():
            path.with_name(path.name + ending).unlink(missing_ok=True)
        if harm == "removed":
            path.unlink()
        else:
            path.write_bytes(b"garbage" * 2_000 if harm == "garbage" else b"")
        await until(lambda: station.ran["sweep"] >= 2)
        await until(lambda: "done" in _tolerant(station))


def _tolerant(station: Station) -> list[str | None]:
    try:
        return station.outcomes()
    except (CorruptError, BusyError):
        return []


async def test_a_paused_job_drops_its_beats_and_a_resumed_one_goes_on(root: Path) -> None:
    settled(root, sweep=EVERY, prune=EVERY)
    station = Station(root)
    station.registry.note("paused:sweep", "1")
    async with running(station):
        await until(lambda: station.ran == {"prune": 1})
        await anyio.sleep(0.1)
        assert station.ran == {"prune": 1}
    station = Station(root)
    station.registry.note("paused:sweep", None)
    async with running(station):
        await until(lambda: station.ran == {"sweep": 1})


async def test_by_hand_a_job_runs_beside_any_runner_and_is_recorded(root: Path) -> None:
    settled(root, sweep=EVERY)
    station, by_hand = Station(root), Station(root)
    station.registry.note("paused:*", "1")
    async with running(station):
        await station.runner.is_runner.wait()
        ended = await by_hand.runner.once("sweep")
    assert (ended.outcome, ended.report) == ("done", SweepReport(entries=7))
    assert (station.ran, by_hand.ran, station.outcomes()) == ({}, {"sweep": 1}, ["done"])


async def test_a_job_that_is_switched_off_can_be_run_by_hand(root: Path) -> None:
    settled(root, sweep=EVERY)
    ended = await Station(root).runner.once("verify")
    assert ended.outcome == "done"


def run_of(outcome: str | None) -> Run:
    return Run(
        id=1, job="sweep", beat_at_ms=0, started_at_ms=0, ended_at_ms=0, outcome=outcome, missed=0, attempt=1,
        report=None, error=None, runner="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("newest_first", "failures"),
    [
        ([], 0),
        (["done", "failed"], 0),
        (["failed", "done", "failed"], 1),
        (["timeout", "failed", "skipped", "failed"], 2),
        (["cancelled", "failed", "cancelled", "died", "done"], 2),
        (["cancelled"], 0),
    ],
)
def test_failures_in_a_row_end_at_the_last_good_run(newest_first: list[str], failures: int) -> None:
    assert failures_in_a_row([run_of(outcome) for outcome in newest_first]) == failures


def test_a_report_becomes_fields_and_a_long_list_its_length() -> None:
    assert as_fields(None) is None
    assert as_fields("x") == {"result": "x"}
    fields = as_fields(SweepReport(failed=tuple((f"a/{n}", "why") for n in range(1_000))))
    assert fields is not None
    assert fields["failed"] == "1,000 of them"
    assert as_fields(SweepReport(failed=(("a/b", "why"),)))["failed"] == (("a/b", "why"),)  # type: ignore[index]

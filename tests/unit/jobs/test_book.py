"""The jobs as people see them: when each runs, what became of it, what is paused, and who runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prontodb.errors import BusyError, CorruptError, InvalidInputError
from prontodb.jobs.book import JobBook, JobRow
from prontodb.jobs.plan import DEFAULTS, JOBS
from prontodb.model.clock import ManualClock
from prontodb.model.layout import JOBS_LOCK_FILE, Layout
from prontodb.registry.jobs import DIED, KEPT_RUNS, JobRegistry, Run
from prontodb.storage import lock
from prontodb.storage.process import ourselves
from tests.managing import LOCK_HOLDER, Child


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(root: Path) -> JobRegistry:
    return JobRegistry(Layout(str(root)), wait_s=0.1, one_shot=True)


@pytest.fixture
def book(root: Path, registry: JobRegistry, clock: ManualClock) -> JobBook:
    return JobBook(Layout(str(root)), registry, clock)


def ran(registry: JobRegistry, job: str, at_ms: int, outcome: str | None = "done") -> int:
    number = registry.begin(job, at_ms, at_ms + 5, missed=0, attempt=1, runner="me")
    if outcome is not None:
        registry.end(number, at_ms + 10, outcome, {"entries": 3}, None if outcome == "done" else "why")
    return number


def row(book: JobBook, name: str) -> JobRow:
    (found,) = [row for row in book.list() if row.name == name]
    return found


def settled(root: Path, **jobs: object) -> None:
    path = root / "registry/global_config.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "jobs": jobs}))
    path.chmod(0o600)


def test_on_an_empty_root_all_jobs_are_due_and_nothing_is_made(root: Path, book: JobBook, clock: ManualClock) -> None:
    rows = book.list()
    assert [row.name for row in rows] == list(JOBS)
    assert {row.next_at_ms for row in rows} == {clock.wall_ms()}
    assert not any(row.paused or row.last for row in rows)
    assert book.runs() == []
    assert book.runner() is None
    assert list(root.iterdir()) == []


def test_the_next_run_is_counted_from_the_last_beat(book: JobBook, registry: JobRegistry, clock: ManualClock) -> None:
    beat_ms = clock.wall_ms() - 10_000
    ran(registry, "sweep", beat_ms)
    found = row(book, "sweep")
    assert found.next_at_ms == beat_ms + 60_000
    assert found.last == Run(
        id=1, job="sweep", beat_at_ms=beat_ms, started_at_ms=beat_ms + 5, ended_at_ms=beat_ms + 10, outcome="done",
        missed=0, attempt=1, report={"entries": 3}, error=None, runner="me",
    )  # fmt: skip
    clock.advance(3_600)
    assert row(book, "sweep").next_at_ms == beat_ms + 60_000, "in the past: it is due"
    assert json.loads(json.dumps(found.as_dict()))["last"]["outcome"] == "done"


def test_one_job_or_all_are_paused_and_resumed(book: JobBook) -> None:
    book.pause("sweep")
    assert [row.name for row in book.list() if row.paused] == ["sweep"]
    assert row(book, "sweep").next_at_ms is None
    book.pause()
    assert all(row.paused for row in book.list())
    book.resume("sweep")
    assert all(row.paused for row in book.list())
    assert "all jobs are paused still" in book.notes.pop()
    book.resume()
    assert not any(row.paused for row in book.list())
    book.resume()
    book.resume("sweep")
    book.pause("prune")
    book.pause("sweep")
    book.resume()
    assert not any(row.paused for row in book.list())
    assert book.notes == []


@pytest.mark.parametrize(
    "name",
    [
        *("", "swep", "*", "paused:sweep", "sweep ", "a" * 10_000, "\x00", 7),
        ["sweep"],
    ],
)
def test_a_job_that_does_not_exist_is_refused_with_those_that_do(name: Any, book: JobBook) -> None:
    for call in (book.pause, book.resume, book.runs):
        with pytest.raises(InvalidInputError, match="backup-incremental") as caught:
            call(name)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3", None])
def test_a_limit_is_a_whole_number_from_1_up(limit: object, book: JobBook) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        book.runs(limit=limit)  # type: ignore[arg-type]


def test_runs_come_newest_first_and_as_many_as_are_asked_for(book: JobBook, registry: JobRegistry) -> None:
    for number in range(5):
        ran(registry, "sweep" if number % 2 else "reap", number)
    assert [run.beat_at_ms for run in book.runs()] == [4, 3, 2, 1, 0]
    assert [run.beat_at_ms for run in book.runs("reap")] == [4, 2, 0]
    assert [run.beat_at_ms for run in book.runs(limit=2)] == [4, 3]
    assert len(book.runs(limit=2**80)) == 5


def test_of_each_job_so_many_runs_are_kept(registry: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEPT_RUNS >= 100
    monkeypatch.setattr("prontodb.registry.jobs.KEPT_RUNS", 5)
    ran(registry, "reap", 0)
    for number in range(12):
        ran(registry, "sweep", number)
    assert [run.beat_at_ms for run in registry.runs("sweep", 100)] == [11, 10, 9, 8, 7]
    assert len(registry.runs("reap", 100)) == 1, "those of another job are not counted"


def test_runs_under_way_are_buried_and_ended_ones_are_not(registry: JobRegistry) -> None:
    ran(registry, "sweep", 1)
    ran(registry, "sweep", 2, None)
    ran(registry, "prune", 3, "failed")
    registry.bury()
    assert [run.outcome for run in registry.runs()] == ["failed", DIED, "done"]


def test_who_runs_the_jobs_is_named_while_it_does(root: Path, book: JobBook) -> None:
    layout = Layout(str(root))
    arguments = (layout.root, layout.jobs_lock_parts(), JOBS_LOCK_FILE)
    with lock.acquire(*arguments, purpose="run the jobs", wait_s=0, one_shot=True):
        assert f"pid {ourselves().pid}" in str(book.runner())
    assert book.runner() is None


def test_the_schedules_of_the_settings_file_are_shown_with_their_warnings(root: Path, book: JobBook) -> None:
    settled(root, sweep={"every": "5m"}, verify={"enabled": False}, swep={})
    assert row(book, "sweep").schedule == "every 5 m"
    assert (row(book, "verify").enabled, row(book, "verify").next_at_ms) == (False, None)
    assert any("did you mean sweep" in note for note in book.notes)
    assert row(book, "prune").schedule == str(DEFAULTS["prune"].timetable)


def test_an_index_that_is_garbage_is_told_of_and_the_next_write_makes_a_new_one(root: Path, book: JobBook) -> None:
    book.pause("sweep")
    for content in (b"garbage" * 1_000, b"", b"SQLite format 3\0" + bytes(4_080)):
        for ending in ("-wal", "-shm"):
            (root / f"registry/jobs.db{ending}").unlink(missing_ok=True)
        (root / "registry/jobs.db").write_bytes(content)
        with pytest.raises(CorruptError):
            book.list()
        book.pause("prune")
        assert [row.name for row in book.list() if row.paused] == ["prune"]


def test_an_index_that_is_locked_is_read_and_a_write_says_busy(root: Path, book: JobBook) -> None:
    book.pause("sweep")
    with Child(LOCK_HOLDER, root / "registry/jobs.db") as child:
        child.tell("BEGIN IMMEDIATE")
        assert child.line() == "done"
        assert row(book, "sweep").paused
        with pytest.raises(BusyError):
            book.resume("sweep")
    book.resume("sweep")


def test_a_job_that_runs_every_minute_does_not_push_others_out_of_the_history(
    book: JobBook, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prontodb.registry.jobs.KEPT_RUNS", 3)
    ran(registry, "backup-full", 1_000)
    for n in range(10):
        ran(registry, "sweep", 2_000 + n)
    assert [(run.job, run.beat_at_ms) for run in book.runs("backup-full")] == [("backup-full", 1_000)]
    assert len(book.runs("sweep")) <= 4

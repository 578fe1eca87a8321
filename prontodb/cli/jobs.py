"""jobs: what runs on schedule, and whoever runs it."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from prontodb.cli import output, tables
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import Shown, duration_text
from prontodb.model.access import ADMIN, READ
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from prontodb.jobs.book import JobBook, JobRow
    from prontodb.registry.jobs import Run

_JOBS = "sweep, backup-incremental, backup-full, verify, prune, reap, compact"

SYNTAX = {
    "jobs list": Syntax(
        about=(
            f"Prints the jobs ({_JOBS}): schedule, when each runs next, when it ran last and what became of it. "
            "Schedules stand in registry/global_config.json and are read again when it changes:\n"
            '{"format": 1, "jobs": {"sweep": {"every": "5m"}, "backup-full": {"cron": "0 2 * * *", "zone": '
            '"Europe/Berlin"}, "verify": {"enabled": false}}}'
        ),
        examples=(("prontodb jobs list", "what runs when"),),
    ),
    "jobs run": Syntax(
        about=(
            "Runs the jobs on schedule, in the foreground, until SIGTERM or Ctrl-C ends it in order. One process of "
            "all runs the jobs of a root: another one waits, and takes over when the first is gone. Tells systemd "
            "when it is ready, and its watchdog that it lives (ops/systemd). Events go to stderr."
        ),
        examples=(
            ("prontodb jobs run", "as a service, or in a terminal"),
            ("prontodb jobs run --log json", "events for a log collector"),
        ),
    ),
    "jobs once": Syntax(
        ("NAME",),
        ("--trust-clock",),
        about=(
            f"Runs one job now, recorded like a scheduled run: {_JOBS}. Prints its report as name: value lines. "
            "A sweep is skipped after the wall clock was set by more than five minutes; --trust-clock says that it "
            "is right."
        ),
        examples=(
            ("prontodb jobs once sweep", "delete what has expired"),
            ("prontodb jobs once compact", "freed_bytes: 1048576"),
        ),
    ),
    "jobs pause": Syntax(
        ("[NAME]",),
        about="Runs no job, or not that one, in any process until resumed; a run under way goes on to its end.",
        examples=(("prontodb jobs pause", "before maintenance"), ("prontodb jobs pause backup-full", "only that one")),
    ),
    "jobs resume": Syntax(
        ("[NAME]",),
        about="Goes on with all jobs, or with one, after a pause.",
        examples=(("prontodb jobs resume", "after maintenance"),),
    ),
    "jobs history": Syntax(
        ("[NAME]",),
        ("--limit",),
        about=(
            "Prints the last runs of all jobs, or of one, the newest first: when, how long, what became of it, beats "
            "that were missed before it, and why it failed."
        ),
        examples=(("prontodb jobs history backup-full --limit 5", "the last five"),),
    ),
}
DEFAULT_LIMIT = 20


def _book(place: Place, right: str = READ) -> JobBook:
    place.allow(right)
    from prontodb.jobs.book import JobBook
    from prontodb.model.clock import Clock
    from prontodb.registry.jobs import JobRegistry

    return JobBook(place.layout, JobRegistry(place.layout, wait_s=place.limits.wait_s, one_shot=True), Clock())


def _tell_notes(book: JobBook) -> None:
    for note in book.notes:
        output.note(note)
    book.notes.clear()


def do_jobs_list(args: Args) -> int:
    """List the jobs."""
    book = _book(Place(args))
    rows = book.list()
    if args.flag("--json"):
        for row in rows:
            output.json_line(row.as_dict())
    else:
        head = ("job", "schedule", "next", "last", "outcome", "took")
        tables.show(head, [_row(row) for row in rows])
    runner = book.runner()
    output.note(f"run by {runner}" if runner is not None else "nobody runs them now; 'prontodb jobs run' does")
    _tell_notes(book)
    return DONE


def _row(row: JobRow) -> tuple[str, ...]:
    last = row.last
    when = "off" if not row.enabled else "paused" if row.paused else text_of(row.next_at_ms)
    if last is None:
        return row.name, row.schedule, when, "-", "-", "-"
    return row.name, row.schedule, when, text_of(last.started_at_ms), _outcome(last), _took(last)


def _outcome(run: Run) -> str:
    return run.outcome or "running"


def _took(run: Run) -> str:
    return "-" if run.ended_at_ms is None else duration_text(max(0, run.ended_at_ms - run.started_at_ms) / 1_000)


def do_jobs_history(args: Args) -> int:
    """List the last runs."""
    book = _book(Place(args))
    runs = book.runs(args.maybe("NAME"), args.count("--limit") or DEFAULT_LIMIT)
    if args.flag("--json"):
        for run in runs:
            output.json_line(asdict(run))
    else:
        head = ("began", "job", "outcome", "took", "missed", "attempt", "why")
        tables.show(
            head,
            [
                (
                    text_of(run.started_at_ms), run.job, _outcome(run), _took(run), str(run.missed), str(run.attempt),
                    output.escaped(run.error or ""),
                )
                for run in runs
            ],
        )  # fmt: skip
    if not runs:
        output.note("no job has run yet")
    return DONE


def do_jobs_pause(args: Args) -> int:
    """Pause all jobs, or one."""
    _book(Place(args), ADMIN).pause(args.maybe("NAME"))
    output.note(f"paused: {args.maybe('NAME') or 'all jobs'}; 'prontodb jobs resume' goes on")
    return DONE


def do_jobs_resume(args: Args) -> int:
    """Resume all jobs, or one."""
    book = _book(Place(args), ADMIN)
    book.resume(args.maybe("NAME"))
    output.note(f"resumed: {args.maybe('NAME') or 'all jobs'}")
    _tell_notes(book)
    return DONE


def do_jobs_once(args: Args) -> int:
    """Run one job now."""
    import anyio

    from prontodb.composition import open_manager
    from prontodb.schedule.clockwork import SKIPPED

    place, name = Place(args), args.word("NAME")
    if args.flag("--trust-clock"):
        if name != "sweep":
            raise args.usage_error("--trust-clock goes with the sweep")
        place.allow(ADMIN)
        place.work().check_clock(trust_clock=True)

    async def run() -> tuple[str, str | None, dict[str, object]]:
        from prontodb.jobs.runner import as_fields

        async with open_manager(
            place.layout.root, settings=place.settings, principal=place.principal, token=place.token
        ) as manager:
            with Shown(name, "steps", quiet=args.flag("--quiet")) as progress:
                ended = await manager.run_job(name, progress=progress.update)
        return ended.outcome, ended.error, as_fields(ended.report) or {}

    outcome, error, fields = anyio.run(run)
    if args.flag("--json"):
        output.json_line({"job": name, "outcome": outcome, "error": error} | fields)
    else:
        for field, value in fields.items():
            output.line(f"{field}: {output.escaped(str(value))}")
    if outcome == SKIPPED:
        output.note(f"{name} was skipped: {error}")
    return DONE


# The daemon


def do_jobs_run(args: Args) -> int:
    """Run the jobs on schedule until a signal ends it."""
    import anyio

    from prontodb import log
    from prontodb.composition import open_manager

    place = Place(args)
    if args.text("--log") is None and not args.flag("--quiet") and sys.stderr is not None:
        log.enable(sys.stderr)
    ended_by: list[int] = []

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                tasks.start_soon(serve)
                async for number in signals:
                    ended_by.append(number)
                    notify("STOPPING=1")
                    tasks.cancel_scope.cancel()
                    return

    async def serve() -> None:
        async with open_manager(place.layout.root, jobs=True):
            notify(f"READY=1\nSTATUS=jobs of {place.layout.root}\nMAINPID={os.getpid()}")
            interval_s = watchdog_s()
            while True:
                # From the event loop itself: one that hangs is what the watchdog is for.
                await anyio.sleep(interval_s or 3_600)
                if interval_s is not None:
                    notify("WATCHDOG=1")

    try:
        anyio.run(run)
    except BaseExceptionGroup as group:
        raise _alone(group) from None
    return output.INTERRUPTED if ended_by == [signal.SIGINT] else output.TERMINATED


def _alone(error: BaseException) -> BaseException:
    """Return the one error that a task group wrapped, for the line that is told of it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def notify(state: str) -> None:
    """Tell systemd something, if it has started us: https://www.freedesktop.org/software/systemd/man/sd_notify.html"""
    import socket

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notices:
            notices.connect("\0" + address[1:] if address.startswith("@") else address)
            notices.sendall(state.encode("utf-8", "replace"))
    except OSError as error:
        output.note(f"systemd could not be told: {os.strerror(error.errno or 0)}")


def watchdog_s() -> float | None:
    """Return how often the watchdog is to be told that we live: half of what it waits; None when there is none."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not text.isdigit() or pid != str(os.getpid()) or int(text) <= 0:
        return None
    return int(text) / 2_000_000

"""The index of jobs: their runs and outcomes, what is paused, what is known of keystores and of backups.

Lost, nothing is lost but the history: jobs that seem never to have run are due at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prontodb.errors import InvalidAddressError, ProntoError
from prontodb.log import event
from prontodb.model.address import Address
from prontodb.model.history import Fact, Mark
from prontodb.model.layout import JOB_REGISTRY_FILE, Layout
from prontodb.registry.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prontodb.storage.connection import Connection

APPLICATION_ID = 0x50724A42  # "PrJB"
_SCHEMA = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, job TEXT NOT NULL, beat_at INTEGER NOT NULL, "
    "started_at INTEGER NOT NULL, ended_at INTEGER, outcome TEXT, missed INTEGER NOT NULL, attempt INTEGER NOT NULL, "
    "report TEXT, error TEXT, runner TEXT NOT NULL)",
    "CREATE INDEX runs_of_job ON runs (job, id)",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE keystores (user TEXT NOT NULL, cursor TEXT NOT NULL, stamp TEXT NOT NULL, incarnation TEXT NOT NULL, "
    "revision INTEGER NOT NULL, chain TEXT NOT NULL, next_expiry_at INTEGER, PRIMARY KEY (user, cursor)) WITHOUT ROWID",
    "CREATE TABLE checks (backup TEXT PRIMARY KEY, at INTEGER NOT NULL, problems TEXT NOT NULL) WITHOUT ROWID",
)
KEPT_RUNS = 500
"""Runs kept of each job; older ones go."""
DIED = "died"
"""The outcome of a run whose process ended before it."""

_RUNS = (
    "SELECT id, job, beat_at, started_at, ended_at, outcome, missed, attempt, report, error, runner FROM runs "
    "WHERE job = coalesce(?, job) ORDER BY id DESC LIMIT ?"
)
_BEGIN = "INSERT INTO runs (job, beat_at, started_at, missed, attempt, runner) VALUES (?, ?, ?, ?, ?, ?)"
_END = "UPDATE runs SET ended_at = ?, outcome = ?, report = ?, error = ? WHERE id = ?"
_TRIM = (
    "DELETE FROM runs WHERE job = ?1 AND id <= (SELECT id FROM runs WHERE job = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"
)
_BURY = "UPDATE runs SET outcome = ? WHERE outcome IS NULL"
_NOTE = "INSERT INTO notes (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2"
_FORGET_NOTE = "DELETE FROM notes WHERE name = ?"
_FACTS = "SELECT user, cursor, stamp, incarnation, revision, chain, next_expiry_at FROM keystores"
_PUT_FACT = "INSERT OR REPLACE INTO keystores VALUES (?, ?, ?, ?, ?, ?, ?)"
_FORGET_FACT = "DELETE FROM keystores WHERE user = ? AND cursor = ?"
_PUT_CHECK = "INSERT OR REPLACE INTO checks (backup, at, problems) VALUES (?, ?, ?)"
_FORGET_CHECK = "DELETE FROM checks WHERE backup = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job. `outcome` None: under way, or its process died; `missed`: beats that it makes up for.

    `report` is what the job returned, as JSON-able fields; moments in milliseconds UTC.
    """

    id: int
    job: str
    beat_at_ms: int
    started_at_ms: int
    ended_at_ms: int | None
    outcome: str | None
    missed: int
    attempt: int
    report: Mapping[str, object] | None
    error: str | None
    runner: str


@dataclass(frozen=True, slots=True)
class Check:
    """What the last verification of one backup found."""

    backup: str
    at_ms: int
    problems: tuple[str, ...]


class JobRegistry:
    """The index of jobs of one root. Synchronous. Methods that say so never raise: what they keep is a hint."""

    def __init__(self, layout: Layout, *, wait_s: float, one_shot: bool) -> None:
        self._index = Index(
            layout,
            JOB_REGISTRY_FILE,
            "the registry of jobs",
            application_id=APPLICATION_ID,
            schema=_SCHEMA,
            wait_s=wait_s,
            one_shot=one_shot,
        )

    # Runs

    def runs(self, job: str | None = None, limit: int = 50) -> list[Run]:
        """Return the last runs, of one job or of all, the newest first."""
        return [_run(*columns) for columns in self._index.select(_RUNS, (job, limit))]

    def begin(self, job: str, beat_at_ms: int, now_ms: int, *, missed: int, attempt: int, runner: str) -> int:
        """Note that a run begins; return its number."""
        number = 0

        def work(connection: Connection) -> None:
            nonlocal number
            connection.execute(_BEGIN, (job, beat_at_ms, now_ms, missed, attempt, runner)).close()
            number = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
            connection.execute(_TRIM, (job, KEPT_RUNS)).close()

        self._index.write(work)
        return number

    def end(self, run: int, now_ms: int, outcome: str, report: Mapping[str, object] | None, error: str | None) -> None:
        """Note how a run ended."""
        text = None if report is None else json.dumps(report, default=str)
        self._write(_END, (now_ms, outcome, text, error, run))

    def bury(self) -> None:
        """Note that every run under way has died; only for whoever has become the one runner of the root."""
        self._write(_BURY, (DIED,))

    # Notes

    def notes(self) -> dict[str, str]:
        """Return every note: what is paused, and what the clocks said last."""
        return dict(self._index.select("SELECT name, value FROM notes"))

    def note(self, name: str, value: str | None) -> None:
        """Keep a note, or with None forget it."""
        if value is None:
            self._write(_FORGET_NOTE, (name,))
        else:
            self._write(_NOTE, (name, value))

    # Checks of backups

    def checks(self) -> dict[str, Check]:
        """Return what is known of backups that were verified."""
        found = self._index.select("SELECT backup, at, problems FROM checks")
        return {backup: Check(backup, at, tuple(json.loads(problems))) for backup, at, problems in found}

    def checked(self, results: Mapping[str, list[str]], now_ms: int) -> None:
        """Keep what a verification found of each backup. Never raises."""

        def work(connection: Connection) -> None:
            rows = [(backup, now_ms, json.dumps(problems)) for backup, problems in results.items()]
            connection.executemany(_PUT_CHECK, rows).close()

        self._if_possible(work)

    def forget_checks(self, backups: tuple[str, ...]) -> None:
        """Forget what is known of backups that are gone. Never raises."""
        self._if_possible(lambda c: c.executemany(_FORGET_CHECK, [(backup,) for backup in backups]).close())

    # What is known of keystores

    def facts(self) -> dict[Address, Fact]:
        """See `knowledge.Notebook`."""
        try:
            return dict(filter(None, (_fact(*columns) for columns in self._index.select(_FACTS))))
        except ProntoError as error:
            event("registry.deferred", reason=str(error))
            return {}

    def keep_facts(self, facts: Mapping[Address, Fact | None]) -> None:
        """See `knowledge.Notebook`."""
        put = [_columns(address, fact) for address, fact in facts.items() if fact is not None]
        gone = [(address.user, address.cursor) for address, fact in facts.items() if fact is None]

        def work(connection: Connection) -> None:
            connection.executemany(_PUT_FACT, put).close()
            connection.executemany(_FORGET_FACT, gone).close()

        self._if_possible(work)

    def _write(self, statement: str, parameters: tuple[object, ...]) -> None:
        self._index.write(lambda connection: connection.execute(statement, parameters).close())

    def _if_possible(self, work: Callable[[Connection], None]) -> None:
        try:
            self._index.write(work)
        except ProntoError as error:
            event("registry.deferred", reason=str(error))


def _run(*columns: object) -> Run:
    number, job, beat, started, ended, outcome, missed, attempt, report, error, runner = columns
    try:
        found = None if report is None else json.loads(report)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError):
        found = None
    return Run(
        id=number,  # type: ignore[arg-type]
        job=str(job),
        beat_at_ms=beat,  # type: ignore[arg-type]
        started_at_ms=started,  # type: ignore[arg-type]
        ended_at_ms=ended,  # type: ignore[arg-type]
        outcome=outcome,  # type: ignore[arg-type]
        missed=missed,  # type: ignore[arg-type]
        attempt=attempt,  # type: ignore[arg-type]
        report=found if isinstance(found, dict) else None,
        error=error,  # type: ignore[arg-type]
        runner=str(runner),
    )


def _fact(*columns: object) -> tuple[Address, Fact] | None:
    """Return a stored fact; None for one that we did not write."""
    user, cursor, stamp, incarnation, revision, chain, expiry = columns
    texts = all(isinstance(text, str) for text in (stamp, incarnation, chain))
    if not texts or not isinstance(revision, int) or not isinstance(expiry, int | None):
        return None
    try:
        address = Address(user, cursor)  # type: ignore[arg-type]
    except InvalidAddressError:
        return None
    return address, Fact(stamp, Mark(incarnation, revision, chain), expiry)  # type: ignore[arg-type]


def _columns(address: Address, fact: Fact) -> tuple[object, ...]:
    mark = fact.mark
    return address.user, address.cursor, fact.stamp, mark.incarnation, mark.revision, mark.chain, fact.next_expiry_ms

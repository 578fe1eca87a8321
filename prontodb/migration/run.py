"""One migration from its beginning to its end: source, plan, apply, verify, with a private folder while it lasts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from prontodb.errors import InvalidInputError, shown
from prontodb.migration import report as reports
from prontodb.migration import saved
from prontodb.migration.apply import Applying
from prontodb.migration.ledger import Ledger
from prontodb.migration.plan import Planning
from prontodb.migration.source import Taking, check_spelling, checked_path
from prontodb.model.progress import never
from prontodb.storage import connection as sqlite
from prontodb.storage.beside import check_can_publish, publish_beside
from prontodb.storage.foreign import INDEX_FILE, SIDE_FILES
from prontodb.storage.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.migration.plan import Options, Plan
    from prontodb.migration.report import MigrationReport
    from prontodb.migration.saved import SavedPlan
    from prontodb.migration.source import Source
    from prontodb.model.address import Address
    from prontodb.model.clock import Clock
    from prontodb.model.limits import Limits
    from prontodb.model.progress import Progress

    T = TypeVar("T")


class Migration:
    """A migration of one source into one root: `taking`, `planning`, then perhaps `applying`.

    `close` removes what it needed.

    Nothing is written to the root before `applying`, and nothing ever to the source.
    """

    def __init__(
        self,
        path: object,
        options: Options,
        lifecycle: Lifecycle,
        limits: Limits,
        clock: Clock,
        existing: Callable[[], list[Address]],
        *,
        scratch: str | None = None,
        plan: SavedPlan | None = None,
    ) -> None:
        root = lifecycle.layout.root
        self._path = checked_path(path, root, *(() if scratch is None else (scratch,)))
        self._options, self._lifecycle, self._limits, self._clock = options, lifecycle, limits, clock
        self._existing, self._saved, self._seconds = existing, plan, 0.0
        self._scratch = Scratch.make(scratch)
        self._ledger: Ledger | None = None
        self._source: Source | None = None
        self._plan: Plan | None = None
        try:
            checked_path(path, root, self._scratch.folder.path)
            self._ledger = Ledger(self._scratch.folder)
        except sqlite.ERRORS as error:
            where = self._scratch.folder.path
            self.close()
            raise sqlite.translated(error, where) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Migration:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copies and the ledger."""
        if self._ledger is not None:
            self._ledger.close()
        self._scratch.close()

    @property
    def targets(self) -> list[Address]:
        """After `planning`: the addresses that may be written."""
        return [] if self._plan is None else list(self._plan.places.addresses)

    def taking(self) -> Generator[Progress, None, None]:
        """Copy the source into the private folder, and test it."""
        begun = perf_counter()
        self._source = yield from Taking(self._path, self._scratch.folder, self._options.skip).steps()
        self._seconds = perf_counter() - begun

    def planning(self) -> Generator[Progress, None, None]:
        """Read and judge every row; takes the source first, unless that is done."""
        if self._source is None:
            yield from self.taking()
        yield from self._translated(self._planning())

    def planned(self) -> MigrationReport:
        """After `planning`: return what would be done."""
        assert self._plan is not None, "planning comes first"
        begun = perf_counter()
        report = reports.made(self._plan, dry_run=True, written=[])
        return replace(report, seconds=self._seconds + perf_counter() - begun)

    def applying(self, stop: Callable[[], bool] = never) -> Generator[Progress, None, MigrationReport]:
        """Do what was planned, address by address; return what was done."""
        return (yield from self._translated(self._applying(stop)))

    def _translated(self, work: Generator[Progress, None, T]) -> Generator[Progress, None, T]:
        try:
            return (yield from work)
        except sqlite.ERRORS as error:
            raise sqlite.translated(error, self._scratch.folder.path) from error

    def _planning(self) -> Generator[Progress, None, None]:
        begun = perf_counter()
        assert self._ledger is not None  # open, by __init__
        assert self._source is not None  # by planning
        self._plan = yield from Planning(
            self._source,
            self._options,
            self._ledger,
            self._limits,
            self._lifecycle,
            self._existing,
            self._clock.wall_ms(),
        ).steps()
        if self._saved is not None:
            self._saved.check(self._plan)
        self._seconds += perf_counter() - begun

    def _applying(self, stop: Callable[[], bool]) -> Generator[Progress, None, MigrationReport]:
        assert self._plan is not None, "planning comes first"
        begun = perf_counter()
        work = Applying(self._plan, self._lifecycle, self._limits, self._clock, stop=stop)
        yield from work.steps()
        report = reports.made(self._plan, dry_run=False, written=[str(address) for address in work.written])
        return replace(report, seconds=self._seconds + perf_counter() - begun)

    def check_writable(self, path: str) -> str:
        """Return the absolute path of a file that a report or plan can be written into; never one of the source.

        Asked again once the source is known, which may reach further than the path that was named.
        """
        check_spelling(path)
        above, name = os.path.split(os.path.abspath(path))
        found = f"{os.path.realpath(above).rstrip('/')}/{name}"
        if not os.path.isdir(above):
            raise InvalidInputError(f"{shown(path)} cannot be written: it lies in no folder")
        if os.path.lexists(found) and (os.path.islink(found) or not os.path.isfile(found)):
            raise InvalidInputError(f"{shown(path)} is no file, and will not be replaced by one; name another")
        read = [self._path, *(() if self._source is None else self._source.paths)]
        beside = {one + ending for one in read for ending in ("", *SIDE_FILES, INDEX_FILE)}
        if found in beside or found.startswith(self._path.rstrip("/") + "/"):
            raise InvalidInputError(f"{shown(path)} belongs to the source, which must stay as it is; write elsewhere")
        if found.startswith(os.path.realpath(self._lifecycle.layout.root).rstrip("/") + "/"):
            raise InvalidInputError(f"{shown(path)} lies in the root; write elsewhere")
        check_can_publish(found)
        return found

    def write_report(self, path: str, report: MigrationReport) -> None:
        """Write the whole report, every reported row in it, as JSON lines into a private file."""
        assert self._plan is not None, "planning comes first"
        publish_beside(self.check_writable(path), self._report_lines(self._plan, report))

    def _report_lines(self, plan: Plan, report: MigrationReport) -> Iterator[bytes]:
        for line in reports.lines(plan, report):
            yield json.dumps(line).encode() + b"\n"

    def write_plan(self, path: str) -> None:
        """Write the plan into a private file, to be applied later."""
        assert self._plan is not None, "planning comes first"
        publish_beside(self.check_writable(path), iter((saved.text_of(self._plan, self.planned()).encode(),)))

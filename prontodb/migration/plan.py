"""The plan of a migration: every row read and judged, its fate decided; nothing is written but the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prontodb.errors import ConflictError, InvalidInputError, ProntoError, shown
from prontodb.migration import formats
from prontodb.migration.cursors import DEFAULT
from prontodb.migration.deciding import decide, decide_lifetimes
from prontodb.migration.judging import Judge, NotMigratedError, namespace_of, shown_name, text_of
from prontodb.migration.ledger import REPORTED, UNDECIDED, Line
from prontodb.migration.meeting import meet
from prontodb.migration.moments import ttl_ms
from prontodb.migration.places import Places, address_of, cursor_by_name
from prontodb.migration.reasons import Reason
from prontodb.model.address import Address
from prontodb.model.key import check_key
from prontodb.model.progress import Progress
from prontodb.storage.connection import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping

    from prontodb.engine.sqlite.lifecycle import Lifecycle
    from prontodb.migration.judging import Judged
    from prontodb.migration.ledger import Ledger
    from prontodb.migration.source import Database, Source
    from prontodb.model.limits import Limits

KEEP, REPLACE, FAIL = "keep", "replace", "fail"
ON_CONFLICT = (KEEP, REPLACE, FAIL)
MAX_DELIMITER = 8
ROWS_A_STEP = 10_000
"""Rows between two looks at the progress."""

_NOT_SAID = "nothing says whose cursor this database is; say so with --map '{}=USER/CURSOR'"
_OPEN = "its name may be NAME.cursor or NAME.USER.cursor; say whose it is with --map '{}=USER/CURSOR'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user decides. `mapping`: addresses by the names of old places, as the plan prints them."""

    mapping: Mapping[str, Address] = field(default_factory=dict)
    delimiter: str = "."
    on_conflict: str = KEEP
    skip: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.on_conflict not in ON_CONFLICT:
            raise InvalidInputError(f"on_conflict is 'keep', 'replace' or 'fail', not {shown(self.on_conflict)}")
        texts = (self.delimiter, *self.mapping, *self.skip)
        if isinstance(self.skip, str) or not all(isinstance(text, str) for text in texts):
            raise InvalidInputError("delimiter, the names of old places, and each file to skip must be text")
        if not 0 < len(self.delimiter) <= MAX_DELIMITER or not self.delimiter.isprintable():
            raise InvalidInputError(f"delimiter {shown(self.delimiter)} must be 1 to 8 printable characters")


@dataclass(frozen=True, slots=True)
class Origin:
    """One old table: of which database, and where its copy lies."""

    database: str
    copy: str
    table: str


class Plan:
    """What will become of every row of a source. `places`, `origins` and the ledger say it; see `report.py`."""

    def __init__(self, source: Source, options: Options, ledger: Ledger, now_ms: int) -> None:
        self.source, self.options, self.ledger, self.now_ms = source, options, ledger, now_ms
        self.places = Places(options.mapping)
        self.origins: list[Origin] = []
        self.failed: list[tuple[Address, str]] = []
        """Addresses that cannot be looked at, or could not be written; their rows are reported."""

    def fail(self, slot: int, reason: str) -> None:
        """Give an address up: what was to go there is reported, all others go on."""
        self.failed.append((self.places.addresses[slot], reason))
        self.ledger.refuse(slot, Reason.FAILED, reason)

    @property
    def copies(self) -> dict[int, tuple[str, str]]:
        """The private copy and the table of each origin."""
        return {number: (origin.copy, origin.table) for number, origin in enumerate(self.origins)}

    @property
    def rows(self) -> int:
        """How many rows the source holds."""
        return sum(
            count
            for database in self.source.databases
            for table, count in database.tables.rows.items()
            if table != formats.LIFETIMES
        )


class Planning:
    """Makes a plan; `steps` returns it."""

    def __init__(
        self,
        source: Source,
        options: Options,
        ledger: Ledger,
        limits: Limits,
        lifecycle: Lifecycle,
        existing: Callable[[], list[Address]],
        now_ms: int,
    ) -> None:
        self._plan = Plan(source, options, ledger, now_ms)
        self._ledger, self._limits, self._lifecycle, self._existing = ledger, limits, lifecycle, existing
        self._judge = Judge(limits, options.delimiter)
        self._owners: dict[tuple[str, str], int] = {}

    def steps(self) -> Generator[Progress, None, Plan]:
        """Do it. With `on_conflict='fail'`, `ConflictError` when an address has a key with something else."""
        plan, total, done = self._plan, self._plan.rows, 0
        for database in plan.source.databases:
            views = _Views(plan.places, database, plan.source)
            with formats.opened(database.copy, database.name) as connection:
                for table in (formats.SHARED, formats.RUST):
                    if table not in database.tables.rows:
                        continue
                    plan.origins.append(Origin(database.name, database.copy, table))
                    cursor = connection.execute(formats.SELECT[table], (self._limits.max_value_bytes,))
                    try:
                        for row in cursor:
                            if table == formats.SHARED:
                                self._shared(row)
                            else:
                                self._rust(row, views)
                            done += 1
                            if done % ROWS_A_STEP == 0:
                                yield Progress(what=f"reading {database.name}", done=done, total=total)
                    finally:
                        cursor.close()
                if formats.LIFETIMES in database.tables.rows:
                    self._lifetimes(rows(connection, formats.SELECT[formats.LIFETIMES]), views)
        plan.places.check_map()
        self._ledger.all_added(plan.now_ms)
        yield Progress(what="deciding", done=total, total=total)
        existing = self._existing()
        with self._ledger.changing():
            yield from decide(self._ledger, plan)
            decide_lifetimes(self._ledger)
            for slot in plan.places.refuse_twins(existing):
                self._ledger.refuse(slot, Reason.TWIN_ADDRESS, str(plan.places.addresses[slot]))
            plan.places.name_unsafe_twins()
        known = set(existing)
        for slot, address in enumerate(plan.places.addresses):
            if address in known:
                yield Progress(what=f"looking at {address}", done=total, total=total)
                try:
                    meet(plan, slot, self._lifecycle.layout, self._limits)
                except ProntoError as error:
                    plan.fail(slot, str(error))
        self._refuse_conflicts()
        return plan

    def _refuse_conflicts(self) -> None:
        if self._plan.options.on_conflict != FAIL:
            return
        found = dict(self._ledger.reasons()).get(Reason.KEPT, 0)
        if found:
            first = self._ledger.examples(Reason.KEPT, 1)[0]
            raise ConflictError(
                f"{found:,} of the keys are there already with something else, such as {shown(first.key)} at "
                f"{self._plan.places.places[first.place].address}; nothing was written: see --on-conflict"
            )
        for place, old, reason, _ in self._ledger.reported_lifetimes(-1):
            if reason == Reason.KEPT:
                raise ConflictError(
                    f"namespace {shown(old)} has another default lifetime at {self._plan.places.places[place].address} "
                    "already; nothing was written: see --on-conflict"
                )

    # Rows

    def _shared(self, row: tuple[object, ...]) -> None:
        row_id, kind, address, value_kind, value, size, created, updated = row
        place = -1
        try:
            user, cursor, parts = self._judge.owner(kind, address)  # type: ignore[arg-type]
            place = self._owners.get((user, cursor), -1)
            if place < 0:
                old = f"{user}{self._plan.options.delimiter}{cursor}"
                place = self._plan.places.add(old, user, cursor)
                if not self._plan.places.is_rubbish(place):
                    self._owners[user, cursor] = place
            judged = self._judge.shared(parts, address, value_kind, value, size, created, updated)  # type: ignore[arg-type]
        except NotMigratedError as error:
            self._report(row_id, place, error)
        else:
            self._add(row_id, place, judged)

    def _rust(self, row: tuple[object, ...], views: _Views) -> None:
        row_id, kind, stored, *named, value_kind, value, size, created, updated, expires = row
        times = (created, updated, expires)
        try:
            project = text_of(kind, stored, stored, named[1], named[3])  # type: ignore[arg-type]
        except NotMigratedError as error:
            self._report(row_id, views.first, error)
            return
        for number, (place, inside) in enumerate(views.of(project)):
            try:
                judged = self._judge.rust(inside, tuple(named), value_kind, value, size, times)  # type: ignore[arg-type]
            except NotMigratedError as error:
                self._report(row_id, place, error, is_copy=number > 0)
            else:
                self._add(row_id, place, judged, is_copy=number > 0)

    def _report(self, row: object, place: int, error: NotMigratedError, *, is_copy: bool = False) -> None:
        origin = len(self._plan.origins) - 1
        line = Line(origin, row, place, -1, error.old, "", -1, -1, -1, 0, 0, REPORTED, error.reason, error.detail)  # type: ignore[arg-type]
        self._put(line, place, is_copy=is_copy)

    def _add(self, row: object, place: int, judged: Judged, *, is_copy: bool = False) -> None:
        where, origin = self._plan.places.places[place], len(self._plan.origins) - 1
        fate, reason, detail = UNDECIDED, judged.reason, judged.detail
        if where.slot < 0:
            fate, reason, detail = REPORTED, Reason.NO_ADDRESS, where.reason
        known = judged[:-2]
        line = Line(origin, row, place, where.slot, *known, fate, reason, detail)  # type: ignore[arg-type]
        self._put(line, place, is_copy=is_copy)

    def _put(self, line: Line, place: int, *, is_copy: bool) -> None:
        if place >= 0:
            self._plan.places.places[place].read += 1
        self._ledger.add(line, is_copy=is_copy)

    # Default lifetimes

    def _lifetimes(self, found: list[tuple[object, ...]], views: _Views) -> None:
        for project_kind, project_stored, kind, stored, is_ttl, default in found:
            old = shown_name(project_stored, stored)
            if not is_ttl:
                continue  # without a default lifetime, there is nothing to carry over
            try:
                project = text_of(project_kind, project_stored, project_stored, stored)  # type: ignore[arg-type]
                namespace = text_of(kind, stored, project_stored, stored)  # type: ignore[arg-type]
                if not (project and namespace):
                    raise NotMigratedError(Reason.EMPTY_PART, old)
            except NotMigratedError as error:
                self._ledger.add_lifetime(views.first, -1, "", 0, old, REPORTED, error.reason, error.detail)
                continue
            for place, inside in views.of(project):
                self._lifetime(place, namespace_of(inside, namespace), ttl_ms(default), old)

    def _lifetime(self, place: int, namespace: str, lifetime_ms: int | None, old: str) -> None:
        where = self._plan.places.places[place]
        fate, reason, detail = REPORTED, Reason.NONE, ""
        if where.slot < 0:
            reason, detail = Reason.NO_ADDRESS, where.reason
        elif lifetime_ms is None:
            reason = Reason.BAD_LIFETIME
        else:
            try:
                check_key(namespace or DEFAULT, self._limits.max_key_bytes)
                fate = UNDECIDED
            except InvalidInputError as error:
                reason, detail = Reason.BAD_KEY, str(error)
        self._ledger.add_lifetime(place, where.slot, namespace, lifetime_ms or 0, old, fate, reason, detail)


class _Views:
    """Who saw which rows of one database of the Rust program: by its cursor files, else by its name."""

    def __init__(self, places: Places, database: Database, source: Source) -> None:
        self._places, self._database = places, database
        self._behind: list[tuple[str, int]] = []
        self._plain: list[int] = []
        seen: set[tuple[object, ...]] = set()
        mapped = database.name in places.mapping
        for cursor in source.cursors.get(database.name, ()):
            if mapped and cursor.meta is None:
                continue  # the user's word for the whole database counts more
            reason = _OPEN.format(cursor.file) if cursor.cursor is None else ""
            place = places.add(cursor.file, cursor.user, cursor.cursor, reason)
            found = (places.places[place].address or cursor.file, cursor.meta)
            if found in seen:
                continue  # two files of one cursor
            seen.add(found)
            if cursor.meta is None:
                self._plain.append(place)
            else:
                self._behind.append((f"{cursor.meta}.", place))
            _note_defaults(source, cursor.file, cursor.project, cursor.namespace)
        by_name = cursor_by_name(database.folder, database.file, is_top=database.is_top)
        for number in self._plain if by_name is not None else ():
            # A cursor file that says what the name says makes nobody else's of it.
            one = places.places[number]
            one.by_name = one.address is not None and one.address == _address_by_name(by_name)
        if mapped:
            self._plain = [places.add(database.name, None, None)]
        elif self._plain and by_name == DEFAULT:
            # What everybody saw without a cursor file is not theirs alone who have one for it.
            self._by_name()

    @property
    def first(self) -> int:
        """The place that rows are reported under that nobody can assign."""
        return (self._plain or [place for _, place in self._behind] or self._by_name())[0]

    def of(self, project: str) -> list[tuple[int, str]]:
        """Return the places that a row of this project goes to, each with what the project is called there."""
        behind = [
            (place, project.removeprefix(prefix))
            for prefix, place in self._behind
            if project.startswith(prefix) and project != prefix
        ]
        return behind or [(place, project) for place in self._plain or self._by_name()]

    def _by_name(self) -> list[int]:
        """Where no cursor file speaks for the rows, where the database lay does."""
        database = self._database
        cursor = cursor_by_name(database.folder, database.file, is_top=database.is_top)
        reason = _NOT_SAID.format(database.name)
        place = self._places.add(database.name, None if cursor is None else DEFAULT, cursor, reason, by_name=True)
        slot = self._places.places[place].slot
        if slot < 0 or all(self._places.places[one].slot != slot for one in self._plain):
            self._plain.append(place)
        return self._plain


def _address_by_name(cursor: str | None) -> Address | None:
    try:
        return None if cursor is None else address_of(DEFAULT, cursor)
    except InvalidInputError:
        return None


def _note_defaults(source: Source, file: str, project: str | None, namespace: str | None) -> None:
    """Say where short paths meant something else than they mean here."""
    if (project or DEFAULT) != DEFAULT or (namespace or DEFAULT) != DEFAULT:
        path = f"{project or DEFAULT}.{namespace or DEFAULT}.KEY"
        source.notes.append(f"{file}: short paths meant {path} there; write that whole path now")

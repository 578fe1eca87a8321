"""migrate: the old program's databases become addresses; every row is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prontodb.cli import output, tables
from prontodb.cli.backups import run
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import duration_text
from prontodb.errors import shown
from prontodb.migration.plan import Options
from prontodb.model.access import ADMIN
from prontodb.model.address import Address

if TYPE_CHECKING:
    from prontodb.migration.report import Example, MigrationReport
    from prontodb.migration.saved import SavedPlan

_ONLY_NEW = ("--map", "--skip", "--delimiter", "--on-conflict")

SYNTAX = {
    "migrate": Syntax(
        ("[SOURCE]",),
        (
            "--dry-run", "--report", "--map", "--delimiter", "--on-conflict", "--skip", "--save-plan", "--plan",
            "--scratch",
        ),
        about=(
            "Brings over what the old program kept: SOURCE is one of its databases (any name; table kvstore or kv), "
            "its folder (~/.local/data/odx/prontodb: all databases and cursor files in it are found), or one of its "
            "backups (prontodb_NAME_DATE.tar.gz). The source is only read, and is byte for byte the same afterwards. "
            "Every row has one fate: migrated with its value, times and expiry; expired; superseded by a newer row of "
            "the same key; or reported, with its reason and row id: "
            "read = migrated + expired + superseded + reported. Nothing is guessed: what has no clear address is "
            "reported until --map says where it goes. Each address is built beside its place, verified, and put in by "
            "one rename; a second run changes nothing. Keys that are there already stay (--on-conflict keep), are "
            "written over (replace), or stop the whole (fail). Exit 1 when any row was reported. ops/migration.md has "
            "the table of what becomes what."
        ),
        examples=(
            ("prontodb migrate ~/.local/data/odx/prontodb --dry-run", "what would become of every row"),
            ("prontodb migrate ~/.local/data/odx/prontodb --report rows.jsonl", "do it; reported rows into a file"),
            ("prontodb migrate old.db --map 'Agent 1.main=agent1/main'", "a name that cannot be an address"),
            ("prontodb migrate old.db --dry-run --save-plan plan.json", "to be looked at, and applied later with"),
            ("prontodb migrate --plan plan.json", "just what the plan says"),
        ),
    ),
}  # fmt: skip


def do_migrate(args: Args) -> int:
    """Migrate, or say what would be done."""
    source, plan = args.maybe("SOURCE"), None
    if (path := args.text("--plan")) is not None:
        plan = _saved(args, path)
    elif source is None:
        raise args.usage_error("migrate needs SOURCE, or --plan FILE")
    options = _options(args) if plan is None else plan.options
    place, dry_run = Place(args), args.flag("--dry-run")
    files = [args.text("--report"), args.text("--save-plan")]
    if files[0] is not None and files[0] == files[1]:
        raise args.usage_error("--report and --save-plan need a file each")
    where = source if plan is None or source is not None else plan.source
    place.allow(ADMIN)
    with place.work().migration(where, options, scratch=args.text("--scratch"), plan=plan) as migration:
        wanted = [file for file in files if file is not None]
        for file in wanted:
            migration.check_writable(file)
        run(migration.taking(), args, "databases", "copy")
        for file in wanted:
            migration.check_writable(file)
        run(migration.planning(), args, "rows", "plan")
        if files[1] is not None:
            migration.write_plan(files[1])
        report = migration.planned() if dry_run else run(migration.applying(), args, "entries", "migrate")
        # First what was done, whatever then becomes of the file that is to tell of it.
        if args.flag("--json"):
            output.json_line(report.as_dict())
        else:
            _print(report)
        _tell(report)
        if files[0] is not None:
            migration.write_report(files[0], report)
    return DONE if report.is_complete else ERROR


def _options(args: Args) -> Options:
    mapping: dict[str, Address] = {}
    for text in args.texts("--map"):
        # From the right: an old name may hold anything, an address never holds a '='.
        old, equals, address = text.rpartition("=")
        if not equals or not old:
            raise args.usage_error(f"--map is OLD=USER/CURSOR, with OLD as the plan prints it, not {shown(text)}")
        if old in mapping:
            raise args.usage_error(f"--map says twice where {shown(old)} goes")
        mapping[old] = Address.parse(address)
    return Options(
        mapping=mapping,
        delimiter="." if args.text("--delimiter") is None else str(args.text("--delimiter")),
        on_conflict=args.text("--on-conflict") or "keep",
        skip=tuple(args.texts("--skip")),
    )


def _saved(args: Args, path: str) -> SavedPlan:
    from prontodb.migration import saved
    from prontodb.storage.foreign import content

    for option in _ONLY_NEW:
        if args.text(option) is not None:
            raise args.usage_error(f"{option} does not go with --plan: the plan says it")
    return saved.read(content(path, saved.MAX_PLAN_BYTES), path)


def _print(report: MigrationReport) -> None:
    """Print the places, then what was reported and why, then what readers will notice."""
    head = ("old place", "address", "read", "migrated", "expired", "superseded", "reported")
    places = [
        (
            output.escaped(one.old),
            one.address or "-",
            f"{one.read:,}",
            f"{one.migrated:,}",
            f"{one.expired:,}",
            f"{one.superseded:,}",
            f"{one.reported:,}",
        )
        for one in report.places
    ]
    total = ("total", "", *(f"{n:,}" for n in (report.read, report.migrated, report.expired)))
    tables.show(head, [*places, (*total, f"{report.superseded:,}", f"{report.reported:,}")])
    for reason in report.reasons:
        output.line(f"\nreported, {tables.counted(reason.rows, 'row')}: {reason.text}")
        for example in reason.examples:
            output.line(f"  {_row(example)}")
        if reason.rows > len(reason.examples):
            output.line(f"  and {reason.rows - len(reason.examples):,} more; --report FILE lists all")
    for old, why in report.namespaces_reported:
        output.line(f"\nnot carried over, the default lifetime of {output.escaped(old)}: {output.escaped(why)}")
    for text, count in report.flags:
        output.line(f"\nmigrated, {tables.counted(count, 'row')}: {text}")
    if report.shown_otherwise:
        keys = tables.counted(report.shown_otherwise, "key")
        output.line(
            f"\nread otherwise from now on, {keys}: the old get showed the oldest row, not the last one written"
        )
        for one in report.shown:
            newest = "which has expired" if one.newest_expired else f"written {one.newest_written_at}"
            output.line(
                f"  {output.escaped(one.key)} of {output.escaped(one.old)}: row {one.row_shown} (written "
                f"{one.shown_written_at}) was shown, row {one.row_newest} is the last one, {newest}"
            )


def _row(example: Example) -> str:
    whose = f"{output.escaped(example.old)} " if example.old not in ("", example.database) else ""
    detail = f" ({output.escaped(example.detail)})" if example.detail else ""
    place = f"{output.escaped(example.database)} {example.table} row {example.row}"
    return f"{place}: {whose}{output.escaped(example.key)}{detail}"


def _tell(report: MigrationReport) -> None:
    """Say on stderr what was done."""
    for note in report.notes:
        output.note(note)
    for one in report.places:
        if one.address is None:
            output.note(f"{one.old} has no address: {one.reason}")
    for address, reason in report.failed:
        output.error(f"{address} was not written: {reason}")
    there = f" ({report.there:,} were there already)" if report.there else ""
    rate = f", {report.read / report.seconds:,.0f} rows/s" if report.seconds > 0 else ""
    written = "" if report.dry_run else f"; {tables.counted(len(report.written), 'address', 'addresses')} written"
    output.note(
        f"{'would be done' if report.dry_run else 'done'}: "
        f"read {report.read:,} = migrated {report.migrated:,}{there} + expired {report.expired:,} + "
        f"superseded {report.superseded:,} + reported {report.reported:,}; "
        f"{tables.counted(report.namespaces, 'default lifetime')}{written}; {duration_text(report.seconds)}{rate}"
    )
    if not report.is_complete:
        output.error(
            f"not everything {'would come' if report.dry_run else 'came'} over: keep the source {shown(report.source)}"
        )

"""backup: made, listed, described, tested, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prontodb.cli import output, tables
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import Shown, duration_text, size_text
from prontodb.cli.secrets import LazyKeys
from prontodb.model.access import ADMIN, READ
from prontodb.model.moments import text_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from prontodb.backup.create import BackupReport
    from prontodb.backup.manifest import Manifest, Piece
    from prontodb.model.progress import Progress
    from prontodb.work import Work

    T = TypeVar("T")

_CREATE = ("--full", "--incremental", "--output")
_ABOUT_CREATE = (
    "Backs up every address, or with --user (and --cursor) those of one user, or one; PRONTODB_USER and "
    "PRONTODB_CURSOR do not narrow it. Live keystores too: no writer waits for it. Writes what changed since the "
    "last backup of the same; the first one, and with --full each, is whole. It exists complete or not at all; its "
    "id is printed."
)
_REF = "an id, the beginning of one, or a path"

SYNTAX = {
    "backup": Syntax(
        (),
        (*_CREATE, "--list", "--restore"),
        about=f"Is backup create; with --list backup list, with --restore REF restore REF --yes. {_ABOUT_CREATE}",
        examples=(
            ("prontodb backup", "what changed, of all addresses"),
            ("prontodb backup --output /mnt/disk/prontodb", "into a folder of backups elsewhere"),
            ("prontodb backup --restore 20261121T030000Z-1b2f8a3c", "bring everything in it back"),
        ),
    ),
    "backup create": Syntax(
        (),
        _CREATE,
        about=_ABOUT_CREATE,
        examples=(
            ("prontodb backup create", "20261121T030000Z-1b2f8a3c"),
            ("prontodb backup create --full --user agent1 --cursor prod", "one address, whole"),
        ),
    ),
    "backup list": Syntax(
        ("[PLACE]",),
        about=(
            "Prints the backups of the root, or of the folder PLACE, the oldest first: id, kind, of whom, when, "
            "addresses with a state of their own in it, size, and what the last verification said."
        ),
        examples=(("prontodb backup list", "all of them"), ("prontodb backup list /mnt/disk/prontodb", "elsewhere")),
    ),
    "backup show": Syntax(
        ("BACKUP",),
        about=f"Prints what one backup holds, an address a line. BACKUP is {_REF}.",
        examples=(("prontodb backup show 20261121T0300", "address, kind, entries, revision, size"),),
    ),
    "backup verify": Syntax(
        ("[BACKUP]",),
        about=(
            f"Tests every file of one backup and of those that it builds on ({_REF}), puts the state of each address "
            "together in a scratch folder and compares it entry by entry. Without BACKUP, or with a folder of "
            "backups: every file of all, and the states of the newest ones and of one more. Problems go to stdout, "
            "and the exit code is 1."
        ),
        examples=(("prontodb backup verify", "everything that is kept"),),
    ),
    "backup prune": Syntax(
        (),
        ("--dry-run",),
        about=(
            "Removes the backups that the retention policy does not keep (registry/global_config.json, "
            '"backups": {"retention": {"keep_last": 3, "hourly": 24, "daily": 7, "weekly": 5, "monthly": 12}}). Never '
            "one that another needs, never the last good one, and nothing at all when one cannot be read. Prints what "
            "went; with --dry-run what would go."
        ),
        examples=(("prontodb backup prune --dry-run", "what would go, and why the others stay"),),
    ),
}


def run(work: Generator[Progress, None, T], args: Args, unit: str, title: str) -> T:
    """Do a long work to its end, and show on stderr how it gets on."""
    with Shown(title, unit, quiet=args.flag("--quiet")) as progress:
        while True:
            try:
                progress.update(next(work))
            except StopIteration as end:
                found: T = end.value
                return found


def do_backup(args: Args) -> int:
    """Do what upstream's forms say: create, list or restore."""
    chosen = [option for option in ("--list", "--restore", "--output") if args.text(option) is not None]
    if len(chosen) > 1:
        raise args.usage_error(f"{chosen[0]} and {chosen[1]} do not go together")
    if args.flag("--list"):
        return _list(args, None)
    reference = args.text("--restore")
    if reference is not None:
        from prontodb.cli.restoring import restore

        return restore(args, reference, yes=True)
    return do_backup_create(args)


def do_backup_create(args: Args) -> int:
    """Make a backup."""
    if args.flag("--full") and args.flag("--incremental"):
        raise args.usage_error("--full and --incremental do not go together")
    user, cursor = args.text("--user"), args.text("--cursor")
    if cursor is not None and user is None:
        raise args.usage_error("--cursor goes with --user")
    place = Place(args)
    place.allow_scope(READ, user, cursor)
    work = place.work().backup(full=args.flag("--full"), user=user, cursor=cursor, output=args.text("--output"))
    report = run(work, args, "addresses", "backup")
    if args.flag("--json"):
        output.json_line(_as_dict(report))
    elif report.id is not None:
        output.line(report.id)
    _tell(report)
    return ERROR if report.failed or report.not_copied is not None else DONE


def _as_dict(report: BackupReport) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(report)


def _tell(report: BackupReport) -> None:
    whose = report.scope or "all addresses"
    if report.id is not None:
        output.note(
            f"{report.kind} backup of {whose}: {report.snapshots:,} whole, {report.segments:,} by what changed, "
            f"{report.unchanged:,} unchanged; {size_text(report.size_bytes)} in {duration_text(report.seconds)}"
        )
    elif report.parent is not None and not report.failed:
        output.note(f"nothing of {whose} has changed since {report.parent}; no new backup is needed")
    elif not report.failed:
        output.note("there is no address to back up")
    if report.copied:
        output.note(f"copied {tables.counted(len(report.copied), 'backup')} to the second place")
    for address, reason in report.doubtful:
        output.note(f"{address} contradicts itself, and is backed up as it is: {reason}; see 'prontodb doctor --deep'")
    for address, reason in report.failed:
        output.error(f"{address} could not be backed up: {reason}")
    if report.not_copied is not None:
        output.error(f"not copied to the second place: {report.not_copied}")


# Listing


def _work(args: Args, right: str = READ) -> Work:
    """Return the works of the root for a caller with a right at all addresses: backups tell of all."""
    place = Place(args)
    place.allow(right)
    return place.work()


def do_backup_list(args: Args) -> int:
    """List backups."""
    return _list(args, args.maybe("PLACE"))


def _list(args: Args, place: str | None) -> int:
    work = _work(args)
    listing, checks = work.backups(place), work.checks(place)
    if args.flag("--json"):
        for manifest in listing.backups:
            check = checks.get(manifest.id)
            output.json_line(
                _summary(manifest)
                | {
                    "verified_at_ms": None if check is None else check.at_ms,
                    "problems": [] if check is None else list(check.problems),
                }
            )
    else:
        rows = []
        for one in listing.backups:
            check = checks.get(one.id)
            state = "-" if check is None else "damaged" if check.problems else f"whole {text_of(check.at_ms)}"
            rows.append(
                (one.id, one.kind, one.scope or "*", text_of(one.created_at_ms), f"{len(one.pieces):,}",
                 size_text(one.size_bytes), state)
            )  # fmt: skip
        tables.show(("backup", "kind", "of", "made", "addresses", "size", "verified"), rows)
    if not listing.backups:
        output.note("no backups")
    for broken in listing.unreadable:
        output.error(f"backup {broken.id} cannot be used: {broken.reason}")
    return ERROR if listing.unreadable else DONE


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "id": manifest.id,
        "root": manifest.root,
        "kind": manifest.kind,
        "scope": manifest.scope,
        "parent": manifest.parent,
        "created_at_ms": manifest.created_at_ms,
        "ended_at_ms": manifest.ended_at_ms,
        "prontodb": manifest.prontodb,
        "sqlite": manifest.sqlite,
        "addresses": len(manifest.pieces),
        "unchanged": manifest.unchanged,
        "gone": list(manifest.gone),
        "failed": dict(manifest.failed),
        "size_bytes": manifest.size_bytes,
    }


def do_backup_show(args: Args) -> int:
    """Describe one backup."""
    from dataclasses import asdict

    manifest = _work(args).find_backup(args.word("BACKUP"))
    if args.flag("--json"):
        output.json_line(_summary(manifest) | {"pieces": [asdict(piece) for piece in manifest.pieces]})
        return DONE
    tables.show(
        ("address", "kind", "entries", "revision", "at", "size", "since"), [_row(piece) for piece in manifest.pieces]
    )
    output.note(
        f"{manifest.kind} backup of {manifest.scope or 'all addresses'}, made {text_of(manifest.created_at_ms)} by "
        f"ProntoDB {manifest.prontodb}; {size_text(manifest.size_bytes)}"
        + (f"; builds on {manifest.parent}" if manifest.parent is not None else "")
        + (
            f"; unchanged since: {tables.counted(manifest.unchanged, 'address', 'addresses')}"
            if manifest.unchanged
            else ""
        )
    )
    for address in manifest.gone:
        output.note(f"{address} was gone")
    for address, reason in manifest.failed:
        output.note(f"{address} could not be read: {reason}")
    return DONE


def _row(piece: Piece) -> tuple[str, ...]:
    return (
        piece.address,
        piece.kind,
        f"{piece.entries:,}",
        f"{piece.revision}",
        text_of(piece.at_ms),
        size_text(piece.size_bytes),
        piece.parent or "-",
    )


# Testing and removing


def do_backup_verify(args: Args) -> int:
    """Test backups."""
    from dataclasses import asdict

    place = Place(args)
    place.allow(READ)
    report = run(place.work().verify(args.maybe("BACKUP")), args, "files and trials", "verify")
    is_key_wrong = _is_key_wrong(place, [address for address, _ in report.untried])
    if args.flag("--json"):
        output.json_line(asdict(report) | {"whole": report.is_whole})
    else:
        for backup, problem in report.problems:
            output.line(f"{backup}: {output.escaped(problem)}")
        for address, reason in report.untried:
            output.line(f"{address} was not tried: {output.escaped(reason)}")
    looked_at = ", ".join(
        tables.counted(number, what)
        for number, what in ((len(report.backups), "backup"), (report.files, "file"), (report.trials, "trial"))
    )
    verdict = "damaged" if not report.is_whole else "all whole" if report.backups else "there is no backup to verify"
    if report.is_whole and report.untried:
        untried = tables.counted(len({address for address, _ in report.untried}), "encrypted address")
        verdict = f"the files are whole, but of {untried} nothing was tried: the key that was brought does not open it"
        if not is_key_wrong:
            verdict = f"the files are whole, but of {untried} nothing was tried, for want of a key"
    took = duration_text(report.seconds)
    output.note(f"{looked_at} (put together and compared), {size_text(report.size_bytes)} in {took}: {verdict}")
    return DONE if report.is_whole and not is_key_wrong else ERROR


def _is_key_wrong(place: Place, untried: list[str]) -> bool:
    """True when a key was brought, and does not open an address whose key record is there.

    Without a key, or with a record that was destroyed along with its address, there is nothing to be done better.
    """
    if not untried or not isinstance(place.layout.keys, LazyKeys):
        return False
    keyring = place.layout.keys.keyring
    return keyring.source is not None and any(keyring.of_address(address) for address in untried)


def do_backup_prune(args: Args) -> int:
    """Remove what retention does not keep."""
    from dataclasses import asdict

    dry_run = args.flag("--dry-run")
    report = run(_work(args, ADMIN).prune(dry_run=dry_run), args, "backups", "prune")
    if args.flag("--json"):
        output.json_line(asdict(report))
    else:
        for backup in report.removed:
            output.line(backup)
    if dry_run:
        for backup, reasons in report.kept.items():
            output.note(f"{backup} stays: {', '.join(reasons)}")
    if report.refused is not None:
        output.error(
            f"nothing {'would go' if dry_run else 'was removed'}: {report.refused}; 'prontodb backup list' shows it: "
            "set the clock right, or move that backup's folder out of the way"
        )
        return ERROR
    verb, count = "would remove" if dry_run else "removed", len(report.removed)
    if report.not_pruned is not None:
        output.error(f"the second place was not pruned: {report.not_pruned}")
    second = report.second_place
    if second is not None and second.refused is not None:
        output.error(f"in the second place nothing {'would go' if dry_run else 'was removed'}: {second.refused}")
    elif second is not None:
        output.note(f"in the second place: {tables.counted(len(second.removed), 'backup')}")
    output.note(f"{verb} {count:,} of {count + len(report.kept):,} backups, {size_text(report.freed_bytes)}")
    return ERROR if report.not_pruned is not None or (second is not None and second.refused is not None) else DONE

"""restore: addresses brought back from a backup, and the undo of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from prontodb.backup.history import Until
from prontodb.cli import output
from prontodb.cli.backups import run
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import duration_text, size_text
from prontodb.cli.tables import counted
from prontodb.errors import NotFoundError, ProntoError, told
from prontodb.model.access import ADMIN
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.moments import moment_of, text_of
from prontodb.model.root import checked_root
from prontodb.storage.files import resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMED = 10
"""Addresses named one by one before a question; the rest are counted."""

SYNTAX = {
    "restore": Syntax(
        ("[BACKUP]",),
        ("--as", "--at", "--revision", "--into", "--undo", "--redo", "--yes"),
        about=(
            "Brings back what a backup holds: everything, or with --user (and --cursor) one user's addresses, or one; "
            "PRONTODB_USER and PRONTODB_CURSOR do not narrow it. BACKUP is an id, the beginning of one, or a path; "
            "without it the newest, or the newest up to --at TIME or, of one address, --revision N; where an address "
            "keeps its history ('prontodb address history'), its state at just that point. Every file is tested before "
            "anything is touched; each address is built beside its place and put in by rename. Addresses that the "
            "backup does not hold "
            "stay as they are. Refused while sessions are there. What an address held before is kept for --undo for "
            "some days (the setting undo_days): without --user of the last restore; with it once more goes "
            "one restore further back. --redo takes an undo back. Asks first; off a terminal it needs --yes."
        ),
        examples=(
            ("prontodb restore --user agent1 --cursor prod", "its newest state in a backup"),
            ("prontodb restore 20261121T0300 --user agent1 --cursor prod --as agent1/look", "beside it, to look at"),
            ("prontodb restore --at '2026-11-20 18:00' --yes", "all addresses as of then"),
            ("prontodb restore /mnt/disk/prontodb --into /srv/new --yes", "a root from nothing but its backups"),
            ("prontodb restore --undo --user agent1 --cursor prod", "as it was before the restore"),
        ),
    ),
}


def do_restore(args: Args) -> int:
    """Restore, or undo a restore."""
    if args.flag("--undo") or args.flag("--redo"):
        return _undo(args, redo=args.flag("--redo"))
    return restore(args, args.maybe("BACKUP"), yes=args.flag("--yes"))


def restore(args: Args, reference: str | None, *, yes: bool) -> int:
    """Bring addresses back; asks first unless `yes`."""
    user, cursor, at = args.text("--user"), args.text("--cursor"), args.text("--at")
    if cursor is not None and user is None:
        raise args.usage_error("--cursor goes with --user")
    place, target = Place(args), None if (named := args.text("--as")) is None else Address.parse(named)
    into = None if (other := args.text("--into")) is None else resolved(checked_root(other, "--into"))
    _allow(place, user, cursor, target, into)
    work = place.work()
    restoring = work.restoring(
        reference,
        user=user,
        cursor=cursor,
        target=target,
        until=Until(None if at is None else moment_of(at), args.count("--revision")),
        into=into,
    )
    if not yes and restoring.replaced and not _agreed(restoring.replaced, f"with their state in {restoring.backup}"):
        return ERROR
    report = run(restoring.steps(), args, "steps", "restore")
    if args.flag("--json"):
        output.json_line(
            asdict(report)
            | {
                "restored": [
                    asdict(one) | {"address": str(one.address), "target": str(one.target)} for one in report.restored
                ]
            }
        )
    else:
        for one in report.restored:
            output.line(str(one.target))
    for address, reason in report.failed:
        output.error(f"{address} was not restored: {reason}")
    done = counted(len(report.restored), "address", "addresses")
    kept = sum(one.kept for one in report.restored)
    # Without a name it is this restore that it undoes.
    undo = f"; 'prontodb restore --undo' brings back what {counted(kept, 'address', 'addresses')} held" if kept else ""
    output.note(
        f"restored {done} from {report.backup}, made {text_of(restoring.made_at_ms)}: "
        f"{size_text(report.size_bytes)} in {duration_text(report.seconds)}{undo}"
    )
    return ERROR if report.failed else DONE


def _allow(place: Place, user: str | None, cursor: str | None, target: Address | None, into: str | None) -> None:
    """Raise `DeniedError` unless all that may be restored; another root has rules of its own."""
    place.check_is_outside()
    if place.caller is None and into is None:
        return
    from prontodb.access import Access, Caller, scope_of

    caller = place.caller or Caller(Access(place.layout, Clock()), place.principal)
    caller.allow_restore(scope_of(user, cursor), target, None if into is None else Layout(into))


def _agreed(addresses: Sequence[Address], how: str) -> bool:
    names = ", ".join(map(str, addresses[:MAX_NAMED]))
    more = f" and {len(addresses) - MAX_NAMED:,} more" if len(addresses) > MAX_NAMED else ""
    if output.ask(f"replace {names}{more} {how}? [y/N] ").lower() in ("y", "yes"):
        return True
    output.error(f"nothing was touched; add --yes to replace {names}{more} without being asked")
    return False


def _nothing_kept(user: str | None, cursor: str | None, *, redo: bool) -> str:
    what = "redone" if redo else "undone"
    if user is None:
        return f"nothing of the last restore can be {what}; name --user and --cursor, or see undo_days"
    where = f"of user {user}" if cursor is None else f"at {Address(user, cursor)}"
    return (
        f"nothing {where} can be {what}: no {'undo' if redo else 'restore'} has put anything aside, or it is gone. It "
        "goes after undo_days, when the address is deleted or renamed, and with 'address encrypt' and "
        "'address rekey --drop-older'"
    )


def _undo(args: Args, *, redo: bool) -> int:
    """Bring back what restores have put aside, or with `redo` what undos have."""
    name = "--redo" if redo else "--undo"
    if redo and args.flag("--undo"):
        raise args.usage_error("--undo and --redo do not go together")
    for option in ("--as", "--at", "--revision", "--into"):
        if args.text(option) is not None:
            raise args.usage_error(f"{option} does not go with {name}")
    if args.maybe("BACKUP") is not None:
        raise args.usage_error(f"{name} takes no backup: it brings back what the last restore has put aside")
    user, cursor = args.text("--user"), args.text("--cursor")
    if cursor is not None and user is None:
        raise args.usage_error("--cursor goes with --user")
    place = Place(args)
    place.check_is_outside()
    place.allow_scope(ADMIN, user, cursor)
    work = place.work()
    addresses = work.undoable(user, cursor, redo=redo)
    if not addresses:
        raise NotFoundError(_nothing_kept(user, cursor, redo=redo))
    if not args.flag("--yes") and not _agreed(
        addresses, f"with what they held before their {'undo' if redo else 'restore'}"
    ):
        return ERROR
    done: list[str] = []
    failed = 0
    for address in addresses:
        try:
            work.undo_restore(address, redo=redo)
        except ProntoError as error:
            failed += 1
            output.error(told(error))
        else:
            done.append(str(address))
    if args.flag("--json"):
        output.json_line({"redone" if redo else "undone": done})
    else:
        for line in done:
            output.line(line)
    said = f"{'redone' if redo else 'undone'} at {counted(len(done), 'address', 'addresses')}"
    further = "" if user is None else ", --undo again goes one restore further back"
    output.note(said if redo else f"{said}; --redo takes it back{further}")
    return ERROR if failed else DONE

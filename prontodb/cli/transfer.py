"""export and import: entries as JSON lines."""

from __future__ import annotations

import os

from prontodb.cli import output
from prontodb.cli.data import exists_already
from prontodb.cli.environment import Place, address
from prontodb.cli.output import DONE
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.piping import stdin
from prontodb.direct import run
from prontodb.errors import InvalidInputError, RevisionConflictError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from prontodb.keystore import Keystore

SYNTAX = {
    "export": Syntax(
        ("[PREFIX]",),
        ("--prefix",),
        about=(
            "Prints the entries whose keys begin with PREFIX, or all, as JSON lines with their "
            "expiry, between a first line that says what it is and a last one with the count."
        ),
        examples=(
            ("prontodb --user agent1 export > agent1.jsonl", "everything agent1 has at its default cursor"),
            ("prontodb export app. | prontodb --user b import", "one project, to somebody else"),
        ),
    ),
    "import": Syntax(
        ("[FILE]",),
        ("--on-conflict",),
        about=(
            "Stores the entries in FILE, or in what is piped in: an export, or JSON objects with key "
            "and value, one a line. All lines are checked before any is written. --on-conflict says "
            "what happens to keys that are there: fail (the default: nothing is written), keep or "
            "replace. Makes the address when it does not exist."
        ),
        examples=(
            ("prontodb --user agent2 import agent1.jsonl", "the same entries at another address"),
            ("prontodb import --on-conflict keep < more.jsonl", "only what is not there yet"),
        ),
    ),
}


def do_export(args: Args) -> int:
    """Print entries as JSON lines."""
    place, where = Place(args), address(args)
    word, option = args.maybe("PREFIX"), args.text("--prefix")
    if word is not None and option is not None:
        raise args.usage_error("give the prefix once: as a word, or with --prefix")
    shot = place.one_shot(where)
    with shot as keystore:
        run(_print_lines(keystore, word or option or ""))
        if not shot.exists():
            output.note(f"no address {where}; the export is empty")
    return DONE


async def _print_lines(keystore: Keystore, prefix: str) -> None:
    from prontodb.transfer import export_lines

    async for line in export_lines(keystore, prefix):
        output.line(line)


def do_import(args: Args) -> int:
    """Store entries from JSON lines."""
    from prontodb.transfer import import_file

    place, where = Place(args), address(args)
    on_conflict = args.text("--on-conflict") or "fail"
    path = args.maybe("FILE")
    if path is None and stdin().isatty():
        raise args.usage_error("import needs FILE, or something piped in")
    file = stdin() if path in (None, "-") else _opened(str(path))
    try:
        with place.one_shot(where) as keystore:
            report = run(import_file(keystore, file, on_conflict=on_conflict))
    except RevisionConflictError as error:
        raise exists_already(error.key, where, "imported") from None
    finally:
        if path not in (None, "-"):
            file.close()
    if args.flag("--json"):
        output.json_line({"imported": report.imported, "kept": report.kept, "expired": report.expired})
    left_out = f", left out {report.expired:,} that have expired" if report.expired else ""
    output.note(f"imported {report.imported:,}, kept {report.kept:,}{left_out} at {where}")
    return DONE


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise InvalidInputError(f"cannot read {shown(path)}: {reason}") from error

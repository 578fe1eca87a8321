"""session: who is at which address now, and how to get them out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prontodb.cli import output, tables
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import duration_text
from prontodb.errors import SessionNotFoundError, shown
from prontodb.model.access import ADMIN

if TYPE_CHECKING:
    from prontodb.session.book import SessionBook, SessionReport

HEAD = ("session", "address", "mode", "pid", "for", "program", "host")

SYNTAX = {
    "session list": Syntax(
        about=(
            "Prints the sessions there are now, of all processes, one a line: id, address, mode, pid, how "
            "long, program, host; in columns on a terminal, else with tabs between. A session lives as long "
            "as its lock is held; what dead ones left is cleared away. Where access rules are in force: those at "
            "addresses where the caller has any right."
        ),
        examples=(
            ("prontodb session list", "who is where"),
            ("prontodb session list --json", "with process start, boot, labels, epoch, last seen"),
        ),
    ),
    "session show": Syntax(
        ("SESSION",),
        about="Prints what is known of one session, a line each.",
        examples=(("prontodb session show s-1b1f346e8e00a9e154c7", "name: value lines"),),
    ),
    "session end": Syntax(
        ("SESSION",),
        ("--force", "--kill", "--wait"),
        about=(
            "Asks a session to end; its owner looks once a second and closes it in order. With --force its "
            "address is taken away from it: what it still writes is refused by the store, also when it was "
            "stopped and goes on later. With --force --kill its process is killed, after making sure that "
            "the pid is still the same process. --wait SECONDS is how long to try (the setting wait_s)."
        ),
        examples=(
            ("prontodb session end s-1b1f346e8e00a9e154c7", "ask"),
            ("prontodb session end s-1b1f346e8e00a9e154c7 --force", "take its address away"),
        ),
    ),
}


def _tell_notes(book: SessionBook) -> None:
    for note in book.notes:
        output.note(note)
    book.notes.clear()


def do_session_list(args: Args) -> int:
    """List all sessions."""
    place = Place(args)
    book, seen = place.sessions(), place.seen()
    found = [session for session in book.list() if seen(session.address)]
    if args.flag("--json"):
        for session in found:
            output.json_line(session.as_dict())
    else:
        tables.show(HEAD, [_row(session) for session in found])
    if not found:
        output.note("no sessions")
    if place.caller is None:
        _tell_notes(book)
    return DONE


def _row(session: SessionReport) -> tuple[str, ...]:
    return (
        session.id,
        str(session.address),
        session.mode,
        "?" if session.pid is None else str(session.pid),
        "?" if session.started_at_ms is None else lasted(time.time() - session.started_at_ms / 1_000),
        output.escaped(session.program),
        output.escaped(session.host),
    )


def lasted(seconds: float) -> str:
    """Return a length of time in its largest unit, for a narrow column: 7s, 12m, 5h, 3d."""
    return "".join(duration_text(int(seconds)).split(" ")[:2])


def _known(place: Place, book: SessionBook, session: str) -> SessionReport:
    """Return a session that the caller may know of; else it has ended or never was."""
    seen, found = place.seen(), book.find(session)
    if not seen(found.address):
        raise SessionNotFoundError(session)
    return found


def do_session_show(args: Args) -> int:
    """Describe one session."""
    place = Place(args)
    book = place.sessions()
    fields = _known(place, book, args.word("SESSION")).as_dict()
    if args.flag("--json"):
        output.json_line(fields)
    else:
        for name, value in fields.items():
            output.line(f"{name}: {'' if value is None else output.escaped(str(value))}")
    _tell_notes(book)
    return DONE


def do_session_end(args: Args) -> int:
    """End one session."""
    force, kill = args.flag("--force"), args.flag("--kill")
    if kill and not force:
        raise args.usage_error("--kill goes with --force")
    wait_s = args.seconds("--wait", or_zero=True)
    place = Place(args)
    book = place.sessions()
    if place.caller is not None:
        place.allow(ADMIN, _known(place, book, args.word("SESSION")).address)
    ended = book.end(args.word("SESSION"), force=force, kill=kill, wait_s=wait_s)
    how = "killed" if kill else "put out" if force else "ended"
    output.note(f"{how}: {ended.mode} session {ended.id} at {ended.address}, pid {ended.pid} {shown(ended.program)}")
    _tell_notes(book)
    return DONE

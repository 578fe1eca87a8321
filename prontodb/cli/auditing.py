"""audit: whether the journals are as they were written, what they say, and what they are held against."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from prontodb.audit.denied import DeniedLog, fields_of
from prontodb.audit.trail import wanted_records
from prontodb.cli import environment, output, tables
from prontodb.cli.backups import run
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.cli.progress import duration_text
from prontodb.cli.tables import counted
from prontodb.errors import DeniedError, ProntoError
from prontodb.model.access import ADMIN, EVERYWHERE, READ, check_pattern
from prontodb.model.address import Address
from prontodb.model.clock import Clock
from prontodb.model.layout import Layout
from prontodb.model.moments import text_of
from prontodb.registry import configuration

if TYPE_CHECKING:
    from prontodb.audit.report import AddressAudit, AuditRecord, AuditReport

LIMIT = 100
MAX_DIGITS = 18
"""Of a revision: it fits SQLite's integers."""

SYNTAX = {
    "audit verify": Syntax(
        ("[ADDRESS]",),
        about=(
            "Tests the journal of one address, or of all: every record against the one before it, what it leads to "
            "against the anchors (left in the registry when a session ends, and in every backup), and every entry "
            "against its last record. Prints a line per finding, the first bad record of each address, and exits 1 "
            "when there is any; what is sound is told on stderr. Where nothing is found it leaves an anchor. No writer "
            "waits for it."
        ),
        examples=(
            ("prontodb audit verify", "all addresses"),
            ("prontodb audit verify agent1/prod --json", "for programs"),
        ),
    ),
    "audit show": Syntax(
        ("[ADDRESS]",),
        ("--key", "--session", "--since", "--limit", "--denied"),
        about=(
            f"Prints the last {LIMIT} changes of an address (--limit N), the newest last: revision, moment, session, "
            "what was done, key, digest of the value, expiry; never a value. --since is a revision or a moment. With "
            "--denied the calls that were denied or refused instead, of all addresses, as far as they were logged."
        ),
        examples=(
            ("prontodb audit show agent1/prod --key app.config.theme", "who changed that key"),
            ("prontodb audit show --session s-1b1f346e8e00a9e154c7 --json", "what one session did"),
            ("prontodb audit show --since 2026-11-21T10:00:00Z --limit 1000", "since then"),
        ),
    ),
    "audit anchors": Syntax(
        ("[ADDRESS]",),
        about=(
            "Prints the anchors: at which revision each history stood and with which chain, when, and who says so (a "
            "session that ended, a restore, a verification, a backup). Keep a copy of them on another machine, and "
            "nobody with this one can rewrite what came before."
        ),
        examples=(("prontodb audit anchors agent1/prod --json", "for a copy elsewhere"),),
    ),
    "audit accept": Syntax(
        ("ADDRESS",),
        ("--yes",),
        about=(
            "Takes what lies at an address now for right, after a keystore was put there by hand on purpose: forgets "
            "what the registry knew of the address and leaves an anchor. Asks on a terminal; elsewhere needs --yes."
        ),
        examples=(("prontodb audit accept agent1/prod --yes", "from now on this is it"),),
    ),
}


def _one(args: Args) -> Address | None:
    """Return the address that is named, as a word or with --user; None for all."""
    word = args.maybe("ADDRESS")
    given = args.text("--user") is not None or args.text("--cursor") is not None
    if word is not None and given:
        raise args.usage_error("give the address once: as a word, or with --user and --cursor")
    if word is not None:
        return Address.parse(word)
    return environment.address(args) if given else None


# verify


def do_audit_verify(args: Args) -> int:
    """Test journals."""
    one = _one(args)
    place = Place(args)
    place.allow(READ, one or EVERYWHERE)
    report = run(place.work().audits.verify([] if one is None else [one]), args, "addresses", "audit")
    for audit in report.addresses:
        if args.flag("--json"):
            output.json_line(audit.as_dict())
        for finding in () if args.flag("--json") else audit.findings:
            output.line(f"{audit.address}: {output.escaped(finding.what)}")
        for note in audit.notes:
            output.note(f"{audit.address}: {note}")
    for address, reason in report.failed:
        output.error(f"{address} could not be looked at: {reason}")
    for note in report.notes:
        output.note(note)
    _tell(report)
    return DONE if report.is_sound else ERROR


def _tell(report: AuditReport) -> None:
    found = sum(not one.is_sound for one in report.addresses)
    records, entries = (sum(getattr(one, name) for one in report.addresses) for name in ("records", "entries"))
    many = counted(len(report.addresses), "address", "addresses")
    ending = "; ".join(_endings(report, found))
    output.note(
        f"{counted(records, 'record')} and {counted(entries, 'entry', 'entries')} of {many} in "
        f"{duration_text(report.seconds)}: {ending}"
    )
    for audit in report.addresses if len(report.addresses) == 1 else ():
        if audit.is_sound:
            output.note(_reach(audit))
    since = sum(one.since_anchor for one in report.addresses if one.is_sound)
    if since:
        forged = sum(one.since_anchor for one in report.addresses if one.is_sound and not one.keyed)
        without = " without a key, so that they could also be forged" if forged else ""
        output.note(
            f"{counted(since, 'record')} since the last anchors: chained{without}, and could be cut off by somebody "
            "who can write the files"
        )


def _endings(report: AuditReport, found: int) -> list[str]:
    """Say how it ended: of nothing that could not be looked at, and that nothing vouches for, that all is well."""
    endings = [f"something was found at {found:,} of them"] if found else []
    if report.failed:
        endings.append(f"{counted(len(report.failed), 'address', 'addresses')} could not be looked at")
    short = [one for one in report.addresses if one.is_sound and not one.reaches_all]
    if short:
        older = counted(sum(one.unseen for one in short), "entry", "entries")
        where = f" at {counted(len(short), 'address', 'addresses')}" if len(report.addresses) > 1 else ""
        endings.append(
            f"as they were written as far back as the journal reaches{where}: nothing vouches for {older} of before, "
            "nor that no other is missing"
        )
    if report.failed and len(report.addresses) > found + len(short):
        endings.append("the others are as they were written")
    return endings or ["all as they were written"]


def _reach(audit: AddressAudit) -> str:
    if audit.anchor is None:
        return f"no anchor vouched for {audit.address} before now"
    anchor = audit.anchor
    return f"held against the anchor of {text_of(anchor.at_ms)} at revision {anchor.revision:,} ({anchor.source})"


# show

HEAD = ("revision", "moment", "session", "action", "key", "digest", "expires")


def do_audit_show(args: Args) -> int:
    """Print records."""
    limit = args.count("--limit") or LIMIT
    if args.flag("--denied"):
        return _show_denied(args, limit)
    text = args.text("--since")
    is_revision = text is not None and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    since = int(text) if text is not None and is_revision else text
    wanted = wanted_records(key=args.text("--key"), session=args.text("--session"), since=since, limit=limit)
    place, where = Place(args), _one(args) or environment.address(args)
    place.allow(READ, where)
    found, more = place.work().audits.records(where, wanted)
    if args.flag("--json"):
        for record in found:
            output.json_line(asdict(record))
    else:
        tables.show(HEAD, [_row(record) for record in found])
    if more:
        output.note(f"the last {limit:,}; there are more, see --limit and --since")
    return DONE


def _row(record: AuditRecord) -> tuple[str, ...]:
    return (
        str(record.revision),
        text_of(record.at_ms),
        output.escaped(record.session),
        output.escaped(record.action),
        output.escaped(record.key),
        output.escaped(record.digest or "-"),
        text_of(record.expires_at_ms),
    )


DENIED_HEAD = ("moment", "principal", "session", "address", "operation", "key", "error")


def _show_denied(args: Args, limit: int) -> int:
    for option in ("--key", "--session", "--since"):
        if args.text(option) is not None:
            raise args.usage_error(f"{option} does not go with --denied")
    place = Place(args)
    place.allow(ADMIN)
    lines = DeniedLog(place.layout, Clock()).lines(limit)
    if args.flag("--json"):
        for line in lines:
            output.json_line(line)
        return DONE
    rows = []
    for line in lines:
        at_ms = line.get("at_ms")
        said = (output.escaped(str(line.get(name, "-"))) for name in DENIED_HEAD[1:])
        rows.append((text_of(at_ms if isinstance(at_ms, int) else None), *said))
    tables.show(DENIED_HEAD, rows)
    return DONE


def log_denied(args: Args, error: ProntoError) -> None:
    """Log a command that was denied, or refused by its keystore; nothing of it matters enough to fail for."""
    try:
        layout, word = Layout(environment.root(args)), args.maybe("ADDRESS")
        named = environment.address(args) if word is None else _spelt(word)
        who, where = environment.principal(args), None
        if isinstance(error, DeniedError):
            # What it says itself is what was asked; a token's chain stands in the place of a name.
            who, where = error.principal if error.by_token else error.principal or who, error.address
        address = where or named
        session = os.environ.get("PRONTODB_SESSION", "").partition(":")[0] or None
        fields = fields_of(error, args.command, args.maybe("PATH"))
        configuration.load(layout)  # a wrong settings file stops every command, and is no refusal of any
    except (ProntoError, OSError):
        return
    DeniedLog(layout, Clock()).record(principal=who, session=session, address=address, **fields)


def _spelt(word: str) -> str:
    """Return an address, or a pattern of some, as it is spelt in full."""
    return check_pattern(word) if "*" in word else str(Address.parse(word))


# anchors, accept


def do_audit_anchors(args: Args) -> int:
    """Print anchors."""
    place, one = Place(args), _one(args)
    place.check_is_outside()
    place.allow(READ, one or EVERYWHERE)
    for anchor in place.work().audits.anchors(one):
        fields = {"address": str(anchor.address), "revision": anchor.mark.revision, "chain": anchor.mark.chain}
        more = {"incarnation": anchor.mark.incarnation, "at_ms": anchor.at_ms, "by": anchor.by}
        if args.flag("--json"):
            output.json_line(fields | more)
        else:
            moment = text_of(anchor.at_ms)
            output.line("\t".join((*map(str, fields.values()), moment, output.escaped(anchor.by))))
    return DONE


def do_audit_accept(args: Args) -> int:
    """Take what lies at an address for right."""
    address = Address.parse(args.word("ADDRESS"))
    place = Place(args)
    place.check_is_outside()
    place.allow(ADMIN, address)
    work = place.work()
    if not args.flag("--yes"):
        answer = output.ask(f"forget what is known of the history of {address}, and take it as it is now? [y/N] ")
        if answer.lower() not in ("y", "yes"):
            output.error(f"nothing was changed for {address}; that needs an answer of y, or --yes")
            return ERROR
    anchor = work.audits.accept(address)
    what = "nothing lies there" if anchor is None else f"it stands at revision {anchor.mark.revision:,}"
    output.note(f"{address} is taken as it is now: {what}")
    return DONE

"""address and cursor: which addresses there are, and their whole life."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.environment import Place, address
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.engine.sqlite import belonging, ciphers
from prontodb.errors import AddressNotFoundError, shown
from prontodb.model.access import ADMIN, READ
from prontodb.model.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.addresses import AddressBook

_NAMES = "An address is written user/cursor; user alone is its default cursor, _default."

SYNTAX = {
    "address list": Syntax(
        about=(
            "Prints all addresses of this root, one a line; --json adds state, size and time of "
            "creation. Those that are missing (their folder vanished) or damaged are named on stderr. Where access "
            "rules are in force: those where the caller has any right."
        ),
        examples=(
            ("prontodb address list", "agent1/prod, ..."),
            ("prontodb address list --json", "for programs"),
        ),
    ),
    "address show": Syntax(
        ("[ADDRESS]",),
        about=f"Prints what one address holds: entries, revision, sizes, lifetimes, and who is there now. {_NAMES}",
        examples=(("prontodb address show agent1/prod", "name: value lines"),),
    ),
    "address create": Syntax(
        ("ADDRESS",),
        ("--encrypt",),
        about=(
            "Makes an empty address; one that exists stays as it is. Storing makes it too. With --encrypt, or where "
            f"the setting encrypt_new says so, it is encrypted from the beginning. {_NAMES}"
        ),
        examples=(
            ("prontodb address create agent1/prod", "ready for its first value"),
            ("PRONTODB_KEY_FILE=~/.config/prontodb.key prontodb address create agent1/vault --encrypt", "encrypted"),
        ),
    ),
    "address rename": Syntax(
        ("OLD", "NEW"),
        about=f"Gives an address another name; its entries and their history stay. {_NAMES}",
        examples=(("prontodb address rename agent1/prod agent1/2024", "keep last year's under another name"),),
    ),
    "address delete": Syntax(
        ("ADDRESS",),
        ("--yes",),
        about=(
            "Deletes an address and all it holds. Asks on a terminal; elsewhere it needs --yes. The key record of an "
            "encrypted one is destroyed first: nothing can read its backups any more, nor what is left of it on the "
            f"disk; exported copies of the record, and unencrypted copies, are not covered. {_NAMES}"
        ),
        examples=(("prontodb address delete agent1/test --yes", "gone"),),
    ),
    "address history": Syntax(
        ("[ADDRESS]", "on|off"),
        about=(
            "Has the journal of an address keep the values of what is set from now on, or no longer. Then restore --at "
            "and --revision reach every commit, and not only what a backup has seen. Each value takes room once more, "
            "until the journal is pruned (the settings journal_days and journal_records)."
        ),
        examples=(
            ("prontodb address history agent1/prod on", "from now on"),
            ("prontodb restore --user agent1 --cursor prod --revision 1234", "the state after that change"),
        ),
    ),
    "address check": Syntax(
        ("[ADDRESS]",),
        ("--deep",),
        about=(
            "Looks for damage at one address; --deep reads every entry and tests its checksum. Prints "
            f"a line per problem and exits 1 when there is one. {_NAMES}"
        ),
        examples=(("prontodb address check agent1/prod --deep", "test everything"),),
    ),
    "cursor list": Syntax(
        about="Prints the cursors of the user (--user, PRONTODB_USER or _default), one a line.",
        examples=(("prontodb --user agent1 cursor list", "prod, staging, ..."),),
    ),
    "cursor active": Syntax(
        about="Prints the address that commands act on, as user/cursor; nothing is remembered between them.",
        examples=(("PRONTODB_USER=agent1 prontodb cursor active", "agent1/_default"),),
    ),
}


def _book(place: Place) -> AddressBook:
    from prontodb.addresses import AddressBook
    from prontodb.registry.addresses import AddressRegistry

    limits = place.limits
    registry = AddressRegistry(place.layout, wait_s=limits.wait_s, one_shot=True)
    return AddressBook(place.layout, place.lifecycle(), registry, wait_s=limits.wait_s, limits=limits)


def _tell_notes(book: AddressBook) -> None:
    for note in book.notes:
        output.note(note)
    book.notes.clear()


def _wanted(args: Args, name: str = "ADDRESS") -> Address:
    """Return the address named as a word; where it may be left out, the one that commands act on."""
    word = args.maybe(name)
    if word is None:
        return address(args)
    if args.text("--user") is not None or args.text("--cursor") is not None:
        raise args.usage_error("give the address once: as a word, or with --user and --cursor")
    return Address.parse(word)


def do_address_history(args: Args) -> int:
    """Have an address keep its history, or not."""
    word = args.word("on|off")
    if word not in ("on", "off"):
        raise args.usage_error(f"history is on or off, not {shown(word)}")
    place, wanted = Place(args), _wanted(args)
    place.allow(ADMIN, wanted)
    place.lifecycle().keep_history(wanted, word == "on")
    output.note(f"{wanted} {'keeps' if word == 'on' else 'no longer keeps'} the values of what is set from now on")
    return DONE


def do_address_list(args: Args) -> int:
    """List all addresses."""
    place = Place(args)
    book, seen = _book(place), place.seen()
    for row in book.list():
        if not seen(row.address):
            continue
        if args.flag("--json"):
            output.json_line(row.as_dict())
        else:
            output.line(str(row.address))
        if row.state != "active":
            output.note(f"{row.address} is {row.state}; 'prontodb doctor' says more")
    if place.caller is None:
        _tell_notes(book)
    return DONE


def do_cursor_list(args: Args) -> int:
    """List the cursors of one user."""
    place, user = Place(args), address(args).user
    book, seen = _book(place), place.seen()
    for row in book.list():
        if row.address.user == user and seen(row.address):
            if args.flag("--json"):
                output.json_line(row.as_dict())
            else:
                output.line(row.address.cursor)
    if place.caller is None:
        _tell_notes(book)
    return DONE


def do_cursor_active(args: Args) -> int:
    """Print the address that commands act on."""
    where = address(args)
    if args.flag("--json"):
        output.json_line({"user": where.user, "cursor": where.cursor})
    else:
        output.line(str(where))
    return DONE


def do_address_show(args: Args) -> int:
    """Describe one address."""
    where = _wanted(args)
    place = Place(args)
    place.allow(READ, where)
    book, sessions = _book(place), place.sessions()
    fields, present = book.describe(where).as_dict(), sessions.at(where)
    if args.flag("--json"):
        output.json_line(fields | {"sessions": [session.as_dict() for session in present]})
    else:
        for name, value in fields.items():
            output.line(f"{name}: {_plain(value)}")
        output.line(f"sessions: {len(present)}")
        for session in present:
            output.line(f"session: {output.escaped(str(session))}")
    for note in sessions.notes:
        output.note(note)
    _tell_notes(book)
    return DONE


def _plain(value: object) -> str:
    if isinstance(value, dict):
        value = {name: _used(inner) if isinstance(inner, dict) else inner for name, inner in value.items()}
        return ", ".join(f"{name or 'default'}={inner}" for name, inner in value.items()) or "none"
    return "none" if value is None else output.escaped(str(value))


def _used(quota: dict[str, object]) -> str:
    used = f"{quota['used']} of " if "used" in quota else ""
    return f"{used}{quota['allowed']}{' (near)' if quota.get('near') else ''}"


def do_address_create(args: Args) -> int:
    """Make an empty address."""
    where, place = _wanted(args), Place(args)
    place.allow(ADMIN, where)
    sealed = args.flag("--encrypt")
    if not place.lifecycle().create(where, encrypted=sealed or None):
        hint = f"; to encrypt it: prontodb address encrypt {where}" if sealed else ""
        output.note(f"address {where} exists already{hint}")
    return DONE


def do_address_rename(args: Args) -> int:
    """Give an address another name."""
    place, old, new = Place(args), Address.parse(args.word("OLD")), Address.parse(args.word("NEW"))
    for where in (old, new):
        place.allow(ADMIN, where)
    place.lifecycle().rename(old, new)
    return DONE


def do_address_delete(args: Args) -> int:
    """Delete an address."""
    where, place = _wanted(args), Place(args)
    place.allow(ADMIN, where)
    book = _book(place)
    records, sealed = belonging.records_of(place.layout, where), belonging.is_encrypted(place.layout, where)
    if not args.flag("--yes"):
        more = ", and make its backups unreadable by destroying its key record" if records else ""
        answer = output.ask(f"delete address {where} and all it holds{more}? [y/N] ")
        if answer.lower() not in ("y", "yes"):
            output.error(f"address {where} was not deleted; that needs an answer of y, or --yes")
            return ERROR
    if not book.delete(where):
        raise AddressNotFoundError(where)
    for record in records:
        if ciphers.keys_of(place.layout).has(record):
            output.note(f"key record {record} of {where} stays: another address names it, see 'prontodb doctor'")
        else:
            output.note(f"key record {record} of {where} is destroyed: nothing can read backups of it any more")
    if sealed and not records:
        output.note(f"{where} was encrypted, and no key record here says that it is its: none was destroyed")
    _tell_notes(book)
    return DONE


def do_address_check(args: Args) -> int:
    """Look for damage at one address."""
    where, place = _wanted(args), Place(args)
    place.allow(READ, where)
    book = _book(place)
    problems = book.check(where, deep=args.flag("--deep"))
    for problem in problems:
        if args.flag("--json"):
            output.json_line({"address": str(where), "problem": problem})
        else:
            output.line(output.escaped(problem))
    _tell_notes(book)
    if not problems:
        output.note(f"{where} is sound")
    return ERROR if problems else DONE

"""set, get, del, incr, cas: one entry at a time."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.environment import Place, address
from prontodb.cli.output import DONE, ERROR, MISS
from prontodb.cli.parsing import PATH, Args, Syntax
from prontodb.direct import run
from prontodb.errors import ConflictError, InvalidInputError, shown
from prontodb.model.operation import WRITE

SYNTAX = {
    "set": Syntax(
        ("PATH", "[VALUE]"),
        (*PATH, "--stdin", "--ttl"),
        about=(
            "Stores VALUE under PATH. Without VALUE it stores what is piped in, every byte of it, a "
            "last newline included; --stdin reads a terminal or device too. stdin is never read when "
            "VALUE is given. The address is made when it does not exist. Without --ttl the entry "
            "takes its namespace's default lifetime (create-cache), or lives for ever; --ttl never "
            "lets it live for ever whatever the namespace says. What is piped at a path that cannot "
            "be used is kept for 15 minutes under pipe.cache.*; stderr says where."
        ),
        examples=(
            ("prontodb set app.config.theme dark", "project app, namespace config, key theme"),
            ("prontodb set session.token abc --ttl 15m", "gone after 15 minutes"),
            ("prontodb set app.notes.today < notes.txt", "a file, byte for byte"),
            ("prontodb set app.flags.level -- -v", "a value that begins with a dash"),
            (
                "prontodb --user agent1 --cursor prod set app.config value",
                "at another address, this time only",
            ),
        ),
    ),
    "get": Syntax(
        ("PATH",),
        PATH,
        about=(
            "Prints the value exactly as stored; a newline is added only when stdout is a terminal, "
            "so that 'prontodb get a | prontodb set b' and 'prontodb get a > file' keep every byte. "
            "Exit 2 and nothing on stdout when the key is absent or expired. --json adds revision and "
            "times. A key that is really called help is read with: prontodb get -- help"
        ),
        examples=(
            ("prontodb get app.config.theme", "print it"),
            ("value=$(prontodb get app.config.theme) || echo none", "in a script"),
            ("prontodb get --raw 'any key.at all'", "a library key as it is"),
            ("prontodb get -p app -n config theme --json", "parts by option, all that is known of the entry"),
        ),
    ),
    "del": Syntax(
        ("PATH...",),
        PATH,
        about="Deletes entries, several all or none. An absent one is no error, and nothing is made for it.",
        examples=(
            ("prontodb del app.config.theme", "delete one"),
            ("prontodb del a b c", "delete three in one step"),
        ),
    ),
    "incr": Syntax(
        ("PATH", "[N]"),
        PATH,
        about=(
            "Adds N (1 when left out, may be negative) to the whole number stored at PATH and prints "
            "the sum. An absent key counts as 0; an entry that exists keeps its expiry. Exact between "
            "processes."
        ),
        examples=(
            ("prontodb incr app.stats.runs", "count up"),
            ("prontodb incr app.stats.left -5", "count down by five"),
        ),
    ),
    "cas": Syntax(
        ("PATH", "[EXPECTED]", "VALUE"),
        (*PATH, "--absent", "--ttl"),
        about=(
            "Sets PATH to VALUE only if it holds EXPECTED now, in one step; with --absent, only if "
            "there is no such entry. Exit 1 when it does not, and nothing is written."
        ),
        examples=(
            ("prontodb cas app.job.state idle running", "take the job, if nobody has"),
            ("prontodb cas app.job.owner --absent agent1 --ttl 1h", "the first one gets it"),
        ),
    ),
}
SYNTAX["delete"] = SYNTAX["del"]


def do_get(args: Args) -> int:
    """Print the value of a key."""
    place, where = Place(args), address(args)
    key = place.key(args, args.word("PATH"))
    shot = place.one_shot(where)
    with shot as keystore:
        entry = run(keystore.entry(key))
        known = entry is not None or shot.exists()
    if entry is None:
        return missed(key if known else None, where)
    if args.flag("--json"):
        output.json_line(entry_fields(entry))
    else:
        output.write(entry.value.encode())
        if output.on_terminal():
            output.write(b"\n")
    return DONE


def missed(key: str | None, where: object) -> int:
    """Say that a key, or with None the whole address, does not exist."""
    if key is None:
        output.note(f"no address {where}")
    else:
        output.note(f"no key {shown(key)} at {where}")
    return MISS


def exists_already(key: str, where: object, done: str) -> ConflictError:
    """Return what to raise when nothing was `done` since one of many keys is there already."""
    return ConflictError(
        f"key {shown(key)} exists already at {where}; nothing was {done} "
        "(--on-conflict keep leaves such keys, --on-conflict replace writes over them)"
    )


def entry_fields(entry: object) -> dict[str, object]:
    """Return an entry as JSON-able fields; moments as ISO 8601 in UTC."""
    from prontodb.model.entry import Entry

    assert isinstance(entry, Entry)
    expires_at = entry.expires_at
    return {
        "key": entry.key,
        "value": entry.value,
        "revision": entry.revision,
        "created_at": entry.created_at.isoformat(timespec="milliseconds"),
        "updated_at": entry.updated_at.isoformat(timespec="milliseconds"),
        "expires_at": None if expires_at is None else expires_at.isoformat(timespec="milliseconds"),
    }


def do_set(args: Args) -> int:
    """Store a value."""
    from prontodb.cli import piping
    from prontodb.model.ttl import lifetime_ms

    place, where = Place(args), address(args)
    value, ttl = args.maybe("VALUE"), args.text("--ttl")
    if value is not None and args.flag("--stdin"):
        raise args.usage_error("give the value as an argument or with --stdin, not both")
    piped = value is None
    if value is None:
        value = piping.read_value(args, place.limits.max_value_bytes)
    shot = place.one_shot(where)
    try:
        key = place.key(args, args.word("PATH"))
        lifetime_ms(ttl)
    except InvalidInputError as error:
        if piped and value:
            piping.rescue(args, shot, value, str(error))
        raise
    with shot as keystore:
        run(keystore.set(key, value, ttl=ttl))
    return DONE


def do_del(args: Args) -> int:
    """Delete entries."""
    place, where = Place(args), address(args)
    keys = [place.key(args, path) for path in args.words("PATH")]
    # A look before the write: deleting at an address that does not exist must not make it, nor a lock for it.
    shot = place.one_shot(where, create=False)
    with shot as keystore:
        shot.allow(WRITE, keys)
        if not shot.exists():
            output.note(f"no address {where}; nothing to delete")
        elif not run(keystore.delete_many(keys)):
            output.note(f"nothing to delete: no key {', '.join(shown(key) for key in keys[:5])} at {where}")
    return DONE


def do_incr(args: Args) -> int:
    """Add to a whole number and print the sum."""
    place, where = Place(args), address(args)
    key = place.key(args, args.word("PATH"))
    by = _whole_number(args, args.maybe("N"))
    with place.one_shot(where) as keystore:
        total = run(keystore.increment(key, by))
    if args.flag("--json"):
        output.json_line({"key": key, "value": total})
    else:
        output.line(str(total))
    return DONE


def _whole_number(args: Args, text: str | None) -> int:
    if text is None:
        return 1
    digits = text[1:] if text[:1] in "+-" else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise args.usage_error(f"N is a whole number such as 5 or -5, not {shown(text)}")
    return int(text)


def do_cas(args: Args) -> int:
    """Set a value if the present one is as expected."""
    place, where = Place(args), address(args)
    key = place.key(args, args.word("PATH"))
    expected = args.maybe("EXPECTED")
    if (expected is None) != args.flag("--absent"):
        raise args.usage_error("cas takes PATH EXPECTED VALUE, or PATH --absent VALUE")
    with place.one_shot(where) as keystore:
        done = run(keystore.compare_and_set(key, expected, args.word("VALUE"), ttl=args.text("--ttl")))
    if done:
        return DONE
    state = "exists already" if expected is None else "does not hold the expected value"
    output.error(f"key {shown(key)} {state}; nothing was written")
    return ERROR

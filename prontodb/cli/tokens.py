"""token: minted for an address, narrowed for a sub-agent, shown, revoked. A token is a secret and never an argument."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.environment import Place, layout, token
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.errors import InvalidInputError, shown
from prontodb.model.access import ADMIN, READ
from prontodb.model.address import Address
from prontodb.model.moments import text_of

_WHERE = (
    "The token comes from --token-file FILE ('-' is stdin), else from PRONTODB_TOKEN, else from what is piped in; "
    "never as an argument, which other users could read."
)
MAX_TOKEN_BYTES = 65_536

SYNTAX = {
    "token mint": Syntax(
        ("ADDRESS",),
        ("--prefix", "--rights", "--expires", "--by"),
        about=(
            "Prints a token: whoever holds it may do at ADDRESS what --rights say (read), with keys under --prefix "
            "(all), for --expires (1h). It is shown by PRONTODB_TOKEN or --token-file, and then stands in the place of "
            "all access rules. --by names who issues it (the principal): the journal has it beside each change. Takes "
            "admin at ADDRESS."
        ),
        examples=(
            ("prontodb token mint agent1/prod --rights read,write --by operator > agent1.token", "for an hour"),
            ("prontodb token mint agent1/prod --prefix app.jobs. --expires 10m --by operator", "part of it, read only"),
        ),
    ),
    "token narrow": Syntax(
        (),
        ("--prefix", "--rights", "--expires", "--by"),
        about=f"Prints a lesser token made of one, for a sub-agent. Offline: it needs no root and no key. {_WHERE}",
        examples=(
            ("prontodb token narrow --prefix app.jobs. --rights read --by planner", "of the one in PRONTODB_TOKEN"),
            ("prontodb token narrow --expires 5m < agent1.token", "the same for five minutes"),
        ),
    ),
    "token show": Syntax(
        about=f"Prints what a token allows, and whether it is valid at this root and why not (exit 1). {_WHERE}",
        examples=(("prontodb token show --token-file agent1.token", "address, prefix, rights, expires, by, valid"),),
    ),
    "token revoke": Syntax(
        ("ADDRESS",),
        about=(
            "Ends all tokens of an address at once, with all that were narrowed from them: writing by one is refused "
            "from then on, also in open sessions, reading within about a second. Takes admin at ADDRESS."
        ),
        examples=(("prontodb token revoke agent1/prod", "mint new ones for those who may go on"),),
    ),
}


def read_token(path: str) -> str:
    """Return the token in a file, or with '-' in stdin."""
    from prontodb.cli.piping import read_small

    data = read_small(path, MAX_TOKEN_BYTES + 1)
    text = data.decode("ascii", "replace").strip()
    if not text or len(data) > MAX_TOKEN_BYTES:
        raise InvalidInputError(f"{shown(path)} holds no token")
    return text


def _given(args: Args) -> str:
    found = token(args)
    if found is not None:
        return found
    from prontodb.cli.piping import is_piped

    if not is_piped():
        raise args.usage_error("a token is needed: set PRONTODB_TOKEN, give --token-file FILE, or pipe it in")
    return read_token("-")


def do_token_mint(args: Args) -> int:
    """Print a new token."""
    from prontodb import tokens
    from prontodb.model.clock import Clock

    place, where = Place(args), Address.parse(args.word("ADDRESS"))
    by = args.text("--by") or place.principal
    if by is None:
        raise args.usage_error("a token names who issues it: --by NAME, or --principal NAME")
    if place.caller is not None:
        place.caller.refuse_token("minting a token", where)
    place.allow(ADMIN, where)
    text = tokens.mint(
        place.layout,
        where,
        prefix=args.text("--prefix") or "",
        rights=args.text("--rights") or READ,
        expires=args.text("--expires") or tokens.DEFAULT_LIFETIME,
        by=by,
        limits=place.limits,
        clock=Clock(),
    )
    _print(args, text)
    return DONE


def _print(args: Args, text: str) -> None:
    if args.flag("--json"):
        output.json_line({"token": text, **_claimed(text)})
    else:
        output.line(text)


def _claimed(text: str) -> dict[str, object]:
    """Return what a token says of itself, valid or not."""
    from prontodb import tokens

    claims = tokens.describe(text)
    return {
        "address": None if claims.address is None else str(claims.address),
        "prefix": claims.prefix,
        "rights": list(claims.rights),
        "expires": None if claims.expires_at_ms is None else text_of(claims.expires_at_ms),
        "by": claims.issuers,
    }


def do_token_narrow(args: Args) -> int:
    """Print a lesser token."""
    from prontodb import tokens

    lesser = tokens.narrow(
        _given(args),
        prefix=args.text("--prefix"),
        rights=args.text("--rights"),
        expires=args.text("--expires"),
        by=args.text("--by"),
    )
    _print(args, lesser)
    return DONE


def do_token_show(args: Args) -> int:
    """Say what a token allows, and whether it is valid."""
    from prontodb import tokens
    from prontodb.model.clock import Clock

    text = _given(args)
    claimed, reason = _claimed(text), None
    try:
        tokens.verify(layout(args), text, Clock())
    except tokens.RefusedError as error:
        reason = str(error)
    facts = claimed | {"valid": reason is None, "reason": reason}
    if args.flag("--json"):
        output.json_line(facts)
    else:
        for name, value in facts.items():
            output.line(f"{name}: {output.escaped(_plain(value))}")
    return ERROR if reason is not None else DONE


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else "-" if value in (None, "") else str(value)


def do_token_revoke(args: Args) -> int:
    """End all tokens of an address."""
    from prontodb import tokens
    from prontodb.model.clock import Clock

    place, where = Place(args), Address.parse(args.word("ADDRESS"))
    place.allow(ADMIN, where)
    tokens.revoke(place.layout, where, limits=place.limits, clock=Clock())
    output.note(f"all tokens of {where} that were minted so far have ended")
    return DONE

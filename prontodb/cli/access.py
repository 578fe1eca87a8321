"""access: who may do what where, and why."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.environment import Place
from prontodb.cli.output import DONE, ERROR
from prontodb.cli.parsing import Args, Syntax
from prontodb.errors import shown
from prontodb.model.access import Grant, check_pattern, check_principal, check_rights
from prontodb.model.address import Address

_LIMIT = (
    "Access rules are kept by ProntoDB itself, for callers who say who they are: they guard against mistakes. They do "
    "not stop another process of the same operating-system user; an own user, an own encryption key or a sandboxed run "
    "does (ops/access.md)."
)
_GRANT = (
    "ADDRESSES is USER/CURSOR, where * stands for any name or for the end of one, or * alone for all; RIGHTS are read, "
    "write, admin, with commas between; --prefix TEXT keeps it to keys that begin with TEXT; PRINCIPAL * is everybody."
)

SYNTAX = {
    "access list": Syntax(
        about=f"Prints the grants, one a line; none means that everything is open to everybody.\n{_LIMIT}",
        examples=(("prontodb access list", "operator */* read,write,admin"),),
    ),
    "access add": Syntax(
        ("PRINCIPAL", "ADDRESSES", "RIGHTS"),
        ("--prefix",),
        about=(
            f"Gives a principal rights. {_GRANT} From the first grant on, nothing is allowed that no grant allows; so "
            "the first must give somebody admin on all addresses. Later ones take admin "
            "where the grant is for. Live processes go by it within about a second. "
            f"{_LIMIT}"
        ),
        examples=(
            ("prontodb access add operator '*' read,write,admin", "the first one"),
            ("prontodb --principal operator access add agent1 'agent1/*' read,write", "an agent's own addresses"),
            ("prontodb --principal operator access add '*' _global/config read --prefix public.", "for everybody"),
        ),
    ),
    "access remove": Syntax(
        ("PRINCIPAL", "ADDRESSES", "RIGHTS"),
        ("--prefix", "--yes"),
        about=(
            "Takes a grant away, written as access list prints it. It ends what open sessions may do by it within "
            "about a second. Removing the last grant opens everything to everybody: that takes --yes."
        ),
        examples=(("prontodb --principal operator access remove agent1 'agent1/*' read,write", "gone"),),
    ),
    "access explain": Syntax(
        ("OPERATION", "ADDRESS", "[KEY]"),
        ("--as",),
        about=(
            "Says whether a principal (--as, else --principal) may do something, and which grants decide. OPERATION is "
            "a method or command such as get, set, scan, watch, copy, backup, restore, delete, or a right; ADDRESS may "
            "be a pattern, * for all; KEY is the whole key, or what keys begin with for operations of many. Exit 1 "
            "when it is denied. Nothing is looked at but the rules."
        ),
        examples=(
            ("prontodb access explain --as agent1 set agent1/prod app.config.theme", "allowed, or why not"),
            ("prontodb access explain --as agent1 backup '*'", "may agent1 back up everything?"),
        ),
    ),
}


def do_access_list(args: Args) -> int:
    """Print the grants."""
    from prontodb.registry import grants

    found = grants.rules(Place(args).layout).grants
    for grant in found:
        if args.flag("--json"):
            output.json_line(grant.as_dict())
        else:
            prefix = f" --prefix {shown(grant.prefix)}" if grant.prefix else ""
            output.line(f"{grant.principal} {grant.addresses} {','.join(grant.rights)}{prefix}")
    if not found:
        output.note("no grant: everything is open to everybody who can read the root")
    return DONE


def _grant(args: Args) -> Grant:
    prefix = args.text("--prefix") or ""
    return Grant(args.word("PRINCIPAL"), args.word("ADDRESSES"), prefix, check_rights(args.word("RIGHTS")))


def _changer(args: Args, grant: Grant) -> Place:
    place = Place(args)
    if place.caller is not None:
        place.caller.refuse_token("changing the access rules", grant.addresses)
    return place


def do_access_add(args: Args) -> int:
    """Add a grant."""
    from prontodb.registry import grants

    grant = _grant(args)
    place = _changer(args, grant)
    if not grants.add(place.layout, grant, principal=place.principal, wait_s=place.limits.wait_s):
        output.note(f"that grant is there already: {grant}")
    return DONE


def do_access_remove(args: Args) -> int:
    """Take a grant away."""
    from prontodb.registry import grants

    grant = _grant(args)
    place = _changer(args, grant)
    last = args.flag("--yes")
    grants.remove(place.layout, grant, principal=place.principal, wait_s=place.limits.wait_s, last=last)
    if grants.rules(place.layout).are_open:
        output.note("no grant is left: everything is open to everybody who can read the root")
    return DONE


def do_access_explain(args: Args) -> int:
    """Say whether something is allowed, and why."""
    from prontodb.model.operations import KEY, OPERATIONS, PREFIX

    operation, key = args.word("OPERATION"), args.maybe("KEY")
    if operation not in OPERATIONS:
        raise args.usage_error(f"{shown(operation)} is no operation; there are {', '.join(sorted(OPERATIONS))}")
    rights, of = OPERATIONS[operation]
    if of == KEY and key is None:
        raise args.usage_error(f"{operation} is of one key: name it")
    if of not in (KEY, PREFIX) and key is not None:
        raise args.usage_error(f"{operation} is of whole addresses: leave the key out")
    place, where = Place(args), _place(args.word("ADDRESS"))
    decisions = [(right, *_decision(args, place, right, where, key or "")) for right in rights]
    allowed = all(good for _, good, _ in decisions)
    if args.flag("--json"):
        output.json_line(
            {
                "allowed": allowed,
                "operation": operation,
                "address": where,
                "key": key,
                "rights": [{"right": right, "allowed": good, "because": why} for right, good, why in decisions],
            }
        )
    else:
        output.line("allowed" if allowed else "denied")
        for right, good, why in decisions:
            output.line(f"{right}: {'yes' if good else 'no'}")
            for reason in why:
                output.line(f"  {output.escaped(reason)}")
    return DONE if allowed else ERROR


def _place(text: str) -> str:
    return check_pattern(text) if "*" in text else str(Address.parse(text))


def _decision(args: Args, place: Place, right: str, where: str, key: str) -> tuple[bool, list[str]]:
    """Return whether a right is had, and why; a token's where one is shown and nobody else is asked about."""
    named = args.text("--as")
    if named is None and place.token is not None and place.caller is not None:
        reach = place.caller.reach(where)
        allowed = key.startswith(reach.prefixes[right])
        return allowed, ["the token allows it" if allowed else f"the token does not allow it: {reach.reason}"]
    from prontodb.registry import grants

    principal = place.principal if named is None else check_principal(named)
    return grants.rules(place.layout).explained(principal, right, where, key)

"""ttl, persist, touch, create-cache: how long entries live."""

from __future__ import annotations

from math import ceil, isinf

from prontodb.cli import output
from prontodb.cli.data import missed
from prontodb.cli.environment import Place, address, namespace_of_scope
from prontodb.cli.output import DONE
from prontodb.cli.parsing import PATH, Args, Syntax
from prontodb.direct import run
from prontodb.model.ttl import NEVER, ttl_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from prontodb.keystore import Keystore

_TIMES = "TIME is seconds, or a number with ms, s, m, h, d or w: 90, 15m, 24h; at most 100 years."

SYNTAX = {
    "ttl": Syntax(
        ("PATH",),
        PATH,
        about=(
            "Prints the seconds an entry has left, rounded up, or 'never' when it does not expire. "
            "--json is exact. Exit 2 when the key is absent or expired."
        ),
        examples=(("prontodb ttl session.token", "897"),),
    ),
    "persist": Syntax(
        ("PATH",),
        PATH,
        about="Lets an entry live for ever. Exit 2 when the key is absent or expired.",
        examples=(("prontodb persist session.token", "it stays"),),
    ),
    "touch": Syntax(
        ("PATH",),
        (*PATH, "--ttl"),
        about=(
            "Begins an entry's lifetime anew: --ttl, else the default of its namespace, else as long "
            f"as it was last given. {_TIMES} Exit 2 when the key is absent or expired."
        ),
        examples=(
            ("prontodb touch session.token", "another 15 minutes, as it was given"),
            ("prontodb touch session.token --ttl 1h", "an hour from now"),
        ),
    ),
    "create-cache": Syntax(
        ("SCOPE", "TIME"),
        ("--ns-delim",),
        about=(
            "Gives a namespace a default lifetime, for entries that are set without --ttl from now "
            f"on; what is stored already stays as it is. SCOPE is as for keys, 'default' too. {_TIMES} "
            "TIME never drops the default again. Makes the address when it does not exist."
        ),
        examples=(
            ("prontodb create-cache app.cache 10m", "a cache that forgets after ten minutes"),
            ("prontodb create-cache app.cache never", "no cache any more"),
        ),
    ),
}


def do_ttl(args: Args) -> int:
    """Print the lifetime left."""
    place, where = Place(args), address(args)
    key = place.key(args, args.word("PATH"))
    shot = place.one_shot(where)
    with shot as keystore:
        left_s: float | None = run(keystore.ttl(key))
        known = left_s is not None or shot.exists()
    if left_s is None:
        return missed(key if known else None, where)
    if args.flag("--json"):
        output.json_line({"key": key, "ttl_s": None if isinf(left_s) else left_s})
    else:
        output.line(NEVER if isinf(left_s) else str(ceil(left_s)))
    return DONE


def do_persist(args: Args) -> int:
    """Let an entry live for ever."""
    return _change(args, lambda keystore, key: keystore.persist(key))


def do_touch(args: Args) -> int:
    """Begin a lifetime anew."""
    ttl = args.text("--ttl")
    return _change(args, lambda keystore, key: keystore.touch(key, ttl))


def _change(args: Args, change: Callable[[Keystore, str], Coroutine[Any, Any, bool]]) -> int:
    place, where = Place(args), address(args)
    key = place.key(args, args.word("PATH"))
    shot = place.one_shot(where, create=False)
    with shot as keystore:
        if run(change(keystore, key)):
            return DONE
        known = shot.exists()
    return missed(key if known else None, where)


def do_create_cache(args: Args) -> int:
    """Give a namespace a default lifetime."""
    place, where = Place(args), address(args)
    namespace = namespace_of_scope(args, args.word("SCOPE"))
    time = args.word("TIME")
    ttl = None if time == NEVER else time
    if ttl is not None:
        ttl_ms(ttl)
    with place.one_shot(where) as keystore:
        run(keystore.set_namespace_ttl(namespace, ttl))
    return DONE

"""keys, scan, ls, projects, namespaces, nss: what an address holds."""

from __future__ import annotations

from prontodb.cli import output
from prontodb.cli.environment import Place, address, scope
from prontodb.cli.output import DONE
from prontodb.cli.parsing import Args, Syntax
from prontodb.direct import run
from prontodb.errors import InvalidPathError, shown
from prontodb.model.key import check_prefix, namespace_of
from prontodb.model.path import DEFAULT_PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.direct import OneShot
    from prontodb.keystore import Keystore
    from prontodb.model.address import Address

_SCOPE = ("[SCOPE]", "[PREFIX]")
_SCOPE_OPTIONS = ("--prefix", "--project", "--namespace", "--ns-delim")
_ABOUT_SCOPE = (
    "With SCOPE (project.namespace, a namespace of the default project, or default) only what stands "
    "in exactly that namespace, without the namespace before it; PREFIX narrows it to names that "
    "begin so. -p and -n give the scope too. --prefix TEXT, or no scope at all, prints whole keys; "
    "TEXT is literal, no pattern. --json prints whole keys always."
)
_SCAN = Syntax(
    _SCOPE,
    _SCOPE_OPTIONS,
    about=(
        "Prints key=value, an entry a line, sorted by key. Control characters and the backslash in a "
        "value are shown as \\ , \\x1b, \\\\, so that a line is an entry; --json prints one exact JSON "
        "object a line. " + _ABOUT_SCOPE
    ),
    examples=(
        ("prontodb scan app.config", "theme=dark, and what else that namespace holds"),
        ("prontodb ls --prefix app.", "app.config.theme=dark, ..."),
        ("prontodb scan --json", "everything, for programs"),
    ),
)
SYNTAX = {
    "keys": Syntax(
        _SCOPE,
        _SCOPE_OPTIONS,
        about="Prints keys, one a line, sorted.\n" + _ABOUT_SCOPE,
        examples=(
            ("prontodb keys", "every key, whole"),
            ("prontodb keys app.config", "the names in that namespace: theme"),
            ("prontodb keys app.config th", "those that begin with th"),
            ("prontodb keys --prefix app.", "whole keys that begin with app."),
        ),
    ),
    "scan": _SCAN,
    "ls": _SCAN,
    "projects": Syntax(
        about="Prints the projects that hold live keys, one a line; keys of one or two parts: 'default'.",
        examples=(("prontodb projects", "app, default, ..."),),
    ),
    "namespaces": Syntax(
        (),
        ("--project",),
        about=(
            "Prints the namespaces of one project that hold live keys, one a line: of the project "
            "given with -p, else of the default one. The default namespace is spelled 'default'."
        ),
        examples=(("prontodb namespaces -p app", "config, stats, ..."),),
    ),
    "nss": Syntax(
        about=(
            "Prints every namespace that holds live keys as project.namespace, one a line; what is "
            "left out in keys is spelled 'default'. Each line can be given to keys and scan as SCOPE, "
            "after -- if it begins with a dash. What only --raw can store is reached with keys --prefix "
            "alone: an empty part, or 'default' stored as a part of the key."
        ),
        examples=(("prontodb nss", "app.config, default.default, ..."),),
    ),
}


def do_keys(args: Args) -> int:
    """Print keys."""
    place, where = Place(args), address(args)
    lo, namespace = _range(args)
    shot = place.one_shot(where)
    with shot as keystore:
        run(_print_keys(keystore, lo, namespace, as_json=args.flag("--json")))
        _note_unknown(shot, where)
    return DONE


async def _print_keys(keystore: Keystore, prefix: str, namespace: str | None, *, as_json: bool) -> None:
    # Page by page, and not list_keys: a million keys need not lie in memory to be printed.
    async for page in keystore._key_pages(prefix):
        for key in page:
            if namespace is not None and namespace_of(key) != namespace:
                continue
            if as_json:
                output.json_line(key)
            else:
                output.line(key if namespace is None else _bare(key, namespace))


def do_scan(args: Args) -> int:
    """Print keys with their values."""
    place, where = Place(args), address(args)
    lo, namespace = _range(args)
    shot = place.one_shot(where)
    with shot as keystore:
        run(_print_entries(keystore, lo, namespace, as_json=args.flag("--json")))
        _note_unknown(shot, where)
    return DONE


async def _print_entries(keystore: Keystore, prefix: str, namespace: str | None, *, as_json: bool) -> None:
    from prontodb.cli.data import entry_fields

    async for entry in keystore.scan(prefix):
        if namespace is not None and namespace_of(entry.key) != namespace:
            continue
        if as_json:
            output.json_line(entry_fields(entry))
        else:
            key = entry.key if namespace is None else _bare(entry.key, namespace)
            output.line(f"{key}={output.escaped(entry.value)}")


def _range(args: Args) -> tuple[str, str | None]:
    """Return the prefix to read, and the namespace to keep to (None: any)."""
    words = [word for word in (args.maybe("SCOPE"), args.maybe("PREFIX")) if word is not None]
    prefix = args.text("--prefix")
    if prefix is not None:
        if len(words) > 1:
            raise args.usage_error("give the prefix once: as a word, or with --prefix")
        words.append(prefix)
    by_options = args.text("--project") is not None or args.text("--namespace") is not None
    if by_options:
        if len(words) > 1:
            raise args.usage_error("give the scope once: as a word, or with -p and -n")
        namespace = scope(args, None)
    elif prefix is not None and len(words) == 1:
        return check_prefix(prefix), None
    else:
        namespace = scope(args, words.pop(0)) if words else None
    begins = words[0] if words else ""
    if namespace is None:
        return check_prefix(begins), None
    return check_prefix(f"{namespace}.{begins}" if namespace else begins), namespace


def _bare(key: str, namespace: str) -> str:
    return key[len(namespace) + 1 :] if namespace else key


def do_projects(args: Args) -> int:
    """Print the projects."""
    return _print_names(args, lambda namespaces: {_project(name) for name in namespaces})


def do_nss(args: Args) -> int:
    """Print all namespaces."""
    return _print_names(args, lambda namespaces: {_spelled(name) for name in namespaces})


def do_namespaces(args: Args) -> int:
    """Print the namespaces of one project."""
    project = args.text("--project")
    wanted = DEFAULT_PART if project is None else project
    if not wanted or "." in wanted:
        raise InvalidPathError(f"{shown(wanted)} is no project; a project is one part of a path")
    check_prefix(wanted)
    begin = len(wanted) + 1
    return _print_names(
        args, lambda namespaces: {_spelled(name)[begin:] for name in namespaces if _project(name) == wanted}
    )


def _print_names(args: Args, chosen: Chooser) -> int:
    place, where = Place(args), address(args)
    shot = place.one_shot(where)
    with shot as keystore:
        for name in sorted(chosen(run(keystore.namespaces()))):
            if args.flag("--json"):
                output.json_line(name)
            else:
                output.line(name)
        _note_unknown(shot, where)
    return DONE


def _project(namespace: str) -> str:
    """The project of a namespace: its first part, when it has two."""
    return namespace.partition(".")[0] if "." in namespace else DEFAULT_PART


def _spelled(namespace: str) -> str:
    """A namespace with its defaults written out."""
    return namespace if "." in namespace else f"{DEFAULT_PART}.{namespace or DEFAULT_PART}"


def _note_unknown(shot: OneShot, where: Address) -> None:
    if not shot.exists():
        output.note(f"no address {where}; nothing is stored there")


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Chooser = Callable[[list[str]], Iterable[str]]

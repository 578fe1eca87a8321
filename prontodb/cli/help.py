"""help: what there is and how it is written, made from the tables that the commands themselves run by."""

from __future__ import annotations

import textwrap

from prontodb.cli import output
from prontodb.cli.commands import COMMANDS, FAMILIES, GROUPS
from prontodb.cli.output import DONE
from prontodb.cli.parsing import OPTIONS, SHORT, Args, Line, Syntax, actions

SYNTAX = {
    "help": Syntax(
        ("[COMMAND]", "[ACTION]"),
        about="Explains ProntoDB, or one command. CMD help, CMD --help and CMD -h do the same.",
        examples=(("prontodb help set", "everything about set"), ("prontodb help address", "its actions")),
    ),
}

WIDTH = 100

_MEANING = {
    "--user": "the agent; else PRONTODB_USER, else _default",
    "--cursor": "where in its work; else PRONTODB_CURSOR, else _default",
    "--root": "the data folder; else PRONTODB_HOME, $XDG_DATA_HOME/prontodb, ~/.local/share/prontodb",
    "--json": "data as JSON lines",
    "--quiet": "no notes on stderr; errors are still told",
    "--log": "events on stderr, readable or as JSON; never a value",
    "--debug": "show the traceback of an error",
    "--project": "the project before PATH",
    "--namespace": "the namespace before PATH",
    "--ns-delim": "what separates the parts of PATH, instead of a dot",
    "--raw": "PATH is the key as it is, without defaults and parts",
    "--stdin": "read the value from stdin, whatever it is",
    "--ttl": "lifetime: 90 (seconds), 15m, 24h, 7d; never",
    "--absent": "expect that there is no such entry",
    "--prefix": "what whole keys begin with, literally",
    "--since": "from there on: where an earlier watch ended; of an audit, a revision or a moment",
    "--count": "end after so many changes",
    "--timeout": "end after so many seconds",
    "--to-user": "the user to copy to",
    "--to-cursor": "the cursor to copy to",
    "--overwrite": "write over what is there",
    "--on-conflict": "what happens to keys that are there",
    "--deep": "read every entry and test its checksum",
    "--repair": "heal what can be healed safely",
    "--yes": "do it without asking",
    "--wait": "how long to try, in seconds; 0 tries once (default: the setting wait_s)",
    "--force": "take the address away from the session",
    "--kill": "with --force: kill the session's process",
    "--full": "whole snapshots of everything",
    "--incremental": "what changed since the last backup; the default, full where there is none",
    "--output": "put it into this folder, made when missing, and not into the root",
    "--list": "the same as 'backup list'",
    "--restore": "the same as 'restore REF --yes'",
    "--dry-run": "only say what would be done",
    "--as": "restore: the address, USER/CURSOR, that the one restored becomes; access explain: the principal who asks",
    "--at": "the newest backup up to this moment: 2026-11-21T10:00:00Z (UTC without a zone)",
    "--revision": "the address as it was at this revision",
    "--into": "restore into another root, made when missing",
    "--undo": "bring back what a restore has put aside",
    "--redo": "take an undo back",
    "--limit": "this many at most",
    "--trust-clock": "the wall clock is right now, however it was set: sweep by it",
    "--map": "where one old place goes, by its name in the plan; as often as needed",
    "--skip": "leave out one file of the source; as often as needed",
    "--delimiter": "what separates the parts of old addresses, instead of a dot",
    "--report": "write every reported row into this file, as JSON lines",
    "--save-plan": "write the plan into this file",
    "--plan": "apply this saved plan, if its source is still the same",
    "--key": "only the changes of this one whole key",
    "--session": "only the changes of this session",
    "--denied": "the calls that were denied or refused, of all addresses",
    "--encrypt": "encrypt it from the beginning; needs a key, see 'prontodb help address encrypt'",
    "--drop-older": "forget the secrets before it: backups made with them cannot be read any more",
    "--keyring": "under this name in the system's keyring",
    "--for": "the record is of this address now",
    "--with-key-file": "the other key lies in this file",
    "--with-command": "this command prints the other key",
    "--with-keyring": "the other key is the one of this name in the system's keyring",
    "--with-passphrase": "the other key is a passphrase, which is asked for (or in PRONTODB_OTHER_PASSPHRASE)",
    "--principal": "who asks, where access rules are in force; else PRONTODB_PRINCIPAL",
    "--token-file": "read the token from this file ('-': stdin); else PRONTODB_TOKEN",
    "--rights": "read, write, admin: one or several, with commas between",
    "--expires": "how long it is valid: 90 (seconds), 15m, 24h, 7d",
    "--by": "the name of who hands it on, for the journal",
    "--sandbox": "keep the command, by the kernel, out of all else in the root",
    "--strict": "and confine the rest of the file system to reading system folders",
    "--allow-read": "let the sandboxed command read this file or folder, too",
    "--allow-write": "let the sandboxed command read and write it",
    "--scratch": "where private copies of the source lie meanwhile (default: TMPDIR)",
}
_EVERYWHERE = ("--user", "--cursor", "--root", "--json", "--quiet", "--log", "--debug", "--principal", "--token-file")

_INTRODUCTION = """\
prontodb: an isolated, durable keystore for every agent

usage: prontodb COMMAND ... [options, in any order]

An address is (user, cursor); each has its own file. PATH is project.namespace.key; ns.key and key leave out
what is 'default': key, default.key and default.default.key are one entry. A longer path is a key as it is."""

_CLOSING = """\
-- ends options: what follows are words, also with a dash first. Data goes to stdout, all else to stderr.
Exit codes: 0 done, 1 error, 2 no such key (get, ttl, persist, touch, copy), 130 and 143 on signals.
'prontodb help COMMAND' explains a command, with examples."""


def do_help(args: Args) -> int:
    """Explain everything, or one command."""
    words = [word for word in (args.maybe("COMMAND"), args.maybe("ACTION")) if word is not None]
    if not words:
        return show("")
    # The line of that command asking for help: the same words, the same errors.
    return show(Line([*words, "--help"]).command())


def show(name: str) -> int:
    """Print the help of a command or family; of everything when `name` is empty."""
    if not name:
        text = _overview()
    elif name in FAMILIES:
        alone = [name] if name in COMMANDS else []
        text = "\n\n".join(map(_explained, (*alone, *(f"{name} {action}" for action in actions(name)))))
    else:
        text = _explained(name)
    output.line(text)
    return DONE


def syntax_of(name: str) -> Syntax:
    """Return how a command is written; imports its module."""
    module = __import__(f"prontodb.cli.{COMMANDS[name][0]}", fromlist=("SYNTAX",))
    syntax: Syntax = module.SYNTAX[name]
    return syntax


def usage(name: str, syntax: Syntax) -> str:
    """Return the one line that shows how a command is written."""
    options = [f"[{_written(option)}]" for option in OPTIONS if option in syntax.options]
    return " ".join(("prontodb", name, *syntax.words, *options))


def _written(option: str) -> str:
    metavar = OPTIONS[option]
    return option if metavar is None else f"{option} {metavar}"


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    parts = [_INTRODUCTION]
    for group in GROUPS:
        lines = [
            f"  {name:{width}}{summary}" for name, (_, _, summary, its_group) in COMMANDS.items() if its_group == group
        ]
        parts.append("\n".join((f"{group}:", *lines)))
    parts.append("\n".join(("Options of every command:", *map(_option_line, _EVERYWHERE))))
    parts.append(_CLOSING)
    return "\n\n".join(parts)


def _option_line(option: str) -> str:
    short = next((letter + ", " for letter, name in SHORT.items() if name == option), "")
    return f"  {short + _written(option):36}{_MEANING[option]}"


def _explained(name: str) -> str:
    syntax = syntax_of(name)
    about = "\n".join(textwrap.fill(text, WIDTH, break_on_hyphens=False) for text in syntax.about.split("\n"))
    parts = [f"usage: {usage(name, syntax)}", about]
    own = [_option_line(option) for option in OPTIONS if option in syntax.options]
    if own:
        parts.append("\n".join(("Options, besides those of every command ('prontodb help'):", *own)))
    width = max(len(example) for example, _ in syntax.examples) + 3
    parts.append("\n".join(("Examples:", *(f"  {example:{width}}# {what}" for example, what in syntax.examples))))
    return "\n\n".join(parts)

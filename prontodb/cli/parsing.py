"""What was typed, taken apart: options in any order and words, checked against the syntax of the command.

By hand and not by argparse, for two measured reasons: importing argparse takes a one-shot `get` past its
target, and argparse drops a word that is itself `--`, so that `set KEY -- --` would lose its value.

- One table says for every option of every command whether it takes a value: an option means the same
  everywhere, and taking a line apart needs no knowledge of the command.
- `--` ends options: what follows are words, whatever they look like.
- A negative number is a word.
"""

from __future__ import annotations

from prontodb.cli.commands import COMMANDS, FAMILIES, VERBATIM
from prontodb.errors import InvalidInputError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OPTIONS: dict[str, str | None] = {
    "--user": "USER",
    "--cursor": "CURSOR",
    "--root": "DIR",
    "--log": "text|json",
    "--json": None,
    "--quiet": None,
    "--debug": None,
    "--help": None,
    "--version": None,
    "--project": "P",
    "--namespace": "N",
    "--ns-delim": "X",
    "--raw": None,
    "--stdin": None,
    "--ttl": "TIME",
    "--absent": None,
    "--prefix": "TEXT",
    "--since": "POSITION",
    "--count": "N",
    "--timeout": "SECONDS",
    "--to-user": "USER",
    "--to-cursor": "CURSOR",
    "--overwrite": None,
    "--on-conflict": "fail|keep|replace",
    "--deep": None,
    "--repair": None,
    "--yes": None,
    "--wait": "SECONDS",
    "--force": None,
    "--kill": None,
    "--full": None,
    "--incremental": None,
    "--output": "DIR",
    "--list": None,
    "--restore": "REF",
    "--dry-run": None,
    "--as": "NAME",
    "--at": "TIME",
    "--revision": "N",
    "--into": "ROOT",
    "--undo": None,
    "--redo": None,
    "--limit": "N",
    "--trust-clock": None,
    "--map": "OLD=USER/CURSOR",
    "--skip": "NAME",
    "--delimiter": "X",
    "--report": "FILE",
    "--save-plan": "FILE",
    "--plan": "FILE",
    "--scratch": "DIR",
    "--key": "KEY",
    "--session": "SESSION",
    "--denied": None,
    "--encrypt": None,
    "--drop-older": None,
    "--keyring": "NAME",
    "--for": "ADDRESS",
    "--with-key-file": "FILE",
    "--with-command": "COMMAND",
    "--with-keyring": "NAME",
    "--with-passphrase": None,
    "--principal": "NAME",
    "--token-file": "FILE",
    "--rights": "RIGHTS",
    "--expires": "TIME",
    "--by": "NAME",
    "--sandbox": None,
    "--strict": None,
    "--allow-read": "PATH",
    "--allow-write": "PATH",
}
"""Every option there is; the text is what its value is called, None a switch."""

SHORT = {"-p": "--project", "-n": "--namespace", "-q": "--quiet", "-h": "--help", "-y": "--yes"}

REPEATED = frozenset(("--map", "--skip", "--allow-read", "--allow-write"))
"""Options that may stand several times, and all count."""

GLOBAL = frozenset(
    (
        "--user", "--cursor", "--root", "--log", "--json", "--quiet", "--debug", "--help", "--version", "--principal",
        "--token-file",
    )
)  # fmt: skip
"""Options that every command takes."""

PATH = ("--project", "--namespace", "--ns-delim", "--raw")
"""Options that every command with a PATH takes."""


_HELP = (["--help"], ["-h"], ["help"])


class UsageError(InvalidInputError):
    """The line cannot be understood; `command` is where its help is."""

    def __init__(self, message: str, command: str = "") -> None:
        self.command = command
        super().__init__(f"{message}; see 'prontodb help{' ' + command if command else ''}'")


class Syntax:
    """How one command is written, and its help. A word in brackets may be left out, '...' is one or more."""

    __slots__ = ("about", "examples", "options", "words")

    def __init__(
        self,
        words: tuple[str, ...] = (),
        options: Iterable[str] = (),
        *,
        about: str,
        examples: tuple[tuple[str, str], ...],
    ) -> None:
        self.words, self.options = words, frozenset(options)
        self.about, self.examples = about, examples


class Line:
    """A command line taken apart, before anybody looked at what it asks for."""

    __slots__ = ("literal_from", "options", "repeated", "unknown", "words")

    def __init__(self, argv: Sequence[str]) -> None:
        self.options: dict[str, str] = {}
        self.repeated: dict[str, list[str]] = {}
        self.words: list[str] = []
        self.unknown: list[str] = []
        self.literal_from: int | None = None
        """How many words stood before `--`; None when there was none."""
        rest = list(argv)
        while rest:
            text = rest.pop(0)
            if text == "--":
                self.literal_from = len(self.words)
                self.words += rest
                return
            if _is_word(text):
                self.words.append(text)
                if len(self.words) == 1 and text in VERBATIM and rest not in _HELP:
                    rest.insert(0, "--")
            else:
                self._option(text, rest)

    def _option(self, text: str, rest: list[str]) -> None:
        name, equals, value = text.partition("=")
        name = SHORT.get(name, name)
        if name not in OPTIONS:
            self.unknown.append(text)
            return
        metavar = OPTIONS[name]
        if metavar is None:
            if equals:
                raise UsageError(f"{name} takes no value")
        elif not equals:
            if not rest or (rest[0].startswith("-") and not _is_word(rest[0])):
                raise UsageError(f"{name} needs a value: {name} {metavar}, or {name}={metavar} if it begins with '-'")
            value = rest.pop(0)
        # The last one counts, so that an alias with a default can be overruled.
        self.options[name] = value
        if name in REPEATED:
            self.repeated.setdefault(name, []).append(value)

    def command(self) -> str:
        """Return the command's name and take it off the words; the empty string when there is none."""
        if not self.words:
            if self.unknown:
                raise UsageError(f"{shown(self.unknown[0])} is no option{_near(self.unknown[0], OPTIONS)}")
            return ""
        name = self._take()
        if name in FAMILIES and not (self.words and self._asks_for_help(1)):
            if not self.words:
                if "--help" in self.options or name in COMMANDS:
                    return name
                raise UsageError(f"{name} needs one of: {', '.join(actions(name))}", name)
            if f"{name} {self.words[0]}" not in COMMANDS:
                near = _near(self.words[0], actions(name)) or f" ({', '.join(actions(name))})"
                raise UsageError(f"{shown(self.words[0])} is no action of {name}{near}", name)
            name = f"{name} {self._take()}"
        elif name not in COMMANDS and name not in FAMILIES:
            raise UsageError(f"{shown(name)} is no command{_near(name, [*COMMANDS, *FAMILIES])}")
        if self._asks_for_help(1) and not (self.options.keys() - GLOBAL):
            self.words.pop()
            self.options["--help"] = ""
        return name

    def _take(self) -> str:
        if self.literal_from:
            self.literal_from -= 1
        return self.words.pop(0)

    def _asks_for_help(self, count: int) -> bool:
        """True for `CMD help`; after `--`, help is a word like any other."""
        return len(self.words) == count and self.words[0] == "help" and self.literal_from is None


class Args:
    """What a handler is given: the words and options of its command, all of them known to its syntax."""

    __slots__ = ("_options", "_repeated", "_words", "command")

    def __init__(
        self,
        command: str,
        words: dict[str, list[str]],
        options: dict[str, str],
        repeated: dict[str, list[str]] | None = None,
    ) -> None:
        self.command, self._words, self._options, self._repeated = command, words, options, repeated or {}

    def word(self, name: str) -> str:
        """A word that must be there."""
        return self._words[name][0]

    def maybe(self, name: str) -> str | None:
        """A word that may be there; `name` without its brackets."""
        found = self._words.get(name)
        return found[0] if found else None

    def words(self, name: str) -> list[str]:
        """The words of a repeated one; `name` without its dots."""
        return self._words[name]

    def text(self, option: str) -> str | None:
        """The value of an option; None when it was not given."""
        return self._options.get(option)

    def texts(self, option: str) -> list[str]:
        """Every value of an option that may stand several times."""
        return self._repeated.get(option, [])

    def seconds(self, option: str, *, or_zero: bool = False) -> float | None:
        """Return the seconds given with an option, above 0 or with `or_zero` also 0; None when it was left out."""
        text = self.text(option)
        if text is None:
            return None
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if 0 < found < 10**9 or (or_zero and found == 0):
            return found
        raise self.usage_error(f"{option} is a number of seconds{'' if or_zero else ' above 0'}, not {shown(text)}")

    def count(self, option: str) -> int | None:
        """Return the whole number above 0 given with an option; None when it was left out."""
        text = self.text(option)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and int(text[:12]) > 0 and len(text) < 12:
            return int(text)
        raise self.usage_error(f"{option} is a whole number above 0, not {shown(text)}")

    def flag(self, option: str) -> bool:
        """True when a switch was given."""
        return option in self._options

    def usage_error(self, message: str) -> UsageError:
        """Return an error that points at this command's help."""
        return UsageError(message, self.command)


def match(command: str, syntax: Syntax, line: Line) -> Args:
    """Check a line against the syntax of its command."""
    allowed = syntax.options | GLOBAL
    for text in line.unknown:
        hint = _near(text.partition("=")[0], allowed) or "; if it is a word, write -- before it"
        raise UsageError(f"{shown(text)} is no option of {command}{hint}", command)
    for name in line.options:
        if name not in allowed:
            raise UsageError(f"{name} is no option of {command}", command)
    return Args(command, _named(command, syntax.words, line.words), line.options, line.repeated)


def _named(command: str, wanted: tuple[str, ...], given: list[str]) -> dict[str, list[str]]:
    """Give each word its name: those in brackets take what the others leave, from the left."""
    required = [name for name in wanted if not name.startswith("[")]
    if len(given) < len(required):
        raise UsageError(f"{command} needs {' '.join(required)}", command)
    spare = len(given) - len(required)
    rest = list(given)
    found: dict[str, list[str]] = {}
    for name in wanted:
        if name.startswith("["):
            if spare:
                spare -= 1
                found[name.strip("[]")] = [rest.pop(0)]
        elif name.endswith("..."):
            found[name.removesuffix("...")] = [rest.pop(0) for _ in range(spare + 1)]
            spare = 0
        else:
            found[name] = [rest.pop(0)]
    if rest:
        takes = " ".join(wanted) or "no words"
        raise UsageError(
            f"{shown(rest[0])} is one word too many: {command} takes {takes} (quote what has blanks)", command
        )
    return found


def actions(family: str) -> list[str]:
    """Return the second words of a family of commands."""
    return [name.partition(" ")[2] for name in COMMANDS if name.startswith(family + " ")]


def _is_word(text: str) -> bool:
    return not text.startswith("-") or text == "-" or text[1] in "0123456789."


def _near(text: str, names: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(text[:64], list(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""

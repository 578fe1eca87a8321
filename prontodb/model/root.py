"""Which folder is the root: what the environment says, as a pure function of it."""

from __future__ import annotations

from prontodb.errors import InvalidInputError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def checked_root(root: str, what: str) -> str:
    """Return an absolute path without a trailing slash; refuse a relative one and one with an unexpanded '${'."""
    if "\x00" in root or "${" in root:
        raise InvalidInputError(f"{what} {shown(root)} is not a path: it holds an unexpanded '${{' or a NUL")
    if not root.startswith("/"):
        raise InvalidInputError(f"{what} {shown(root)} is relative; write the whole path from /")
    return root.rstrip("/") or "/"


def root_from(environment: Mapping[str, str]) -> str:
    """Return the root: PRONTODB_HOME, else prontodb below XDG_DATA_HOME, else ~/.local/share/prontodb.

    An empty variable is unset.
    """
    if root := environment.get("PRONTODB_HOME"):
        return checked_root(root, "PRONTODB_HOME")
    if data := environment.get("XDG_DATA_HOME"):
        return checked_root(data, "XDG_DATA_HOME") + "/prontodb"
    if home := environment.get("HOME"):
        return checked_root(home, "HOME") + "/.local/share/prontodb"
    raise InvalidInputError("no root: name one with --root or open(root), or set PRONTODB_HOME")

"""Which folder is the root: what the environment says, as a pure function of it."""

from __future__ import annotations

from prontodb.errors import InvalidInputError, shown
from prontodb.model.layout import SANDBOXES

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


def sandbox_from(environment: Mapping[str, str], root: str) -> str | None:
    """Return the private folder of the sandboxed run around us, as PRONTODB_SANDBOX names it; None outside of one.

    `root` is resolved. The folder of another root's run is not ours; only those that a run makes count.
    """
    given = environment.get("PRONTODB_SANDBOX")
    if not given:
        return None
    above, _, name = checked_root(given, "PRONTODB_SANDBOX").rpartition("/")
    return f"{above}/{name}" if above == f"{root}/{SANDBOXES}" and name not in (".", "..") else None

"""The path grammar of the command line: how what is typed names a key."""

from __future__ import annotations

from prontodb.errors import InvalidPathError, shown
from prontodb.model.key import check_key

DEFAULT_PART = "default"
_FULL = 3  # project.namespace.key
_ONE_PART = "-p and -n take one part each"


def _parts(text: str, delimiter: str, way_out: str = "write project.namespace.key, or use --raw") -> list[str]:
    if not delimiter or len(delimiter) > 8 or not delimiter.isprintable():
        raise InvalidPathError(f"delimiter {shown(delimiter)} must be 1 to 8 printable characters")
    parts = text.split(delimiter)
    if not all(parts):
        raise InvalidPathError(f"path {shown(text)} has an empty part; {way_out}")
    if delimiter != "." and any("." in part for part in parts):
        raise InvalidPathError(f"path {shown(text)} has a '.' inside a part, which separates parts; {way_out}")
    return parts


def _without_defaults(parts: list[str]) -> list[str]:
    """Drop what only repeats the default project, then the default namespace."""
    while len(parts) > 1 and parts[0] == DEFAULT_PART:
        parts = parts[1:]
    return parts


def key_of(path: str, *, project: str | None = None, namespace: str | None = None, delimiter: str = ".") -> str:
    """Return the key that `path` names.

    Up to three parts are `project.namespace.key` with the default project and namespace left out when stored;
    longer paths are verbatim. `project` and `namespace`, when given, stand before the path.
    """
    parts = _parts(path, delimiter)
    if project is not None or namespace is not None:
        for part in (project, namespace):
            if part is not None and len(_parts(part, delimiter, _ONE_PART)) != 1:
                raise InvalidPathError(f"{shown(part)} is a path; {_ONE_PART}")
        parts = [project or DEFAULT_PART, namespace or DEFAULT_PART, *parts]
        if len(parts) > _FULL and project in (None, DEFAULT_PART):
            # Longer paths are verbatim, so the default project would become part of the key.
            raise InvalidPathError(f"{shown(path)} is a path; after -n alone comes a key of one part")
    return check_key(".".join(_without_defaults(parts) if len(parts) <= _FULL else parts))


def namespace_scope(scope: str, *, delimiter: str = ".") -> str:
    """Return the namespace that a scope names: `project.namespace`, or a namespace of the default project.

    The empty string is the default namespace of the default project: keys without a dot.
    """
    parts = _parts(scope, delimiter, "write project.namespace")
    if len(parts) < _FULL and parts[0] == DEFAULT_PART:
        parts = parts[1:]
        if parts == [DEFAULT_PART]:
            parts = []
    return check_key(".".join(parts)) if parts else ""

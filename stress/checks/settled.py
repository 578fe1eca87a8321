"""Which addresses kept their contents: nobody dropped, renamed, restored or copied over them as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..history import COPY, DROP, FAILED, RENAME, RESTORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..history import History


def unsettled(history: History) -> set[str]:
    """Return the addresses whose contents, as a whole, may have gone or come from elsewhere.

    What was acknowledged there says nothing of what must be there now. A copy changes its destination alone, which is
    its argument; of the others every address named is meant.
    """
    found: set[str] = set()
    for operation in history.of(DROP, RENAME, RESTORE, COPY):
        if operation.outcome != FAILED:
            found.update(_names(operation.argument))
            if operation.op != COPY:
                found.add(operation.address)
    return found


def left_out(addresses: set[str], used: set[str]) -> tuple[str, ...]:
    """Return the note that says which of the `used` addresses were not judged; no note when all were."""
    names = sorted(addresses & used)
    return (f"not judged, since dropped, renamed, restored or copied over: {', '.join(names)}",) if names else ()


def _names(argument: Any) -> Iterator[str]:
    if isinstance(argument, str):
        yield argument
    elif isinstance(argument, dict):
        yield from (value for value in argument.values() if isinstance(value, str))
    elif isinstance(argument, list):
        yield from (value for value in argument if isinstance(value, str))

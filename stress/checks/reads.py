"""What agents were told: each key that was read, with its value, whatever operation read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..history import GET, GET_MANY, OK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..history import History, Operation


def reads(history: History, family: str) -> Iterator[tuple[Operation, str, str | None]]:
    """Yield each acknowledged read of a key of this family: the operation, the key, and its value or None."""
    for operation in history.of(GET, GET_MANY):
        if operation.outcome != OK:
            continue
        told = {operation.key: operation.result} if operation.op == GET else operation.result
        for key, value in told.items():
            if key.partition(".")[0] == family:
                yield operation, key, value

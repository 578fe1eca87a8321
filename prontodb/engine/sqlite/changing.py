"""A change of a whole address whose caller is cancelled: it comes to its end, and the cancellation says to which."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prontodb.errors import COMMITTED_NOTE, ProntoError
from prontodb.storage.lane import CancelledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def told(run: Callable[[Callable[[], T]], Awaitable[T]], work: Callable[[], T]) -> T:
    """Have `run` do `work`, which it brings to its end also when cancelled. A result of False: nothing was changed."""
    said: list[str] = []

    def noted() -> T:
        try:
            result = work()
        except ProntoError as error:
            # Such as that its outcome is unknown.
            said.extend(getattr(error, "__notes__", ()))
            raise
        if result is not False:
            said.append(f"{COMMITTED_NOTE}; it was under way")
        return result

    try:
        return await run(noted)
    except CancelledError as cancelled:
        for note in said:
            cancelled.add_note(note)
        raise

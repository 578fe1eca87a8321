"""A denial is said once, here: as a typed error, as an event, and to whoever keeps a log of denials."""

from __future__ import annotations

from prontodb.errors import DeniedError, shown
from prontodb.log import event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DENIED: list[Callable[[DeniedError], None]] = []
"""Called with every denial before it is raised, on the thread where it happens. What a hook raises is dropped."""


def denied(
    right: str,
    address: object = None,
    key: str | None = None,
    *,
    is_prefix: bool = False,
    principal: str | None = None,
    by_token: bool = False,
    reason: str = "",
    root: str | None = None,
) -> DeniedError:
    """Return the error to raise, after telling of it. `key` is a key, or what keys begin with; never logged raw.

    `root` is where it happened, for the log of that root.
    """
    error = DeniedError(right, address, key, is_prefix=is_prefix, principal=principal, by_token=by_token, reason=reason)
    event(
        "access.denied",
        principal=error.principal,
        by_token=by_token,
        right=right,
        address=error.address,
        key=None if key is None else shown(key),
        reason=reason or None,
        root=root,
    )
    for tell in list(DENIED):
        try:
            tell(error)
        except Exception as failure:  # noqa: BLE001 - a log that fails must not turn a denial into something else
            event("access.hook_failed", reason=type(failure).__name__)
    return error

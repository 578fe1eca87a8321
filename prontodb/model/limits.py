"""The limits of one root: each has a name, a default and a typed error that names it."""

from __future__ import annotations

from prontodb.model.key import MAX_KEY_BYTES
from prontodb.model.value import Value

MIB = 1024 * 1024

BATCH_BYTES = 32 * MIB
PAGE_BYTES = 8 * MIB
"""A page of a scan ends early once its values pass this, so that 1,000 large values never lie in memory at once."""

SOFT = 0.8
"""The part of a quota from which on it is told of."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from prontodb.model.address import Address
    from prontodb.model.quotas import Quota


class Limits(Value):
    """What one call may ask for. Sizes in bytes of UTF-8; `wait_s` in seconds."""

    __slots__ = (
        "max_key_bytes",
        "max_value_bytes",
        "max_batch_ops",
        "max_batch_bytes",
        "max_page",
        "wait_s",
        "max_entries",
        "max_keystore_bytes",
        "writes_per_second",
        "soft",
        "quotas",
    )

    max_key_bytes: int
    max_value_bytes: int
    max_batch_ops: int
    max_batch_bytes: int
    max_page: int
    wait_s: float
    max_entries: int | None
    max_keystore_bytes: int | None
    writes_per_second: int | None
    soft: float
    quotas: tuple[Quota, ...]
    """Rules that give some addresses other quotas; `at` applies them."""

    def __init__(
        self,
        *,
        max_key_bytes: int = MAX_KEY_BYTES,
        max_value_bytes: int = 16 * MIB,
        max_batch_ops: int = 1_000,
        max_batch_bytes: int = BATCH_BYTES,
        max_page: int = 1_000,
        wait_s: float = 5.0,
        max_entries: int | None = None,
        max_keystore_bytes: int | None = None,
        writes_per_second: int | None = None,
        soft: float = SOFT,
        quotas: tuple[Quota, ...] = (),
    ) -> None:
        self._fill(
            max_key_bytes,
            max_value_bytes,
            max_batch_ops,
            max_batch_bytes,
            max_page,
            wait_s,
            max_entries,
            max_keystore_bytes,
            writes_per_second,
            soft,
            quotas,
        )

    def at(self, address: Address) -> Limits:
        """Return the limits of one address: these, and what the rules say of it."""
        if not self.quotas:
            return self
        from prontodb.model import quotas  # few roots have any

        return quotas.applied(self, address)

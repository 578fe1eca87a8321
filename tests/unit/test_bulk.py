"""Which of many keys a keystore has: two sorted lists walked side by side."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from prontodb.bulk import live_among
from prontodb.engine.protocol import Keyspace
from prontodb.keystore import Keystore
from prontodb.model.address import Address
from prontodb.model.clock import ManualClock
from prontodb.model.limits import Limits
from prontodb.model.operation import Fence
from tests.unit.stores import done

KEYS = st.lists(st.text("ab\U0001f600", min_size=1, max_size=3), unique=True, max_size=30).map(sorted)


class SortedKeys:
    """The part of a keyspace that lists keys, with pages that end early as the seam allows."""

    def __init__(self, present: list[str], page: int) -> None:
        self.present, self.page, self.calls = present, page, 0

    async def keys(self, lo: str, hi: str | None, limit: int) -> list[str]:
        self.calls += 1
        found = [key for key in self.present if lo <= key and (hi is None or key < hi)]
        return found[: min(limit, self.page)]


def handle(keyspace: SortedKeys, max_page: int) -> Keystore:
    limits = Limits(max_page=max_page)
    return Keystore(cast("Keyspace", keyspace), Address(), Fence("test"), limits, ManualClock())


@given(present=KEYS, asked=KEYS, page=st.integers(1, 5), max_page=st.integers(1, 5))
def test_exactly_the_asked_keys_that_are_there_are_found(
    present: list[str], asked: list[str], page: int, max_page: int
) -> None:
    keyspace = SortedKeys(present, page)
    assert done(live_among(handle(keyspace, max_page), asked)) == sorted(set(present) & set(asked))
    # Each step passes at least one asked key: a keystore full of others costs no more.
    assert keyspace.calls <= len(asked)

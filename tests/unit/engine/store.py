"""A keystore as the transactions see it: a connection, its target, and a time that the test decides."""

from collections.abc import Iterable, Sequence
from typing import Any

from prontodb.engine.sqlite import opening, transactions, writing
from prontodb.engine.sqlite.writing import Batch
from prontodb.errors import ProntoError
from prontodb.model.address import Address
from prontodb.model.entry import Entry
from prontodb.model.layout import Layout
from prontodb.model.limits import Limits
from prontodb.model.operation import Change, Fence, Op, Position, Receipt
from prontodb.storage import connection as sqlite

HERE = Address("agent", "unit")
ME = Fence("me")
NOW = 1_700_000_000_000


class Store:
    """One writing connection; time stands at `now_ms` until the test moves it."""

    def __init__(self, layout: Layout, address: Address = HERE, limits: Limits | None = None) -> None:
        self.layout, self.address = layout, address
        self.now_ms = NOW
        self.connection, self.target = opening.open_writer(layout, address, limits or Limits(), busy_timeout_ms=1_000)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def another(self, limits: Limits | None = None) -> "Store":
        """Open a second connection, as another process would."""
        other = Store(self.layout, self.address, limits)
        other.now_ms = self.now_ms
        return other

    def group(self, *batches: Sequence[Op], fence: Fence = ME) -> list[Receipt | ProntoError]:
        """Commit batches as one group; return what came of each."""
        return self.judged([Batch(ops, fence) for ops in batches])

    def judged(self, batches: Sequence[Batch]) -> list[Receipt | ProntoError]:
        """Commit batches as one group; return what came of each."""
        writing.apply(self.connection, self.target, batches, self.now_ms)
        return [batch.error or batch.receipt for batch in batches]  # type: ignore[misc]

    def apply(self, *ops: Op, fence: Fence = ME) -> Receipt:
        """Commit one batch; raise what it failed with."""
        (outcome,) = self.group(ops, fence=fence)
        if isinstance(outcome, ProntoError):
            raise outcome
        return outcome

    def read(self, key: str) -> Entry | None:
        """Return the live entry of a key."""
        return transactions.read(self.connection, [key], self.now_ms)[0]

    def values(self) -> dict[str, str]:
        """Return all live entries' values."""
        return {e.key: e.value for e in transactions.scan(self.connection, "", None, 10_000, self.now_ms)}

    def journal(self) -> list[Any]:
        """Return the journal's rows: first revision, last one, session, records as text."""
        return self.rows("SELECT first_rev, rev, session, records FROM journal ORDER BY rev")

    def changes(self, since: int = 0, limit: int = 1_000) -> tuple[list[Change], int]:
        """Return a page of changes and the revision after it."""
        here = transactions.position(self.connection)
        page = transactions.changes(self.connection, Position(here.incarnation, since), limit, self.now_ms)
        return list(page.changes), page.position.revision

    def revision(self) -> int:
        """Return the keystore's revision."""
        return transactions.position(self.connection).revision

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Run any statement, and return its rows."""
        return sqlite.rows(self.connection, sql, parameters)

    def tamper(self, *statements: str) -> None:
        """Change the file behind the back of everything that checks, over a connection of its own."""
        connection = sqlite.connect(self.layout.keystore_path(self.address), busy_timeout_ms=1_000)
        for statement in statements:
            connection.execute(statement).close()
        connection.close()


def sets(entries: Iterable[tuple[str, str]]) -> list[Op]:
    """Return one operation for each key and value."""
    return [Op(key, value) for key, value in entries]

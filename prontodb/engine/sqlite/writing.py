"""The write transaction: many callers' batches in one commit, each passing or failing on its own.

One `BEGIN IMMEDIATE … COMMIT` judges every batch in order, against what it read inside the transaction and what the
batches before it changed; then it writes the final state of each key once and adds the journal (`ops/format.md`).
"""

from __future__ import annotations

import json
from _blake2 import blake2b

from prontodb.denials import denied
from prontodb.engine.sqlite.context import Target
from prontodb.engine.sqlite.quotas import PAGE_SIZE, Rate, log_bytes, used_bytes
from prontodb.engine.sqlite.schema import CHAIN_BYTES
from prontodb.engine.sqlite.transactions import HISTORY, LIFETIME, checksum, expired, is_damaged
from prontodb.errors import (
    FencedError,
    OutcomeUnknownError,
    ProntoError,
    QuotaExceededError,
    RevisionConflictError,
    StorageFullError,
    shown,
)
from prontodb.model.key import namespace_of
from prontodb.model.operation import CHECK, FOREVER, INHERIT, Receipt, frees_room
from prontodb.storage import connection as sqlite
from prontodb.storage.connection import one, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from prontodb.model.operation import Fence, Op
    from prontodb.storage.connection import Connection, Cursor

    Row = tuple[str, str, int, int] | tuple[str, str, int, int, int]
    """What an upsert writes of an entry: key, value, revision, checksum, and its expiry where it has one."""

MAX_RECORDS = 1_000
"""Changes in one journal row; a larger commit writes several rows."""

ROOM_EACH = 200
"""Bytes that an entry takes beside its text: its columns, its place in two trees, its record."""
SPLIT_BYTES = 3 * PAGE_SIZE
"""Pages that one commit may begin, one in each tree that its entries and its record lie in."""
MOST_OF_CHARACTER = 20
"""Bytes that one character of a key or value takes at most: four where it stands, and in a record twelve as JSON."""
SWEPT_FOR_ROOM = 2_000
"""Expired entries that a write near a quota deletes at most."""

TOKENS_REVOKED = "the tokens of this address were revoked"

DIGEST_BYTES = 16
_MOMENT = 2**48 - 1
"""Milliseconds since 1970 beyond the year 9999, where datetime ends."""


def _upsert(count: int, *, expiring: bool) -> str:
    """Return the statement that upserts `count` entries: ?1 is the present time, then come the columns of each.

    Entries that never expire have no parameter for it: the binding takes three times as long for a None as for text.
    """
    each = 5 if expiring else 4
    entries = ", ".join(
        f"(?{n}, ?{n + 1}, ?1, ?1, ?{n + 2}, ?{n + 3} + ?1, {f'?{n + 4}' if expiring else 'NULL'})"
        for n in range(2, 2 + each * count, each)
    )
    return (
        "INSERT INTO kvstore (namespace_key, value, created_at, updated_at, rev, checksum, ttl_expires_at) "
        f"VALUES {entries} ON CONFLICT (namespace_key) DO UPDATE SET value = excluded.value, "
        # An expired entry counts as absent, so what replaces it is created now.
        # The mask leaves every moment as it is, and makes one of a damaged one: what replaces it can be read.
        f"created_at = CASE WHEN ttl_expires_at <= ?1 THEN ?1 ELSE created_at & {_MOMENT} END, "
        "updated_at = ?1, ttl_expires_at = excluded.ttl_expires_at, rev = excluded.rev, "
        "checksum = excluded.checksum - ?1 "
        f"+ CASE WHEN ttl_expires_at <= ?1 THEN ?1 ELSE created_at & {_MOMENT} END"
    )


# Many entries in one statement: each statement gives the interpreter's lock away and must win it back, which beside a
# busy event loop costs more than the entry itself.
_LASTING, _EXPIRING = (
    tuple((count, _upsert(count, expiring=expiring)) for count in (128, 16, 1)) for expiring in (False, True)
)
_DELETE = "DELETE FROM kvstore WHERE namespace_key IN (SELECT value FROM json_each(?))"
_JOURNAL = "INSERT INTO journal (rev, first_rev, at, session, records, chain) VALUES (?, ?, ?, ?, ?, ?)"

_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_quoted = json.encoder.encode_basestring_ascii


def _record(action: str, key: str, *more: object) -> str:
    """Return a record of the journal: a JSON array."""
    return _to_json((action, key, *more))


class Batch:
    """One caller's operations and, once judged, what came of them: `receipt` or `error`."""

    __slots__ = ("error", "fence", "ops", "receipt")

    def __init__(self, ops: Sequence[Op], fence: Fence) -> None:
        self.ops, self.fence = ops, fence
        self.receipt: Receipt | None = None
        self.error: ProntoError | None = None


class Group:
    """One write transaction in the making: what was read, and what its batches have changed so far."""

    __slots__ = (
        "changed",
        "connection",
        "context",
        "cursor",
        "entries",
        "fence",
        "final",
        "gone",
        "journal",
        "known",
        "limits",
        "now_ms",
        "present",
        "rate",
        "revision",
        "room",
        "target",
    )

    def __init__(self, connection: Connection, cursor: Cursor, target: Target, now_ms: int) -> None:
        self.connection, self.target, self.limits, self.now_ms = connection, target, target.limits, now_ms
        # One for all that is written: a new one for each statement is a tenth of what a short transaction costs.
        self.cursor = cursor
        self.context = target.take_context(connection)
        self.revision = self.context.revision
        # The revision of each key that somebody asked about; 0 is absent or expired.
        self.known: dict[str, int] = {}
        # Near the quota: the keys that have a row, live or expired, and how many rows there are.
        self.present: set[str] | None = None
        self.entries = 0
        # The final state of each changed key, written once: what to upsert, or None for a deletion.
        self.final: dict[str, Row | None] = {}
        # Keys deleted on the way, even if set again: what comes after a deletion is created anew.
        self.gone: set[str] = set()
        # How many bytes the file may still grow; None when that cannot matter.
        self.room: int | None = None
        # How many changes this second still takes; None where that is not limited.
        self.rate: Rate | None = None
        # The fence that was checked last; most groups are of one session.
        self.fence: Fence | None = None
        # One item per journal row: session, first revision, records as JSON.
        self.journal: list[tuple[str, int, list[str]]] = []
        # True when something was written that no journal row tells of.
        self.changed = False
        if target.lock is not None and self.context.lock not in (None, target.lock):
            # The lock file was taken away under a holder, who believes to be alone still.
            self.raise_epoch(target.lock)

    # Judging

    def judge(self, batches: Sequence[Batch]) -> None:
        """Decide every batch in order; only those that pass leave a trace."""
        asked = {op.key for batch in batches for op in batch.ops if op.expect is not None or op.value is None}
        limits = self.limits
        if limits.max_entries is not None or limits.max_keystore_bytes is not None:
            asked |= self._look_at_quotas([op for batch in batches for op in batch.ops])
        if asked:
            self._learn(asked)
        if limits.writes_per_second is not None:
            self.rate = Rate(self.connection, limits.writes_per_second, self.now_ms)
        is_plain = self.room is None and self.present is None and self.rate is None
        for batch in batches:
            try:
                if batch.fence is not self.fence:
                    self.check_fence(batch.fence)
                    self.fence = batch.fence
                op = batch.ops[0] if is_plain and len(batch.ops) == 1 else None
                if op is not None and op.expect is None and op.value is not None:
                    self._judge_set(batch, op)
                else:
                    self._judge(batch)
            except ProntoError as error:
                batch.error = error

    def _look_at_quotas(self, ops: Sequence[Op]) -> set[str]:
        """Learn what is left of them, making room if need be; return the keys that must be known to count entries."""
        count = len(ops)
        characters = sum(len(op.value) + len(op.key) for op in ops if op.value is not None)
        if self._near_quotas(count, characters) and self._delete_expired():
            self._near_quotas(count, characters)
        return set() if self.present is None else {op.key for op in ops}

    def _near_quotas(self, count: int, characters: int) -> bool:
        """Learn how much room there is where that may matter; True when there may not be enough."""
        near = self._near_entries_quota(count)
        self.present = set() if near else None
        self.room = self._room_bytes(ROOM_EACH * count + MOST_OF_CHARACTER * characters)
        return near or self.room is not None

    def _delete_expired(self) -> bool:
        """Delete expired entries, which nobody can read any more, before anything is refused for want of room."""
        keys = expired(self.connection, SWEPT_FOR_ROOM, self.now_ms)
        if keys:
            self._run(_DELETE, (json.dumps(keys),))
            first = self.revision + 1
            self.revision += len(keys)
            self._add_records("quota", first, [_record("expire", key) for key in keys])
        return bool(keys)

    def _near_entries_quota(self, more: int) -> bool:
        most, context = self.limits.max_entries, self.context
        if most is None or context.highest_id + more <= most:
            return False
        # Ids only ever bound the number of rows from above; near the quota it is worth counting them.
        context.highest_id = one(self.connection, "SELECT coalesce(max(id), 0) FROM kvstore")[0]
        if context.highest_id + more <= most:
            return False
        self.entries = one(self.connection, "SELECT count(*) FROM kvstore")[0]
        return self.entries + more > most

    def _room_bytes(self, wanted: int) -> int | None:
        """Return how much the file may still grow; None when it may by what these batches can want at most."""
        most = self.limits.max_keystore_bytes
        # No more pages than file and log together: far from the quota nothing needs to be asked of SQLite.
        if most is None or self.target.size_bytes + log_bytes(self.target.path) + SPLIT_BYTES + wanted <= most:
            return None
        room = most - used_bytes(self.connection) - SPLIT_BYTES
        return room if room < wanted else None

    def _taken(self, key: str, value: str) -> int:
        """Return how many bytes an entry may take: its key stands in the table, its index and the journal."""
        recorded = len(_to_json(key)) + (len(_to_json(value)) if self.context.history else 0)
        return 2 * len(key.encode()) + len(value.encode()) + recorded + ROOM_EACH

    def _learn(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.known[key] = 0
        found = rows(
            self.connection,
            "SELECT namespace_key, ttl_expires_at, rev FROM kvstore "
            "WHERE namespace_key IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        for key, expires_at, revision in found:
            if not isinstance(expires_at, int) or expires_at > self.now_ms or is_damaged(self.connection, key):
                # A damaged entry counts as there: no expectation fits it, and deleting it is the way out.
                self.known[key] = revision if isinstance(revision, int) and revision > 0 else -1
            if self.present is not None:
                self.present.add(key)

    def check_fence(self, fence: Fence) -> None:
        """Raise when the session that writes was fenced off: its epoch is over, or it was put out by name."""
        context = self.context
        if fence.epoch is not None and fence.epoch != context.epoch:
            raise FencedError(
                f"session {shown(fence.session)} was ended by somebody else (epoch {fence.epoch}, now {context.epoch})"
            )
        if fence.session in context.revoked:
            raise FencedError(f"session {shown(fence.session)} was put out by force; nothing was written")
        if fence.token_epoch is not None and fence.token_epoch != context.token_epoch:
            issuers = fence.author.rpartition(" via ")[2]
            raise denied("write", principal=issuers, by_token=True, reason=f"{TOKENS_REVOKED}; nothing was written")

    def _judge_set(self, batch: Batch, op: Op) -> None:
        """Stage an unconditional set of one key, which cannot fail: most of all batches."""
        key, author = op.key, batch.fence.author
        self.revision = revision = self.revision + 1
        row, record = self._staged(op, revision)
        self.final[key] = row
        if key in self.known:
            self.known[key] = revision if self._lives(row) else 0
        if self.journal and self.journal[-1][0] == author and len(self.journal[-1][2]) < MAX_RECORDS:
            self.journal[-1][2].append(record)
        else:
            self._add_records(author, revision, (record,))
        batch.receipt = Receipt(revision, 1)

    def _judge(self, batch: Batch) -> None:
        """Stage all of a batch, then merge it: a failing operation takes its whole batch with it."""
        revision, known, room = self.revision, self.known, self.room
        gone: set[str] = set()
        staged: dict[str, Row | None] = {}
        seen: dict[str, int] = {}
        records: list[str] = []
        for op in batch.ops:
            key = op.key
            if op.expect is not None or op.value is None:
                current = seen[key] if key in seen else known[key]
                if op.expect is not None and op.expect != current:
                    raise RevisionConflictError(key, op.expect, current)
                if op.ttl_ms == CHECK:
                    continue
                if op.value is None:
                    if current:
                        revision += 1
                        staged[key] = None
                        seen[key] = 0
                        gone.add(key)
                        records.append(_record("del", key))
                    continue
            if room is not None:
                room -= self._taken(key, op.value)
                if room < 0:
                    raise QuotaExceededError("max_keystore_bytes", self.limits.max_keystore_bytes or 0)
            revision += 1
            row, record = self._staged(op, revision)
            staged[key] = row
            seen[key] = revision if self._lives(row) else 0
            records.append(record)
        if self.rate is not None and not frees_room(batch.ops):
            self.rate.check(len(records))
        if self.present is not None:
            self._count_entries(staged, self.present)
        if self.rate is not None:
            self.rate.take(len(records))
        first = self.revision + 1
        self.revision, self.room = revision, room
        self.final.update(staged)
        self.gone |= gone
        known.update(seen)
        if records:
            self._add_records(batch.fence.author, first, records)
        batch.receipt = Receipt(revision, len(records))

    def _count_entries(self, staged: dict[str, Row | None], present: set[str]) -> None:
        """Near the quota: keep count of the rows, and refuse a batch that would add too many."""
        most = self.limits.max_entries
        added = {key for key, row in staged.items() if row is not None}
        after = (present | added) - (staged.keys() - added)
        more = len(after) - len(present)
        if most is not None and more > 0 and self.entries + more > most:
            raise QuotaExceededError("max_entries", most)
        self.entries += more
        self.present = after

    def _staged(self, op: Op, revision: int) -> tuple[Row, str]:
        """Return what an upsert writes of a set, and the journal's record of it."""
        key, value, expires_at = op.key, op.value or "", op.expires_at_ms
        if expires_at is None:
            ttl_ms = op.ttl_ms
            if ttl_ms == INHERIT:
                lifetimes = self.context.lifetimes
                ttl_ms = lifetimes.get(namespace_of(key), FOREVER) if lifetimes else FOREVER
            if ttl_ms != FOREVER:
                expires_at = self.now_ms + ttl_ms
        data = value.encode()
        check = checksum(key, data, self.now_ms, expires_at, revision)
        digest = blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
        kept = f",{_quoted(value)}" if self.context.history else ""
        # By hand, since this is done for each set: the encoder takes three times as long.
        if expires_at is None:
            return (key, value, revision, check), f'["set",{_quoted(key)},"{digest}",null{kept}]'
        row = (key, value, revision, check, expires_at)
        return row, f'["set",{_quoted(key)},"{digest}",{expires_at}{kept}]'

    def _lives(self, row: Row) -> bool:
        """False for an entry copied with a moment that has passed: it is absent already."""
        return len(row) == 4 or row[4] > self.now_ms

    # Staging what no batch asks for

    def delete(self, keys: Iterable[str], reason: str, session: str) -> None:
        """Stage the deletion of keys that are known to have a row."""
        gone = dict.fromkeys(keys)
        records = [_record(reason, key) for key in gone]
        first = self.revision + 1
        self.revision += len(records)
        self.final.update(gone)
        self.gone.update(gone)
        self._add_records(session, first, records)

    def raise_epoch(self, lock: tuple[int, int] | None) -> None:
        """Refuse all later writes of the sessions so far; `lock` is the lock file under which this is done, if one."""
        self.context.epoch += 1
        self.context.lock = lock or self.context.lock
        device, inode = self.context.lock or (None, None)
        self._run("UPDATE meta SET epoch = ?, lock_device = ?, lock_inode = ?", (self.context.epoch, device, inode))
        self.changed = True

    def raise_token_epoch(self, lowest: int) -> None:
        """Refuse every token that was minted for the address so far; the epoch is `lowest` then, at least."""
        self.context.token_epoch = max(self.context.token_epoch + 1, lowest)
        self._run("UPDATE meta SET token_epoch = ?", (self.context.token_epoch,))
        self.changed = True

    def revoke(self, session: str) -> None:
        """Refuse all later writes of one shared session."""
        self._run("INSERT OR REPLACE INTO revoked (session, at) VALUES (?, ?)", (session, self.now_ms))
        self.context.revoked = (*self.context.revoked, session)
        self.changed = True

    def restore(self, sessions: Iterable[str]) -> None:
        """Forget revoked sessions that have ended."""
        self._run("DELETE FROM revoked WHERE session IN (SELECT value FROM json_each(?))", (_to_json(list(sessions)),))
        self.context.revoked = tuple(set(self.context.revoked) - set(sessions))
        self.changed = True

    def check_room_for(self, namespace: str) -> None:
        """Raise when a lifetime would pass the size or the rate of the address."""
        most, per_second = self.limits.max_keystore_bytes, self.limits.writes_per_second
        if most is not None and used_bytes(self.connection) + SPLIT_BYTES + self._taken(namespace, "") > most:
            raise QuotaExceededError("max_keystore_bytes", most)
        if per_second is not None:
            Rate(self.connection, per_second, self.now_ms).check(1)

    def set_lifetime(self, namespace: str, ttl_ms: int | None, session: str) -> None:
        """Write the default lifetime of a namespace and its record."""
        if ttl_ms is None:
            self._run("DELETE FROM namespace_ttl WHERE namespace = ?", (namespace,))
            self.context.lifetimes.pop(namespace, None)
        else:
            self._run(
                "INSERT INTO namespace_ttl (namespace, ttl_ms) VALUES (?1, ?2) "
                "ON CONFLICT (namespace) DO UPDATE SET ttl_ms = ?2",
                (namespace, ttl_ms),
            )
            self.context.lifetimes[namespace] = ttl_ms
        self.revision += 1
        self._add_records(session, self.revision, [_record(LIFETIME, namespace, ttl_ms)])

    def set_history(self, keep: bool, session: str) -> None:
        """Write whether the journal keeps values, and its record."""
        self._run("UPDATE meta SET history = ?", (int(keep),))
        self.context.history = keep
        self.revision += 1
        self._add_records(session, self.revision, [_record(HISTORY, "on" if keep else "off")])

    def _add_records(self, session: str, first: int, records: Sequence[str]) -> None:
        """Add records to the last journal row when it is this session's and has room, else begin new rows."""
        if self.journal and self.journal[-1][0] == session:
            last = self.journal[-1][2]
            room = MAX_RECORDS - len(last)
            if room >= len(records):
                last.extend(records)
                return
            last.extend(records[:room])
            first, records = first + room, records[room:]
        for begin in range(0, len(records), MAX_RECORDS):
            self.journal.append((session, first + begin, list(records[begin : begin + MAX_RECORDS])))

    # Writing

    def _run(self, sql: str, parameters: Sequence[object]) -> None:
        self.cursor.execute(sql, parameters)

    def _upsert(self, entries: Sequence[Row], statements: tuple[tuple[int, str], ...]) -> None:
        begin = 0
        for count, statement in statements:
            while len(entries) - begin >= count:
                parameters: list[object] = [self.now_ms]
                for row in entries[begin : begin + count]:
                    parameters += row
                self._run(statement, parameters)
                begin += count

    def write(self) -> None:
        """Write what was staged, the final state of each key once, and the journal."""
        context = self.context
        if self.gone:
            self._run(_DELETE, (json.dumps(list(self.gone)),))
        upserts = [row for row in self.final.values() if row is not None]
        lasting = [row for row in upserts if len(row) == 4]
        self._upsert(lasting, _LASTING)
        if len(lasting) < len(upserts):
            self._upsert([row for row in upserts if len(row) == 5], _EXPIRING)
        for session, first, records in self.journal:
            text = f"[{','.join(records)}]"
            last = first + len(records) - 1
            context.chain = next_chain(
                context.chain, last, first, self.now_ms, session, text, sqlite.chain_key(self.connection)
            )
            # The binding takes three times as long for bytes as for a bytearray.
            self._run(_JOURNAL, (last, first, self.now_ms, session, text, bytearray(context.chain)))
        context.revision = self.revision
        context.highest_id += len(upserts)


def next_chain(chain: bytes, rev: int, first_rev: int, at: int, session: str, records: str, key: bytes = b"") -> bytes:
    """Return the hash that chains a journal row to the one before it; editing any row breaks all that follow.

    With a `key` it is a MAC (keyed BLAKE2b, RFC 7693): without the key nobody can make rows that follow.
    """
    name = session.encode()
    row = b"%d %d %d %d " % (rev, first_rev, at, len(name)) + name + records.encode()
    return blake2b(chain + row, digest_size=CHAIN_BYTES, key=key).digest()


def transact(connection: Connection, target: Target, now_ms: int, work: Callable[[Group], Any]) -> Any:
    """Run `work` on a group inside one write transaction and commit what it staged; return its result.

    Raises our own errors. `BusyError`: nothing was done, try again. `OutcomeUnknownError`: the commit itself failed.
    """
    committing = False
    try:
        cursor = connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            group = Group(connection, cursor, target, now_ms)
            result = work(group)
            if group.journal or group.changed:
                group.write()
                target.check_still_there()
                near = target.near and target.near.look(connection, group.context, target.size_bytes)
                committing = True
                cursor.execute("COMMIT")
                if near and target.near is not None:
                    target.near.tell(near)
            target.keep_context(group.context)
            return result
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK").close()
            # The traceback of an error keeps it, and a statement that is left keeps the file open past its closing.
            cursor.close()
    except sqlite.ERRORS as error:
        failure = sqlite.translated(error, target.path)
        if committing and not isinstance(failure, StorageFullError):
            raise OutcomeUnknownError(
                f"the commit to {shown(target.path)} failed; it may or may not be kept: read before writing again"
            ) from failure
        raise failure from error


def apply(connection: Connection, target: Target, batches: Sequence[Batch], now_ms: int) -> None:
    """Judge and commit a group of batches; each has its receipt or its error afterwards."""
    transact(connection, target, now_ms, lambda group: group.judge(batches))


def set_lifetime(
    connection: Connection, target: Target, namespace: str, ttl_ms: int | None, fence: Fence, now_ms: int
) -> None:
    """Set or drop a namespace's default lifetime."""

    def work(group: Group) -> None:
        group.check_fence(fence)
        if ttl_ms is not None or namespace in group.context.lifetimes:
            if ttl_ms is not None:
                group.check_room_for(namespace)
            group.set_lifetime(namespace, ttl_ms, fence.author)

    transact(connection, target, now_ms, work)


def set_history(connection: Connection, target: Target, keep: bool, fence: Fence, now_ms: int) -> None:
    """Say whether the journal keeps the values of what is set from now on."""

    def work(group: Group) -> None:
        group.check_fence(fence)
        if keep != group.context.history:
            group.set_history(keep, fence.author)

    transact(connection, target, now_ms, work)


def sweep(
    connection: Connection, target: Target, limit: int, fence: Fence, now_ms: int, until_ms: int | None = None
) -> int:
    """Delete up to `limit` entries that had expired at `until_ms` (None: now) in one transaction; return how many."""
    expired_ms = now_ms if until_ms is None else min(now_ms, until_ms)

    def work(group: Group) -> int:
        group.check_fence(fence)
        keys = expired(connection, limit, expired_ms)
        if keys:
            group.delete(keys, "expire", fence.session)
        return len(keys)

    found: int = transact(connection, target, now_ms, work)
    return found
